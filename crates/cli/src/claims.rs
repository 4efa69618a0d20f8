//! The claims that StatefulSets make of their templates: no description names them, and they outlive their StatefulSet.

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::connect::failed;

/// Names of the claims in a namespace that are of these StatefulSets.
///
/// # Errors
///
/// The API server refuses.
pub async fn of_sets(client: &Client, namespace: &str, sets: &[StatefulSet]) -> anyhow::Result<Vec<String>> {
    if sets.iter().all(|set| templates(set).next().is_none()) {
        return Ok(Vec::new());
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let found = api.list_metadata(&ListParams::default()).await;
    let found = found.map_err(failed("PersistentVolumeClaims cannot be listed"))?;
    let names = found.iter().map(ResourceExt::name_any);
    Ok(names.filter(|claim| sets.iter().any(|set| is_of(set, claim))).collect())
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &str> {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.filter_map(|template| template.metadata.name.as_deref())
}

/// Whether a claim is `TEMPLATE-SET-ORDINAL`.
fn is_of(set: &StatefulSet, claim: &str) -> bool {
    let Some((stem, ordinal)) = claim.rsplit_once('-') else { return false };
    let is_number = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    is_number && templates(set).any(|template| stem == format!("{template}-{}", set.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_known_by_their_names() {
        let set = json!({"metadata": {"name": "db"}, "spec": {"selector": {}, "template": {},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}, {"metadata": {"name": "log"}}]}});
        let set: StatefulSet = serde_json::from_value(set).expect("a StatefulSet");
        for (claim, expect) in [
            ("data-db-0", true),
            ("log-db-12", true),
            ("data-db-x", false),
            ("data-db-", false),
            ("data-db2-0", false),
            ("other-db-0", false),
        ] {
            assert_eq!(is_of(&set, claim), expect, "{claim}");
        }
    }
}

//! What a description calls external must be there before anything is applied.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::{Api, Client};
use serde_json::Value;
use yado_types::labels;

use crate::{connect::failed, references::references};

/// Kind, namespace and name of an object that Pods need.
type Needed = (&'static str, String, String);

/// Looks for each claim, ConfigMap and Secret that compiled workloads need and that is not among `objects`. Those of
/// manifests may be made later by whoever wrote them.
///
/// # Errors
///
/// Those that are not there, in one sentence.
pub async fn check(client: &Client, namespace: &str, objects: &[&Value]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for (kind, of, name) in needed(objects, namespace) {
        let there = match kind {
            "PersistentVolumeClaim" => exists::<PersistentVolumeClaim>(client, &of, &name).await,
            "Secret" => exists::<Secret>(client, &of, &name).await,
            _ => exists::<ConfigMap>(client, &of, &name).await,
        };
        if !there? {
            missing.push(format!("{kind} {name} in namespace {of}"));
        }
    }
    anyhow::ensure!(
        missing.is_empty(),
        "what the description calls external is not there: {}; make it first, or have the description make it (without \
         `external`); nothing was applied",
        missing.join(", ")
    );
    Ok(())
}

async fn exists<K>(client: &Client, namespace: &str, name: &str) -> anyhow::Result<bool>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let kind = K::kind(&()).into_owned();
    let found = api.get_metadata_opt(name).await;
    Ok(found.map_err(failed(format!("{kind} {name} cannot be looked for")))?.is_some())
}

/// What the workloads among `objects` need and `objects` do not bring. Pure.
fn needed(objects: &[&Value], namespace: &str) -> BTreeSet<Needed> {
    let of = |object: &Value| object["metadata"]["namespace"].as_str().unwrap_or(namespace).to_owned();
    let brought = |(kind, of_needed, name): &Needed| {
        let mut same =
            objects.iter().filter(|o| o["kind"] == *kind && o["metadata"]["name"] == name.as_str());
        same.any(|o| of(o) == *of_needed)
    };
    let compiled = |o: &&&Value| o["metadata"]["labels"][labels::APP_MANAGED_BY] == labels::MANAGED_BY_YADO;
    let all = objects
        .iter()
        .filter(compiled)
        .flat_map(|object| references(object).into_iter().map(|(kind, name)| (kind, of(object), name)));
    all.filter(|needed| !brought(needed)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_pods_need_and_nobody_brings_is_found() {
        let ours = json!({labels::APP_MANAGED_BY: labels::MANAGED_BY_YADO});
        let workload = |labels: &Value, spec: Value| {
            json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "labels": labels},
                "spec": {"template": {"spec": spec}}})
        };
        let claim =
            json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop"}});
        let mounts = json!({"volumes": [
            {"persistentVolumeClaim": {"claimName": "data"}}, {"configMap": {"name": "conf"}},
            {"secret": {"secretName": "key", "optional": true}},
            {"projected": {"sources": [{"secret": {"name": "token"}}]}},
        ]});
        let env = json!({"containers": [{
            "envFrom": [{"configMapRef": {"name": "all"}}],
            "env": [{"valueFrom": {"secretKeyRef": {"name": "one"}}}, {"value": "x"}],
        }]});
        let rows = [
            (
                vec![workload(&ours, mounts.clone())],
                "ConfigMap conf, PersistentVolumeClaim data, Secret token",
            ),
            (vec![claim, workload(&ours, mounts.clone())], "ConfigMap conf, Secret token"),
            (vec![workload(&ours, env)], "ConfigMap all, Secret one"),
            (vec![workload(&json!({}), mounts)], ""),
        ];
        for (objects, expect) in rows {
            let found = needed(&objects.iter().collect::<Vec<_>>(), "default");
            assert!(found.iter().all(|(_, namespace, _)| namespace == "shop"), "{found:?}");
            let found: Vec<String> = found.iter().map(|(kind, _, name)| format!("{kind} {name}")).collect();
            assert_eq!(found.join(", "), expect);
        }
    }
}

//! The ClusterRole aggregation controller: fills in the rules of ClusterRoles that gather those of others.
//!
//! ```text
//! [ClusterRole] selected by labels --rules--> [ClusterRole] with an aggregationRule
//! ```
//!
//! Watches ClusterRoles. Writes the rules of those that have an aggregation rule. A role that is filled in may itself be
//! selected by another one, as `view` is by `edit`: its change triggers the pass of the next.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Api, Patch};
use kube::{Error, ResourceExt};
use serde_json::json;
use yado_reconcile::{Informer, Next, ObjectKey, Queue};
use yado_types::selector::LabelSelector;

use crate::{Context, writes};

const COMPONENT: &str = "clusterrole-aggregation-controller";
/// Roles reconciled concurrently.
const WORKERS: usize = 1;

/// The rules that a role gathers from `all`, each once: selector by selector, the roles of each by name. `None` where the
/// role does not aggregate, or has these rules already. A selector that cannot be read selects nothing.
fn aggregate(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let aggregation = role.aggregation_rule.as_ref()?;
    let mut others: Vec<_> = all.iter().filter(|r| r.metadata.name != role.metadata.name).collect();
    others.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let Ok(selector) = LabelSelector::from_api(selector) else { continue };
        for other in &others {
            let label = |key: &str| other.metadata.labels.as_ref()?.get(key).map(String::as_str);
            if selector.matches_with(label) {
                for rule in other.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

struct Controller {
    context: Context,
    roles: Arc<Informer<ClusterRole>>,
}

/// Starts the aggregation controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let roles = context.informers.all::<ClusterRole>();
    let queue: Arc<Queue<String>> = Queue::new(context.clock.clone());
    let all = roles.clone();
    // Any role may be selected by any other, and there are few that aggregate.
    roles.feed_queue(&queue, move |change| {
        let aggregates = |role: &&Arc<ClusterRole>| role.aggregation_rule.is_some();
        let own = change.new.as_ref().filter(aggregates).map(|role| role.name_any());
        let known = all.list();
        known.iter().filter(aggregates).map(|role| role.name_any()).chain(own).collect::<Vec<_>>()
    });
    let this = Arc::new(Controller { context: context.clone(), roles });
    context.run("clusterroles", &queue, WORKERS, move |name| {
        let this = this.clone();
        async move { this.sync(&name).await }
    });
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Next, Error> {
        self.roles.synced().await;
        let Some(role) = self.roles.get(&ObjectKey::new("", name)) else { return Ok(Next::Wait) };
        let Some(rules) = aggregate(&role, &self.roles.list()) else { return Ok(Next::Wait) };
        let patch = json!({
            "metadata": { "resourceVersion": role.resource_version() },
            "rules": rules,
        });
        let api: Api<ClusterRole> = Api::all(self.context.client.clone());
        match api.patch(name, &writes::params(COMPONENT), &Patch::Merge(&patch)).await {
            // It was deleted or has changed since; its watch event triggers the next pass.
            Err(error) if writes::has_code(&error, 404) || writes::has_code(&error, 409) => Ok(Next::Wait),
            other => other.map(|_| Next::Wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn role(name: &str, label: &str, verbs: &[&str], gathers: Value) -> Arc<ClusterRole> {
        let rules: Vec<_> =
            verbs.iter().map(|v| json!({"verbs": [v], "apiGroups": [""], "resources": ["pods"]})).collect();
        let mut value = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        if !gathers.is_null() {
            value["aggregationRule"] = json!({ "clusterRoleSelectors": gathers });
        }
        Arc::new(serde_json::from_value(value).expect("a ClusterRole"))
    }

    #[test]
    fn rules_are_gathered_by_labels() {
        let by = |label: &str| json!([{"matchLabels": {label: "true"}}]);
        let others = [
            role("c", "to-x", &["watch", "get"], Value::Null),
            role("b", "to-x", &["get", "list"], Value::Null),
        ];
        type Row<'a> = (&'a [&'a str], Value, Option<&'a [&'a str]>);
        let rows: &[Row<'_>] = &[
            (&[], Value::Null, None),
            (&[], by("to-x"), Some(&["get", "list", "watch"])),
            (&["get", "list", "watch"], by("to-x"), None),
            // What somebody wrote into the role by hand goes.
            (&["delete"], by("to-x"), Some(&["get", "list", "watch"])),
            (&["get"], by("to-y"), Some(&[])),
            (&[], by("to-y"), None),
            (
                &[],
                json!([{"matchLabels": {"to-y": "true"}}, {"matchLabels": {"to-x": "true"}}]),
                Some(&["get", "list", "watch"]),
            ),
            // Without a term it selects every role but itself.
            (&["own"], json!([{}]), Some(&["get", "list", "watch"])),
            (&[], json!([{"matchExpressions": [{"key": "to-x", "operator": "Odd"}]}]), None),
        ];
        for (has, gathers, expect) in rows {
            let own = role("a", "to-x", has, gathers.clone());
            let all: Vec<_> = others.iter().cloned().chain([own.clone()]).collect();
            let found = aggregate(&own, &all);
            let verbs = found.map(|rules| rules.iter().map(|r| r.verbs[0].clone()).collect::<Vec<_>>());
            let expect = expect.map(|verbs| verbs.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
            assert_eq!(verbs, expect, "{has:?} {gathers}");
        }
    }
}

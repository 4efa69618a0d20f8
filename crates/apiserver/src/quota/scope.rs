//! Scopes of quotas: which objects a quota is about.

use serde_json::Value;

use crate::edit::{list, text};
use crate::resource::Resource;

/// Whether a quota's scopes take an object. Quotas with scopes are about Pods only.
pub(super) fn takes(resource: &Resource, object: &Value, quota: &Value) -> bool {
    let spec = &quota["spec"];
    let named = list(&spec["scopes"]).iter().map(|scope| (text(scope), "Exists", &[][..]));
    let selected = list(&spec["scopeSelector"]["matchExpressions"]).iter();
    let selected = selected.map(|e| (text(&e["scopeName"]), text(&e["operator"]), list(&e["values"])));
    let mut all = named.chain(selected).peekable();
    if all.peek().is_none() {
        return true;
    }
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    is_pod && all.all(|(scope, operator, values)| holds(object, scope, operator, values))
}

fn holds(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let spec = &pod["spec"];
    let is_terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let is_best_effort = pod["status"]["qosClass"] == "BestEffort";
    match scope {
        "Terminating" => is_terminating,
        "NotTerminating" => !is_terminating,
        "BestEffort" => is_best_effort,
        "NotBestEffort" => !is_best_effort,
        "PriorityClass" => {
            let class = text(&spec["priorityClassName"]);
            let among = values.iter().any(|value| value == class);
            match operator {
                "In" => among,
                "NotIn" => !among,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        // The only scope left: Pods whose affinity names other Namespaces.
        _ => {
            let terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
                let affinity = &spec["affinity"][kind];
                let preferred = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
                let required = list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
                preferred.map(|term| &term["podAffinityTerm"]).chain(required)
            });
            terms
                .into_iter()
                .any(|term| !list(&term["namespaces"]).is_empty() || !term["namespaceSelector"].is_null())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::find;

    #[test]
    fn scopes_take_the_pods_they_name() {
        let (pods, secrets) =
            (find("", "v1", "pods").expect("served"), find("", "v1", "secrets").expect("served"));
        let deadline = json!({"spec": {"activeDeadlineSeconds": 5}});
        let high = json!({"spec": {"priorityClassName": "high"}, "status": {"qosClass": "BestEffort"}});
        let by_class = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        for (spec, resource, object, expect) in [
            (json!({}), secrets, &high, true),
            (json!({"scopes": ["Terminating"]}), pods, &deadline, true),
            (json!({"scopes": ["Terminating"]}), pods, &high, false),
            (json!({"scopes": ["Terminating"]}), secrets, &deadline, false),
            (json!({"scopes": ["BestEffort", "NotTerminating"]}), pods, &high, true),
            (json!({"scopes": ["NotBestEffort"]}), pods, &high, false),
            (by_class("In", json!(["high"])), pods, &high, true),
            (by_class("NotIn", json!(["high"])), pods, &high, false),
            (by_class("Exists", json!(null)), pods, &deadline, false),
            (by_class("DoesNotExist", json!(null)), pods, &deadline, true),
        ] {
            assert_eq!(takes(resource, object, &json!({"spec": spec})), expect, "{spec} {object}");
        }
    }
}

//! What a Pod gets when it is created.

use serde_json::{Value, json};
use yado_types::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE};

use crate::object::meta;
use crate::resource::{self, Resource};
use crate::server::Inner;
use crate::status::{Failure, Result};

/// How long a Pod stays on a node that is not well, in seconds. As in Kubernetes.
const TOLERATED: u64 = 300;
/// The priority classes that every cluster has.
const SYSTEM_PRIORITIES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn before_create(server: &Inner, pods: &Resource, pod: &mut Value) -> Result<()> {
    if !pod["spec"].is_object() {
        // The rules say what is missing.
        return Ok(());
    }
    account(server, pods, pod)?;
    priority(pods, pod)?;
    tolerate(pod);
    Ok(())
}

/// Every Pod runs as a ServiceAccount of its Namespace.
fn account(server: &Inner, pods: &Resource, pod: &mut Value) -> Result<()> {
    let spec = &pod["spec"];
    let named =
        spec["serviceAccountName"].as_str().or(spec["serviceAccount"].as_str()).filter(|n| !n.is_empty());
    let name = named.unwrap_or("default").to_owned();
    let accounts = resource::find("", "v1", "serviceaccounts").ok_or_else(Failure::no_such_resource)?;
    let namespace = meta(pod, "namespace").to_owned();
    let account = match server.find(accounts, &namespace, &name) {
        Ok(account) => account,
        // A Namespace that is not there is the better thing to complain about, and is noticed next.
        Err(_) if !server.has_namespace(&namespace) => return Ok(()),
        Err(failure) => {
            let why = format!("error looking up service account {namespace}/{name}: {failure}");
            return Err(Failure::forbidden(pods, meta(pod, "name"), &why));
        }
    };
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = name.as_str().into();
    spec["serviceAccount"] = name.into();
    let account = account.value();
    let secrets = &account["imagePullSecrets"];
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty) && secrets.is_array() {
        spec["imagePullSecrets"] = secrets.clone();
    }
    Ok(())
}

fn priority(pods: &Resource, pod: &mut Value) -> Result<()> {
    let class = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let priority = match SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(Failure::forbidden(pods, meta(pod, "name"), &why));
        }
    };
    let spec = &mut pod["spec"];
    spec["priority"] = priority.into();
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
    Ok(())
}

/// A Pod stays for a while on a node that is not well, in case it gets well.
fn tolerate(pod: &mut Value) {
    let spec = &mut pod["spec"];
    if !spec["tolerations"].is_array() {
        spec["tolerations"] = json!([]);
    }
    let Some(tolerations) = spec["tolerations"].as_array_mut() else { return };
    for taint in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let covered = |t: &Value| {
            let key = t["key"].as_str().unwrap_or_default();
            let effect = t["effect"].as_str().unwrap_or_default();
            (key == taint || key.is_empty()) && matches!(effect, "" | "NoExecute")
        };
        if !tolerations.iter().any(covered) {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED,
            }));
        }
    }
}

/// A new Pod waits; its class of service follows from its resources. The scheduler does not look at one with gates, so
/// it is said here why that Pod has no node.
pub(super) fn set_first_status(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(&pod["spec"])});
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "lastTransitionTime": pod["metadata"]["creationTimestamp"],
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod["status"] = status;
}

/// `Guaranteed` where every container has limits for CPU and memory and requests equal to them, `BestEffort` where
/// none has any of those, `Burstable` otherwise.
fn qos_class(spec: &Value) -> &'static str {
    let lists = [&spec["containers"], &spec["initContainers"]];
    let (mut any, mut guaranteed) = (false, true);
    for container in lists.into_iter().filter_map(Value::as_array).flatten() {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"][name], &resources["limits"][name]);
            let given = |v: &Value| !v.is_null() && v != "0";
            any |= given(request) || given(limit);
            guaranteed &= given(limit) && (request.is_null() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_service() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        for (resources, expect) in [
            (vec![json!({})], "BestEffort"),
            (vec![full.clone()], "Guaranteed"),
            (vec![full.clone(), json!({})], "Burstable"),
            (vec![json!({"requests": {"cpu": "1"}})], "Burstable"),
            (vec![json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "2"}})], "Burstable"),
        ] {
            let containers: Vec<_> = resources.iter().map(|r| json!({"resources": r})).collect();
            assert_eq!(qos_class(&json!({"containers": containers})), expect, "{resources:?}");
        }
    }

    #[test]
    fn tolerations_are_added_where_none_covers() {
        for (given, expect) in [
            (json!(null), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": TAINT_NOT_READY, "operator": "Exists", "effect": "NoExecute"}]), 2),
        ] {
            let mut pod = json!({"spec": {"tolerations": given}});
            tolerate(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(expect));
        }
    }
}

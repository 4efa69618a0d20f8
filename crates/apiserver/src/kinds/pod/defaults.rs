//! Defaults of what only a Pod has, and the status that it begins with.

use serde_json::{Map, Value, json};
use yado_types::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use yado_types::resources::qos_class;

use crate::edit::{existing, fill, list, map_at, objects, text, within};
use crate::kinds::pod_spec::default_spec;

/// Seconds that a Pod stays bound to a node that is not ready or cannot be reached, as in Kubernetes.
const LOST_NODE_SECONDS: i64 = 300;

/// Fills in what a Pod leaves out: all that a template leaves out, and what only a Pod has.
pub fn default_pod(pod: &mut Map<String, Value>) {
    let Some(spec) = within(pod, "spec") else { return };
    default_spec(spec);
    fill(spec, "enableServiceLinks", true);
    fill(spec, "priority", 0);
    fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in objects(spec, list) {
            requests_from_limits(container);
            if on_host {
                for port in objects(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        fill(port, "hostPort", number);
                    }
                }
            }
        }
    }
    tolerate_lost_nodes(spec);
    let class = quality_of_service(spec);
    if let Some(status) = within(pod, "status") {
        fill(status, "phase", "Pending");
        fill(status, "qosClass", class);
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if let Some(requests) = within(resources, "requests") {
        for (name, amount) in limits {
            fill(requests, &name, amount);
        }
    }
}

/// A Pod stays for a while on a node that is not well, in case it gets well.
fn tolerate_lost_nodes(spec: &mut Map<String, Value>) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(tolerations) = tolerations else { return };
    for taint in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let covered = tolerations.iter().any(|t| {
            let (key, effect) = (text(&t["key"]), text(&t["effect"]));
            (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if !covered {
            tolerations.push(json!({
                "effect": "NoExecute", "key": taint, "operator": "Exists", "tolerationSeconds": LOST_NODE_SECONDS,
            }));
        }
    }
}

fn quality_of_service(spec: &Map<String, Value>) -> &'static str {
    let amounts =
        |resources| move |list: &str, name: &str| Value::as_str(&Value::get(resources, list)?[name]);
    let containers = ["containers", "initContainers"].into_iter().filter_map(|key| spec.get(key)?.as_array());
    let containers = containers.flatten().map(|container| amounts(&container["resources"]));
    qos_class(spec.get("resources").map(amounts), containers)
}

/// Gives a new Pod with gates the condition that says so.
pub fn say_gated(pod: &mut Value) {
    if list(&pod["spec"]["schedulingGates"]).is_empty() {
        return;
    }
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
        "lastTransitionTime": pod["metadata"]["creationTimestamp"],
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    });
    if let Some(status) = map_at(pod, &["status"]) {
        status.insert("conditions".into(), json!([condition]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_where_none_covers() {
        for (given, expect) in [
            (json!({}), 2),
            (json!({"tolerations": [{"operator": "Exists"}]}), 1),
            (
                json!({"tolerations": [{"key": TAINT_NOT_READY, "operator": "Exists", "effect": "NoExecute"}]}),
                2,
            ),
        ] {
            let mut spec = given.as_object().cloned().expect("an object");
            tolerate_lost_nodes(&mut spec);
            assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(expect), "{given}");
        }
    }

    #[test]
    fn a_class_of_service_is_read_off_the_specification() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        for (spec, expect) in [
            (json!({"containers": [{}]}), "BestEffort"),
            (json!({"containers": [{"resources": full}]}), "Guaranteed"),
            (
                json!({"containers": [{"resources": full}], "initContainers": [{"restartPolicy": "Always"}]}),
                "Burstable",
            ),
            (json!({"containers": [{"resources": full}], "ephemeralContainers": [{}]}), "Guaranteed"),
            (json!({"containers": [{}], "resources": full}), "Guaranteed"),
        ] {
            let spec = spec.as_object().cloned().expect("an object");
            assert_eq!(quality_of_service(&spec), expect, "{spec:?}");
        }
    }
}

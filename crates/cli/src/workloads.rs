//! What runs, whatever its kind: how much of it is wanted, how much is ready, and whether its rollout is complete.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Pod, ReplicationController, Service},
};
use kube::discovery::ApiResource;
use serde_json::Value;

/// Kinds that run something, in Kubernetes' own spelling.
pub const KINDS: [&str; 7] =
    ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "Pod"];

/// Where a kind of [`KINDS`], or a Service, is found in the API.
pub fn resource(kind: &str) -> Option<ApiResource> {
    Some(match kind {
        "Deployment" => ApiResource::erase::<Deployment>(&()),
        "StatefulSet" => ApiResource::erase::<StatefulSet>(&()),
        "DaemonSet" => ApiResource::erase::<DaemonSet>(&()),
        "ReplicaSet" => ApiResource::erase::<ReplicaSet>(&()),
        "ReplicationController" => ApiResource::erase::<ReplicationController>(&()),
        "Service" => ApiResource::erase::<Service>(&()),
        "Job" => ApiResource::erase::<Job>(&()),
        "Pod" => ApiResource::erase::<Pod>(&()),
        _ => return None,
    })
}

/// How many of a thing's Pods are ready, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Ready, or ended well where that is what is wanted.
    pub ready: i64,
    /// Wanted.
    pub wanted: i64,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ready, self.wanted)
    }
}

/// How many are ready.
pub fn count(object: &Value) -> Count {
    let spec = |name: &str, default| object["spec"][name].as_i64().unwrap_or(default);
    let status = |name: &str| object["status"][name].as_i64().unwrap_or(0);
    match object["kind"].as_str().unwrap_or_default() {
        "DaemonSet" => Count { ready: status("numberReady"), wanted: status("desiredNumberScheduled") },
        "Job" => {
            let wanted = spec("completions", 1).max(1);
            Count { ready: (status("succeeded") + status("ready")).min(wanted), wanted }
        }
        "Pod" => {
            let done = object["status"]["phase"] == "Succeeded";
            Count { ready: i64::from(done || condition(object, "Ready")), wanted: 1 }
        }
        "StatefulSet" => Count { ready: status("readyReplicas"), wanted: spec("replicas", 1) },
        _ => Count { ready: status("availableReplicas"), wanted: spec("replicas", 1) },
    }
}

/// Whether the rollout of what keeps a number of Pods is complete: all of them are of the newest revision and ready, and
/// none of an earlier one is left.
pub fn is_rolled_out(object: &Value) -> bool {
    let status = |name: &str| object["status"][name].as_i64().unwrap_or(0);
    let Count { ready, wanted } = count(object);
    let seen = status("observedGeneration") >= object["metadata"]["generation"].as_i64().unwrap_or(0);
    match object["kind"].as_str().unwrap_or_default() {
        "StatefulSet" => {
            let (strategy, status_of) = (&object["spec"]["updateStrategy"], &object["status"]);
            // Pods below the partition keep their revision, and with `OnDelete` all do until somebody deletes them.
            let kept = strategy["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
            let updated = strategy["type"] == "OnDelete"
                || status_of["currentRevision"] == status_of["updateRevision"]
                || status("updatedReplicas") >= wanted - kept;
            seen && updated && ready >= wanted && status("replicas") <= wanted
        }
        // Which nodes it belongs on is known once it has been looked at.
        "DaemonSet" => {
            seen && status("observedGeneration") > 0
                && status("updatedNumberScheduled") >= wanted
                && ready >= wanted
        }
        "Deployment" => {
            let updated = status("updatedReplicas");
            let no_status = object["status"].as_object().is_none_or(serde_json::Map::is_empty);
            let complete = seen && updated >= wanted && status("replicas") <= updated && ready >= wanted;
            if no_status { wanted == 0 } else { complete }
        }
        _ => seen && status("replicas") <= wanted && ready >= wanted,
    }
}

/// Whether a condition of this type is True.
pub fn condition(object: &Value, wanted: &str) -> bool {
    conditions(object).any(|c| c["type"] == wanted && c["status"] == "True")
}

/// The conditions in an object's status.
pub fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten()
}

/// Why a Job has failed for good, if it has.
pub fn failed_condition(object: &Value) -> Option<String> {
    let failed = conditions(object).find(|c| c["type"] == "Failed" && c["status"] == "True")?;
    let words = [&failed["reason"], &failed["message"]];
    Some(words.iter().filter_map(|w| w.as_str()).collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_complete_in_each_kinds_own_way() {
        let rows = [
            ("Deployment", json!({}), json!({}), "0/1", false),
            ("Deployment", json!({"replicas": 0}), json!({}), "0/0", true),
            (
                "Deployment",
                json!({"replicas": 2}),
                json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                "2/2",
                true,
            ),
            (
                "Deployment",
                json!({"replicas": 2}),
                json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}),
                "2/2",
                false,
            ),
            (
                "DaemonSet",
                json!({}),
                json!({"observedGeneration": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberReady": 1}),
                "1/1",
                true,
            ),
            ("DaemonSet", json!({}), json!({}), "0/0", false),
            (
                "StatefulSet",
                json!({"replicas": 1}),
                json!({"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "a"}),
                "1/1",
                true,
            ),
            (
                "StatefulSet",
                json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}),
                json!({"observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1,
                    "currentRevision": "a", "updateRevision": "b"}),
                "3/3",
                true,
            ),
            (
                "StatefulSet",
                json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}),
                json!({"observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "currentRevision": "a", "updateRevision": "b"}),
                "3/3",
                true,
            ),
            (
                "StatefulSet",
                json!({"replicas": 1}),
                json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "b"}),
                "1/1",
                false,
            ),
            (
                "StatefulSet",
                json!({"replicas": 1}),
                json!({"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "currentRevision": "a", "updateRevision": "a"}),
                "2/1",
                false,
            ),
            ("StatefulSet", json!({"replicas": 1}), json!({}), "0/1", false),
            (
                "ReplicaSet",
                json!({"replicas": 2}),
                json!({"observedGeneration": 1, "replicas": 2, "availableReplicas": 1}),
                "1/2",
                false,
            ),
        ];
        for (kind, spec, status, counted, complete) in rows {
            let object = json!({"kind": kind, "metadata": {"generation": 1}, "spec": spec, "status": status});
            assert_eq!(
                (count(&object).to_string().as_str(), is_rolled_out(&object)),
                (counted, complete),
                "{object}"
            );
        }
    }
}

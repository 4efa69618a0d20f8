//! What runs, whatever its kind: how much of it is wanted, how much is ready, and whether it has come to rest.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::Pod,
};
use kube::discovery::ApiResource;
use serde_json::Value;

/// Kinds that run something, in Kubernetes' own spelling.
pub const KINDS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"];

/// Where a kind of [`KINDS`] is found in the API.
pub fn resource(kind: &str) -> Option<ApiResource> {
    Some(match kind {
        "Deployment" => ApiResource::erase::<Deployment>(&()),
        "StatefulSet" => ApiResource::erase::<StatefulSet>(&()),
        "DaemonSet" => ApiResource::erase::<DaemonSet>(&()),
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

/// Whether a thing has come to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// All of it is of the newest revision and serves, or has done its work.
    Ready,
    /// It is on its way.
    Moving,
    /// It has failed for good, for this reason.
    Failed(String),
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

/// Whether an object of one of [`KINDS`] has come to rest.
pub fn rest(object: &Value) -> Rest {
    let status = |name: &str| object["status"][name].as_i64().unwrap_or(0);
    let Count { ready, wanted } = count(object);
    let seen = status("observedGeneration") >= object["metadata"]["generation"].as_i64().unwrap_or(0);
    let at_rest = match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => {
            let updated = status("updatedReplicas");
            let no_status = object["status"].as_object().is_none_or(serde_json::Map::is_empty);
            let settled = seen && updated >= wanted && status("replicas") <= updated && ready >= wanted;
            if no_status { wanted == 0 } else { settled }
        }
        "StatefulSet" => {
            let revision = &object["status"]["updateRevision"];
            let updated =
                object["status"]["currentRevision"] == *revision || status("updatedReplicas") >= wanted;
            seen && updated && ready >= wanted
        }
        // Which nodes it belongs on is known once it has been looked at.
        "DaemonSet" => {
            seen && status("observedGeneration") > 0
                && status("updatedNumberScheduled") >= wanted
                && ready >= wanted
        }
        "Job" => match failed_condition(object) {
            Some(reason) => return Rest::Failed(reason),
            // A Job whose process serves has come to rest as much as one that is over.
            None => ready >= wanted || condition(object, "Complete"),
        },
        "Pod" => match object["status"]["phase"].as_str() {
            Some("Failed") => return Rest::Failed("its process ended with a failure".into()),
            _ => ready >= wanted,
        },
        _ => true,
    };
    if at_rest { Rest::Ready } else { Rest::Moving }
}

fn condition(object: &Value, wanted: &str) -> bool {
    conditions(object).any(|c| c["type"] == wanted && c["status"] == "True")
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten()
}

fn failed_condition(object: &Value) -> Option<String> {
    let failed = conditions(object).find(|c| c["type"] == "Failed" && c["status"] == "True")?;
    let words = [&failed["reason"], &failed["message"]];
    Some(words.iter().filter_map(|w| w.as_str()).collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_comes_to_rest_in_its_own_way() {
        let rows = [
            ("Deployment", json!({}), json!({}), "0/1", Rest::Moving),
            ("Deployment", json!({"replicas": 0}), json!({}), "0/0", Rest::Ready),
            (
                "Deployment",
                json!({"replicas": 2}),
                json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                "2/2",
                Rest::Ready,
            ),
            (
                "Deployment",
                json!({"replicas": 2}),
                json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}),
                "2/2",
                Rest::Moving,
            ),
            (
                "DaemonSet",
                json!({}),
                json!({"observedGeneration": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberReady": 1}),
                "1/1",
                Rest::Ready,
            ),
            ("DaemonSet", json!({}), json!({}), "0/0", Rest::Moving),
            ("Job", json!({}), json!({"active": 1}), "0/1", Rest::Moving),
            ("Job", json!({}), json!({"active": 1, "ready": 1}), "1/1", Rest::Ready),
            ("Job", json!({"completions": 2}), json!({"succeeded": 2}), "2/2", Rest::Ready),
            (
                "Job",
                json!({}),
                json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]}),
                "0/1",
                Rest::Failed("BackoffLimitExceeded: m".into()),
            ),
            (
                "StatefulSet",
                json!({"replicas": 1}),
                json!({"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "a"}),
                "1/1",
                Rest::Ready,
            ),
            ("Pod", json!({}), json!({"phase": "Succeeded"}), "1/1", Rest::Ready),
            ("Pod", json!({}), json!({"phase": "Running"}), "0/1", Rest::Moving),
        ];
        for (kind, spec, status, counted, at_rest) in rows {
            let object = json!({"kind": kind, "metadata": {"generation": 1}, "spec": spec, "status": status});
            assert_eq!((count(&object).to_string().as_str(), rest(&object)), (counted, at_rest), "{object}");
        }
    }
}

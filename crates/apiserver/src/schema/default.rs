//! The values that the API server fills in.

use serde_json::Value;

use super::Kind;

/// Fills in what the user left out, as kube-apiserver and its default admission do for this kind: defaults of fields,
/// and for Pods the priority and the two tolerations that keep a Pod on a lost node for five minutes. Idempotent. What
/// has to be allocated (cluster IPs, node ports) or looked up (service accounts) is left alone.
pub fn default_object(kind: &Kind, object: &mut Value) {
    if let Value::Object(object) = object {
        kind.strategy().default_object(object);
    }
}

#[cfg(test)]
#[path = "default_tests.rs"]
mod tests;

//! The values that the API server fills in.

use serde_json::{Map, Value};

use super::{Kind, message};
use crate::edit::within;

/// Fills in what the user left out, as kube-apiserver and its default admission do for this kind: defaults of fields,
/// and for Pods the priority and the two tolerations that keep a Pod on a lost node for five minutes. Idempotent. What
/// has to be allocated (cluster IPs, node ports) or looked up (service accounts) is left alone.
pub fn default_object(kind: &Kind, object: &mut Value) {
    if let Value::Object(object) = object {
        kind.strategy().default_object(object);
        begin_status(kind, object);
    }
}

/// Gives an object of a built-in kind a status where it has none: clients written in Go never saw one without, and others
/// rely on it.
fn begin_status(kind: &Kind, object: &mut Map<String, Value>) {
    let status = message(kind.message).and_then(|message| message.field("status"));
    if status.is_some_and(|field| field.inner.message().is_some() && !field.keeps_zero) {
        within(object, "status");
    }
}

#[cfg(test)]
#[path = "default_tests.rs"]
mod tests;

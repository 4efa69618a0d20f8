//! The rules of the built-in kinds, in Kubernetes' words.

mod configuration;
mod job;
mod meta;
mod network;
mod network_policy;
mod path;
mod pod;
mod pod_parts;
mod rbac;
mod volume;
mod workload;

use serde_json::{Value, json};

use super::Kind;
use path::{Errors, Path};

/// Which rule a field breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Missing.
    Required,
    /// Not allowed as it is.
    Invalid,
    /// Not one of the values there are.
    NotSupported,
    /// Given twice.
    Duplicate,
    /// Not allowed here or now.
    Forbidden,
    /// Too long.
    TooLong,
    /// More entries than allowed.
    TooMany,
    /// Refers to what is not there.
    NotFound,
}

impl Reason {
    /// The `reason` of a Status' cause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path, like `spec.containers[0].image`.
    pub field: String,
    /// The rule.
    pub reason: Reason,
    /// What is said after the path, like `Required value`.
    pub message: String,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Checks an object (after defaulting) and, for an update, its change from `old`. Status is not looked at, and writes
/// through a subresource (binding, status) need no check here: they change nothing that has rules.
pub fn validate_object(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::root();
    if kind.is_stored() {
        meta::object_meta(kind, &object["metadata"], &root.field("metadata"), &mut errors);
        if let Some(old) = old {
            meta::update(&object["metadata"], &old["metadata"], &root.field("metadata"), &mut errors);
        }
    }
    match kind.message {
        "core.v1.Pod" => pod::pod(object, old, &mut errors),
        "apps.v1.Deployment" => workload::deployment(object, old, &mut errors),
        "apps.v1.ReplicaSet" => workload::replica_set(object, old, &mut errors),
        "apps.v1.DaemonSet" => workload::daemon_set(object, old, &mut errors),
        "apps.v1.ControllerRevision" => workload::controller_revision(object, old, &mut errors),
        "core.v1.ReplicationController" => workload::replication_controller(object, &mut errors),
        "core.v1.PodTemplate" => {
            workload::template(&object["template"], &root.field("template"), &mut errors)
        }
        "batch.v1.Job" => job::job(object, old, &mut errors),
        "core.v1.PersistentVolume" => volume::persistent_volume(object, old, &mut errors),
        "core.v1.PersistentVolumeClaim" => volume::claim(object, old, &mut errors),
        "storage.v1.StorageClass" => volume::storage_class(object, old, &mut errors),
        "networking.v1.NetworkPolicy" => network_policy::network_policy(object, &mut errors),
        "autoscaling.v1.Scale" => workload::scale(object, &mut errors),
        "core.v1.Service" => network::service(object, old, &mut errors),
        "core.v1.Endpoints" => network::endpoints(object, &mut errors),
        "discovery.v1.EndpointSlice" => network::endpoint_slice(object, old, &mut errors),
        "networking.v1.Ingress" => network::ingress(object, &mut errors),
        "networking.v1.IngressClass" => network::ingress_class(object, old, &mut errors),
        "core.v1.ConfigMap" => configuration::config_map(object, old, &mut errors),
        "core.v1.Secret" => configuration::secret(object, old, &mut errors),
        "core.v1.Node" => configuration::node(object, &mut errors),
        "core.v1.Event" => configuration::event(object, &mut errors),
        "core.v1.Binding" => configuration::binding(object, &mut errors),
        "rbac.v1.Role" => rbac::role(object, &mut errors),
        "rbac.v1.ClusterRole" => rbac::cluster_role(object, &mut errors),
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" => rbac::binding(kind, object, old, &mut errors),
        "coordination.v1.Lease" => configuration::lease(object, &mut errors),
        _ => {}
    }
    errors.list
}

/// Checks the labels and annotations of metadata that is taken over into another object.
pub fn validate_labels(meta: &Value) -> Vec<FieldError> {
    let (mut errors, root) = (Errors::default(), Path::root());
    let at = root.field("metadata");
    meta::labels(&meta["labels"], &at.field("labels"), &mut errors);
    meta::annotations(&meta["annotations"], &at.field("annotations"), &mut errors);
    errors.list
}

/// `Deployment.apps "web" is invalid: spec.selector: Required value`.
pub fn invalid_message(kind: &Kind, name: &str, errors: &[FieldError]) -> String {
    let all: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let text = match all.as_slice() {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    format!("{} {name:?} is invalid: {text}", kind.qualified())
}

/// The `Status` (422, `Invalid`) that tells of these errors.
pub fn invalid_status(kind: &Kind, name: &str, errors: &[FieldError]) -> Value {
    let cause = |e: &FieldError| json!({"reason": e.reason.cause(), "message": e.message, "field": e.field});
    let causes: Vec<Value> = errors.iter().map(cause).collect();
    let mut details = json!({"name": name, "kind": kind.kind, "causes": causes});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": invalid_message(kind, name, errors), "reason": "Invalid", "details": details, "code": 422,
    })
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

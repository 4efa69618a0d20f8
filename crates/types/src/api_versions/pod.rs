//! Converts alpha and beta annotations of Pods to the fields that replaced them.

use serde_json::{Map, Value, json};

use super::{FieldDiagnostic, FieldDiagnostics, at, take_annotation};

/// Annotations with JSON values and the fields of the Pod spec that replaced them, the older annotation first.
const JSON_FIELDS: [(&str, &str); 6] = [
    ("pod.alpha.kubernetes.io/init-containers", "initContainers"),
    ("pod.beta.kubernetes.io/init-containers", "initContainers"),
    ("scheduler.alpha.kubernetes.io/affinity", "affinity"),
    ("scheduler.alpha.kubernetes.io/tolerations", "tolerations"),
    ("scheduler.alpha.kubernetes.io/nodeSelector", "nodeSelector"),
    ("pod.alpha.kubernetes.io/affinity", "affinity"),
];

/// Annotations with string values and the fields of the Pod spec that replaced them.
const TEXT_FIELDS: [(&str, &str); 3] = [
    ("pod.beta.kubernetes.io/hostname", "hostname"),
    ("pod.beta.kubernetes.io/subdomain", "subdomain"),
    ("scheduler.alpha.kubernetes.io/name", "schedulerName"),
];

/// Renamed node labels.
const NODE_LABELS: [(&str, &str); 6] = [
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.alpha.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// Converts the Pod template at `path`.
pub(super) fn modernise_template(object: &mut Value, path: &[&str], remarks: &mut FieldDiagnostics) {
    if at(object, path).is_some_and(|t| t.is_object()) {
        modernise(object, path, remarks);
    }
}

/// Converts the Pod or Pod template at `path`.
pub(super) fn modernise(object: &mut Value, path: &[&str], remarks: &mut FieldDiagnostics) {
    let mut fields: Vec<(&str, Value)> = Vec::new();
    for (annotation, field) in JSON_FIELDS {
        let Some(value) = take_annotation(object, path, annotation) else { continue };
        match value.as_str().map(serde_json::from_str::<Value>) {
            Some(Ok(value)) => fields.push((field, value)),
            _ => {
                let place = [path, &["metadata", "annotations", annotation]].concat();
                let sentence = format!("{annotation} is not JSON, so no {field} can be taken from it");
                remarks.errors.push(FieldDiagnostic::new(&place, sentence));
            }
        }
    }
    for (annotation, field) in TEXT_FIELDS {
        if let Some(value) = take_annotation(object, path, annotation) {
            fields.push((field, value));
        }
    }
    if take_annotation(object, path, "scheduler.alpha.kubernetes.io/critical-pod").is_some() {
        fields.push(("priorityClassName", "system-cluster-critical".into()));
    }
    let sysctls = sysctls(object, path);
    let seccomp = take_annotation(object, path, "seccomp.security.alpha.kubernetes.io/pod");
    let Some(spec) = at(object, path).and_then(|o| o.get_mut("spec")).and_then(Value::as_object_mut) else {
        return;
    };
    for (field, value) in fields {
        spec.entry(field).or_insert(value);
    }
    let profile = seccomp.as_ref().and_then(Value::as_str).and_then(seccomp_profile);
    if let Some(profile) = profile
        && let Some(security) = security(spec)
    {
        security.entry("seccompProfile").or_insert(profile);
    }
    if !sysctls.is_empty()
        && let Some(security) = security(spec)
    {
        security.entry("sysctls").or_insert(sysctls.into());
    }
    // The name of the field before Kubernetes 1.0.
    if let Some(host) = spec.shift_remove("host") {
        spec.entry("nodeName").or_insert(host);
    }
    node_labels(spec);
}

/// The security context, created if missing; `None` if it is not an object, which the API refuses.
fn security(spec: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    spec.entry("securityContext").or_insert(json!({})).as_object_mut()
}

/// Parses the two annotations with `name=value,name=value`.
fn sysctls(object: &mut Value, path: &[&str]) -> Vec<Value> {
    let annotations = ["security.alpha.kubernetes.io/sysctls", "security.alpha.kubernetes.io/unsafe-sysctls"];
    let mut all = Vec::new();
    for annotation in annotations {
        let value = take_annotation(object, path, annotation);
        let pairs = value.as_ref().and_then(Value::as_str).unwrap_or_default().split(',');
        all.extend(
            pairs.filter_map(|p| p.trim().split_once('=')).map(|(n, v)| json!({ "name": n, "value": v })),
        );
    }
    all
}

fn seccomp_profile(annotation: &str) -> Option<Value> {
    Some(match annotation {
        "runtime/default" | "docker/default" => json!({ "type": "RuntimeDefault" }),
        "unconfined" => json!({ "type": "Unconfined" }),
        _ => json!({ "type": "Localhost", "localhostProfile": annotation.strip_prefix("localhost/")? }),
    })
}

fn node_labels(spec: &mut Map<String, Value>) {
    let Some(selector) = spec.get_mut("nodeSelector").and_then(Value::as_object_mut) else { return };
    for (old, new) in NODE_LABELS {
        if let Some(value) = selector.shift_remove(old) {
            selector.entry(new).or_insert(value);
        }
    }
}

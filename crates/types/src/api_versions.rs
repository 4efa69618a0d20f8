//! Converts objects of removed API versions, and replaced fields and annotations, to current API versions.
//!
//! Written values keep their meaning; omitted values get the current default. Annotations that are not in the tables below,
//! such as those of a cloud's load balancer, are kept.

use serde_json::{Map, Value, json};

mod autoscaling;
mod definition;
mod ingress;
mod pod;

/// An error or a warning about a field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDiagnostic {
    /// The keys from the root of the object to the field.
    pub path: Vec<String>,
    /// The message, one sentence.
    pub sentence: String,
}

impl FieldDiagnostic {
    fn new(path: &[&str], sentence: impl Into<String>) -> Self {
        FieldDiagnostic { path: path.iter().map(ToString::to_string).collect(), sentence: sentence.into() }
    }
}

/// Errors and warnings of a conversion.
#[derive(Debug, Default)]
pub struct FieldDiagnostics {
    /// Errors, which make the object unusable.
    pub errors: Vec<FieldDiagnostic>,
    /// Warnings about fields that no longer have an effect, and about guesses.
    pub warnings: Vec<FieldDiagnostic>,
}

/// The replacement of a kind in a removed API version.
enum Replacement {
    /// The same kind in this version, possibly with other fields.
    Version(&'static str),
    /// The kind was removed; the alternative, for the message.
    Removed(&'static str),
}

/// The replacement of `kind` in `version`; `None` if the version is current or unknown.
fn replacement(version: &str, kind: &str) -> Option<Replacement> {
    use Replacement::{Removed, Version};
    Some(match (version, kind) {
        (
            "extensions/v1beta1" | "apps/v1beta1" | "apps/v1beta2",
            "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ControllerRevision",
        ) => Version("apps/v1"),
        (
            "extensions/v1beta1" | "networking.k8s.io/v1beta1",
            "Ingress" | "IngressClass" | "NetworkPolicy",
        ) => Version("networking.k8s.io/v1"),
        ("extensions/v1beta1" | "batch/v2alpha1" | "batch/v1beta1", "Job" | "CronJob") => Version("batch/v1"),
        // The old name of CronJob.
        ("batch/v2alpha1", "ScheduledJob") => Version("batch/v1"),
        (
            "extensions/v1beta1" | "autoscaling/v2alpha1" | "autoscaling/v2beta1" | "autoscaling/v2beta2",
            "HorizontalPodAutoscaler",
        ) => Version("autoscaling/v2"),
        ("policy/v1beta1", "PodDisruptionBudget") => Version("policy/v1"),
        ("extensions/v1beta1" | "policy/v1beta1", "PodSecurityPolicy") => {
            Removed("label the namespace with pod-security.kubernetes.io/enforce to say what its Pods may do")
        }
        ("extensions/v1beta1", "ThirdPartyResource") => {
            Removed("a CustomResourceDefinition describes a kind of one's own")
        }
        ("settings.k8s.io/v1alpha1", "PodPreset") => {
            Removed("write what it injects into the Pods themselves")
        }
        ("rbac.authorization.k8s.io/v1alpha1" | "rbac.authorization.k8s.io/v1beta1", _) => {
            Version("rbac.authorization.k8s.io/v1")
        }
        ("storage.k8s.io/v1alpha1" | "storage.k8s.io/v1beta1", _) => Version("storage.k8s.io/v1"),
        ("scheduling.k8s.io/v1alpha1" | "scheduling.k8s.io/v1beta1", _) => Version("scheduling.k8s.io/v1"),
        ("coordination.k8s.io/v1beta1", _) => Version("coordination.k8s.io/v1"),
        ("node.k8s.io/v1alpha1" | "node.k8s.io/v1beta1", "RuntimeClass") => Version("node.k8s.io/v1"),
        ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition") => Version("apiextensions.k8s.io/v1"),
        ("admissionregistration.k8s.io/v1beta1", _) => Version("admissionregistration.k8s.io/v1"),
        ("apiregistration.k8s.io/v1beta1", "APIService") => Version("apiregistration.k8s.io/v1"),
        (
            "flowcontrol.apiserver.k8s.io/v1beta1"
            | "flowcontrol.apiserver.k8s.io/v1beta2"
            | "flowcontrol.apiserver.k8s.io/v1beta3",
            _,
        ) => Version("flowcontrol.apiserver.k8s.io/v1"),
        ("certificates.k8s.io/v1beta1", _) => Version("certificates.k8s.io/v1"),
        // The last version before Kubernetes 1.0.
        ("v1beta3", _) => Version("v1"),
        _ => return None,
    })
}

/// The current API version of `kind`, for the most common kinds.
pub fn version_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod"
        | "Service"
        | "ConfigMap"
        | "Secret"
        | "Namespace"
        | "ServiceAccount"
        | "Endpoints"
        | "ReplicationController"
        | "PersistentVolume"
        | "PersistentVolumeClaim"
        | "List" => "v1",
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => "apps/v1",
        "Ingress" | "NetworkPolicy" | "IngressClass" => "networking.k8s.io/v1",
        "Job" | "CronJob" => "batch/v1",
        "HorizontalPodAutoscaler" => "autoscaling/v2",
        "PodDisruptionBudget" => "policy/v1",
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" => "rbac.authorization.k8s.io/v1",
        "StorageClass" => "storage.k8s.io/v1",
        "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
        _ => return None,
    })
}

/// Converts `object` to a current API version; `None` if its kind was removed without a replacement.
pub fn modernise(mut object: Value, remarks: &mut FieldDiagnostics) -> Option<Value> {
    let version = text(&object, "apiVersion");
    let kind = text(&object, "kind");
    match replacement(&version, &kind) {
        Some(Replacement::Version(new)) => object["apiVersion"] = new.into(),
        Some(Replacement::Removed(instead)) => {
            let sentence =
                format!("{kind} is left out, as Kubernetes has not had this kind for years: {instead}");
            remarks.warnings.push(FieldDiagnostic::new(&["kind"], sentence));
            return None;
        }
        None if version == "v1beta1" || version == "v1beta2" => {
            let sentence = format!(
                "apiVersion {version} is from before the first release and differs in every field: write this {kind} anew for v1"
            );
            remarks.errors.push(FieldDiagnostic::new(&["apiVersion"], sentence));
            return None;
        }
        None => {}
    }
    fields(&mut object, &kind, &version, remarks);
    Some(object)
}

/// Converts fields and annotations of a kind in any version.
fn fields(object: &mut Value, kind: &str, version: &str, remarks: &mut FieldDiagnostics) {
    match kind {
        "Pod" => pod::modernise(object, &[], remarks),
        "ReplicationController" => pod::modernise_template(object, &["spec", "template"], remarks),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {
            pod::modernise_template(object, &["spec", "template"], remarks);
            if version != "apps/v1" {
                workload(object, kind, remarks);
            }
        }
        "Job" => pod::modernise_template(object, &["spec", "template"], remarks),
        "CronJob" | "ScheduledJob" => {
            object["kind"] = "CronJob".into();
            pod::modernise_template(object, &["spec", "jobTemplate", "spec", "template"], remarks);
        }
        "Ingress" => ingress::modernise(object, remarks),
        "Service" => service(object),
        "PersistentVolumeClaim" => {
            annotation_to_field(object, "volume.beta.kubernetes.io/storage-class", "storageClassName");
        }
        "PersistentVolume" => {
            annotation_to_field(object, "volume.beta.kubernetes.io/storage-class", "storageClassName");
        }
        "StorageClass" => rename_annotation(
            object,
            "storageclass.beta.kubernetes.io/is-default-class",
            "storageclass.kubernetes.io/is-default-class",
        ),
        "HorizontalPodAutoscaler" if !matches!(version, "autoscaling/v1" | "autoscaling/v2") => {
            autoscaling::modernise(object);
        }
        "CustomResourceDefinition" if version != "apiextensions.k8s.io/v1" => definition::modernise(object),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks(object),
        "RoleBinding" | "ClusterRoleBinding" if version.ends_with("v1alpha1") => subjects(object),
        _ => {}
    }
}

/// Converts Deployments, ReplicaSets, DaemonSets and StatefulSets: versions before `apps/v1` defaulted the selector to the
/// labels of the Pod template.
fn workload(object: &mut Value, kind: &str, remarks: &mut FieldDiagnostics) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.shift_remove("rollbackTo");
    spec.shift_remove("templateGeneration");
    if spec.get("selector").is_none_or(Value::is_null) {
        let labels = spec.get("template").and_then(|t| t.pointer("/metadata/labels")).cloned();
        match labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) {
            Some(labels) => {
                insert_before(spec, "template", "selector", json!({ "matchLabels": labels }));
            }
            None => {
                let sentence = format!(
                    "this {kind} has no selector and its template no labels to take one from: write spec.template.metadata.labels"
                );
                remarks.errors.push(FieldDiagnostic::new(&["spec", "template", "metadata"], sentence));
            }
        }
    }
    if kind == "StatefulSet" && !spec.contains_key("serviceName") {
        let name = text(&object["metadata"], "name");
        object["spec"]["serviceName"] = name.into();
    }
}

fn service(object: &mut Value) {
    let publish = "service.alpha.kubernetes.io/tolerate-unready-endpoints";
    if let Some(Value::String(value)) = take_annotation(object, &[], publish)
        && value == "true"
    {
        object["spec"]["publishNotReadyAddresses"] = true.into();
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    // Field names from before Kubernetes 1.0, which early examples kept for years.
    for (old, new) in
        [("portalIP", "clusterIP"), ("publicIPs", "externalIPs"), ("deprecatedPublicIPs", "externalIPs")]
    {
        if let Some(value) = spec.shift_remove(old) {
            spec.entry(new).or_insert(value);
        }
    }
    if spec.shift_remove("createExternalLoadBalancer") == Some(Value::Bool(true)) {
        spec.entry("type").or_insert("LoadBalancer".into());
    }
    if spec.get("sessionAffinity") == Some(&"".into()) {
        spec.shift_remove("sessionAffinity");
    }
}

fn webhooks(object: &mut Value) {
    let hooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
    for hook in hooks.into_iter().flatten().filter_map(Value::as_object_mut) {
        // Fields that are required in v1, with the defaults of v1beta1. A webhook with unknown side effects is not called on dry
        // runs.
        hook.entry("admissionReviewVersions").or_insert(json!(["v1beta1"]));
        if hook.get("sideEffects").is_none_or(|s| s == "Unknown" || s == "Some") {
            hook.insert("sideEffects".into(), "None".into());
        }
        hook.entry("failurePolicy").or_insert("Ignore".into());
        hook.entry("matchPolicy").or_insert("Exact".into());
        hook.entry("timeoutSeconds").or_insert(30.into());
    }
}

fn subjects(object: &mut Value) {
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten().filter_map(Value::as_object_mut) {
        let Some(Value::String(version)) = subject.shift_remove("apiVersion") else { continue };
        if let Some((group, _)) = version.split_once('/') {
            subject.insert("apiGroup".into(), group.into());
        }
    }
}

fn annotation_to_field(object: &mut Value, annotation: &str, field: &str) {
    let Some(value) = take_annotation(object, &[], annotation) else { return };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.entry(field).or_insert(value);
    }
}

fn rename_annotation(object: &mut Value, old: &str, new: &str) {
    if let Some(value) = take_annotation(object, &[], old) {
        object["metadata"]["annotations"][new] = value;
    }
}

/// Removes an annotation of the object at `path`, and the annotations field if it becomes empty.
fn take_annotation(object: &mut Value, path: &[&str], annotation: &str) -> Option<Value> {
    let metadata = at(object, path)?.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let value = annotations.shift_remove(annotation)?;
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
    Some(value)
}

/// The value at `path`.
fn at<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, key| value.get_mut(*key))
}

fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

/// Inserts a field before the field `next`, or at the end if there is none.
fn insert_before(map: &mut Map<String, Value>, next: &str, key: &str, value: Value) {
    map.shift_remove(key);
    let place = map.keys().position(|k| k == next).unwrap_or(map.len());
    map.shift_insert(place, key.into(), value);
}

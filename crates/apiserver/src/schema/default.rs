//! The values that the API server fills in.

mod pod;
mod rbac;
mod volume;
mod workload;

use serde_json::{Map, Value, json};

use super::Kind;

/// Fills in what the user left out, as kube-apiserver and its default admission do for this kind: defaults of fields,
/// and for Pods the priority and the two tolerations that keep a Pod on a lost node for five minutes. Idempotent. What
/// has to be allocated (cluster IPs, node ports) or looked up (service accounts) is left alone.
pub fn default_object(kind: &Kind, object: &mut Value) {
    let Value::Object(object) = object else { return };
    match kind.message {
        "core.v1.Pod" => pod::default_pod(object),
        "core.v1.Service" => service(object),
        "core.v1.Secret" => fill(object, "type", "Opaque"),
        "core.v1.Namespace" => namespace(object),
        "core.v1.Endpoints" => {
            for subset in objects(object, "subsets") {
                objects(subset, "ports").for_each(|port| fill(port, "protocol", "TCP"));
            }
        }
        "core.v1.Node" => node(object),
        "discovery.v1.EndpointSlice" => {
            for port in objects(object, "ports") {
                fill(port, "name", "");
                fill(port, "protocol", "TCP");
            }
        }
        "apps.v1.Deployment" => workload::deployment(object),
        "apps.v1.ReplicaSet" => workload::replica_set(object),
        "apps.v1.DaemonSet" => workload::daemon_set(object),
        "core.v1.ReplicationController" => workload::replication_controller(object),
        "core.v1.PodTemplate" => workload::template(object),
        "batch.v1.Job" => workload::job(object),
        "core.v1.PersistentVolume" => volume::persistent_volume(object),
        "core.v1.PersistentVolumeClaim" => volume::claim(object),
        "storage.v1.StorageClass" => {
            fill(object, "reclaimPolicy", "Delete");
            fill(object, "volumeBindingMode", "Immediate");
        }
        "networking.v1.NetworkPolicy" => network_policy(object),
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" => rbac::binding(object),
        "networking.v1.IngressClass" => {
            if let Some(parameters) = existing(object, "spec").and_then(|spec| existing(spec, "parameters")) {
                fill(parameters, "scope", "Cluster");
            }
        }
        _ => {}
    }
}

/// Sets a field that is not there.
fn fill(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !object.contains_key(key) {
        object.insert(key.to_owned(), value.into());
    }
}

/// The object in a field, made where there is none. `None` where something else is there, which decoding excludes.
fn within<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    object.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn existing<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_object_mut)
}

/// The objects in a list field.
fn objects<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn namespace(object: &mut Map<String, Value>) {
    let metadata = object.get("metadata");
    let name = metadata.and_then(|m| m.get("name")).cloned();
    // One that is being deleted has had its finalizer, or is having it removed.
    let is_terminating = metadata.and_then(|m| m.get("deletionTimestamp")).is_some();
    if let Some(spec) = within(object, "spec").filter(|_| !is_terminating) {
        fill(spec, "finalizers", json!(["kubernetes"]));
    }
    if let Some(status) = within(object, "status") {
        fill(status, "phase", "Active");
    }
    if let (Some(name), Some(metadata)) = (name, existing(object, "metadata"))
        && let Some(labels) = within(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
}

fn node(object: &mut Map<String, Value>) {
    if let Some(status) = existing(object, "status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        fill(status, "allocatable", capacity);
    }
}

fn service(object: &mut Map<String, Value>) {
    if let Some(status) = within(object, "status") {
        fill(status, "loadBalancer", json!({}));
    }
    let Some(spec) = within(object, "spec") else { return };
    fill(spec, "type", "ClusterIP");
    fill(spec, "sessionAffinity", "None");
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if spec["sessionAffinity"] == "ClientIP" {
        let timeout = within(spec, "sessionAffinityConfig").and_then(|config| within(config, "clientIP"));
        if let Some(timeout) = timeout {
            fill(timeout, "timeoutSeconds", 10_800);
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        fill(spec, "internalTrafficPolicy", "Cluster");
        fill(spec, "ipFamilies", json!(["IPv4"]));
        fill(spec, "ipFamilyPolicy", "SingleStack");
        if let Some(address) = spec.get("clusterIP").cloned() {
            fill(spec, "clusterIPs", json!([address]));
        }
    }
    for port in objects(spec, "ports") {
        fill(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            fill(port, "targetPort", number);
        }
    }
}

fn network_policy(object: &mut Map<String, Value>) {
    let Some(spec) = within(object, "spec") else { return };
    let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    fill(spec, "policyTypes", if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for direction in ["ingress", "egress"] {
        for rule in objects(spec, direction) {
            objects(rule, "ports").for_each(|port| fill(port, "protocol", "TCP"));
        }
    }
}

#[cfg(test)]
#[path = "default_tests.rs"]
mod tests;

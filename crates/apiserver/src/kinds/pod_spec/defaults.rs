//! Defaults of the Pod specification, in a Pod or in a template.

use serde_json::{Map, Value, json};

use crate::edit::{existing, fill, objects};

/// 0644, the mode of files in volumes made from objects.
const FILE_MODE: i64 = 0o644;

/// Fills in what a Pod specification leaves out.
pub fn default_spec(spec: &mut Map<String, Value>) {
    fill(spec, "restartPolicy", "Always");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "securityContext", json!({}));
    fill(spec, "schedulerName", "default-scheduler");
    // The deprecated name follows the current one, for old clients.
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        spec.insert("serviceAccount".into(), account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        spec.insert("serviceAccountName".into(), account);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        objects(spec, list).for_each(container);
    }
    objects(spec, "volumes").for_each(volume);
}

fn container(container: &mut Map<String, Value>) {
    if let Some(image) = container.get("image").and_then(Value::as_str) {
        let policy = pull_policy(image);
        fill(container, "imagePullPolicy", policy);
    }
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    objects(container, "ports").for_each(|port| fill(port, "protocol", "TCP"));
    for env in objects(container, "env") {
        if let Some(from) = existing(env, "valueFrom") {
            field_sources(from);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, name) {
            for (key, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                fill(probe, key, value);
            }
            http_get(probe);
            if let Some(grpc) = existing(probe, "grpc") {
                fill(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = existing(lifecycle, hook) {
                http_get(hook);
            }
        }
    }
}

/// An image without a tag or with `latest` may have changed; any other is taken from the node where it is there.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = existing(handler, "httpGet") {
        fill(get, "path", "/");
        fill(get, "scheme", "HTTP");
    }
}

fn field_sources(source: &mut Map<String, Value>) {
    if let Some(field) = existing(source, "fieldRef") {
        fill(field, "apiVersion", "v1");
    }
    if let Some(field) = existing(source, "resourceFieldRef") {
        fill(field, "divisor", "0");
    }
}

fn volume(volume: &mut Map<String, Value>) {
    // A volume that names no source is an empty directory.
    if volume.keys().all(|key| key == "name") {
        fill(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(downward) = existing(volume, "downwardAPI") {
        objects(downward, "items").for_each(field_sources);
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in objects(projected, "sources") {
            if let Some(downward) = existing(source, "downwardAPI") {
                objects(downward, "items").for_each(field_sources);
            }
            if let Some(token) = existing(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", 3600);
            }
        }
    }
    if let Some(host_path) = existing(volume, "hostPath") {
        fill(host_path, "type", "");
    }
}

//! What workloads refer to: claims, ConfigMaps and Secrets.

use std::collections::BTreeSet;

use serde_json::Value;

/// Kinds and names of what an object's Pods cannot start without.
pub fn references(object: &Value) -> BTreeSet<(&'static str, String)> {
    let spec = if object["kind"] == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
    let mut found = BTreeSet::new();
    let mut add = |kind, reference: &Value, key: &str| {
        if let Some(name) = reference[key].as_str().filter(|_| reference["optional"] != true) {
            found.insert((kind, name.to_owned()));
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for volume in list(&spec["volumes"]) {
        add("PersistentVolumeClaim", &volume["persistentVolumeClaim"], "claimName");
        add("ConfigMap", &volume["configMap"], "name");
        add("Secret", &volume["secret"], "secretName");
        for source in list(&volume["projected"]["sources"]) {
            add("ConfigMap", &source["configMap"], "name");
            add("Secret", &source["secret"], "name");
        }
    }
    for container in ["initContainers", "containers"].iter().flat_map(|field| list(&spec[field])) {
        for source in list(&container["envFrom"]) {
            add("ConfigMap", &source["configMapRef"], "name");
            add("Secret", &source["secretRef"], "name");
        }
        for variable in list(&container["env"]) {
            add("ConfigMap", &variable["valueFrom"]["configMapKeyRef"], "name");
            add("Secret", &variable["valueFrom"]["secretKeyRef"], "name");
        }
    }
    found
}

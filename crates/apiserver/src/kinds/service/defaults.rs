//! Defaults of Services.

use serde_json::{Map, Value, json};

use crate::edit::{fill, objects, within};

/// Fills in what a Service leaves out.
pub fn default_service(object: &mut Map<String, Value>) {
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
        // Clients in Go write 0 where none is set.
        let is_unset = |target: &Value| target.is_null() || target == 0 || target == "";
        if port.get("targetPort").is_none_or(is_unset)
            && let Some(number) = port.get("port").cloned()
        {
            port.insert("targetPort".into(), number);
        }
    }
}

//! Rules of Services.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use yado_types::labels::LOAD_BALANCER_SOURCE_RANGES;
use yado_types::names;

use crate::edit::{list, text};
use crate::kinds::network::{PROTOCOLS, destination, ip, is_range, number_or_name};
use crate::schema::validate::{Errors, Path, meta};

/// Checks a Service.
pub fn validate_service(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    let kind = text(&spec["type"]);
    errors.one_of(
        &at.field("type"),
        &spec["type"],
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    errors.one_of(&at.field("sessionAffinity"), &spec["sessionAffinity"], &["ClientIP", "None"]);
    let policies = ["Cluster", "Local"];
    for key in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        errors.one_of(&at.field(key), &spec[key], &policies);
    }
    meta::labels(&spec["selector"], &at.field("selector"), errors);
    cluster_addresses(spec, kind, &at, errors);
    if kind == "ExternalName" {
        let name = text(&spec["externalName"]).trim_end_matches('.');
        if name.is_empty() {
            errors.required(&at.field("externalName"), "");
        } else {
            errors.check_text(&at.field("externalName"), name, names::dns_subdomain(name));
        }
    }
    for (i, address) in list(&spec["externalIPs"]).iter().enumerate() {
        destination(address, &at.field("externalIPs").index(i), errors);
    }
    session_timeout(spec, &at, errors);
    source_ranges(object, kind, errors);
    balancer_addresses(object, old, errors);
    let headless = kind == "ClusterIP" && spec["clusterIP"] == "None";
    if list(&spec["ports"]).is_empty() && kind != "ExternalName" && !headless {
        errors.required(&at.field("ports"), "");
    }
    service_ports(spec, kind, &at.field("ports"), errors);
    if let Some(old) = old {
        service_update(spec, &old["spec"], &at, errors);
    }
}

fn cluster_addresses(spec: &Value, kind: &str, at: &Path<'_>, errors: &mut Errors) {
    let addresses_at = at.field("clusterIPs");
    let first = text(&spec["clusterIP"]);
    if kind == "ExternalName" {
        if !first.is_empty() {
            errors.forbidden(&addresses_at.index(0), "may not be used when `type` is ExternalName");
        }
        return;
    }
    if first == "None" && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.invalid_text(&addresses_at.index(0), first, &detail);
    }
    for (i, address) in list(&spec["clusterIPs"]).iter().enumerate() {
        if text(address) != "None" {
            ip(address, &addresses_at.index(i), errors);
        }
    }
    if let Some(address) = list(&spec["clusterIPs"]).first().filter(|a| text(a) != first) {
        errors.invalid(&at.field("clusterIPs"), &json!([address]), "first value must match `clusterIP`");
    }
}

/// The longest time for which a client address may keep its endpoint, in seconds.
const MAX_SESSION_TIMEOUT: i64 = 86_400;

fn session_timeout(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| !(1..=MAX_SESSION_TIMEOUT).contains(&seconds)) {
        let at = at.field("sessionAffinityConfig");
        let at = at.field("clientIP");
        let detail = format!("must be greater than 0 and at most {MAX_SESSION_TIMEOUT}");
        errors.invalid(&at.field("timeoutSeconds"), timeout, &detail);
    }
}

/// Ranges that may use a load balancer: the field, or else the annotation that came before it.
fn source_ranges(object: &Value, kind: &str, errors: &mut Errors) {
    let root = Path::root();
    let (spec, metadata) = (root.field("spec"), root.field("metadata"));
    let (field, annotations) = (spec.field("loadBalancerSourceRanges"), metadata.field("annotations"));
    let annotation_at = annotations.key(LOAD_BALANCER_SOURCE_RANGES);
    let ranges = list(&object["spec"]["loadBalancerSourceRanges"]);
    let annotation = &object["metadata"]["annotations"][LOAD_BALANCER_SOURCE_RANGES];
    let parts: Vec<Value> =
        text(annotation).split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect();
    let (at, ranges) = if ranges.is_empty() { (&annotation_at, &parts[..]) } else { (&field, ranges) };
    if !ranges.is_empty() && kind != "LoadBalancer" {
        errors.forbidden(at, "may only be used when `type` is 'LoadBalancer'");
    }
    for (i, range) in ranges.iter().enumerate() {
        if !is_range(text(range).trim()) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(&at.index(i), range, detail);
        }
    }
}

/// Addresses that the status says a balancer has, when they change. Loopback is one only where this cluster's own
/// balancer serves the Service: it publishes on the node's addresses, and nothing is led to what the status says.
fn balancer_addresses(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let ingress = &object["status"]["loadBalancer"]["ingress"];
    if old.is_some_and(|old| old["status"]["loadBalancer"]["ingress"] == *ingress) {
        return;
    }
    let spec = &object["spec"];
    let is_own = spec["type"] == "LoadBalancer" && spec["loadBalancerClass"].is_null();
    let root = Path::root();
    let status = root.field("status");
    let at = status.field("loadBalancer");
    let at = at.field("ingress");
    for (i, one) in list(ingress).iter().enumerate() {
        let at = at.index(i);
        let is_loopback = text(&one["ip"]).parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        if !(one["ip"].is_null() || is_own && is_loopback) {
            destination(&one["ip"], &at.field("ip"), errors);
        }
    }
}

fn service_ports(spec: &Value, kind: &str, at: &Path<'_>, errors: &mut Errors) {
    let ports = list(&spec["ports"]);
    let (mut numbers, mut port_names, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&at.field("name"), "");
            }
        } else {
            errors.check_text(&at.field("name"), name, names::dns_label(name));
            if !port_names.insert(name) {
                errors.duplicate(&at.field("name"), &port["name"]);
            }
        }
        match &port["port"] {
            Value::Null => {
                errors.invalid(&at.field("port"), &json!(0), "must be between 1 and 65535, inclusive")
            }
            number => errors.port(&at.field("port"), number),
        }
        errors.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
        number_or_name(&port["targetPort"], &at.field("targetPort"), errors);
        let protocol = text(&port["protocol"]);
        if !numbers.insert((port["port"].as_i64(), protocol)) {
            errors.duplicate(&at, &json!({"protocol": protocol, "port": port["port"]}));
        }
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 {
            if matches!(kind, "ClusterIP" | "ExternalName") {
                let detail = format!("may not be used when `type` is '{kind}'");
                errors.forbidden(&at.field("nodePort"), &detail);
            }
            if !node_ports.insert((node_port, protocol)) {
                errors.duplicate(&at.field("nodePort"), &port["nodePort"]);
            }
        }
    }
}

fn service_update(new: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    let external = |spec: &Value| spec["type"] == "ExternalName";
    let (before, now) = (text(&old["clusterIP"]), text(&new["clusterIP"]));
    if !external(new) && !external(old) && !before.is_empty() && before != now {
        let shown = if now.is_empty() { json!([]) } else { json!([now]) };
        errors.invalid(&at.field("clusterIPs").index(0), &shown, "may not change once set");
    }
}

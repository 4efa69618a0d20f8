//! Services, endpoints, Ingresses.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use yado_types::address::forbidden_destination;
use yado_types::labels::LOAD_BALANCER_SOURCE_RANGES;
use yado_types::names;

use super::meta;
use super::path::{Errors, Path, list, text};
use super::pod_parts::{NO_ADDRESS, number_or_name};

pub fn service(object: &Value, old: Option<&Value>, errors: &mut Errors) {
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

fn ip(address: &Value, at: &Path<'_>, errors: &mut Errors) {
    if text(address).parse::<IpAddr>().is_err() {
        errors.invalid(at, address, NO_ADDRESS);
    }
}

/// An address that traffic is led to.
fn destination(address: &Value, at: &Path<'_>, errors: &mut Errors) {
    match text(address).parse() {
        Err(_) => errors.invalid(at, address, NO_ADDRESS),
        Ok(parsed) => {
            if let Some(why) = forbidden_destination(parsed) {
                errors.invalid(at, address, why);
            }
        }
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

fn is_range(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let longest = address.parse::<IpAddr>().map(|a| if a.is_ipv4() { 32 } else { 128 });
        longest.is_ok_and(|longest| length.parse::<u8>().is_ok_and(|length| length <= longest))
    })
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
        errors.one_of(&at.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
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

pub fn endpoints(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let at = root.field("subsets");
    for (i, subset) in list(&object["subsets"]).iter().enumerate() {
        let at = at.index(i);
        if list(&subset["addresses"]).is_empty() && list(&subset["notReadyAddresses"]).is_empty() {
            errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for key in ["addresses", "notReadyAddresses"] {
            let at = at.field(key);
            for (i, address) in list(&subset[key]).iter().enumerate() {
                destination(&address["ip"], &at.index(i).field("ip"), errors);
            }
        }
        let ports = list(&subset["ports"]);
        let ports_at = at.field("ports");
        for (i, port) in ports.iter().enumerate() {
            let at = ports_at.index(i);
            if ports.len() > 1 && text(&port["name"]).is_empty() {
                errors.required(&at.field("name"), "");
            }
            errors.port(&at.field("port"), &port["port"]);
            errors.one_of(&at.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// So many endpoints fit into one slice.
const MAX_ENDPOINTS: usize = 1000;

pub fn endpoint_slice(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (kind, kind_at) = (&object["addressType"], root.field("addressType"));
    if kind.is_null() {
        errors.required(&kind_at, "");
    }
    errors.one_of(&kind_at, kind, &["FQDN", "IPv4", "IPv6"]);
    if old.is_some_and(|old| old["addressType"] != *kind) {
        errors.invalid(&kind_at, kind, "field is immutable");
    }
    let at = root.field("endpoints");
    if list(&object["endpoints"]).len() > MAX_ENDPOINTS {
        errors.invalid(
            &at,
            &json!(list(&object["endpoints"]).len()),
            &format!("must have at most {MAX_ENDPOINTS} items"),
        );
    }
    for (i, endpoint) in list(&object["endpoints"]).iter().enumerate() {
        let at = at.index(i);
        let at = at.field("addresses");
        let addresses = list(&endpoint["addresses"]);
        if addresses.is_empty() {
            errors.required(&at, "must contain at least 1 address");
        }
        for (i, address) in addresses.iter().enumerate() {
            let parsed = text(address).parse::<IpAddr>().ok();
            match text(kind) {
                "IPv4" if !parsed.is_some_and(|ip| ip.is_ipv4()) => {
                    errors.invalid(&at.index(i), address, "must be a valid IPv4 address");
                }
                "IPv6" if !parsed.is_some_and(|ip| ip.is_ipv6()) => {
                    errors.invalid(&at.index(i), address, "must be a valid IPv6 address");
                }
                "IPv4" | "IPv6" => destination(address, &at.index(i), errors),
                "FQDN" => errors.check_text(&at.index(i), text(address), names::dns_subdomain(text(address))),
                _ => {}
            }
        }
    }
    let ports_at = root.field("ports");
    let mut seen = HashSet::new();
    for (i, port) in list(&object["ports"]).iter().enumerate() {
        let at = ports_at.index(i);
        let name = text(&port["name"]);
        if !name.is_empty() {
            errors.check_text(&at.field("name"), name, names::dns_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&at.field("name"), &json!(name));
        }
        errors.port(&at.field("port"), &port["port"]);
        errors.one_of(&at.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
    }
}

pub fn ingress(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    if list(&spec["rules"]).is_empty() && spec["defaultBackend"].is_null() {
        errors.invalid(&at, spec, "either `defaultBackend` or `rules` must be specified");
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], &at.field("defaultBackend"), errors);
    }
    let class = text(&spec["ingressClassName"]);
    if !class.is_empty() {
        errors.check_text(&at.field("ingressClassName"), class, names::dns_subdomain(class));
    }
    let rules_at = at.field("rules");
    for (i, rule) in list(&spec["rules"]).iter().enumerate() {
        let at = rules_at.index(i);
        let host = text(&rule["host"]);
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid_text(&at.field("host"), host, "must be a DNS name, not an IP address");
        } else if !host.is_empty() {
            let plain = host.strip_prefix("*.").unwrap_or(host);
            errors.check_text(&at.field("host"), host, names::dns_subdomain(plain));
        }
        let http = at.field("http");
        if !rule["http"].is_null() && list(&rule["http"]["paths"]).is_empty() {
            errors.required(&http.field("paths"), "");
        }
        let paths_at = http.field("paths");
        for (i, path) in list(&rule["http"]["paths"]).iter().enumerate() {
            ingress_path(path, &paths_at.index(i), errors);
        }
    }
}

fn ingress_path(path: &Value, at: &Path<'_>, errors: &mut Errors) {
    let given = text(&path["path"]);
    match text(&path["pathType"]) {
        "" => errors.required(&at.field("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !given.starts_with('/') {
                errors.invalid_text(&at.field("path"), given, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if given.contains(part) {
                    errors.invalid_text(&at.field("path"), given, &format!("must not contain '{part}'"));
                }
            }
        }
        "ImplementationSpecific" if given.is_empty() || given.starts_with('/') => {}
        "ImplementationSpecific" => errors.invalid_text(&at.field("path"), given, "must be an absolute path"),
        _ => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.one_of(&at.field("pathType"), &path["pathType"], &types);
        }
    }
    backend(&path["backend"], &at.field("backend"), errors);
}

fn backend(backend: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (true, true) => errors.required(at, "must specify one of `service` or `resource`"),
        (false, false) => errors.invalid(at, backend, "cannot set both resource and service backends"),
        (true, false) => {}
        (false, true) => {
            let at = at.field("service");
            let name = text(&service["name"]);
            if name.is_empty() {
                errors.required(&at.field("name"), "");
            } else {
                errors.check_text(&at.field("name"), name, names::dns_1035_label(name));
            }
            let (port, at) = (&service["port"], at.field("port"));
            match (text(&port["name"]), port["number"].as_i64().unwrap_or(0)) {
                ("", 0) => errors.required(&at, "port name or number is required"),
                ("", _) => errors.port(&at.field("number"), &port["number"]),
                (name, 0) => number_or_name(&json!(name), &at.field("name"), errors),
                _ => errors.invalid(&at, port, "cannot set both port name & port number"),
            }
        }
    }
}

pub fn ingress_class(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let spec = root.field("spec");
    let (controller, at) = (&object["spec"]["controller"], spec.field("controller"));
    if text(controller).is_empty() {
        errors.required(&at, "");
    }
    if old.is_some_and(|old| old["spec"]["controller"] != *controller) {
        errors.invalid(&at, controller, "field is immutable");
    }
}

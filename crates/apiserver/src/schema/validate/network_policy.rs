//! NetworkPolicies.

use serde_json::Value;

use super::meta;
use super::path::{Errors, Path, list, text};
use super::pod_parts::number_or_name;

pub fn network_policy(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    meta::label_selector(&spec["podSelector"], &at.field("podSelector"), errors);
    for (key, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules_at = at.field(key);
        for (i, rule) in list(&spec[key]).iter().enumerate() {
            let at = rules_at.index(i);
            ports(&rule["ports"], &at.field("ports"), errors);
            let peers_at = at.field(peers);
            for (i, peer) in list(&rule[peers]).iter().enumerate() {
                self::peer(peer, &peers_at.index(i), errors);
            }
        }
    }
    let types_at = at.field("policyTypes");
    for (i, kind) in list(&spec["policyTypes"]).iter().enumerate() {
        errors.one_of(&types_at.index(i), kind, &["Egress", "Ingress"]);
    }
}

fn ports(ports: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (i, port) in list(ports).iter().enumerate() {
        let at = at.index(i);
        errors.one_of(&at.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
        if !port["port"].is_null() {
            number_or_name(&port["port"], &at.field("port"), errors);
        }
        let Some(end) = port["endPort"].as_i64() else { continue };
        let end_at = at.field("endPort");
        match port["port"].as_i64() {
            Some(first) if end < first => {
                errors.invalid(&end_at, &port["endPort"], "must be greater than or equal to `port`");
            }
            Some(_) => errors.port(&end_at, &port["endPort"]),
            None if port["port"].is_null() => {
                errors.required(&at.field("port"), "must be specified when `endPort` is specified");
            }
            None => {
                errors.invalid(&end_at, &port["endPort"], "may not be specified when `port` is non-numeric")
            }
        }
    }
}

fn peer(peer: &Value, at: &Path<'_>, errors: &mut Errors) {
    for key in ["podSelector", "namespaceSelector"] {
        meta::label_selector(&peer[key], &at.field(key), errors);
    }
    let (block, has_selector) =
        (&peer["ipBlock"], !peer["podSelector"].is_null() || !peer["namespaceSelector"].is_null());
    match (block.is_null(), has_selector) {
        (true, false) => errors.required(at, "must specify a peer"),
        (false, true) => {
            errors.forbidden(&at.field("ipBlock"), "may not specify both ipBlock and another peer");
        }
        (false, false) => {
            let at = at.field("ipBlock");
            cidr(&block["cidr"], &at.field("cidr"), errors);
            let except_at = at.field("except");
            for (i, except) in list(&block["except"]).iter().enumerate() {
                cidr(except, &except_at.index(i), errors);
            }
        }
        (true, true) => {}
    }
}

fn cidr(value: &Value, at: &Path<'_>, errors: &mut Errors) {
    let parsed = text(value).split_once('/').and_then(|(address, length)| {
        let address: std::net::IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        length.parse::<u8>().ok().filter(|length| *length <= longest)
    });
    if text(value).is_empty() {
        errors.required(at, "");
    } else if parsed.is_none() {
        errors.invalid(at, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}

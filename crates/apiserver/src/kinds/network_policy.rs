//! NetworkPolicies.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, list, objects, text, within};
use crate::kinds::network::{PROTOCOLS, is_range, number_or_name};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path, meta};
use crate::table::Column;
use crate::table::format::{age, selector};

#[derive(Debug)]
pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let Some(spec) = within(object, "spec") else { return };
        let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
        fill(spec, "policyTypes", if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        for direction in ["ingress", "egress"] {
            for rule in objects(spec, direction) {
                objects(rule, "ports").for_each(|port| fill(port, "protocol", "TCP"));
            }
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
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
                    peer_rules(peer, &peers_at.index(i), errors);
                }
            }
        }
        let types_at = at.field("policyTypes");
        for (i, kind) in list(&spec["policyTypes"]).iter().enumerate() {
            errors.one_of(&types_at.index(i), kind, &["Egress", "Ingress"]);
        }
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Pod-Selector"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let shown = json!(selector(&object["spec"]["podSelector"]));
        vec![object["metadata"]["name"].clone(), shown, json!(age(object, now))]
    }
}

fn ports(ports: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (i, port) in list(ports).iter().enumerate() {
        let at = at.index(i);
        errors.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
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

fn peer_rules(peer: &Value, at: &Path<'_>, errors: &mut Errors) {
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
    if text(value).is_empty() {
        errors.required(at, "");
    } else if !is_range(text(value)) {
        errors.invalid(at, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}

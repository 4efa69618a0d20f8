//! EndpointSlices.

use std::collections::HashSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{fill, list, objects, text};
use crate::kinds::network::{PROTOCOLS, destination};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, at_most_three, text_or};

/// Endpoints of one slice.
const MAX_ENDPOINTS: usize = 1000;

#[derive(Debug)]
pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default_object(&self, object: &mut Map<String, Value>) {
        for port in objects(object, "ports") {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
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
                    "FQDN" => {
                        errors.check_text(&at.index(i), text(address), names::dns_subdomain(text(address)))
                    }
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
            errors.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
        }
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("AddressType"),
                Column::text("Ports"),
                Column::text("Endpoints"),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (ports, addresses) = ports_and_addresses(object);
        let name = object["metadata"]["name"].clone();
        vec![name, object["addressType"].clone(), json!(ports), json!(addresses), json!(age(object, now))]
    }
}

fn ports_and_addresses(object: &Value) -> (String, String) {
    let port = |p: &Value| p["port"].as_i64().map_or_else(|| "*".into(), |port| port.to_string());
    let ports: Vec<String> = list(&object["ports"]).iter().map(port).collect();
    let addresses = list(&object["endpoints"]).iter().flat_map(|e| list(&e["addresses"]));
    let addresses: Vec<String> = addresses.map(|a| text_or(a, "").to_owned()).collect();
    (at_most_three(&ports, "<unset>"), at_most_three(&addresses, "<unset>"))
}

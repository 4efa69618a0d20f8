//! Endpoints.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, list, objects, text};
use crate::kinds::network::{PROTOCOLS, destination};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{NONE, age, at_most_three, number, text_or};

#[derive(Debug)]
pub struct Endpoints;

impl Strategy for Endpoints {
    fn default_object(&self, object: &mut Map<String, Value>) {
        for subset in objects(object, "subsets") {
            objects(subset, "ports").for_each(|port| fill(port, "protocol", "TCP"));
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
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
                errors.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
            }
        }
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Endpoints"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), json!(endpoints(object)), json!(age(object, now))]
    }
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(&object["subsets"]) {
        let addresses = || list(&subset["addresses"]).iter().map(|a| text_or(&a["ip"], ""));
        let ports = list(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses().map(|ip| host_and_port(ip, number(&port["port"]))));
        }
    }
    at_most_three(&all, NONE)
}

fn host_and_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

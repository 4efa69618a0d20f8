//! A Service's cells.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::list;
use crate::table::Column;
use crate::table::format::{NONE, age, balancer_addresses, joined, labels, number, text_or};

pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type"),
    Column::text("Cluster-IP"),
    Column::text("External-IP"),
    Column::text("Port(s)"),
    Column::AGE,
    Column::wide("Selector"),
];

pub fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&service["spec"], &service["status"]);
    vec![
        service["metadata"]["name"].clone(),
        json!(text_or(&spec["type"], "")),
        json!(text_or(&spec["clusterIPs"][0], text_or(&spec["clusterIP"], NONE))),
        json!(external_address(spec, status)),
        json!(ports(spec)),
        json!(age(service, now)),
        json!(labels(&spec["selector"])),
    ]
}

fn external_address(spec: &Value, status: &Value) -> String {
    let given = joined(list(&spec["externalIPs"]).iter().map(|ip| text_or(ip, "").to_owned()), "");
    match text_or(&spec["type"], "") {
        "ExternalName" => text_or(&spec["externalName"], NONE).to_owned(),
        "LoadBalancer" => {
            let parts = [balancer_addresses(status), given];
            joined(parts.into_iter().filter(|part| !part.is_empty()), "<pending>")
        }
        _ if given.is_empty() => NONE.into(),
        _ => given,
    }
}

fn ports(spec: &Value) -> String {
    let port = |p: &Value| {
        let protocol = text_or(&p["protocol"], "TCP");
        match number(&p["nodePort"]) {
            0 => format!("{}/{protocol}", number(&p["port"])),
            node => format!("{}:{node}/{protocol}", number(&p["port"])),
        }
    };
    joined(list(&spec["ports"]).iter().map(port), NONE)
}

//! Ingresses.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{fill, list, text, within};
use crate::kinds::network::number_or_name;
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{NONE, age, at_most_three, balancer_addresses, count, text_or};

#[derive(Debug)]
pub struct Ingress;

impl Strategy for Ingress {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(status) = within(object, "status") {
            fill(status, "loadBalancer", json!({}));
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
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

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Class"),
                Column::text("Hosts"),
                Column::text("Address"),
                Column::text("Ports"),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ports = if count(&spec["tls"]) > 0 { "80, 443" } else { "80" };
        let class = text_or(&spec["ingressClassName"], NONE);
        vec![
            object["metadata"]["name"].clone(),
            json!(class),
            json!(hosts(spec)),
            json!(balancer_addresses(status)),
            json!(ports),
            json!(age(object, now)),
        ]
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

fn hosts(spec: &Value) -> String {
    let hosts = list(&spec["rules"]).iter().filter_map(|rule| rule["host"].as_str());
    at_most_three(&hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect::<Vec<_>>(), "*")
}

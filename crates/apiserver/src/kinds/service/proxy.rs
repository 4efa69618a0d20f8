//! Where requests to a Service's `proxy` go.

use std::net::{IpAddr, SocketAddr};

use rand::seq::IndexedRandom;
use serde_json::Value;
use yado_types::labels::SERVICE_NAME;
use yado_types::selector::LabelSelector;

use crate::edit::{list, text};
use crate::object::{Selection, meta};
use crate::request::ListOptions;
use crate::resource;
use crate::server::Inner;
use crate::status::{Failure, Result};

/// The address of one ready Pod of a Service.
pub fn address(server: &Inner, service: &Value, port: &str) -> Result<SocketAddr> {
    let name = meta(service, "name");
    let none = || {
        let colon = if port.is_empty() { "" } else { ":" };
        let why = format!("no endpoints available for service \"{name}{colon}{port}\"");
        Failure::new(503, "ServiceUnavailable", why)
    };
    let port = match (port, list(&service["spec"]["ports"])) {
        ("", [only]) => Some(only),
        (port, ports) => {
            let number = port.parse::<u64>().ok();
            ports.iter().find(|p| p["name"] == port || number.is_some_and(|n| p["port"] == n))
        }
    };
    let port = text(&port.ok_or_else(none)?["name"]);
    let slices = resource::find("discovery.k8s.io", "v1", "endpointslices").ok_or_else(none)?;
    let of_service = format!("{SERVICE_NAME}={name}");
    let labels = LabelSelector::parse(&of_service).map_err(|_| none())?;
    let selection = Selection::new(slices, &ListOptions { labels, ..ListOptions::default() })?;
    let slices = server.collection(slices)?;
    let found = slices.select(meta(service, "namespace"), 0, &selection);
    let mut addresses = Vec::new();
    for slice in found.objects.iter().map(|o| o.value()).filter(|s| s["addressType"] == "IPv4") {
        let mut ports = list(&slice["ports"]).iter().filter(|p| text(&p["name"]) == port);
        let number = ports.find_map(|p| u16::try_from(p["port"].as_u64()?).ok());
        for endpoint in list(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false) {
            let address = text(&endpoint["addresses"][0]).parse::<IpAddr>().ok();
            addresses.extend(address.zip(number).map(SocketAddr::from));
        }
    }
    addresses.choose(&mut rand::rng()).copied().ok_or_else(none)
}

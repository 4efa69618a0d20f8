//! Where requests to a Pod's `proxy` go.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::edit::{list, text};
use crate::object::meta;
use crate::status::{Failure, Result};

/// The address of a Pod's port: by number, by name, or the first that its containers name.
pub fn address(pod: &Value, wanted: &str) -> Result<SocketAddr> {
    let name = meta(pod, "name");
    let address = text(&pod["status"]["podIP"]).parse::<IpAddr>().ok();
    let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    let Some(address) = address.filter(|_| !ended) else {
        let why = format!("pod \"{name}\" does not run: it has no address to proxy to");
        return Err(Failure::new(503, "ServiceUnavailable", why));
    };
    if let Ok(port) = wanted.parse::<u16>() {
        return Ok((address, port).into());
    }
    let mut ports = list(&pod["spec"]["containers"]).iter().flat_map(|c| list(&c["ports"]));
    let port = ports.find(|p| wanted.is_empty() || p["name"] == wanted);
    match port.and_then(|p| u16::try_from(p["containerPort"].as_u64()?).ok()) {
        Some(port) => Ok((address, port).into()),
        None if wanted.is_empty() => Ok((address, 80).into()),
        None => Err(Failure::bad_request(format!("pod \"{name}\" has no port named \"{wanted}\""))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_given_by_number_or_by_name() {
        let runs = json!({"phase": "Running", "podIP": "10.1.2.3"});
        let no_address = "pod \"p\" does not run: it has no address to proxy to";
        for (port, status, expect) in [
            ("81", &runs, "10.1.2.3:81"),
            ("web", &runs, "10.1.2.3:90"),
            ("", &runs, "10.1.2.3:8080"),
            ("other", &runs, "pod \"p\" has no port named \"other\""),
            ("81", &json!({"phase": "Pending"}), no_address),
            ("81", &json!({"phase": "Failed", "podIP": "10.1.2.3"}), no_address),
        ] {
            let pod = json!({"metadata": {"name": "p"}, "status": status, "spec": {"containers": [
                {"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}, {"name": "web", "containerPort": 90}]}]}});
            let shown = address(&pod, port);
            assert_eq!(shown.map_or_else(|f| f.to_string(), |a| a.to_string()), expect, "{port} {status}");
        }
    }
}

//! Which ports of the node lead to a Pod: the `hostPort` of its containers. Pure.
//!
//! A Pod has them from the time it has an address until it has ended, whether it is ready or not. One on the host's
//! network listens there by itself.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::index::{Endpoint, HostPort, Protocol};

/// The ports that a Pod of this node asks for now, with where they lead, or why one cannot be opened; `None` where it
/// asks for none.
pub fn wanted(pod: &Pod, node: &str) -> Option<Result<Vec<(HostPort, Endpoint)>, String>> {
    let spec = pod.spec.as_ref()?;
    let is_here = spec.node_name.as_deref() == Some(node) && spec.host_network != Some(true);
    if !is_here || yado_types::pod::is_ended(pod) {
        return None;
    }
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mut ports = ports.filter(|port| port.host_port.is_some_and(|number| number != 0)).peekable();
    ports.peek()?;
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let opened = |port: &ContainerPort| {
        let to = u16::try_from(port.container_port).unwrap_or_default();
        host_port(port).map(|own| (own, Endpoint { address, port: to, hostname: None }))
    };
    Some(ports.map(opened).collect())
}

fn host_port(port: &ContainerPort) -> Result<HostPort, String> {
    let (name, number) = (port.protocol.as_deref().unwrap_or("TCP"), port.host_port.unwrap_or_default());
    let (Some(protocol), Ok(number)) = (Protocol::parse(Some(name)), u16::try_from(number)) else {
        return Err(format!("hostPort {number}/{name} cannot be opened: only TCP and UDP can"));
    };
    let address = match port.host_ip.as_deref().unwrap_or_default() {
        "" => None,
        text => match text.parse() {
            Ok(Ipv4Addr::UNSPECIFIED) => None,
            Ok(address) => Some(address),
            Err(_) if text == "::" => None,
            Err(_) => {
                return Err(format!("hostIP {text} cannot be listened on: Pods are reached over IPv4 only"));
            }
        },
    };
    Ok(HostPort { address, protocol, port: number })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, status: Value, expect: &str) {
        let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let pod: Pod = serde_json::from_value(object).expect("a Pod");
        let said = match wanted(&pod, "here") {
            None => "none".to_owned(),
            Some(Err(why)) => why,
            Some(Ok(ports)) => {
                let ports = ports.iter().map(|(port, to)| format!("{port} -> {}:{}", to.address, to.port));
                ports.collect::<Vec<_>>().join(", ")
            }
        };
        assert_eq!(said, expect, "{spec}");
    }

    #[test]
    fn a_pod_has_its_host_ports_while_it_runs_here() {
        let with = |ports: Value| json!({"nodeName": "here", "containers": [{"name": "c", "ports": ports}]});
        let running = || json!({"podIP": "10.192.0.7", "phase": "Running"});
        let plain = || with(json!([{"containerPort": 80, "hostPort": 8080}]));
        check(plain(), running(), "8080/TCP -> 10.192.0.7:80");
        check(plain(), json!({"phase": "Pending"}), "none");
        check(plain(), json!({"podIP": "10.192.0.7", "phase": "Succeeded"}), "none");
        check(with(json!([{"containerPort": 80}])), running(), "none");
        let (mut elsewhere, mut on_host) = (plain(), plain());
        elsewhere["nodeName"] = "there".into();
        on_host["hostNetwork"] = true.into();
        check(elsewhere, running(), "none");
        check(on_host, running(), "none");
        let ports = json!([
            {"containerPort": 80, "hostPort": 81, "hostIP": "127.0.0.1"},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "0.0.0.0"},
            {"containerPort": 54, "hostPort": 54, "hostIP": "::"},
        ]);
        let expect = "127.0.0.1:81/TCP -> 10.192.0.7:80, 53/UDP -> 10.192.0.7:53, 54/TCP -> 10.192.0.7:54";
        check(with(ports), running(), expect);
        let sidecar = json!({"nodeName": "here", "containers": [], "initContainers": [
            {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 2}]},
            {"name": "i", "ports": [{"containerPort": 3, "hostPort": 4}]}]});
        check(sidecar, running(), "2/TCP -> 10.192.0.7:1");
        let sctp = json!([{"containerPort": 1, "hostPort": 2, "protocol": "SCTP"}]);
        check(with(sctp), running(), "hostPort 2/SCTP cannot be opened: only TCP and UDP can");
        check(
            with(json!([{"containerPort": 1, "hostPort": 2, "hostIP": "::1"}])),
            running(),
            "hostIP ::1 cannot be listened on: Pods are reached over IPv4 only",
        );
    }
}

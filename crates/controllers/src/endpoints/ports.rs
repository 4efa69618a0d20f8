//! What Endpoints and EndpointSlices have in common: a Pod's address, host name and port numbers for a Service.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use yado_types::address::forbidden_destination;
use yado_types::pod::is_ended;

/// A Service's port as one Pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name of the Service's port; empty if it has none.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port number on the Pod's address.
    pub number: i32,
    /// The Service port's `appProtocol`.
    pub app_protocol: Option<String>,
}

/// The Service's ports that a Pod serves, in the Service's order. A named `targetPort` is looked up in the Pod's
/// containers and sidecars: its number may differ between Pods, and a Pod without it does not serve the port.
pub fn ports_of(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let offered = ports.filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = number(port, &protocol, pod)?;
        let name = port.name.clone().unwrap_or_default();
        Some(Port { name, protocol, number, app_protocol: port.app_protocol.clone() })
    });
    offered.collect()
}

fn number(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => named(name, protocol, pod),
    }
}

fn named(name: &str, protocol: &str, pod: &Pod) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(same).map(|p| p.container_port)
}

/// The Pod's address of a family (`IPv4` or `IPv6`), unless it has ended or the address may not receive traffic.
pub fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    if is_ended(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    // A Pod with host networking has a loopback address if its machine has no other; traffic must not go there.
    let is_allowed = |ip: &&str| ip.parse().is_ok_and(|address| forbidden_destination(address).is_none());
    let mut all = listed.chain(status.pod_ip.as_deref()).filter(is_allowed);
    all.find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// The Pod's `hostname` if its `subdomain` names the Service: it then has the DNS name `HOSTNAME.SERVICE.NAMESPACE.svc`.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then_some(hostname)
}

/// Whether the Service is headless: its `clusterIP` is `None`.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether the Service publishes Pods that are not ready as ready (`publishNotReadyAddresses`).
pub fn publishes_all(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or_default()
}

//! The routing index: what the three tables are made from. Pure: objects in, an immutable [`Snapshot`] out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::Ingress;
use yado_types::key::ObjectKey;
use yado_types::labels;

use crate::balancer;
use crate::policy::Isolation;
use crate::slot::Cidr;

/// A state of all routes. Cheap to clone in parts: entries are shared between generations.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change; a table that has applied it says so.
    pub generation: u64,
    /// Every Service.
    pub services: BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    /// Every Ingress.
    pub ingresses: BTreeMap<ObjectKey, Arc<Ingress>>,
    /// Addresses of Pods that are about to end: they stand in no entry, whatever the EndpointSlices say.
    pub withdrawn: BTreeSet<IpAddr>,
    /// Further names of Services, each with the Service that has it.
    pub aliases: BTreeMap<ObjectKey, ObjectKey>,
    /// What NetworkPolicies keep from whom.
    pub isolation: Arc<Isolation>,
    /// How often the published Services have changed: see [`crate::routing::Routing::publish`].
    pub publications: u64,
}

/// A Service with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its virtual addresses; empty for headless Services and external names.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses outside that lead here: `externalIPs` and those of load balancers.
    pub external_ips: Vec<IpAddr>,
    /// It has no virtual address: its name stands for its endpoints.
    pub headless: bool,
    /// The name that an `ExternalName` Service stands for.
    pub external_name: Option<String>,
    /// Seconds for which a client address keeps its endpoint, where `sessionAffinity` is `ClientIP`.
    pub affinity_seconds: Option<u32>,
    /// Its ports with where they lead.
    pub ports: Vec<PortEntry>,
    /// Every ready endpoint of a headless Service that names no ports: its name stands for them.
    pub portless: Arc<[Endpoint]>,
    /// Further names that stand for it in its namespace, in lower case. They may hold what a DNS label may not.
    pub aliases: Vec<String>,
    /// Its ports answer on every address of the node, too.
    pub published: Option<Published>,
}

/// Who may use a published Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// `loadBalancerSourceRanges`; empty means everybody.
    pub sources: Vec<Cidr>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// Empty where the Service has only one.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On the virtual addresses.
    pub port: u16,
    /// On every address of the node.
    pub node_port: Option<u16>,
    /// Where connections go: ready endpoints only, ordered and without repetition.
    pub endpoints: Arc<[Endpoint]>,
}

/// A transport protocol that the tables know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Number 6.
    Tcp,
    /// Number 17.
    Udp,
}

impl Protocol {
    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub(crate) fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// One address and port behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A Pod's address.
    pub address: IpAddr,
    /// The Pod's own port; 0 where a headless Service names none.
    pub port: u16,
    /// The Pod's host name where it has one of its own: `HOSTNAME.SERVICE.NAMESPACE.svc`.
    pub hostname: Option<String>,
}

impl Snapshot {
    /// The port of a Service by its name or, where `name` is empty, its number.
    pub fn port(&self, service: &ObjectKey, name: &str, number: u16) -> Option<&PortEntry> {
        let ports = &self.services.get(service)?.ports;
        ports.iter().find(|p| if name.is_empty() { p.port == number } else { p.name == name })
    }
}

/// The entry of a Service, from it and its EndpointSlices. Endpoints that are not ready or stand in `withdrawn` are
/// left out: a request goes only to an endpoint that is ready. `published` says that its ports are this node's.
pub fn service_entry(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    withdrawn: &BTreeSet<IpAddr>,
    published: bool,
) -> ServiceEntry {
    let Some(spec) = &service.spec else { return ServiceEntry::default() };
    let addresses = |texts: &mut dyn Iterator<Item = &String>| texts.filter_map(|a| a.parse().ok()).collect();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let balancers = service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| &l.ingress);
    // Those of a balancer of ours are the node's own, where publishing says more about who may come.
    let balancers = balancers.flatten().filter(|_| !balancer::is_ours(spec)).filter_map(|i| i.ip.as_ref());
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    let ports = spec.ports.iter().flatten();
    let portless = headless && spec.ports.as_ref().is_none_or(Vec::is_empty);
    let ready = slices.iter().filter(|_| portless).flat_map(|slice| ready(slice, 0, withdrawn));
    ServiceEntry {
        cluster_ips: if headless { Vec::new() } else { addresses(&mut cluster_ips(spec).into_iter()) },
        external_ips: addresses(&mut spec.external_ips.iter().flatten().chain(balancers)),
        headless,
        external_name: (spec.type_.as_deref() == Some("ExternalName"))
            .then(|| spec.external_name.clone())
            .flatten(),
        // Three hours, as the API's default has it.
        affinity_seconds: affinity.then(|| timeout.and_then(|t| t.try_into().ok()).unwrap_or(10_800)),
        ports: ports.filter_map(|port| port_entry(port, slices, withdrawn)).collect(),
        portless: ordered(ready.collect()),
        aliases: aliases(service),
        // Ranges that cannot be read let nobody in.
        published: balancer::sources(spec).ok().filter(|_| published).map(|sources| Published { sources }),
    }
}

/// What the annotation says, as the name server compares it.
fn aliases(service: &Service) -> Vec<String> {
    let text = service.metadata.annotations.as_ref().and_then(|a| a.get(labels::ALIASES));
    let names = text.into_iter().flat_map(|t| t.split(',')).map(|n| n.trim().to_ascii_lowercase());
    names.filter(|n| !n.is_empty()).collect()
}

fn ordered(mut endpoints: Vec<Endpoint>) -> Arc<[Endpoint]> {
    endpoints.sort();
    endpoints.dedup();
    endpoints.into()
}

/// The endpoints of a slice that requests may go to.
fn ready(slice: &EndpointSlice, port: u16, withdrawn: &BTreeSet<IpAddr>) -> impl Iterator<Item = Endpoint> {
    // Unset means ready, says the API.
    let is_ready = |e: &&SliceEndpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    slice.endpoints.iter().flatten().filter(is_ready).flat_map(move |endpoint| {
        let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
        addresses.filter(|a| !withdrawn.contains(a)).map(move |address| Endpoint {
            address,
            port,
            hostname: endpoint.hostname.clone(),
        })
    })
}

fn cluster_ips(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> Vec<&String> {
    match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.iter().collect(),
        _ => spec.cluster_ip.iter().collect(),
    }
}

fn port_entry(
    port: &ServicePort,
    slices: &[Arc<EndpointSlice>],
    withdrawn: &BTreeSet<IpAddr>,
) -> Option<PortEntry> {
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let name = port.name.clone().unwrap_or_default();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for slice in slices {
        let leads_to = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
        });
        let Some(target) = leads_to else { continue };
        let target = target.port.and_then(|p| u16::try_from(p).ok()).unwrap_or_default();
        endpoints.extend(ready(slice, target, withdrawn));
    }
    Some(PortEntry {
        name,
        protocol,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
        endpoints: ordered(endpoints),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(service: serde_json::Value, slices: serde_json::Value, expect: &str) {
        let service: Service = serde_json::from_value(service).expect("a Service");
        let slices: Vec<Arc<EndpointSlice>> = serde_json::from_value(slices).expect("EndpointSlices");
        let entry =
            service_entry(&service, &slices, &["10.0.0.9".parse().expect("an address")].into(), false);
        let ports = entry.ports.iter().map(|p| {
            let to: Vec<_> = p.endpoints.iter().map(|e| format!("{}:{}", e.address, e.port)).collect();
            format!("{}/{:?}/{}/{:?} -> {}", p.name, p.protocol, p.port, p.node_port, to.join(" "))
        });
        let text = format!("{:?} {}", entry.cluster_ips, ports.collect::<Vec<_>>().join("; "));
        assert_eq!(text, expect);
    }

    #[test]
    fn only_ready_endpoints_stand_in_an_entry() {
        let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
        let endpoint = |a: &str, ready: bool| json!({"addresses": [a], "conditions": {"ready": ready}});
        let slice = |endpoints| json!({"addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        let service = json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080}]}});
        check(service.clone(), json!([]), "[10.96.0.1] /Tcp/80/Some(30080) -> ");
        check(
            service,
            json!([
                slice(json!([
                    endpoint("10.0.0.2", true),
                    endpoint("10.0.0.1", true),
                    endpoint("10.0.0.3", false)
                ])),
                slice(json!([endpoint("10.0.0.1", true), endpoint("10.0.0.9", true)])),
            ]),
            "[10.96.0.1] /Tcp/80/Some(30080) -> 10.0.0.1:8080 10.0.0.2:8080",
        );
    }

    #[test]
    fn a_headless_service_without_ports_stands_for_its_pods_under_all_its_names() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"annotations": {"yado.dev/aliases": "my_db, My.App ,"}},
            "spec": {"clusterIP": "None"},
        }))
        .expect("a Service");
        let slice = json!([{"addressType": "IPv4", "ports": [], "endpoints": [
            {"addresses": ["10.0.0.2"], "hostname": "w-0"}, {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.9"]}]}]);
        let slices: Vec<Arc<EndpointSlice>> = serde_json::from_value(slice).expect("EndpointSlices");
        let entry = service_entry(&service, &slices, &["10.0.0.9".parse().expect("an address")].into(), true);
        assert_eq!(entry.aliases, ["my_db", "my.app"]);
        let to: Vec<_> = entry.portless.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(to, ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn ports_meet_by_name_and_protocol_and_headless_services_have_no_address() {
        check(
            json!({"spec": {"clusterIP": "None", "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53},
                {"name": "s", "port": 1, "protocol": "SCTP"}]}}),
            json!([{"addressType": "IPv4",
                "ports": [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5354}],
                "endpoints": [{"addresses": ["10.0.0.1"]}]}]),
            "[] dns/Udp/53/None -> 10.0.0.1:5353; dns-tcp/Tcp/53/None -> 10.0.0.1:5354",
        );
    }
}

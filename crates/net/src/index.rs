//! The routing index, from which the packet filter, the DNS server and the router work. Pure: objects in, an immutable
//! [`Snapshot`] out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::Ingress;
use yado_types::address::forbidden_destination;
use yado_types::key::ObjectKey;
use yado_types::labels;

use crate::load_balancer;
pub use crate::load_balancer::Callers;
use crate::policy::Isolation;
pub use crate::protocol::Protocol;

/// The state of all routes at one generation. Generations share unchanged entries.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Number of the snapshot, which increases with every change. Consumers acknowledge the one they have applied.
    pub generation: u64,
    /// All Services of the cluster.
    pub services: BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    /// All Ingresses of the cluster.
    pub ingresses: BTreeMap<ObjectKey, Arc<Ingress>>,
    /// Addresses of Pods that are about to end. They are used only by entries without another endpoint, whatever the
    /// EndpointSlices say.
    pub withdrawn: BTreeSet<IpAddr>,
    /// Withdrawn addresses whose Pods have ended, which no entry uses.
    pub gone: BTreeSet<IpAddr>,
    /// Ports of the node that are forwarded to one Pod (`hostPort`).
    pub host_ports: BTreeMap<HostPort, Endpoint>,
    /// The address range of this node's Pods, by which Pods are distinguished from other clients.
    pub pod_range: Option<Ipv4Net>,
    /// Additional names of Services, each with the Service that has it.
    pub aliases: BTreeMap<ObjectKey, ObjectKey>,
    /// The effect of NetworkPolicies.
    pub isolation: Arc<Isolation>,
    /// How often the published Services and ports have changed: see [`crate::routing::Routing::publish`].
    pub publications: u64,
}

/// A Service with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its virtual addresses; empty for headless Services and external names.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses outside that lead here: `externalIPs` and those of load balancers.
    pub external_ips: Vec<IpAddr>,
    /// Whether it has no virtual address, so that its name resolves to its endpoints.
    pub headless: bool,
    /// The DNS name that a Service of type ExternalName is an alias of.
    pub external_name: Option<String>,
    /// Timeout in seconds of the session affinity by client address, if `sessionAffinity` is `ClientIP`.
    pub affinity_seconds: Option<u32>,
    /// Its ports with their endpoints.
    pub ports: Vec<PortEntry>,
    /// The ready endpoints of a headless Service without ports, to which its name resolves.
    pub portless: Arc<[Endpoint]>,
    /// Additional names within its namespace, in lower case. They need not be valid DNS labels.
    pub aliases: Vec<String>,
    /// Clients outside the cluster that may use it.
    pub callers: Callers,
    /// Whether its ports are served on every address of the node as well.
    pub published: bool,
}

/// A port of the node that is forwarded to a port of one Pod (`hostPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The node's address on which the port is served; `None` for all of them.
    pub address: Option<Ipv4Addr>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port number on the node.
    pub port: u16,
}

impl HostPort {
    /// A port that is served on every address.
    pub fn everywhere(protocol: Protocol, port: u16) -> Self {
        Self { address: None, protocol, port }
    }

    /// Whether both cannot be served at the same time: same protocol and port, and overlapping addresses.
    pub fn collides(&self, other: &Self) -> bool {
        let addresses = self.address.zip(other.address);
        (self.protocol, self.port) == (other.protocol, other.port)
            && addresses.is_none_or(|(one, another)| one == another)
    }
}

impl std::fmt::Display for HostPort {
    /// `80/TCP`, `127.0.0.1:53/UDP`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}/{}", self.port, if self.protocol == Protocol::Tcp { "TCP" } else { "UDP" })
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// Name of the port; may be empty if the Service has only one.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port number on the virtual addresses.
    pub port: u16,
    /// Port number on the node's addresses (`nodePort`).
    pub node_port: Option<u16>,
    /// The endpoints of connections: ready ones or, without any, terminating ones that still serve. Sorted and unique.
    pub endpoints: Arc<[Endpoint]>,
}

/// An endpoint of a Service: address and port of a Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The Pod's address.
    pub address: IpAddr,
    /// The port on the Pod's address; 0 for a headless Service without ports.
    pub port: u16,
    /// The Pod's host name below the Service's name, if it has one: `HOSTNAME.SERVICE.NAMESPACE.svc`.
    pub hostname: Option<String>,
}

impl Snapshot {
    /// The port of a Service by name or, if `name` is empty, by number.
    pub fn port(&self, service: &ObjectKey, name: &str, number: u16) -> Option<&PortEntry> {
        let ports = &self.services.get(service)?.ports;
        ports.iter().find(|p| if name.is_empty() { p.port == number } else { p.name == name })
    }
}

/// Addresses of terminating Pods.
#[derive(Clone, Copy)]
pub struct TerminatingAddresses<'a> {
    /// Addresses that are used only if a Service has no other endpoint.
    pub withdrawn: &'a BTreeSet<IpAddr>,
    /// Addresses of Pods that have ended, which are not used.
    pub gone: &'a BTreeSet<IpAddr>,
}

/// Computes the entry of a Service from it and its EndpointSlices. Traffic goes to ready endpoints that are not terminating
/// or, without any, to terminating ones that still serve. `published` says whether its ports are served on this node.
pub fn service_entry(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    ending: TerminatingAddresses<'_>,
    published: bool,
) -> ServiceEntry {
    let Some(spec) = &service.spec else { return ServiceEntry::default() };
    let addresses = |texts: &mut dyn Iterator<Item = &String>| texts.filter_map(|a| a.parse().ok()).collect();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let balancers = service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| &l.ingress);
    // Those of a balancer of ours are the node's own, where publishing says more about who may come.
    let balancers =
        balancers.flatten().filter(|_| !load_balancer::is_ours(spec)).filter_map(|i| i.ip.as_ref());
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    let ports = spec.ports.iter().flatten();
    let portless = headless && spec.ports.as_ref().is_none_or(Vec::is_empty);
    let ready = slices.iter().filter(|_| portless).flat_map(|slice| endpoints(slice, 0, ending));
    let ready = ready.filter_map(|(standing, endpoint)| (standing == Standing::Ready).then_some(endpoint));
    let external = spec.external_ips.iter().flatten().chain(balancers);
    ServiceEntry {
        cluster_ips: if headless { Vec::new() } else { addresses(&mut cluster_ips(spec).into_iter()) },
        external_ips: external.filter_map(|text| destination(text)).collect(),
        headless,
        external_name: (spec.type_.as_deref() == Some("ExternalName"))
            .then(|| spec.external_name.clone())
            .flatten(),
        // Three hours, as the API's default has it.
        affinity_seconds: affinity.then(|| timeout.and_then(|t| t.try_into().ok()).unwrap_or(10_800)),
        ports: ports.filter_map(|port| port_entry(port, slices, ending, headless)).collect(),
        portless: ordered(ready.collect()),
        aliases: aliases(service),
        callers: load_balancer::callers(service),
        published,
    }
}

/// An address that traffic may be led to. The API server refuses others; what was stored before it did, or comes from
/// another API server, is left out here.
fn destination(text: &str) -> Option<IpAddr> {
    // A mapped IPv6 address is used as the IPv4 one by every socket.
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    forbidden_destination(address).is_none().then_some(address)
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

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// For every request.
    Ready,
    /// It ends and still serves: for requests that have no other.
    Terminating,
}

/// The endpoints of a slice that requests may go to at all.
fn endpoints<'a>(
    slice: &'a EndpointSlice,
    port: u16,
    ending: TerminatingAddresses<'a>,
) -> impl Iterator<Item = (Standing, Endpoint)> + 'a {
    let all = slice.endpoints.iter().flatten().filter(|_| slice.address_type != "FQDN");
    all.flat_map(move |endpoint| {
        let addresses = endpoint.addresses.iter().filter_map(|text| destination(text));
        addresses.filter_map(move |address| {
            let hostname = endpoint.hostname.clone();
            Some((standing(endpoint, address, ending)?, Endpoint { address, port, hostname }))
        })
    })
}

fn standing(endpoint: &SliceEndpoint, address: IpAddr, ending: TerminatingAddresses<'_>) -> Option<Standing> {
    let conditions = endpoint.conditions.as_ref();
    // Unset means ready, says the API, and serving means the same as ready then.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let withdrawn = ending.withdrawn.contains(&address);
    match () {
        () if ending.gone.contains(&address) => None,
        () if ready && !withdrawn => Some(Standing::Ready),
        () if serving && (terminating || withdrawn) => Some(Standing::Terminating),
        () => None,
    }
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
    ending: TerminatingAddresses<'_>,
    headless: bool,
) -> Option<PortEntry> {
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let name = port.name.clone().unwrap_or_default();
    let (mut ready, mut last): (Vec<Endpoint>, Vec<Endpoint>) = Default::default();
    for slice in slices {
        let leads_to = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
        });
        let Some(target) = leads_to else { continue };
        let target = target.port.and_then(|p| u16::try_from(p).ok()).unwrap_or_default();
        for (standing, endpoint) in endpoints(slice, target, ending) {
            if standing == Standing::Ready { &mut ready } else { &mut last }.push(endpoint);
        }
    }
    // The name of a headless Service stands for Pods that a client picks from by itself: only for good ones.
    let endpoints = if ready.is_empty() && !headless { last } else { ready };
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

    /// The entry where 10.0.0.9 is withdrawn and 10.0.0.8 is gone.
    fn entry(service: serde_json::Value, slices: serde_json::Value) -> ServiceEntry {
        let service: Service = serde_json::from_value(service).expect("a Service");
        let slices: Vec<Arc<EndpointSlice>> = serde_json::from_value(slices).expect("EndpointSlices");
        let addresses = |all: &[&str]| all.iter().map(|a| a.parse().expect("an address")).collect();
        let (withdrawn, gone) = (addresses(&["10.0.0.8", "10.0.0.9"]), addresses(&["10.0.0.8"]));
        service_entry(&service, &slices, TerminatingAddresses { withdrawn: &withdrawn, gone: &gone }, false)
    }

    fn check(service: serde_json::Value, slices: serde_json::Value, expect: &str) {
        let entry = entry(service, slices);
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
    fn endpoints_that_end_serve_while_there_is_no_other() {
        let endpoint = |address: &str, ready: bool, serving: bool| {
            json!({"addresses": [address],
                "conditions": {"ready": ready, "serving": serving, "terminating": !ready}})
        };
        let slices = |endpoints: &[serde_json::Value]| {
            json!([{"addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints}])
        };
        let service = |address: &str| json!({"spec": {"clusterIP": address, "ports": [{"port": 80}]}});
        let [ready, last, stopped] = [
            endpoint("10.0.0.1", true, true),
            endpoint("10.0.0.2", false, true),
            endpoint("10.0.0.3", false, false),
        ];
        // One whose slice does not say yet that it ends; one that is gone, whose slice says neither.
        let (withdrawn, gone) = (endpoint("10.0.0.9", true, true), endpoint("10.0.0.8", true, true));
        for (endpoints, expect) in [
            (&[ready.clone(), last.clone(), withdrawn.clone()][..], "10.0.0.1:8080"),
            (&[last.clone(), stopped.clone(), gone.clone()], "10.0.0.2:8080"),
            (&[withdrawn, last.clone()], "10.0.0.2:8080 10.0.0.9:8080"),
            (&[stopped, gone], ""),
        ] {
            let expect = format!("[10.96.0.1] /Tcp/80/None -> {expect}");
            check(service("10.96.0.1"), slices(endpoints), &expect);
        }
        check(service("None"), slices(&[last]), "[] /Tcp/80/None -> ");
    }

    #[test]
    fn nothing_leads_to_what_a_machine_keeps_to_itself() {
        let slice = |kind: &str, addresses: &[&str]| {
            let endpoints: Vec<_> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
            json!({"addressType": kind, "ports": [{"name": "", "port": 1}], "endpoints": endpoints})
        };
        let slices = json!([
            slice("IPv4", &["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "10.0.0.1"]),
            slice("IPv6", &["::1", "::ffff:127.0.0.1", "::ffff:10.0.0.2", "fe80::1"]),
            slice("FQDN", &["10.0.0.3"]),
        ]);
        let service = json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}],
            "externalIPs": ["127.0.0.1", "192.0.2.1"]}});
        check(service.clone(), slices.clone(), "[10.96.0.1] /Tcp/80/None -> 10.0.0.1:1 10.0.0.2:1");
        let external: Vec<IpAddr> = vec!["192.0.2.1".parse().expect("an address")];
        assert_eq!(entry(service, slices).external_ips, external);
    }

    #[test]
    fn callers_are_told_by_field_or_annotation() {
        let key = labels::LOAD_BALANCER_SOURCE_RANGES;
        let service = |kind: &str, field: &[&str], annotation: &str| {
            json!({"metadata": {"annotations": {key: annotation}},
                "spec": {"type": kind, "loadBalancerSourceRanges": field}})
        };
        for (service, admitted, refused) in [
            (service("LoadBalancer", &[], ""), &["192.0.2.1", "::1"][..], &[][..]),
            (
                service("LoadBalancer", &["127.0.0.0/8"], ""),
                &["127.0.0.1", "::1"],
                &["192.0.2.1", "2001:db8::1"],
            ),
            (
                service("LoadBalancer", &[], "192.0.2.0/24, 10.0.0.0/8"),
                &["192.0.2.1", "10.1.1.1"],
                &["127.0.0.1"],
            ),
            (service("LoadBalancer", &["10.0.0.0/8"], "192.0.2.0/24"), &["10.1.1.1"], &["192.0.2.1"]),
            (service("LoadBalancer", &[], "nonsense"), &[], &["127.0.0.1", "192.0.2.1"]),
            (service("ClusterIP", &[], "192.0.2.0/24"), &["127.0.0.1"], &[]),
        ] {
            let callers = entry(service.clone(), json!([])).callers;
            let admits = |address: &&&str| callers.admits(address.parse().expect("an address"));
            assert_eq!(admitted.iter().filter(admits).count(), admitted.len(), "{service}");
            assert_eq!(refused.iter().filter(admits).count(), 0, "{service}");
        }
    }

    #[test]
    fn a_headless_service_without_ports_stands_for_its_pods_under_all_its_names() {
        let service = json!({
            "metadata": {"annotations": {"yado.dev/aliases": "my_db, My.App ,"}},
            "spec": {"clusterIP": "None"},
        });
        let slice = json!([{"addressType": "IPv4", "ports": [], "endpoints": [
            {"addresses": ["10.0.0.2"], "hostname": "w-0"}, {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.9"]}]}]);
        let entry = entry(service, slice);
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

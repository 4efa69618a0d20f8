//! What the packet filter shall do for a state of the index, independent of how it gets there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::inspect::Flow;
use crate::index::{Callers, HostPort, PortEntry, Protocol, Snapshot};
use crate::policy::Isolation;

/// An endpoint's address and port.
pub(super) type EndpointAddress = (Ipv4Addr, u16);

/// The desired state of the packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By chain name.
    pub(super) chains: BTreeMap<String, Chain>,
    /// Address, protocol and port to chain: virtual addresses, and ports of one address of the node.
    pub(super) services: BTreeMap<(Ipv4Addr, u8, u16), String>,
    /// Protocol and port of the node to the chain, or the gate before it.
    pub(super) node_ports: BTreeMap<(u8, u16), String>,
    /// Protocol and port of the node to the chain, or the gate before it, of a published Service.
    pub(super) published: BTreeMap<(u8, u16), String>,
    /// Gates by name: the clients that pass, and the chain that they continue with.
    pub(super) gates: BTreeMap<String, Gate>,
    /// Every endpoint: a connection from it to itself needs another source address.
    pub(super) hairpins: BTreeSet<Ipv4Addr>,
    /// The connections that NetworkPolicies allow.
    pub(super) isolation: Arc<Isolation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Seconds for which a client address keeps its endpoint.
    pub affinity: Option<u32>,
    pub endpoints: Vec<EndpointAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Gate {
    pub sources: Vec<Ipv4Net>,
    pub chain: String,
}

impl Rules {
    /// The rules for a state of the index. Services without endpoints have none: the table refuses their addresses.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut rules = Self { isolation: snapshot.isolation.clone(), ..Self::default() };
        for (key, service) in &snapshot.services {
            for port in &service.ports {
                let endpoints = endpoints(port);
                if endpoints.is_empty() {
                    continue;
                }
                let name = chain_name(&(key, port.protocol, port.port, service.affinity_seconds));
                let protocol = port.protocol.number();
                rules.hairpins.extend(endpoints.iter().map(|(address, _)| *address));
                for address in v4(&service.cluster_ips) {
                    rules.services.insert((address, protocol, port.port), name.clone());
                }
                for address in v4(&service.external_ips) {
                    let outer = rules.behind_gate(&service.callers, &name);
                    rules.services.insert((address, protocol, port.port), outer);
                }
                if let Some(node_port) = port.node_port {
                    let outer = rules.behind_gate(&service.callers, &name);
                    rules.node_ports.insert((protocol, node_port), outer);
                }
                if service.published {
                    let outer = rules.behind_gate(&service.callers, &name);
                    rules.published.insert((protocol, port.port), outer);
                }
                rules.chains.insert(name, Chain { affinity: service.affinity_seconds, endpoints });
            }
        }
        for (port, endpoint) in &snapshot.host_ports {
            rules.add_host_port(port, endpoint.address, endpoint.port);
        }
        rules
    }

    fn add_host_port(&mut self, port: &HostPort, address: IpAddr, to: u16) {
        let IpAddr::V4(address) = address else { return };
        let (name, protocol) = (chain_name(port), port.protocol.number());
        // Ports that others have as well are refused before they come here; a Service would keep its own.
        match port.address {
            None => _ = self.node_ports.entry((protocol, port.port)).or_insert(name.clone()),
            Some(at) => _ = self.services.entry((at, protocol, port.port)).or_insert(name.clone()),
        }
        self.hairpins.insert(address);
        self.chains.insert(name, Chain { affinity: None, endpoints: vec![(address, to)] });
    }

    /// Where callers from outside begin, so that only `callers` come to `chain`.
    fn behind_gate(&mut self, callers: &Callers, chain: &str) -> String {
        let Callers::Of(sources) = callers else { return chain.to_owned() };
        let gate = Gate { sources: sources.clone(), chain: chain.to_owned() };
        // Named after what is in it: another gate is another chain.
        let mut hasher = DefaultHasher::new();
        gate.hash(&mut hasher);
        let name = format!("g{:016x}", hasher.finish());
        self.gates.insert(name.clone(), gate);
        name
    }

    /// Where UDP packets to an address and port are led. Ports of the node are not told by address here.
    fn udp_targets(&self, (address, port): EndpointAddress) -> Option<&[EndpointAddress]> {
        let udp = Protocol::Udp.number();
        let service = self.services.get(&(address, udp, port));
        let of_node = || self.node_ports.get(&(udp, port)).or_else(|| self.published.get(&(udp, port)));
        let name = service.or_else(of_node)?;
        let chain = self.gates.get(name).map_or(name, |gate| &gate.chain);
        self.chains.get(chain).map(|chain| &chain.endpoints[..])
    }

    /// Whether some UDP packet is led elsewhere by `next`.
    pub(super) fn leads_udp_elsewhere(&self, next: &Self) -> bool {
        type Led<'a> = Vec<(Option<Ipv4Addr>, u16, &'a str, Option<&'a [EndpointAddress]>)>;
        fn led(rules: &Rules) -> Led<'_> {
            let udp = |protocol: u8| protocol == Protocol::Udp.number();
            let services = rules.services.iter().filter(|((_, protocol, _), _)| udp(*protocol));
            let ports = rules.node_ports.iter().chain(&rules.published).filter(|((p, _), _)| udp(*p));
            let services = services.map(|((address, _, port), name)| (Some(*address), *port, name));
            let all = services.chain(ports.map(|((_, port), name)| (None, *port, name)));
            let targets = |name: &String| {
                let chain = rules.gates.get(name).map_or(name, |gate| &gate.chain);
                rules.chains.get(chain).map(|chain| &chain.endpoints[..])
            };
            all.map(|(address, port, name)| (address, port, name.as_str(), targets(name))).collect()
        }
        led(self) != led(next)
    }

    /// Whether a flow of UDP that was begun under the rules `before` would be led elsewhere under these: to another
    /// endpoint, to one where there was none, or nowhere.
    pub(super) fn outdates(&self, before: &Self, flow: &Flow) -> bool {
        let (was, is) = (before.udp_targets(flow.called), self.udp_targets(flow.called));
        let translated = flow.answered_by != flow.called;
        match is {
            _ if was == is => false,
            // What was not translated came to the node itself, unless it only passes through.
            Some(targets) if translated || flow.source_kept => !targets.contains(&flow.answered_by),
            Some(_) => false,
            None => translated && was.is_some_and(|targets| targets.contains(&flow.answered_by)),
        }
    }
}

fn v4(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

fn endpoints(port: &PortEntry) -> Vec<EndpointAddress> {
    let addresses = port.endpoints.iter().filter_map(|e| match e.address {
        IpAddr::V4(address) if e.port != 0 => Some((address, e.port)),
        _ => None,
    });
    addresses.collect()
}

/// Named after whose chain it is, so that a change of its endpoints changes no other name. Stable over restarts of one
/// build; a rebuild of the table follows each start, so that is enough.
fn chain_name(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("s{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Endpoint, ServiceEntry};
    use yado_types::key::ObjectKey;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 192, 0, last)
    }

    /// A Service at 10.96.0.1:53 and node port 30053, over UDP.
    fn rules(endpoints: &[u8], callers: Callers) -> Rules {
        let endpoint = |last: &u8| Endpoint { address: address(*last).into(), port: 5353, hostname: None };
        let port = PortEntry {
            name: String::new(),
            protocol: Protocol::Udp,
            port: 53,
            node_port: Some(30_053),
            endpoints: endpoints.iter().map(endpoint).collect(),
        };
        let entry = ServiceEntry {
            cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 1).into()],
            ports: vec![port],
            callers,
            ..Default::default()
        };
        let services = [(ObjectKey::new("n", "dns"), Arc::new(entry))].into();
        Rules::of(&Snapshot { services, ..Default::default() })
    }

    #[test]
    fn udp_flows_follow_the_endpoints() {
        let node = (Ipv4Addr::new(192, 0, 2, 1), 30_053);
        let service = (Ipv4Addr::new(10, 96, 0, 1), 53);
        let to = |last| (address(last), 5353);
        let all = || Callers::All;
        let flow = |called, answered_by, source_kept| Flow { called, answered_by, source_kept };
        for (before, after, flow, outdated) in [
            (&[1, 2][..], &[2][..], flow(node, to(1), true), true),
            (&[1, 2], &[2], flow(node, to(2), true), false),
            (&[1, 2], &[2], flow(service, to(1), true), true),
            (&[1], &[], flow(service, to(1), true), true),
            (&[1], &[], flow(node, to(1), false), true),
            // It began when there was no endpoint, and was the node's own.
            (&[], &[1], flow(node, node, true), true),
            // A Pod talks to that port of another machine.
            (
                &[],
                &[1],
                flow(
                    (Ipv4Addr::new(198, 51, 100, 1), 30_053),
                    (Ipv4Addr::new(198, 51, 100, 1), 30_053),
                    false,
                ),
                false,
            ),
            (&[1], &[1], flow(node, to(9), true), false),
            (&[1], &[2], flow((node.0, 9), to(1), true), false),
        ] {
            let (before, after) = (rules(before, all()), rules(after, all()));
            assert_eq!(after.outdates(&before, &flow), outdated, "{flow:?}");
        }
        assert!(rules(&[1], all()).leads_udp_elsewhere(&rules(&[2], all())));
        assert!(!rules(&[1], all()).leads_udp_elsewhere(&rules(&[1], all())));
        let gated = Callers::Of(vec!["127.0.0.0/8".parse().expect("a range")]);
        assert!(rules(&[1], all()).leads_udp_elsewhere(&rules(&[1], gated)));
    }

    #[test]
    fn whom_a_service_does_not_admit_no_outer_door_is_open_to() {
        let ranges = vec!["127.0.0.0/8".parse().expect("a range")];
        let rules = rules(&[1], Callers::Of(ranges.clone()));
        let [(name, gate)] = &rules.gates.iter().collect::<Vec<_>>()[..] else { panic!("one gate") };
        assert_eq!(gate.sources, ranges);
        assert_eq!(rules.node_ports[&(17, 30_053)], **name);
        assert_eq!(rules.services[&(Ipv4Addr::new(10, 96, 0, 1), 17, 53)], gate.chain, "inside it is open");
    }

    #[test]
    fn host_ports_lead_to_their_pod_on_one_address_or_on_all() {
        let port = |address| HostPort { address, protocol: Protocol::Tcp, port: 8080 };
        let to = Endpoint { address: address(7).into(), port: 80, hostname: None };
        let loopback = Some(Ipv4Addr::LOCALHOST);
        let host_ports = [(port(None), to.clone()), (port(loopback), to)].into();
        let rules = Rules::of(&Snapshot { host_ports, ..Default::default() });
        let all = &rules.chains[&rules.node_ports[&(6, 8080)]];
        let one = &rules.chains[&rules.services[&(Ipv4Addr::LOCALHOST, 6, 8080)]];
        assert_eq!((&all.endpoints, &one.endpoints), (&vec![(address(7), 80)], &vec![(address(7), 80)]));
        assert!(rules.hairpins.contains(&address(7)));
    }
}

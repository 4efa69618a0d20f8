//! ClusterIP and NodePort in the kernel: the desired rules as data, and the smallest batch that leads to them.
//!
//! ```text
//! prerouting, output:  daddr . proto . dport --services--> goto chain of the Service's port
//!                      (local daddr) proto . dport --nodeports--> the same
//!                      (local daddr) proto . dport --published--> the same, by way of a gate for some callers only
//! chain of a port:     random or by client address --endpoints--> DNAT to address . port
//! postrouting:         SNAT what comes back to its own sender, what leaves the Pod network, and host loopback
//! forward:             (isolated Pods only) saddr --egress--> what it may make; daddr --ingress--> what it may take
//! forward:             refuse what comes from outside for an address of a Pod or a Service: only what is published is
//!                      reached from there
//! forward, output:     refuse what still has a Service address: it has no endpoint
//! ```

mod firewall;
mod inspect;
mod isolation;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub use message::Error;
use message::{Batch, Element, Expression as E, Hook, Reg};
use yado_types::key::ObjectKey;

use crate::index::{PortEntry, Protocol, Published, Snapshot};
use crate::policy::Isolation;
use crate::slot::{Cidr, Slot};

/// A fixed seed keeps a client's endpoint the same over rule changes and restarts.
const AFFINITY_SEED: u32 = 0x7961_646f;

/// Concatenated key types, as the `nft` tool prints them: six bits for each part.
mod key_type {
    pub const ADDRESS_PROTOCOL_PORT: u32 = (7 << 12) | (12 << 6) | 13;
    pub const PROTOCOL_PORT: u32 = (12 << 6) | 13;
    pub const ADDRESS_PORT: u32 = (7 << 6) | 13;
    pub const ADDRESS_ADDRESS: u32 = (7 << 6) | 7;
    pub const ADDRESS: u32 = 7;
    pub const INTEGER: u32 = 4;
}

/// What the kernel shall do, independent of how it gets there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By chain name.
    chains: BTreeMap<String, Chain>,
    /// Virtual address, protocol and port to chain.
    services: BTreeMap<(Ipv4Addr, u8, u16), String>,
    /// Protocol and port of the node to chain.
    node_ports: BTreeMap<(u8, u16), String>,
    /// Protocol and port of the node to the chain, or the gate before it, of a published Service.
    published: BTreeMap<(u8, u16), String>,
    /// By name: who passes, and the chain that they go to.
    gates: BTreeMap<String, Gate>,
    /// Every endpoint: a connection from it to itself needs another source address.
    hairpins: BTreeSet<Ipv4Addr>,
    /// What NetworkPolicies keep from whom.
    isolation: Arc<Isolation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    affinity: bool,
    endpoints: Vec<(Ipv4Addr, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gate {
    sources: Vec<Cidr>,
    chain: String,
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
                let name = chain_name(key, port);
                let protocol = port.protocol.number();
                rules.hairpins.extend(endpoints.iter().map(|(address, _)| *address));
                for address in service.cluster_ips.iter().chain(&service.external_ips) {
                    if let IpAddr::V4(address) = address {
                        rules.services.insert((*address, protocol, port.port), name.clone());
                    }
                }
                if let Some(node_port) = port.node_port {
                    rules.node_ports.insert((protocol, node_port), name.clone());
                }
                if let Some(published) = &service.published {
                    rules.publish((protocol, port.port), published, &name);
                }
                rules.chains.insert(name, Chain { affinity: service.affinity_seconds.is_some(), endpoints });
            }
        }
        rules
    }

    fn udp_endpoints(&self) -> BTreeSet<(Ipv4Addr, u16)> {
        let udp = |protocol: &u8| *protocol == Protocol::Udp.number();
        let services = self.services.iter().filter(|((_, protocol, _), _)| udp(protocol)).map(|(_, c)| c);
        let ports = self.node_ports.iter().chain(&self.published).filter(|((protocol, _), _)| udp(protocol));
        // A gate stands before a chain that is found under the Service's own address as well.
        let chains = services.chain(ports.map(|(_, chain)| chain)).filter_map(|name| self.chains.get(name));
        chains.flat_map(|chain| chain.endpoints.iter().copied()).collect()
    }

    fn publish(&mut self, port: (u8, u16), published: &Published, chain: &str) {
        if published.sources.is_empty() {
            self.published.insert(port, chain.to_owned());
            return;
        }
        let gate = Gate { sources: published.sources.clone(), chain: chain.to_owned() };
        // Named after what is in it: another gate is another chain.
        let mut hasher = DefaultHasher::new();
        gate.hash(&mut hasher);
        let name = format!("g{:016x}", hasher.finish());
        self.gates.insert(name.clone(), gate);
        self.published.insert(port, name);
    }
}

fn endpoints(port: &PortEntry) -> Vec<(Ipv4Addr, u16)> {
    let addresses = port.endpoints.iter().filter_map(|e| match e.address {
        IpAddr::V4(address) if e.port != 0 => Some((address, e.port)),
        _ => None,
    });
    addresses.collect()
}

/// Stable over restarts of one build; a rebuild of the table follows each start, so that is enough.
fn chain_name(service: &ObjectKey, port: &PortEntry) -> String {
    let mut hasher = DefaultHasher::new();
    (service, port.protocol, port.port).hash(&mut hasher);
    format!("s{:016x}", hasher.finish())
}

/// The kernel's table of one Yado.
pub struct Table {
    frame: Frame,
    applied: Rules,
    /// How much was in the table after the last change.
    uses: Option<u32>,
}

/// What is the same whatever Services there are.
#[derive(Clone)]
struct Frame {
    table: String,
    device: String,
    gateway: Ipv4Addr,
    pods: Cidr,
    services: Cidr,
}

impl Table {
    /// Makes the table anew, without any Service. What stood in one of that name is replaced in one step.
    pub fn create(slot: &Slot) -> Result<Self, Error> {
        let frame = Frame {
            table: slot.table().to_owned(),
            device: slot.device().to_owned(),
            gateway: slot.gateway(),
            pods: slot.pod_cidr(),
            services: slot.service_cidr(),
        };
        let mut table = Self { frame, applied: Rules::default(), uses: None };
        table.replace(Rules::default())?;
        table.open_firewall();
        Ok(table)
    }

    /// Removes the table; one that is not there is no error.
    pub fn remove(slot: &Slot) -> Result<(), Error> {
        let mut batch = Batch::new(slot.table());
        batch.add_table();
        batch.delete_table();
        batch.commit()?;
        firewall::close(slot.device())
    }

    /// Makes the table anew where somebody has flushed it, as a firewall does when it loads its rules. Says whether that
    /// was so. A firewall that has come since is opened for Pods, too.
    pub fn heal(&mut self) -> Result<bool, Error> {
        if firewall::uses(&self.frame.table)? == self.uses {
            return Ok(false);
        }
        self.replace(self.applied.clone())?;
        self.open_firewall();
        Ok(true)
    }

    /// Pods without a firewall that lets them through are lonely, but they run.
    pub fn open_firewall(&self) {
        match firewall::open(&self.frame.device) {
            Ok(opened) if opened.is_empty() => {}
            Ok(opened) => tracing::info!(
                chains = opened.join(", "),
                "a firewall drops what this machine forwards; rules that let Pods through were added to it"
            ),
            Err(error) => {
                tracing::warn!(%error, "whether a firewall keeps Pods from each other is not known")
            }
        }
    }

    /// Brings the kernel to `rules` in one transaction. On an error nothing has changed.
    pub fn apply(&mut self, rules: Rules) -> Result<(), Error> {
        if rules == self.applied {
            return Ok(());
        }
        let mut batch = Batch::new(&self.frame.table);
        difference(&mut batch, &self.applied, &rules);
        let gone = &self.applied.udp_endpoints() - &rules.udp_endpoints();
        match batch.commit() {
            Ok(()) => {
                self.applied = rules;
                self.uses = firewall::uses(&self.frame.table)?;
            }
            // Somebody flushed or changed what is ours, as a firewall does when it loads its rules.
            Err(Error::Refused { .. }) => self.replace(rules)?,
            Err(error) => return Err(error),
        }
        if !gone.is_empty()
            && let Err(error) = inspect::forget_connections(&gone)
        {
            // What is left of them ends when their senders pause.
            tracing::debug!(%error, "connections to endpoints that went are not forgotten");
        }
        Ok(())
    }

    /// Makes the whole table anew, in one transaction.
    fn replace(&mut self, rules: Rules) -> Result<(), Error> {
        let mut batch = Batch::new(&self.frame.table);
        batch.add_table();
        batch.delete_table();
        batch.add_table();
        self.frame.add_to(&mut batch);
        difference(&mut batch, &Rules::default(), &rules);
        batch.commit()?;
        self.applied = rules;
        self.uses = firewall::uses(&self.frame.table)?;
        Ok(())
    }
}

impl Frame {
    fn add_to(&self, batch: &mut Batch) {
        batch.add_map("services", key_type::ADDRESS_PROTOCOL_PORT, 12, None);
        batch.add_map("nodeports", key_type::PROTOCOL_PORT, 8, None);
        batch.add_map("published", key_type::PROTOCOL_PORT, 8, None);
        isolation::add_to(batch);
        batch.add_set("hairpins", key_type::ADDRESS_ADDRESS, 8);
        batch.add_chain("loopback", Some(Hook::filter_prerouting_before_conntrack()));
        batch.add_chain("prerouting", Some(Hook::nat_prerouting()));
        batch.add_chain("output", Some(Hook::nat_output()));
        batch.add_chain("postrouting", Some(Hook::nat_postrouting()));
        batch.add_chain("refuse-forward", Some(Hook::filter_forward()));
        batch.add_chain("refuse-output", Some(Hook::filter_output()));
        self.add_translation(batch);
        self.add_refusals(batch);
    }

    /// Where connections go, and whose address they show.
    fn add_translation(&self, batch: &mut Batch) {
        for chain in ["prerouting", "output"] {
            let key =
                [E::DestinationAddress(Reg::R0), E::TransportProtocol(Reg::R1), E::DestinationPort(Reg::R2)];
            batch.add_rule(
                chain,
                key.into_iter().chain([E::VerdictMap { set: "services".into(), key: Reg::R0 }]),
            );
            for ports in ["nodeports", "published"] {
                let local = [E::DestinationIsLocal(Reg::R0), E::equals(Reg::R0, &2u32.to_ne_bytes())];
                let key = [E::TransportProtocol(Reg::R0), E::DestinationPort(Reg::R1)];
                let to = [E::VerdictMap { set: ports.into(), key: Reg::R0 }];
                batch.add_rule(chain, local.into_iter().chain(key).chain(to));
            }
        }

        let Self { gateway, pods, .. } = *self;
        let to_itself = [
            E::SourceAddress(Reg::R0),
            E::DestinationAddress(Reg::R1),
            E::Contained { set: "hairpins".into(), key: Reg::R0 },
        ];
        batch.add_rule("postrouting", to_itself.into_iter().chain(E::source_nat(gateway)));
        let loopback_to_pod = [
            E::SourceAddress(Reg::R0),
            E::mask(Reg::R0, [255, 0, 0, 0]),
            E::equals(Reg::R0, &[127, 0, 0, 0]),
            E::DestinationAddress(Reg::R0),
            E::mask(Reg::R0, pods.mask()),
            E::equals(Reg::R0, &pods.address.octets()),
        ];
        batch.add_rule("postrouting", loopback_to_pod.into_iter().chain(E::source_nat(gateway)));
        let pod_to_outside = [
            E::SourceAddress(Reg::R0),
            E::mask(Reg::R0, pods.mask()),
            E::equals(Reg::R0, &pods.address.octets()),
            E::DestinationAddress(Reg::R0),
            E::mask(Reg::R0, pods.mask()),
            E::differs(Reg::R0, &pods.address.octets()),
        ];
        // The gateway's own address lies in the Pod network and needs no other when the host itself speaks.
        let not_gateway = [E::SourceAddress(Reg::R0), E::differs(Reg::R0, &gateway.octets())];
        batch.add_rule("postrouting", pod_to_outside.into_iter().chain(not_gateway).chain([E::Masquerade]));
    }

    /// What goes nowhere.
    fn add_refusals(&self, batch: &mut Batch) {
        // Loopback addresses are routable from the Pods' devices so that replies to the host's own NodePort
        // connections come home; nothing else may use that.
        let pod_device = format!("{}-", self.device);
        let from_pod_to_loopback = [
            E::InputDevice(Reg::R0),
            E::equals(Reg::R0, pod_device.as_bytes()),
            E::DestinationAddress(Reg::R0),
        ];
        let is_loopback = [E::mask(Reg::R0, [255, 0, 0, 0]), E::equals(Reg::R0, &[127, 0, 0, 0]), E::Drop];
        batch.add_rule("loopback", from_pod_to_loopback.into_iter().chain(is_loopback));

        self.add_refusals_outside(batch, &pod_device);
        let services = self.services;
        for chain in ["refuse-forward", "refuse-output"] {
            let unserved = || {
                [
                    E::DestinationAddress(Reg::R0),
                    E::mask(Reg::R0, services.mask()),
                    E::equals(Reg::R0, &services.address.octets()),
                ]
            };
            let tcp = [E::TransportProtocol(Reg::R0), E::equals(Reg::R0, &[6]), E::RejectWithReset];
            batch.add_rule(chain, unserved().into_iter().chain(tcp));
            batch.add_rule(chain, unserved().into_iter().chain([E::RejectAsUnreachable]));
        }
    }

    /// Who knows the way to the Pods from outside, as every neighbour of the node may, comes no further for it.
    fn add_refusals_outside(&self, batch: &mut Batch, pod_device: &str) {
        for range in [self.pods, self.services] {
            let from_outside = || {
                [
                    E::InputDevice(Reg::R0),
                    E::differs(Reg::R0, pod_device.as_bytes()),
                    E::OutputDevice(Reg::R0),
                    E::equals(Reg::R0, pod_device.as_bytes()),
                    E::ConnectionState(Reg::R0),
                    E::mask(Reg::R0, message::KNOWN_CONNECTION.to_ne_bytes()),
                    E::equals(Reg::R0, &[0; 4]),
                    E::OriginalDestination(Reg::R0),
                    E::mask(Reg::R0, range.mask()),
                    E::equals(Reg::R0, &range.address.octets()),
                ]
            };
            let tcp = [E::TransportProtocol(Reg::R0), E::equals(Reg::R0, &[6]), E::RejectWithReset];
            batch.add_rule("refuse-forward", from_outside().into_iter().chain(tcp));
            batch.add_rule("refuse-forward", from_outside().into_iter().chain([E::RejectAsUnreachable]));
        }
    }
}

/// The smallest change from one set of rules to another. What refers to a chain goes before the chain, and comes
/// after it.
fn difference(batch: &mut Batch, old: &Rules, new: &Rules) {
    let service_key = |(address, protocol, port): &(Ipv4Addr, u8, u16)| {
        [address.octets(), [*protocol, 0, 0, 0], port_bytes(*port)].concat()
    };
    let port_key = |(protocol, port): &(u8, u16)| [[*protocol, 0, 0, 0], port_bytes(*port)].concat();
    let hairpin_key = |a: &Ipv4Addr| [a.octets(), a.octets()].concat();

    batch.delete_elements("services", gone(&old.services, &new.services).map(service_key));
    batch.delete_elements("nodeports", gone(&old.node_ports, &new.node_ports).map(port_key));
    batch.delete_elements("published", gone(&old.published, &new.published).map(port_key));
    // What leads out of a gate goes before the chain that it leads to.
    for name in gone(&old.gates, &new.gates) {
        batch.delete_rules(name);
        batch.delete_chain(name);
    }
    isolation::difference(batch, &old.isolation, &new.isolation);
    batch.delete_elements("hairpins", old.hairpins.difference(&new.hairpins).map(hairpin_key));
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        batch.delete_rules(name);
        batch.delete_chain(name);
        batch.delete_set(&endpoints_map(name));
    }
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            Some(same) if same == chain => continue,
            Some(_) => {
                batch.delete_rules(name);
                batch.clear_set(&endpoints_map(name));
            }
            None => {
                batch.add_chain(name, None);
                batch.add_map(&endpoints_map(name), key_type::INTEGER, 4, Some((key_type::ADDRESS_PORT, 8)));
            }
        }
        fill_chain(batch, name, chain);
    }
    for name in gone(&new.gates, &old.gates) {
        add_gate(batch, name, &new.gates[name]);
    }
    let to_chain = |chain: &String| Element::Goto(chain.clone());
    let services = gone(&new.services, &old.services).map(|k| (service_key(k), to_chain(&new.services[k])));
    batch.add_elements("services", services);
    let ports = gone(&new.node_ports, &old.node_ports).map(|k| (port_key(k), to_chain(&new.node_ports[k])));
    batch.add_elements("nodeports", ports);
    let ports = gone(&new.published, &old.published).map(|k| (port_key(k), to_chain(&new.published[k])));
    batch.add_elements("published", ports);
    let hairpins = new.hairpins.difference(&old.hairpins).map(|a| (hairpin_key(a), Element::Member));
    batch.add_elements("hairpins", hairpins);
}

fn add_gate(batch: &mut Batch, name: &str, gate: &Gate) {
    batch.add_chain(name, None);
    for source in &gate.sources {
        let comes_from = [
            E::SourceAddress(Reg::R0),
            E::mask(Reg::R0, source.mask()),
            E::equals(Reg::R0, &source.address.octets()),
            E::Goto(gate.chain.clone()),
        ];
        batch.add_rule(name, comes_from);
    }
}

fn fill_chain(batch: &mut Batch, name: &str, chain: &Chain) {
    let map = endpoints_map(name);
    let elements = chain.endpoints.iter().zip(0u32..).map(|((address, port), i)| {
        (i.to_ne_bytes().to_vec(), Element::Data([address.octets(), port_bytes(*port)].concat()))
    });
    batch.add_elements(&map, elements);
    let count = chain.endpoints.len() as u32;
    let choose: Vec<E> = if chain.affinity {
        vec![
            E::SourceAddress(Reg::R0),
            E::Hash { from: Reg::R0, to: Reg::R0, modulus: count, seed: AFFINITY_SEED },
        ]
    } else {
        vec![E::Random { to: Reg::R0, modulus: count }]
    };
    // The map's value fills two registers: the address, then the port.
    let translate = [E::Map { set: map, key: Reg::R0, to: Reg::R0 }, E::DestinationNat(Reg::R0, Reg::R1)];
    let mut rule = choose;
    rule.extend(translate);
    batch.add_rule(name, rule);
}

/// Keys of `a` that `b` lacks or has with another value.
fn gone<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    a.iter().filter(|(k, v)| b.get(*k) != Some(*v)).map(|(k, _)| k)
}

fn endpoints_map(chain: &str) -> String {
    format!("e{}", &chain[1..])
}

/// A port in a key: network order, padded to a register.
fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

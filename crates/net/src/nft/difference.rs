//! The smallest change from one set of rules to another. What refers to a chain goes before the chain, and comes after
//! it.
//!
//! A chain of a port picks an endpoint by a random number from its map. With session affinity there is a chain and a set
//! for each endpoint besides: the set holds the client addresses that are to come back to it, and goes with the
//! endpoint, so that whoever comes and goes otherwise changes nothing for them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use super::message::{Batch, Element, Expression as E, Reg};
use super::rules::{Chain, EndpointAddress, Gate, Rules};
use super::{gone, isolation, key_type};

/// Client addresses remembered for one endpoint; further clients get a random endpoint each time. Each costs some 100
/// bytes of the kernel's memory.
const REMEMBERED_CLIENTS: u32 = 65_536;

/// Names of the sets of clients begin with it.
pub(super) const CLIENTS: char = 'c';

/// The names of the sets of clients under some rules.
pub(super) fn client_sets(rules: &Rules) -> impl Iterator<Item = String> + '_ {
    let sticky = rules.chains.iter().filter(|(_, chain)| chain.affinity.is_some());
    sticky.flat_map(|(name, chain)| chain.endpoints.iter().map(|endpoint| keeper(name, *endpoint).clients))
}

pub(super) fn difference(batch: &mut Batch, old: &Rules, new: &Rules) {
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
    for (name, chain) in old.chains.iter().filter(|(name, _)| !new.chains.contains_key(*name)) {
        remove_chain(batch, name, chain);
    }
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            Some(same) if same == chain => {}
            Some(before) => change_chain(batch, name, before, chain),
            None => add_chain(batch, name, chain),
        }
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
            E::mask(Reg::R0, source.netmask().octets()),
            E::equals(Reg::R0, &source.network().octets()),
            E::Goto(gate.chain.clone()),
        ];
        batch.add_rule(name, comes_from);
    }
}

fn add_chain(batch: &mut Batch, name: &str, chain: &Chain) {
    batch.add_chain(name, None);
    let data = chain.affinity.is_none().then_some((key_type::ADDRESS_PORT, 8));
    batch.add_map(&endpoints_map(name), key_type::INTEGER, 4, data);
    if let Some(seconds) = chain.affinity {
        chain.endpoints.iter().for_each(|endpoint| add_keeper(batch, name, *endpoint, seconds));
    }
    fill_chain(batch, name, chain);
}

fn remove_chain(batch: &mut Batch, name: &str, chain: &Chain) {
    batch.delete_rules(name);
    batch.delete_chain(name);
    batch.delete_set(&endpoints_map(name));
    if chain.affinity.is_some() {
        chain.endpoints.iter().for_each(|endpoint| remove_keeper(batch, name, *endpoint));
    }
}

/// A change of the endpoints alone: a Service whose affinity changes has a chain of another name.
fn change_chain(batch: &mut Batch, name: &str, old: &Chain, new: &Chain) {
    batch.delete_rules(name);
    batch.clear_set(&endpoints_map(name));
    if let Some(seconds) = new.affinity {
        let left = old.endpoints.iter().filter(|endpoint| !new.endpoints.contains(endpoint));
        left.for_each(|endpoint| remove_keeper(batch, name, *endpoint));
        let came = new.endpoints.iter().filter(|endpoint| !old.endpoints.contains(endpoint));
        came.for_each(|endpoint| add_keeper(batch, name, *endpoint, seconds));
    }
    fill_chain(batch, name, new);
}

/// An endpoint's own chain and the clients that come back to it.
fn add_keeper(batch: &mut Batch, chain: &str, endpoint: EndpointAddress, seconds: u32) {
    let Keeper { chain, clients } = keeper(chain, endpoint);
    batch.add_remembering_set(&clients, key_type::ADDRESS, 4, seconds, REMEMBERED_CLIENTS);
    batch.add_chain(&chain, None);
    // A rule of its own: where the set is full, only this one ends.
    batch.add_rule(&chain, [E::SourceAddress(Reg::R0), E::Remember { set: clients, key: Reg::R0 }]);
    let (address, port) = endpoint;
    let translate = [
        E::Immediate { reg: Reg::R0, value: address.octets().to_vec() },
        E::Immediate { reg: Reg::R1, value: port.to_be_bytes().to_vec() },
        E::DestinationNat(Reg::R0, Reg::R1),
    ];
    batch.add_rule(&chain, translate);
}

fn remove_keeper(batch: &mut Batch, chain: &str, endpoint: EndpointAddress) {
    let Keeper { chain, clients } = keeper(chain, endpoint);
    batch.delete_rules(&chain);
    batch.delete_chain(&chain);
    batch.delete_set(&clients);
}

struct Keeper {
    chain: String,
    clients: String,
}

fn keeper(chain: &str, endpoint: EndpointAddress) -> Keeper {
    let mut hasher = DefaultHasher::new();
    (chain, endpoint).hash(&mut hasher);
    let id = hasher.finish();
    Keeper { chain: format!("t{id:016x}"), clients: format!("{CLIENTS}{id:016x}") }
}

fn fill_chain(batch: &mut Batch, name: &str, chain: &Chain) {
    let map = endpoints_map(name);
    let element = |(address, port): &EndpointAddress| match chain.affinity {
        None => Element::Data([address.octets(), port_bytes(*port)].concat()),
        Some(_) => Element::Goto(keeper(name, (*address, *port)).chain),
    };
    let elements = chain.endpoints.iter().zip(0u32..);
    batch.add_elements(&map, elements.map(|(to, i)| (i.to_ne_bytes().to_vec(), element(to))));
    let choose = E::Random { to: Reg::R0, modulus: chain.endpoints.len() as u32 };
    if chain.affinity.is_none() {
        // The map's value fills two registers: the address, then the port.
        let to_endpoint = E::Map { set: map, key: Reg::R0, to: Reg::R0 };
        return batch.add_rule(name, [choose, to_endpoint, E::DestinationNat(Reg::R0, Reg::R1)]);
    }
    for endpoint in &chain.endpoints {
        let Keeper { chain, clients } = keeper(name, *endpoint);
        let back = [E::SourceAddress(Reg::R0), E::Contained { set: clients, key: Reg::R0 }, E::Goto(chain)];
        batch.add_rule(name, back);
    }
    batch.add_rule(name, [choose, E::VerdictMap { set: map, key: Reg::R0 }]);
}

fn endpoints_map(chain: &str) -> String {
    format!("e{}", &chain[1..])
}

/// A port in a key: network order, padded to a register.
fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

//! NetworkPolicies in the kernel. Packets meet these rules only while some Pod is isolated: otherwise the hooks are not
//! there. What Pods send to each other and to the outside is forwarded; what they send to the node itself, to its
//! programs, the router and the name server, is input.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::message::{Batch, Element, Expression as E, Hook, KNOWN_CONNECTION, Reg};
use super::{gone, key_type};
use crate::policy::{AllowedTraffic, Isolation, Peers};

/// The chain of what is forwarded.
const CHAIN: &str = "isolation";
/// The chain of what is sent to the node.
const INPUT_CHAIN: &str = "isolation-input";

/// What is there without any policy.
pub fn add_to(batch: &mut Batch) {
    batch.add_map("ingress", key_type::ADDRESS, 4, None);
    batch.add_map("egress", key_type::ADDRESS, 4, None);
}

/// The smallest change from one isolation to another: what refers to a thing goes before it and comes after it.
pub fn difference(batch: &mut Batch, old: &Isolation, new: &Isolation) {
    if old == new {
        return;
    }
    if new.is_empty() {
        for chain in [CHAIN, INPUT_CHAIN] {
            batch.delete_rules(chain);
            batch.delete_chain(chain);
        }
    }
    let key = |address: &Ipv4Addr| address.octets().to_vec();
    batch.delete_elements("ingress", gone(&old.ingress, &new.ingress).map(key));
    batch.delete_elements("egress", gone(&old.egress, &new.egress).map(key));
    for name in gone(&old.chains, &new.chains) {
        batch.delete_rules(name);
        batch.delete_chain(name);
    }
    gone(&old.sets, &new.sets).for_each(|name| batch.delete_set(name));

    for name in gone(&new.sets, &old.sets) {
        batch.add_set(name, key_type::ADDRESS, 4);
        batch.add_elements(name, new.sets[name].iter().map(|a| (key(a), Element::Member)));
    }
    for name in gone(&new.chains, &old.chains) {
        batch.add_chain(name, None);
        // What a Pod may take is told by the source of a packet, what it may make by its destination.
        let other_side = if name.starts_with('i') { E::SourceAddress } else { E::DestinationAddress };
        new.chains[name].iter().for_each(|allowed| batch.add_rule(name, rule(allowed, other_side)));
        // A reset always arrives, whereas the kernel limits how many errors it sends.
        let reset = [E::TransportProtocol(Reg::R0), E::equals(Reg::R0, &[6]), E::RejectWithReset];
        batch.add_rule(name, reset);
        batch.add_rule(name, [E::RejectAsUnreachable]);
    }
    add_pods(batch, "ingress", &old.ingress, &new.ingress);
    add_pods(batch, "egress", &old.egress, &new.egress);
    if old.is_empty() {
        add_hooks(batch);
    }
}

fn add_pods(
    batch: &mut Batch,
    map: &str,
    old: &BTreeMap<Ipv4Addr, String>,
    new: &BTreeMap<Ipv4Addr, String>,
) {
    let pods = gone(new, old).map(|a| (a.octets().to_vec(), Element::Jump(new[a].clone())));
    batch.add_elements(map, pods);
}

fn add_hooks(batch: &mut Batch) {
    batch.add_chain(CHAIN, Some(Hook::filter_forward()));
    batch.add_chain(INPUT_CHAIN, Some(Hook::filter_input()));
    let known = KNOWN_CONNECTION.to_ne_bytes();
    for chain in [CHAIN, INPUT_CHAIN] {
        let answers =
            [E::ConnectionState(Reg::R0), E::mask(Reg::R0, known), E::differs(Reg::R0, &[0; 4]), E::Accept];
        batch.add_rule(chain, answers);
    }
    // A Pod may always talk to itself, through a Service, too.
    let itself = [
        E::SourceAddress(Reg::R0),
        E::DestinationAddress(Reg::R1),
        E::Contained { set: "hairpins".into(), key: Reg::R0 },
        E::Accept,
    ];
    batch.add_rule(CHAIN, itself);
    let to = |map: &str| E::VerdictMap { set: map.into(), key: Reg::R0 };
    batch.add_rule(CHAIN, [E::SourceAddress(Reg::R0), to("egress")]);
    batch.add_rule(CHAIN, [E::DestinationAddress(Reg::R0), to("ingress")]);
    batch.add_rule(INPUT_CHAIN, [E::SourceAddress(Reg::R0), to("egress")]);
}

fn rule(allowed: &AllowedTraffic, other_side: fn(Reg) -> E) -> Vec<E> {
    let mut rule = Vec::new();
    match &allowed.peers {
        Peers::All => {}
        Peers::Set(set) => {
            rule.extend([other_side(Reg::R0), E::Contained { set: set.clone(), key: Reg::R0 }]);
        }
        Peers::Range(range, except) => {
            let lies = |range: &Ipv4Net| [other_side(Reg::R0), E::mask(Reg::R0, range.netmask().octets())];
            rule.extend(lies(range));
            rule.push(E::equals(Reg::R0, &range.network().octets()));
            for range in except {
                rule.extend(lies(range));
                rule.push(E::differs(Reg::R0, &range.network().octets()));
            }
        }
    }
    if let Some((protocol, ports)) = allowed.ports {
        rule.extend([E::TransportProtocol(Reg::R0), E::equals(Reg::R0, &[protocol])]);
        if let Some((first, last)) = ports {
            rule.push(E::DestinationPort(Reg::R0));
            rule.push(E::at_least(Reg::R0, &first.to_be_bytes()));
            rule.push(E::at_most(Reg::R0, &last.to_be_bytes()));
        }
    }
    rule.push(E::Return);
    rule
}

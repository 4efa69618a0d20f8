//! ClusterIP and NodePort in the kernel: the desired rules as data, and the smallest batch that leads to them.
//!
//! ```text
//! prerouting:          drop what a Pod sends under an address that is not its own
//! prerouting, output:  daddr . proto . dport --services--> goto chain of the Service's port
//!                      (local daddr) proto . dport --nodeports--> the same
//!                      (local daddr) proto . dport --published--> the same, by way of a gate for some callers only
//! chain of a port:     random --endpoints--> DNAT to address . port; with session affinity, the endpoint that the client
//!                      address had within the timeout, or else a random one
//! postrouting:         SNAT what comes back to its own sender, what leaves the Pod network, and host loopback
//! forward, input:      (isolated Pods only) saddr --egress--> what it may make; daddr --ingress--> what it may take
//! forward:             refuse what comes from outside for an address of a Pod or a Service: only what is published is
//!                      reached from there
//! forward, output:     refuse what still has a Service address: it has no endpoint
//! ```

mod difference;
mod firewall;
mod inspect;
mod isolation;
mod message;
mod rules;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use difference::difference;
use inspect::Member;
use ipnet::Ipv4Net;
pub use message::Error;
use message::{Batch, Element, Expression as E, Hook, Reg};
pub use rules::Rules;

use crate::slot::Slot;

/// Concatenated key types, as the `nft` tool prints them: six bits for each part.
mod key_type {
    pub const ADDRESS_PROTOCOL_PORT: u32 = (7 << 12) | (12 << 6) | 13;
    pub const PROTOCOL_PORT: u32 = (12 << 6) | 13;
    pub const ADDRESS_PORT: u32 = (7 << 6) | 13;
    pub const ADDRESS_ADDRESS: u32 = (7 << 6) | 7;
    pub const ADDRESS: u32 = 7;
    pub const INTEGER: u32 = 4;
}

/// The kernel's table of one Yado.
pub struct Table {
    frame: Frame,
    applied: Rules,
    /// How much was in the table after the last change.
    uses: Option<u32>,
    /// The clients that an earlier run remembered for endpoints, until the first rules are there again.
    remembered: BTreeMap<String, Vec<Member>>,
}

/// What is the same whatever Services there are.
#[derive(Clone)]
struct Frame {
    table: String,
    device: String,
    gateway: Ipv4Addr,
    pods: Ipv4Net,
    services: Ipv4Net,
}

impl Table {
    /// Makes the table anew, without any Service. What stood in one of that name is replaced in one step; which client has
    /// which endpoint is kept for the first rules that are applied.
    pub fn create(slot: &Slot) -> Result<Self, Error> {
        let frame = Frame {
            table: slot.table().to_owned(),
            device: slot.device().to_owned(),
            gateway: slot.gateway(),
            pods: slot.pod_cidr(),
            services: slot.service_cidr(),
        };
        let remembered = inspect::members(&frame.table, difference::CLIENTS)?;
        let mut table = Self { frame, applied: Rules::default(), uses: None, remembered };
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
        let before = self.applied.clone();
        let remembered = std::mem::take(&mut self.remembered);
        match batch.commit() {
            Ok(()) => {
                self.applied = rules;
                self.uses = firewall::uses(&self.frame.table)?;
            }
            // Somebody flushed or changed what is ours, as a firewall does when it loads its rules.
            Err(Error::Refused { .. }) => self.replace(rules)?,
            Err(error) => return Err(error),
        }
        self.remember(&remembered);
        if before.leads_udp_elsewhere(&self.applied)
            && let Err(error) = inspect::forget_flows(|flow| self.applied.outdates(&before, flow))
        {
            // What is left of them ends when their senders pause.
            tracing::warn!(%error, "UDP senders to endpoints that changed may reach the former ones");
        }
        Ok(())
    }

    /// Gives the endpoints that are still there the clients that they had. Where that fails, clients choose anew.
    fn remember(&self, clients: &BTreeMap<String, Vec<Member>>) {
        let mut batch = Batch::new(&self.frame.table);
        let mut is_empty = true;
        for set in difference::client_sets(&self.applied) {
            let members = clients.get(&set).map(Vec::as_slice).unwrap_or_default();
            let elements = members.iter().map(|member| (member.key.clone(), Element::Until(member.left)));
            batch.add_elements(&set, elements);
            is_empty &= members.is_empty();
        }
        if !is_empty && let Err(error) = batch.commit() {
            tracing::debug!(%error, "clients may get other endpoints than before the restart");
        }
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
        batch.add_chain("from-pods", Some(Hook::filter_prerouting_before_conntrack()));
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
            E::mask(Reg::R0, pods.netmask().octets()),
            E::equals(Reg::R0, &pods.network().octets()),
        ];
        batch.add_rule("postrouting", loopback_to_pod.into_iter().chain(E::source_nat(gateway)));
        let pod_to_outside = [
            E::SourceAddress(Reg::R0),
            E::mask(Reg::R0, pods.netmask().octets()),
            E::equals(Reg::R0, &pods.network().octets()),
            E::DestinationAddress(Reg::R0),
            E::mask(Reg::R0, pods.netmask().octets()),
            E::differs(Reg::R0, &pods.network().octets()),
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
        batch.add_rule("from-pods", from_pod_to_loopback.into_iter().chain(is_loopback));
        // Policies and the name server know a Pod by its address: one whose way back leads elsewhere is not its own.
        // `rp_filter` of the device would not do: a looser one for all devices overrides it.
        let of_another = [
            E::InputDevice(Reg::R0),
            E::equals(Reg::R0, pod_device.as_bytes()),
            E::SourceRoutedHere(Reg::R0),
            E::equals(Reg::R0, &[0; 4]),
            E::Drop,
        ];
        batch.add_rule("from-pods", of_another);

        self.add_refusals_outside(batch, &pod_device);
        let services = self.services;
        for chain in ["refuse-forward", "refuse-output"] {
            let unserved = || {
                [
                    E::DestinationAddress(Reg::R0),
                    E::mask(Reg::R0, services.netmask().octets()),
                    E::equals(Reg::R0, &services.network().octets()),
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
                    E::mask(Reg::R0, range.netmask().octets()),
                    E::equals(Reg::R0, &range.network().octets()),
                ]
            };
            let tcp = [E::TransportProtocol(Reg::R0), E::equals(Reg::R0, &[6]), E::RejectWithReset];
            batch.add_rule("refuse-forward", from_outside().into_iter().chain(tcp));
            batch.add_rule("refuse-forward", from_outside().into_iter().chain([E::RejectAsUnreachable]));
        }
    }
}

/// Keys of `a` that `b` lacks or has with another value.
fn gone<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    a.iter().filter(|(k, v)| b.get(*k) != Some(*v)).map(|(k, _)| k)
}

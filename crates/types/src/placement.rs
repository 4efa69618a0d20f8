//! A Pod's requirements on its node: labels, name and host ports. The scheduler filters nodes by them, and the node checks
//! them again, because a Pod with a `nodeName` bypasses the scheduler.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PodSpec};

use crate::selector::LabelSelector;

/// The node selector and the required node affinity of a Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeChoice {
    labels: LabelSelector,
    /// Terms of the required node affinity, one of which must match; `None` if the Pod has none.
    terms: Option<Vec<NodeTerm>>,
}

impl NodeChoice {
    /// Parses the requirements of a Pod.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: spec.node_selector.as_ref().map(LabelSelector::from_map).unwrap_or_default(),
            terms: required.map(|r| r.node_selector_terms.iter().map(NodeTerm::of).collect()),
        }
    }

    /// Whether a node with this name and these labels meets the requirements.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let terms = self.terms.as_ref();
        self.labels.matches(labels) && terms.is_none_or(|t| t.iter().any(|t| t.matches(name, labels)))
    }
}

/// A node selector term: requirements on a node's labels and name, all of which must be met.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTerm {
    labels: LabelSelector,
    fields: LabelSelector,
    /// The term has no requirement or an invalid one, and therefore matches no node.
    empty: bool,
}

impl NodeTerm {
    /// Parses a term of node affinity. An invalid one matches no node.
    pub fn of(term: &NodeSelectorTerm) -> Self {
        let mut all = Self::default();
        let mut readable = true;
        for (to, from) in [(&mut all.labels, &term.match_expressions), (&mut all.fields, &term.match_fields)]
        {
            for r in from.iter().flatten() {
                readable &= to.push(&r.key, &r.operator, r.values.as_deref().unwrap_or_default()).is_ok();
            }
        }
        all.empty = !readable || (all.labels.is_empty() && all.fields.is_empty());
        all
    }

    /// Whether a node with this name and these labels meets every requirement.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !self.empty && self.labels.matches(labels) && self.fields.matches_with(field)
    }
}

/// A port on the node's own addresses that a Pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The node's address; `0.0.0.0` means all of them.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port number, from 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// The ports that a Pod uses on its node: `hostPort`s and, with host networking, all declared container ports.
    pub fn of_pod(spec: &PodSpec) -> Vec<Self> {
        let on_host = spec.host_network.unwrap_or_default();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ports = containers.flat_map(|c| c.ports.iter().flatten());
        let taken = ports.filter_map(|port| {
            let number = port.host_port.or_else(|| on_host.then_some(port.container_port));
            let address = port.host_ip.clone().filter(|a| !a.is_empty());
            Some(Self {
                address: address.unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number.filter(|number| *number > 0)?,
            })
        });
        taken.collect()
    }

    /// Whether both cannot be used at the same time: same port and protocol, and overlapping addresses.
    pub fn collides(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        let same_address = self.address == other.address || self.address == ANY || other.address == ANY;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

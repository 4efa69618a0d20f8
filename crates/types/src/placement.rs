//! What a Pod asks of the node that runs it: labels, name, ports. The scheduler chooses by it, and the node looks once more,
//! since a Pod may name its node without having been scheduled.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PodSpec};

use crate::selector::LabelSelector;

/// A Pod's own choice of nodes: its node selector and its required node affinity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeChoice {
    labels: LabelSelector,
    /// One of them has to match; `None` where the Pod has no required affinity.
    terms: Option<Vec<NodeTerm>>,
}

impl NodeChoice {
    /// Reads it.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: spec.node_selector.as_ref().map(LabelSelector::from_map).unwrap_or_default(),
            terms: required.map(|r| r.node_selector_terms.iter().map(NodeTerm::of).collect()),
        }
    }

    /// Whether a node of this name with these labels is chosen.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let terms = self.terms.as_ref();
        self.labels.matches(labels) && terms.is_none_or(|t| t.iter().any(|t| t.matches(name, labels)))
    }
}

/// Requirements on a node's labels and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTerm {
    labels: LabelSelector,
    fields: LabelSelector,
    /// It has no requirement, or one that cannot be read: it matches nothing.
    empty: bool,
}

impl NodeTerm {
    /// Reads a term of node affinity.
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

    /// Whether a node of this name with these labels meets every requirement.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !self.empty && self.labels.matches(labels) && self.fields.matches_with(field)
    }
}

/// A port of the node itself that a Pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses of the node.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// From 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// All that a Pod takes: host ports, and on the host's network every port.
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

    /// Whether only one of the two can be taken.
    pub fn collides(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        let same_address = self.address == other.address || self.address == ANY || other.address == ANY;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

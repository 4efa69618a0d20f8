//! Whether a Pod can run on a node at all, and in users' words why not.

use std::collections::BTreeMap;
use std::fmt;

use super::affinity::Constraints;
use super::{NodeInfo, PodInfo};
use crate::taints::{NO_EXECUTE, NO_SCHEDULE};

/// Why one node will not do, in the words `kubectl describe` users know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is cordoned.
    NodeUnschedulable,
    /// The Pod names another node.
    NodeName,
    /// A taint, by key and value.
    Taint(String, String),
    /// Node selector or required node affinity.
    NodeAffinity,
    /// A port of the node is taken.
    HostPorts,
    /// There are as many Pods as it takes.
    TooManyPods,
    /// Too little of a resource is left.
    Insufficient(String),
    /// Spreading would be too uneven.
    Spread,
    /// It lacks the label that spreading goes by.
    SpreadLabelMissing,
    /// No Pod that is wanted near is near.
    PodAffinity,
    /// A Pod that is not wanted near is near.
    PodAntiAffinity,
    /// A Pod that is near does not want this one.
    ExistingPodsAntiAffinity,
    /// A claim's volume is elsewhere.
    VolumeNodeAffinity,
    /// A claim can have no volume there.
    NoVolume,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeUnschedulable => "node(s) were unschedulable",
            Self::NodeName => "node(s) didn't match the requested node name",
            Self::Taint(key, value) => return write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Self::HostPorts => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadLabelMissing => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::PodAffinity => "node(s) didn't match pod affinity rules",
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingPodsAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
            Self::VolumeNodeAffinity => "node(s) didn't match PersistentVolume's node affinity",
            Self::NoVolume => "node(s) didn't find available persistent volumes to bind",
        })
    }
}

/// No node will do; the text counts nodes by reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Unschedulable {
    nodes: usize,
    reasons: BTreeMap<Reason, usize>,
    /// What keeps the Pod from every node.
    anywhere: Option<String>,
}

impl Unschedulable {
    pub(super) fn of(nodes: usize) -> Self {
        Self { nodes, reasons: BTreeMap::new(), anywhere: None }
    }

    pub(super) fn anywhere(nodes: usize, why: String) -> Self {
        Self { nodes, reasons: BTreeMap::new(), anywhere: Some(why) }
    }

    pub(super) fn add(&mut self, reasons: Vec<Reason>) {
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    fn sentence(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        if let Some(why) = &self.anywhere {
            return format!("0/{} nodes are available: {why}.", self.nodes);
        }
        let mut counted: Vec<_> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        counted.sort();
        format!("0/{} nodes are available: {}.", self.nodes, counted.join(", "))
    }
}

/// Checks in Kubernetes' order; the first kind of obstacle counts, with every resource that is short.
pub(super) fn filter(
    pod: &PodInfo,
    node: &NodeInfo,
    constraints: &Constraints<'_>,
) -> Result<(), Vec<Reason>> {
    let refuse = |reason| Err(vec![reason]);
    if node.unschedulable && !pod.tolerates(yado_types::labels::TAINT_UNSCHEDULABLE, "", NO_SCHEDULE) {
        return refuse(Reason::NodeUnschedulable);
    }
    if pod.node_name.as_deref().is_some_and(|n| n != &*node.name) {
        return refuse(Reason::NodeName);
    }
    let keeps_away = |effect: &str| effect == NO_SCHEDULE || effect == NO_EXECUTE;
    let mut taints = node.taints.iter().filter(|t| keeps_away(&t.effect));
    if let Some(taint) = taints.find(|t| !pod.tolerates(&t.key, &t.value, &t.effect)) {
        return refuse(Reason::Taint(taint.key.clone(), taint.value.clone()));
    }
    if !pod.chooses(&node.name, &node.labels) {
        return refuse(Reason::NodeAffinity);
    }
    if pod.host_ports.iter().any(|p| node.host_ports.iter().any(|taken| taken.collides(p))) {
        return refuse(Reason::HostPorts);
    }
    let short = short_of(pod, node);
    if !short.is_empty() {
        return Err(short);
    }
    constraints.check(node).map_err(|reason| vec![reason])
}

/// What the node has too little of. Does not allocate where it has enough.
fn short_of(pod: &PodInfo, node: &NodeInfo) -> Vec<Reason> {
    let (asked, has, taken) = (&pod.requests, &node.allocatable, &node.requested);
    let mut short = Vec::new();
    if taken.pods + 1 > has.pods {
        short.push(Reason::TooManyPods);
    }
    let mut check = |name: &str, asked: i64, has: i64, taken: i64| {
        if asked > 0 && asked > has - taken {
            short.push(Reason::Insufficient(name.to_owned()));
        }
    };
    check("cpu", asked.milli_cpu, has.milli_cpu, taken.milli_cpu);
    check("memory", asked.memory, has.memory, taken.memory);
    check("ephemeral-storage", asked.ephemeral, has.ephemeral, taken.ephemeral);
    for (name, amount) in &asked.extended {
        check(name, *amount, has.extended(name), taken.extended(name));
    }
    short
}

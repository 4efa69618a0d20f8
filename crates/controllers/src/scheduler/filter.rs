//! Filtering: whether a node is feasible for a Pod, and the reasons why not as Kubernetes words them.

use std::collections::BTreeMap;
use std::fmt;

use super::affinity::Constraints;
use super::{NodeInfo, PodInfo};
use crate::taints::{NO_EXECUTE, NO_SCHEDULE};

/// Why a node is not feasible. Displayed with the texts of Kubernetes' scheduler.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The node is cordoned, and the Pod does not tolerate that.
    NodeUnschedulable,
    /// The Pod's `nodeName` is another node.
    NodeName,
    /// Key and value of a `NoSchedule` or `NoExecute` taint that the Pod does not tolerate.
    Taint(String, String),
    /// The node does not match the Pod's node selector or required node affinity.
    NodeAffinity,
    /// Another Pod on the node uses one of the Pod's host ports.
    HostPorts,
    /// The node has reached its maximum number of Pods.
    TooManyPods,
    /// The node has too little of this resource left for the Pod's request.
    Insufficient(String),
    /// The Pod would exceed the `maxSkew` of a required topology spread constraint.
    Spread,
    /// The node lacks the topology label of a required spread constraint.
    SpreadLabelMissing,
    /// A required Pod affinity term has no matching Pod in the node's topology domain.
    PodAffinity,
    /// A Pod in the node's topology domain matches one of the Pod's required anti-affinity terms.
    PodAntiAffinity,
    /// A required anti-affinity term of a Pod in the node's topology domain matches the Pod.
    ExistingPodsAntiAffinity,
    /// The volume of one of the Pod's claims cannot be used on the node.
    VolumeNodeAffinity,
    /// No volume exists or can be provisioned on the node for one of the Pod's unbound claims.
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

/// No node is feasible. The message has the number of nodes for each reason, as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Unschedulable {
    nodes: usize,
    reasons: BTreeMap<Reason, usize>,
    /// A reason that applies to every node.
    all_nodes: Option<String>,
}

impl Unschedulable {
    pub(super) fn of(nodes: usize) -> Self {
        Self { nodes, reasons: BTreeMap::new(), all_nodes: None }
    }

    pub(super) fn on_all_nodes(nodes: usize, why: String) -> Self {
        Self { nodes, reasons: BTreeMap::new(), all_nodes: Some(why) }
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
        if let Some(why) = &self.all_nodes {
            return format!("0/{} nodes are available: {why}.", self.nodes);
        }
        let mut counted: Vec<_> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        counted.sort();
        format!("0/{} nodes are available: {}.", self.nodes, counted.join(", "))
    }
}

/// Checks whether a node is feasible for a Pod, in the order of Kubernetes' plugins. The first check that fails gives the
/// reason; only lacking resources are all listed.
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

/// The resources that the node has too little of. Does not allocate if it has enough.
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

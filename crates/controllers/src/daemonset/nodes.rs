//! Which nodes a DaemonSet's Pods belong to.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};
use yado_types::labels::{HOSTNAME, TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE};
use yado_types::pod::node_name;

use super::REVISION_HASH;
use crate::owners;
use crate::replicaset::pod_of;
use crate::scheduler::PodInfo;
use crate::taints::{NO_EXECUTE, NO_SCHEDULE};

/// The field by which a Pod names its node before it is bound.
const NODE_NAME_FIELD: &str = "metadata.name";
/// Taints that every daemon bears: it is there to mend what they tell of, or to be there in spite of it.
const BORNE: [(&str, &str); 6] = [
    (TAINT_NOT_READY, NO_EXECUTE),
    (TAINT_UNREACHABLE, NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    (TAINT_UNSCHEDULABLE, NO_SCHEDULE),
];
/// Borne by those that use the node's own network.
const NO_NETWORK: &str = "node.kubernetes.io/network-unavailable";

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suits {
    /// A Pod belongs there.
    pub start: bool,
    /// A Pod that is there may stay.
    pub stay: bool,
}

/// What a DaemonSet's template asks of nodes.
pub struct Wish(PodInfo);

impl Wish {
    pub fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
        bear_taints(&mut spec);
        Self(PodInfo::of(&Pod { spec: Some(spec), ..Pod::default() }))
    }

    pub fn suits(&self, node: &Node) -> Suits {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut labels = node.metadata.labels.clone().unwrap_or_default();
        labels.entry(HOSTNAME.to_owned()).or_insert_with(|| name.clone());
        let chosen = self.0.chooses(&name, &labels);
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let bears = |effects: &[&str]| {
            taints
                .clone()
                .filter(|t| effects.contains(&t.effect.as_str()))
                .all(|t| self.0.tolerates(&t.key, t.value.as_deref().unwrap_or_default(), &t.effect))
        };
        Suits { start: chosen && bears(&[NO_SCHEDULE, NO_EXECUTE]), stay: chosen && bears(&[NO_EXECUTE]) }
    }
}

fn bear_taints(spec: &mut PodSpec) {
    let on_host = spec.host_network.unwrap_or_default();
    let tolerations = spec.tolerations.get_or_insert_default();
    let more = on_host.then_some((NO_NETWORK, NO_SCHEDULE));
    for (key, effect) in BORNE.into_iter().chain(more) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".into()),
            effect: Some(effect.to_owned()),
            ..Default::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// The node a Pod is bound to, or meant for.
pub fn target(pod: &Pod) -> Option<&str> {
    node_name(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
        let mut named = fields.filter(|f| f.key == NODE_NAME_FIELD && f.operator == "In");
        named.find_map(|f| f.values.as_ref()?.first()).map(String::as_str)
    })
}

/// The Pod for a node. Its own requirements on nodes have been looked at; the node's name takes their place.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let mut pod = pod_of(&template, &namespace, owners::controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    bear_taints(spec);
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME_FIELD.to_owned(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
        ..Default::default()
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let nodes: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    nodes.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

//! Node selection: on which nodes a DaemonSet's Pods should run, and the Pod for one node.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};
use yado_types::labels::{
    CONTROLLER_REVISION_HASH, HOSTNAME, TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE,
};
use yado_types::pod::node_name;

use crate::owners;
use crate::replicaset::pod_of;
use crate::scheduler::PodInfo;
use crate::taints::{NO_EXECUTE, NO_SCHEDULE};

/// The field of node affinity by which a Pod requests one node by name before it is bound.
const NODE_NAME_FIELD: &str = "metadata.name";
/// Taints that the Pods of every DaemonSet tolerate, as in Kubernetes: a daemon may be what repairs the node.
const DAEMON_TOLERATIONS: [(&str, &str); 6] = [
    (TAINT_NOT_READY, NO_EXECUTE),
    (TAINT_UNREACHABLE, NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    (TAINT_UNSCHEDULABLE, NO_SCHEDULE),
];
/// Taint that is tolerated in addition by Pods that use the host's network.
const NO_NETWORK: &str = "node.kubernetes.io/network-unavailable";

/// Whether a DaemonSet's Pod should be on a node; Kubernetes' `nodeShouldRunDaemonPod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suitability {
    /// A Pod should be created: the node matches and all its `NoSchedule` and `NoExecute` taints are tolerated.
    pub should_run: bool,
    /// A Pod that is there may continue: the node matches and all its `NoExecute` taints are tolerated.
    pub should_continue: bool,
}

/// The requirements of a DaemonSet's template on nodes: selector, affinity and tolerations.
pub struct NodeRequirements(PodInfo);

impl NodeRequirements {
    /// The requirements of the current template, with the tolerations that every daemon has.
    pub fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
        add_tolerations(&mut spec);
        Self(PodInfo::of(&Pod { spec: Some(spec), ..Pod::default() }))
    }

    /// Compares a node's labels and taints with the requirements.
    pub fn check(&self, node: &Node) -> Suitability {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut labels = node.metadata.labels.clone().unwrap_or_default();
        labels.entry(HOSTNAME.to_owned()).or_insert_with(|| name.clone());
        let chosen = self.0.chooses(&name, &labels);
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let tolerates_all = |effects: &[&str]| {
            taints
                .clone()
                .filter(|t| effects.contains(&t.effect.as_str()))
                .all(|t| self.0.tolerates(&t.key, t.value.as_deref().unwrap_or_default(), &t.effect))
        };
        Suitability {
            should_run: chosen && tolerates_all(&[NO_SCHEDULE, NO_EXECUTE]),
            should_continue: chosen && tolerates_all(&[NO_EXECUTE]),
        }
    }
}

fn add_tolerations(spec: &mut PodSpec) {
    let on_host = spec.host_network.unwrap_or_default();
    let tolerations = spec.tolerations.get_or_insert_default();
    let more = on_host.then_some((NO_NETWORK, NO_SCHEDULE));
    for (key, effect) in DAEMON_TOLERATIONS.into_iter().chain(more) {
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

/// The name of the node that a Pod is bound to, or that its required node affinity names.
pub fn target(pod: &Pod) -> Option<&str> {
    node_name(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
        let mut named = fields.filter(|f| f.key == NODE_NAME_FIELD && f.operator == "In");
        named.find_map(|f| f.values.as_ref()?.first()).map(String::as_str)
    })
}

/// The Pod for a node. The template's required node affinity, which the node is known to match, is replaced by the
/// node's name.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let mut pod = pod_of(&template, &namespace, owners::controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    add_tolerations(spec);
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

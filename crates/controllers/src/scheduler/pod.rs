//! What the scheduler reads from a Pod, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;
use yado_reconcile::ObjectKey;
use yado_types::selector::LabelSelector;

use super::Resources;
use super::dependencies::Dependencies;
use crate::{owners, volume};

/// A Pod as the scheduler sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInfo {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) controller: Option<Arc<str>>,
    pub(super) requests: Resources,
    pub(super) node_name: Option<String>,
    pub(super) node_labels: LabelSelector,
    pub(super) node_terms: Option<Vec<NodeTerm>>,
    pub(super) preferred_nodes: Vec<(i64, NodeTerm)>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) host_ports: Vec<HostPort>,
    pub(super) affinity: Vec<PodTerm>,
    pub(super) anti_affinity: Vec<PodTerm>,
    pub(super) preferred_pods: Vec<(i64, PodTerm)>,
    pub(super) spread: Vec<Spread>,
    /// Claims that it mounts.
    pub(super) claims: Vec<ObjectKey>,
    pub(super) dependencies: Dependencies,
    /// It is being deleted.
    pub(super) terminating: bool,
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
    pub(crate) fn of(term: &NodeSelectorTerm) -> Self {
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

    pub(crate) fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !self.empty && self.labels.matches(labels) && self.fields.matches_with(field)
    }
}

/// A port of the node itself; the address is `0.0.0.0` for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub(super) address: String,
    pub(super) protocol: String,
    pub(super) port: i32,
}

impl HostPort {
    pub(super) fn collides(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        let same_address = self.address == other.address || self.address == ANY || other.address == ANY;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// Other Pods, and the label of nodes that says what is near.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    pub(super) topology_key: String,
    /// No selector means no Pods, an empty one means all.
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
}

impl PodTerm {
    fn of(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let selector = term.label_selector.as_ref().and_then(selector);
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        let namespace_selector = term.namespace_selector.as_ref().and_then(self::selector);
        Self { topology_key: term.topology_key.clone(), selector, namespaces, namespace_selector }
    }

    /// `namespaces` gives a namespace's labels.
    pub(super) fn matches(
        &self,
        pod: &PodInfo,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> bool {
        let empty = BTreeMap::new();
        let here = self.namespaces.contains(&pod.namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|s| s.matches(namespaces.get(&pod.namespace).unwrap_or(&empty)));
        here && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

/// How evenly Pods that match are to lie over the values of a node label.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    pub(super) topology_key: String,
    pub(super) max_skew: i64,
    pub(super) required: bool,
    pub(super) min_domains: usize,
    /// No selector means no Pods, an empty one means all.
    selector: Option<LabelSelector>,
}

impl Spread {
    fn of(constraint: &TopologySpreadConstraint) -> Self {
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            required: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            selector: constraint.label_selector.as_ref().and_then(selector),
        }
    }

    pub(super) fn counts(&self, pod: &PodInfo, own: &PodInfo) -> bool {
        // A Pod that goes makes room already.
        !pod.terminating
            && pod.namespace == own.namespace
            && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

fn selector(api: &ApiSelector) -> Option<LabelSelector> {
    LabelSelector::from_api(api).ok()
}

impl PodInfo {
    /// Reads a Pod.
    pub fn of(pod: &Pod) -> Self {
        let mut info = Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            controller: owners::controller_uid(&pod.metadata).map(Arc::from),
            claims: volume::claims_of(pod),
            dependencies: Dependencies::of(pod),
            terminating: yado_types::pod::is_terminating(pod),
            ..Self::default()
        };
        if let Some(spec) = &pod.spec {
            info.read(spec);
        }
        info
    }

    fn read(&mut self, spec: &PodSpec) {
        self.requests = Resources::of_pod(spec);
        self.node_name = spec.node_name.clone().filter(|n| !n.is_empty());
        self.node_labels = spec.node_selector.as_ref().map(LabelSelector::from_map).unwrap_or_default();
        self.tolerations = spec.tolerations.clone().unwrap_or_default();
        self.spread = spec.topology_spread_constraints.iter().flatten().map(Spread::of).collect();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        for port in containers.flat_map(|c| c.ports.iter().flatten()) {
            let host = port
                .host_port
                .or_else(|| spec.host_network.unwrap_or_default().then_some(port.container_port));
            if let Some(number) = host.filter(|p| *p > 0) {
                self.host_ports.push(HostPort {
                    address: port
                        .host_ip
                        .clone()
                        .filter(|a| !a.is_empty())
                        .unwrap_or_else(|| "0.0.0.0".into()),
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                    port: number,
                });
            }
        }
        if let Some(affinity) = &spec.affinity {
            self.read_affinity(affinity);
        }
    }

    fn read_affinity(&mut self, affinity: &Affinity) {
        if let Some(nodes) = &affinity.node_affinity {
            let required = nodes.required_during_scheduling_ignored_during_execution.as_ref();
            self.node_terms = required.map(|r| r.node_selector_terms.iter().map(NodeTerm::of).collect());
            let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            self.preferred_nodes =
                preferred.map(|p| (p.weight.into(), NodeTerm::of(&p.preference))).collect();
        }
        let own = self.namespace.clone();
        if let Some(pods) = &affinity.pod_affinity {
            let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
            self.affinity = required.map(|t| PodTerm::of(t, &own)).collect();
            for p in pods.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let term = PodTerm::of(&p.pod_affinity_term, &own);
                self.preferred_pods.push((p.weight.into(), term));
            }
        }
        if let Some(pods) = &affinity.pod_anti_affinity {
            let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
            self.anti_affinity = required.map(|t| PodTerm::of(t, &own)).collect();
            for p in pods.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let term = PodTerm::of(&p.pod_affinity_term, &own);
                self.preferred_pods.push((-i64::from(p.weight), term));
            }
        }
    }

    /// The Pod's own choice of nodes, by labels and by required affinity.
    pub(crate) fn chooses(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let terms = self.node_terms.as_ref();
        self.node_labels.matches(labels) && terms.is_none_or(|t| t.iter().any(|t| t.matches(name, labels)))
    }

    /// Whether some toleration bears the taint.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations.iter().any(|t| crate::taints::tolerates(t, key, value, effect))
    }
}

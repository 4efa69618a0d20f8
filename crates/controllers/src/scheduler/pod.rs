//! The part of a Pod that scheduling depends on, parsed once.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;
use yado_reconcile::ObjectKey;
use yado_types::placement::{HostPort, NodeChoice, NodeTerm};
use yado_types::selector::LabelSelector;

use super::Resources;
use super::dependencies::Dependencies;
use crate::{owners, volume};

/// What the scheduler needs to know of a Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInfo {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) controller: Option<Arc<str>>,
    pub(super) requests: Resources,
    pub(super) node_name: Option<String>,
    pub(super) node_choice: NodeChoice,
    pub(super) preferred_nodes: Vec<(i64, NodeTerm)>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) host_ports: Vec<HostPort>,
    pub(super) affinity: Vec<PodTerm>,
    pub(super) anti_affinity: Vec<PodTerm>,
    pub(super) preferred_pods: Vec<(i64, PodTerm)>,
    pub(super) spread: Vec<SpreadConstraint>,
    /// Claims that its volumes use.
    pub(super) claims: Vec<ObjectKey>,
    pub(super) dependencies: Dependencies,
    /// Whether it is being deleted.
    pub(super) terminating: bool,
}

/// A Pod affinity term: a selection of other Pods, and the node label whose values are the topology domains.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    pub(super) topology_key: String,
    /// `None` selects no Pods, an empty selector selects all.
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

    /// Whether the term selects `pod`. `namespaces` maps names of namespaces to their labels.
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

/// A topology spread constraint: how evenly the selected Pods must be distributed over the values of a node label.
#[derive(Clone, Debug, PartialEq)]
pub struct SpreadConstraint {
    pub(super) topology_key: String,
    pub(super) max_skew: i64,
    pub(super) required: bool,
    pub(super) min_domains: usize,
    /// `None` selects no Pods, an empty selector selects all.
    selector: Option<LabelSelector>,
}

impl SpreadConstraint {
    fn of(constraint: &TopologySpreadConstraint) -> Self {
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            required: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            selector: constraint.label_selector.as_ref().and_then(selector),
        }
    }

    /// Whether `pod` counts in its domain when `own` is scheduled.
    pub(super) fn counts(&self, pod: &PodInfo, own: &PodInfo) -> bool {
        // As in Kubernetes, terminating Pods do not count.
        !pod.terminating
            && pod.namespace == own.namespace
            && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

fn selector(api: &ApiSelector) -> Option<LabelSelector> {
    LabelSelector::from_api(api).ok()
}

impl PodInfo {
    /// Parses a Pod. Selectors that are not valid select nothing.
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
        self.node_choice = NodeChoice::of(spec);
        self.tolerations = spec.tolerations.clone().unwrap_or_default();
        self.spread = spec.topology_spread_constraints.iter().flatten().map(SpreadConstraint::of).collect();
        self.host_ports = HostPort::of_pod(spec);
        if let Some(affinity) = &spec.affinity {
            self.read_affinity(affinity);
        }
    }

    fn read_affinity(&mut self, affinity: &Affinity) {
        if let Some(nodes) = &affinity.node_affinity {
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

    /// Whether a node with this name and these labels matches the Pod's node selector and required node affinity.
    pub(crate) fn chooses(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.node_choice.matches(name, labels)
    }

    /// Whether one of the Pod's tolerations matches the taint.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations.iter().any(|t| crate::taints::tolerates(t, key, value, effect))
    }
}

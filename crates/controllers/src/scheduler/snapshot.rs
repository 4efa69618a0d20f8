//! The cluster state that scheduling decisions are based on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use yado_types::labels::{HOSTNAME, TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE};
use yado_types::placement::HostPort;

use super::{PodInfo, Resources, Volumes};
use crate::taints;

/// A node, its Pods, and the resources and ports that they use.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub(super) name: Arc<str>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) unschedulable: bool,
    pub(super) allocatable: Resources,
    pub(super) requested: Resources,
    pub(super) host_ports: Vec<HostPort>,
    /// Number of Pods by the uid of their controller, for spreading the Pods of one ReplicaSet.
    pub(super) by_controller: HashMap<Arc<str>, u32>,
    pub(super) pods: HashMap<Arc<str>, Arc<PodInfo>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl NodeInfo {
    /// The Node object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut labels = node.metadata.labels.clone().unwrap_or_default();
        labels.entry(HOSTNAME.to_owned()).or_insert_with(|| name.clone());
        let mut all: Vec<Taint> = spec
            .and_then(|s| s.taints.as_ref())
            .into_iter()
            .flatten()
            .map(|t| Taint {
                key: t.key.clone(),
                value: t.value.clone().unwrap_or_default(),
                effect: t.effect.clone(),
            })
            .filter(|t| t.key != TAINT_UNSCHEDULABLE)
            .collect();
        // The node lifecycle controller adds this taint, but only after the condition has changed: without this, Pods
        // would be bound to the node in between.
        let ready = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
        let key = match ready.map(|c| c.status.as_str()) {
            Some("True") => None,
            Some("Unknown") => Some(TAINT_UNREACHABLE),
            _ => Some(TAINT_NOT_READY),
        };
        if let Some(key) = key
            && !all.iter().any(|t| t.key == key && t.effect == taints::NO_SCHEDULE)
        {
            let effect = taints::NO_SCHEDULE.to_owned();
            all.push(Taint { key: key.to_owned(), value: String::new(), effect });
        }
        Self {
            name: name.into(),
            labels,
            taints: all,
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or_default(),
            allocatable: status.and_then(|s| s.allocatable.as_ref()).map(Resources::read).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Whether labels, taints, cordon and allocatable resources are equal, regardless of the Pods.
    fn is_equivalent_to(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.taints == other.taints
            && self.unschedulable == other.unschedulable
            && self.allocatable == other.allocatable
    }

    fn put(&mut self, uid: Arc<str>, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        if let Some(controller) = &pod.controller {
            *self.by_controller.entry(controller.clone()).or_default() += 1;
        }
        self.pods.insert(uid, pod);
    }

    fn take(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.remove(&pod.requests);
        for port in &pod.host_ports {
            if let Some(i) = self.host_ports.iter().position(|p| p == port) {
                self.host_ports.swap_remove(i);
            }
        }
        if let Some(controller) = &pod.controller
            && let Some(count) = self.by_controller.get_mut(controller)
        {
            *count -= 1;
            if *count == 0 {
                self.by_controller.remove(controller);
            }
        }
    }
}

struct Placed {
    node: Arc<str>,
    pod: Arc<PodInfo>,
    assumed: bool,
}

/// Nodes with their bound and assumed Pods, labels of namespaces, and storage objects.
#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, usize>,
    placed: HashMap<Arc<str>, Placed>,
    /// Uids of Pods on nodes that have required anti-affinity, with the node's name.
    repelling: HashMap<Arc<str>, Arc<str>>,
    pub(super) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// PersistentVolumeClaims, PersistentVolumes and StorageClasses.
    pub volumes: Volumes,
}

impl Snapshot {
    /// All nodes, in no particular order.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.nodes[*i])
    }

    /// Adds or updates a node. Returns whether a Pod that fitted nowhere may fit now.
    pub fn set_node(&mut self, node: &Node) -> bool {
        let mut new = NodeInfo::of(node);
        if let Some(i) = self.by_name.get(&new.name) {
            let present = &mut self.nodes[*i];
            if present.is_equivalent_to(&new) {
                return false;
            }
            new.requested = std::mem::take(&mut present.requested);
            new.host_ports = std::mem::take(&mut present.host_ports);
            new.by_controller = std::mem::take(&mut present.by_controller);
            new.pods = std::mem::take(&mut present.pods);
            *present = new;
            return true;
        }
        let name = new.name.clone();
        for (uid, placed) in self.placed.iter().filter(|(_, p)| p.node == name) {
            new.put(uid.clone(), placed.pod.clone());
        }
        self.by_name.insert(new.name.clone(), self.nodes.len());
        self.nodes.push(new);
        true
    }

    /// Removes a node. Its Pods stay known and count again if a node of this name is added.
    pub fn remove_node(&mut self, name: &str) {
        let Some(i) = self.by_name.remove(name) else { return };
        self.nodes.swap_remove(i);
        if let Some(moved) = self.nodes.get(i) {
            self.by_name.insert(moved.name.clone(), i);
        }
    }

    /// Sets the labels of a namespace; `None` removes it.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// Adds a Pod that is bound to a node, or updates it.
    pub fn place(&mut self, uid: &str, node: &str, pod: Arc<PodInfo>) {
        self.put(uid, node, pod, false);
    }

    /// Adds a Pod whose binding to a node is about to be written.
    pub fn assume(&mut self, uid: &str, node: &str, pod: Arc<PodInfo>) {
        self.put(uid, node, pod, true);
    }

    /// Removes an assumed Pod whose binding failed, unless it has been bound since.
    pub fn forget(&mut self, uid: &str) {
        if self.placed.get(uid).is_some_and(|p| p.assumed) {
            self.remove(uid);
        }
    }

    /// Whether a Pod is bound or assumed.
    pub fn holds(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Removes a Pod that has ended or was deleted. Returns whether it was bound or assumed, so that resources are free now.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(placed) = self.placed.remove(uid) else { return false };
        self.repelling.remove(uid);
        if let Some(i) = self.by_name.get(&placed.node) {
            self.nodes[*i].take(uid);
        }
        true
    }

    fn put(&mut self, uid: &str, node: &str, pod: Arc<PodInfo>, assumed: bool) {
        if let Some(present) = self.placed.get_mut(uid) {
            if &*present.node == node && present.pod == pod {
                present.assumed = assumed;
                return;
            }
            self.remove(uid);
        }
        let uid: Arc<str> = uid.into();
        let known = self.by_name.get_key_value(node).map(|(name, i)| (name.clone(), *i));
        let name = known.as_ref().map_or_else(|| Arc::from(node), |(name, _)| name.clone());
        if let Some((_, i)) = known {
            self.nodes[i].put(uid.clone(), pod.clone());
        }
        if !pod.anti_affinity.is_empty() {
            self.repelling.insert(uid.clone(), name.clone());
        }
        self.placed.insert(uid, Placed { node: name, pod, assumed });
    }

    /// Pods with required anti-affinity, each with its node.
    pub(super) fn repelling(&self) -> impl Iterator<Item = (&PodInfo, &NodeInfo)> {
        self.repelling.iter().filter_map(|(uid, node)| Some((&*self.placed.get(uid)?.pod, self.node(node)?)))
    }
}

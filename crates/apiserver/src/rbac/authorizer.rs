//! The authorizer: the index of roles and the graph of nodes, both kept current by the cache's feed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::attributes::Attributes;
use super::escalation::{self, Change, Refusal};
use super::index::{Binding, Index, RoleKey};
use super::node_graph::NodeGraph;
use super::rule::Rule;
use crate::cache::Observer;
use crate::identity::{Identity, MASTERS};
use crate::object::Object;
use crate::schema::RBAC_GROUP;

/// The prefix of the keys of Pods, by which nodes are judged.
const PODS: &str = "/registry/core/pods/";

/// The answer to a question of authorisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; the reason is empty for members of `system:masters`, who need none.
    Allowed(String),
    /// No rule says so. The reason is empty but where roles could not be looked at, since they do not exist.
    Denied(String),
}

impl Verdict {
    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// Decides who may do what.
#[derive(Default)]
pub struct Authorizer {
    index: RwLock<Index>,
    nodes: RwLock<NodeGraph>,
}

impl Authorizer {
    /// An authorizer that starts with these roles and bindings.
    pub fn new(index: Index) -> Self {
        Self { index: RwLock::new(index), nodes: RwLock::default() }
    }

    /// Whether `who` may do this.
    pub fn decide(&self, who: &Identity, attributes: &Attributes<'_>) -> Verdict {
        if who.is_in(MASTERS) {
            return Verdict::Allowed(String::new());
        }
        let index = self.index.read();
        match index.allows(who, attributes) {
            Some(reason) => Verdict::Allowed(reason.to_string()),
            None if self.nodes.read().allows(who, attributes) => Verdict::Allowed(String::new()),
            None => Verdict::Denied(unresolved(&index.unresolved(who, attributes.namespace()))),
        }
    }

    /// Whether `who` may do this, without the reason, which takes as long to write as to find.
    pub fn allows(&self, who: &Identity, attributes: &Attributes<'_>) -> bool {
        who.is_in(MASTERS)
            || self.index.read().allows(who, attributes).is_some()
            || self.nodes.read().allows(who, attributes)
    }

    /// The `PolicyRule`s of `who` in a namespace, and a sentence where some could not be resolved (else an empty one).
    pub fn rules_for(&self, who: &Identity, namespace: &str) -> (Vec<Value>, String) {
        let index = self.index.read();
        let rules = index.rules_for(who, namespace).map(Rule::to_value).collect();
        (rules, aggregate(&index.unresolved(who, namespace)))
    }

    /// Judges a write of a role or of a binding by what its writer holds.
    ///
    /// # Errors
    /// Where it would grant more.
    pub fn check_escalation(&self, who: &Identity, change: &Change<'_>) -> Result<(), Refusal> {
        escalation::check(&self.index.read(), who, change)
    }
}

/// The errors of several lookups as one text.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [] => String::new(),
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

fn unresolved(errors: &[String]) -> String {
    if errors.is_empty() { String::new() } else { format!("RBAC: {}", aggregate(errors)) }
}

/// One of the four kinds that the index is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A role of a namespace.
    Role,
    /// A role of the cluster.
    ClusterRole,
    /// A binding in a namespace.
    RoleBinding,
    /// A binding for the whole cluster.
    ClusterRoleBinding,
}

impl Kind {
    /// The kind of the objects under this prefix of keys.
    fn of_prefix(prefix: &str) -> Option<Self> {
        let (group, plural) = prefix.strip_prefix("/registry/")?.strip_suffix('/')?.split_once('/')?;
        match plural {
            _ if group != RBAC_GROUP => None,
            "roles" => Some(Self::Role),
            "clusterroles" => Some(Self::ClusterRole),
            "rolebindings" => Some(Self::RoleBinding),
            "clusterrolebindings" => Some(Self::ClusterRoleBinding),
            _ => None,
        }
    }
}

impl Observer for Authorizer {
    fn observes(&self, prefix: &str) -> bool {
        prefix == PODS || Kind::of_prefix(prefix).is_some()
    }

    fn loaded(&self, prefix: &str, objects: &BTreeMap<Box<str>, Arc<Object>>) {
        if prefix == PODS {
            let pods = objects.iter().map(|(place, pod)| (&**place, pod.value()));
            return self.nodes.write().load(pods);
        }
        let Some(kind) = Kind::of_prefix(prefix) else { return };
        let mut index = self.index.write();
        match kind {
            Kind::Role | Kind::ClusterRole => index.clear_roles(kind == Kind::ClusterRole),
            Kind::RoleBinding | Kind::ClusterRoleBinding => {
                index.clear_bindings(kind == Kind::ClusterRoleBinding);
            }
        }
        objects.values().for_each(|object| set(&mut index, kind, &object.value()));
    }

    fn changed(&self, prefix: &str, place: &str, object: Option<&Object>) {
        if prefix == PODS {
            return self.nodes.write().set(place, object.map(Object::value).as_deref());
        }
        let Some(kind) = Kind::of_prefix(prefix) else { return };
        let value = object.map(Object::value);
        let mut index = self.index.write();
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        match (value, kind) {
            (Some(value), _) => set(&mut index, kind, &value),
            (None, Kind::Role | Kind::ClusterRole) => index.remove_role(&RoleKey::new(namespace, name)),
            (None, _) => index.remove_binding(namespace, name),
        }
    }
}

fn set(index: &mut Index, kind: Kind, object: &Value) {
    match kind {
        Kind::Role | Kind::ClusterRole => {
            let meta = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
            index.set_role(RoleKey::new(meta("namespace"), meta("name")), Rule::read_all(object));
        }
        Kind::RoleBinding | Kind::ClusterRoleBinding => index.set_binding(Binding::read(object)),
    }
}

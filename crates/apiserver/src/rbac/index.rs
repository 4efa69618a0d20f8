//! Roles and bindings, indexed by the subjects of the bindings.
//!
//! A question costs the rules of the roles that are bound to the user and their groups, cluster-wide and in the one
//! namespace; how many other roles and bindings there are does not matter.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::attributes::Attributes;
use super::rule::{Asked, Filter, Rule};
use crate::identity::{Identity, service_account_user};

/// A Role, or a ClusterRole where the namespace is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleKey {
    /// The namespace of a Role; empty for a ClusterRole.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

impl RoleKey {
    /// A Role, or a ClusterRole where the namespace is empty.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The role that a binding's `roleRef` means, for a binding in this namespace.
    pub fn referenced(role_ref: &Value, namespace: &str) -> Self {
        let namespace = if role_ref["kind"] == "Role" { namespace } else { "" };
        Self::new(namespace, text(&role_ref["name"]))
    }

    /// `Role` or `ClusterRole`.
    pub fn kind(&self) -> &'static str {
        if self.namespace.is_empty() { "ClusterRole" } else { "Role" }
    }

    /// The sentence that says that it does not exist.
    pub fn not_found(&self) -> String {
        let kind = self.kind().to_lowercase();
        format!("{kind}.rbac.authorization.k8s.io {:?} not found", self.name)
    }
}

/// Whom a binding means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user by name.
    User(Box<str>),
    /// The members of a group.
    Group(Box<str>),
    /// A ServiceAccount.
    ServiceAccount {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
    },
}

impl Subject {
    /// Reads a subject of a binding in this namespace; `None` where its kind is unknown.
    fn read(subject: &Value, namespace: &str) -> Option<Self> {
        let name = Box::from(text(&subject["name"]));
        match text(&subject["kind"]) {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let own = Some(text(&subject["namespace"])).filter(|n| !n.is_empty());
                Some(Self::ServiceAccount { namespace: own.unwrap_or(namespace).into(), name })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "User {name:?}"),
            Self::Group(name) => write!(f, "Group {name:?}"),
            Self::ServiceAccount { namespace, name } => write!(f, "ServiceAccount \"{name}/{namespace}\""),
        }
    }
}

/// A RoleBinding, or a ClusterRoleBinding where the namespace is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Empty for a ClusterRoleBinding.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The role that it grants.
    pub role: RoleKey,
    /// To whom.
    pub subjects: Box<[Subject]>,
}

impl Binding {
    /// Reads a binding.
    pub fn read(binding: &Value) -> Self {
        let meta = &binding["metadata"];
        let namespace = text(&meta["namespace"]);
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        Self {
            namespace: namespace.into(),
            name: text(&meta["name"]).into(),
            role: RoleKey::referenced(&binding["roleRef"], namespace),
            subjects: subjects.filter_map(|s| Subject::read(s, namespace)).collect(),
        }
    }
}

/// Why an action is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'i> {
    binding: &'i Binding,
    subject: &'i Subject,
}

/// `RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to User "z"`.
impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding { namespace, name, role, .. } = self.binding;
        f.write_str("RBAC: allowed by ")?;
        match &**namespace {
            "" => write!(f, "ClusterRoleBinding {name:?}")?,
            namespace => write!(f, "RoleBinding \"{name}/{namespace}\"")?,
        }
        write!(f, " of {} {:?} to {}", role.kind(), role.name, self.subject)
    }
}

/// Place of a role in [`Index::roles`].
type RoleId = u32;

/// A role that exists, or that bindings name.
struct Role {
    key: RoleKey,
    /// `None` while it does not exist.
    rules: Option<Box<[Rule]>>,
    filter: Filter,
    /// Bindings that name it.
    bindings: usize,
}

/// One subject's part in a binding.
struct Grant {
    role: RoleId,
    binding: Arc<Binding>,
    /// Place of the subject in the binding.
    subject: usize,
}

/// Grants of one user or group; sorted by the bindings' names, so that reasons are the same every time.
#[derive(Default)]
struct Grants {
    cluster: Vec<Grant>,
    namespaces: HashMap<Box<str>, Vec<Grant>>,
}

impl Grants {
    fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.namespaces.is_empty()
    }
}

/// A namespace and a name.
type Place = (Box<str>, Box<str>);

/// All roles and bindings.
#[derive(Default)]
pub struct Index {
    roles: Vec<Role>,
    free: Vec<RoleId>,
    role_ids: HashMap<RoleKey, RoleId>,
    bindings: HashMap<Place, (Arc<Binding>, RoleId)>,
    users: HashMap<Box<str>, Grants>,
    groups: HashMap<Box<str>, Grants>,
}

impl Index {
    /// Adds a role, or replaces its rules.
    pub fn set_role(&mut self, key: RoleKey, rules: Vec<Rule>) {
        let id = self.role_id(key);
        let role = &mut self.roles[id as usize];
        role.filter = Filter::of(&rules);
        role.rules = Some(rules.into());
    }

    /// Removes a role. Bindings that name it grant nothing until it exists again.
    pub fn remove_role(&mut self, key: &RoleKey) {
        if let Some(&id) = self.role_ids.get(key) {
            let role = &mut self.roles[id as usize];
            (role.rules, role.filter) = (None, Filter::default());
            self.release(id);
        }
    }

    /// Adds a binding, or replaces it.
    pub fn set_binding(&mut self, binding: Binding) {
        self.remove_binding(&binding.namespace, &binding.name);
        let role = self.role_id(binding.role.clone());
        self.roles[role as usize].bindings += 1;
        let binding = Arc::new(binding);
        for (at, subject) in binding.subjects.iter().enumerate() {
            let grants = self.grants_of(subject);
            let list = match &*binding.namespace {
                "" => &mut grants.cluster,
                namespace => grants.namespaces.entry(namespace.into()).or_default(),
            };
            let place = list.partition_point(|grant| grant.binding.name <= binding.name);
            list.insert(place, Grant { role, binding: binding.clone(), subject: at });
        }
        self.bindings.insert((binding.namespace.clone(), binding.name.clone()), (binding, role));
    }

    /// Removes a binding.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some((binding, role)) = self.bindings.remove(&(namespace.into(), name.into())) else { return };
        for subject in &binding.subjects {
            self.revoke(subject, &binding);
        }
        self.roles[role as usize].bindings -= 1;
        self.release(role);
    }

    /// Removes all Roles, or all ClusterRoles.
    pub fn clear_roles(&mut self, of_cluster: bool) {
        let keys = self.role_ids.keys().filter(|key| key.namespace.is_empty() == of_cluster);
        let keys: Vec<_> = keys.cloned().collect();
        keys.iter().for_each(|key| self.remove_role(key));
    }

    /// Removes all RoleBindings, or all ClusterRoleBindings.
    pub fn clear_bindings(&mut self, of_cluster: bool) {
        let keys = self.bindings.keys().filter(|(namespace, _)| namespace.is_empty() == of_cluster);
        let keys: Vec<_> = keys.cloned().collect();
        keys.iter().for_each(|(namespace, name)| self.remove_binding(namespace, name));
    }

    /// Why `who` may do this; `None` where no rule allows it.
    pub fn allows(&self, who: &Identity, attributes: &Attributes<'_>) -> Option<Reason<'_>> {
        let asked = Asked::new(attributes);
        let allowed = |grant: &&Grant| {
            let role = &self.roles[grant.role as usize];
            role.filter.passes(&asked) && role.rules.iter().flatten().any(|rule| rule.allows(&asked))
        };
        let found = self.grants(who, attributes.namespace()).find(allowed)?;
        Some(Reason { binding: &found.binding, subject: &found.binding.subjects[found.subject] })
    }

    /// The rules that `who` has in a namespace, those of the whole cluster among them; for an empty namespace only these.
    pub fn rules_for<'i, 'w>(
        &'i self,
        who: &'w Identity,
        namespace: &'w str,
    ) -> impl Iterator<Item = &'i Rule> + use<'i, 'w> {
        let grants = self.grants(who, namespace);
        grants.flat_map(|grant| self.roles[grant.role as usize].rules.iter().flatten())
    }

    /// The roles that are bound to `who` and do not exist, each once, in the words of [`RoleKey::not_found`].
    pub fn unresolved(&self, who: &Identity, namespace: &str) -> Vec<String> {
        let roles = self.grants(who, namespace).map(|grant| &self.roles[grant.role as usize]);
        let mut missing: Vec<String> =
            roles.filter(|role| role.rules.is_none()).map(|role| role.key.not_found()).collect();
        missing.sort();
        missing.dedup();
        missing
    }

    /// The rules of a role; `None` where it does not exist.
    pub fn role(&self, key: &RoleKey) -> Option<&[Rule]> {
        let id = *self.role_ids.get(key)?;
        self.roles[id as usize].rules.as_deref()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.role_ids.is_empty()
            && self.bindings.is_empty()
            && self.users.is_empty()
            && self.groups.is_empty()
    }

    /// Places for roles, used or free.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.roles.len()
    }

    /// Grants of a user and their groups: first cluster-wide, then in the namespace.
    fn grants<'i, 'w>(
        &'i self,
        who: &'w Identity,
        namespace: &'w str,
    ) -> impl Iterator<Item = &'i Grant> + use<'i, 'w> {
        let groups = who.groups.iter().filter_map(|group| self.groups.get(group.as_str()));
        let all = move || self.users.get(who.user.as_str()).into_iter().chain(groups.clone());
        let local = all().filter(move |_| !namespace.is_empty());
        let local = local.filter_map(move |grants| grants.namespaces.get(namespace)).flatten();
        all().flat_map(|grants| &grants.cluster).chain(local)
    }

    fn grants_of(&mut self, subject: &Subject) -> &mut Grants {
        match subject {
            Subject::User(name) => self.users.entry(name.clone()).or_default(),
            Subject::Group(name) => self.groups.entry(name.clone()).or_default(),
            Subject::ServiceAccount { namespace, name } => {
                self.users.entry(service_account_user(namespace, name).into()).or_default()
            }
        }
    }

    /// Takes away what a binding grants to one of its subjects.
    fn revoke(&mut self, subject: &Subject, binding: &Arc<Binding>) {
        let (by_name, name) = match subject {
            Subject::User(name) => (&mut self.users, name.clone()),
            Subject::Group(name) => (&mut self.groups, name.clone()),
            Subject::ServiceAccount { namespace, name } => {
                (&mut self.users, service_account_user(namespace, name).into())
            }
        };
        let Entry::Occupied(mut entry) = by_name.entry(name) else { return };
        let grants = entry.get_mut();
        let others = |grant: &Grant| !Arc::ptr_eq(&grant.binding, binding);
        if binding.namespace.is_empty() {
            grants.cluster.retain(others);
        } else if let Entry::Occupied(mut list) = grants.namespaces.entry(binding.namespace.clone()) {
            list.get_mut().retain(others);
            if list.get().is_empty() {
                list.remove();
            }
        }
        if grants.is_empty() {
            entry.remove();
        }
    }

    /// The role's place, which it has as long as it exists or a binding names it.
    fn role_id(&mut self, key: RoleKey) -> RoleId {
        if let Some(&id) = self.role_ids.get(&key) {
            return id;
        }
        let role = Role { key: key.clone(), rules: None, filter: Filter::default(), bindings: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.roles[id as usize] = role;
                id
            }
            None => {
                self.roles.push(role);
                (self.roles.len() - 1) as RoleId
            }
        };
        self.role_ids.insert(key, id);
        id
    }

    /// Frees the place of a role that neither exists nor is named by a binding.
    fn release(&mut self, id: RoleId) {
        let role = &self.roles[id as usize];
        if role.rules.is_none() && role.bindings == 0 {
            self.role_ids.remove(&role.key);
            self.free.push(id);
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

//! Nobody grants what they do not hold: who writes a role needs all of its rules, who writes a binding all rules of the
//! role it names, unless roles say otherwise by the verbs `escalate` and `bind`.

use serde_json::{Map, Value};

use super::attributes::{Attributes, Target};
use super::index::{Index, RoleKey};
use super::rule::{Rule, quoted};
use crate::identity::{Identity, MASTERS};
use crate::schema::RBAC_GROUP;

/// A write of a role or of a binding.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub resource: &'a str,
    /// The namespace; empty for the two that have none.
    pub namespace: &'a str,
    /// The object's name as the request's path says it: empty for a POST.
    pub name: &'a str,
    /// The object as it would be, with defaults filled in.
    pub new: &'a Value,
    /// The object as it is; `None` for a create.
    pub old: Option<&'a Value>,
}

/// Why a write must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The writer does not hold what they would grant; the sentence says what is missing.
    Forbidden(String),
    /// The role that a binding names does not exist, so that what it would grant is unknown.
    RoleNotFound(RoleKey),
}

/// Judges a write by what its writer holds.
///
/// # Errors
/// Where it would grant more.
pub fn check(index: &Index, who: &Identity, change: &Change<'_>) -> Result<(), Refusal> {
    let frees_only = |old| without_garbage_fields(old) == without_garbage_fields(change.new);
    if who.is_in(MASTERS) || change.old.is_some_and(frees_only) {
        return Ok(());
    }
    let may = |verb: &str, resource: &str, name: &str| {
        let namespace = change.namespace;
        let target = Target::Resource { namespace, group: RBAC_GROUP, resource, subresource: "", name };
        index.allows(who, &Attributes { verb, target }).is_some()
    };
    if change.new["roleRef"].is_null() {
        if may("escalate", change.resource, change.name) {
            return Ok(());
        }
        holds(index, who, change.namespace, &Rule::read_all(change.new))?;
        return may_aggregate(index, who, change);
    }
    let role = RoleKey::referenced(&change.new["roleRef"], change.namespace);
    let plural = if role.namespace.is_empty() { "clusterroles" } else { "roles" };
    if may("bind", plural, &role.name) {
        return Ok(());
    }
    match index.role(&role) {
        Some(rules) => holds(index, who, change.namespace, rules),
        None => Err(Refusal::RoleNotFound(role)),
    }
}

/// A ClusterRole that aggregates others can come to hold any rule.
fn may_aggregate(index: &Index, who: &Identity, change: &Change<'_>) -> Result<(), Refusal> {
    let aggregates = |role: &Value| {
        role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|s| !s.is_empty())
    };
    if !aggregates(change.new) && !change.old.is_some_and(aggregates) {
        return Ok(());
    }
    let all = || -> Box<[Box<str>]> { Box::new(["*".into()]) };
    let none = Box::default;
    let everything =
        [Rule::new(all(), all(), all(), none(), none()), Rule::new(all(), none(), none(), none(), all())];
    holds(index, who, change.namespace, &everything).map_err(|_| {
        Refusal::Forbidden("must have cluster-admin privileges to use the aggregationRule".into())
    })
}

/// Whether `who` holds all of these rules in a namespace, or cluster-wide.
fn holds(index: &Index, who: &Identity, namespace: &str, wanted: &[Rule]) -> Result<(), Refusal> {
    let held: Vec<&Rule> = index.rules_for(who, namespace).collect();
    let missing = missing(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = Rule::merged(missing).iter().map(Rule::to_string).collect();
    lines.sort();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        who.user,
        quoted(&who.groups),
        lines.join("\n")
    );
    let unresolved = index.unresolved(who, namespace);
    if !unresolved.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", unresolved.join(", ")));
    }
    Err(Refusal::Forbidden(message))
}

/// The parts of the wanted rules that none of those held covers.
pub(super) fn missing(held: &[&Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::parts);
    parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
}

/// An object without the fields by which garbage collection works, which grant nothing.
fn without_garbage_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let kept = |(key, _): &(String, Value)| {
            !["ownerReferences", "finalizers", "managedFields", "resourceVersion"].contains(&key.as_str())
        };
        *metadata = std::mem::take(metadata).into_iter().filter(kept).collect::<Map<_, _>>();
    }
    object
}

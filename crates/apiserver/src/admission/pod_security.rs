//! Pod Security: Pods of a Namespace keep to the standards that its labels name.
//!
//! ```text
//! [Namespace] labels -> Policy { enforce, audit, warn } -+-> [Pod] refused, logged, warned about
//!                                                        +-> [template of Pods] logged, warned about
//! [Namespace] stricter labels -> warnings about the Pods that it has
//! ```
//!
//! Reading the labels is in [`level`], the standards are in [`checks`].

mod checks;
mod level;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::{Plugin, Review};
use crate::edit::{list, text};
use crate::object::{Object, meta};
use crate::resource::{self, Subresource};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};
use crate::write::context::{Operation, WriteContext};
use crate::write::refuse_invalid;
use checks::{Subject, details, violations};
use level::{Level, Policy, Standard};

/// Pods of a Namespace that are looked at when it restricts more.
const MAX_PODS: usize = 3000;
/// How long they are looked at.
const MAX_TIME: Duration = Duration::from_secs(1);

pub(super) struct PodSecurity;

/// What a resource has to do with Pods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Namespace,
    Pod,
    /// It makes Pods of a template.
    Template,
}

fn role(ctx: &WriteContext<'_>) -> Option<Role> {
    if ctx.operation == Operation::Delete {
        return None;
    }
    match (&*ctx.resource.group, &*ctx.resource.plural, ctx.subresource) {
        ("", "namespaces", None) => Some(Role::Namespace),
        ("", "pods", subresource) => (!subresource.is_some_and(keeps_containers)).then_some(Role::Pod),
        ("", "replicationcontrollers" | "podtemplates", None)
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets", None)
        | ("batch", "cronjobs" | "jobs", None) => Some(Role::Template),
        _ => None,
    }
}

/// Whether a write of the subresource leaves a Pod's containers as they are.
fn keeps_containers(subresource: Subresource) -> bool {
    matches!(
        subresource.name(),
        "attach" | "binding" | "eviction" | "exec" | "log" | "portforward" | "proxy" | "status"
    )
}

#[async_trait]
impl Plugin for PodSecurity {
    fn handles(&self, ctx: &WriteContext<'_>, namespace: &str) -> bool {
        match role(ctx) {
            None => false,
            Some(Role::Namespace) => true,
            Some(Role::Pod) => !policy_of(ctx.server, namespace).is_privileged(),
            Some(Role::Template) => {
                let policy = policy_of(ctx.server, namespace);
                policy.warn.level != Level::Privileged || policy.audit.level != Level::Privileged
            }
        }
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<()> {
        let (Some(role), Some(object)) = (role(review.ctx), object) else { return Ok(()) };
        if role == Role::Namespace {
            return namespace(review, object);
        }
        if review
            .old
            .is_some_and(|old| role == Role::Pod && !changes_containers(&object["spec"], &old["spec"]))
        {
            return Ok(());
        }
        let pod = match role {
            Role::Pod => object,
            _ => match template(object) {
                Some(template) => template,
                None => return Ok(()),
            },
        };
        judge(review, pod, role == Role::Pod)
    }
}

/// The template of what makes Pods.
fn template(object: &Value) -> Option<&Value> {
    let templates = [
        object.get("template"),
        object.pointer("/spec/template"),
        object.pointer("/spec/jobTemplate/spec/template"),
    ];
    templates.into_iter().flatten().find(|template| template.is_object())
}

/// The policy of a Namespace; that of one that is not there refuses nothing, since nothing is created in it.
fn policy_of(server: &Inner, namespace: &str) -> Policy {
    let namespaces = resource::find("", "v1", "namespaces");
    let found = namespaces.and_then(|namespaces| server.find(namespaces, "", namespace).ok());
    found
        .map(|namespace| namespace.derive(|value| Policy::read(&value["metadata"]["labels"]).0))
        .unwrap_or_default()
}

fn subject(pod: &Value) -> Subject<'_> {
    Subject { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] }
}

/// Judges a Pod or a template by the policy of its Namespace. `enforces` says whether it may be refused.
fn judge(review: &Review<'_>, pod: &Value, enforces: bool) -> Result<()> {
    let policy = policy_of(review.ctx.server, review.namespace);
    let broken = |standard: Standard| {
        let found = violations(standard, subject(pod));
        (!found.is_empty()).then(|| format!("violate PodSecurity \"{standard}\": {}", details(&found)))
    };
    if let Some(broken) = broken(policy.audit) {
        review.ctx.annotate("pod-security.kubernetes.io/audit-violations", &format!("would {broken}"));
    }
    if enforces {
        let found = violations(policy.enforce, subject(pod));
        if !found.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&found));
            return Err(Failure::forbidden(review.ctx.resource, review.name, &why));
        }
    }
    // A Pod that may go by the standard that is enforced breaks none that is the same.
    let is_judged = enforces && policy.warn == policy.enforce;
    if let Some(broken) = (!is_judged).then(|| broken(policy.warn)).flatten() {
        review.ctx.warn(vec![format!("would {broken}")]);
    }
    Ok(())
}

/// Whether an update of a Pod changes something that the standards look at and that may be changed: images, and
/// containers that were added.
fn changes_containers(new: &Value, old: &Value) -> bool {
    let differs = |key: &str| {
        let (new, old) = (list(&new[key]), list(&old[key]));
        new.len() != old.len() || new.iter().zip(old).any(|(new, old)| new["image"] != old["image"])
    };
    ["containers", "initContainers", "ephemeralContainers"].into_iter().any(differs)
}

/// Checks the labels of a Namespace, and warns of Pods in it that stricter ones would refuse.
fn namespace(review: &Review<'_>, object: &Value) -> Result<()> {
    let (policy, errors) = Policy::read(&object["metadata"]["labels"]);
    let (before, old_errors) = match review.old {
        Some(old) => Policy::read(&old["metadata"]["labels"]),
        None => Default::default(),
    };
    if errors != old_errors {
        refuse_invalid(review.ctx.resource, review.name, errors)?;
    }
    let is_relaxed =
        policy.enforce.version == before.enforce.version && policy.enforce.level <= before.enforce.level;
    if review.old.is_some()
        && policy.enforce != before.enforce
        && policy.enforce.level != Level::Privileged
        && !is_relaxed
    {
        review.ctx.warn(present_pods(review.ctx.server, review.name, policy.enforce));
    }
    Ok(())
}

/// Warnings about the Pods of a Namespace that break a standard; Pods that break the same rules share one.
fn present_pods(server: &Inner, namespace: &str, enforce: Standard) -> Vec<String> {
    let pods = resource::find("", "v1", "pods").and_then(|pods| server.collection(pods).ok());
    let pods = pods.map(|pods| pods.list(namespace, None, 0, |_| true).objects).unwrap_or_default();
    let bytes = pods.iter().map(|pod| pod.stored_len()).sum();
    off_worker(bytes, || {
        let begun = server.clock.monotonic();
        let (total, mut checked) = (pods.len(), 0);
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in by_controller(pods).into_iter().take(MAX_PODS) {
            checked += 1;
            let value = pod.value();
            let reasons: Vec<String> =
                violations(enforce, subject(&value)).into_iter().map(|violation| violation.reason).collect();
            if !reasons.is_empty() {
                let name = meta(&value, "name").to_owned();
                let (first, count) = found.entry(reasons.join(", ")).or_insert_with(|| (name.clone(), 0));
                *count += 1;
                *first = name.min(std::mem::take(first));
            }
            if server.clock.monotonic().saturating_sub(begun) > MAX_TIME {
                break;
            }
        }
        let mut warnings = Vec::new();
        if checked < total {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let mut told: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, count))| match count {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                _ => format!("{name} (and {} other pods): {reasons}", count - 1),
            })
            .collect();
        told.sort();
        warnings.extend(told);
        warnings
    })
}

/// Pods in an order in which the first of each controller comes before any second one.
fn by_controller(pods: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
    let mut seen = HashSet::new();
    let (mut first, rest): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| {
        let value = pod.value();
        let owners = list(&value["metadata"]["ownerReferences"]);
        let controller = owners.iter().find(|owner| owner["controller"] == true);
        controller.is_none_or(|owner| seen.insert(text(&owner["uid"]).to_owned()))
    });
    first.extend(rest);
    first
}

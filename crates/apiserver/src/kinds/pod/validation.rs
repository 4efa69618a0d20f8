//! Which fields of a Pod's specification may change.

use std::collections::HashSet;

use serde_json::Value;

use crate::edit::{list, text};
use crate::schema::validate::{Errors, Path};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A Pod keeps its spec, but for images, a deadline that only shrinks, tolerations that only grow and gates that are only
/// taken away.
pub fn validate_update(new: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    if new == old {
        return;
    }
    for key in ["containers", "initContainers"] {
        if list(&new[key]).len() != list(&old[key]).len() {
            errors.forbidden(&at.field(key), "pod updates may not add or remove containers");
            return;
        }
    }
    let (deadline, before) = (&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"]);
    let deadline_at = at.field("activeDeadlineSeconds");
    match (deadline.as_i64(), before.as_i64()) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(
                &deadline_at,
                deadline,
                &format!("must be less than or equal to previous value {old}"),
            );
        }
        (None, Some(_)) => {
            errors.invalid(
                &deadline_at,
                &Value::Null,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
    let kept: HashSet<_> = list(&new["tolerations"]).iter().map(but_seconds).collect();
    if !list(&old["tolerations"]).iter().all(|t| kept.contains(&but_seconds(t))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&at.field("tolerations"), detail);
    }
    let known: HashSet<&str> = list(&old["schedulingGates"]).iter().map(|g| text(&g["name"])).collect();
    for gate in list(&new["schedulingGates"]) {
        if !known.contains(text(&gate["name"])) {
            let detail = format!("only deletion is allowed, but found new scheduling gate {}", gate["name"]);
            errors.forbidden(&at.field("schedulingGates"), &detail);
        }
    }
    let is_gated = !list(&old["schedulingGates"]).is_empty();
    if is_gated {
        narrowed(new, old, at, errors);
    }
    if fixed_part(new, is_gated) != fixed_part(old, is_gated) {
        errors.forbidden(at, FIXED);
    }
}

/// Where a gated Pod may go can be narrowed before it is let go, never widened.
fn narrowed(new: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    let of = |spec: &Value| spec["nodeSelector"].as_object().cloned().unwrap_or_default();
    let (selector, before) = (of(new), of(old));
    if before.iter().any(|(key, value)| selector.get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&at.field("nodeSelector"), &new["nodeSelector"], detail);
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let of = |spec: &Value| spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].clone();
    let (terms, before) = (of(new), of(old));
    let affinity = at.field("affinity");
    let node = affinity.field("nodeAffinity");
    let terms_at = node.field(REQUIRED);
    if list(&before).is_empty() {
        return;
    }
    if list(&terms).len() != list(&before).len() {
        errors.invalid(
            &terms_at,
            &terms,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    // Terms are alternatives: each may get more conditions. An empty one matches nothing, and more would widen it.
    let holds = |term: &Value, old: &Value| {
        let keys = ["matchExpressions", "matchFields"];
        let was_empty = keys.iter().all(|key| list(&old[*key]).is_empty());
        let starts = |key: &&str| list(&term[*key]).starts_with(list(&old[*key]));
        if was_empty { term == old } else { keys.iter().all(starts) }
    };
    if !list(&terms).iter().zip(list(&before)).all(|(term, old)| holds(term, old)) {
        errors.invalid(&terms_at, &terms, "only additions are allowed (no mutations or deletions)");
    }
}

/// The fields that identify a toleration.
fn but_seconds(toleration: &Value) -> [&str; 4] {
    ["key", "operator", "value", "effect"].map(|key| text(&toleration[key]))
}

fn fixed_part(spec: &Value, is_gated: bool) -> Value {
    let mut fixed = spec.clone();
    let Value::Object(object) = &mut fixed else { return fixed };
    object.shift_remove("activeDeadlineSeconds");
    object.shift_remove("tolerations");
    object.shift_remove("schedulingGates");
    if is_gated {
        object.shift_remove("nodeSelector");
        let affinity = object.get_mut("affinity").and_then(Value::as_object_mut);
        if affinity.is_some_and(|a| a.shift_remove("nodeAffinity").is_some() && a.is_empty()) {
            object.shift_remove("affinity");
        }
    }
    for key in ["containers", "initContainers"] {
        let containers = object.get_mut(key).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.shift_remove("image");
        }
    }
    fixed
}

//! Pods and their specs.

use std::collections::HashSet;

use serde_json::Value;
use yado_types::names;

use super::meta;
use super::path::{Errors, Path, list, text};
use super::pod_parts::{self, Role};

pub fn pod(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let at = root.field("spec");
    spec(&object["spec"], &at, errors);
    if let Some(old) = old {
        update(&object["spec"], &old["spec"], &at, errors);
    }
}

/// A Pod spec, in a Pod or in a template.
pub fn spec(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let volumes = pod_parts::volumes(&spec["volumes"], &at.field("volumes"), errors);
    let on_host = spec["hostNetwork"] == true;
    let mut seen = HashSet::new();
    if list(&spec["containers"]).is_empty() {
        errors.required(&at.field("containers"), "");
    }
    for (key, role) in
        [("containers", Role::Main), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        let at = at.field(key);
        for (i, container) in list(&spec[key]).iter().enumerate() {
            let at = at.index(i);
            pod_parts::container(container, role, &volumes, on_host, &at, errors);
            let name = text(&container["name"]);
            if !name.is_empty() && !seen.insert(name) {
                errors.duplicate(&at.field("name"), &container["name"]);
            }
        }
    }
    let security = at.field("securityContext");
    pod_parts::ids(&spec["securityContext"], &security, errors);
    pod_parts::sysctls(&spec["securityContext"]["sysctls"], &security.field("sysctls"), errors);
    errors.one_of(&at.field("restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"]);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(&at.field("dnsPolicy"), &spec["dnsPolicy"], &policies);
    let grace = "terminationGracePeriodSeconds";
    errors.at_least(&at.field(grace), &spec[grace], 0);
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&at.field("activeDeadlineSeconds"), deadline, detail);
    }
    meta::labels(&spec["nodeSelector"], &at.field("nodeSelector"), errors);
    for key in ["hostname", "subdomain"] {
        let name = text(&spec[key]);
        if !name.is_empty() {
            errors.check_text(&at.field(key), name, names::dns_label(name));
        }
    }
    for key in ["serviceAccountName", "nodeName", "priorityClassName"] {
        let name = text(&spec[key]);
        if !name.is_empty() {
            errors.check_text(&at.field(key), name, names::dns_subdomain(name));
        }
    }
    tolerations(&spec["tolerations"], &at.field("tolerations"), errors);
    gates(spec, at, errors);
    if spec["dnsPolicy"] == "None" && list(&spec["dnsConfig"]["nameservers"]).is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        let config = at.field("dnsConfig");
        errors.required(&config.field("nameservers"), detail);
    }
    for (i, alias) in list(&spec["hostAliases"]).iter().enumerate() {
        let aliases = at.field("hostAliases");
        let at = aliases.index(i);
        if text(&alias["ip"]).parse::<std::net::IpAddr>().is_err() {
            errors.invalid(&at.field("ip"), &alias["ip"], pod_parts::NO_ADDRESS);
        }
    }
}

/// What has to be taken away before the Pod is scheduled.
fn gates(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let gates_at = at.field("schedulingGates");
    let mut seen = HashSet::new();
    for (i, gate) in list(&spec["schedulingGates"]).iter().enumerate() {
        let at = gates_at.index(i);
        let name = text(&gate["name"]);
        errors.check_text(&at.field("name"), name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&at.field("name"), &gate["name"]);
        }
    }
    if !seen.is_empty() && !text(&spec["nodeName"]).is_empty() {
        errors.forbidden(&at.field("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn tolerations(tolerations: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in list(tolerations).iter().enumerate() {
        let at = at.index(i);
        let (key, value, operator) =
            (text(&toleration["key"]), text(&toleration["value"]), text(&toleration["operator"]));
        if !key.is_empty() {
            errors.check_text(&at.field("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid_text(&at.field("operator"), operator, detail);
        }
        match operator {
            "" | "Equal" => errors.check_text(&at.field("value"), value, names::label_value(value)),
            "Exists" if !value.is_empty() => {
                errors.invalid_text(
                    &at.field("operator"),
                    value,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            _ => errors.one_of(&at.field("operator"), &toleration["operator"], &["Equal", "Exists"]),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.one_of(&at.field("effect"), &toleration["effect"], &effects);
        if !toleration["tolerationSeconds"].is_null() && text(&toleration["effect"]) != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&at.field("effect"), &toleration["effect"], detail);
        }
    }
}

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A Pod keeps its spec, but for images, a deadline that only shrinks, tolerations that only grow and gates that are only
/// taken away.
fn update(new: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
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

/// What tells a toleration from others.
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

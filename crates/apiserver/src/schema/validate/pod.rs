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

/// A running Pod keeps its spec, but for images, a deadline that only shrinks and tolerations that only grow.
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
    if list(&old["tolerations"]).iter().any(|t| !list(&new["tolerations"]).contains(t)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        let kept = |t: &Value| list(&new["tolerations"]).iter().any(|n| same_but_seconds(n, t));
        if !list(&old["tolerations"]).iter().all(kept) {
            errors.forbidden(&at.field("tolerations"), detail);
        }
    }
    if fixed_part(new) != fixed_part(old) {
        errors.forbidden(at, FIXED);
    }
}

fn same_but_seconds(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|key| a[*key] == b[*key])
}

fn fixed_part(spec: &Value) -> Value {
    let mut fixed = spec.clone();
    let Value::Object(object) = &mut fixed else { return fixed };
    object.shift_remove("activeDeadlineSeconds");
    object.shift_remove("tolerations");
    for key in ["containers", "initContainers"] {
        let containers = object.get_mut(key).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.shift_remove("image");
        }
    }
    fixed
}

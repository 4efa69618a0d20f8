//! Rules of the Pod specification, in a Pod or in a template.

use std::collections::HashSet;

use serde_json::Value;
use yado_types::names;

use super::containers::{self, Role};
use super::volumes::validate_volumes;
use crate::edit::{list, text};
use crate::kinds::network::NO_ADDRESS;
use crate::schema::validate::{Errors, Path, meta};

/// Checks a Pod specification.
pub fn validate_spec(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let volumes = validate_volumes(&spec["volumes"], &at.field("volumes"), errors);
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
            containers::container(container, role, &volumes, on_host, &at, errors);
            let name = text(&container["name"]);
            if !name.is_empty() && !seen.insert(name) {
                errors.duplicate(&at.field("name"), &container["name"]);
            }
        }
    }
    let security = at.field("securityContext");
    containers::ids(&spec["securityContext"], &security, errors);
    containers::sysctls(&spec["securityContext"]["sysctls"], &security.field("sysctls"), errors);
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
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let name = text(&spec[key]);
        if !name.is_empty() {
            errors.check_text(&at.field(key), name, names::dns_subdomain(name));
        }
    }
    validate_tolerations(&spec["tolerations"], &at.field("tolerations"), errors);
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
            errors.invalid(&at.field("ip"), &alias["ip"], NO_ADDRESS);
        }
    }
}

/// Validates the scheduling gates.
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

/// Checks a list of tolerations.
pub fn validate_tolerations(tolerations: &Value, at: &Path<'_>, errors: &mut Errors) {
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

//! Rules of containers: their names, images, environments, mounts, resources, probes and hooks.

use std::collections::HashSet;

use serde_json::Value;
use yado_types::names;
use yado_types::quantity::Quantity;

use crate::edit::{list, text};
use crate::kinds::network::{PROTOCOLS, number_or_name, port_name};
use crate::schema::validate::{Errors, Path};

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `containers`.
    Main,
    /// `initContainers`.
    Init,
    /// `ephemeralContainers`.
    Ephemeral,
}

pub fn container(
    container: &Value,
    role: Role,
    volumes: &HashSet<&str>,
    on_host: bool,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let name = text(&container["name"]);
    if name.is_empty() {
        errors.required(&at.field("name"), "");
    } else {
        errors.check_text(&at.field("name"), name, names::dns_label(name));
    }
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.required(&at.field("image"), "");
    } else if image != image.trim() {
        errors.invalid_text(&at.field("image"), image, "must not have leading or trailing whitespace");
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    errors.one_of(&at.field("imagePullPolicy"), &container["imagePullPolicy"], &policies);
    let messages = ["File", "FallbackToLogsOnError"];
    errors.one_of(&at.field("terminationMessagePolicy"), &container["terminationMessagePolicy"], &messages);
    ports(&container["ports"], on_host, &at.field("ports"), errors);
    env(&container["env"], &at.field("env"), errors);
    env_from(&container["envFrom"], &at.field("envFrom"), errors);
    mounts(&container["volumeMounts"], volumes, &at.field("volumeMounts"), errors);
    resources(&container["resources"], &at.field("resources"), errors);
    ids(&container["securityContext"], &at.field("securityContext"), errors);
    let once = role == Role::Init && container["restartPolicy"] != "Always";
    for key in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        if once && !container[key].is_null() {
            errors
                .forbidden(&at.field(key), "may not be set for init containers without restartPolicy=Always");
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe(&container[key], key != "readinessProbe", &at.field(key), errors);
    }
    let lifecycle = at.field("lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = &container["lifecycle"][key];
        if !hook.is_null() {
            handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], &lifecycle.field(key), errors);
        }
    }
}

fn ports(ports: &Value, on_host: bool, at: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, port) in list(ports).iter().enumerate() {
        let at = at.index(i);
        let name = text(&port["name"]);
        if !name.is_empty() {
            errors.check_text(&at.field("name"), name, port_name(name));
            if !seen.insert(name) {
                errors.duplicate(&at.field("name"), &port["name"]);
            }
        }
        match port["containerPort"].as_i64() {
            None | Some(0) => errors.required(&at.field("containerPort"), ""),
            _ => errors.port(&at.field("containerPort"), &port["containerPort"]),
        }
        errors.port(&at.field("hostPort"), &port["hostPort"]);
        if on_host && !port["hostPort"].is_null() && port["hostPort"] != port["containerPort"] {
            let detail = "must match `hostPort` when `hostNetwork` is true";
            errors.invalid(&at.field("containerPort"), &port["containerPort"], detail);
        }
        errors.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
    }
}

/// User and group ids of a security context, of a Pod or of a container.
pub fn ids(context: &Value, at: &Path<'_>, errors: &mut Errors) {
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&context[key], &at.field(key), errors);
    }
    let groups = at.field("supplementalGroups");
    for (i, group) in list(&context["supplementalGroups"]).iter().enumerate() {
        id(group, &groups.index(i), errors);
    }
}

/// The system calls take 2^32 - 1 for "leave it as it is", so that the process would stay root; Kubernetes' bound is
/// half of that.
fn id(id: &Value, at: &Path<'_>, errors: &mut Errors) {
    if !id.is_null() && !id.as_i64().is_some_and(|id| (0..=i64::from(i32::MAX)).contains(&id)) {
        errors.invalid(at, id, "must be between 0 and 2147483647, inclusive");
    }
}

/// Kernel parameters that a Pod sets. Which of them it may set is the node's affair.
pub fn sysctls(sysctls: &Value, at: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, sysctl) in list(sysctls).iter().enumerate() {
        let at = at.index(i);
        let name = text(&sysctl["name"]);
        let at = at.field("name");
        if name.is_empty() {
            errors.required(&at, "");
        } else if !yado_types::sysctls::is_name(name) {
            let detail = "must have at most 253 characters and consist of parts of lower case letters, digits, '-' and '_', \
                          which begin and end with a letter or a digit and are separated by '.' or '/'";
            errors.invalid_text(&at, name, detail);
        } else if !seen.insert(yado_types::sysctls::dotted(name)) {
            errors.duplicate(&at, &sysctl["name"]);
        }
    }
}

fn env(env: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (i, variable) in list(env).iter().enumerate() {
        let at = at.index(i);
        let name = text(&variable["name"]);
        if name.is_empty() {
            errors.required(&at.field("name"), "");
        } else if name.bytes().any(|b| !(32..127).contains(&b) || b == b'=') {
            let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.invalid_text(&at.field("name"), name, detail);
        }
        let (from, from_at) = (&variable["valueFrom"], at.field("valueFrom"));
        let Value::Object(sources) = from else { continue };
        if sources.is_empty() {
            errors.invalid_text(&from_at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        } else if sources.len() > 1 {
            errors.invalid_text(&from_at, "", "may not have more than one field specified at a time");
        }
        if !text(&variable["value"]).is_empty() {
            errors.invalid_text(&from_at, "", "may not be specified when `value` is not empty");
        }
        for key in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = sources.get(key) {
                let at = from_at.field(key);
                for part in ["name", "key"] {
                    if text(&reference[part]).is_empty() {
                        errors.required(&at.field(part), "");
                    }
                }
            }
        }
        if sources.get("fieldRef").is_some_and(|field| text(&field["fieldPath"]).is_empty()) {
            let at = from_at.field("fieldRef");
            errors.required(&at.field("fieldPath"), "");
        }
    }
}

fn env_from(sources: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (i, source) in list(sources).iter().enumerate() {
        let at = at.index(i);
        let there: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|key| !source[*key].is_null()).collect();
        match there.as_slice() {
            [key] => {
                if text(&source[*key]["name"]).is_empty() {
                    let at = at.field(key);
                    errors.required(&at.field("name"), "");
                }
            }
            [] => errors.invalid_text(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            _ => errors.invalid_text(&at, "", "may not have more than one field specified at a time"),
        }
    }
}

fn mounts(mounts: &Value, volumes: &HashSet<&str>, at: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, mount) in list(mounts).iter().enumerate() {
        let at = at.index(i);
        let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        if name.is_empty() {
            errors.required(&at.field("name"), "");
        } else if !volumes.contains(name) {
            errors.not_found(&at.field("name"), name);
        }
        if path.is_empty() {
            errors.required(&at.field("mountPath"), "");
        } else if !seen.insert(path) {
            errors.invalid_text(&at.field("mountPath"), path, "must be unique");
        }
        let inner = text(&mount["subPath"]);
        if inner.starts_with('/') {
            errors.invalid_text(&at.field("subPath"), inner, "must be a relative path");
        }
        if inner.split('/').any(|part| part == "..") {
            errors.invalid_text(&at.field("subPath"), inner, "must not contain '..'");
        }
    }
}

fn resources(resources: &Value, at: &Path<'_>, errors: &mut Errors) {
    let amounts = |key: &str| resources[key].as_object().into_iter().flatten();
    for key in ["limits", "requests"] {
        let list_at = at.field(key);
        for (name, amount) in amounts(key) {
            let at = list_at.key(name);
            let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-");
            if !standard {
                errors.check_text(&at, name, names::qualified_name(name));
                if !name.contains('/') {
                    errors.invalid_text(&at, name, "must be a standard resource for containers");
                }
            }
            if text(amount).parse::<Quantity>().is_ok_and(|q| q < Quantity::default()) {
                errors.invalid(&at, amount, "must be greater than or equal to 0");
            }
        }
    }
    for (name, request) in amounts("requests") {
        let limit = &resources["limits"][name];
        let parsed = |v: &Value| text(v).parse::<Quantity>().ok();
        if let (Some(asked), Some(most)) = (parsed(request), parsed(limit))
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {}", text(limit));
            errors.invalid(&at.field("requests"), request, &detail);
        }
    }
}

fn probe(probe: &Value, once: bool, at: &Path<'_>, errors: &mut Errors) {
    if probe.is_null() {
        return;
    }
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], at, errors);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.at_least(&at.field(key), &probe[key], 0);
    }
    if once && probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.invalid(&at.field("successThreshold"), &probe["successThreshold"], "must be 1");
    }
}

/// Validates the handler of a probe or hook: exactly one of `kinds`.
fn handler(handler: &Value, kinds: &[&str], at: &Path<'_>, errors: &mut Errors) {
    let mut given = 0;
    for key in kinds.iter().filter(|key| !handler[**key].is_null()) {
        given += 1;
        let action = &handler[*key];
        let action_at = at.field(key);
        if given > 1 {
            errors.forbidden(&action_at, "may not specify more than 1 handler type");
        }
        match *key {
            "exec" if list(&action["command"]).is_empty() => errors.required(&action_at.field("command"), ""),
            "httpGet" | "tcpSocket" | "grpc" => {
                number_or_name(&action["port"], &action_at.field("port"), errors);
                errors.one_of(&action_at.field("scheme"), &action["scheme"], &["HTTP", "HTTPS"]);
            }
            _ => {}
        }
    }
    if given == 0 {
        errors.required(at, "must specify a handler type");
    }
}

//! A container's environment: Service variables, `envFrom`, `env` with references and `$(VAR)`; pure.

pub(crate) mod fields;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};

pub(crate) use fields::Facts;

/// Where ConfigMaps, Secrets and claims come from.
pub(crate) trait Sources {
    /// The ConfigMap of this name in the Pod's namespace.
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>>;
    /// The Secret of this name in the Pod's namespace.
    fn secret(&self, name: &str) -> Option<Arc<Secret>>;
    /// The claim of this name in the Pod's namespace.
    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    /// The volume of this name.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
}

/// What a Pod refers to and is not there or not usable, in one sentence: the message of `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub String);

/// Everything that an environment is made of beside the container itself.
pub(crate) struct Scope<'a> {
    pub pod: &'a Pod,
    pub facts: &'a Facts,
    pub sources: &'a dyn Sources,
    /// Services of the Pod's namespace, and `kubernetes` of `default`.
    pub services: &'a [Arc<Service>],
}

/// The variables in order; a name occurs once, with its last value.
pub(crate) fn of(container: &Container, scope: &Scope) -> Result<Vec<(String, OsString)>, ConfigError> {
    let links = scope.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = service_variables(scope.services, links);
    let mut variables = Variables { inherited: services, own: Vec::new() };
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(r) = &source.config_map_ref {
            match scope.sources.config_map(&r.name) {
                Some(map) => {
                    for (k, v) in map.data.iter().flatten() {
                        variables.set(format!("{prefix}{k}"), v.into());
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(ConfigError(format!("configmap \"{}\" not found", r.name))),
            }
        }
        if let Some(r) = &source.secret_ref {
            match scope.sources.secret(&r.name) {
                Some(secret) => {
                    for (k, v) in secret.data.iter().flatten() {
                        variables.set(format!("{prefix}{k}"), OsString::from_vec(v.0.clone()));
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(ConfigError(format!("secret \"{}\" not found", r.name))),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, container, scope, &variables)? {
            variables.set(variable.name.clone(), value);
        }
    }
    let mut all = variables.inherited;
    all.retain(|(name, _)| !variables.own.iter().any(|(own, _)| own == name));
    all.extend(variables.own);
    Ok(all)
}

struct Variables {
    inherited: Vec<(String, OsString)>,
    own: Vec<(String, OsString)>,
}

impl Variables {
    fn set(&mut self, name: String, value: OsString) {
        match self.own.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.own.push((name, value)),
        }
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        let mut all = self.own.iter().chain(&self.inherited);
        all.find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
    }
}

fn value_of(
    variable: &EnvVar,
    container: &Container,
    scope: &Scope,
    known: &Variables,
) -> Result<Option<OsString>, ConfigError> {
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, |name| known.get(name))));
    };
    let name = pod_namespace(scope.pod);
    if let Some(r) = &from.field_ref {
        return fields::pod_field(scope.pod, &r.field_path, scope.facts).map(|text| Some(text.into()));
    }
    if let Some(r) = &from.resource_field_ref {
        let of = match &r.container_name {
            Some(other) => scope.pod.spec.as_ref().and_then(|s| crate::spec::find_container(s, other)),
            None => Some(container),
        };
        let of = of.ok_or_else(|| {
            ConfigError(format!(
                "container \"{}\" not found",
                r.container_name.as_deref().unwrap_or_default()
            ))
        })?;
        return fields::resource_field(of, &r.resource, r.divisor.as_ref(), scope.facts)
            .map(|text| Some(text.into()));
    }
    if let Some(r) = &from.config_map_key_ref {
        let optional = r.optional == Some(true);
        return match scope.sources.config_map(&r.name) {
            Some(map) => match map.data.as_ref().and_then(|d| d.get(&r.key)) {
                Some(value) => Ok(Some(value.into())),
                None if optional => Ok(None),
                None => {
                    Err(ConfigError(format!("couldn't find key {} in ConfigMap {name}/{}", r.key, r.name)))
                }
            },
            None if optional => Ok(None),
            None => Err(ConfigError(format!("configmap \"{}\" not found", r.name))),
        };
    }
    if let Some(r) = &from.secret_key_ref {
        let optional = r.optional == Some(true);
        return match scope.sources.secret(&r.name) {
            Some(secret) => match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
                Some(value) => Ok(Some(OsString::from_vec(value.0.clone()))),
                None if optional => Ok(None),
                None => Err(ConfigError(format!("couldn't find key {} in Secret {name}/{}", r.key, r.name))),
            },
            None if optional => Ok(None),
            None => Err(ConfigError(format!("secret \"{}\" not found", r.name))),
        };
    }
    Err(ConfigError(format!(
        "environment variable {} takes its value from a source this node does not offer; use fieldRef, \
         resourceFieldRef, configMapKeyRef or secretKeyRef",
        variable.name
    )))
}

fn pod_namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// Replaces `$(NAME)` in what must be text, of which variables need not be. The error does not repeat a value.
pub(crate) fn expand_text(text: &str, env: &[(String, OsString)]) -> Result<String, ConfigError> {
    let lookup = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str());
    expand(text, lookup).into_string().map_err(|_| {
        ConfigError(format!(
            "\"{text}\" refers to a variable whose value is not UTF-8; only other variables can have such values"
        ))
    })
}

/// Replaces `$(NAME)` where NAME is known; `$$` is a literal `$`, and what is unknown stays as it is written.
fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a OsStr>) -> OsString {
    let mut out = OsString::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push("$");
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push(value),
                None => {
                    out.push("$(");
                    out.push(name);
                    out.push(")");
                }
            }
            rest = tail;
        } else {
            out.push("$");
            rest = after;
        }
    }
    out.push(rest);
    out
}

/// `REDIS_SERVICE_HOST` and its kin, in the form that Docker's links had.
fn service_variables(services: &[Arc<Service>], links: bool) -> Vec<(String, OsString)> {
    let mut out = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let is_api = name == "kubernetes" && service.metadata.namespace.as_deref() == Some("default");
        let Some(spec) = service.spec.as_ref().filter(|_| links || is_api) else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let upper = name.to_uppercase().replace('-', "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        out.insert(format!("{upper}_SERVICE_HOST"), ip.to_owned());
        for (i, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if i == 0 {
                out.insert(format!("{upper}_SERVICE_PORT"), port.port.to_string());
                out.insert(format!("{upper}_PORT"), url.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                out.insert(format!("{upper}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let prefix = format!("{upper}_PORT_{}_{protocol}", port.port);
            out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
            out.insert(format!("{prefix}_PORT"), port.port.to_string());
            out.insert(format!("{prefix}_ADDR"), ip.to_owned());
            out.insert(prefix, url);
        }
    }
    out.into_iter().map(|(name, value)| (name, value.into())).collect()
}

#[cfg(test)]
pub(crate) mod tests;

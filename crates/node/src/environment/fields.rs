//! The downward API: values of a Pod's fields and resources.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use yado_types::quantity::Quantity;

use super::ConfigError;
use crate::resources;

/// Values for the downward API that are not in the Pod's object.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub node_name: String,
    pub host_ip: IpAddr,
    pub pod_ip: Option<IpAddr>,
    /// The node's allocatable CPU and memory, which are the values for a container without limits.
    pub allocatable_cpu: Quantity,
    pub allocatable_memory: Quantity,
}

/// The value of a `fieldRef` path.
pub(crate) fn pod_field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> ConfigError {
    ConfigError(format!("unsupported fieldPath: {path}"))
}

/// `metadata.labels['a/b']` as (`metadata.labels`, `a/b`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let quoted = |q: char| key.strip_prefix(q).and_then(|k| k.strip_suffix(q));
    Some((map, quoted('\'').or_else(|| quoted('"'))?))
}

/// `key="value"` per line, as files of the downward API have it.
fn lines(map: &Option<BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef`, rounded up to the divisor.
pub(crate) fn resource_field(
    container: &Container,
    resource: &str,
    divisor: Option<&ApiQuantity>,
    facts: &Facts,
) -> Result<String, ConfigError> {
    let unknown = || ConfigError(format!("unsupported container resource : {resource}"));
    let (kind, name) = resource.split_once('.').ok_or_else(unknown)?;
    let whole = match name {
        "cpu" => facts.allocatable_cpu,
        "memory" => facts.allocatable_memory,
        "ephemeral-storage" => Quantity::default(),
        _ => return Err(unknown()),
    };
    let value = match kind {
        "limits" => resources::container_limit(container, name).unwrap_or(whole),
        "requests" => resources::container_request(container, name).unwrap_or_default(),
        _ => return Err(unknown()),
    };
    let divisor = divisor.and_then(|d| d.0.parse::<Quantity>().ok()).map_or(0, Quantity::milli);
    let divisor = if divisor <= 0 { 1000 } else { divisor };
    let milli = value.milli();
    Ok((milli.div_euclid(divisor) + i64::from(milli.rem_euclid(divisor) != 0)).to_string())
}

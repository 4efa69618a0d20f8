//! Usage of a quota's limited resources by one object.

use std::collections::BTreeMap;

use serde_json::Value;
use yado_types::quantity::Quantity;

use super::scope;
use crate::edit::{list, text};
use crate::kinds::pod_spec::amounts::of_pod;
use crate::resource::Resource;

/// An amount of a resource.
pub(crate) type Amount = Quantity;

/// Amounts by the names that quotas give resources, like `requests.cpu`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage(BTreeMap<String, Amount>);

impl Usage {
    pub(crate) fn get(&self, name: &str) -> Amount {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Amount)> {
        self.0.iter()
    }

    fn add(&mut self, name: impl Into<String>, amount: Amount) {
        let so_far = self.0.entry(name.into()).or_default();
        *so_far = *so_far + amount;
    }
}

/// Resources of the core group that quotas count by their bare plural.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Resources of Pods that quotas also know without a prefix, as what is requested.
const BARE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// `count/deployments.apps`, as quotas count objects of any resource.
fn count_name(resource: &Resource) -> String {
    format!("count/{}", resource.qualified())
}

/// Whether objects of a resource can use anything that a quota limits.
pub(crate) fn is_limited(resource: &Resource, quota: &Value) -> bool {
    let Some(hard) = quota["spec"]["hard"].as_object() else { return false };
    let core = resource.group.is_empty();
    let own = match &*resource.plural {
        "pods" | "services" | "persistentvolumeclaims" => core,
        plural => core && COUNTED.contains(&plural),
    };
    own || hard.contains_key(&count_name(resource))
}

/// Usage by an object; empty where the quota's scopes exclude it.
pub(crate) fn of(resource: &Resource, object: &Value, quota: &Value) -> Usage {
    let mut usage = Usage::default();
    if !is_limited(resource, quota) || !scope::takes(resource, object, quota) {
        return usage;
    }
    let one = Amount::from_units(1);
    usage.add(count_name(resource), one);
    if resource.group.is_empty() {
        match &*resource.plural {
            "pods" => pod(object, &mut usage),
            "services" => service(object, &mut usage),
            "persistentvolumeclaims" => claim(object, &mut usage),
            plural if COUNTED.contains(&plural) => usage.add(plural, one),
            _ => {}
        }
    }
    // Only what is limited counts, so that other changes of an object leave the quota alone.
    usage.0.retain(|name, _| quota["spec"]["hard"].get(name).is_some());
    usage
}

fn pod(pod: &Value, usage: &mut Usage) {
    if matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed") {
        return;
    }
    usage.add("pods", Amount::from_units(1));
    for (name, amount) in of_pod(&pod["spec"], "requests") {
        if BARE.contains(&name.as_str()) {
            usage.add(name.clone(), amount);
        }
        usage.add(format!("requests.{name}"), amount);
    }
    for (name, amount) in of_pod(&pod["spec"], "limits") {
        usage.add(format!("limits.{name}"), amount);
    }
}

fn service(service: &Value, usage: &mut Usage) {
    let one = Amount::from_units(1);
    usage.add("services", one);
    let ports = || {
        let with_port =
            list(&service["spec"]["ports"]).iter().filter(|port| port["nodePort"].as_u64().unwrap_or(0) != 0);
        Amount::from_units(with_port.count() as i64)
    };
    match text(&service["spec"]["type"]) {
        "NodePort" => usage.add("services.nodeports", ports()),
        "LoadBalancer" => {
            usage.add("services.loadbalancers", one);
            usage.add("services.nodeports", ports());
        }
        _ => {}
    }
}

fn claim(claim: &Value, usage: &mut Usage) {
    let one = Amount::from_units(1);
    let storage =
        claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(|text| text.parse().ok());
    let storage: Amount = storage.unwrap_or_default();
    usage.add("persistentvolumeclaims", one);
    usage.add("requests.storage", storage);
    if let Some(class) = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty()) {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        usage.add(format!("{prefix}/persistentvolumeclaims"), one);
        usage.add(format!("{prefix}/requests.storage"), storage);
    }
}

/// Requests and limits that a quota requires of a new Pod's containers and that are missing: `limits.cpu for: c1,c2`.
pub(crate) fn unstated(resource: &Resource, object: &Value, quota: &Value) -> Option<String> {
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    if !is_pod || !scope::takes(resource, object, quota) {
        return None;
    }
    let spec = &object["spec"];
    let mut missing: Vec<String> = Vec::new();
    for name in quota["spec"]["hard"].as_object()?.keys() {
        let (field, of) = match name.split_once('.') {
            _ if BARE.contains(&name.as_str()) => ("requests", name.as_str()),
            Some((field @ ("requests" | "limits"), of)) if BARE.contains(&of) => (field, of),
            _ => continue,
        };
        if !spec["resources"][field][of].is_null() {
            continue;
        }
        let containers = list(&spec["initContainers"]).iter().chain(list(&spec["containers"]));
        let silent = containers.filter(|container| container["resources"][field][of].is_null());
        let silent: Vec<&str> = silent.map(|container| text(&container["name"])).collect();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

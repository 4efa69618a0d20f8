//! Networks: those that keep services apart become NetworkPolicies, those that other projects share become Namespaces
//! with a name for each member.
//!
//! A network becomes a policy that lets its members reach each other; as policies add up, two services reach each
//! other if they have a network in common. What is published is reached from everywhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use yado_types::labels;

use super::{
    super::model::{Network, NetworkMode, Project, Service},
    Lowering,
    names::{self, alias_label, component},
};
use crate::workload::name::sanitised;

impl Lowering<'_> {
    /// Labels by which policies select the Pods of `service`; none where nothing is kept apart.
    pub(super) fn network_labels(&self, service: &Service) -> BTreeMap<String, String> {
        if !self.apart {
            return BTreeMap::new();
        }
        service.networks.keys().map(|key| (label(&own_name(self.project, key)), "true".to_string())).collect()
    }

    /// Policies, aliases that several services share, and names in shared networks.
    pub(super) fn networks(&mut self) {
        let project = self.project;
        let members = members(project);
        if self.apart {
            self.policies(&members);
        }
        for (alias, owners) in self.names.shared.clone() {
            let mut ports = BTreeMap::new();
            for port in owners.iter().flat_map(|o| &self.ports[o.as_str()].ports) {
                ports.insert(port.name.clone(), json!({
                    "name": port.name, "port": port.service, "protocol": port.protocol, "targetPort": port.container,
                }));
            }
            let ports: Vec<Value> = ports.into_values().collect();
            let mut spec =
                json!({"selector": {labels::APP_NAME: self.names.app, alias_label(&alias): "true"}});
            if ports.is_empty() {
                spec["clusterIP"] = "None".into();
                spec["publishNotReadyAddresses"] = true.into();
            } else {
                spec["ports"] = ports.into();
            }
            let service = self.object("v1", "Service", &alias, spec);
            self.push(&self.names.app.clone(), service);
        }
        for (key, network) in &project.networks {
            if network.internal {
                let sentence = format!(
                    "internal has no effect: what is only in network {key} still reaches the outside"
                );
                self.found.warn(&network.at, sentence);
            }
            for (field, reason) in without_effect(network) {
                self.found.warn(&network.at, format!("{field} of network {key} has no effect: {reason}"));
            }
            if is_shared(project, key, network) {
                self.share(key, network, members.get(key.as_str()).map_or(&[], Vec::as_slice));
            }
        }
    }

    /// Names for containers of other projects, as Services that lead there.
    pub(super) fn external_links(&mut self) {
        let project = self.project;
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        let own: BTreeSet<String> = project
            .services
            .keys()
            .flat_map(|s| self.names.of(s).all().cloned().collect::<Vec<_>>())
            .collect();
        for link in project.services.values().flat_map(|s| &s.external_links) {
            let (container, alias) = (&link.target, &link.alias);
            let (service, other) = match names::linked(project, container) {
                names::Linked::Own => continue,
                names::Linked::Other { service, project } => (service, project),
                names::Linked::Unknown => {
                    let sentence = format!(
                        "external_links has no effect: nothing shows which project {container} is of; reach it as SERVICE.PROJECT, or put both into one external network"
                    );
                    self.found.warn(&link.at, sentence);
                    continue;
                }
            };
            let target = format!("{service}.{other}.svc.cluster.local");
            let name = sanitised(alias, 63);
            let taken = name.is_empty() || own.contains(&name) || own.contains(alias);
            if taken || given.get(alias).is_some_and(|t| *t != target) {
                let sentence = format!("{container} is not found as {alias}, which is something else here");
                self.found.warn(&link.at, sentence);
                continue;
            }
            if given.insert(alias.clone(), target.clone()).is_some() {
                continue;
            }
            let sentence = format!("{container} is taken to be service {service} of project {other}");
            self.found.warn(&link.at, sentence);
            let spec = json!({"type": "ExternalName", "externalName": target});
            let mut object = self.object("v1", "Service", &name, spec);
            if name != *alias {
                object["metadata"]["annotations"] = json!({labels::ALIASES: alias});
            }
            self.push(&self.names.app.clone(), object);
        }
    }

    fn policies(&mut self, members: &HashMap<&str, Vec<&Service>>) {
        let project = self.project;
        for key in project.networks.keys().filter(|key| members.contains_key(key.as_str())) {
            let name = own_name(project, key);
            let members = json!({"matchLabels": {labels::APP_NAME: self.names.app, label(&name): "true"}});
            // Who else is in a network that projects share is not known here.
            let shared = project.networks.get(key).is_some_and(|network| is_shared(project, key, network));
            let from = if shared { json!({}) } else { json!({"from": [{"podSelector": members.clone()}]}) };
            let spec = json!({"podSelector": members, "policyTypes": ["Ingress"], "ingress": [from]});
            let name = format!("network-{}", sanitised(&name, 50));
            let policy = self.object("networking.k8s.io/v1", "NetworkPolicy", &name, spec);
            self.push(&self.names.app.clone(), policy);
        }
        for service in project.services.values().filter(|s| !s.ports.is_empty() && !s.networks.is_empty()) {
            let mut ports: Vec<Value> = Vec::new();
            for port in &service.ports {
                let port = json!({"port": port.target, "protocol": port.protocol.to_uppercase()});
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
            let selector = json!({"matchLabels": {
                labels::APP_NAME: self.names.app,
                labels::APP_COMPONENT: component(&service.name),
            }});
            let spec =
                json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]});
            let name = format!("published-{}", self.names.of(&service.name).object);
            let policy = self.object("networking.k8s.io/v1", "NetworkPolicy", &name, spec);
            self.push(&self.names.app.clone(), policy);
        }
    }

    /// Gives the members of a shared network their names in it: a Namespace of the network's name, whose Services lead
    /// to the project's.
    fn share(&mut self, key: &str, network: &Network, members: &[&Service]) {
        let namespace = shared_namespace(network);
        let place = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        self.push(super::NAMESPACES_GROUP, place);
        for service in members {
            let Some(attachment) = service.networks.get(key) else { continue };
            let own = self.names.of(&service.name).clone();
            let target = format!("{}.{}.svc.cluster.local", own.object, self.names.namespace);
            let names = attachment.aliases.iter().chain(&own.aliases).chain([&own.object]).cloned();
            let names: BTreeSet<String> =
                names.filter(|n| crate::workload::name::is_service_name(n)).collect();
            for name in names {
                let mut alias = self.object(
                    "v1",
                    "Service",
                    &name,
                    json!({"type": "ExternalName", "externalName": target}),
                );
                alias["metadata"]["namespace"] = namespace.clone().into();
                self.push(&self.names.app.clone(), alias);
            }
        }
    }

    /// Namespaces in which `service` finds further names, beside its own.
    pub(super) fn searches(&self, service: &Service) -> Vec<String> {
        let shared = service.networks.keys().filter_map(|key| {
            let network = self.project.networks.get(key)?;
            is_shared(self.project, key, network)
                .then(|| format!("{}.svc.cluster.local", shared_namespace(network)))
        });
        shared.collect()
    }

    fn object(&self, version: &str, kind: &str, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": {"labels": self.labels(), "name": name, "namespace": self.names.namespace},
            "spec": spec,
        })
    }
}

/// What a network says in vain, and why.
fn without_effect(network: &Network) -> Vec<(&'static str, &'static str)> {
    let addresses = "Pods' addresses are given to them";
    let usual = |driver: &str, all: &[&str]| all.contains(&driver);
    let driver = |d: &String| !usual(d, &["bridge", "overlay", "default"]);
    let ipam = network.ipam_driver.as_ref().is_some_and(|d| d != "default")
        || !network.ipam_config.is_empty()
        || !network.ipam_options.is_empty();
    let fields = [
        ("driver", network.driver.as_ref().is_some_and(driver), "Pods have the cluster's network"),
        ("driver_opts", !network.driver_opts.is_empty(), "Pods have the cluster's network"),
        ("ipam", ipam, addresses),
        ("enable_ipv4", network.enable_ipv4 == Some(false), addresses),
        ("enable_ipv6", network.enable_ipv6 == Some(true), addresses),
        ("labels", !network.labels.is_empty(), "nothing here is the network that could carry them"),
    ];
    fields.into_iter().filter(|(_, there, _)| *there).map(|(field, _, reason)| (field, reason)).collect()
}

/// What a network is called here: by its key, and one that others share by its name.
fn own_name(project: &Project, key: &str) -> String {
    match project.networks.get(key) {
        Some(network) if is_shared(project, key, network) => sanitised(&network.name, 50),
        _ => key.into(),
    }
}

/// A network of Docker's own name, which other projects are in, too.
fn is_shared(project: &Project, key: &str, network: &Network) -> bool {
    let own_name = format!("{}_{key}", project.name);
    key != "default"
        && (network.external || network.name != own_name && !network.name.is_empty())
        && !["host", "none", "bridge", "ingress"].contains(&network.name.as_str())
}

fn shared_namespace(network: &Network) -> String {
    format!("network-{}", sanitised(&network.name, 50))
}

/// The services of each network, in the order written.
fn members(project: &Project) -> HashMap<&str, Vec<&Service>> {
    let mut members: HashMap<&str, Vec<&Service>> = HashMap::new();
    for service in project.services.values() {
        for key in service.networks.keys() {
            members.entry(key).or_default().push(service);
        }
    }
    members
}

/// Whether some two services have no network in common, and so must not reach each other.
pub(super) fn apart(project: &Project) -> bool {
    let own = |s: &&Service| !matches!(s.network_mode, Some(NetworkMode::Host)) && !s.networks.is_empty();
    let services: Vec<&Service> = project.services.values().filter(own).collect();
    let members = members(project);
    // What only one service is in connects no two. Without those, few different sets are left, however many services.
    let sets: BTreeSet<BTreeSet<&str>> = services
        .iter()
        .map(|s| s.networks.keys().map(String::as_str).filter(|key| members[key].len() > 1).collect())
        .collect();
    let sets: Vec<BTreeSet<&str>> = sets.into_iter().collect();
    let together = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| !a.is_disjoint(b);
    services.len() > 1
        && sets
            .iter()
            .enumerate()
            .any(|(place, a)| a.is_empty() || sets[place + 1..].iter().any(|b| !together(a, b)))
}

fn label(network: &str) -> String {
    let name: String = network
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(63)
        .collect();
    format!("network.yado.dev/{}", name.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_apart_where_two_have_no_network_in_common() {
        for (sets, expect) in [
            (&[][..], false),
            (&["a"][..], false),
            (&["a", "a"], false),
            (&["a", "b"], true),
            (&["a", ""], false),
            (&["a b", "b", "a b"], false),
            (&["a b", "a", "b"], true),
            // Each two have one, and no one is common to all.
            (&["a b", "b c", "a c"], false),
            // Networks of one service alone connect nothing.
            (&["all x", "all y", "all z"], false),
            (&["x", "y"], true),
            (&["all x", "y"], true),
        ] {
            let mut project = Project::default();
            for (number, set) in sets.iter().enumerate() {
                let networks = set.split_whitespace().map(|n| (n.to_string(), Default::default())).collect();
                let name = number.to_string();
                project.services.insert(name.clone(), Service { name, networks, ..Service::default() });
            }
            assert_eq!(apart(&project), expect, "{sets:?}");
        }
    }
}

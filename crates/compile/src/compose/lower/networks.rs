//! Networks: each becomes a NetworkPolicy, and those that other projects share also a Namespace with a name for each
//! member.
//!
//! A network becomes a policy that lets its members reach each other; as policies add up, two services reach each
//! other if they have a network in common. So projects are apart, as under Docker: a project's own networks have members
//! of its own only, until another project names one of them as an external network. What is published is reached from
//! everywhere.
//!
//! | label `network.yado.dev/NAME` of a Pod | it is in |
//! |---|---|
//! | `PROJECT-KEY: "true"` | a network of its own project |
//! | `NAME: shared` | a network that projects share by its name; with the name `PROJECT-KEY` another project's own |
//! | `bridge: shared` | Docker's default network, as all services of version 1 are |
//! | `none: "true"` | no network: it is cut off both ways |

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use yado_types::labels;

use super::{
    super::model::{Network, NetworkMode, Project, Service},
    Lowering,
    names::{self, alias_label, component},
    ports,
};
use crate::workload::name::sanitised;

impl Lowering<'_> {
    /// Labels by which policies select the Pods of `service`.
    pub(super) fn network_labels(&self, service: &Service) -> BTreeMap<String, String> {
        let all = memberships(self.project, &self.names.namespace, service);
        all.into_iter().map(|m| (m.label, m.value.to_string())).collect()
    }

    /// Policies, aliases that several services share, and names in shared networks.
    pub(super) fn networks(&mut self) {
        self.policies();
        let project = self.project;
        let members = members(project);
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
                    "internal has no effect: services in network {key} alone still reach the outside"
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

    /// Warns of what asks a service at an address that it does not get here, and leaves such addresses out of `dns`.
    pub(super) fn fixed_addresses(&mut self) {
        if self.fixed.is_empty() {
            return;
        }
        for service in self.project.services.values() {
            let hosts = service.extra_hosts.iter().map(|(_, address)| ("extra_hosts", address));
            let dns = service.dns.iter().map(|address| ("dns", address));
            let environment = service.environment.values().map(|value| ("environment", value));
            let words = service.command.iter().flatten().map(|word| ("command", word));
            let words = words.chain(service.entrypoint.iter().flatten().map(|word| ("entrypoint", word)));
            let mut said: BTreeSet<(&str, &str)> = BTreeSet::new();
            for (field, text) in hosts.chain(dns).chain(environment).chain(words) {
                let Some((address, owner)) = address_in(text, &self.fixed) else { continue };
                if !said.insert((field, address)) {
                    continue;
                }
                let instead = match field {
                    "dns" => "names are resolved by the DNS of the cluster instead".to_string(),
                    _ => format!("write its name, {owner}"),
                };
                let sentence = format!(
                    "{field} of {} points at {owner} by the address {address}, which {owner} does not get: {instead}",
                    service.name
                );
                self.found.warn(service.place(field), sentence);
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
            let apart =
                if project.version_1 { "" } else { ", which has to be in an external network of both" };
            let sentence = format!("{container} is taken to be service {service} of project {other}{apart}");
            self.found.warn(&link.at, sentence);
            let spec = json!({"type": "ExternalName", "externalName": target});
            let mut object = self.object("v1", "Service", &name, spec);
            if name != *alias {
                object["metadata"]["annotations"] = json!({labels::ALIASES: alias});
            }
            self.push(&self.names.app.clone(), object);
        }
    }

    fn policies(&mut self) {
        let project = self.project;
        let services = || project.services.values().filter(|s| !self.joins.contains_key(&s.name));
        let members = services().flat_map(|s| memberships(project, &self.names.namespace, s));
        let members: BTreeMap<String, Membership> = members.map(|m| (m.policy.clone(), m)).collect();
        let mut policies: Vec<(String, Value)> =
            members.into_values().map(|m| (m.policy.clone(), m.policy_spec(&self.names.app))).collect();
        for service in services() {
            // What is published to the machine itself is reached by the node, which no policy keeps out.
            let open = service.ports.iter().filter(|p| !ports::outside(p).local);
            let mut ports: Vec<Value> = Vec::new();
            for port in open {
                let port = json!({"port": port.target, "protocol": port.protocol.to_uppercase()});
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
            if ports.is_empty() || memberships(project, &self.names.namespace, service).is_empty() {
                continue;
            }
            let selector = json!({"matchLabels": {
                labels::APP_NAME: self.names.app,
                labels::APP_COMPONENT: component(&service.name),
            }});
            let spec =
                json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]});
            policies.push((format!("published-{}", self.names.of(&service.name).object), spec));
        }
        for (name, spec) in policies {
            let policy = self.object("networking.k8s.io/v1", "NetworkPolicy", &name, spec);
            self.push(&self.names.app.clone(), policy);
        }
    }

    /// Gives the members of a shared network their names in it: a Namespace of the network's name, whose Services lead
    /// to the project's.
    fn share(&mut self, key: &str, network: &Network, members: &[&Service]) {
        let namespace = shared_namespace(network);
        let mut place = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        if namespace != format!("network-{}", network.name) {
            place["metadata"]["annotations"] = json!({labels::NETWORK: network.name});
        }
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
        let mut all = Vec::new();
        for (key, network) in service.networks.keys().filter_map(|k| self.project.networks.get_key_value(k)) {
            if !is_shared(self.project, key, network) {
                continue;
            }
            all.push(shared_namespace(network));
            // Another project's own network, in which its services have their own names.
            if let (true, Some((project, _))) = (network.external, network.name.rsplit_once('_')) {
                all.push(names::namespace_of(project));
            }
        }
        all.iter().map(|namespace| format!("{namespace}.svc.cluster.local")).collect()
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

/// The first of the addresses that stands in a text by itself, and whose it is.
fn address_in<'a>(text: &str, fixed: &BTreeMap<&'a str, &'a str>) -> Option<(&'a str, &'a str)> {
    let ends = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '.');
    fixed.iter().map(|(address, owner)| (*address, *owner)).find(|(address, _)| {
        text.match_indices(address).any(|(at, found)| {
            let (before, after) = (&text[..at], &text[at + found.len()..]);
            ends(before.chars().next_back()) && ends(after.chars().next())
        })
    })
}

/// Addresses that services ask for in their networks, and whose they were to be.
pub(super) fn fixed(project: &Project) -> BTreeMap<&str, &str> {
    let attachments = project.services.values().flat_map(|s| s.networks.values().map(move |a| (s, a)));
    let addresses = attachments.flat_map(|(service, attachment)| {
        let both = [&attachment.ipv4_address, &attachment.ipv6_address].into_iter().flatten();
        both.map(|address| (address.as_str(), service.name.as_str()))
    });
    addresses.collect()
}

/// What a network says in vain, and why.
fn without_effect(network: &Network) -> Vec<(&'static str, &'static str)> {
    let addresses = "Pods' addresses are assigned by the cluster";
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
        ("labels", !network.labels.is_empty(), "no object stands for the network itself"),
    ];
    fields.into_iter().filter(|(_, there, _)| *there).map(|(field, _, reason)| (field, reason)).collect()
}

/// How a service is in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    /// The label of its Pods.
    label: String,
    /// And its value.
    value: &'static str,
    /// The name of the network's NetworkPolicy.
    policy: String,
}

/// Value of a label: of a project's own network.
const OWN: &str = "true";
/// Value of a label: of a network by its name, whoever made it.
const SHARED: &str = "shared";

impl Membership {
    fn own(namespace: &str, key: &str) -> Self {
        let policy = format!("network-{}", sanitised(key, 50));
        Membership { label: label(&format!("{namespace}-{key}")), value: OWN, policy }
    }

    fn shared(name: &str) -> Self {
        let name = sanitised(name, 50);
        Membership { label: label(&name), value: SHARED, policy: format!("shared-network-{name}") }
    }

    /// Cut off both ways.
    fn none() -> Self {
        Membership { label: label("none"), value: OWN, policy: "no-network".into() }
    }

    /// Who reaches the members.
    fn policy_spec(&self, app: &str) -> Value {
        let members = json!({"matchLabels": {labels::APP_NAME: app, self.label.clone(): self.value}});
        if *self == Membership::none() {
            return json!({"podSelector": members, "policyTypes": ["Ingress", "Egress"]});
        }
        let of_others = |selector: Value| json!({"namespaceSelector": {}, "podSelector": selector});
        let from = match self.value {
            OWN => vec![
                json!({"podSelector": members.clone()}),
                of_others(json!({"matchLabels": {self.label.clone(): SHARED}})),
            ],
            _ => vec![of_others(json!({"matchExpressions": [{"key": self.label, "operator": "Exists"}]}))],
        };
        json!({"podSelector": members, "policyTypes": ["Ingress"], "ingress": [{"from": from}]})
    }
}

/// The networks of a service; none where it is on the node's.
fn memberships(project: &Project, namespace: &str, service: &Service) -> Vec<Membership> {
    let of = |key: &String| match project.networks.get(key) {
        Some(network) if network.name == BRIDGE => Membership::shared(BRIDGE),
        Some(network) if is_shared(project, key, network) => Membership::shared(&network.name),
        _ => Membership::own(namespace, key),
    };
    match &service.network_mode {
        Some(NetworkMode::Host | NetworkMode::Service(_) | NetworkMode::Container(_)) => Vec::new(),
        Some(NetworkMode::None) => vec![Membership::none()],
        Some(NetworkMode::Bridge) => vec![Membership::shared(BRIDGE)],
        Some(NetworkMode::Network(name)) => vec![Membership::shared(name)],
        None if service.networks.is_empty() => vec![Membership::own(namespace, "default")],
        None => service.networks.keys().map(of).collect(),
    }
}

/// Docker's default network.
const BRIDGE: &str = "bridge";

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

fn label(network: &str) -> String {
    const ROOM: usize = 63;
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = network.chars().map(keep).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name = if name.len() > ROOM { sanitised(network, ROOM) } else { name.into() };
    format!("network.yado.dev/{name}")
}

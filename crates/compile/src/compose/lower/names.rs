//! Which names the project's things get, and by which further names services are found.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use yado_types::names;

use super::super::model::{Project, Service};
use crate::{
    Position,
    diagnostic::Findings,
    workload::name::{is_service_name, sanitised},
};

/// Room for what object names have after a service's: `-public`, and what Deployments and Pods add.
const SERVICE_ROOM: usize = 45;

/// Replicas of a service beyond these have no names of their own, as each name is a word of an annotation.
const MAX_CONTAINER_NAMES: u32 = 16;

/// Namespaces that are not a project's to have.
const RESERVED: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The names of a project's things.
pub(super) struct Names {
    /// The app: the value of labels, the first part of host names.
    pub app: String,
    /// The namespace.
    pub namespace: String,
    services: IndexMap<String, ServiceNames>,
    /// Aliases that several services of one network have: any of them answers.
    pub shared: BTreeMap<String, Vec<String>>,
}

/// The names of one service.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceNames {
    /// Of its objects.
    pub object: String,
    /// The start of the names of what publishes it, where that is not `object`.
    pub publish_as: Option<String>,
    /// Further names, it being the only one that has them.
    pub aliases: Vec<String>,
    /// Names that it has together with others.
    pub shared: Vec<String>,
    /// The names that Docker gives its containers.
    pub containers: Vec<String>,
}

/// A name for a service, and who says so.
struct Alias<'a> {
    name: String,
    service: &'a str,
    at: &'a Position,
    network: Option<&'a str>,
    /// Only a guess by Docker's rules: it gives way to any other.
    weak: bool,
    link: bool,
}

impl ServiceNames {
    /// All names that lead to the service.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.aliases.iter().chain(&self.shared).chain([&self.object])
    }
}

impl Names {
    pub(super) fn new(project: &Project, found: &mut Findings) -> Self {
        let namespace = namespace(project, found);
        let services = objects(project);
        let mut all = Names { app: namespace.clone(), namespace, services, shared: BTreeMap::new() };
        all.aliases(project, found);
        all.containers(project);
        all.publish_names();
        all
    }

    pub(super) fn of(&self, service: &str) -> &ServiceNames {
        // Every service of the project has been given its names.
        &self.services[service]
    }

    /// Decides which service each further name leads to.
    fn aliases(&mut self, project: &Project, found: &mut Findings) {
        let mut by_name: BTreeMap<String, Vec<Alias>> = BTreeMap::new();
        for service in project.services.values() {
            for alias in wanted(project, service) {
                by_name.entry(alias.name.clone()).or_default().push(alias);
            }
        }
        let own: BTreeMap<String, String> = self
            .services
            .iter()
            .flat_map(|(k, n)| [(k.clone(), k.clone()), (n.object.clone(), k.clone())])
            .collect();
        for (name, mut claims) in by_name {
            if claims.iter().any(|c| !c.weak) {
                claims.retain(|c| !c.weak);
            }
            let owners: BTreeSet<&str> = claims.iter().map(|c| c.service).collect();
            if let Some(holder) = own.get(&name) {
                // A service's own name is its own.
                if let Some(other) = claims.iter().find(|c| c.service != holder && !c.weak) {
                    refuse(found, other, holder, &project.services[holder].at);
                } else if self.services[holder.as_str()].object != name
                    && project.services.contains_key(&name)
                {
                    self.add(holder, &name);
                }
                continue;
            }
            match owners.len() {
                1 => self.add(claims[0].service, &name),
                _ if claims.iter().all(|c| c.weak) => {}
                _ if claims.iter().all(|c| c.network.is_some() && c.network == claims[0].network)
                    && is_service_name(&name) =>
                {
                    for owner in &owners {
                        self.services[*owner].shared.push(name.clone());
                    }
                    self.shared.insert(name, owners.iter().map(ToString::to_string).collect());
                }
                _ => self.contested(&name, &claims, found),
            }
        }
    }

    /// A name that several services have. Who has it in all networks, as a container's name is, keeps it; a name that
    /// means one service in one network and another in the next means neither here.
    fn contested(&mut self, name: &str, claims: &[Alias], found: &mut Findings) {
        let everywhere: BTreeSet<&str> =
            claims.iter().filter(|c| c.network.is_none()).map(|c| c.service).collect();
        let holder = claims.iter().find(|c| c.network.is_none());
        if let Some(holder) = holder
            && (everywhere.len() == 1 || claims.iter().any(|c| c.link))
        {
            self.add(holder.service, name);
            for other in claims.iter().filter(|c| c.service != holder.service) {
                refuse(found, other, holder.service, holder.at);
            }
            return;
        }
        let mut told = BTreeSet::new();
        for claim in claims.iter().filter(|c| told.insert(c.service)) {
            let others: BTreeSet<&str> =
                claims.iter().map(|c| c.service).filter(|s| *s != claim.service).collect();
            let others: Vec<&str> = others.into_iter().collect();
            let sentence = format!(
                "{name} does not resolve: it is an alias of {} and, in other networks, of {}, but names apply to the whole project here",
                claim.service,
                others.join(" and ")
            );
            found.warn(claim.at, sentence);
        }
    }

    fn add(&mut self, service: &str, alias: &str) {
        let names = &mut self.services[service];
        if names.object != alias && !names.aliases.iter().any(|a| a == alias) {
            names.aliases.push(alias.into());
        }
    }

    /// Names of containers as docker compose makes them, which answer where nothing else has such a name: for each
    /// replica of a service one, `PROJECT-SERVICE-1`, and version 1 wrote `PROJECT_SERVICE_1`. Any of them leads to all.
    fn containers(&mut self, project: &Project) {
        let taken: BTreeSet<String> = self
            .services
            .iter()
            .flat_map(|(key, n)| n.aliases.iter().chain(&n.shared).chain([key, &n.object]))
            .cloned()
            .collect();
        let separator = if project.version_1 { '_' } else { '-' };
        for service in project.services.values() {
            let number = 1..=service.replicas().min(MAX_CONTAINER_NAMES);
            let names = number.map(|n| format!("{}{separator}{}{separator}{n}", project.name, service.name));
            let free = names.filter(|name| !taken.contains(name)).collect();
            self.services[service.name.as_str()].containers = free;
        }
    }

    /// Keeps the names of what is published apart from names of services: `web-public` may be one.
    fn publish_names(&mut self) {
        let taken: BTreeSet<String> = self
            .services
            .values()
            .flat_map(|n| n.aliases.iter().chain([&n.object]))
            .chain(self.shared.keys())
            .cloned()
            .collect();
        for names in self.services.values_mut() {
            let free = |base: &str| {
                ["public", "local", "ports"].iter().all(|s| !taken.contains(&format!("{base}-{s}")))
            };
            if !free(&names.object) {
                let bases = (2..).map(|n| format!("{}-{n}", names.object));
                // There are fewer names taken than numbers.
                names.publish_as = bases.take(taken.len() + 1).find(|base| free(base));
            }
        }
    }
}

/// The value of the label `app.kubernetes.io/component`: the service as it is written, where a label can be that.
pub(super) fn component(service: &str) -> String {
    if !service.is_empty() && names::label_value(service).is_ok() {
        service.into()
    } else {
        sanitised(service, 63)
    }
}

/// The label of Pods that answer to a name together with others'.
pub(super) fn alias_label(alias: &str) -> String {
    format!("alias.yado.dev/{alias}")
}

fn namespace(project: &Project, found: &mut Findings) -> String {
    let at = project.files.first().map_or(&project.directory, |f| f);
    let name = namespace_of(&project.name);
    if name != project.name {
        let sentence =
            format!("project {} is called {name}, as namespaces and host names have to be", project.name);
        found.warn(&Position::of_file(at), sentence);
    }
    name
}

/// The Namespace of the project called `project`.
pub(super) fn namespace_of(project: &str) -> String {
    let mut name = project.replace(['_', '.'], "-").to_ascii_lowercase();
    name = name.trim_matches('-').to_string();
    if RESERVED.contains(&name.as_str()) {
        name = format!("{name}-app");
    }
    // The first part of host names, too.
    if names::dns_label(&name).is_err() {
        name = match sanitised(project, 63) {
            none if none.is_empty() => "compose".into(),
            name => name,
        };
    }
    name
}

/// The object name of each service; two that come out alike are told apart by a sum.
fn objects(project: &Project) -> IndexMap<String, ServiceNames> {
    let mut taken: BTreeSet<String> =
        project.services.keys().filter(|name| sanitised(name, SERVICE_ROOM) == **name).cloned().collect();
    let mut all = IndexMap::new();
    for name in project.services.keys() {
        let mut object = sanitised(name, SERVICE_ROOM);
        if object.is_empty() {
            object = "service".into();
        }
        if object != *name && !taken.insert(object.clone()) {
            // A longer text than there is room for ends in a sum of the whole.
            object = sanitised(&format!("{object}-{}", name.escape_unicode()), SERVICE_ROOM);
            taken.insert(object.clone());
        }
        let mut names = ServiceNames { object, ..ServiceNames::default() };
        if names.object != *name {
            names.aliases.push(name.clone());
        }
        all.insert(name.clone(), names);
    }
    all
}

/// All names by which `service` is to be found, and those that it gives others.
fn wanted<'a>(project: &'a Project, service: &'a Service) -> Vec<Alias<'a>> {
    let name = service.name.as_str();
    let mut all = Vec::new();
    let alias = |alias: &str, at, network, weak| Alias {
        name: alias.to_string(),
        service: name,
        at,
        network,
        weak,
        link: false,
    };
    if let Some(container) = &service.container_name {
        all.push(alias(container, service.place("container_name"), None, false));
    }
    for (network, attachment) in &service.networks {
        let places = attachment.aliases.iter();
        all.extend(places.map(|a| alias(a, &attachment.at, Some(network.as_str()), false)));
    }
    // Docker answers to it, but whoever writes it seldom means that.
    if let Some(host) = &service.hostname {
        let first = super::container::host_name(host.split('.').next().unwrap_or(host));
        for name in [host.as_str(), &first].into_iter().filter(|n| !n.is_empty()) {
            all.push(alias(name, service.place("hostname"), None, true));
        }
    }
    for link in &service.links {
        if let Some((target, _)) = project.services.get_key_value(&link.target) {
            let (name, at) = (link.alias.clone(), &link.at);
            all.push(Alias { name, service: target, at, network: None, weak: false, link: true });
        }
    }
    for link in &service.external_links {
        if let Some(target) = own_container(project, &link.target) {
            let (name, at) = (link.alias.clone(), &link.at);
            all.push(Alias { name, service: target, at, network: None, weak: false, link: false });
        }
    }
    all
}

/// The service of this project whose container is called `name`, given or as docker compose calls it: `shop-db-1`.
fn own_container<'a>(project: &'a Project, name: &str) -> Option<&'a str> {
    let called = |service: &&Service| {
        service.container_name.as_deref() == Some(name)
            || numbered(name).is_some_and(|start| {
                ['-', '_'].iter().any(|c| start == format!("{}{c}{}", project.name, service.name))
            })
    };
    project.services.values().find(called).map(|s| s.name.as_str())
}

/// A container's name without the number that docker compose puts at its end.
fn numbered(name: &str) -> Option<&str> {
    let (start, number) = name.rsplit_once(['-', '_'])?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(start)
}

/// Whose container an external link means.
pub(super) enum Linked {
    /// A service of this project, which has the link's name already.
    Own,
    /// A service of another project: where its Service is.
    Other { service: String, project: String },
    /// Nothing shows which project it is of.
    Unknown,
}

/// Finds the container called `name`. Docker compose calls them `PROJECT-SERVICE-1`, version 1 `PROJECT_SERVICE_1`.
pub(super) fn linked(project: &Project, name: &str) -> Linked {
    if own_container(project, name).is_some() {
        return Linked::Own;
    }
    let mut words = numbered(name).unwrap_or_default().split(['-', '_']);
    match (words.next(), words.next(), words.next()) {
        (Some(project), Some(service), None) => {
            Linked::Other { service: sanitised(service, SERVICE_ROOM), project: namespace_of(project) }
        }
        _ => Linked::Unknown,
    }
}

fn refuse(found: &mut Findings, alias: &Alias, holder: &str, at: &Position) {
    let Alias { name, service, .. } = alias;
    let sentence = format!(
        "{name} cannot be both {service} and {holder} (at {at}): names apply to the whole project, so choose another for one"
    );
    if alias.link {
        found.error(alias.at, sentence);
    } else {
        let sentence = format!("{service} does not get the name {name}, which belongs to {holder} (at {at})");
        found.warn(alias.at, sentence);
    }
}

//! Compiles a compose project to objects.
//!
//! | of the project | becomes |
//! |---|---|
//! | the project | a Namespace of its name, in which everything else is |
//! | a service | a Deployment, DaemonSet or Job, and a Service of its name: see [`crate::workload`] |
//! | a service with `network_mode: service:x` | one more container in the Pod of x |
//! | a named volume | a PersistentVolumeClaim |
//! | a config, a secret | a ConfigMap, a Secret |
//! | networks that keep services apart | a NetworkPolicy for each |
//! | a network that other projects share | a Namespace of its name with a Service for each of its members |
//!
//! Names that are not DNS labels are kept as aliases, which Yado's name server answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Value, json};
use yado_types::{labels, pod::Restart};

use super::model::{Condition, NetworkMode, Project, Service};
use crate::{
    Compiled, Diagnostics, Object, Options,
    diagnostic::Findings,
    workload::{Workload, WorkloadKind, pod::PodFragment},
};
use names::Names;

mod build;
mod container;
mod deploy;
mod dockerfile;
mod files;
mod front;
mod health;
mod names;
mod networks;
mod ports;
mod remarks;
mod volumes;

/// Compiles a project.
///
/// # Errors
///
/// All settings for which no valid object exists, each with its position.
pub fn lower(project: &Project, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut found = Findings { warnings: project.warnings.clone(), ..Findings::default() };
    let names = Names::new(project, &mut found);
    let joins = joins(project, &mut found);
    let mut members: BTreeMap<String, Vec<&Service>> = BTreeMap::new();
    for service in project.services.values() {
        if let Some(host) = joins.get(&service.name) {
            members.entry(host.clone()).or_default().push(service);
        }
    }
    let mut lowering = Lowering {
        project,
        options,
        front: front::front(project, &joins).map(|s| s.name.clone()),
        fixed: networks::fixed(project),
        excluded: build::secret_files(project),
        members,
        volumes: volumes::Volumes::new(project, &names, &mut found),
        ports: ports::inside(project),
        joins,
        names,
        found,
        compiled: Compiled::default(),
    };
    lowering.run();
    let Lowering { names, found, mut compiled, .. } = lowering;
    compiled.app = names.app;
    compiled.app_type = "compose".into();
    compiled.directory = project.directory.clone();
    compiled.namespace = Some(names.namespace);
    compiled.warnings = found.finish()?;
    Ok(compiled)
}

/// The group of Namespaces in the output: the first file by name, since `kubectl apply -f DIR` goes by names.
const NAMESPACES_GROUP: &str = "00-namespaces";

struct Lowering<'a> {
    project: &'a Project,
    options: &'a Options,
    names: Names,
    volumes: volumes::Volumes,
    /// Ports of each service.
    ports: IndexMap<String, ports::ServicePorts>,
    /// Services that share the Pod of another service, and that service.
    joins: BTreeMap<String, String>,
    /// Services that share the Pod of another, by that service, in the order written.
    members: BTreeMap<String, Vec<&'a Service>>,
    /// Files that may hold secrets, which are excluded from images.
    excluded: Arc<[PathBuf]>,
    /// The service whose web page a user would open first.
    front: Option<String>,
    /// Requested fixed addresses, which are not assigned, and the services that request them.
    fixed: BTreeMap<&'a str, &'a str>,
    found: Findings,
    compiled: Compiled,
}

impl<'a> Lowering<'a> {
    fn run(&mut self) {
        let project = self.project;
        let mut namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.names.namespace, "labels": self.labels()},
        });
        if project.name != self.names.namespace {
            namespace["metadata"]["annotations"] = json!({labels::COMPOSE_PROJECT: project.name});
        }
        self.push(NAMESPACES_GROUP, namespace);
        self.files();
        for claim in self.volumes.claims(self.labels(), &self.names.namespace) {
            self.push(&self.names.app.clone(), claim);
        }
        for name in self.order() {
            if !self.joins.contains_key(&name) {
                self.service(&project.services[&name]);
            }
        }
        self.networks();
        self.fixed_addresses();
        self.external_links();
        self.published();
    }

    /// Services in start order: dependencies first, otherwise as written.
    fn order(&self) -> Vec<String> {
        fn visit(project: &Project, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
            let Some(service) = project.services.get(name) else { return };
            if seen.insert(name.into()) {
                service.depends_on.keys().for_each(|d| visit(project, d, seen, order));
                order.push(name.into());
            }
        }
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        self.project.services.keys().for_each(|name| visit(self.project, name, &mut seen, &mut order));
        order
    }

    /// Compiles a service together with those that share its Pod.
    fn service(&mut self, service: &Service) {
        let members: Vec<&Service> = self.members.get(&service.name).cloned().unwrap_or_default();
        let mut part = PodFragment::default();
        self.container(service, &mut part);
        let mut shared = service.init == Some(true);
        for member in &members {
            let mut other = PodFragment::default();
            self.container(member, &mut other);
            shared |= member.pid.as_deref().is_some_and(|p| p.contains(':')) || member.init == Some(true);
            part.join(other);
        }
        // In a shared PID namespace the first process of the Pod reaps orphans, so no init is needed.
        if shared && part.pod.host_pid != Some(true) {
            part.pod.share_process_namespace = Some(true);
        }
        for namespace in self.searches(service) {
            part.dns().searches.get_or_insert_default().push(namespace);
        }
        let kind = self.kind(service);
        if matches!(kind, WorkloadKind::Job { .. }) {
            // A Job defines its retries itself.
            part.restart(Restart::Always);
        }
        let own = self.names.of(&service.name).clone();
        let inside = self.ports[&service.name].clone();
        let mut workload = Workload {
            app: self.names.app.clone(),
            component: names::component(&service.name),
            part_of: self.names.app.clone(),
            name: own.object.clone(),
            publish_as: own.publish_as.clone(),
            namespace: Some(self.names.namespace.clone()),
            update: self.update(service, &part, &kind),
            kind,
            service: Some(own.object.clone()),
            headless: remarks::is_dnsrr(service),
            aliases: own.aliases.clone(),
            dns_aliases: own.containers.clone(),
            replicas: i32::try_from(service.replicas()).unwrap_or(i32::MAX),
            ready: ports::ready(service, &inside),
            ports: inside.ports,
            published: self.publish(service),
            hosts: Vec::new(),
            web_port: None,
            depends_on: self.depends_on(service, &members),
            claims: Vec::new(),
            labels: self.network_labels(service),
            annotations: deploy::annotations(service),
            pod_annotations: part.annotations(),
            pod: part.pod,
            container: part.container,
        };
        for alias in &own.shared {
            workload.labels.insert(names::alias_label(alias), "true".into());
        }
        self.web(service, &mut workload);
        self.build(service);
        members.iter().for_each(|m| self.build(m));
        for value in workload.objects() {
            self.push(&self.names.of(&service.name).object.clone(), value);
        }
    }

    /// Conditions that have to be met before the Pod is scheduled.
    fn depends_on(&mut self, service: &Service, members: &[&Service]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for member in std::iter::once(service).chain(members.iter().copied()) {
            for (target, dependency) in &member.depends_on {
                let host = self.joins.get(target).unwrap_or(target);
                let Some(needed) = self.project.services.get(host) else { continue };
                // A service in the same Pod starts with it, and a service scaled to 0 never starts.
                if *host == service.name || needed.replicas() == 0 {
                    continue;
                }
                if member.name != service.name && self.needs(host, &service.name) {
                    let sentence = format!(
                        "{} shares the Pod of {}, for which {host} waits: it does not wait for {host}",
                        member.name, service.name
                    );
                    self.found.warn(&dependency.at, sentence);
                    continue;
                }
                if dependency.restart && dependency.implied_by.is_none() {
                    let sentence =
                        format!("restart has no effect: {} goes on when {target} is replaced", member.name);
                    self.found.warn(&dependency.at, sentence);
                }
                let condition = match dependency.condition {
                    Condition::Started => labels::DEPENDS_ON_STARTED,
                    Condition::Healthy => labels::DEPENDS_ON_HEALTHY,
                    Condition::Completed => labels::DEPENDS_ON_COMPLETED,
                };
                all.insert(names::component(host), condition.to_string());
            }
        }
        all
    }

    /// Whether `service` depends on `other`, directly or transitively.
    fn needs(&self, service: &str, other: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![service];
        while let Some(name) = open.pop() {
            if name == other {
                return true;
            }
            if seen.insert(name)
                && let Some(service) = self.project.services.get(name)
            {
                open.extend(service.depends_on.keys().map(String::as_str));
            }
        }
        false
    }

    fn labels(&self) -> Value {
        json!({
            labels::APP_NAME: self.names.app,
            labels::APP_PART_OF: self.names.app,
            labels::APP_MANAGED_BY: labels::MANAGED_BY_YADO,
        })
    }

    fn push(&mut self, group: &str, value: Value) {
        let source = self.project.files.first().cloned().unwrap_or_else(|| self.project.directory.clone());
        self.compiled.objects.push(Object { value, group: group.into(), source });
    }
}

/// Services that share the network, and therefore the Pod, of another service. Chains are followed to their end.
fn joins(project: &Project, found: &mut Findings) -> BTreeMap<String, String> {
    let mut next: BTreeMap<&str, &str> = BTreeMap::new();
    for service in project.services.values() {
        let wanted = match &service.network_mode {
            Some(NetworkMode::Service(name) | NetworkMode::Container(name)) => {
                Some((name.as_str(), "network_mode"))
            }
            _ => [(&service.pid, "pid"), (&service.ipc, "ipc")].into_iter().find_map(|(mode, field)| {
                let (kind, name) = mode.as_deref()?.split_once(':')?;
                ["service", "container"].contains(&kind).then_some((name, field))
            }),
        };
        let Some((wanted, field)) = wanted else { continue };
        let named = |s: &&Service| s.name == wanted || s.container_name.as_deref() == Some(wanted);
        match project.services.values().find(named) {
            Some(host) if host.name != service.name => drop(next.insert(&service.name, &host.name)),
            _ => found.warn(
                service.place(field),
                format!("{field} has no effect: no service of this project is called {wanted}"),
            ),
        }
    }
    let mut joins = BTreeMap::new();
    for name in next.keys() {
        let mut host = *name;
        // More steps than services mean a cycle.
        for _ in 0..=next.len() {
            host = next.get(host).unwrap_or(&host);
        }
        if next.contains_key(host) {
            let service = &project.services[*name];
            found.error(
                service.place("network_mode"),
                format!("{name} shares the network of {host}, which shares that of {name}: give one its own"),
            );
            continue;
        }
        joins.insert((*name).to_string(), host.to_string());
    }
    joins
}

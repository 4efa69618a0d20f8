//! Translates units to workloads.

mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::core::v1::{EnvVar, ExecAction, LifecycleHandler};
use serde_json::Value;
use yado_types::{labels, links};

use super::{
    Settings,
    container::{self, Outcome},
    host,
    name::UnitName,
    place::{self, Placement},
    plan::{DockerRun, MainCommand, Plan, PreStart, on_machine, plan},
    reach,
    text::Word,
    unit::{Command, ServiceType, Unit},
    volumes,
};
use crate::{
    diagnostic::Findings,
    docker_run::RunCommand,
    workload::{
        Port, UpdateStrategy, Workload, WorkloadKind, known_ports, name::sanitised, pod::PodFragment,
    },
};

/// A unit with its plan and its translated `docker run` lines.
pub struct PlannedUnit {
    pub unit: Unit,
    /// The name of its objects.
    pub object: String,
    /// The name under which it and the other units of its group are reached.
    pub group: String,
    pub main: MainProcess,
    pub plan: Plan,
    /// Data containers, which only hold volumes.
    pub data: Vec<RunCommand>,
    /// Containers that run in the background.
    pub beside: Vec<RunCommand>,
}

/// The main process of a unit.
pub enum MainProcess {
    /// No process.
    Nothing,
    Container(Box<RunCommand>),
    Program(Command),
}

/// The compiled form of a unit.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The unit.
    pub name: UnitName,
    /// The name of its Deployment, DaemonSet or Job, and the value of its Pods' label `app.kubernetes.io/component`.
    pub object: String,
    /// The value of its Pods' label [`labels::UNIT_GROUP`].
    pub group: String,
    /// Its own objects.
    pub objects: Vec<Value>,
    /// Services shared with the other units of its group.
    pub shared: Vec<Value>,
}

/// Plans a unit and translates its `docker run` lines.
pub fn read(unit: Unit, object: String, directory: &Path, found: &mut Findings) -> PlannedUnit {
    // The warnings about single lines do not apply if Docker on the machine runs all of them.
    let mut told = Findings::default();
    let mut plan = plan(&unit.service, &mut told);
    let main = match std::mem::take(&mut plan.main) {
        MainCommand::Nothing => MainProcess::Nothing,
        MainCommand::Program(command) => MainProcess::Program(command),
        MainCommand::Container(line) => {
            match container::read(&line, &unit.service, directory, "main", &mut told) {
                Outcome::Run(run) => MainProcess::Container(run),
                Outcome::Invalid => MainProcess::Nothing,
                Outcome::Machine => {
                    told.warnings.clear();
                    told.warn(&line.at, ON_THE_MACHINE);
                    plan = on_machine(&unit.service);
                    match std::mem::take(&mut plan.main) {
                        MainCommand::Program(command) => MainProcess::Program(command),
                        _ => MainProcess::Nothing,
                    }
                }
            }
        }
    };
    found.errors.append(&mut told.errors);
    found.warnings.append(&mut told.warnings);
    let mut containers = |lines: Vec<DockerRun>| -> Vec<RunCommand> {
        let read = |line: &DockerRun| match container::read(line, &unit.service, directory, "main", found) {
            Outcome::Run(run) => Some(*run),
            Outcome::Machine => {
                found.warn(&line.at, ON_THE_MACHINE);
                None
            }
            Outcome::Invalid => None,
        };
        lines.iter().filter_map(read).collect()
    };
    let data = containers(std::mem::take(&mut plan.data));
    let beside = containers(std::mem::take(&mut plan.beside));
    let group = match (&main, unit.name.template()) {
        (_, Some(template)) => template.object(),
        (MainProcess::Container(run), None) => {
            let name = run.name.as_ref().map(|n| sanitised(n, 40)).filter(|n| !n.is_empty());
            name.unwrap_or_else(|| object.clone())
        }
        _ => object.clone(),
    };
    PlannedUnit { unit, object, group, main, plan, data, beside }
}

const ON_THE_MACHINE: &str = "this depends on values known only on the machine, so it runs there unchanged, where Docker has to be installed";

impl PlannedUnit {
    /// Whether it has a main process.
    pub fn runs(&self) -> bool {
        !matches!(self.main, MainProcess::Nothing)
    }

    /// Names of the containers that it runs.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.runs_of().filter_map(|r| r.name.as_deref())
    }

    /// The container of the main process, if it is a container.
    pub fn container(&self) -> Option<&RunCommand> {
        if let MainProcess::Container(run) = &self.main { Some(run) } else { None }
    }

    /// All its containers.
    pub fn runs_of(&self) -> impl Iterator<Item = &RunCommand> {
        self.container().into_iter().chain(&self.data).chain(&self.beside)
    }

    /// Whether its container keeps running after the program has ended, so that its stop commands can run.
    fn stays(&self) -> bool {
        let service = &self.unit.service;
        let program = matches!(self.main, MainProcess::Program(_));
        let stops = !(self.plan.stop.is_empty() && self.plan.cleanup.is_empty());
        service.kind == ServiceType::Oneshot && service.remain_after_exit && program && stops
    }

    /// Number of failures of its Job that are retried.
    fn retries(&self) -> i32 {
        if self.unit.service.restart.as_deref() == Some("on-failure") { 6 } else { 0 }
    }

    fn is_once(&self) -> bool {
        if self.stays() {
            return false;
        }
        let service = &self.unit.service;
        let restart = service.restart.as_deref();
        service.kind == ServiceType::Oneshot && !matches!(restart, Some("always")) || restart == Some("no")
    }
}

/// All known units.
pub struct UnitSet<'a> {
    pub units: &'a [PlannedUnit],
    /// Templates, and units of other types.
    pub others: &'a [Unit],
    pub settings: &'a Settings,
}

impl UnitSet<'_> {
    /// Compiles one of the units.
    pub fn lower(&self, one: &PlannedUnit, found: &mut Findings) -> Lowered {
        self.lower_as(one, one.object.clone(), self.kind(one), found)
    }

    /// Compiles one of the units as a workload of this name and kind.
    fn lower_as(&self, one: &PlannedUnit, name: String, kind: WorkloadKind, found: &mut Findings) -> Lowered {
        let mut claims = Vec::new();
        let mut part = match &one.main {
            MainProcess::Nothing => PodFragment::default(),
            MainProcess::Container(run) => run.part.clone(),
            MainProcess::Program(command) => {
                own_files(one, found);
                host::main(command, &one.unit.service, one.stays())
            }
        };
        for run in one.runs_of() {
            claims.extend(run.claims.iter().cloned());
        }
        claims.extend(volumes::shared(self.units, one, &mut part, found));
        claims.sort_by(|a, b| a.name.cmp(&b.name));
        claims.dedup_by(|a, b| a.name == b.name);
        pull_policy(one, &mut part);
        joined(one, found);
        self.linked(one, &mut part, found);
        self.before(one, &mut part, found);
        around(one, &mut part, found);
        part.pod.affinity = self.affinity(one, found);
        part.pod.termination_grace_period_seconds =
            one.plan.stop_timeout.or(part.pod.termination_grace_period_seconds);
        if let Some(signal) = &one.unit.service.kill_signal {
            // Docker's client forwards the signal to the container.
            if part.stop_signal(signal).is_some() {
                found.warn(
                    &one.unit.at,
                    format!("KillSignal={signal} is not a valid signal and has no effect"),
                );
            }
        }
        let workload = Workload { name, kind, ..self.workload(one, part, claims, found) };
        let mut objects: Vec<Value> = Vec::new();
        for (i, run) in one.beside.iter().enumerate() {
            objects.extend(self.beside(one, run, i).objects());
        }
        let shared = reach::shared(&workload, one, self, found);
        objects.extend(workload.objects());
        Lowered {
            name: one.unit.name.clone(),
            object: one.object.clone(),
            group: one.group.clone(),
            objects,
            shared,
        }
    }

    fn workload(
        &self,
        one: &PlannedUnit,
        part: PodFragment,
        claims: Vec<crate::workload::VolumeClaim>,
        found: &mut Findings,
    ) -> Workload {
        let Settings { app, .. } = self.settings;
        let mut ports = Vec::new();
        if let MainProcess::Container(run) = &one.main {
            ports = listened(run);
        }
        let on_host = part.pod.host_network == Some(true);
        let unit = BTreeMap::from([(labels::UNIT.to_string(), one.unit.name.full().to_string())]);
        let mut pod_annotations = part.annotations();
        pod_annotations.extend(unit.clone());
        let mut labels = BTreeMap::from([(labels::UNIT_GROUP.to_string(), one.group.clone())]);
        if !on_host {
            labels.extend(reach::labels_of(one));
        }
        // A unit that is started by a timer or path has no Pods until then.
        let started_by = self.started_by(one);
        let waits = started_by.is_some_and(|u| ["timer", "path"].contains(&u.name.kind()));
        Workload {
            app: app.clone(),
            component: one.object.clone(),
            part_of: app.clone(),
            name: one.object.clone(),
            // A unit may own a container name, ports or files of its machine, so two instances never run at the same time.
            update: UpdateStrategy::Recreate,
            service: (!on_host && one.runs()).then(|| one.object.clone()),
            aliases: self.aliases(one),
            replicas: if waits { 0 } else { 1 },
            depends_on: self.depends_on(one, found),
            ready: if on_host {
                crate::workload::Readiness::Started
            } else {
                crate::workload::Readiness::Listening
            },
            pod: part.pod,
            container: part.container,
            published: if on_host { Vec::new() } else { reach::anywhere(one, &ports) },
            ports: if on_host { Vec::new() } else { ports },
            claims,
            labels,
            annotations: unit,
            pod_annotations,
            ..Workload::default()
        }
    }

    /// The kind of what runs a unit.
    fn kind(&self, one: &PlannedUnit) -> WorkloadKind {
        if one.unit.fleet.global {
            WorkloadKind::DaemonSet
        } else if one.is_once() && self.started_by(one).is_none() {
            WorkloadKind::Job { retries: one.retries(), parallelism: None }
        } else {
            WorkloadKind::Deployment
        }
    }

    /// The workload of a container that runs in the background.
    fn beside(&self, one: &PlannedUnit, run: &RunCommand, number: usize) -> Workload {
        let name = run.name.as_ref().map(|n| sanitised(n, 40)).filter(|n| !n.is_empty());
        let name = name.unwrap_or_else(|| format!("{}-{}", one.object, number + 1));
        Workload {
            app: self.settings.app.clone(),
            component: name.clone(),
            part_of: self.settings.app.clone(),
            name: name.clone(),
            update: UpdateStrategy::Recreate,
            service: Some(name),
            replicas: 1,
            ports: run.ports.clone(),
            published: run.published.clone(),
            pod_annotations: run.part.annotations(),
            pod: run.part.pod.clone(),
            container: run.part.container.clone(),
            claims: run.claims.clone(),
            ..Workload::default()
        }
    }

    /// Adds the variables of `--link`, which the container's own variables replace.
    fn linked(&self, one: &PlannedUnit, part: &mut PodFragment, found: &mut Findings) {
        let MainProcess::Container(run) = &one.main else { return };
        let own = run.name.as_deref().unwrap_or(&one.object);
        let mut variables = Vec::new();
        for (container, alias) in &run.links {
            let target =
                self.units.iter().flat_map(PlannedUnit::runs_of).find(|r| r.name.as_ref() == Some(container));
            let Some(target) = target else {
                let sentence =
                    format!("no unit here runs a container {container}, so nothing answers as {alias}");
                found.warn(&one.unit.at, sentence);
                continue;
            };
            let ports = listened(target);
            // Node values of the other container are not known.
            let env = target.env.iter().filter(|(_, v)| !v.contains(super::text::OPEN));
            let env = env.map(|(k, v)| (k.as_str(), v.as_str()));
            if ports.is_empty() {
                part.link(alias, &target.image);
            }
            let ports = ports.iter().map(|p| (p.container, p.protocol.as_str()));
            variables.extend(links::variables(own, alias, ports, env));
        }
        let env = part.container.env.get_or_insert_default();
        variables.retain(|(name, _)| env.iter().all(|e| e.name != *name));
        env.extend(variables.into_iter().map(|(name, value)| EnvVar {
            name,
            value: Some(super::text::literal(&value)),
            value_from: None,
        }));
        part.container.env = part.container.env.take().filter(|e| !e.is_empty());
    }

    /// Adds the init containers.
    fn before(&self, one: &PlannedUnit, part: &mut PodFragment, found: &mut Findings) {
        let service = &one.unit.service;
        for (i, step) in one.plan.before.iter().enumerate() {
            let number = i + 1;
            let more = match step {
                PreStart::Program(command) if is_made_anyway(command, part) => continue,
                PreStart::Program(command) => host::before(command, service, number),
                PreStart::Container(line) => {
                    let name = format!("pre-{number}");
                    match container::read(line, service, &self.settings.directory, &name, found) {
                        Outcome::Run(run) => run.part,
                        Outcome::Invalid => continue,
                        Outcome::Machine => {
                            found.warn(&line.at, ON_THE_MACHINE);
                            continue;
                        }
                    }
                }
            };
            select_host(part, &more);
            part.join(more);
            if let Some(container) = part.pod.containers.pop() {
                part.pod.init_containers.get_or_insert_default().push(container);
            }
        }
    }

    /// Components of units that have to be started first.
    fn depends_on(&self, one: &PlannedUnit, found: &mut Findings) -> BTreeMap<String, String> {
        let mut wanted: BTreeSet<&str> = one.unit.after.iter().map(String::as_str).collect();
        let linked = one.runs_of().flat_map(|r| &r.links).map(|(container, _)| container.as_str());
        let linked: BTreeSet<&str> = linked.collect();
        let mut depends_on = BTreeMap::new();
        // A unit that waits for its time keeps no other waiting.
        let others = self.units.iter().filter(|o| o.object != one.object && o.runs());
        for other in others.filter(|o| !self.is_timed(o)) {
            let by_link = other.containers().any(|c| linked.contains(c));
            if !wanted.remove(other.unit.name.full()) && !by_link {
                continue;
            }
            let started = self.settings.started.as_ref();
            if started.is_some_and(|s| !s.contains(other.unit.name.full())) {
                continue;
            }
            if self.comes_after(other, one) {
                let sentence = format!(
                    "this unit and {} are ordered after each other, so neither waits",
                    other.unit.name
                );
                found.warn(&one.unit.at, sentence);
                continue;
            }
            let state =
                if other.is_once() { labels::DEPENDS_ON_COMPLETED } else { labels::DEPENDS_ON_STARTED };
            depends_on.insert(other.object.clone(), state.into());
        }
        depends_on
    }

    /// Whether `one` is ordered after `other`, directly or transitively.
    fn comes_after(&self, one: &PlannedUnit, other: &PlannedUnit) -> bool {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![one];
        while let Some(unit) = open.pop() {
            if unit.object == other.object {
                return true;
            }
            if seen.insert(&unit.object) {
                open.extend(
                    self.units.iter().filter(|u| unit.unit.after.iter().any(|a| a == u.unit.name.full())),
                );
            }
        }
        false
    }

    /// Aliases: names under which other units link to its containers, and those of `--network-alias`.
    fn aliases(&self, one: &PlannedUnit) -> Vec<String> {
        let MainProcess::Container(run) = &one.main else { return Vec::new() };
        let mut aliases: BTreeSet<String> = run.aliases.iter().cloned().collect();
        for other in self.units {
            for (container, alias) in other.runs_of().flat_map(|r| &r.links) {
                if run.name.as_ref() == Some(container) {
                    aliases.insert(alias.clone());
                }
            }
        }
        // The name of the group has its own Service.
        let taken = |a: &String| {
            *a == one.group
                || self.units.iter().any(|u| u.object == *a || (u.group == *a && u.object != one.object))
        };
        aliases.retain(|a| !taken(a));
        aliases.into_iter().collect()
    }

    fn affinity(
        &self,
        one: &PlannedUnit,
        found: &mut Findings,
    ) -> Option<k8s_openapi::api::core::v1::Affinity> {
        let fleet = &one.unit.fleet;
        let mut with = Vec::new();
        for (peer, at) in &fleet.machine_of {
            let known = self.units.iter().find(|u| u.unit.name == *peer);
            if known.is_none() && !self.others.iter().any(|u| u.name == *peer) {
                let sentence = format!("MachineOf={peer} names no known unit: until it runs, this one waits");
                found.warn(at, sentence);
            }
            // A timer or socket runs no Pod whose node could be shared.
            if known.is_some() || peer.kind() == "service" {
                with.push(known.map_or_else(|| peer.object(), |u| u.object.clone()));
            }
        }
        let against = |a: &Unit, b: &UnitName| {
            let conflict = a.fleet.conflicts.iter().any(|(p, _)| super::name::glob(p, b.full()) == Ok(true));
            conflict || a.fleet.replaces.iter().any(|(name, _)| name == b)
        };
        let apart: BTreeSet<String> = self
            .units
            .iter()
            .filter(|o| o.object != one.object && o.runs())
            .filter(|o| against(&one.unit, &o.unit.name) || against(&o.unit, &one.unit.name))
            .map(|o| o.object.clone())
            .collect();
        let machine = fleet.machine_id.as_ref().and_then(|(id, _)| self.settings.machines.get(id));
        let placement = Placement {
            app: &self.settings.app,
            node: machine.map(String::as_str),
            preferred: self.settings.preferred.get(one.unit.name.full()).map(String::as_str),
            with,
            apart: apart.into_iter().collect(),
        };
        place::affinity(fleet, &placement)
    }
}

/// Warns about environment files in directories that a program of the machine does not share with the machine.
fn own_files(one: &PlannedUnit, found: &mut Findings) {
    for file in &one.unit.service.files {
        if ["/run/", "/var/run/", "/tmp/"].iter().any(|own| file.path.starts_with(own)) {
            let sentence = format!(
                "EnvironmentFile={} is not visible to the program, which has its own /run and /tmp: put the file below /etc",
                file.path
            );
            found.warn(&one.unit.at, sentence);
        }
    }
}

/// Warns about containers whose network the unit asks to share.
fn joined(one: &PlannedUnit, found: &mut Findings) {
    for container in one.runs_of().flat_map(|run| &run.joins) {
        let sentence = format!(
            "the network of the container {container} is its own Pod's here: what both reach at localhost is at {container} and {}",
            one.group
        );
        found.warn(&one.unit.at, sentence);
    }
}

/// Ports on which a container listens, according to its flags or the name of its image.
pub(super) fn listened(run: &RunCommand) -> Vec<Port> {
    if !run.ports.is_empty() {
        return run.ports.clone();
    }
    known_ports::of_image(&run.image).iter().map(|p| Port::new(*p, *p, "TCP")).collect()
}

/// Images of a unit are pulled if missing; an image pulled by one of its lines is pulled at each start.
fn pull_policy(one: &PlannedUnit, part: &mut PodFragment) {
    let image = part.container.image.clone().unwrap_or_default();
    if image == labels::HOST_IMAGE || part.container.image_pull_policy.is_some() {
        return;
    }
    part.container.image_pull_policy = match one.plan.pulls.get(&image) {
        // As in Kubernetes, the tag `latest` is checked at each start and other tags are not.
        Some(true) => None,
        Some(false) => Some("Always".into()),
        None => Some("IfNotPresent".into()),
    };
}

/// Adds the commands that run after the start of the main process and when it stops.
fn around(one: &PlannedUnit, part: &mut PodFragment, found: &mut Findings) {
    let service = &one.unit.service;
    let stop: Vec<Command> = one.plan.stop.iter().chain(&one.plan.cleanup).cloned().collect();
    if !one.plan.inside.is_empty() {
        part.container.lifecycle.get_or_insert_default().post_start = Some(within(&one.plan.inside));
    }
    if !one.plan.inside_stop.is_empty() {
        part.container.lifecycle.get_or_insert_default().pre_stop = Some(within(&one.plan.inside_stop));
    }
    if matches!(one.main, MainProcess::Program(_)) {
        host::on_start(&mut part.container, &one.plan.after, service);
        host::on_stop(&mut part.container, &stop, service);
    } else if one.runs() && !(one.plan.after.is_empty() && stop.is_empty()) {
        let more = host::beside(&one.plan.after, &stop, service);
        select_host(part, &more);
        part.join(more);
    }
    if let Some(command) = one.plan.cleanup.first() {
        found.warn(&command.at, "ExecStopPost runs when the unit is stopped, just before its process ends");
    }
}

/// A hook that executes commands within the container.
fn within(commands: &[Vec<Word>]) -> LifecycleHandler {
    let command = match commands {
        [one] => one.iter().map(Word::lossy).collect(),
        several => {
            let line = |words: &Vec<Word>| words.iter().map(Word::shell).collect::<Vec<_>>().join(" ");
            let lines: Vec<String> = several.iter().map(line).collect();
            vec!["/bin/sh".into(), "-c".into(), lines.join("\n")]
        }
    };
    LifecycleHandler { exec: Some(ExecAction { command: Some(command) }), ..LifecycleHandler::default() }
}

/// Adds the node selector of containers that run programs of the machine.
fn select_host(part: &mut PodFragment, more: &PodFragment) {
    if let Some(selector) = &more.pod.node_selector {
        part.pod.node_selector.get_or_insert_default().extend(selector.clone());
    }
}

/// Whether a command is `mkdir -p` of a mounted directory, which is created anyway.
fn is_made_anyway(command: &Command, part: &PodFragment) -> bool {
    let words: Vec<String> = command.words.iter().map(Word::lossy).collect();
    let mkdir = words.first().is_some_and(|w| w.rsplit('/').next() == Some("mkdir"));
    let mounted = |path: &str| {
        let volumes = part.pod.volumes.iter().flatten().filter_map(|v| v.host_path.as_ref());
        volumes.into_iter().any(|h| Path::new(&h.path).starts_with(path.trim_end_matches('/')))
    };
    let mut paths = words.iter().skip(1).filter(|w| !w.starts_with('-')).peekable();
    mkdir && paths.peek().is_some() && paths.all(|p| mounted(p))
}

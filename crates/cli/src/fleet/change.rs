//! What changes the state of units: `submit`, `load`, `start`, `stop`, `unload`, `destroy`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
};
use serde_json::{Value, json};
use yado_compile::fleet::{self, Lowered, Settings, UnitFile, UnitName};

use super::{
    list::{current, states},
    registry::{APP, Desired, ObjectName, Registry, Unit},
    say, say_error,
    state::{self, Cluster},
};
use crate::{
    apply::{FIELD_MANAGER, Kinds},
    args::fleet::Blocking,
    connect::failed,
    ready::{self, Readiness},
};

/// How often to look whether something is done.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(150);
/// So many looks, some seconds, before it is said why a unit is on no machine yet.
const PATIENT_LOOKS: u32 = 20;
/// How long one of fleetctl's attempts was.
const ATTEMPT: Duration = Duration::from_secs(2);

/// A run of `yado fleet` that changes something.
pub struct Change {
    pub client: Client,
    pub namespace: String,
    pub registry: Registry,
}

/// What has been done to a unit's objects.
#[derive(Default)]
struct Applied {
    /// There was at least one to apply.
    any: bool,
    /// What they run is new, or other than before.
    replaced: bool,
}

impl Change {
    /// `submit`: brings the units that `args` name into the registry, from files, which replace what is there, or as
    /// instances of templates. The names, in order, and those that have been replaced while they run.
    pub async fn submit(&mut self, args: &[String]) -> anyhow::Result<(Vec<UnitName>, Vec<UnitName>)> {
        self.bring(args, |change, arg, name| match file_of(arg, name) {
            Some(file) => Ok(Some(read(name.clone(), &file)?)),
            None => change.registered(name),
        })
        .await
    }

    /// Brings the units that `args` name into the registry where it does not have them. A file counts only then: what
    /// was submitted is what is meant, and a file that differs from it is told of. With `--replace` files are submitted.
    async fn require(&mut self, blocking: &Blocking) -> anyhow::Result<(Vec<UnitName>, Vec<UnitName>)> {
        if blocking.replace {
            return self.submit(&blocking.units).await;
        }
        self.bring(&blocking.units, |change, arg, name| {
            let units = &change.registry.units;
            let known = units.get(name.full()).or_else(|| units.get(name.template()?.full()));
            let Some(file) = file_of(arg, name) else { return change.registered(name) };
            let Some(known) = known else { return Ok(Some(read(name.clone(), &file)?)) };
            if read(name.clone(), &file).is_ok_and(|local| local.text != known.text) {
                say_error(&format!(
                    "WARNING: Unit {} in registry differs from local unit file {}, which --replace puts in its place",
                    known.name,
                    file.display()
                ));
            }
            change.registered(name)
        })
        .await
    }

    async fn bring(
        &mut self,
        args: &[String],
        text_of: impl Fn(&Self, &str, &UnitName) -> anyhow::Result<Option<UnitFile>>,
    ) -> anyhow::Result<(Vec<UnitName>, Vec<UnitName>)> {
        let (mut names, mut fresh) = (Vec::new(), Vec::new());
        for arg in args {
            let name = UnitName::new(arg).map_err(anyhow::Error::msg)?;
            if let Some(text) = text_of(self, arg, &name)? {
                fresh.push((name.clone(), text));
            }
            names.push(name);
        }
        self.check(&fresh)?;
        let mut replaced = Vec::new();
        for (name, text) in fresh {
            self.put(name, text, &mut replaced).await?;
        }
        Ok((names, replaced))
    }

    /// A unit without a file: nothing where the registry has it, else its template's text.
    fn registered(&self, name: &UnitName) -> anyhow::Result<Option<UnitFile>> {
        if self.registry.units.contains_key(name.full()) {
            return Ok(None);
        }
        let Some(template) = name.template() else {
            anyhow::bail!("unable to find Unit({name}) in Registry or on filesystem");
        };
        let Some(unit) = self.registry.units.get(template.full()) else {
            anyhow::bail!("unable to find template Unit({template}) in Registry or on filesystem");
        };
        Ok(Some(UnitFile { name: name.clone(), ..unit.file() }))
    }

    /// Refuses units with mistakes, and tells of what of them has no effect.
    fn check(&self, fresh: &[(UnitName, UnitFile)]) -> anyhow::Result<()> {
        let mut units: BTreeMap<String, UnitFile> =
            self.registry.units.iter().map(|(name, unit)| (name.clone(), unit.file())).collect();
        for (name, file) in fresh {
            units.insert(name.full().into(), file.clone());
        }
        let changed = |(name, file): &&(UnitName, UnitFile)| {
            self.registry.units.get(name.full()).is_none_or(|u| u.text != file.text)
        };
        let wanted = fresh.iter().filter(changed).map(|(name, _)| name.full().to_string()).collect();
        let units: Vec<UnitFile> = units.into_values().collect();
        let (_, warnings) = fleet::lower(
            &units,
            &wanted,
            &self.settings(&Cluster { machines: Vec::new(), pods: BTreeMap::new() }),
        )?;
        let mut told = BTreeSet::new();
        for warning in warnings.iter().map(ToString::to_string) {
            // Instances of one template have the same to be told.
            if told.insert(warning.clone()) {
                say_error(&format!("WARNING: {warning}"));
            }
        }
        Ok(())
    }

    async fn put(
        &mut self,
        name: UnitName,
        file: UnitFile,
        replaced: &mut Vec<UnitName>,
    ) -> anyhow::Result<()> {
        let Some(known) = self.registry.units.get(name.full()).cloned() else {
            self.registry.write(Unit::new(name.clone(), file.text)).await?;
            say(&format!("Unit {name} inactive"))?;
            return Ok(());
        };
        if known.text == file.text {
            return Ok(());
        }
        let mut all = vec![known.clone()];
        if name.is_template() {
            // Instances that were made of the template follow it.
            let of_it = self.registry.units.values().filter(|u| u.name.template().as_ref() == Some(&name));
            all.extend(of_it.filter(|u| u.text == known.text).cloned());
        }
        for unit in all {
            let changed = Unit { text: file.text.clone(), ..unit.clone() };
            if changed.hash() != unit.hash() {
                say_error(&format!("Replaced Unit {}: it differed from {}", unit.name, file.file.display()));
                if unit.desired == Desired::Launched {
                    replaced.push(unit.name.clone());
                }
            }
            self.registry.write(changed).await?;
        }
        Ok(())
    }

    pub(super) fn settings(&self, cluster: &Cluster) -> Settings {
        let launched = self.registry.units.values().filter(|u| u.desired == Desired::Launched);
        let preferred = self.registry.units.values().filter(|u| u.desired != Desired::Inactive);
        Settings {
            app: APP.into(),
            domain: "localhost".into(),
            directory: std::env::current_dir().unwrap_or_default(),
            machines: cluster.machines.iter().map(|m| (m.id.clone(), m.node.clone())).collect(),
            preferred: preferred
                .filter_map(|u| Some((u.name.full().to_string(), u.machine.clone()?)))
                .collect(),
            started: Some(launched.map(|u| u.name.full().to_string()).collect()),
        }
    }

    /// `load`.
    pub async fn load(&mut self, blocking: &Blocking) -> anyhow::Result<()> {
        let (names, _) = self.require(blocking).await?;
        let cluster = Cluster::read(&self.client, &self.namespace).await?;
        for name in names {
            let mut unit = self.known(&name)?;
            if name.is_template() || unit.desired == Desired::Loaded {
                continue;
            }
            if unit.desired == Desired::Launched {
                self.take_away(&mut unit).await?;
            }
            let global = unit.global();
            if !global {
                let machine = eligible(&unit, &cluster, &self.registry);
                anyhow::ensure!(
                    machine.is_some(),
                    "no machine in the cluster satisfies the requirements of unit {name}"
                );
                unit.machine = unit.machine.or(machine);
            }
            unit.desired = Desired::Loaded;
            let legend =
                cluster.machine(unit.machine.as_deref()).map(|m| m.legend(false)).unwrap_or_default();
            self.registry.write(unit).await?;
            match (global, blocking.no_block) {
                (true, _) => say(&format!("Triggered global unit {name} load"))?,
                (false, true) => say(&format!("Triggered unit {name} load"))?,
                (false, false) => say(&format!("Unit {name} loaded on {legend}"))?,
            }
        }
        Ok(())
    }

    /// `start`.
    pub async fn start(&mut self, blocking: &Blocking) -> anyhow::Result<()> {
        let (names, replaced) = self.require(blocking).await?;
        let mut wanted = Vec::new();
        for name in names {
            let mut unit = self.known(&name)?;
            anyhow::ensure!(
                !name.is_template(),
                "{name} is a template, which runs only as instances: start {}@1.{}",
                name.prefix(),
                name.kind()
            );
            if unit.desired != Desired::Launched || replaced.contains(&name) {
                unit.desired = Desired::Launched;
                self.registry.write(unit).await?;
                wanted.push(name);
            }
        }
        // The others that have been replaced while they run.
        let named = |r: &UnitName| blocking.units.iter().any(|u| UnitName::new(u).as_ref() == Ok(r));
        wanted.extend(replaced.iter().filter(|r| !named(r)).cloned());
        self.launch(&wanted, blocking).await
    }

    /// Makes the objects of units that are to run, and waits until they do.
    pub async fn launch(&mut self, names: &[UnitName], blocking: &Blocking) -> anyhow::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let cluster = Cluster::read(&self.client, &self.namespace).await?;
        let wanted: BTreeSet<String> = names.iter().map(|n| n.full().to_string()).collect();
        let launched = self.registry.units.values().filter(|u| u.desired == Desired::Launched);
        let all: BTreeSet<String> = launched.map(|u| u.name.full().to_string()).collect();
        let (lowered, _) = fleet::lower(&self.registry.files(), &all, &self.settings(&cluster))?;
        let mut waiting = Vec::new();
        for one in &lowered {
            let name = one.name.full().to_string();
            let Some(mut unit) = self.registry.units.get(&name).cloned() else { continue };
            if wanted.contains(&name) {
                let applied = self.apply(&mut unit, one, true).await?;
                self.registry.write(unit.clone()).await?;
                if unit.is_waiting() {
                    say(&format!("Unit {name} launched, and waits for its times"))?;
                } else if unit.global() {
                    say(&format!("Triggered global unit {name} start"))?;
                } else if blocking.no_block {
                    say(&format!("Triggered unit {name} start"))?;
                } else {
                    // What ran of the text before does not count as the unit's being launched.
                    let old = if applied.replaced { uids(&cluster, &unit) } else { BTreeSet::new() };
                    waiting.push((unit, old));
                }
            } else if self.apply(&mut unit, one, false).await?.any {
                // A name by which one of the new units knows it.
                self.registry.write(unit).await?;
            }
        }
        for name in names.iter().filter(|n| !lowered.iter().any(|l| l.name == **n)) {
            say(&format!("Unit {name} launched, and runs nothing itself"))?;
        }
        let cluster = Cluster::read(&self.client, &self.namespace).await?;
        for (unit, old) in waiting {
            self.wait_active(&unit, &old, &cluster, blocking).await?;
        }
        Ok(())
    }

    /// Applies a unit's objects, or only the names of it that are missing.
    async fn apply(&self, unit: &mut Unit, lowered: &Lowered, all: bool) -> anyhow::Result<Applied> {
        let mut kinds = Kinds::new(self.client.clone(), &self.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let (mut names, mut done) = (BTreeSet::new(), Applied::default());
        for object in lowered.shared.iter().chain(&lowered.objects) {
            let name = object_name(object);
            let lasting = name.kind == "PersistentVolumeClaim";
            if !all && (name.kind != "Service" || unit.objects.contains(&name)) {
                continue;
            }
            done.any = true;
            let api = kinds.api(object).await?;
            if name.kind == "Job" {
                // What a Job runs cannot be changed; one that has ended does not run again.
                self.delete(&mut kinds, &name, true).await?;
            }
            let before = api.get_opt(&name.name).await.ok().flatten();
            if lasting && before.is_some() {
                continue;
            }
            let applied = api.patch(&name.name, &params, &Patch::Apply(object)).await;
            let applied = applied.map_err(failed(format!(
                "{} {} of unit {} cannot be applied",
                name.kind, name.name, unit.name
            )))?;
            // Also where there was none: what is left of an earlier one is on its way out.
            done.replaced |= name.kind != "Service"
                && before.is_none_or(|b| b.data["spec"]["template"] != applied.data["spec"]["template"]);
            if !lasting {
                names.insert(name);
            }
        }
        if all {
            let old = std::mem::replace(&mut unit.objects, names.into_iter().collect());
            let kept = unit.objects.clone();
            for object in old.iter().filter(|o| !kept.contains(o) && !self.in_use(o, &unit.name)) {
                self.delete(&mut kinds, object, false).await?;
            }
        } else {
            unit.objects.extend(names);
        }
        Ok(done)
    }

    /// Whether another unit that runs has become this object, too.
    pub(super) fn in_use(&self, object: &ObjectName, but: &UnitName) -> bool {
        let others =
            self.registry.units.values().filter(|u| u.name != *but && u.desired == Desired::Launched);
        others.into_iter().any(|u| u.objects.contains(object))
    }

    pub(super) async fn delete(
        &self,
        kinds: &mut Kinds,
        object: &ObjectName,
        wait: bool,
    ) -> anyhow::Result<()> {
        let value =
            json!({"apiVersion": object.api_version, "kind": object.kind, "metadata": {"name": object.name}});
        let api = kinds.api(&value).await?;
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match api.delete(&object.name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => {
                return Err(failed(format!("{} {} cannot be deleted", object.kind, object.name))(error));
            }
        }
        while wait && api.get_opt(&object.name).await.ok().flatten().is_some() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until a unit runs, in another Pod than these `old` ones, telling where.
    async fn wait_active(
        &self,
        unit: &Unit,
        old: &BTreeSet<String>,
        cluster: &Cluster,
        blocking: &Blocking,
    ) -> anyhow::Result<()> {
        let name = &unit.name;
        let patience = (blocking.block_attempts > 0).then(|| ATTEMPT * blocking.block_attempts);
        let mut told = false;
        let mut looks = 0_u32;
        let wait = async {
            loop {
                looks = looks.saturating_add(1);
                let mut pods = state::pods(&self.client, &self.namespace).await?;
                for pods in pods.values_mut() {
                    pods.retain(|p| p.metadata.uid.as_ref().is_none_or(|uid| !old.contains(uid)));
                }
                let now = Cluster { machines: cluster.machines.clone(), pods };
                if let (Desired::Launched, Some(node)) = current(unit, &now)
                    && !told
                {
                    let on = now.machine(Some(&node)).map_or(node.clone(), |m| m.legend(false));
                    say(&format!("Unit {name} launched on {on}"))?;
                    told = true;
                }
                let pods = now.of(name.full());
                let reason = pods.iter().find_map(state::unscheduled).filter(|_| !told);
                if let Some(reason) = reason {
                    let host = pods.iter().any(state::runs_on_host);
                    if host && !cluster.machines.iter().any(|m| m.host) {
                        anyhow::bail!(
                            "unit {name} cannot run: it runs a program of the machine itself, which no machine in the cluster allows: `yado up --allow-host-image` does"
                        );
                    }
                    if looks == PATIENT_LOOKS {
                        say_error(&format!("Unit {name} waits: {reason}"));
                    }
                }
                let ended = pods
                    .iter()
                    .any(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded"));
                let state = states(unit, &now).into_iter().next();
                if told && (ended || state.as_ref().is_some_and(|s| s.active == "active")) {
                    return Ok(());
                }
                if told && state.is_some_and(|s| s.active == "failed") {
                    anyhow::bail!("unit {name} has failed: see `yado fleet status {name}`");
                }
                // One that has ended is started again, or has failed as a unit.
                for pod in pods.iter().filter(|pod| !yado_types::pod::is_ended(pod)) {
                    if let Readiness::Failed(cause) = ready::of_pod(pod) {
                        anyhow::bail!("unit {name} cannot run: {}", cause.sentence);
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        match patience {
            None => wait.await,
            Some(patience) => match tokio::time::timeout(patience, wait).await {
                Ok(done) => done,
                Err(_) => anyhow::bail!("timed out waiting for unit {name} to report active state"),
            },
        }
    }

    /// The units that `args` name; those that are not there are told of.
    pub fn found(&self, args: &[String]) -> anyhow::Result<Vec<UnitName>> {
        let mut names = Vec::new();
        for arg in args {
            if arg.contains(['*', '?', '[']) {
                let base = arg.rsplit('/').next().unwrap_or(arg);
                let units = self.registry.units.values().map(|u| &u.name);
                names.extend(units.filter(|n| fleet::glob(base, n.full()) == Ok(true)).cloned());
                continue;
            }
            let name = UnitName::new(arg).map_err(anyhow::Error::msg)?;
            if self.registry.units.contains_key(name.full()) {
                names.push(name);
            } else {
                say_error(&format!("Unit {name} not found in registry"));
            }
        }
        Ok(names)
    }

    pub(super) fn known(&self, name: &UnitName) -> anyhow::Result<Unit> {
        self.registry
            .units
            .get(name.full())
            .cloned()
            .ok_or_else(|| anyhow::anyhow!("unable to find unit {name}"))
    }

    /// `restart`.
    pub async fn restart(&mut self, blocking: &Blocking) -> anyhow::Result<()> {
        let mut restarted = Vec::new();
        for name in self.found(&blocking.units)? {
            let mut unit = self.known(&name)?;
            if unit.desired == Desired::Inactive {
                say_error(&format!("Unable to restart unit {name} in state inactive"));
                continue;
            }
            if unit.desired == Desired::Launched {
                self.take_away(&mut unit).await?;
            }
            unit.desired = Desired::Launched;
            self.registry.write(unit).await?;
            restarted.push(name);
        }
        self.launch(&restarted, blocking).await
    }
}

/// The file that `arg` stands for: of the unit itself, or of its template.
fn file_of(arg: &str, name: &UnitName) -> Option<PathBuf> {
    let path = Path::new(arg);
    let of_template = name.template().map(|template| path.with_file_name(template.full()));
    let candidates = [Some(path.into()), Some(path.with_file_name(name.full())), of_template];
    candidates.into_iter().flatten().find(|path| path.is_file())
}

/// The machine that a unit may be on, the one with the fewest units first.
fn eligible(unit: &Unit, cluster: &Cluster, registry: &Registry) -> Option<String> {
    let summary = fleet::summary(&unit.file()).ok()?;
    let beside = summary.machine_of.iter().find_map(|of| {
        let peer = registry.units.get(of)?;
        current(peer, cluster).1
    });
    let fits = |m: &&state::Machine| {
        m.ready
            && summary.machine_id.as_ref().is_none_or(|id| *id == m.id || *id == m.node)
            && summary.metadata.iter().all(|(k, v)| m.metadata.get(k).is_some_and(|own| v.contains(own)))
            && beside.as_ref().is_none_or(|node| *node == m.node)
    };
    let load =
        |m: &&state::Machine| registry.units.values().filter(|u| u.machine.as_ref() == Some(&m.node)).count();
    cluster.machines.iter().filter(fits).min_by_key(load).map(|m| m.node.clone())
}

/// The Pods of a unit.
fn uids(cluster: &Cluster, unit: &Unit) -> BTreeSet<String> {
    cluster.of(unit.name.full()).iter().filter_map(|p| p.metadata.uid.clone()).collect()
}

pub(super) fn object_name(object: &Value) -> ObjectName {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    ObjectName {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        name: text(&object["metadata"]["name"]),
    }
}

/// A unit of which a file has the text.
pub fn read(name: UnitName, file: &Path) -> anyhow::Result<UnitFile> {
    use anyhow::Context;
    /// What a ConfigMap holds at most is a MiB; no unit is larger than a hundredth of it.
    const MAX_BYTES: u64 = 512 * 1024;
    let context = || format!("failed getting Unit({name}) from file");
    let meta = std::fs::metadata(file).with_context(context)?;
    anyhow::ensure!(meta.is_file(), "{} is not a plain file", file.display());
    anyhow::ensure!(
        meta.len() <= MAX_BYTES,
        "{} is larger than 512 KiB, the limit for units",
        file.display()
    );
    let text = std::fs::read_to_string(file).with_context(context)?;
    Ok(UnitFile { name, file: file.into(), text })
}

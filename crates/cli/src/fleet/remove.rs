//! What takes units away: `stop`, `unload`, `destroy`. Objects that other units have become too stay, and are written
//! anew for those.

use std::collections::BTreeSet;

use kube::api::{Patch, PatchParams};
use yado_compile::fleet::{self, UnitName};

use super::{
    change::{Change, LOOK_AGAIN, object_name},
    registry::{Desired, ObjectName, Unit},
    say, say_error,
    state::{self, Cluster, node},
};
use crate::{
    apply::{FIELD_MANAGER, Kinds},
    args::fleet::Blocking,
    connect::failed,
};

impl Change {
    /// Deletes what a unit has become, and waits until its processes have ended. Returns the objects that stay because
    /// other units have become them too.
    pub(super) async fn take_away(&self, unit: &mut Unit) -> anyhow::Result<BTreeSet<ObjectName>> {
        let pods = state::pods(&self.client, &self.namespace).await?;
        if let Some(node) = pods.get(unit.name.full()).and_then(|p| p.iter().find_map(node)) {
            unit.machine = Some(node);
        }
        let mut kinds = Kinds::new(self.client.clone(), &self.namespace);
        let (mut stays, mut shared) = (false, BTreeSet::new());
        for object in std::mem::take(&mut unit.objects) {
            if self.in_use(&object, &unit.name) {
                stays |= !["Service", "Ingress"].contains(&object.kind.as_str());
                shared.insert(object);
            } else {
                self.delete(&mut kinds, &object, false).await?;
            }
        }
        // Also those that a controller has made just before its object went.
        while !stays && state::pods(&self.client, &self.namespace).await?.contains_key(unit.name.full()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(shared)
    }

    /// Applies objects anew that units which are gone had in common with others: from now on they say only what those
    /// ask for.
    async fn renew(&self, shared: &BTreeSet<ObjectName>) -> anyhow::Result<()> {
        if shared.is_empty() {
            return Ok(());
        }
        let cluster = Cluster::read(&self.client, &self.namespace).await?;
        let launched = self.registry.units.values().filter(|u| u.desired == Desired::Launched);
        let wanted: BTreeSet<String> = launched.map(|u| u.name.full().to_string()).collect();
        let (lowered, _) = fleet::lower(&self.registry.files(), &wanted, &self.settings(&cluster))?;
        let mut kinds = Kinds::new(self.client.clone(), &self.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let mut done = BTreeSet::new();
        for object in lowered.iter().flat_map(|one| &one.shared) {
            let name = object_name(object);
            if shared.contains(&name) && done.insert(name.clone()) {
                let applied =
                    kinds.api(object).await?.patch(&name.name, &params, &Patch::Apply(object)).await;
                applied.map_err(failed(format!("{} {} cannot be applied", name.kind, name.name)))?;
            }
        }
        Ok(())
    }

    /// `stop`.
    pub async fn stop(&mut self, blocking: &Blocking) -> anyhow::Result<bool> {
        let cluster = Cluster::read(&self.client, &self.namespace).await?;
        let mut stopped = Vec::new();
        for name in self.found(&blocking.units)? {
            let unit = self.known(&name)?;
            match unit.desired {
                Desired::Inactive => {
                    say_error(&format!("Unable to stop unit {name} in state inactive"));
                    return Ok(false);
                }
                Desired::Loaded => continue,
                Desired::Launched => stopped.push(name),
            }
        }
        self.and_bound(&mut stopped);
        let mut shared = BTreeSet::new();
        for name in &stopped {
            let mut unit = self.known(name)?;
            shared.append(&mut self.take_away(&mut unit).await?);
            unit.desired = Desired::Loaded;
            let global = unit.global();
            let on = cluster.machine(unit.machine.as_deref()).map(|m| format!(" on {}", m.legend(false)));
            self.registry.write(unit).await?;
            match (global, blocking.no_block) {
                (true, _) => say(&format!("Triggered global unit {name} stop"))?,
                (false, true) => say(&format!("Triggered unit {name} stop"))?,
                (false, false) => say(&format!("Unit {name} loaded{}", on.unwrap_or_default()))?,
            }
        }
        self.renew(&shared).await?;
        if !blocking.units.is_empty() && stopped.is_empty() && self.found(&blocking.units)?.is_empty() {
            return Ok(true);
        }
        say_error(&format!("Successfully stopped units {}.", listed(&stopped)));
        Ok(true)
    }

    /// Adds the units that stop with these, as `Requires=`, `BindsTo=` and `PartOf=` say.
    fn and_bound(&self, names: &mut Vec<UnitName>) {
        let mut at = 0;
        while let Some(name) = names.get(at).cloned() {
            at += 1;
            for unit in self.registry.units.values().filter(|u| u.desired == Desired::Launched) {
                let bound =
                    fleet::summary(&unit.file()).is_ok_and(|s| s.bound_to.iter().any(|b| b == name.full()));
                if bound && !names.contains(&unit.name) {
                    say_error(&format!("Unit {} stops with {name}", unit.name));
                    names.push(unit.name.clone());
                }
            }
        }
    }

    /// `unload`.
    pub async fn unload(&mut self, blocking: &Blocking) -> anyhow::Result<()> {
        let found = self.found(&blocking.units)?;
        let (mut unloaded, mut shared) = (Vec::new(), BTreeSet::new());
        for name in found {
            let mut unit = self.known(&name)?;
            if unit.desired == Desired::Inactive {
                continue;
            }
            shared.append(&mut self.take_away(&mut unit).await?);
            (unit.desired, unit.machine) = (Desired::Inactive, None);
            let global = unit.global();
            self.registry.write(unit).await?;
            match (global, blocking.no_block) {
                (true, _) => say(&format!("Triggered global unit {name} unload"))?,
                (false, true) => say(&format!("Triggered unit {name} unload"))?,
                (false, false) => say(&format!("Unit {name} inactive"))?,
            }
            unloaded.push(name);
        }
        self.renew(&shared).await?;
        say_error(&format!("Successfully unloaded units {}.", listed(&unloaded)));
        Ok(())
    }

    /// `destroy`.
    pub async fn destroy(&mut self, blocking: &Blocking) -> anyhow::Result<()> {
        let mut shared = BTreeSet::new();
        for name in self.found(&blocking.units)? {
            let mut unit = self.known(&name)?;
            if unit.desired != Desired::Inactive {
                shared.append(&mut self.take_away(&mut unit).await?);
            }
            self.registry.remove(name.full()).await?;
            say(&format!("Destroyed {name}"))?;
        }
        self.renew(&shared).await
    }
}

/// `[a.service b.service]`
fn listed(names: &[UnitName]) -> String {
    format!("[{}]", names.iter().map(UnitName::full).collect::<Vec<_>>().join(" "))
}

//! Units as the cluster keeps them: a ConfigMap each, with its text, the state that is asked for and the objects that
//! it has become.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha1::{Digest, Sha1};
use yado_compile::fleet::{self, UnitFile, UnitName, canonical};
use yado_types::labels;

use crate::{apply::FIELD_MANAGER, connect::failed};

/// The application whose components all units are.
pub const APP: &str = "fleet";
/// Where in the ConfigMap the text is.
const TEXT: &str = "unit";
/// Where in the ConfigMap its objects are listed.
const OBJECTS: &str = "objects";
/// Annotation: the node that the unit was loaded on or ran on last.
const MACHINE: &str = "yado.dev/unit-machine";

/// What is asked of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// Known only.
    Inactive,
    /// Given to a machine, and not started.
    Loaded,
    /// Started.
    Launched,
}

impl Desired {
    /// fleet's word.
    pub fn word(self) -> &'static str {
        match self {
            Desired::Inactive => "inactive",
            Desired::Loaded => "loaded",
            Desired::Launched => "launched",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "launched" => Desired::Launched,
            "loaded" => Desired::Loaded,
            _ => Desired::Inactive,
        }
    }
}

/// An object that a unit has become.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

/// A unit that has been submitted.
#[derive(Debug, Clone)]
pub struct Unit {
    pub name: UnitName,
    pub text: String,
    pub desired: Desired,
    /// The node, see [`MACHINE`].
    pub machine: Option<String>,
    pub objects: Vec<ObjectName>,
    /// The ConfigMap's name.
    pub config_map: String,
}

impl Unit {
    /// A new one.
    pub fn new(name: UnitName, text: String) -> Self {
        let config_map = format!("unit-{}", name.object());
        Unit { name, text, desired: Desired::Inactive, machine: None, objects: Vec::new(), config_map }
    }

    /// Whether it waits for its times to start another unit.
    pub fn is_waiting(&self) -> bool {
        self.desired == Desired::Launched && self.objects.iter().any(|object| object.kind == "CronJob")
    }

    /// The hash that fleet shows.
    pub fn hash(&self) -> String {
        Sha1::digest(canonical(&self.text).as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// As the compiler takes it.
    pub fn file(&self) -> UnitFile {
        UnitFile {
            name: self.name.clone(),
            file: Path::new(self.name.full()).into(),
            text: self.text.clone(),
        }
    }

    /// Whether it runs on every machine.
    pub fn global(&self) -> bool {
        yado_compile::fleet::summary(&self.file()).is_ok_and(|s| s.global)
    }

    fn of(map: &ConfigMap) -> Option<Self> {
        let name = UnitName::new(map.annotations().get(labels::UNIT)?).ok()?;
        let data = map.data.as_ref()?;
        Some(Unit {
            name,
            text: data.get(TEXT)?.clone(),
            desired: Desired::of(map.labels().get(labels::UNIT_STATE)?),
            machine: map.annotations().get(MACHINE).cloned(),
            objects: data.get(OBJECTS).and_then(|o| serde_json::from_str(o).ok()).unwrap_or_default(),
            config_map: map.name_any(),
        })
    }
}

/// The units of a namespace.
pub struct Registry {
    api: Api<ConfigMap>,
    /// By name.
    pub units: BTreeMap<String, Unit>,
}

impl Registry {
    /// Reads them.
    pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let found = api.list(&ListParams::default().labels(labels::UNIT_STATE)).await;
        let found = found.map_err(failed("Error retrieving list of units from repository"))?;
        let units = found.iter().filter_map(Unit::of).map(|u| (u.name.full().to_string(), u)).collect();
        Ok(Registry { api, units })
    }

    /// Whether a unit is launched, by somebody or by a timer at its times.
    pub fn is_launched(&self, unit: &Unit) -> bool {
        let starts = |timer: &&Unit| {
            let summary = fleet::summary(&timer.file()).ok();
            summary.and_then(|s| s.starts).as_deref() == Some(unit.name.full())
        };
        unit.desired == Desired::Launched
            || self.units.values().filter(|u| u.is_waiting()).any(|timer| starts(&timer))
    }

    /// The units as the compiler takes them.
    pub fn files(&self) -> Vec<UnitFile> {
        self.units.values().map(Unit::file).collect()
    }

    /// Writes a unit, new or changed.
    pub async fn write(&mut self, mut unit: Unit) -> anyhow::Result<()> {
        let taken = |u: &Unit, other: &Unit| other.config_map == u.config_map && other.name != u.name;
        if self.units.values().any(|other| taken(&unit, other)) {
            unit.config_map = format!("unit-{}", unit.name.long_object());
        }
        let mut annotations = BTreeMap::from([(labels::UNIT, unit.name.full())]);
        if let Some(machine) = &unit.machine {
            annotations.insert(MACHINE, machine);
        }
        let objects = serde_json::to_string(&unit.objects).context("the unit's objects cannot be listed")?;
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": unit.config_map,
                "labels": {
                    labels::UNIT_STATE: unit.desired.word(),
                    labels::APP_NAME: APP,
                    labels::APP_PART_OF: APP,
                    labels::APP_MANAGED_BY: labels::MANAGED_BY_YADO,
                },
                "annotations": annotations,
            },
            "data": {TEXT: unit.text, OBJECTS: objects},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.api.patch(&unit.config_map, &params, &Patch::Apply(&map)).await;
        written.map_err(failed(format!("failed creating unit {}", unit.name)))?;
        self.units.insert(unit.name.full().into(), unit);
        Ok(())
    }

    /// Forgets a unit.
    pub async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(unit) = self.units.remove(name) else { return Ok(()) };
        match self.api.delete(&unit.config_map, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(failed("Error destroying units")(error)),
        }
    }
}

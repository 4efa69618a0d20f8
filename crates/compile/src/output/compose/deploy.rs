//! Writes `deploy` of a service: replicas, placement, resources and updates.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, NodeSelectorRequirement, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::{Map, Value, json};
use yado_types::labels;

use super::{
    Writer,
    controller::{PodController, RolloutStrategy, RunMode},
};

impl Writer<'_> {
    pub(super) fn deploy(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        container: &Container,
        first: bool,
    ) -> Map<String, Value> {
        let mut deploy = Map::new();
        if first {
            self.mode(controller, &mut deploy);
            self.placement(controller, pod, &mut deploy);
        }
        if let Some(resources) = self.resources(controller, container) {
            deploy.insert("resources".into(), resources);
        }
        deploy
    }

    fn mode(&mut self, controller: &PodController, deploy: &mut Map<String, Value>) {
        match controller.runs {
            RunMode::Everywhere => drop(deploy.insert("mode".into(), "global".into())),
            RunMode::Once(_) => drop(deploy.insert("mode".into(), "replicated-job".into())),
            RunMode::Always => {}
        }
        if controller.replicas != 1 {
            deploy.insert("replicas".into(), controller.replicas.into());
        }
        let labels: Map<String, Value> = controller
            .metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| crate::workload::pod::is_annotation_key(key))
            .map(|(k, v)| (k.clone(), Value::from(super::escaped(v))))
            .collect();
        // A Pod's annotations are its labels already.
        if !labels.is_empty() && controller.template.metadata.as_ref() != Some(&controller.metadata) {
            deploy.insert("labels".into(), labels.into());
        }
        let update = match &controller.update {
            Some(RolloutStrategy::By { surge, unavailable, watch }) => {
                let (order, at_once) =
                    if *surge > 0 { ("start-first", surge) } else { ("stop-first", unavailable) };
                let mut update = json!({"parallelism": at_once, "order": order});
                if *watch > 0 {
                    update["monitor"] = format!("{watch}s").into();
                }
                update
            }
            Some(RolloutStrategy::Recreate) if !mounts_claim(controller) => {
                json!({"parallelism": 0, "order": "stop-first"})
            }
            _ => return,
        };
        deploy.insert("update_config".into(), update);
    }

    fn resources(&mut self, controller: &PodController, container: &Container) -> Option<Value> {
        let resources = container.resources.as_ref()?;
        let mut all = Map::new();
        for (key, amounts) in [("limits", &resources.limits), ("reservations", &resources.requests)] {
            let mut section = Map::new();
            for (resource, Quantity(amount)) in amounts.iter().flatten().filter(|(_, q)| q.0 != "0") {
                match resource.as_str() {
                    "cpu" => drop(section.insert("cpus".into(), cpus(amount).into())),
                    "memory" => drop(section.insert("memory".into(), memory(amount).into())),
                    "nvidia.com/gpu" | "amd.com/gpu" => {
                        let driver = resource.split('.').next().unwrap_or_default();
                        let device = json!({"driver": driver, "count": amount.parse::<i64>().unwrap_or(1), "capabilities": ["gpu"]});
                        let devices = json!({"devices": [device]});
                        all.entry("reservations").or_insert_with(|| devices);
                    }
                    "ephemeral-storage" => {}
                    _ => self.warn(controller, format!("{amount} of {resource} is left out")),
                }
            }
            if !section.is_empty() {
                let known = all.entry(key).or_insert_with(|| json!({}));
                if let Some(known) = known.as_object_mut() {
                    known.extend(section);
                }
            }
        }
        (!all.is_empty()).then(|| all.into())
    }

    fn placement(&mut self, controller: &PodController, pod: &PodSpec, deploy: &mut Map<String, Value>) {
        let mut constraints: Vec<String> = Vec::new();
        for (key, value) in pod.node_selector.iter().flatten() {
            if ![labels::OS, labels::ARCH].contains(&key.as_str()) {
                constraints.push(format!("node.labels.{key} == {value}"));
            }
        }
        let affinity = pod.affinity.clone().unwrap_or_default();
        let node = affinity.node_affinity.unwrap_or_default();
        let required = node.required_during_scheduling_ignored_during_execution;
        let terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
        if terms.len() > 1 {
            self.warn(controller, "of its node affinity only the first term is kept");
        }
        let wished = node.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let requirements = terms.into_iter().take(1).flat_map(|t| t.match_expressions.unwrap_or_default());
        for one in requirements
            .chain(wished.into_iter().flat_map(|w| w.preference.match_expressions.unwrap_or_default()))
        {
            match constraint(&one) {
                Some(text) => constraints.push(text),
                None => self.warn(controller, format!("its node affinity on {} is left out", one.key)),
            }
        }
        let spread: Vec<Value> = pod
            .topology_spread_constraints
            .iter()
            .flatten()
            .map(|c| json!({"spread": format!("node.labels.{}", c.topology_key)}))
            .collect();
        let mut placement = Map::new();
        if !constraints.is_empty() {
            placement.insert("constraints".into(), constraints.into());
        }
        if !spread.is_empty() {
            placement.insert("preferences".into(), spread.into());
        }
        if affinity
            .pod_anti_affinity
            .is_some_and(|a| a.required_during_scheduling_ignored_during_execution.is_some())
        {
            placement.insert("max_replicas_per_node".into(), 1.into());
        }
        if affinity.pod_affinity.is_some() {
            self.warn(controller, "its Pod affinity is left out");
        }
        if !placement.is_empty() {
            deploy.insert("placement".into(), placement.into());
        }
    }
}

fn mounts_claim(controller: &PodController) -> bool {
    let pod = controller.template.spec.as_ref();
    pod.is_some_and(|p| {
        p.host_network == Some(true)
            || p.volumes.iter().flatten().any(|v| v.persistent_volume_claim.is_some())
    })
}

fn constraint(one: &NodeSelectorRequirement) -> Option<String> {
    let values = one.values.clone().unwrap_or_default();
    if one.key == labels::CONTROL_PLANE {
        return Some(format!("node.role == {}", if one.operator == "Exists" { "manager" } else { "worker" }));
    }
    let key = match one.key.as_str() {
        labels::HOSTNAME => "node.hostname".to_string(),
        labels::OS => "node.platform.os".into(),
        labels::ARCH => "node.platform.arch".into(),
        key => format!("node.labels.{key}"),
    };
    match (one.operator.as_str(), &values[..]) {
        ("In", [value]) => Some(format!("{key} == {value}")),
        ("NotIn", [value]) => Some(format!("{key} != {value}")),
        _ => None,
    }
}

/// `500m` is `0.5`.
fn cpus(amount: &str) -> String {
    let milli = amount.strip_suffix('m').and_then(|m| m.parse::<f64>().ok());
    milli.map_or_else(|| amount.into(), |m| format!("{}", m / 1000.0))
}

/// `512Mi` is `512m`, and `1M`, which is less, is its number of bytes.
pub(super) fn memory(amount: &str) -> String {
    for (suffix, docker) in [("Ki", "k"), ("Mi", "m"), ("Gi", "g"), ("Ti", "t")] {
        if let Some(number) = amount.strip_suffix(suffix) {
            return format!("{number}{docker}");
        }
    }
    let powers: BTreeMap<&str, u32> = BTreeMap::from([("k", 1), ("M", 2), ("G", 3), ("T", 4)]);
    for (suffix, power) in powers {
        if let Some(number) = amount.strip_suffix(suffix).and_then(|n| n.parse::<u64>().ok()) {
            return number.saturating_mul(1000u64.pow(power)).to_string();
        }
    }
    amount.into()
}

//! What keeps a service running, how it is replaced, where it may be and how much it may use.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
        PodAntiAffinity, PreferredSchedulingTerm, TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use yado_types::{labels, names, pod::Restart};

use super::{
    super::model::{self, Condition, Deploy, DeviceRequest, NetworkMode, Service},
    Lowering,
};
use crate::{
    diagnostic::Findings,
    workload::{
        UpdateStrategy, WorkloadKind, amount,
        pod::{PodFragment, is_annotation_key},
    },
};

impl Lowering<'_> {
    /// What keeps the service's Pods: a Job where others wait for its end or it calls itself one, a DaemonSet where it is
    /// to be on each node, else a Deployment. How often a container of one is run again is an annotation
    /// ([`labels::RESTART`]), since a Deployment's own policy is always `Always`: whether a service serves or ends shows
    /// only when it runs, and one that serves has to be replaced without a gap.
    pub(super) fn kind(&mut self, service: &Service) -> WorkloadKind {
        let deploy = service.deploy.as_ref();
        let mode = deploy.and_then(|d| d.mode.as_deref()).unwrap_or("replicated");
        if mode == "global" {
            return WorkloadKind::DaemonSet;
        }
        if mode == "global-job" {
            let sentence = "mode global-job runs one Pod, not one on each node, as a Job has no nodes";
            self.found.warn(service.place("deploy.mode"), sentence);
        }
        let waits =
            self.project.services.values().find(|s| {
                s.depends_on.get(&service.name).is_some_and(|d| d.condition == Condition::Completed)
            });
        if !mode.ends_with("-job") && waits.is_none() {
            return WorkloadKind::Deployment;
        }
        let policy = restart(service);
        if let (Restart::Always | Restart::AtMost(_), Some(waiting)) = (policy, waits) {
            let field = if service.restart.is_some() { "restart" } else { "deploy.restart_policy" };
            let sentence = format!(
                "{} is started again only when it fails, as {} waits for its end",
                service.name, waiting.name
            );
            self.found.warn(service.place(field), sentence);
        }
        let retries = match policy {
            Restart::No => 0,
            // As many as a Job can have.
            Restart::Always | Restart::OnFailure(None) => i32::MAX,
            Restart::AtMost(most) | Restart::OnFailure(Some(most)) => i32::try_from(most).unwrap_or(i32::MAX),
        };
        WorkloadKind::Job { retries, parallelism: None }
    }

    /// How a new version takes the old one's place.
    pub(super) fn update(
        &mut self,
        service: &Service,
        part: &PodFragment,
        kind: &WorkloadKind,
    ) -> UpdateStrategy {
        // Two Pods on one volume, or at one port of the node, would be in each other's way.
        let alone = part.pod.volumes.iter().flatten().any(|v| v.persistent_volume_claim.is_some())
            && part.container.volume_mounts.iter().flatten().any(|m| m.read_only != Some(true))
            || matches!(service.network_mode, Some(NetworkMode::Host));
        let deploy = service.deploy.as_ref();
        if deploy.is_some_and(|d| d.rollback.is_some()) {
            let sentence =
                "rollback_config has no effect: a Deployment is rolled back by its update strategy";
            self.found.warn(service.place("deploy.rollback_config"), sentence);
        }
        let Some(update) = deploy.and_then(|d| d.update.as_ref()) else {
            return if alone { UpdateStrategy::Recreate } else { UpdateStrategy::Default };
        };
        if update.failure_action.as_deref().is_some_and(|a| a != "pause")
            || update.max_failure_ratio.is_some()
        {
            let sentence = "failure_action and max_failure_ratio have no effect: an update that does not become ready stops, and the old Pods stay";
            self.found.warn(service.place("deploy.update_config"), sentence);
        }
        let replicas = service.replicas().max(1);
        let at_once = match update.parallelism.unwrap_or(1) {
            0 => replicas,
            n => n,
        };
        let at_once = i32::try_from(at_once).unwrap_or(i32::MAX);
        let time = update.monitor.max(update.delay).map_or(0, |d| d.as_secs().min(3600));
        let min_ready_seconds = i32::try_from(time).unwrap_or(0);
        match update.order.as_deref() {
            Some("start-first") => {
                UpdateStrategy::Rolling { surge: at_once, unavailable: 0, min_ready_seconds }
            }
            None if !alone && *kind == WorkloadKind::Deployment => {
                UpdateStrategy::Rolling { surge: at_once, unavailable: 0, min_ready_seconds }
            }
            _ if alone && replicas == 1 && *kind == WorkloadKind::Deployment => UpdateStrategy::Recreate,
            _ => UpdateStrategy::Rolling { surge: 0, unavailable: at_once, min_ready_seconds },
        }
    }
}

/// How often the service's containers are run again after they have ended: as `restart` says, else Swarm's
/// `restart_policy`, else never, as docker compose does.
pub(super) fn restart(service: &Service) -> Restart {
    match (service.restart, service.deploy.as_ref().and_then(|d| d.restart.as_ref())) {
        (Some(model::Restart::No), _) => Restart::No,
        (Some(model::Restart::Always | model::Restart::UnlessStopped), _) => Restart::Always,
        (Some(model::Restart::OnFailure(most)), _) => Restart::OnFailure(most),
        (None, None) => Restart::No,
        (None, Some(policy)) => match (policy.condition.as_deref().unwrap_or("any"), policy.max_attempts) {
            ("none", _) => Restart::No,
            ("on-failure", most) => Restart::OnFailure(most),
            (_, Some(most)) => Restart::AtMost(most),
            (_, None) => Restart::Always,
        },
    }
}

/// Labels of the service itself, in Swarm's sense.
pub(super) fn annotations(service: &Service) -> BTreeMap<String, String> {
    let labels = service.deploy.iter().flat_map(|d| &d.labels);
    labels.filter(|(key, _)| is_annotation_key(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Limits and reservations. What is limited and not reserved is left to the cluster's defaults.
pub(super) fn resources(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    let deploy = service.deploy.clone().unwrap_or_default();
    let limits = deploy.limits.clone().unwrap_or_default();
    let reservations = deploy.reservations.clone().unwrap_or_default();
    let quota = service
        .cpu_quota
        .filter(|q| *q > 0)
        .map(|q| q as f64 / service.cpu_period.unwrap_or(100_000).max(1) as f64);
    let milli = |cpus: f64| amount::milli_cpus((cpus * 1000.0).round().clamp(1.0, 1e9) as u64);
    let bytes = |bytes: u64| amount::memory(&bytes.to_string()).unwrap_or_default();
    let cpu_limit = limits.cpus.or(service.cpus).filter(|c| *c > 0.0).or(quota);
    let cpu_limit = cpu_limit.or_else(|| cpuset(service, found));
    let shares = service.cpu_shares.filter(|s| *s > 0).map(|s| s as f64 / 1024.0);
    let cpu_request = reservations.cpus.filter(|c| *c > 0.0).or(shares);
    let memory_limit = limits.memory.or(service.mem_limit).filter(|b| *b > 0);
    let memory_request = reservations.memory.or(service.mem_reservation).filter(|b| *b > 0);
    if let Some(cpus) = cpu_limit {
        part.limit("cpu", milli(cpus));
    }
    if let Some(request) = cpu_request {
        part.request("cpu", milli(cpu_limit.map_or(request, |limit| request.min(limit))));
    }
    if let Some(memory) = memory_limit {
        part.limit("memory", bytes(memory));
    }
    if let Some(request) = memory_request {
        part.request("memory", bytes(memory_limit.map_or(request, |limit| request.min(limit))));
    }
    if memory_request > memory_limit && memory_limit.is_some()
        || cpu_limit.is_some_and(|l| cpu_request > Some(l))
    {
        let sentence = format!("{} reserves no more than its limit", service.name);
        found.warn(service.place("deploy.resources"), sentence);
    }
    if limits.pids.is_some() || service.pids_limit.is_some_and(|p| p > 0) {
        let field = if service.pids_limit.is_some() { "pids_limit" } else { "deploy.resources.limits" };
        found.warn(service.place(field), "a limit of processes has no effect: the node has its own");
    }
    for request in service.gpus.iter().chain(&reservations.devices) {
        gpu(request, service, part, found);
    }
    for (kind, _) in &reservations.generic {
        let sentence = format!("generic resource {kind} has no effect: nodes do not report any");
        found.warn(service.place("deploy.resources"), sentence);
    }
    if let Some(size) = service.storage_opt.get("size").and_then(|s| amount::memory(s)) {
        part.limit("ephemeral-storage", size);
    }
}

fn cpuset(service: &Service, found: &mut Findings) -> Option<f64> {
    let set = service.cpuset.as_deref()?;
    let count = amount::processors(set)?;
    let sentence = format!("cpuset {set} limits it to {count} processors; which ones, the node decides");
    found.warn(service.place("cpuset"), sentence);
    Some(count.into())
}

fn gpu(request: &DeviceRequest, service: &Service, part: &mut PodFragment, found: &mut Findings) {
    let field = if service.gpus.is_empty() { "deploy.resources" } else { "gpus" };
    let driver = request.driver.as_deref().unwrap_or("nvidia");
    let resource = match driver {
        "nvidia" | "" => "nvidia.com/gpu",
        "amd" => "amd.com/gpu",
        _ => {
            let sentence = format!("devices of driver {driver} have no effect: nodes do not report any");
            return found.warn(service.place(field), sentence);
        }
    };
    let count = match request.count {
        Some(n) if n > 0 => n,
        Some(_) => {
            found.warn(service.place(field), "one GPU is asked for, as a Pod says how many: write count");
            1
        }
        None => i64::try_from(request.device_ids.len()).unwrap_or(1).max(1),
    };
    part.limit(resource, count.to_string());
}

/// Placement constraints as affinities.
pub(super) fn placement(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    let Some(deploy) = &service.deploy else { return };
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for constraint in &deploy.constraints {
        match requirement(constraint) {
            Ok(Requirement::Must(one)) => required.push(one),
            Ok(Requirement::Rather(one)) => {
                let sentence = format!(
                    "{constraint} is treated as a preference: a cluster of one node has no other node"
                );
                found.warn(service.place("deploy.placement"), sentence);
                preferred.push(one);
            }
            Err(sentence) => found.warn(service.place("deploy.placement"), sentence),
        }
    }
    let term = |all: Vec<NodeSelectorRequirement>| NodeSelectorTerm {
        match_expressions: Some(all),
        ..NodeSelectorTerm::default()
    };
    if !required.is_empty() || !preferred.is_empty() {
        let affinity: &mut Affinity = part.pod.affinity.get_or_insert_default();
        let preferred: Vec<PreferredSchedulingTerm> = preferred
            .into_iter()
            .map(|one| PreferredSchedulingTerm { weight: 100, preference: term(vec![one]) })
            .collect();
        affinity.node_affinity = Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: (!required.is_empty())
                .then(|| NodeSelector { node_selector_terms: vec![term(required)] }),
            preferred_during_scheduling_ignored_during_execution: (!preferred.is_empty())
                .then_some(preferred),
        });
    }
    spread(service, deploy, part, found);
}

/// Preferences, and how many may be on one node.
fn spread(service: &Service, deploy: &Deploy, part: &mut PodFragment, found: &mut Findings) {
    let selector = LabelSelector {
        match_labels: Some(BTreeMap::from([(
            labels::APP_COMPONENT.to_string(),
            super::names::component(&service.name),
        )])),
        ..LabelSelector::default()
    };
    for preference in &deploy.spread {
        let key = preference.trim().strip_prefix("node.labels.").filter(|k| names::qualified_name(k).is_ok());
        let Some(key) = key else {
            let sentence = format!("the preference {preference} has no effect: write node.labels.NAME");
            found.warn(service.place("deploy.placement"), sentence);
            continue;
        };
        part.pod.topology_spread_constraints.get_or_insert_default().push(TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(selector.clone()),
            ..TopologySpreadConstraint::default()
        });
    }
    match deploy.max_replicas_per_node {
        None | Some(0) => {}
        Some(1) => {
            let affinity: &mut Affinity = part.pod.affinity.get_or_insert_default();
            affinity.pod_anti_affinity = Some(PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                    label_selector: Some(selector),
                    topology_key: labels::HOSTNAME.into(),
                    ..PodAffinityTerm::default()
                }]),
                ..PodAntiAffinity::default()
            });
        }
        Some(n) => {
            let sentence = format!("max_replicas_per_node {n} has no effect: only 1 is supported");
            found.warn(service.place("deploy.placement"), sentence);
        }
    }
}

enum Requirement {
    Must(NodeSelectorRequirement),
    Rather(NodeSelectorRequirement),
}

/// `node.role == manager`, `node.labels.disk != ssd`.
fn requirement(constraint: &str) -> Result<Requirement, String> {
    let malformed =
        || format!("constraint \"{constraint}\" has no effect: write such as node.labels.disk == ssd");
    let (key, equal, value) = match (constraint.split_once("=="), constraint.split_once("!=")) {
        (_, Some((key, value))) => (key.trim(), false, value.trim()),
        (Some((key, value)), None) => (key.trim(), true, value.trim()),
        _ => return Err(malformed()),
    };
    let expression = |key: &str, value: &str| NodeSelectorRequirement {
        key: key.into(),
        operator: if equal { "In" } else { "NotIn" }.into(),
        values: Some(vec![value.into()]),
    };
    let label = match key {
        "node.role" => {
            let operator = if (value == "manager") == equal { "Exists" } else { "DoesNotExist" };
            let one = NodeSelectorRequirement {
                key: labels::CONTROL_PLANE.into(),
                operator: operator.into(),
                values: None,
            };
            return Ok(if operator == "Exists" { Requirement::Must(one) } else { Requirement::Rather(one) });
        }
        "node.hostname" => labels::HOSTNAME,
        "node.platform.os" => labels::OS,
        "node.platform.arch" => {
            let arch = match value {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            };
            return Ok(Requirement::Must(expression(labels::ARCH, arch)));
        }
        _ => match key.strip_prefix("node.labels.").or_else(|| key.strip_prefix("engine.labels.")) {
            Some(label) if names::qualified_name(label).is_ok() => label,
            _ => {
                return Err(format!(
                    "constraint on {key} has no effect: there are node.role, node.hostname, node.platform.os, node.platform.arch and node.labels.NAME"
                ));
            }
        },
    };
    if names::label_value(value).is_err() {
        return Err(malformed());
    }
    Ok(Requirement::Must(expression(label, value)))
}

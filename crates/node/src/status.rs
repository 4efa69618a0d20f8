//! A Pod's status as its object shows it; pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use crate::lifecycle::{
    ContainerRecord, Ended, FailureKind, Hook, Now, Outcome, PodFailure, PodRecord, Run, SandboxPhase,
    outcome, policy_of,
};
use crate::resources;
use crate::spec::{is_sidecar, restart_policy};

/// The scheme of container ids.
pub(crate) const CONTAINER_SCHEME: &str = "yado://";

/// The status that a Pod with this record should show. Conditions of others are kept as they are.
pub(crate) fn of(pod: &Pod, record: &PodRecord, host: IpAddr, now: Now) -> PodStatus {
    let Some(spec) = pod.spec.as_ref() else { return PodStatus::default() };
    let old = pod.status.clone().unwrap_or_default();
    if matches!(old.phase.as_deref(), Some("Succeeded" | "Failed")) && record.containers.is_empty() {
        // It had ended before this process was there: nothing is known that it does not say already.
        return old;
    }
    if let Some(failure) = record.failed.as_ref().filter(|f| f.kind == FailureKind::Rejected) {
        return rejected(spec, record, failure, old);
    }
    let outcome = outcome(spec, record);
    let context = Context { pod, spec, record, old: &old, now };
    let init: Vec<_> = spec.init_containers.iter().flatten().map(|c| context.container(c, true)).collect();
    let containers: Vec<_> = spec.containers.iter().map(|c| context.container(c, false)).collect();
    let phase = context.phase(outcome);
    let failed = record.failed.clone();
    let address = match spec.host_network {
        Some(true) => Some(host.to_string()),
        _ => record.address.map(|a| a.to_string()).or_else(|| old.pod_ip.clone()),
    };
    PodStatus {
        conditions: Some(context.conditions(&init, &containers, outcome)),
        container_statuses: Some(containers),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(host.to_string()),
        host_ips: Some(vec![HostIP { ip: host.to_string() }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        phase: Some(phase.into()),
        qos_class: Some(resources::qos_class(spec).into()),
        start_time: old.start_time.clone().or_else(|| record.started_at.map(Time)),
        reason: failed.as_ref().map(|f| f.reason.clone()).or_else(|| old.reason.clone()),
        message: failed.map(|f| f.message).or_else(|| old.message.clone()),
        observed_generation: pod.metadata.generation,
        ..old.clone()
    }
}

/// Of a Pod that the node does not run: it has no containers to tell of.
fn rejected(spec: &PodSpec, record: &PodRecord, failure: &PodFailure, old: PodStatus) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(failure.reason.clone()),
        message: Some(format!("Pod was rejected: {}", failure.message)),
        qos_class: Some(resources::qos_class(spec).into()),
        start_time: old.start_time.clone().or_else(|| record.started_at.map(Time)),
        ..old
    }
}

/// What has changed between two statuses, as a JSON merge patch; `None` where nothing has.
pub(crate) fn difference(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(), // a struct of plain data always becomes an object
    };
    let (old, new) = (object(old), object(new));
    let mut changes: Map<String, Value> = Map::new();
    for (key, value) in &new {
        if old.get(key) != Some(value) {
            changes.insert(key.clone(), value.clone());
        }
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        changes.insert(key.clone(), Value::Null);
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

struct Context<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    record: &'a PodRecord,
    old: &'a PodStatus,
    now: Now,
}

impl Context<'_> {
    fn phase(&self, outcome: Option<Outcome>) -> &'static str {
        match outcome {
            Some(Outcome::Succeeded) => return "Succeeded",
            Some(Outcome::Failed) => return "Failed",
            None => {}
        }
        match self.old.phase.as_deref() {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
        // Nothing of it will run again: what has not succeeded has failed, as the kubelet has it. Whoever counts Pods that ended
        // has to know before the object goes.
        if self.is_over() {
            let well = |c: &Container| match &self.record.container(&c.name).run {
                Run::Exited(ended) => ended.code == 0,
                _ => false,
            };
            return if self.spec.containers.iter().all(well) { "Succeeded" } else { "Failed" };
        }
        let never_ran = |c: &&Container| {
            let state = self.record.container(&c.name);
            state.run.is_pending() && state.last.is_none()
        };
        if self.record.termination.is_some() && self.old.phase.as_deref() == Some("Running") {
            return "Running";
        }
        let waiting = self.spec.containers.iter().any(|c| never_ran(&c));
        if waiting || !self.initialised() { "Pending" } else { "Running" }
    }

    /// Whether the Pod is being deleted and all its processes have ended.
    fn is_over(&self) -> bool {
        let runs = matches!(self.record.sandbox, SandboxPhase::Preparing | SandboxPhase::Ready);
        self.pod.metadata.deletion_timestamp.is_some() && !runs && !self.record.is_active()
    }

    fn initialised(&self) -> bool {
        // In a new sandbox init containers run anew.
        let ran = self.spec.containers.iter().any(|c| self.record.container(&c.name).run != Run::Absent);
        ran || self.spec.init_containers.iter().flatten().all(|c| self.init_complete(c))
    }

    fn init_complete(&self, init: &Container) -> bool {
        let state = self.record.container(&init.name);
        match &state.run {
            Run::Exited(ended) => !is_sidecar(init) && ended.code == 0,
            run => run.is_up() && is_sidecar(init) && state.started,
        }
    }

    fn container(&self, container: &Container, init: bool) -> ContainerStatus {
        let state = self.record.container(&container.name);
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let running = state.run.is_up();
        let last = match &state.run {
            Run::Exited(ended) if self.backs_off(container, state, ended, init).is_some() => Some(ended),
            _ => state.last.as_ref(),
        };
        let has_run = running || matches!(state.run, Run::Exited(_));
        let completed_init = init && !is_sidecar(container) && self.init_complete(container);
        // A restart that is under way does not count before something runs.
        let before = state.last.as_ref().filter(|_| state.run.is_pending());
        let restarts = before.map_or(state.attempt, |last| last.attempt);
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            // Known while the container is still being made; said with what runs, so that it is no change of its own.
            image_id: if has_run || state.last.is_some() { state.image_id.clone() } else { String::new() },
            container_id: if has_run {
                Some(container_id(uid, &container.name, state.attempt))
            } else {
                state.last.as_ref().map(|l| container_id(uid, &container.name, l.attempt))
            },
            ready: completed_init || (running && state.ready && state.started),
            started: Some(running && state.started),
            restart_count: restarts.try_into().unwrap_or(i32::MAX),
            state: Some(self.state(container, state, init)),
            last_state: Some(match last {
                Some(ended) => ContainerState {
                    terminated: Some(terminated(uid, container, ended)),
                    ..Default::default()
                },
                None => ContainerState::default(),
            }),
            ..Default::default()
        }
    }

    fn state(&self, container: &Container, state: &ContainerRecord, init: bool) -> ContainerState {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let waiting = |reason: &str, message: Option<String>| ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message }),
            ..Default::default()
        };
        let ended = |ended: &Ended| ContainerState {
            terminated: Some(terminated(uid, container, ended)),
            ..Default::default()
        };
        match &state.run {
            Run::Running { started_at, post_start: Hook::Done } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(whole_seconds(*started_at))) }),
                ..Default::default()
            },
            Run::Exited(end) => match self.backs_off(container, state, end, init) {
                Some(message) => waiting("CrashLoopBackOff", Some(message)),
                None => ended(end),
            },
            Run::Absent | Run::Starting | Run::Running { .. } => match (&state.waiting, &state.last) {
                (Some(w), _)
                    if w.reason == "ErrImagePull"
                        && self.now.monotonic >= w.since + crate::images::SHOWN_AS_ERROR =>
                {
                    let image = container.image.as_deref().unwrap_or_default();
                    waiting(
                        "ImagePullBackOff",
                        Some(format!("Back-off pulling image \"{image}\": ErrImagePull: {}", w.message)),
                    )
                }
                (Some(w), _) => waiting(&w.reason, Some(w.message.clone()).filter(|m| !m.is_empty())),
                (None, Some(last)) if state.run == Run::Starting => ended(last),
                (None, _) if !init && !self.initialised() => waiting("PodInitializing", None),
                (None, _) if !self.spec.init_containers.as_deref().unwrap_or_default().is_empty() => {
                    waiting("PodInitializing", None)
                }
                (None, _) => waiting("ContainerCreating", None),
            },
        }
    }

    /// The message of a container that waits for its restart.
    fn backs_off(
        &self,
        container: &Container,
        state: &ContainerRecord,
        ended: &Ended,
        init: bool,
    ) -> Option<String> {
        let policy = match restart_policy(self.spec) {
            _ if is_sidecar(container) && init => "Always",
            "Always" if init => "OnFailure",
            other if init => other,
            _ => policy_of(self.pod, self.spec, &container.name, ended.attempt),
        };
        let again = policy == "Always" || (policy == "OnFailure" && ended.code != 0);
        let waits = again
            && self.record.termination.is_none()
            && self.record.failed.is_none()
            && state.restart_at(ended) > self.now.monotonic;
        waits.then(|| back_off_message(self.pod, &container.name, state.back_off))
    }

    fn conditions(
        &self,
        init: &[ContainerStatus],
        containers: &[ContainerStatus],
        outcome: Option<Outcome>,
    ) -> Vec<PodCondition> {
        let mut all: Vec<PodCondition> = self.old.conditions.clone().unwrap_or_default();
        let sandbox = self.record.sandbox == SandboxPhase::Ready;
        self.set(&mut all, "PodReadyToStartContainers", sandbox, None);
        let incomplete: Vec<_> = match self.initialised() || outcome == Some(Outcome::Succeeded) {
            true => Vec::new(),
            false => init.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect(),
        };
        let why = (!incomplete.is_empty()).then(|| {
            (
                "ContainersNotInitialized",
                format!("containers with incomplete status: [{}]", incomplete.join(" ")),
            )
        });
        self.set(&mut all, "Initialized", why.is_none(), why);
        let sidecars = self.spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
        let unready: Vec<_> = sidecars
            .filter_map(|c| init.iter().find(|s| s.name == c.name))
            .chain(containers)
            .filter(|s| !s.ready)
            .map(|s| s.name.as_str())
            .collect();
        let why = match outcome {
            Some(Outcome::Succeeded) => Some(("PodCompleted", String::new())),
            Some(Outcome::Failed) => Some(("PodFailed", String::new())),
            None if unready.is_empty() => None,
            None => Some((
                "ContainersNotReady",
                format!("containers with unready status: [{}]", unready.join(" ")),
            )),
        };
        self.set(&mut all, "ContainersReady", why.is_none(), why.clone());
        let gates = self.spec.readiness_gates.iter().flatten();
        let shut = gates
            .map(|g| &g.condition_type)
            .find(|t| !all.iter().any(|c| c.type_ == **t && c.status == "True"));
        let why = why.or_else(|| {
            shut.map(|t| {
                (
                    "ReadinessGatesNotReady",
                    format!("corresponding condition of pod readiness gate \"{t}\" does not exist."),
                )
            })
        });
        self.set(&mut all, "Ready", why.is_none(), why);
        self.set(&mut all, "PodScheduled", true, None);
        if let Some(failure) = self.record.failed.as_ref().filter(|f| f.kind == FailureKind::Evicted) {
            let why = ("TerminationByKubelet", failure.message.clone());
            self.set(&mut all, "DisruptionTarget", true, Some(why));
        }
        all
    }

    fn set(&self, all: &mut Vec<PodCondition>, kind: &str, holds: bool, why: Option<(&str, String)>) {
        let status = if holds { "True" } else { "False" };
        let (reason, message) = why.map_or((None, None), |(r, m)| (Some(r.to_owned()), Some(m)));
        let message = message.filter(|m| !m.is_empty());
        let observed_generation = self.pod.metadata.generation;
        match all.iter_mut().find(|c| c.type_ == kind) {
            Some(known) => {
                if known.status != status {
                    known.last_transition_time = Some(Time(whole_seconds(self.now.wall)));
                    known.status = status.into();
                }
                known.reason = reason;
                known.message = message;
                known.observed_generation = observed_generation;
            }
            None => all.push(PodCondition {
                type_: kind.into(),
                status: status.into(),
                reason,
                message,
                observed_generation,
                last_transition_time: Some(Time(whole_seconds(self.now.wall))),
                ..Default::default()
            }),
        }
    }
}

/// What users know of a container that waits for its restart.
pub(crate) fn back_off_message(pod: &Pod, container: &str, delay: std::time::Duration) -> String {
    let delay = match delay.as_secs() {
        s if s >= 60 => format!("{}m{}s", s / 60, s % 60),
        s => format!("{s}s"),
    };
    format!("back-off {delay} restarting failed container={container} pod={}", pod_name(pod))
}

/// `name_namespace(uid)`, as kubelet's messages name a Pod.
pub(crate) fn pod_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid))
}

/// The id that a container shows to the outside.
pub(crate) fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    format!("{CONTAINER_SCHEME}{uid}/{}", ContainerRecord::id(name, attempt))
}

fn terminated(uid: &str, container: &Container, ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(container_id(uid, &container.name, ended.attempt)),
        exit_code: ended.code,
        reason: Some(ended.reason.clone()),
        message: (!ended.message.is_empty()).then(|| ended.message.clone()),
        started_at: Some(Time(ended.started_at.map_or(Timestamp::UNIX_EPOCH, whole_seconds))),
        finished_at: Some(Time(whole_seconds(ended.finished_at))),
        signal: None,
    }
}

/// Objects carry whole seconds; keeping a finer time would make every comparison with the stored one differ.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;

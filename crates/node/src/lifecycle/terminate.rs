//! A Pod's end: traffic withdrawn, containers stopped, everything taken down, the object deleted.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::containers::go_on_stopping;
use super::{Action, EVICTED_GRACE, FailureKind, GONE_GRACE, Now, Plan, PodRecord, Run, SandboxPhase};
use crate::spec::{grace_period, is_sidecar, seconds};

/// For a Pod that is being deleted, or whose object is gone.
pub(super) fn decide(
    pod: Option<&Pod>,
    spec: Option<&PodSpec>,
    record: &PodRecord,
    now: Now,
    plan: &mut Plan,
) {
    match record.sandbox {
        SandboxPhase::Absent if record.holds => return plan.push(Action::Release),
        SandboxPhase::Absent | SandboxPhase::Released => {
            return plan.push(if pod.is_some() { Action::Delete } else { Action::Forget });
        }
        SandboxPhase::Dead | SandboxPhase::Failed { .. } => return plan.push(Action::Release),
        SandboxPhase::Preparing | SandboxPhase::Releasing { .. } => return,
        SandboxPhase::Ready => {}
    }
    let grace = match pod {
        Some(pod) => pod
            .metadata
            .deletion_grace_period_seconds
            .map_or_else(|| spec.map(grace_period).unwrap_or_default(), seconds),
        None => GONE_GRACE,
    };
    let Some(termination) = &record.termination else {
        return plan.push(Action::BeginTermination { grace });
    };
    if grace < termination.grace {
        // A second deletion may shorten the period, never lengthen it.
        return plan.push(Action::Hasten { grace });
    }
    if !termination.withdrawn && termination.deadline > now.monotonic {
        return plan.wake_at(termination.deadline);
    }
    let left = termination.deadline.saturating_sub(now.monotonic);
    stop_all(spec, record, left, now, plan);
}

/// For a Pod that has ended, or failed as a whole, but stays as an object.
pub(super) fn wind_down(spec: &PodSpec, record: &PodRecord, now: Now, plan: &mut Plan) {
    match record.sandbox {
        SandboxPhase::Ready => {
            let evicted = record.failed.as_ref().is_some_and(|f| f.kind == FailureKind::Evicted);
            let grace = if evicted { EVICTED_GRACE } else { grace_period(spec) };
            stop_all(Some(spec), record, grace, now, plan);
        }
        SandboxPhase::Dead | SandboxPhase::Failed { .. } => plan.push(Action::Release),
        SandboxPhase::Absent if record.holds => plan.push(Action::Release),
        _ => {}
    }
}

/// Stops what runs, sidecars after the others and in reverse order; releases the Pod once nothing runs.
fn stop_all(spec: Option<&PodSpec>, record: &PodRecord, grace: Duration, now: Now, plan: &mut Plan) {
    if !record.is_active() {
        return plan.push(Action::Release);
    }
    let sidecars: Vec<&str> = spec
        .and_then(|s| s.init_containers.as_ref())
        .into_iter()
        .flatten()
        .filter(|c| is_sidecar(c))
        .map(|c| c.name.as_str())
        .collect();
    let ordinary: Vec<&str> = record
        .containers
        .iter()
        .filter(|(name, c)| c.is_active() && !sidecars.contains(&name.as_str()))
        .map(|(name, _)| name.as_str())
        .collect();
    let last_sidecar = || sidecars.iter().rev().find(|s| record.container(s).is_active()).copied();
    let next = if ordinary.is_empty() { last_sidecar().into_iter().collect() } else { ordinary };
    for name in next {
        let state = record.container(name);
        // One that is starting is stopped once it runs; its end wakes the Pod either way.
        if !matches!(state.run, Run::Running { .. }) {
            continue;
        }
        match &state.stop {
            None => {
                let message = format!("Stopping container {name}");
                plan.push(Action::BeginStop { container: name.to_owned(), grace, message });
            }
            Some(_) => go_on_stopping(name, state, now, plan),
        }
    }
}

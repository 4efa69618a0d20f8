//! What a sandbox says of its containers, taken into the record.

use std::fs;
use std::io::Read;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;
use yado_oci::runtime::{Sandbox, SandboxState};
use yado_oci::spec::{ContainerState, ContainerStatus};
use yado_reconcile::events::EventType;

use super::{Entry, Shared};
use crate::lifecycle::{Ended, Hook, Now, Run, SandboxPhase};
use crate::spec::{find_container, post_start, restart_policy};
use crate::{container, logs, probes};

/// Bytes of a termination message; Kubernetes' limit.
const MESSAGE_LIMIT: u64 = 4096;
/// Bytes of log that stand in for a termination message; Kubernetes' limit.
const LOG_LIMIT: u64 = 2048;
/// Lines of the same.
const LOG_LINES: usize = 80;

/// Follows a sandbox until it is released. Every change wakes the Pod.
pub(super) fn watch(shared: &Arc<Shared>, entry: &Arc<Entry>, sandbox: Sandbox) {
    let stop = CancellationToken::new();
    *entry.watching.lock() = Some(stop.clone().drop_guard());
    let mut states = sandbox.subscribe();
    *entry.sandbox.lock() = Some(sandbox);
    let (shared, entry) = (shared.clone(), entry.clone());
    let name = "sandbox";
    shared.clone().tasks.spawn(name, async move {
        loop {
            let state = states.borrow_and_update().clone();
            absorb(&shared, &entry, &state);
            shared.queue.add(entry.uid.clone());
            if !state.alive {
                return;
            }
            match stop.run_until_cancelled(states.changed()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    // The sender is gone without a last word: the shim is too.
                    let state = SandboxState { alive: false, ..Default::default() };
                    absorb(&shared, &entry, &state);
                    shared.queue.add(entry.uid.clone());
                    return;
                }
            }
        }
    });
}

pub(super) fn absorb(shared: &Arc<Shared>, entry: &Arc<Entry>, state: &SandboxState) {
    let now = shared.now();
    let pod = entry.pod.lock().clone();
    for status in state.containers.values() {
        let Some((name, attempt)) = identify(status) else { continue };
        if entry.record.lock().container(&name).attempt != attempt {
            continue;
        }
        let container = pod.as_ref().and_then(|p| find_container(p.spec.as_ref()?, &name));
        match &status.state {
            ContainerState::Created => {}
            ContainerState::Running { started_at, .. } => {
                running(shared, entry, pod.as_ref(), &name, container, time(*started_at, now));
            }
            ContainerState::Exited { code, oom_killed, started_at, finished_at, message } => {
                let reason = match (oom_killed, started_at, code) {
                    (_, None, _) => "StartError",
                    (true, ..) => "OOMKilled",
                    (_, _, 0) => "Completed",
                    _ => "Error",
                };
                let known = matches!(entry.record.lock().container(&name).run, Run::Exited(_));
                if known {
                    continue;
                }
                let message = if message.is_empty() {
                    termination_message(entry, container, &name, attempt, *code)
                } else {
                    message.clone()
                };
                let ended = Ended {
                    code: *code,
                    reason: reason.into(),
                    message,
                    started_at: started_at.map(|at| time(at, now)),
                    finished_at: time(*finished_at, now),
                    seen: now.monotonic,
                    attempt,
                };
                exited(shared, entry, pod.as_deref(), &name, ended);
            }
        }
    }
    if !state.alive {
        let mut record = entry.record.lock();
        record.lose_sandbox(now);
        if record.sandbox == SandboxPhase::Ready {
            record.sandbox = SandboxPhase::Dead;
        }
        drop(record);
        entry.probing.lock().clear();
    }
}

/// The container's name in the Pod, and which run it is.
pub(super) fn identify(status: &ContainerStatus) -> Option<(String, u32)> {
    let name = status.labels.get(container::LABEL_NAME)?.clone();
    Some((name, status.labels.get(container::LABEL_ATTEMPT)?.parse().ok()?))
}

/// The shim's nanoseconds; where they are no time at all, now is the best guess.
pub(super) fn time(nanoseconds: i128, now: Now) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(now.wall)
}

fn running(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    pod: Option<&Arc<Pod>>,
    name: &str,
    container: Option<&Container>,
    started_at: Timestamp,
) {
    let fresh = entry.with_container(name, |record| {
        if matches!(record.run, Run::Running { .. } | Run::Exited(_)) {
            return false;
        }
        let hooked = container.is_some_and(|c| post_start(c).is_some());
        record.run = Run::Running { started_at, post_start: if hooked { Hook::Pending } else { Hook::Done } };
        record.waiting = None;
        if !hooked {
            record.come_up(container);
        }
        !hooked
    });
    if fresh && let (Some(pod), Some(container)) = (pod, container) {
        start_probes(shared, entry, pod, container);
    }
}

/// Starts the probes of a container's present run.
pub(crate) fn start_probes(shared: &Arc<Shared>, entry: &Arc<Entry>, pod: &Arc<Pod>, container: &Container) {
    let stop = CancellationToken::new();
    entry.guard_run(&container.name, &stop);
    probes::start(shared, entry, pod, container, &stop);
}

fn exited(shared: &Shared, entry: &Entry, pod: Option<&Pod>, name: &str, ended: Ended) {
    entry.stop_probes(name);
    let delayed = entry.with_container(name, |record| {
        let delayed = record.ended(ended.clone()) && !record.back_off.is_zero();
        delayed && record.restart_at(&ended) > ended.seen
    });
    if let (true, Some(pod)) = (delayed, pod) {
        let message =
            format!("Back-off restarting failed container {name} in pod {}", crate::status::pod_name(pod));
        let restarts = pod.metadata.deletion_timestamp.is_none()
            && pod.spec.as_ref().is_some_and(|s| restart_policy(s) != "Never");
        if restarts && ended.code != 0 {
            shared.event(pod, Some(name), EventType::Warning, "BackOff", message);
        }
    }
}

fn termination_message(
    entry: &Entry,
    container: Option<&Container>,
    name: &str,
    attempt: u32,
    code: i32,
) -> String {
    let mut message = String::new();
    if let Ok(file) = fs::File::open(entry.dir.termination(name, attempt)) {
        let mut bytes = Vec::new();
        if file.take(MESSAGE_LIMIT).read_to_end(&mut bytes).is_ok() {
            message = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    let policy = container.and_then(|c| c.termination_message_policy.as_deref());
    if message.is_empty() && code != 0 && policy == Some("FallbackToLogsOnError") {
        message = logs::last_lines(&entry.dir.log(name, attempt), LOG_LINES, LOG_LIMIT);
    }
    message
}

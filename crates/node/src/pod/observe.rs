//! What a sandbox says of its containers, taken into the record.

use std::fs;
use std::io::Read;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use yado_oci::runtime::{Sandbox, SandboxState};
use yado_oci::spec::{ContainerState, ContainerStatus};
use yado_reconcile::events::EventType;

use super::{Actor, Done};
use crate::handle::PodHandle;
use crate::lifecycle::{Ended, Hook, Now, Run, SandboxPhase};
use crate::spec::{find_container, post_start, restart_policy};
use crate::{container, logs, probes};

/// Bytes of a termination message; Kubernetes' limit.
const MESSAGE_LIMIT: u64 = 4096;
/// Bytes of log that stand in for a termination message; Kubernetes' limit.
const LOG_LIMIT: u64 = 2048;
/// Lines of the same.
const LOG_LINES: usize = 80;

/// Waits for the next state of a sandbox that is followed. Its last state has `alive` unset; it is not followed any more then.
pub(super) async fn changed(states: &mut Option<watch::Receiver<Arc<SandboxState>>>) -> Arc<SandboxState> {
    let Some(receiver) = states else { return std::future::pending().await };
    let state = match receiver.changed().await {
        Ok(()) => receiver.borrow_and_update().clone(),
        // The sender is gone without a last word: the shim is too.
        Err(_) => Arc::new(SandboxState { alive: false, ..Default::default() }),
    };
    if !state.alive {
        *states = None;
    }
    state
}

impl Actor {
    /// Follows a new sandbox, and takes in its present state.
    pub(super) fn follow(&mut self, sandbox: Sandbox) {
        let mut states = sandbox.subscribe();
        let state = states.borrow_and_update().clone();
        self.sandbox_states = state.alive.then_some(states);
        self.state().sandbox = Some(sandbox);
        self.observe(&state);
    }

    /// Takes in what a sandbox says of its containers.
    pub(super) fn observe(&mut self, state: &SandboxState) {
        let now = self.shared.now();
        let pod = self.state.pod.clone();
        for status in state.containers.values() {
            let Some((name, attempt)) = identify(status) else { continue };
            if self.state.record.container(&name).attempt != attempt {
                continue;
            }
            let container = pod.as_ref().and_then(|p| find_container(p.spec.as_ref()?, &name));
            match &status.state {
                ContainerState::Created => {}
                ContainerState::Running { started_at, .. } => {
                    self.running(pod.as_ref(), &name, container, time(*started_at, now));
                }
                exited @ ContainerState::Exited { .. } => {
                    self.exited(pod.as_deref(), &name, container, attempt, exited, now);
                }
            }
        }
        if !state.alive {
            let record = self.record();
            record.lose_sandbox(now);
            if record.sandbox == SandboxPhase::Ready {
                record.sandbox = SandboxPhase::Dead;
            }
            self.run_guards.clear();
        }
    }

    fn running(
        &mut self,
        pod: Option<&Arc<Pod>>,
        name: &str,
        container: Option<&Container>,
        started_at: Timestamp,
    ) {
        if matches!(self.state.record.container(name).run, Run::Running { .. } | Run::Exited(_)) {
            return;
        }
        let hooked = container.is_some_and(|c| post_start(c).is_some());
        let state = self.record().container_mut(name);
        state.run = Run::Running { started_at, post_start: if hooked { Hook::Pending } else { Hook::Done } };
        state.waiting = None;
        if !hooked {
            state.come_up(container);
            if let (Some(pod), Some(container)) = (pod, container) {
                self.start_probes(pod, container);
            }
        }
    }

    /// Starts the probes of a container's current run.
    pub(super) fn start_probes(&mut self, pod: &Arc<Pod>, container: &Container) {
        let (stop, attempt) = self.guard_run(&container.name);
        let started = self.state.record.container(&container.name).started;
        // They read the state that says so.
        self.publish();
        for probe in probes::of_run(&self.shared, &self.handle, pod, container, attempt, started) {
            let stop = stop.clone();
            self.jobs.spawn(async move {
                // Boxed: the future of a probe over TLS or HTTP/2 is large, and few probes are that.
                stop.run_until_cancelled(Box::pin(probe.run())).await;
                Done::Nothing
            });
        }
    }

    fn exited(
        &mut self,
        pod: Option<&Pod>,
        name: &str,
        container: Option<&Container>,
        attempt: u32,
        state: &ContainerState,
        now: Now,
    ) {
        let ContainerState::Exited { code, oom_killed, started_at, finished_at, message } = state else {
            return;
        };
        if matches!(self.state.record.container(name).run, Run::Exited(_)) {
            return;
        }
        let reason = match (oom_killed, started_at, code) {
            (_, None, _) => "StartError",
            (true, ..) => "OOMKilled",
            (_, _, 0) => "Completed",
            _ => "Error",
        };
        let message = match message.is_empty() {
            true => termination_message(&self.handle, container, name, attempt, *code),
            false => message.clone(),
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
        self.run_guards.remove(name);
        let state = self.record().container_mut(name);
        let delayed = state.ended(ended.clone()) && !state.back_off.is_zero();
        let delayed = delayed && state.restart_at(&ended) > ended.seen;
        if let (true, Some(pod)) = (delayed, pod) {
            self.report_back_off(pod, name, ended.code);
        }
    }

    fn report_back_off(&self, pod: &Pod, name: &str, code: i32) {
        let restarts = pod.metadata.deletion_timestamp.is_none()
            && pod.spec.as_ref().is_some_and(|s| restart_policy(s) != "Never");
        if restarts && code != 0 {
            let pod_name = crate::status::pod_name(pod);
            let message = format!("Back-off restarting failed container {name} in pod {pod_name}");
            self.shared.event(pod, Some(name), EventType::Warning, "BackOff", message);
        }
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

fn termination_message(
    handle: &PodHandle,
    container: Option<&Container>,
    name: &str,
    attempt: u32,
    code: i32,
) -> String {
    let mut message = String::new();
    if let Ok(file) = fs::File::open(handle.dir.termination(name, attempt)) {
        let mut bytes = Vec::new();
        if file.take(MESSAGE_LIMIT).read_to_end(&mut bytes).is_ok() {
            message = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    let policy = container.and_then(|c| c.termination_message_policy.as_deref());
    if message.is_empty() && code != 0 && policy == Some("FallbackToLogsOnError") {
        message = logs::last_lines(&handle.dir.log(name, attempt), LOG_LINES, LOG_LIMIT);
    }
    message
}

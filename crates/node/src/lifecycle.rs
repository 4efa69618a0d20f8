//! The pure core of the Pod lifecycle: the record of a Pod's observed state, and the decision on the next actions.
//! [`decide`] reads the record, [`PodRecord::begin`] records that an action was begun; the loop in `pod` does the I/O.
//!
//! ```text
//! Absent ─Prepare▶ Preparing ─▶ Ready ─Release▶ Releasing ─▶ Released
//!                     ▲  └▶ Failed (tried again)  │
//!                     └──────── Dead ◀─ shim died ┘
//! ```

mod containers;
mod record;
mod terminate;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::spec::{is_sidecar, restart_policy};
pub(crate) use record::{
    ContainerRecord, Ended, FailureKind, Hook, PodFailure, PodRecord, ProbeKind, Probed, Run, SandboxPhase,
    Waiting,
};

/// Restart delay before the second consecutive restart; it doubles with each further one. Kubernetes' value.
pub(crate) const RESTART_FIRST: Duration = Duration::from_secs(10);
/// Maximum of the restart delay. Kubernetes' value.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(300);
/// Run time of a container after which its restart delay is reset. Kubernetes' value.
pub(crate) const RESTART_RESET: Duration = Duration::from_secs(600);
/// Time between SIGTERM and SIGKILL if the preStop hook has used up the grace period. Kubernetes' value.
const MINIMUM_AFTER_HOOK: Duration = Duration::from_secs(2);
/// Time after which SIGKILL is sent again if the container has not ended: the shim may not have received it.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// Grace period of an evicted Pod. Kubernetes' value.
const EVICTED_GRACE: Duration = Duration::from_secs(1);
/// Grace period of a Pod whose object was removed: enough for a quick exit, for which nobody waits.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// Reason in the status of a container whose exit was not observed; Kubernetes' value.
const ENDED_UNSEEN: &str = "ContainerStatusUnknown";

/// An action for a Pod. The loop begins it at once and records its result when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Create directories, volumes, network and sandbox.
    Prepare,
    /// Take down a sandbox whose shim died, so that a new one can be prepared.
    Discard,
    /// Pull the image, create the container and start it.
    Start {
        /// Name of the container.
        container: String,
    },
    /// Mark the whole Pod as failed.
    Fail {
        /// Reason in upper camel case, for the Pod's status.
        reason: &'static str,
        /// Message for the Pod's status.
        message: String,
    },
    /// Begin the termination: withdraw the Pod from traffic, and wait for that at most for the grace period.
    BeginTermination {
        /// Time until SIGKILL.
        grace: Duration,
    },
    /// Shorten the grace period, as a second deletion requested.
    Hasten {
        /// Time until SIGKILL.
        grace: Duration,
    },
    /// Begin to stop a container, which continues with [`Action::PreStop`] and [`Action::Signal`].
    BeginStop {
        /// Name of the container.
        container: String,
        /// Time until SIGKILL.
        grace: Duration,
        /// Message of the event that reports the stop.
        message: String,
    },
    /// Run a postStart hook.
    PostStart {
        /// Name of the container.
        container: String,
    },
    /// Run a preStop hook.
    PreStop {
        /// Name of the container.
        container: String,
    },
    /// Send the stop signal of the image, SIGTERM by default.
    Signal {
        /// Name of the container.
        container: String,
    },
    /// Send SIGKILL.
    Kill {
        /// Name of the container.
        container: String,
    },
    /// Remove sandbox, network and mounts. Logs are kept.
    Release,
    /// Delete the Pod's object from the API: all its processes have ended.
    Delete,
    /// Remove the Pod's files and its record.
    Forget,
}

/// A decision: the actions to begin now, and when to decide again at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The actions, in the order in which they are begun.
    pub actions: Vec<Action>,
    /// Monotonic time of the next decision if nothing changes before.
    pub wake: Option<Duration>,
}

impl Plan {
    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake_at(&mut self, at: Duration) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

/// The two clocks, read once per decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Monotonic time, for deadlines within this process.
    pub monotonic: Duration,
    /// Wall clock time, for timestamps in objects.
    pub wall: Timestamp,
}

/// How a Pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every container ended well.
    Succeeded,
    /// At least one did not, and none is restarted.
    Failed,
}

/// Decides what is next for a Pod; `pod` is `None` when its object is gone.
pub(crate) fn decide(pod: Option<&Pod>, record: &PodRecord, now: Now) -> Plan {
    let mut plan = Plan::default();
    let Some((pod, spec)) = pod.and_then(|p| Some((p, p.spec.as_ref()?))) else {
        terminate::decide(None, None, record, now, &mut plan);
        return plan;
    };
    if pod.metadata.deletion_timestamp.is_some() {
        terminate::decide(Some(pod), Some(spec), record, now, &mut plan);
    } else if record.failed.is_some() || yado_types::pod::is_ended(pod) || outcome(spec, record).is_some() {
        terminate::wind_down(spec, record, now, &mut plan);
    } else if let Some(message) = deadline_exceeded(spec, record, now, &mut plan) {
        plan.push(Action::Fail { reason: "DeadlineExceeded", message });
    } else {
        match &record.sandbox {
            SandboxPhase::Absent => plan.push(Action::Prepare),
            SandboxPhase::Failed { retry_at, .. } if *retry_at <= now.monotonic => plan.push(Action::Prepare),
            SandboxPhase::Failed { retry_at, .. } => plan.wake_at(*retry_at),
            SandboxPhase::Dead => plan.push(Action::Discard),
            SandboxPhase::Ready => containers::decide(pod, spec, record, now, &mut plan),
            SandboxPhase::Preparing | SandboxPhase::Releasing { .. } | SandboxPhase::Released => {}
        }
    }
    plan
}

fn deadline_exceeded(spec: &PodSpec, record: &PodRecord, now: Now, plan: &mut Plan) -> Option<String> {
    let seconds = spec.active_deadline_seconds?;
    let deadline = record.started_at?.as_second().saturating_add(seconds);
    let left = deadline.saturating_sub(now.wall.as_second());
    if left <= 0 {
        return Some("Pod was active on the node longer than the specified deadline".into());
    }
    plan.wake_at(now.monotonic + Duration::from_secs(left.unsigned_abs()));
    None
}

/// Whether and how the Pod has ended: no container runs and none will be started again.
pub(crate) fn outcome(spec: &PodSpec, record: &PodRecord) -> Option<Outcome> {
    if record.failed.is_some() {
        return Some(Outcome::Failed);
    }
    let policy = restart_policy(spec);
    for init in spec.init_containers.iter().flatten().filter(|c| !is_sidecar(c)) {
        match &record.container(&init.name).run {
            Run::Exited(ended) if ended.code != 0 && policy == "Never" => return Some(Outcome::Failed),
            Run::Exited(ended) if ended.code == 0 => {}
            _ => break,
        }
    }
    let mut outcome = Outcome::Succeeded;
    for container in &spec.containers {
        match &record.container(&container.name).run {
            Run::Exited(ended) if !restarts(policy, ended.code) => {
                if ended.code != 0 {
                    outcome = Outcome::Failed;
                }
            }
            _ => return None,
        }
    }
    Some(outcome)
}

fn restarts(policy: &str, code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// The restart policy of a container, after so many restarts, in the words of Pods: the Pod's own, or where that is
/// `Always` what the annotation [`yado_types::labels::RESTART`] leaves of it.
pub(crate) fn policy_of<'a>(pod: &Pod, spec: &'a PodSpec, container: &str, restarts: u32) -> &'a str {
    let policy = restart_policy(spec);
    if policy != "Always" {
        return policy;
    }
    let restart = crate::annotations::restart(pod, container);
    match (restart.again(0, restarts), restart.again(1, restarts)) {
        (true, _) => policy,
        (false, true) => "OnFailure",
        (false, false) => "Never",
    }
}

/// The container's end was its last: there is no further run for it.
pub(crate) fn is_final(pod: &Pod, container: &str, ended: &Ended) -> bool {
    let Some(spec) = pod.spec.as_ref() else { return false };
    // A process that went with its machine did not end by itself: only the Pod's own policy leaves it at that.
    let lost = ended.reason == ENDED_UNSEEN && restart_policy(spec) == "Always";
    !lost
        && spec.containers.iter().any(|c| c.name == container)
        && !restarts(policy_of(pod, spec, container, ended.attempt), ended.code)
}

#[cfg(test)]
mod tests;

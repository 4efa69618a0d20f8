//! What is known of a Pod on this machine, and what is to be done about it next. Pure: [`decide`] looks and answers,
//! [`PodRecord::begin`] notes that an action has been begun; the loop in `pod` does the rest.
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
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

pub(crate) use record::{
    ContainerRecord, Ended, FailureKind, Hook, PodFailure, PodRecord, Run, SandboxPhase, Waiting,
};

/// The delay before the second restart in a row; each further one doubles it. Kubernetes' value.
pub(crate) const RESTART_FIRST: Duration = Duration::from_secs(10);
/// The longest delay between restarts. Kubernetes' value.
pub(crate) const RESTART_LONGEST: Duration = Duration::from_secs(300);
/// A container that ran this long starts with a clean slate. Kubernetes' value.
pub(crate) const RESTART_FORGIVEN: Duration = Duration::from_secs(600);
/// What a container still gets for SIGTERM when its preStop hook used up the grace period. Kubernetes' value.
const MINIMUM_AFTER_HOOK: Duration = Duration::from_secs(2);
/// What does not end by SIGKILL gets it again this much later: the signal may not have reached its shim.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// What an evicted Pod gets between SIGTERM and SIGKILL. Kubernetes' value.
const EVICTED_GRACE: Duration = Duration::from_secs(1);
/// The grace of a Pod whose object is gone already: enough for a quick exit, and nobody waits for it any more.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// Why a container ended that nobody saw end. Kubernetes' word.
const ENDED_UNSEEN: &str = "ContainerStatusUnknown";
/// Kubernetes' default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;

/// One step. The loop begins it at once and reports its end into the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Directories, volumes, network, sandbox.
    Prepare,
    /// Take down a sandbox whose shim died, so that a new one can be prepared.
    Discard,
    /// Fetch the image, create the container, start it.
    Start {
        /// Which container.
        container: String,
    },
    /// The Pod failed as a whole.
    Fail {
        /// One word.
        reason: &'static str,
        /// One sentence.
        message: String,
    },
    /// Wait until no traffic comes any more, for as long as the grace period lasts.
    BeginTermination {
        /// Until SIGKILL.
        grace: Duration,
    },
    /// A second deletion shortened the grace period.
    Hasten {
        /// Until SIGKILL.
        grace: Duration,
    },
    /// Stop a container.
    BeginStop {
        /// Which container.
        container: String,
        /// Until SIGKILL.
        grace: Duration,
        /// For the event.
        message: String,
    },
    /// Run a postStart hook.
    PostStart {
        /// Of which container.
        container: String,
    },
    /// Run a preStop hook.
    PreStop {
        /// Of which container.
        container: String,
    },
    /// Send the stop signal.
    Signal {
        /// To which container.
        container: String,
    },
    /// Send SIGKILL.
    Kill {
        /// To which container.
        container: String,
    },
    /// Take down sandbox, network and mounts. Logs stay.
    Release,
    /// Delete the object: nothing of the Pod runs any more.
    Delete,
    /// Remove what is left on disk, and the record.
    Forget,
}

/// What to do now, and when to look again at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// As monotonic time.
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
    /// For deadlines within this process.
    pub monotonic: Duration,
    /// For what objects say.
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

/// The Pod's restart policy with Kubernetes' default.
pub(crate) fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
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

/// An init container that keeps running beside the containers.
pub(crate) fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// All containers of a Pod, init containers first.
pub(crate) fn all_containers(spec: &PodSpec) -> impl DoubleEndedIterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// The container of this name.
pub(crate) fn find_container<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    all_containers(spec).find(|c| c.name == name)
}

/// The Pod's grace period.
pub(crate) fn grace_period(spec: &PodSpec) -> Duration {
    seconds(spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE))
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(n.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests;

//! The record of a Pod: its observed state on this node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, Now, RESTART_FIRST, RESTART_MAX, RESTART_RESET};

/// The phase of a Pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SandboxPhase {
    /// It does not exist.
    #[default]
    Absent,
    /// It is being created.
    Preparing,
    /// Its shim runs and answers.
    Ready,
    /// Its creation failed.
    Failed {
        /// The cause, in one sentence.
        message: String,
        /// Monotonic time of the next attempt.
        retry_at: Duration,
    },
    /// Its shim died.
    Dead,
    /// It is being removed.
    Releasing {
        /// Whether it is created again afterwards.
        again: bool,
    },
    /// It was removed and will not be created again.
    Released,
}

/// The termination of a Pod, which has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Termination {
    /// The grace period.
    pub grace: Duration,
    /// Monotonic time at which containers get SIGKILL.
    pub deadline: Duration,
    /// Whether the Pod is withdrawn from traffic, or there was no time to wait for that.
    pub withdrawn: bool,
}

/// The observed state of a Pod on this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodRecord {
    /// The phase of its sandbox.
    pub sandbox: SandboxPhase,
    /// Whether volumes or an address may exist although the sandbox is absent: a lost sandbox leaves them, as does an earlier
    /// process of this node.
    pub holds: bool,
    /// The Pod's address, while it is attached to the network.
    pub address: Option<IpAddr>,
    /// When its preparation first began (`status.startTime`).
    pub started_at: Option<Timestamp>,
    /// Its containers by name, including init containers.
    pub containers: BTreeMap<String, ContainerRecord>,
    /// Set once its termination has begun.
    pub termination: Option<Termination>,
    /// Set if the whole Pod has failed.
    pub failed: Option<PodFailure>,
    /// Whether this node has admitted it.
    pub admitted: bool,
}

/// The failure of a whole Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFailure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// Reason in upper camel case, for the Pod's status.
    pub reason: String,
    /// Message for the Pod's status.
    pub message: String,
}

/// Kinds of failure of a whole Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The node did not admit it; nothing was started.
    Rejected,
    /// It exceeded a limit of local disk usage.
    Evicted,
    /// It ran longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
}

/// The state of a container, across all its restarts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContainerRecord {
    /// Number of the current run, from 0: the number of restarts, and part of the container's id in the sandbox.
    pub attempt: u32,
    /// Whether the run `attempt` was begun; false before the first.
    pub attempted: bool,
    /// The current run.
    pub run: Run,
    /// The end of the previous run.
    pub last: Option<Ended>,
    /// Name of the image of the current run; empty if unknown.
    pub image: String,
    /// Digest of the image of the current run.
    pub image_id: String,
    /// Number of the stop signal.
    pub stop_signal: Option<i32>,
    /// Why it cannot be started at present.
    pub waiting: Option<Waiting>,
    /// The delay before the next restart.
    pub back_off: Duration,
    /// Whether its startup probe has succeeded or it has none.
    pub started: bool,
    /// Whether its readiness probe succeeds or it has none.
    pub ready: bool,
    /// Set if a failed probe or hook requested a restart: the message of the event, and the grace period if it has its own.
    pub restart_requested: Option<(String, Option<Duration>)>,
    /// Set while it is being stopped.
    pub stop: Option<Stop>,
}

/// The phase of one run of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Run {
    /// It has not begun.
    #[default]
    Absent,
    /// The image is being pulled, or the container is being created or started.
    Starting,
    /// The container's first process runs.
    Running {
        /// When the process was started.
        started_at: Timestamp,
        /// The postStart hook. Until it is done, the container is shown as waiting, is not probed, and delays the start of
        /// the containers after it.
        post_start: Hook,
    },
    /// The first process has ended.
    Exited(Ended),
}

impl Run {
    /// Whether the first process runs and the postStart hook, if there is one, is done.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self, Self::Running { post_start: Hook::Done, .. })
    }

    /// Whether the run is neither up nor has ended.
    pub(crate) fn is_pending(&self) -> bool {
        !self.is_up() && !matches!(self, Self::Exited(_))
    }
}

/// The end of a run of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    /// Exit code; 128 plus the signal's number if the process was killed by a signal.
    pub code: i32,
    /// Reason for the container's status: `Completed`, `Error`, `OOMKilled`, `StartError` and others.
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// When the process was started; `None` if it never ran.
    pub started_at: Option<Timestamp>,
    /// When the process ended.
    pub finished_at: Timestamp,
    /// Monotonic time at which this node observed the end.
    pub seen: Duration,
    /// Number of the run.
    pub attempt: u32,
}

impl Ended {
    /// The end of a run together with its sandbox, whose exit code was not observed.
    pub(crate) fn unknown(started_at: Option<Timestamp>, attempt: u32, now: Now) -> Self {
        Self {
            code: 137,
            reason: super::ENDED_UNSEEN.into(),
            message: "The container could not be located when the pod was terminated".into(),
            started_at,
            finished_at: now.wall,
            seen: now.monotonic,
            attempt,
        }
    }
}

/// Why a container cannot be started at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Reason for the container's status, such as `ErrImagePull` or `CreateContainerConfigError`.
    pub reason: String,
    /// Message for the container's status.
    pub message: String,
    /// Monotonic time of the failure.
    pub since: Duration,
    /// Monotonic time of the next attempt.
    pub retry_at: Duration,
    /// Number of consecutive failures.
    pub failures: u32,
}

/// The stop of a container, which has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Monotonic time of the next SIGKILL.
    pub deadline: Duration,
    /// The state of its preStop hook.
    pub pre_stop: Hook,
    /// Whether the stop signal was sent.
    pub signalled: bool,
}

/// The state of a lifecycle hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// It has not been run.
    Pending,
    /// It is running.
    Running,
    /// It has ended, or there is none.
    Done,
}

/// The kinds of probe that a container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// Holds back the other probes until it has succeeded once; its failure restarts the container.
    Startup,
    /// Says whether the container gets traffic.
    Readiness,
    /// Its failure restarts the container.
    Liveness,
}

impl ProbeKind {
    /// Its name in upper camel case, as messages begin with it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// The result of a probe of one run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    /// Name of the container.
    pub container: String,
    /// Number of the run that was probed: a late result says nothing about the next run.
    pub attempt: u32,
    /// The kind of the probe.
    pub kind: ProbeKind,
    /// Whether the probe has succeeded.
    pub success: bool,
    /// Grace period of a restart that the probe causes, if it has its own.
    pub grace: Option<Duration>,
}

impl PodRecord {
    /// The record of a container; an initial one if there is none.
    pub(crate) fn container(&self, name: &str) -> &ContainerRecord {
        static FRESH: ContainerRecord = ContainerRecord {
            attempt: 0,
            attempted: false,
            run: Run::Absent,
            last: None,
            image: String::new(),
            image_id: String::new(),
            stop_signal: None,
            waiting: None,
            back_off: Duration::ZERO,
            started: false,
            ready: false,
            restart_requested: None,
            stop: None,
        };
        self.containers.get(name).unwrap_or(&FRESH)
    }

    /// The record of a container, which is created if there is none.
    pub(crate) fn container_mut(&mut self, name: &str) -> &mut ContainerRecord {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Whether a container of the Pod runs or is being started.
    pub(crate) fn is_active(&self) -> bool {
        self.containers.values().any(ContainerRecord::is_active)
    }

    /// Records that `action` has begun, so that it is not decided on again.
    pub(crate) fn begin(&mut self, action: &Action, has_pre_stop: bool, now: Now) {
        match action {
            Action::Prepare => {
                self.sandbox = SandboxPhase::Preparing;
                self.started_at.get_or_insert(now.wall);
            }
            Action::Discard => self.sandbox = SandboxPhase::Releasing { again: true },
            Action::Release => self.sandbox = SandboxPhase::Releasing { again: false },
            Action::Start { container } => self.container_mut(container).begin_run(),
            Action::Fail { reason, message } => {
                let (reason, message) = ((*reason).into(), message.clone());
                self.failed = Some(PodFailure { kind: FailureKind::DeadlineExceeded, reason, message });
            }
            Action::BeginTermination { grace } => {
                let withdrawn = self.address.is_none() || !self.is_active();
                let deadline = now.monotonic + *grace;
                self.termination = Some(Termination { grace: *grace, deadline, withdrawn });
                self.stop_by(deadline);
            }
            Action::Hasten { grace } => self.hasten(now.monotonic + *grace, *grace),
            Action::BeginStop { container, grace, .. } => {
                let pre_stop = if has_pre_stop { Hook::Pending } else { Hook::Done };
                let deadline = now.monotonic + *grace;
                let stop = Stop { deadline, pre_stop, signalled: false };
                self.container_mut(container).stop = Some(stop);
            }
            Action::PostStart { container } => self.container_mut(container).post_start(Hook::Running),
            Action::PreStop { container } => self.with_stop(container, |s| s.pre_stop = Hook::Running),
            Action::Signal { container } => self.with_stop(container, |s| {
                s.signalled = true;
                if s.deadline <= now.monotonic {
                    s.deadline = now.monotonic + super::MINIMUM_AFTER_HOOK;
                }
            }),
            Action::Kill { container } => {
                self.with_stop(container, |s| s.deadline = now.monotonic + super::KILL_AGAIN);
            }
            Action::Delete | Action::Forget => {}
        }
    }

    fn hasten(&mut self, deadline: Duration, grace: Duration) {
        if let Some(termination) = &mut self.termination {
            termination.grace = grace;
            termination.deadline = deadline;
        }
        self.stop_by(deadline);
    }

    /// Limits the deadlines of containers that are being stopped.
    fn stop_by(&mut self, deadline: Duration) {
        for stop in self.containers.values_mut().filter_map(|c| c.stop.as_mut()) {
            stop.deadline = stop.deadline.min(deadline);
        }
    }

    fn with_stop(&mut self, container: &str, change: impl FnOnce(&mut Stop)) {
        if let Some(stop) = self.containers.get_mut(container).and_then(|c| c.stop.as_mut()) {
            change(stop);
        }
    }

    /// Takes in the result of a probe of `container`. Returns whether something has changed.
    pub(crate) fn probed(&mut self, probed: &Probed, container: Option<&Container>) -> bool {
        self.containers.get_mut(&probed.container).is_some_and(|state| state.probed(probed, container))
    }

    /// Records the failure of the whole Pod, which stops it. Returns false, and changes nothing, if the Pod has failed or its
    /// termination has begun.
    pub(crate) fn fail(&mut self, failure: PodFailure) -> bool {
        if self.failed.is_some() || self.termination.is_some() {
            return false;
        }
        self.failed = Some(failure);
        true
    }

    /// Retries at `now` a preparation that has failed, and starts of containers that wait for one of `reasons`.
    pub(crate) fn retry_now(&mut self, reasons: &[&str], now: Duration) {
        if let SandboxPhase::Failed { retry_at, .. } = &mut self.sandbox {
            *retry_at = now;
        }
        for waiting in self.containers.values_mut().filter_map(|c| c.waiting.as_mut()) {
            if reasons.contains(&waiting.reason.as_str()) {
                waiting.retry_at = now;
            }
        }
    }

    /// Records the loss of the sandbox with all its processes: running containers have ended and must be restarted.
    pub(crate) fn lose_sandbox(&mut self, now: Now) {
        for container in self.containers.values_mut() {
            if let Run::Running { started_at, .. } = container.run {
                container.ended(Ended::unknown(Some(started_at), container.attempt, now));
            }
        }
    }

    /// Records that starts in progress were cancelled.
    pub(crate) fn forget_starts(&mut self) {
        for container in self.containers.values_mut().filter(|c| c.run == Run::Starting) {
            container.run = Run::Absent;
        }
    }

    /// Before a new sandbox is made in the place of a lost one: no run of the old one counts any more, but for those
    /// that have ended for good.
    pub(crate) fn start_over(&mut self, pod: Option<&Pod>) {
        self.sandbox = SandboxPhase::Absent;
        self.holds = true;
        self.address = None;
        for (name, container) in &mut self.containers {
            match std::mem::take(&mut container.run) {
                Run::Exited(ended) if pod.is_some_and(|pod| super::is_final(pod, name, &ended)) => {
                    container.run = Run::Exited(ended);
                }
                Run::Exited(ended) => container.last = Some(ended),
                _ => {}
            }
            container.stop = None;
            container.restart_requested = None;
            // What kept it from starting may have been the sandbox.
            if let Some(waiting) = &mut container.waiting {
                waiting.retry_at = Duration::ZERO;
            }
        }
    }
}

impl ContainerRecord {
    /// Whether the container is being started or runs.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.run, Run::Starting | Run::Running { .. })
    }

    /// The id of a run of a container within its sandbox.
    pub(crate) fn id(name: &str, attempt: u32) -> String {
        format!("{name}-{attempt}")
    }

    /// Notes how the postStart hook of the present run fares; of a run that has ended it says nothing.
    fn post_start(&mut self, state: Hook) {
        if let Run::Running { post_start, .. } = &mut self.run {
            *post_start = state;
        }
    }

    /// The first process runs, and the postStart hook has succeeded or there is none: probes may begin, and without
    /// probes the container is ready.
    pub(crate) fn come_up(&mut self, container: Option<&Container>) {
        self.post_start(Hook::Done);
        self.started = container.is_none_or(|c| c.startup_probe.is_none());
        self.ready = self.started && container.is_none_or(|c| c.readiness_probe.is_none());
    }

    /// Takes in the result of a probe. Returns whether something has changed.
    fn probed(&mut self, probed: &Probed, container: Option<&Container>) -> bool {
        if self.attempt != probed.attempt || !matches!(self.run, Run::Running { .. }) {
            return false;
        }
        match (probed.kind, probed.success) {
            (ProbeKind::Startup, true) => {
                self.started = true;
                self.ready = container.is_none_or(|c| c.readiness_probe.is_none());
                true
            }
            (ProbeKind::Readiness, success) => std::mem::replace(&mut self.ready, success) != success,
            (ProbeKind::Liveness, true) => false,
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let kind = probed.kind.name().to_lowercase();
                let message =
                    format!("Container {} failed {kind} probe, will be restarted", probed.container);
                self.restart_requested.get_or_insert((message, probed.grace));
                true
            }
        }
    }

    /// Takes in the end of the postStart hook of run `attempt`: success brings the container up, a failure requests its
    /// restart. A hook that ends after its run says nothing about the next one. Returns whether the container is up.
    pub(crate) fn post_start_ended(
        &mut self,
        attempt: u32,
        success: bool,
        container: Option<&Container>,
    ) -> bool {
        if self.attempt != attempt || !self.is_active() {
            return false;
        }
        match success {
            true => self.come_up(container),
            false => _ = self.restart_requested.get_or_insert_with(|| ("FailedPostStartHook".into(), None)),
        }
        self.run.is_up()
    }

    fn begin_run(&mut self) {
        if let Run::Exited(ended) = std::mem::take(&mut self.run) {
            self.last = Some(ended);
            self.back_off = self.next_back_off();
        }
        // A try that came to nothing (no image, no Secret) was no run and counts as no restart.
        if self.attempted && self.waiting.is_none() {
            self.attempt += 1;
        }
        self.attempted = true;
        self.run = Run::Starting;
        self.started = false;
        self.ready = false;
        self.restart_requested = None;
        self.stop = None;
    }

    /// The start failed before anything ran: it is tried again at `retry_at`. What runs or ran has been started by
    /// another try: this one was for a sandbox that has been lost since.
    pub(crate) fn not_started(&mut self, waiting: Waiting) {
        if matches!(self.run, Run::Running { .. } | Run::Exited(_)) {
            return;
        }
        self.run = Run::Absent;
        self.waiting = Some(waiting);
    }

    /// Its first process has ended. Returns false where that was known.
    pub(crate) fn ended(&mut self, ended: Ended) -> bool {
        if matches!(self.run, Run::Exited(_)) {
            return false;
        }
        let ran = ended.started_at.map(|s| ended.finished_at.duration_since(s));
        let forgiven = ran.is_some_and(|r| r.as_secs() >= RESTART_RESET.as_secs() as i64);
        if forgiven {
            self.back_off = Duration::ZERO;
        }
        self.run = Run::Exited(ended);
        self.waiting = None;
        self.started = false;
        self.ready = false;
        self.restart_requested = None;
        self.stop = None;
        true
    }

    /// When a run that ended is followed by the next, as monotonic time.
    pub(crate) fn restart_at(&self, ended: &Ended) -> Duration {
        ended.seen + self.back_off
    }

    /// The delay after the one that is about to pass.
    fn next_back_off(&self) -> Duration {
        if self.back_off.is_zero() { RESTART_FIRST } else { (self.back_off * 2).min(RESTART_MAX) }
    }
}

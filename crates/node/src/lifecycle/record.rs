//! What is known of a Pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, Now, RESTART_FIRST, RESTART_FORGIVEN, RESTART_LONGEST};

/// How the Pod's sandbox fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SandboxPhase {
    /// Nothing has been made yet.
    #[default]
    Absent,
    /// Being made.
    Preparing,
    /// Its shim answers.
    Ready,
    /// Making it failed.
    Failed {
        /// Why, in one sentence.
        message: String,
        /// When to try again, as monotonic time.
        retry_at: Duration,
    },
    /// Its shim died.
    Dead,
    /// Being taken down.
    Releasing {
        /// To be made anew afterwards.
        again: bool,
    },
    /// Taken down for good.
    Released,
}

/// A Pod's end, once begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Termination {
    /// The period it was begun with.
    pub grace: Duration,
    /// When containers get SIGKILL, as monotonic time.
    pub deadline: Duration,
    /// No traffic comes any more, or there was no time to wait for that.
    pub withdrawn: bool,
}

/// Everything that is known of a Pod beside its object.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodRecord {
    /// Its sandbox.
    pub sandbox: SandboxPhase,
    /// Though its sandbox is absent, volumes or an address of it may be there: a lost sandbox leaves them, and so does
    /// an earlier process of this node.
    pub holds: bool,
    /// Its address, while attached.
    pub address: Option<IpAddr>,
    /// When this node took it up.
    pub started_at: Option<Timestamp>,
    /// By name, init containers too.
    pub containers: BTreeMap<String, ContainerRecord>,
    /// Set once its deletion has begun.
    pub termination: Option<Termination>,
    /// It failed as a whole.
    pub failed: Option<PodFailure>,
    /// This node has agreed to run it.
    pub admitted: bool,
}

/// Why a Pod failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFailure {
    /// What ended it.
    pub kind: FailureKind,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// What ends a Pod as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The node cannot run it: nothing of it was begun.
    Rejected,
    /// It used more of the node's disk than it may.
    Evicted,
    /// Its time is over.
    DeadlineExceeded,
}

/// One container, over all its restarts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContainerRecord {
    /// Counts restarts; part of the container's id in the sandbox.
    pub attempt: u32,
    /// Whether `attempt` is a run that was begun; false before the first.
    pub attempted: bool,
    /// The run that `attempt` counts.
    pub run: Run,
    /// The run before it.
    pub last: Option<Ended>,
    /// The image that its run was asked for; empty where that is not known.
    pub image: String,
    /// Digest of the image it runs.
    pub image_id: String,
    /// The signal that asks it to end.
    pub stop_signal: Option<i32>,
    /// Why it is not started.
    pub waiting: Option<Waiting>,
    /// The delay before the next restart.
    pub back_off: Duration,
    /// Its startup probe has passed, or it has none.
    pub started: bool,
    /// Its readiness probe passes, or it has none.
    pub ready: bool,
    /// It must be stopped and restarted: the sentence for the event, and the grace period if it has its own.
    pub doomed: Option<(String, Option<Duration>)>,
    /// Set while it is being stopped.
    pub stop: Option<Stop>,
}

/// One run of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Run {
    /// Not begun.
    #[default]
    Absent,
    /// Its image is fetched, it is created and started.
    Starting,
    /// Its first process runs.
    Running {
        /// When it was started.
        started_at: Timestamp,
        /// Its postStart hook. Until it is done the container is shown as waiting, has no probes, and holds back those
        /// after it.
        post_start: Hook,
    },
    /// Its first process has ended.
    Exited(Ended),
}

impl Run {
    /// Its first process runs and its postStart hook, if there is one, has succeeded.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self, Self::Running { post_start: Hook::Done, .. })
    }

    /// It has neither come up nor ended yet.
    pub(crate) fn is_pending(&self) -> bool {
        !self.is_up() && !matches!(self, Self::Exited(_))
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    /// Exit code, 128 + number for a signal.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`…
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// Absent when it never ran.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// When this process learned of it, as monotonic time.
    pub seen: Duration,
    /// Which run it was.
    pub attempt: u32,
}

impl Ended {
    /// A run that ended together with its sandbox: nobody was there to see how.
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

/// Why a container does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// One word: `ErrImagePull`, `CreateContainerConfigError`…
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// When it became so, as monotonic time.
    pub since: Duration,
    /// When to try again, as monotonic time.
    pub retry_at: Duration,
    /// In a row.
    pub failures: u32,
}

/// A container being stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When it gets SIGKILL, for the first time or again, as monotonic time.
    pub deadline: Duration,
    /// Its preStop hook.
    pub pre_stop: Hook,
    /// It has got its stop signal.
    pub signalled: bool,
}

/// How a hook fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// To be run.
    Pending,
    /// Runs.
    Running,
    /// Has ended, or there is none.
    Done,
}

impl PodRecord {
    /// The container's record; a fresh one if nothing is known of it.
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
            doomed: None,
            stop: None,
        };
        self.containers.get(name).unwrap_or(&FRESH)
    }

    /// The container's record, made if absent.
    pub(crate) fn container_mut(&mut self, name: &str) -> &mut ContainerRecord {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// A process of the Pod runs or is about to.
    pub(crate) fn is_active(&self) -> bool {
        self.containers.values().any(ContainerRecord::is_active)
    }

    /// Notes that `action` has been begun, so that it is not decided on again.
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

    /// What is being stopped gets no longer than this.
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

    /// The sandbox is gone and so is every process in it: what ran has ended, and every container starts anew.
    pub(crate) fn lose_sandbox(&mut self, now: Now) {
        for container in self.containers.values_mut() {
            if let Run::Running { started_at, .. } = container.run {
                container.ended(Ended::unknown(Some(started_at), container.attempt, now));
            }
        }
    }

    /// Nothing is being started any more.
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
            container.doomed = None;
            // What kept it from starting may have been the sandbox.
            if let Some(waiting) = &mut container.waiting {
                waiting.retry_at = Duration::ZERO;
            }
        }
    }
}

impl ContainerRecord {
    /// Starting or running.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.run, Run::Starting | Run::Running { .. })
    }

    /// Its id in the sandbox.
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
        self.doomed = None;
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
        let forgiven = ran.is_some_and(|r| r.as_secs() >= RESTART_FORGIVEN.as_secs() as i64);
        if forgiven {
            self.back_off = Duration::ZERO;
        }
        self.run = Run::Exited(ended);
        self.waiting = None;
        self.started = false;
        self.ready = false;
        self.doomed = None;
        self.stop = None;
        true
    }

    /// When a run that ended is followed by the next, as monotonic time.
    pub(crate) fn restart_at(&self, ended: &Ended) -> Duration {
        ended.seen + self.back_off
    }

    /// The delay after the one that is about to pass.
    fn next_back_off(&self) -> Duration {
        if self.back_off.is_zero() { RESTART_FIRST } else { (self.back_off * 2).min(RESTART_LONGEST) }
    }
}

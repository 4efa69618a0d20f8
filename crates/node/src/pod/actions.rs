//! Decides on the next actions of a Pod and starts the job of each.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;
use yado_reconcile::events::EventType;

use super::{Actor, Done, prepare, release, start};
use crate::hooks;
use crate::lifecycle::{self, Action};
use crate::spec::{find_container, post_start, pre_stop};

/// Maximum number of consecutive decisions in a turn: more than any sequence of immediate actions needs.
const MOST_ROUNDS: usize = 8;
/// Pause after [`MOST_ROUNDS`]: a longer chain means that steps undo each other, and must not take a whole processor.
const PAUSE: Duration = Duration::from_millis(100);

impl Actor {
    /// Decides and begins actions until there is nothing to do at once. Returns whether the Pod's object is to be deleted,
    /// and the monotonic time of the next turn if nothing happens before.
    pub(super) fn decide(&mut self, pod: Option<&Pod>) -> (bool, Option<Duration>) {
        for _ in 0..MOST_ROUNDS {
            let now = self.shared.now();
            let last = self.state.pod.clone();
            let plan = lifecycle::decide(pod, &self.state.record, now);
            for action in &plan.actions {
                let hooked = matches!(action, Action::BeginStop { container, .. } if has_pre_stop(last.as_deref(), container));
                self.record().begin(action, hooked, now);
            }
            self.publish();
            for action in &plan.actions {
                tracing::debug!(pod = %self.handle.key, ?action, "begun");
                self.launch(last.as_ref(), action);
            }
            let ends = |action: &Action| matches!(action, Action::Delete | Action::Forget);
            if plan.actions.is_empty() || plan.actions.iter().any(ends) {
                return (plan.actions.contains(&Action::Delete), plan.wake);
            }
        }
        (false, Some(self.shared.clock.monotonic() + PAUSE))
    }

    /// Starts the job of an action that has been recorded as begun.
    fn launch(&mut self, pod: Option<&Arc<Pod>>, action: &Action) {
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        match (action, pod.cloned()) {
            (Action::Prepare, Some(pod)) => {
                // The preparation writes all files; what changes from now on asks again.
                self.refresh.wanted = false;
                let tokens = self.tokens.clone();
                self.making
                    .spawn(async move { Done::Prepared(prepare::run(&shared, &handle, &pod, tokens).await) });
            }
            (Action::Start { container }, Some(pod)) => self.start(pod, container),
            (Action::Discard | Action::Release, _) => self.begin_release(*action == Action::Discard),
            (Action::Fail { reason, message }, Some(pod)) => {
                self.starting.cancel();
                self.shared.event(&pod, None, EventType::Normal, reason, message.clone());
            }
            (Action::BeginTermination { grace }, pod) => {
                self.starting.cancel();
                let (address, grace) = (self.state.record.address, *grace);
                self.jobs.spawn(async move {
                    release::withdraw(&shared, &handle, pod.as_deref(), address, grace).await;
                    Done::Withdrawn
                });
            }
            (Action::BeginStop { container, message, .. }, Some(pod)) => {
                self.shared.event(&pod, Some(container), EventType::Normal, "Killing", message.clone());
                self.run_guards.remove(container);
            }
            (Action::PostStart { container }, Some(pod)) => self.run_post_start(pod, container),
            (Action::PreStop { container }, Some(pod)) => self.run_pre_stop(pod, container),
            (Action::Signal { container }, pod) => {
                let signal = self.state.record.container(container).stop_signal.unwrap_or(libc::SIGTERM);
                self.signal(pod, container, signal);
            }
            (Action::Kill { container }, pod) => self.signal(pod, container, libc::SIGKILL),
            (Action::Forget, _) => {
                self.forgetting = true;
                self.making.spawn(async move {
                    release::forget(&handle).await;
                    Done::Forgotten
                });
            }
            // Hasten is done once it is recorded; Delete follows the last status; without a Pod there is no more to do.
            (Action::Hasten { .. } | Action::Delete, _) | (_, None) => {}
        }
    }

    fn start(&mut self, pod: Arc<Pod>, container: &str) {
        let (shared, handle, container) = (self.shared.clone(), self.handle.clone(), container.to_owned());
        let attempt = self.state.record.container(&container).attempt;
        let address = self.shared.ports_address(&pod, self.state.record.address);
        let starting = self.starting.clone();
        self.jobs.spawn(async move {
            let configuring = async {
                shared.watch_sources(&handle, &pod).await;
                start::configure(&shared, &handle, &pod, &container, attempt, address).await
            };
            let configured = starting.run_until_cancelled(configuring).await.map(Box::new);
            Done::Configured { container, attempt, configured }
        });
    }

    fn begin_release(&mut self, again: bool) {
        self.starting.cancel();
        self.run_guards.clear();
        self.sandbox_states = None;
        self.state().sandbox = None;
        match self.refresh.job.is_some() {
            true => self.refresh.release = Some(again),
            false => self.release(again),
        }
    }

    /// Starts the job that removes the sandbox and, unless it is created `again`, network and mounts.
    pub(super) fn release(&mut self, again: bool) {
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        self.making.spawn(async move {
            match release::run(&shared, &handle, again).await {
                true => Done::Released { again },
                false => Done::Nothing,
            }
        });
    }

    /// Lets what belongs to the current run of a container, its postStart hook or its probes, end with the run: the token is
    /// cancelled then. Returns the token and the number of the run.
    pub(super) fn guard_run(&mut self, container: &str) -> (CancellationToken, u32) {
        let stop = CancellationToken::new();
        self.run_guards.insert(container.to_owned(), stop.clone().drop_guard());
        (stop, self.state.record.container(container).attempt)
    }

    /// Runs the postStart hook of a container's current run. As in Kubernetes a hook may take any time: one that hangs keeps
    /// its container waiting. The end of the container or of the Pod ends the hook.
    fn run_post_start(&mut self, pod: Arc<Pod>, container: &str) {
        let (shared, handle, name) = (self.shared.clone(), self.handle.clone(), container.to_owned());
        let (stop, attempt) = self.guard_run(container);
        self.jobs.spawn(async move {
            let container = pod.spec.as_ref().and_then(|spec| find_container(spec, &name));
            let hook = container.and_then(|container| Some((container, post_start(container)?)));
            let success = match hook {
                None => None,
                Some((container, hook)) => {
                    let (reason, limit) = ("FailedPostStartHook", Duration::MAX);
                    // Boxed: the future of an HTTPS request is large, and few hooks make one.
                    let run = Box::pin(hooks::run(&shared, &handle, &pod, container, hook, reason, limit));
                    stop.run_until_cancelled(run).await.map(|result| result.is_ok())
                }
            };
            Done::PostStart { container: name, attempt, success }
        });
    }

    fn run_pre_stop(&mut self, pod: Arc<Pod>, container: &str) {
        let (shared, handle, name) = (self.shared.clone(), self.handle.clone(), container.to_owned());
        let deadline = self.state.record.container(container).stop.as_ref().map(|stop| stop.deadline);
        let left = deadline.unwrap_or_default().saturating_sub(self.shared.clock.monotonic());
        self.jobs.spawn(async move {
            let container = pod.spec.as_ref().and_then(|spec| find_container(spec, &name));
            if let Some((container, hook)) = container.and_then(|c| Some((c, pre_stop(c)?))) {
                // The failure is an event; the container is stopped all the same.
                let run = hooks::run(&shared, &handle, &pod, container, hook, "FailedPreStopHook", left);
                let _ = Box::pin(run).await;
            }
            Done::PreStop { container: name }
        });
    }

    fn signal(&mut self, pod: Option<Arc<Pod>>, container: &str, signal: i32) {
        let Some((sandbox, id)) = self.state.running(container) else { return };
        let (shared, handle, name) = (self.shared.clone(), self.handle.clone(), container.to_owned());
        self.jobs.spawn(async move {
            if let Err(error) = sandbox.signal(&id, signal).await {
                tracing::warn!(pod = %handle.key, container = name, %error, "the container could not be signalled");
                if let Some(pod) = pod {
                    let message = format!("error killing pod: {error}");
                    shared.event(&pod, Some(&name), EventType::Warning, "FailedKillPod", message);
                }
            }
            Done::Nothing
        });
    }
}

fn has_pre_stop(pod: Option<&Pod>, container: &str) -> bool {
    let spec = pod.and_then(|p| p.spec.as_ref());
    let container = spec.and_then(|s| find_container(s, container));
    container.and_then(pre_stop).is_some()
}

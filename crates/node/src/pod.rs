//! The task of each Pod: the I/O around the pure [`crate::lifecycle`].
//!
//! A Pod has one task, an [`Actor`], from the moment this node learns of it until nothing is left of it. The task owns
//! everything that changes about the Pod and never waits for I/O itself: for each [`Event`] it updates its state, decides,
//! publishes the state, and starts jobs. A job is a task that belongs to the actor, gets its inputs by value, and returns its
//! result as a [`Done`], which is an event again.
//!
//! ```text
//! requests, messages (handle) ─┐                       ┌─▶ publish PodState ──▶ probes, hooks, API, eviction, admission
//! state of the sandbox ────────┼─▶ Event ▶ turn: decide ┼─▶ start jobs: prepare, configure, create, signal, release, …
//! results of jobs, timer ──────┘      ▲                └─▶ write the status (at most one write at a time)
//!                                     └──────────────────────── Done ◀──────────────┘
//! ```
//!
//! | part of the state | changed on |
//! |---|---|
//! | `record.sandbox`, `record.address`, `sandbox` | begin of an action; end of preparation and release; death of the shim |
//! | `record.containers[]` | begin of an action; end of configuration; state of the sandbox; results of probes and hooks |
//! | `record.termination`, `record.failed`, `record.admitted` | begin of an action; end of the withdrawal; eviction; admission |
//! | `pod` | change of the Pod's object |
//!
//! - `actions`: decides, and starts the job of each action.
//! - `admit`, `adopt`, `observe`, `write`: admission, takeover after a restart of the node, the sandbox's state, the status.
//! - `prepare`, `start`, `release`: the jobs. `tokens`: requests for tokens, which are a part of two jobs.

mod actions;
mod admit;
mod adopt;
mod observe;
mod prepare;
mod release;
mod start;
mod tokens;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use yado_oci::runtime::SandboxState;
use yado_reconcile::ObjectKey;
use yado_reconcile::events::EventType;

use crate::container::PodDir;
use crate::handle::{Message, PodHandle, PodInbox, PodState, Request, Requests};
use crate::lifecycle::{FailureKind, Hook, PodFailure, PodRecord, Run, SandboxPhase};
use crate::shared::Shared;
use crate::spec::find_container;
use crate::tokens::TokenCache;
use prepare::Prepared;
use start::{Configured, StartError};
use write::{StatusWriter, Written};

pub(crate) use adopt::adopt_all;
pub(crate) use release::remove_everything;

/// The task of one Pod, which alone changes the Pod's state.
struct Actor {
    shared: Arc<Shared>,
    handle: Arc<PodHandle>,
    inbox: PodInbox,
    /// The current state, shared with those who hold the published one until it is changed next.
    state: Arc<PodState>,
    /// Follows the containers of the sandbox until it is released or its shim dies.
    sandbox_states: Option<watch::Receiver<Arc<SandboxState>>>,
    /// Cancelled when no further container may be started in the current sandbox.
    starting: CancellationToken,
    /// Guards that end the postStart hook or the probes of each container's current run.
    run_guards: HashMap<String, DropGuard>,
    /// Number of consecutive failures of the preparation.
    preparation_failures: u32,
    refresh: Refresh,
    /// The tokens in the projected volumes.
    tokens: TokenCache,
    writer: StatusWriter,
    /// Jobs that create or remove something outside this process. They are not interrupted when all Pods are removed, so
    /// that what they make is found and removed, too.
    making: JoinSet<Done>,
    /// All other jobs.
    jobs: JoinSet<Done>,
    /// Whether the job runs that removes the last of the Pod.
    forgetting: bool,
    /// Monotonic time of the next turn if nothing happens before.
    wake: Option<Duration>,
}

/// The refresh of a Pod's projected files. One runs at a time: of two, the one with the older sources might write last.
#[derive(Default)]
struct Refresh {
    /// Whether the files may be outdated. They are refreshed once the sandbox is ready.
    wanted: bool,
    /// The job, while it runs.
    job: Option<task::Id>,
    /// A release that waits for the refresh, with its argument: no file is written where a tmpfs is about to be unmounted.
    release: Option<bool>,
}

/// What happens to a Pod.
enum Event {
    Requested(Requests),
    Message(Box<Message>),
    Done(Result<Done, JoinError>),
    Sandbox(Arc<SandboxState>),
    Timer,
    /// All Pods are being removed.
    Closing,
}

/// The result of a job.
enum Done {
    /// Volumes, network and sandbox were made, or could not be.
    Prepared(Prepared),
    /// A container's image was pulled and its specification computed; `None` if the start was cancelled.
    Configured { container: String, attempt: u32, configured: Option<Box<Configured>> },
    /// A container was created and started.
    Created { container: String, attempt: u32, result: Result<(), StartError> },
    /// The projected files were refreshed, or stay as they are. Returns the tokens that the Pod has.
    Refreshed(TokenCache),
    /// Traffic to the Pod was withdrawn, or there was no more time to wait for that.
    Withdrawn,
    /// A postStart hook has ended; `None` if its run ended before.
    PostStart { container: String, attempt: u32, success: Option<bool> },
    /// A preStop hook has ended.
    PreStop { container: String },
    /// A signal was sent, or probes of a run have ended.
    Nothing,
    /// The sandbox was removed and, unless it is created `again`, everything else but logs.
    Released { again: bool },
    /// The Pod's files were removed.
    Forgotten,
    /// The status was written.
    Written(Written),
}

/// The handle of a Pod whose object exists, whose task is started if it is new. Callers take turns.
pub(crate) fn ensure(shared: &Arc<Shared>, uid: &str, key: &ObjectKey) -> Arc<PodHandle> {
    if let Some(handle) = shared.handles.get(uid) {
        return handle;
    }
    let actor = Actor::new(shared, uid, key);
    let handle = actor.handle.clone();
    actor.spawn();
    handle
}

impl Actor {
    /// Creates the task of a Pod and adds its handle to the table. It does nothing before [`Actor::spawn`].
    fn new(shared: &Arc<Shared>, uid: &str, key: &ObjectKey) -> Self {
        let dir = PodDir::new(&shared.config.data_dir, uid);
        let (handle, inbox) = PodHandle::new(uid, key.clone(), dir);
        shared.handles.add(&handle);
        Self {
            shared: shared.clone(),
            handle,
            inbox,
            state: Arc::default(),
            sandbox_states: None,
            starting: CancellationToken::new(),
            run_guards: HashMap::new(),
            preparation_failures: 0,
            refresh: Refresh::default(),
            tokens: TokenCache::default(),
            writer: StatusWriter::default(),
            making: JoinSet::new(),
            jobs: JoinSet::new(),
            forgetting: false,
            wake: None,
        }
    }

    fn spawn(self) {
        self.shared.tasks.clone().spawn_until_stopped("pod", self.run());
    }

    /// Runs until nothing is left of the Pod, all Pods are removed, or the process stops.
    async fn run(mut self) {
        let stop = self.shared.tasks.stop();
        self.turn();
        while let Some(event) = stop.run_until_cancelled(self.next()).await {
            match event {
                Event::Closing => return self.close().await,
                Event::Done(Ok(Done::Forgotten)) => {
                    self.shared.handles.remove(&self.handle.uid);
                    break;
                }
                event => {
                    if self.handle(event) {
                        self.turn();
                    }
                }
            }
        }
        self.jobs.shutdown().await;
        self.making.shutdown().await;
    }

    /// Waits for the next event. Dropping the future loses none.
    async fn next(&mut self) -> Event {
        let Self { shared, handle, inbox, sandbox_states, making, jobs, wake, .. } = self;
        let timer = async {
            match *wake {
                Some(at) => shared.clock.sleep(at.saturating_sub(shared.clock.monotonic())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, so that what is known of a container's end comes after what was known of its start.
            biased;
            () = shared.closing.cancelled() => Event::Closing,
            requests = handle.requested() => Event::Requested(requests),
            Some(message) = inbox.messages.recv() => Event::Message(message),
            Some(done) = making.join_next() => Event::Done(done),
            Some(done) = jobs.join_next() => Event::Done(done),
            state = observe::changed(sandbox_states) => Event::Sandbox(state),
            () = timer => Event::Timer,
        }
    }

    /// Updates the state. Returns whether it has changed in a way that needs a turn.
    fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Requested(requests) => self.requested(requests),
            Event::Message(message) => return self.message(*message),
            Event::Done(Ok(done)) => return self.done(done),
            Event::Done(Err(error)) => {
                tracing::error!(pod = %self.handle.key, %error, "a job of the Pod has panicked");
                self.panicked(error.id());
            }
            Event::Sandbox(state) => self.observe(&state),
            Event::Timer => self.wake = None,
            Event::Closing => {}
        }
        true
    }

    fn requested(&mut self, requests: Requests) {
        self.refresh.wanted |= requests.contains(Request::RefreshFiles);
        let now = self.shared.clock.monotonic();
        let retries: [(Request, &[&str]); 3] = [
            (Request::RetryConfig, &[start::CONFIG_ERROR]),
            (Request::RetryVolumes, &[]),
            (Request::RetryImages, &["ErrImagePull", "ErrImageNeverPull"]),
        ];
        for (_, reasons) in retries.into_iter().filter(|(request, _)| requests.contains(*request)) {
            self.record().retry_now(reasons, now);
        }
    }

    fn message(&mut self, message: Message) -> bool {
        let pod = self.state.pod.clone();
        match message {
            Message::Probed(probed) => {
                let spec = pod.as_ref().and_then(|pod| pod.spec.as_ref());
                let container = spec.and_then(|spec| find_container(spec, &probed.container));
                self.record().probed(&probed, container)
            }
            Message::Evict(message) => {
                let failure = PodFailure {
                    kind: FailureKind::Evicted,
                    reason: "Evicted".into(),
                    message: message.clone(),
                };
                let failed = self.fail(failure);
                if let Some(pod) = pod.filter(|_| failed) {
                    self.shared.event(&pod, None, EventType::Warning, "Evicted", message);
                }
                failed
            }
        }
    }

    /// What only one job may do at a time can be done again. Other jobs leave no mark: the next decision starts them anew.
    fn panicked(&mut self, job: task::Id) {
        if self.refresh.job == Some(job) {
            self.refreshed();
        }
        if self.writer.job == Some(job) {
            self.not_written();
        }
    }

    fn refreshed(&mut self) {
        self.refresh.job = None;
        if let Some(again) = self.refresh.release.take() {
            self.release(again);
        }
    }

    fn done(&mut self, done: Done) -> bool {
        match done {
            Done::Prepared(prepared) => self.prepared(prepared),
            Done::Configured { container, attempt, configured } => {
                self.configured(&container, attempt, configured);
            }
            Done::Created { container, attempt, result } => {
                if let Err(error) = result {
                    self.start_failed(&container, attempt, error);
                }
            }
            Done::Refreshed(tokens) => {
                self.tokens = tokens;
                self.refreshed();
            }
            Done::Withdrawn => {
                if let Some(termination) = &mut self.record().termination {
                    termination.withdrawn = true;
                }
            }
            Done::PostStart { container, attempt, success } => {
                let Some(success) = success else { return false };
                self.post_start_ended(&container, attempt, success);
            }
            Done::PreStop { container } => {
                if let Some(stop) = &mut self.record().container_mut(&container).stop {
                    stop.pre_stop = Hook::Done;
                }
            }
            Done::Released { again } => self.released(again),
            Done::Written(written) => return self.written(written),
            Done::Nothing | Done::Forgotten => return false,
        }
        true
    }

    /// One pass: takes in the Pod's object, decides, starts jobs, and writes the status if it differs.
    fn turn(&mut self) {
        if self.forgetting || self.shared.closing.is_cancelled() {
            return;
        }
        let pod = self.shared.pod_object(&self.handle);
        if let Some(pod) = &pod {
            if !self.state.pod.as_ref().is_some_and(|known| Arc::ptr_eq(known, pod)) {
                self.state().pod = Some(pod.clone());
            }
            self.admit(pod);
        }
        let (delete, wake) = self.decide(pod.as_deref());
        self.publish();
        self.wake = wake;
        if let Some(pod) = &pod {
            self.schedule_tokens(pod);
            self.refresh_files(pod);
            self.write(pod, delete);
        }
    }

    /// The state, to be changed. Readers see the change with the next [`Actor::publish`].
    fn state(&mut self) -> &mut PodState {
        Arc::make_mut(&mut self.state)
    }

    fn record(&mut self) -> &mut PodRecord {
        &mut self.state().record
    }

    /// Lets everybody else see the state. It is called before jobs are started, which may read it.
    fn publish(&self) {
        let known = Arc::ptr_eq(&self.state, &self.inbox.state.borrow());
        if !known {
            self.inbox.state.send_replace(self.state.clone());
        }
    }

    /// Records that the whole Pod has failed, which stops it; returns false if it has failed or ends already.
    fn fail(&mut self, failure: PodFailure) -> bool {
        let failed = self.record().fail(failure);
        if failed {
            self.starting.cancel();
        }
        failed
    }

    fn prepared(&mut self, prepared: Prepared) {
        self.tokens = prepared.tokens;
        if let Some(address) = prepared.address {
            self.record().address = Some(address);
        }
        match prepared.result {
            Ok(sandbox) => {
                self.preparation_failures = 0;
                self.record().sandbox = SandboxPhase::Ready;
                self.follow(sandbox);
            }
            Err(error) => {
                if let Some(pod) = self.state.pod.clone() {
                    self.shared.event(&pod, None, EventType::Warning, error.reason, error.message.clone());
                }
                let retry_at =
                    self.shared.clock.monotonic() + prepare::retry_delay(self.preparation_failures);
                self.preparation_failures += 1;
                self.record().sandbox = SandboxPhase::Failed { message: error.message, retry_at };
            }
        }
    }

    fn configured(&mut self, container: &str, attempt: u32, configured: Option<Box<Configured>>) {
        let state = self.state.record.container(container);
        // A start that was cancelled, and the sandbox of which was made anew since.
        if state.attempt != attempt || state.run != Run::Starting {
            return;
        }
        let Some(configured) = configured.filter(|_| !self.starting.is_cancelled()) else {
            // The Pod or its sandbox is ending: nothing has been created, and this was no run.
            let now = self.shared.clock.monotonic();
            return self.record().container_mut(container).not_started(start::abandoned(now));
        };
        let Configured { image, specification } = *configured;
        if let Some(image) = image {
            let state = self.record().container_mut(container);
            state.image = image.name;
            state.image_id = image.id;
            state.stop_signal = Some(image.stop_signal);
        }
        match (specification, self.state.sandbox.clone(), self.state.pod.clone()) {
            (Ok(specification), Some(sandbox), Some(pod)) => {
                let (shared, handle, container) =
                    (self.shared.clone(), self.handle.clone(), container.to_owned());
                self.making.spawn(async move {
                    let result =
                        start::create(&shared, &handle, &pod, &sandbox, &container, attempt, specification)
                            .await;
                    Done::Created { container, attempt, result }
                });
            }
            (Ok(_), ..) => self.start_failed(container, attempt, StartError::sandbox_gone()),
            (Err(error), ..) => self.start_failed(container, attempt, error),
        }
    }

    fn start_failed(&mut self, container: &str, attempt: u32, error: StartError) {
        if self.state.record.container(container).attempt != attempt {
            return;
        }
        if let Some(pod) = self.state.pod.clone().filter(|_| error.reason == start::CONFIG_ERROR) {
            let message = format!("Error: {}", error.message);
            self.shared.event(&pod, Some(container), EventType::Warning, "Failed", message);
        }
        let now = self.shared.clock.monotonic();
        let state = self.record().container_mut(container);
        let failures = state.waiting.as_ref().map_or(0, |w| w.failures + 1);
        state.not_started(error.waiting(failures, now));
    }

    fn post_start_ended(&mut self, container: &str, attempt: u32, success: bool) {
        let Some(pod) = self.state.pod.clone() else { return };
        let found = pod.spec.as_ref().and_then(|spec| find_container(spec, container));
        let state = self.record().container_mut(container);
        if state.post_start_ended(attempt, success, found)
            && let Some(found) = found
        {
            self.start_probes(&pod, found);
        }
    }

    fn released(&mut self, again: bool) {
        let (now, pod) = (self.shared.now(), self.state.pod.clone());
        let record = self.record();
        record.lose_sandbox(now);
        if again {
            record.start_over(pod.as_deref());
            self.starting = CancellationToken::new();
        } else {
            record.sandbox = SandboxPhase::Released;
            record.forget_starts();
        }
    }

    /// Refreshes the projected files if they may be outdated and the sandbox is ready.
    fn refresh_files(&mut self, pod: &Arc<Pod>) {
        let ready = self.state.record.sandbox == SandboxPhase::Ready;
        if !self.refresh.wanted || self.refresh.job.is_some() || !ready {
            return;
        }
        self.refresh.wanted = false;
        let address = self.shared.ports_address(pod, self.state.record.address);
        let (shared, handle, pod) = (self.shared.clone(), self.handle.clone(), pod.clone());
        let mut tokens = self.tokens.clone();
        let job = self.jobs.spawn(async move {
            shared.watch_sources(&handle, &pod).await;
            prepare::refresh(&shared, &handle, &pod, address, &mut tokens).await;
            Done::Refreshed(tokens)
        });
        self.refresh.job = Some(job.id());
    }

    /// Stops the containers, as part of the removal of all Pods.
    async fn close(mut self) {
        self.starting.cancel();
        self.run_guards.clear();
        self.jobs.shutdown().await;
        // What is half made is finished first, so that it is found and removed, too.
        while let Some(done) = self.making.join_next().await {
            if let Ok(Done::Prepared(Prepared { result: Ok(sandbox), .. })) = done {
                self.state().sandbox = Some(sandbox);
            }
        }
        if let Some(sandbox) = &self.state.sandbox {
            release::stop_containers(sandbox).await;
        }
    }
}

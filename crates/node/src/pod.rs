//! The I/O of Pods around the pure [`crate::lifecycle`]: for each queued uid it decides, begins the actions and writes the
//! status.

mod admit;
mod adopt;
mod observe;
mod prepare;
mod release;
mod start;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMap, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, Secret,
    Service,
};
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use yado_oci::runtime::{Runtime, Sandbox};
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Clock, Informer, Next, ObjectKey, Queue, Tasks, revision_of};

use crate::container::PodDir;
use crate::environment::{Facts, Scope, Sources};
use crate::hostfiles::ClusterDns;
use crate::images::Images;
use crate::lifecycle::{self, Action, ContainerRecord, Now, PodFailure, PodRecord, Run};
use crate::machine::Machine;
use crate::network::{PodNetwork, Traffic};
use crate::spec::{find_container, pre_stop};
use crate::{hooks, status, volumes};

/// Maximum number of consecutive decisions for one Pod in a pass: more than any sequence of immediate actions needs.
const MOST_ROUNDS: usize = 8;

/// The services and state that all Pods of a node share.
pub(crate) struct Shared {
    pub config: crate::Config,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub client: kube::Client,
    pub pods: Arc<Informer<Pod>>,
    pub config_maps: Arc<Informer<ConfigMap>>,
    pub secrets: Arc<Informer<Secret>>,
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    pub volumes: Arc<Informer<PersistentVolume>>,
    pub services: Arc<Informer<Service>>,
    pub nodes: Arc<Informer<Node>>,
    pub images: Images,
    pub runtime: Runtime,
    pub network: Arc<dyn PodNetwork>,
    pub traffic: Arc<dyn Traffic>,
    pub recorder: Recorder,
    pub queue: Arc<Queue<String>>,
    pub dns: ClusterDns,
    pub machine: Machine,
    /// Entries by the Pod's uid. An entry is removed after its Pod.
    pub entries: Mutex<HashMap<String, Arc<Entry>>>,
    pub fill_locks: volumes::copy_up::FillLocks,
    /// Held during the admission of a Pod, so that two Pods do not get the same resources.
    pub admitting: Mutex<()>,
    /// Cancelled when the removal of all Pods begins, after which no actions are begun.
    pub closing: CancellationToken,
    /// Locked for reading while resources are created or removed, and for writing by the removal of all Pods.
    pub making: tokio::sync::RwLock<()>,
}

/// A Pod of this node: its record and the handles of its tasks.
pub(crate) struct Entry {
    pub uid: String,
    pub key: ObjectKey,
    pub dir: PodDir,
    pub record: Mutex<PodRecord>,
    pub sandbox: Mutex<Option<Sandbox>>,
    /// The last observed object, which is needed to stop a Pod whose object was removed.
    pub pod: Mutex<Option<Arc<Pod>>>,
    /// Cancelled when no further container may be started in the current sandbox.
    starting: Mutex<CancellationToken>,
    /// Ends the task that watches the sandbox.
    watching: Mutex<Option<DropGuard>>,
    /// Guards that end the postStart hook or the probes of each container's current run.
    probing: Mutex<HashMap<String, DropGuard>>,
    /// Number of consecutive failures of the preparation.
    preparation_failures: Mutex<u32>,
    /// Held from reading ConfigMaps and Secrets until their files are written: of two concurrent writers, the one with the
    /// older state might write last.
    refreshing: tokio::sync::Mutex<()>,
    /// Whether a source of the Pod's files has changed while the Pod was being prepared.
    stale: AtomicBool,
    /// The status last written, with its revision.
    written: Mutex<Option<(u64, PodStatus)>>,
}

/// An error after which a Pod is reconciled again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server did not take a write.
    #[error("the API server did not take the {what} of Pod {pod}: {error}")]
    Write { what: &'static str, pod: ObjectKey, error: kube::Error },
}

impl Entry {
    pub(crate) fn new(shared: &Shared, uid: &str, key: ObjectKey) -> Arc<Self> {
        Arc::new(Self {
            uid: uid.to_owned(),
            key,
            dir: PodDir::new(&shared.config.data_dir, uid),
            record: Mutex::default(),
            sandbox: Mutex::default(),
            pod: Mutex::default(),
            starting: Mutex::default(),
            watching: Mutex::default(),
            probing: Mutex::default(),
            preparation_failures: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            stale: AtomicBool::new(false),
            written: Mutex::default(),
        })
    }

    /// Changes the record of a container.
    pub(crate) fn with_container<R>(&self, name: &str, change: impl FnOnce(&mut ContainerRecord) -> R) -> R {
        change(self.record.lock().container_mut(name))
    }

    /// The sandbox, and the id of the container's present run, while it runs.
    pub(crate) fn running(&self, name: &str) -> Option<(Sandbox, String)> {
        let attempt = {
            let record = self.record.lock();
            let state = record.container(name);
            matches!(state.run, Run::Running { .. }).then_some(state.attempt)?
        };
        Some((self.sandbox.lock().clone()?, ContainerRecord::id(name, attempt)))
    }

    /// The container's startup probe has passed.
    pub(crate) fn is_started(&self, name: &str) -> bool {
        self.record.lock().container(name).started
    }

    /// Notes that the Pod has failed as a whole, which stops it; false where it has failed or ended already.
    pub(crate) fn fail(&self, failure: PodFailure) -> bool {
        let mut record = self.record.lock();
        if record.failed.is_some() || record.termination.is_some() {
            return false;
        }
        record.failed = Some(failure);
        drop(record);
        self.stop_starting();
        true
    }

    /// Starts that have not created anything yet are given up.
    fn stop_starting(&self) {
        self.starting.lock().cancel();
    }

    /// Whatever goes on around the present run of a container, its hook or its probes, ends with that run by `stop`.
    /// Returns which run that is.
    pub(crate) fn guard_run(&self, name: &str, stop: &CancellationToken) -> u32 {
        self.probing.lock().insert(name.to_owned(), stop.clone().drop_guard());
        self.record.lock().container(name).attempt
    }

    fn stop_probes(&self, name: &str) {
        self.probing.lock().remove(name);
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.clock.monotonic(), wall: self.clock.now() }
    }

    /// The entry of this Pod, made if it is new.
    pub(crate) fn entry(&self, uid: &str, key: &ObjectKey) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        entries.entry(uid.to_owned()).or_insert_with(|| Entry::new(self, uid, key.clone())).clone()
    }

    /// The entry of the Pod of this name, of the newest if there are two.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<(Arc<Entry>, Arc<Pod>)> {
        let pod = self.pods.get(&ObjectKey::new(namespace, name))?;
        let entry = self.entries.lock().get(pod.metadata.uid.as_deref()?)?.clone();
        Some((entry, pod))
    }

    /// Records an event about a Pod, or about one of its containers.
    pub(crate) fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let spec = pod.spec.as_ref();
        let field_path = container.map(|name| {
            let init = spec.is_some_and(|s| s.init_containers.iter().flatten().any(|c| c.name == name));
            format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
        });
        let object = ObjectReference { field_path, ..pod.object_ref(&()) };
        self.recorder.event(&object, kind, reason, message);
    }

    /// The address at which a Pod's ports are.
    pub(crate) fn pod_address(&self, entry: &Entry, pod: &Pod) -> Option<IpAddr> {
        let host = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        if host { Some(self.machine.address) } else { entry.record.lock().address }
    }

    /// What a Pod's variables and files are made of, given to `use_it`.
    pub(crate) fn with_scope<R>(&self, entry: &Entry, pod: &Pod, use_it: impl FnOnce(&Scope) -> R) -> R {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let facts = Facts {
            node_name: self.config.name.clone(),
            host_ip: self.machine.address,
            pod_ip: self.pod_address(entry, pod),
            allocatable_cpu: self.machine.cpu,
            allocatable_memory: self.machine.memory,
        };
        let mut services = self.services.in_namespace(&namespace);
        if namespace != "default" {
            services.extend(self.services.get(&ObjectKey::new("default", "kubernetes")));
        }
        let sources = NamespaceSources { shared: self, namespace };
        use_it(&Scope { pod, facts: &facts, sources: &sources, services: &services })
    }

    /// One turn for a Pod.
    pub(crate) async fn reconcile(self: Arc<Self>, uid: String) -> Result<Next, Error> {
        if self.closing.is_cancelled() {
            return Ok(Next::Wait);
        }
        let Some(entry) = self.entries.lock().get(&uid).cloned() else { return Ok(Next::Wait) };
        let pod = self.pods.get(&entry.key).filter(|p| p.metadata.uid.as_deref() == Some(&uid));
        if let Some(pod) = &pod {
            *entry.pod.lock() = Some(pod.clone());
            self.admit(&entry, pod);
        }
        let (actions, wake) = self.decide(&entry, pod.as_deref());
        if let Some(pod) = &pod {
            self.write_status(&entry, pod).await?;
            if actions.contains(&Action::Delete) {
                self.delete(&entry).await?;
            }
        }
        let now = self.clock.monotonic();
        Ok(wake.map_or(Next::Wait, |at| Next::After(at.saturating_sub(now))))
    }

    /// Decides and begins until there is nothing to do at once. Returns what was begun, and when to look again.
    fn decide(self: &Arc<Self>, entry: &Arc<Entry>, pod: Option<&Pod>) -> (Vec<Action>, Option<Duration>) {
        let mut begun = Vec::new();
        for _ in 0..MOST_ROUNDS {
            let now = self.now();
            let last = entry.pod.lock().clone();
            let plan = {
                let mut record = entry.record.lock();
                let plan = lifecycle::decide(pod, &record, now);
                for action in &plan.actions {
                    let hooked = matches!(action, Action::BeginStop { container, .. } if has_pre_stop(last.as_deref(), container));
                    record.begin(action, hooked, now);
                }
                plan
            };
            for action in &plan.actions {
                tracing::debug!(pod = %entry.key, ?action, "begun");
                self.launch(entry, last.as_ref(), action);
            }
            let ends = |action: &Action| matches!(action, Action::Delete | Action::Forget);
            let quiet = plan.actions.is_empty() || plan.actions.iter().any(ends);
            begun.extend(plan.actions);
            if quiet {
                return (begun, plan.wake);
            }
        }
        // A chain this long means that steps undo each other: they go on, but after everybody else's.
        (begun, Some(self.clock.monotonic() + Duration::from_millis(100)))
    }

    /// Starts what an action takes; whoever ends it writes into the record and wakes the Pod.
    fn launch(self: &Arc<Self>, entry: &Arc<Entry>, pod: Option<&Arc<Pod>>, action: &Action) {
        let (shared, entry) = (self.clone(), entry.clone());
        match (action, pod.cloned()) {
            (Action::Prepare, Some(pod)) => self.tasks.spawn("prepare", prepare::run(shared, entry, pod)),
            (Action::Start { container }, Some(pod)) => {
                let container = container.clone();
                self.tasks.spawn("start", start::run(shared, entry, pod, container));
            }
            (Action::Discard | Action::Release, _) => {
                entry.stop_starting();
                self.tasks.spawn("release", release::run(shared, entry, *action == Action::Discard));
            }
            (Action::Fail { reason, message }, Some(pod)) => {
                entry.stop_starting();
                self.event(&pod, None, EventType::Normal, reason, message.clone());
            }
            (Action::BeginTermination { grace }, _) => {
                entry.stop_starting();
                let grace = *grace;
                self.tasks.spawn("withdraw", async move { release::withdraw(shared, entry, grace).await });
            }
            (Action::BeginStop { container, message, .. }, Some(pod)) => {
                self.event(&pod, Some(container), EventType::Normal, "Killing", message.clone());
                entry.stop_probes(container);
            }
            (Action::PostStart { container }, Some(pod)) => {
                // Before the next run can begin, whose guard would otherwise be replaced.
                let stop = CancellationToken::new();
                let run = hooks::OfRun {
                    container: container.clone(),
                    attempt: entry.guard_run(container, &stop),
                    stop,
                };
                self.tasks.spawn("postStart", hooks::run_post_start(shared, entry, pod, run));
            }
            (Action::PreStop { container }, Some(pod)) => {
                let container = container.clone();
                self.tasks.spawn("preStop", release::pre_stop(shared, entry, pod, container));
            }
            (Action::Signal { container }, _) => {
                let signal = entry.record.lock().container(container).stop_signal.unwrap_or(libc::SIGTERM);
                self.tasks.spawn("signal", release::signal(shared, entry, container.clone(), signal));
            }
            (Action::Kill { container }, _) => {
                self.tasks.spawn("kill", release::signal(shared, entry, container.clone(), libc::SIGKILL));
            }
            (Action::Forget, _) => self.tasks.spawn("forget", release::forget(shared, entry)),
            // Hasten is done once noted; Delete follows the last status; without a Pod there is no more to say.
            (Action::Hasten { .. } | Action::Delete, _) | (_, None) => {}
        }
    }

    async fn write_status(&self, entry: &Entry, pod: &Pod) -> Result<(), Error> {
        let revision = revision_of(pod.metadata.resource_version.as_deref());
        let known = {
            let written = entry.written.lock();
            let newer = written.as_ref().filter(|(at, _)| *at > revision);
            newer.map_or_else(|| pod.status.clone().unwrap_or_default(), |(_, status)| status.clone())
        };
        let view =
            Pod { status: Some(known.clone()), metadata: pod.metadata.clone(), spec: pod.spec.clone() };
        let wanted = status::of(&view, &entry.record.lock(), self.machine.address, self.now());
        let Some(changes) = status::difference(&known, &wanted) else { return Ok(()) };
        let patch = serde_json::json!({"metadata": {"uid": entry.uid}, "status": changes});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &entry.key.namespace);
        match api.patch_status(&entry.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(new) => {
                let at = revision_of(new.metadata.resource_version.as_deref());
                *entry.written.lock() = Some((at, new.status.unwrap_or_default()));
                Ok(())
            }
            // Gone, or of the same name but another: the watch will say so.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(Error::Write { what: "status", pod: entry.key.clone(), error }),
        }
    }

    async fn delete(&self, entry: &Entry) -> Result<(), Error> {
        let preconditions = Preconditions { uid: Some(entry.uid.clone()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &entry.key.namespace);
        match api.delete(&entry.key.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(Error::Write { what: "deletion", pod: entry.key.clone(), error }),
        }
    }

    /// A claim or its volume has changed: Pods that wait for it are tried again.
    pub(crate) fn claim_changed(&self, namespace: &str, name: &str) {
        let entries: Vec<_> =
            self.entries.lock().values().filter(|e| e.key.namespace == namespace).cloned().collect();
        for entry in entries {
            let pod = entry.pod.lock().clone();
            if pod.is_some_and(|pod| volumes::references(&pod).claims.contains(name)) {
                self.retry_now(&entry, &[]);
            }
        }
    }

    /// A ConfigMap or Secret has changed: Pods that refer to it are tried again, and their files refreshed.
    pub(crate) fn source_changed(self: &Arc<Self>, namespace: &str, name: &str, secret: bool) {
        let entries: Vec<_> =
            self.entries.lock().values().filter(|e| e.key.namespace == namespace).cloned().collect();
        for entry in entries {
            let Some(pod) = entry.pod.lock().clone() else { continue };
            let references = volumes::references(&pod);
            let of_kind = if secret { &references.secrets } else { &references.config_maps };
            if of_kind.contains(name) {
                self.retry_now(&entry, &[start::CONFIG_ERROR]);
                self.refresh(entry);
            }
        }
    }

    /// Brings a running Pod's projected files up to date, as a task.
    pub(crate) fn refresh(self: &Arc<Self>, entry: Arc<Entry>) {
        self.tasks.spawn("refresh", prepare::refresh(self.clone(), entry));
    }

    /// Images have come to this machine: Pods that lack one are tried again.
    pub(crate) fn images_changed(&self) {
        let entries: Vec<_> = self.entries.lock().values().cloned().collect();
        for entry in entries {
            self.retry_now(&entry, &["ErrImagePull", "ErrImageNeverPull"]);
        }
    }

    /// What failed for want of something, by these reasons, is tried again at once.
    fn retry_now(&self, entry: &Entry, reasons: &[&str]) {
        let now = self.clock.monotonic();
        let mut record = entry.record.lock();
        if let lifecycle::SandboxPhase::Failed { retry_at, .. } = &mut record.sandbox {
            *retry_at = now;
        }
        for waiting in record.containers.values_mut().filter_map(|c| c.waiting.as_mut()) {
            if reasons.contains(&waiting.reason.as_str()) {
                waiting.retry_at = now;
            }
        }
        drop(record);
        self.queue.add(entry.uid.clone());
    }
}

fn has_pre_stop(pod: Option<&Pod>, container: &str) -> bool {
    let spec = pod.and_then(|p| p.spec.as_ref());
    let container = spec.and_then(|s| find_container(s, container));
    container.and_then(pre_stop).is_some()
}

struct NamespaceSources<'a> {
    shared: &'a Shared,
    namespace: String,
}

impl Sources for NamespaceSources<'_> {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.shared.config_maps.get(&ObjectKey::new(&self.namespace, name))
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.shared.secrets.get(&ObjectKey::new(&self.namespace, name))
    }

    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.shared.claims.get(&ObjectKey::new(&self.namespace, name))
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.shared.volumes.get(&ObjectKey::new("", name))
    }
}

pub(crate) use adopt::adopt_all;
pub(crate) use observe::start_probes;
pub(crate) use release::remove_everything;

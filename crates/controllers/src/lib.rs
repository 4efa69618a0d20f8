//! The workload controllers and the scheduler.
//!
//! ```text
//! [Deployment] -> [ReplicaSet] -> [Pod] <- scheduler <- [Node] <- node lifecycle <- [Lease]
//!   [ReplicationController], [DaemonSet], [Job] -^  |  ^- [PersistentVolumeClaim] <-> [PersistentVolume]
//!                     [CronJob] -> [Job]
//!                     [Service] -> [EndpointSlice]
//!                 [StatefulSet] -> [Pod] with its own [PersistentVolumeClaim]s
//!                 [ClusterRole] -> [ClusterRole] that aggregates
//!   [CertificateSigningRequest] -> its certificate
//!
//! garbage collection, namespace deletion: over every kind the server has
//! ```
//!
//! Each controller has a pure core, `reconcile(observed) -> actions`, and an I/O part (most in a module `run`) that feeds a
//! work queue from the shared informers, calls the core for each key, and applies its actions. [`start`] starts them.
//!
//! Of several processes one runs the controllers and one the scheduler ([`Part`]): the leader of the part's Lease.

pub mod certificate;
mod cluster_role;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod endpoints;
mod garbage;
pub mod job;
mod kinds;
pub mod namespace;
pub mod node;
mod owners;
mod pod_gc;
mod pods;
pub mod replicaset;
pub mod scheduler;
mod service_account;
pub mod statefulset;
mod token_secret;
pub mod volume;
mod writes;

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use yado_reconcile::events::Recorder;
use yado_reconcile::{Clock, Index, Informers, Next, Queue, Tasks};
use yado_types::taints;

/// Configuration of the controllers.
#[derive(Clone, Debug)]
pub struct Config {
    /// A node that has sent no heartbeat and renewed no lease for this long is marked as unreachable.
    pub node_grace: Duration,
    /// How long a Pod stays on a node that is not ready or unreachable, if its tolerations do not say.
    pub eviction_grace: Duration,
    /// How long a Pod whose Node object does not exist is kept: the node may register again under its name.
    pub lost_node_grace: Duration,
    /// Maximum number of ended Pods that are kept for their logs and exit codes; older ones are deleted.
    pub ended_pods_kept: usize,
    /// The API server's CA certificate in PEM, published in every namespace as ConfigMap `kube-root-ca.crt`.
    pub root_ca: Option<String>,
    /// Provides directories for volumes of the provisioner `LOCAL_PROVISIONER`. Without it, no volumes are provisioned,
    /// and claims are only bound to existing ones.
    pub directories: Option<Arc<dyn volume::Directories>>,
    /// The time zone of a CronJob's schedule that names none.
    pub time_zone: TimeZone,
    /// Issues certificates. Without it, no CertificateSigningRequest is signed.
    pub authority: Option<Arc<dyn certificate::Authority>>,
}

impl Default for Config {
    /// The defaults of Kubernetes (its schedules follow the local time of this machine), without a root CA and without provisioning.
    fn default() -> Self {
        Self {
            node_grace: Duration::from_secs(40),
            eviction_grace: Duration::from_secs(300),
            lost_node_grace: Duration::from_secs(40),
            ended_pods_kept: 12_500,
            root_ca: None,
            directories: None,
            time_zone: TimeZone::system(),
            authority: None,
        }
    }
}

/// The client, informers, clock and task owner that all controllers share.
#[derive(Clone)]
pub(crate) struct Context {
    client: Client,
    informers: Informers,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    config: Arc<Config>,
    /// Pods by their controller's uid.
    pods_of: Arc<Index<String, Pod>>,
    /// Pods without a controller, by namespace.
    orphans: Arc<Index<String, Pod>>,
    /// ReplicaSets by their controller's uid.
    sets_of: Arc<Index<String, ReplicaSet>>,
}

impl Context {
    /// The same with the client of one controller.
    fn acting_as(&self, client: Client) -> Self {
        Self { informers: self.informers.acting_as(client.clone()), client, ..self.clone() }
    }

    fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.client.clone(), component, "", self.clock.clone(), &self.tasks)
    }

    /// Runs `reconcile` for the keys of `queue` with this many workers. A failure is retried, unless the reason is that
    /// the namespace is being deleted.
    fn run<Q, F, W>(&self, name: &'static str, queue: &Arc<Queue<Q>>, workers: usize, reconcile: F)
    where
        Q: Clone + Eq + Ord + Hash + Debug + Send + Sync + 'static,
        F: Fn(Q) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = Result<Next, kube::Error>> + Send,
    {
        yado_reconcile::run(&self.tasks, name, queue, workers, move |key| {
            let work = reconcile(key);
            async move {
                match work.await {
                    Err(error) if writes::namespace_is_terminating(&error) => Ok(Next::Wait),
                    other => other,
                }
            }
        });
    }
}

/// The two parts that have a leader each, as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All controllers.
    Controllers,
    /// The scheduler.
    Scheduler,
}

impl Part {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Controllers, Self::Scheduler];

    /// The name of its Lease, and of the identity that renews it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controllers => "kube-controller-manager",
            Self::Scheduler => SCHEDULER,
        }
    }
}

/// Starts the controllers, or the scheduler. Each writes with the client that `client_of` gives for its name, so that each
/// has an identity and rights of its own; they share the watches of `informers`. `tasks` owns their tasks.
pub fn start(
    part: Part,
    informers: &Informers,
    client_of: impl Fn(&'static str) -> Client,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
    config: Config,
) {
    let by_controller =
        |meta: &ObjectMeta| owners::controller_uid(meta).map(str::to_owned).into_iter().collect();
    let shared = Context {
        pods_of: informers.all::<Pod>().index(move |p| by_controller(&p.metadata)),
        orphans: informers.all::<Pod>().index(|p: &Pod| match owners::controller_of(&p.metadata) {
            None => p.metadata.namespace.iter().cloned().collect(),
            Some(_) => Vec::new(),
        }),
        sets_of: informers.all::<ReplicaSet>().index(move |s| by_controller(&s.metadata)),
        client: informers.client().clone(),
        informers: informers.owned_by(tasks.clone()),
        clock,
        tasks: tasks.clone(),
        config: Arc::new(config),
    };
    let of_part = |name: &str| (name == SCHEDULER) == (part == Part::Scheduler);
    for (name, start) in CONTROLLERS.into_iter().filter(|(name, _)| of_part(name)) {
        start(&shared.acting_as(client_of(name)));
    }
}

const SCHEDULER: &str = "kube-scheduler";

/// A controller: its name and what starts it.
type Controller = (&'static str, fn(&Context));

/// Every controller by its name, which is that of its identity.
const CONTROLLERS: [Controller; 17] = [
    ("deployment-controller", deployment::start),
    ("replicaset-controller", replicaset::start),
    ("daemon-set-controller", daemonset::start),
    ("statefulset-controller", statefulset::start),
    ("job-controller", job::start),
    ("cronjob-controller", cronjob::start),
    ("persistent-volume-binder", volume::start),
    (SCHEDULER, scheduler::start),
    ("endpointslice-controller", endpoints::start),
    ("service-account-controller", service_account::start),
    ("token-controller", token_secret::start),
    ("certificate-controller", certificate::start),
    ("clusterrole-aggregation-controller", cluster_role::start),
    ("namespace-controller", namespace::start),
    ("generic-garbage-collector", garbage::start),
    ("node-controller", node::start),
    ("pod-garbage-collector", pod_gc::start),
];

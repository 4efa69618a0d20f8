//! The node as its owner sees it: made, started, spoken to, removed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMap, Node as NodeObject, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use yado_oci::image::ImageStore;
use yado_oci::runtime::Runtime;
use yado_oci::spec::HostRoot;
use yado_reconcile::events::Recorder;
use yado_reconcile::{Change, Clock, Informers, ObjectKey, Queue, Tasks, run};
use yado_types::sysctls::AllowedSysctls;

use crate::hostfiles::ClusterDns;
use crate::images::Images;
use crate::machine::Machine;
use crate::network::{PodNetwork, Traffic};
use crate::pod::{self, Shared};
use crate::{api, container, eviction, registration, volumes};

/// Pods worked on at the same time. A turn is short: whatever takes time runs as a task of its own.
const WORKERS: usize = 8;
/// Grace period of containers when all Pods are removed.
const REMOVAL_GRACE: Duration = Duration::from_secs(2);

/// Configuration of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub name: String,
    /// Directory of the Pods' volumes and logs, which must be kept across restarts.
    pub data_dir: PathBuf,
    /// Address of the cluster's DNS server as Pods reach it.
    pub cluster_dns: IpAddr,
    /// The cluster's DNS domain; `cluster.local` by default.
    pub cluster_domain: String,
    /// Additional labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// The machine's address as others reach it; detected if `None`.
    pub address: Option<IpAddr>,
    /// Amounts that replace what the machine has, by resource name (`cpu`, `memory`, `pods`).
    pub capacity: BTreeMap<String, String>,
    /// Pods may run on this machine's own root, with this hidden of it; `None` refuses them.
    pub host_image: Option<HostRoot>,
    /// Kernel parameters that Pods may set beyond the safe ones.
    pub allowed_sysctls: AllowedSysctls,
    /// Maximum number of Pods on the node; by default 110, as in Kubernetes.
    pub most_pods: u32,
}

impl Config {
    /// The default configuration with these values.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>, cluster_dns: IpAddr) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            cluster_dns,
            cluster_domain: "cluster.local".into(),
            labels: BTreeMap::new(),
            address: None,
            capacity: BTreeMap::new(),
            host_image: None,
            allowed_sysctls: AllowedSysctls::default(),
            most_pods: 110,
        }
    }
}

/// A failure of the whole node, as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error("cannot create {path}: {error}; choose another data directory")]
    DataDir {
        /// Path of the directory.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// A configured capacity is not a valid quantity.
    #[error("the capacity {value} of {resource} is not an amount; write it like 2, 500m or 4Gi")]
    Capacity {
        /// Name of the resource.
        resource: String,
        /// The configured text.
        value: String,
    },
    /// Sandboxes, mounts or files of Pods could not be removed.
    #[error("the node's Pods could not be removed: {0}")]
    Removal(String),
}

/// The node agent, which runs the Pods that are bound to its node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    adopted: CancellationToken,
}

impl Node {
    /// Creates a node agent, without starting it.
    #[allow(clippy::too_many_arguments)] // each is a thing of its own that the binary wires
    pub fn new(
        config: Config,
        informers: Informers,
        images: ImageStore,
        runtime: Runtime,
        network: Arc<dyn PodNetwork>,
        traffic: Arc<dyn Traffic>,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Result<Self, NodeError> {
        let pods_dir = config.data_dir.join("pods");
        std::fs::create_dir_all(&pods_dir).map_err(|error| NodeError::DataDir { path: pods_dir, error })?;
        let mut machine = Machine::look(&config.data_dir, config.most_pods);
        if let Some(address) = config.address {
            machine.address = address;
        }
        override_capacity(&mut machine, &config.capacity)?;
        let client = informers.client().clone();
        let shared = Arc::new(Shared {
            recorder: Recorder::new(client.clone(), "kubelet", &config.name, clock.clone(), &tasks),
            dns: ClusterDns { server: config.cluster_dns, domain: config.cluster_domain.clone() },
            pods: informers.selected::<Pod>(&format!("spec.nodeName={}", config.name)),
            config_maps: informers.all::<ConfigMap>(),
            secrets: informers.all::<Secret>(),
            services: informers.all::<Service>(),
            nodes: informers.all::<NodeObject>(),
            claims: informers.all::<PersistentVolumeClaim>(),
            volumes: informers.all::<PersistentVolume>(),
            fill_locks: Default::default(),
            admitting: Default::default(),
            images: Images::new(images),
            queue: Queue::new(clock.clone()),
            entries: parking_lot::Mutex::default(),
            closing: CancellationToken::new(),
            making: tokio::sync::RwLock::default(),
            config,
            clock,
            tasks,
            client,
            runtime,
            network,
            traffic,
            machine,
        });
        Ok(Self { shared, adopted: CancellationToken::new() })
    }

    /// Registers the node, takes over what an earlier process left running, and goes to work. Returns at once.
    pub fn start(&self) {
        let shared = self.shared.clone();
        registration::start(&shared);
        eviction::start(&shared);
        let (worker, adopted) = (shared.clone(), self.adopted.clone());
        self.shared.tasks.spawn("node", async move {
            tokio::join!(
                worker.pods.synced(),
                worker.config_maps.synced(),
                worker.secrets.synced(),
                worker.claims.synced(),
                worker.volumes.synced(),
                worker.services.synced(),
                worker.nodes.synced()
            );
            pod::adopt_all(&worker).await;
            feed(&worker);
            let shared = worker.clone();
            run(&worker.tasks, "pods", &worker.queue, WORKERS, move |uid| shared.clone().reconcile(uid));
            adopted.cancel();
        });
    }

    /// Ready once what an earlier process left has been taken over and new Pods are being taken up.
    pub async fn ready(&self) {
        self.adopted.cancelled().await;
    }

    /// The Node object's name.
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// The machine's address that Pods' `hostIP` shows.
    pub fn address(&self) -> IpAddr {
        self.shared.machine.address
    }

    /// Serves the node's HTTP API (`/containerLogs`, `/exec`, `/attach`, `/portForward`, `/healthz`, `/pods`) on one
    /// connection until it ends. Who may connect is the caller's to decide.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        api::serve(self.shared.clone(), stream).await;
    }

    /// Digests of the images that running containers use, which image garbage collection must keep.
    pub fn images_in_use(&self) -> std::collections::BTreeSet<String> {
        let entries: Vec<_> = self.shared.entries.lock().values().cloned().collect();
        let sandboxes = entries.iter().filter_map(|entry| entry.sandbox.lock().clone());
        let labels = sandboxes
            .flat_map(|s| s.statuses())
            .map(|mut status| status.labels.remove(container::LABEL_IMAGE));
        labels.flatten().collect()
    }

    /// Images were imported: Pods that wait for one need not wait for their next try.
    pub fn images_changed(&self) {
        self.shared.images_changed();
    }

    /// Stops every Pod and removes everything of it: processes, mounts, network, files. What an earlier process left
    /// goes too. The node does nothing any more afterwards.
    pub async fn remove_everything(&self) -> Result<(), NodeError> {
        pod::remove_everything(&self.shared, REMOVAL_GRACE).await.map_err(NodeError::Removal)
    }
}

fn override_capacity(machine: &mut Machine, capacity: &BTreeMap<String, String>) -> Result<(), NodeError> {
    for (resource, value) in capacity {
        let wrong = || NodeError::Capacity { resource: resource.clone(), value: value.clone() };
        let quantity: yado_types::quantity::Quantity = value.parse().map_err(|_| wrong())?;
        match resource.as_str() {
            "cpu" => machine.cpu = quantity,
            "memory" => machine.memory = quantity,
            "ephemeral-storage" => machine.ephemeral_storage = quantity,
            "pods" => machine.pods = u32::try_from(quantity.units()).map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok(())
}

/// Every change of a Pod, or of what a Pod refers to, wakes it.
fn feed(shared: &Arc<Shared>) {
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    let entries = shared.clone();
    shared.pods.feed(move |change: &Change<Pod>| {
        for pod in [&change.old, &change.new].into_iter().flatten() {
            let Some(uid) = uid(pod) else { continue };
            // An old object of the same name is known already; a new one gets its entry here.
            if change.new.as_ref().is_some_and(|new| Arc::ptr_eq(new, pod)) {
                let entry = entries.entry(&uid, &change.key);
                if volumes::downward_changed(change.old.as_deref(), pod) {
                    entries.refresh(entry);
                }
            }
            entries.queue.add(uid);
        }
    });
    let changed = shared.clone();
    shared.config_maps.feed(move |change| {
        let ObjectKey { namespace, name } = &change.key;
        changed.source_changed(namespace, name, false);
    });
    let changed = shared.clone();
    shared.secrets.feed(move |change| {
        let ObjectKey { namespace, name } = &change.key;
        changed.source_changed(namespace, name, true);
    });
    let changed = shared.clone();
    shared.claims.feed(move |change| changed.claim_changed(&change.key.namespace, &change.key.name));
    let changed = shared.clone();
    shared.volumes.feed(move |change| {
        let claim =
            change.latest().and_then(|volume| volume.spec.as_ref()).and_then(|spec| spec.claim_ref.clone());
        if let Some((namespace, name)) = claim.and_then(|claim| claim.namespace.zip(claim.name)) {
            changed.claim_changed(&namespace, &name);
        }
    });
}

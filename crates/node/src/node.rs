//! The node as its owner sees it: made, started, spoken to, removed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node as NodeObject, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use yado_oci::image::ImageStore;
use yado_oci::runtime::Runtime;
use yado_reconcile::events::Recorder;
use yado_reconcile::{Change, Clock, Informers, Tasks};

use crate::config::Config;
use crate::handle::{Pods, Request};
use crate::hostfiles::ClusterDns;
use crate::images::Images;
use crate::machine::Machine;
use crate::network::{PodNetwork, Traffic};
use crate::shared::{STATUS_WRITES, Shared};
use crate::sources::Referenced;
use crate::{api, container, eviction, pod, registration, sampling, volumes};

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
            config_maps: Referenced::new(informers.clone()),
            secrets: Referenced::new(informers.clone()),
            services: informers.all::<Service>(),
            nodes: informers.all::<NodeObject>(),
            claims: informers.all::<PersistentVolumeClaim>(),
            volumes: informers.all::<PersistentVolume>(),
            fill_locks: Default::default(),
            admitting: Default::default(),
            images: Images::new(images),
            handles: Pods::default(),
            status_writes: tokio::sync::Semaphore::new(STATUS_WRITES),
            closing: CancellationToken::new(),
            config,
            clock,
            tasks,
            client,
            runtime,
            network,
            traffic,
            machine,
            usage: Default::default(),
        });
        Ok(Self { shared, adopted: CancellationToken::new() })
    }

    /// Registers the node, takes over what an earlier process left running, and goes to work. Returns at once.
    pub fn start(&self) {
        let shared = self.shared.clone();
        registration::start(&shared);
        eviction::start(&shared);
        sampling::start(&shared);
        let (worker, adopted) = (shared.clone(), self.adopted.clone());
        self.shared.tasks.spawn("node", async move {
            tokio::join!(
                worker.pods.synced(),
                worker.claims.synced(),
                worker.volumes.synced(),
                worker.services.synced(),
                worker.nodes.synced()
            );
            pod::adopt_all(&worker).await;
            feed(&worker);
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

    /// Serves the node's HTTP API on one connection until it ends; `api` says what is in it. Who may connect is the caller's to decide.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        api::serve(self.shared.clone(), stream).await;
    }

    /// Digests of the images that running containers use, which image garbage collection must keep.
    pub fn images_in_use(&self) -> std::collections::BTreeSet<String> {
        let handles = self.shared.handles.all();
        let sandboxes = handles.iter().filter_map(|handle| handle.state().sandbox.clone());
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
        pod::remove_everything(&self.shared).await.map_err(NodeError::Removal)
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

/// Starts a task for each new Pod, and tells the tasks of Pods about changes of the Pods' objects and of their claims.
fn feed(shared: &Arc<Shared>) {
    let started = shared.clone();
    shared.pods.feed(move |change: &Change<Pod>| pod_changed(&started, change));
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

fn pod_changed(shared: &Arc<Shared>, change: &Change<Pod>) {
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    let new = change.new.as_deref().and_then(|new| Some((uid(new)?, new)));
    if let Some((uid, pod)) = &new {
        let handle = pod::ensure(shared, uid, &change.key);
        if volumes::downward_changed(change.old.as_deref(), pod) {
            handle.request(Request::RefreshFiles);
        }
        handle.request(Request::Reconcile);
    }
    // The object of this name may have been replaced by one with another uid.
    let old =
        change.old.as_deref().and_then(uid).filter(|old| new.as_ref().is_none_or(|(new, _)| new != old));
    if let Some(handle) = old.and_then(|old| shared.handles.get(&old)) {
        handle.request(Request::Reconcile);
    }
}

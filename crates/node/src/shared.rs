//! The services that all Pods of a node share, and the table of the Pods.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use yado_oci::runtime::Runtime;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Clock, Informer, ObjectKey, Tasks};

use crate::config::Config;
use crate::environment::{Facts, Scope, Sources};
use crate::handle::{PodHandle, Pods, Request};
use crate::hostfiles::ClusterDns;
use crate::images::Images;
use crate::lifecycle::Now;
use crate::machine::Machine;
use crate::network::{PodNetwork, Traffic};
use crate::sources::{self, Referenced};
use crate::usage::Sample;
use crate::volumes;

/// Maximum number of status writes at the same time, so that many Pods that change at once do not flood the API server.
pub(crate) const STATUS_WRITES: usize = 8;

/// The services that all Pods of a node share, and the table of the Pods.
pub(crate) struct Shared {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub client: kube::Client,
    pub pods: Arc<Informer<Pod>>,
    pub config_maps: Referenced<ConfigMap>,
    pub secrets: Referenced<Secret>,
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    pub volumes: Arc<Informer<PersistentVolume>>,
    pub services: Arc<Informer<Service>>,
    pub nodes: Arc<Informer<Node>>,
    pub images: Images,
    pub runtime: Runtime,
    pub network: Arc<dyn PodNetwork>,
    pub traffic: Arc<dyn Traffic>,
    pub recorder: Recorder,
    pub dns: ClusterDns,
    pub machine: Machine,
    /// What the Pods and the node used when it was read last.
    pub usage: Mutex<Option<Arc<Sample>>>,
    /// The Pods that this node knows. A Pod is removed when its task ends.
    pub handles: Pods,
    pub fill_locks: volumes::copy_up::FillLocks,
    /// Held during the admission of a Pod, so that two Pods do not get the same resources.
    pub admitting: Mutex<()>,
    /// Permits of status writes; there are [`STATUS_WRITES`].
    pub status_writes: Semaphore,
    /// Cancelled when the removal of all Pods begins, on which the tasks of all Pods end.
    pub closing: CancellationToken,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.clock.monotonic(), wall: self.clock.now() }
    }

    /// The object of a Pod, if it still exists.
    pub(crate) fn pod_object(&self, handle: &PodHandle) -> Option<Arc<Pod>> {
        self.pods.get(&handle.key).filter(|pod| pod.metadata.uid.as_deref() == Some(&handle.uid))
    }

    /// The handle and the object of the Pod of this name, of the newest if there are two.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<(Arc<PodHandle>, Arc<Pod>)> {
        let pod = self.pods.get(&ObjectKey::new(namespace, name))?;
        Some((self.handles.get(pod.metadata.uid.as_deref()?)?, pod))
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

    /// The address of a Pod's ports: the node's with host networking, else the Pod's `own`.
    pub(crate) fn ports_address(&self, pod: &Pod, own: Option<IpAddr>) -> Option<IpAddr> {
        let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        if host_network { Some(self.machine.address) } else { own }
    }

    /// Calls `use_it` with the inputs of a Pod's environment variables and files. `address` is that of the Pod's ports.
    pub(crate) fn with_scope<R>(
        &self,
        pod: &Pod,
        address: Option<IpAddr>,
        use_it: impl FnOnce(&Scope) -> R,
    ) -> R {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let facts = Facts {
            node_name: self.config.name.clone(),
            host_ip: self.machine.address,
            pod_ip: address,
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

    /// Watches the ConfigMaps and Secrets to which a Pod refers, from now until its handle is dropped. Waits until they are
    /// known, so that [`Shared::with_scope`] finds them.
    pub(crate) async fn watch_sources(self: &Arc<Self>, handle: &PodHandle, pod: &Pod) {
        let watch = || {
            let (maps, secrets) = (self.clone(), self.clone());
            sources::of_pod(
                pod,
                (&self.config_maps, move |key: &ObjectKey| {
                    maps.config_map_changed(&key.namespace, &key.name)
                }),
                (&self.secrets, move |key: &ObjectKey| secrets.secret_changed(&key.namespace, &key.name)),
            )
        };
        handle.sources.get_or_init(watch).await;
    }

    /// Tells the Pods of a namespace that refer to a claim that it, or its volume, has changed.
    pub(crate) fn claim_changed(&self, namespace: &str, name: &str) {
        self.request_of(namespace, &[Request::RetryVolumes], |refers| refers.claims.contains(name));
    }

    /// Tells the Pods of a namespace that refer to a ConfigMap that it has changed.
    pub(crate) fn config_map_changed(&self, namespace: &str, name: &str) {
        let requests = [Request::RetryConfig, Request::RefreshFiles];
        self.request_of(namespace, &requests, |refers| refers.config_maps.contains(name));
    }

    /// Tells the Pods of a namespace that refer to a Secret that it has changed.
    pub(crate) fn secret_changed(&self, namespace: &str, name: &str) {
        let requests = [Request::RetryConfig, Request::RefreshFiles];
        self.request_of(namespace, &requests, |refers| refers.secrets.contains(name));
    }

    fn request_of(
        &self,
        namespace: &str,
        requests: &[Request],
        concerns: impl Fn(&volumes::References) -> bool,
    ) {
        for handle in self.handles.all().into_iter().filter(|handle| handle.key.namespace == namespace) {
            // A Pod whose object its task has not seen yet reads the newest state of what it refers to anyway.
            let Some(pod) = handle.state().pod.clone() else { continue };
            if concerns(&volumes::references(&pod)) {
                requests.iter().for_each(|request| handle.request(*request));
            }
        }
    }

    /// Tells all Pods that images were imported.
    pub(crate) fn images_changed(&self) {
        self.handles.all().iter().for_each(|handle| handle.request(Request::RetryImages));
    }
}

/// The objects of one namespace that Pods refer to.
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

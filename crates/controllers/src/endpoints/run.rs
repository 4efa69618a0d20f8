//! The I/O of the endpoints controller: it queues Services whose Pods or endpoints change, and applies the actions of each
//! reconcile pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::{Error, Resource, ResourceExt};
use yado_reconcile::{Change, Index, Informer, Next, ObjectKey, Queue, revision_of};
use yado_types::labels::{ENDPOINTSLICE_MANAGED_BY, SERVICE_NAME};

use super::addresses::{MANAGED_BY, MANAGER as ENDPOINTS_MANAGER};
use super::{Action, Observed, mirror, reconcile, slices};
use crate::{Context, writes};

/// Services reconciled concurrently.
const WORKERS: usize = 8;
/// How long to wait for own slices to arrive through the watch. An older state can only cause a retry: replacements carry
/// the resource version, and names of new slices follow from their content.
const OWN_WRITES_TIMEOUT: Duration = Duration::from_secs(5);

/// An index key: namespace, label key and label value.
type Labelled = (String, String, String);

struct Controller {
    context: Context,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    slices: Arc<Informer<EndpointSlice>>,
    endpoints: Arc<Informer<Endpoints>>,
    pods_by_label: Arc<Index<Labelled, Pod>>,
    slices_of: Arc<Index<ObjectKey, EndpointSlice>>,
    mirrored_of: Arc<Index<ObjectKey, EndpointSlice>>,
    services_by_label: Arc<Index<Labelled, Service>>,
}

/// Starts the endpoints controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let (services, pods) = (context.informers.all::<Service>(), context.informers.all::<Pod>());
    let (slices, endpoints) =
        (context.informers.all::<EndpointSlice>(), context.informers.all::<Endpoints>());
    let queue = Queue::new(context.clock.clone());
    let this = Arc::new(Controller {
        context: context.clone(),
        pods_by_label: pods.index(|p: &Pod| labelled(p.namespace(), p.metadata.labels.as_ref()).collect()),
        // Indexing one label of each selector suffices to find the few Services that may select a Pod.
        services_by_label: services
            .index(|s: &Service| labelled(s.namespace(), selector(s)).take(1).collect()),
        slices_of: slices.index(|s: &EndpointSlice| service_of(s, slices::MANAGER).into_iter().collect()),
        mirrored_of: slices.index(|s: &EndpointSlice| service_of(s, mirror::MANAGER).into_iter().collect()),
        services: services.clone(),
        pods: pods.clone(),
        slices: slices.clone(),
        endpoints: endpoints.clone(),
    });
    services.feed_queue(&queue, |change| [change.key.clone()]);
    let concerned = this.services_by_label.clone();
    pods.feed_queue(&queue, move |change| services_of_pod(&concerned, change));
    // Changes by others to managed objects are reverted.
    slices.feed_queue(&queue, |change| {
        let managers = [slices::MANAGER, mirror::MANAGER];
        managers.into_iter().find_map(|manager| service_of(change.latest()?, manager))
    });
    endpoints.feed_queue(&queue, |change| [change.key.clone()]);
    context.run("endpoints", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    });
}

fn labelled(
    namespace: Option<String>,
    labels: Option<&BTreeMap<String, String>>,
) -> impl Iterator<Item = Labelled> + '_ {
    let namespace = namespace.unwrap_or_default();
    labels.into_iter().flatten().map(move |(k, v)| (namespace.clone(), k.clone(), v.clone()))
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref()
}

/// The Service of a slice that `manager` manages.
fn service_of(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(ENDPOINTSLICE_MANAGED_BY).is_some_and(|m| m == manager);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(ObjectKey::new(slice.namespace().unwrap_or_default(), name.clone()))
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector(service).is_some_and(|s| s.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)))
}

/// Services that select the Pod's old or new state.
fn services_of_pod(by_label: &Index<Labelled, Service>, change: &Change<Pod>) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for pod in change.old.iter().chain(&change.new) {
        for label in labelled(pod.namespace(), pod.metadata.labels.as_ref()) {
            let services = by_label.get(&label);
            keys.extend(services.iter().filter(|s| selects(s, pod)).map(|s| ObjectKey::of(s.meta())));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        self.services.synced().await;
        self.pods.synced().await;
        self.slices.synced().await;
        self.endpoints.synced().await;
        let (slices, mirrored) = (self.slices_of.get(&key), self.mirrored_of.get(&key));
        let endpoints = self.endpoints.get(&key);
        let Some(service) = self.services.get(&key) else {
            return self.service_gone(slices.iter().chain(&mirrored), endpoints).await;
        };
        let first = labelled(service.namespace(), selector(&service)).next();
        let pods = first.map(|label| self.pods_by_label.get(&label)).unwrap_or_default();
        let pods = pods.into_iter().filter(|p| selects(&service, p)).collect();
        let observed = Observed { service: &service, pods, slices, mirrored, endpoints };
        let writes: Vec<BoxFuture<'_, _>> =
            reconcile(&observed).into_iter().map(|a| self.apply(a).boxed()).collect();
        let (mut written, mut failed) = (0, None);
        for result in writes::in_parallel(writes).await {
            match result {
                Ok(revision) => written = written.max(revision),
                Err(error) => failed = Some(error),
            }
        }
        if written > 0 {
            self.slices.seen(written, OWN_WRITES_TIMEOUT).await;
        }
        failed.map_or(Ok(Next::Wait), Err)
    }

    async fn service_gone(
        &self,
        slices: impl Iterator<Item = &Arc<EndpointSlice>>,
        endpoints: Option<Arc<Endpoints>>,
    ) -> Result<Next, Error> {
        for slice in slices {
            writes::delete::<EndpointSlice>(&self.context.client, &slice.metadata).await?;
        }
        let ours = |e: &Arc<Endpoints>| {
            let by = e.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY));
            by.is_some_and(|m| m == ENDPOINTS_MANAGER)
        };
        if let Some(endpoints) = endpoints.filter(ours) {
            writes::delete::<Endpoints>(&self.context.client, &endpoints.metadata).await?;
        }
        Ok(Next::Wait)
    }

    /// Performs one write and returns the resource version of the slice that was written, or 0 if none was.
    async fn apply(&self, action: Action) -> Result<u64, Error> {
        let client = &self.context.client;
        let revision = |slice: EndpointSlice| revision_of(slice.metadata.resource_version.as_deref());
        match action {
            Action::CreateSlice(slice) => writes::create(client, &*slice).await.map(revision),
            Action::ReplaceSlice(slice) => {
                let api = writes::api_in_namespace_of::<EndpointSlice>(client, &slice.metadata);
                api.replace(&slice.name_any(), &PostParams::default(), &slice).await.map(revision)
            }
            Action::DeleteSlice(slice) => {
                writes::delete::<EndpointSlice>(client, &slice.metadata).await?;
                Ok(0)
            }
            Action::CreateEndpoints(endpoints) => writes::create(client, &*endpoints).await.map(|_| 0),
            Action::ReplaceEndpoints(endpoints) => {
                let api = writes::api_in_namespace_of::<Endpoints>(client, &endpoints.metadata);
                api.replace(&endpoints.name_any(), &PostParams::default(), &endpoints).await.map(|_| 0)
            }
        }
    }
}

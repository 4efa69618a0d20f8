//! The ConfigMaps and Secrets that this node's Pods refer to. Each is watched by itself for as long as a Pod refers to it, as
//! the kubelet does: a cluster may have many more of them, and what is not needed here need not be in this process's memory.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Resource;
use parking_lot::Mutex;
use yado_reconcile::{Informers, Kind, ObjectInformer, ObjectKey};

use crate::volumes;

/// How long a Pod waits for the first look at what it refers to. After that it goes on as if nothing existed that has not
/// been seen, so that a Pod can be stopped while the API server does not answer.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// The watched objects of one kind.
pub(crate) struct Referenced<K> {
    informers: Informers,
    watched: Mutex<HashMap<ObjectKey, Weak<ObjectInformer<K>>>>,
}

impl<K: Kind + Resource<Scope = NamespaceResourceScope>> Referenced<K> {
    /// Watches nothing yet.
    pub(crate) fn new(informers: Informers) -> Self {
        Self { informers, watched: Mutex::default() }
    }

    /// The object, if it exists and a Pod refers to it.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let watched = self.watched.lock().get(key)?.upgrade()?;
        watched.get()
    }

    /// The informer of an object, which exists while somebody holds it. `changed` is called for its later changes if it is
    /// new.
    fn hold(
        &self,
        key: ObjectKey,
        changed: impl Fn(&ObjectKey) + Send + Sync + 'static,
    ) -> Arc<ObjectInformer<K>> {
        let mut watched = self.watched.lock();
        if let Some(known) = watched.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        watched.retain(|_, informer| informer.strong_count() > 0);
        let informer = Arc::new(self.informers.object(&key, move |change| changed(&change.key)));
        watched.insert(key, Arc::downgrade(&informer));
        informer
    }
}

/// What one Pod refers to.
pub(crate) struct PodSources {
    _config_maps: Vec<Arc<ObjectInformer<ConfigMap>>>,
    _secrets: Vec<Arc<ObjectInformer<Secret>>>,
}

/// Watches what a Pod refers to until the result is dropped. Returns once all of it is known. The function beside each kind
/// gets the keys of objects that change later.
pub(crate) async fn of_pod<M, S>(
    pod: &Pod,
    (config_maps, config_map_changed): (&Referenced<ConfigMap>, M),
    (secrets, secret_changed): (&Referenced<Secret>, S),
) -> PodSources
where
    M: Fn(&ObjectKey) + Clone + Send + Sync + 'static,
    S: Fn(&ObjectKey) + Clone + Send + Sync + 'static,
{
    let references = volumes::references(pod);
    let key = |name: String| ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), name);
    let held = references.config_maps.into_iter();
    let config_maps: Vec<_> =
        held.map(|name| config_maps.hold(key(name), config_map_changed.clone())).collect();
    let held = references.secrets.into_iter();
    let secrets: Vec<_> = held.map(|name| secrets.hold(key(name), secret_changed.clone())).collect();
    let synced = async {
        join_all(config_maps.iter().map(|informer| informer.synced())).await;
        join_all(secrets.iter().map(|informer| informer.synced())).await;
    };
    if tokio::time::timeout(SYNC_TIMEOUT, synced).await.is_err() {
        tracing::warn!(pod = %ObjectKey::of(&pod.metadata), "its ConfigMaps and Secrets could not be read yet");
    }
    PodSources { _config_maps: config_maps, _secrets: secrets }
}

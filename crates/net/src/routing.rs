//! Keeps the index current and tells which generation every table has applied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use yado_reconcile::{Index, ObjectKey, Watch, Watches};
use yado_types::labels;

use crate::index::{Snapshot, service_entry};

/// The index, shared by the tables.
pub struct Routing {
    services: Arc<Watch<Service>>,
    slices: Arc<Watch<EndpointSlice>>,
    slices_of: Arc<Index<ObjectKey, EndpointSlice>>,
    ingresses: Arc<Watch<Ingress>>,
    changes: Arc<Changes>,
    current: watch::Sender<Arc<Snapshot>>,
    tables: Mutex<Vec<watch::Receiver<u64>>>,
}

/// What has changed since the last snapshot. Bounded by the number of objects.
#[derive(Default)]
struct Changes {
    services: Mutex<BTreeSet<ObjectKey>>,
    ingresses: Mutex<BTreeSet<ObjectKey>>,
    withdrawn: Mutex<Withdrawn>,
    any: Notify,
}

#[derive(Default)]
struct Withdrawn {
    /// Addresses that must stand in no entry.
    addresses: BTreeSet<IpAddr>,
    /// Those of them whose Pod is gone: they may be forgotten once no EndpointSlice names them.
    released: BTreeSet<IpAddr>,
}

impl Routing {
    /// Follows the objects through `watches`; [`Routing::run`] does the work.
    pub fn new(watches: &Watches) -> Arc<Self> {
        let (services, slices, ingresses) =
            (watches.all::<Service>(), watches.all::<EndpointSlice>(), watches.all());
        let slices_of = slices.index(|slice| owner(slice).into_iter().collect());
        let changes = Arc::<Changes>::default();
        let noted = changes.clone();
        services.feed(move |change| noted.service(change.key.clone()));
        let noted = changes.clone();
        slices.feed(move |change| {
            change
                .old
                .iter()
                .chain(&change.new)
                .filter_map(|slice| owner(slice))
                .for_each(|key| noted.service(key));
        });
        let noted = changes.clone();
        ingresses.feed(move |change| {
            noted.ingresses.lock().insert(change.key.clone());
            noted.any.notify_one();
        });
        let current = watch::Sender::new(Arc::default());
        Arc::new(Self { services, slices, slices_of, ingresses, changes, current, tables: Mutex::default() })
    }

    /// The latest state, and every later one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Registers a table; it sends each generation that it has applied.
    pub fn table(&self) -> watch::Sender<u64> {
        let (applied, seen) = watch::channel(0);
        self.tables.lock().push(seen);
        applied
    }

    /// Ready once the objects are known and every table has applied them.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.ingresses.synced().await;
        let synced = self.current.subscribe().wait_for(|s| s.generation > 0).await.map(|s| s.generation);
        self.applied(synced.unwrap_or_default()).await;
    }

    /// Takes an address out of every table and is ready once no new connection can reach it through one.
    pub async fn withdraw(&self, address: IpAddr) {
        let mut current = self.current.subscribe();
        self.changes.withdrawn.lock().addresses.insert(address);
        self.changes.any.notify_one();
        let without = current.wait_for(|s| s.withdrawn.contains(&address)).await.map(|s| s.generation);
        self.applied(without.unwrap_or_default()).await;
    }

    /// The Pod of an address is gone: the address may serve another one once no EndpointSlice names it.
    pub fn release(&self, address: IpAddr) {
        let mut withdrawn = self.changes.withdrawn.lock();
        if withdrawn.addresses.contains(&address) {
            withdrawn.released.insert(address);
        }
    }

    /// A new Pod has the address.
    pub fn admit(&self, address: IpAddr) {
        let mut withdrawn = self.changes.withdrawn.lock();
        withdrawn.released.remove(&address);
        if withdrawn.addresses.remove(&address) {
            self.changes.any.notify_one();
        }
    }

    async fn applied(&self, generation: u64) {
        let tables = self.tables.lock().clone();
        for mut table in tables {
            // A table that has ended routes nothing any more.
            let _ = table.wait_for(|applied| *applied >= generation).await;
        }
    }

    /// Makes a new snapshot whenever something has changed, from what has changed only.
    pub async fn run(self: Arc<Self>) {
        self.services.synced().await;
        self.slices.synced().await;
        self.ingresses.synced().await;
        loop {
            self.update();
            self.changes.any.notified().await;
        }
    }

    fn update(&self) {
        let last = self.current.borrow().clone();
        let withdrawn = self.withdrawn();
        let mut changed = std::mem::take(&mut *self.changes.services.lock());
        for address in last.withdrawn.symmetric_difference(&withdrawn) {
            changed.extend(self.services_of(*address));
        }
        let mut next = Snapshot {
            generation: last.generation + 1,
            services: last.services.clone(),
            ingresses: last.ingresses.clone(),
            withdrawn,
        };
        for key in changed {
            match self.services.get(&key) {
                Some(service) => {
                    let entry = service_entry(&service, &self.slices_of.get(&key), &next.withdrawn);
                    if next.services.get(&key).is_none_or(|known| **known != entry) {
                        next.services.insert(key, Arc::new(entry));
                    }
                }
                None => _ = next.services.remove(&key),
            }
        }
        for key in std::mem::take(&mut *self.changes.ingresses.lock()) {
            match self.ingresses.get(&key) {
                Some(ingress) => _ = next.ingresses.insert(key, ingress),
                None => _ = next.ingresses.remove(&key),
            }
        }
        self.current.send_replace(Arc::new(next));
    }

    /// Forgets released addresses that nothing names any more, and gives the rest.
    fn withdrawn(&self) -> BTreeSet<IpAddr> {
        let mut withdrawn = self.changes.withdrawn.lock();
        if !withdrawn.released.is_empty() {
            let named: BTreeSet<IpAddr> = self.slices.list().iter().flat_map(|s| addresses(s)).collect();
            let forgotten: Vec<_> = withdrawn.released.difference(&named).copied().collect();
            for address in forgotten {
                withdrawn.released.remove(&address);
                withdrawn.addresses.remove(&address);
            }
        }
        withdrawn.addresses.clone()
    }

    fn services_of(&self, address: IpAddr) -> Vec<ObjectKey> {
        let slices = self.slices.list();
        let naming = slices.iter().filter(|slice| addresses(slice).any(|a| a == address));
        naming.filter_map(|slice| owner(slice)).collect()
    }
}

impl Changes {
    fn service(&self, key: ObjectKey) {
        self.services.lock().insert(key);
        self.any.notify_one();
    }
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice.endpoints.iter().flatten().flat_map(|e| &e.addresses).filter_map(|a| a.parse().ok())
}

fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    let empty = BTreeMap::new();
    let labels = slice.meta().labels.as_ref().unwrap_or(&empty);
    let service = labels.get(labels::SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service))
}

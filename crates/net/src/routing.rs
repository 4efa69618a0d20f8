//! Keeps the index current and tells which generation every table has applied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use yado_reconcile::{Index, Informer, Informers, ObjectKey};
use yado_types::labels;

use crate::index::{Endpoint, HostPort, ServiceEntry, Snapshot, TerminatingAddresses, service_entry};
use crate::policy::{self, Isolation, NameServer, isolate};

/// The index, shared by the tables.
pub struct Routing {
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    slices_of: Arc<Index<ObjectKey, EndpointSlice>>,
    ingresses: Arc<Informer<Ingress>>,
    policies: Arc<Informer<NetworkPolicy>>,
    pods: Arc<Informer<Pod>>,
    namespaces: Arc<Informer<Namespace>>,
    changes: Arc<Changes>,
    current: watch::Sender<Arc<Snapshot>>,
    tables: Mutex<Vec<watch::Receiver<u64>>>,
    name_server: NameServer,
}

/// What has changed since the last snapshot. Bounded by the number of objects.
#[derive(Default)]
struct Changes {
    services: Mutex<BTreeSet<ObjectKey>>,
    ingresses: Mutex<BTreeSet<ObjectKey>>,
    withdrawn: Mutex<Withdrawn>,
    published: Mutex<Publications>,
    /// Something that policies look at.
    isolation: AtomicBool,
    any: Notify,
}

/// The Services and the Pods whose ports are the node's, and how often that has changed.
#[derive(Clone, Debug, Default)]
struct Publications {
    services: BTreeSet<ObjectKey>,
    host_ports: BTreeMap<HostPort, Endpoint>,
    count: u64,
}

/// Which addresses must stand in no entry that has another endpoint, whatever the EndpointSlices say; those that are
/// released stand in none at all. Pure.
///
/// ```text
/// in use --withdraw--> withdrawn --release--> released --no slice names it--> forgotten
///    ^--------------------admit (a new Pod has the address)-----------------------/
/// ```
#[derive(Debug, Default)]
struct Withdrawn {
    addresses: BTreeSet<IpAddr>,
    /// Those of them whose Pod is gone: they may be forgotten once no EndpointSlice names them.
    released: BTreeSet<IpAddr>,
}

impl Withdrawn {
    fn withdraw(&mut self, address: IpAddr) {
        self.addresses.insert(address);
    }

    /// Whether that changes anything.
    fn release(&mut self, address: IpAddr) -> bool {
        self.addresses.contains(&address) && self.released.insert(address)
    }

    /// Whether that changes anything.
    fn admit(&mut self, address: IpAddr) -> bool {
        self.released.remove(&address);
        self.addresses.remove(&address)
    }

    fn forget(&mut self, named: &BTreeSet<IpAddr>) {
        let Self { addresses, released } = self;
        released.retain(|address| {
            let keep = named.contains(address);
            if !keep {
                addresses.remove(address);
            }
            keep
        });
    }
}

/// The snapshot after `last`: entries that changed are made anew, and those that came out the same are shared. Pure.
fn next(
    last: &Snapshot,
    services: BTreeMap<ObjectKey, Option<ServiceEntry>>,
    ingresses: BTreeMap<ObjectKey, Option<Arc<Ingress>>>,
    withdrawn: BTreeSet<IpAddr>,
) -> Snapshot {
    let mut next = Snapshot { generation: last.generation + 1, withdrawn, ..last.clone() };
    let mut renamed = false;
    for (key, entry) in services {
        let before = next.services.get(&key).map(|known| &known.aliases[..]).unwrap_or_default();
        renamed |= before != entry.as_ref().map(|new| &new.aliases[..]).unwrap_or_default();
        match entry {
            Some(entry) if next.services.get(&key).is_some_and(|known| **known == entry) => {}
            Some(entry) => _ = next.services.insert(key, Arc::new(entry)),
            None => _ = next.services.remove(&key),
        }
    }
    for (key, ingress) in ingresses {
        match ingress {
            Some(ingress) => _ = next.ingresses.insert(key, ingress),
            None => _ = next.ingresses.remove(&key),
        }
    }
    if renamed {
        next.aliases = aliases(&next.services);
    }
    next
}

/// Two Services that claim one name: the first of the alphabet has it, so that it never alternates.
pub(crate) fn aliases(services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>) -> BTreeMap<ObjectKey, ObjectKey> {
    let all = services.iter().rev();
    all.flat_map(|(key, entry)| {
        entry.aliases.iter().map(|name| (ObjectKey::new(key.namespace.clone(), name), key.clone()))
    })
    .collect()
}

impl Routing {
    /// Follows the objects through `watches`; [`Routing::run`] does the work. Pods have their addresses out of
    /// `pod_range` and ask `name_server` for names.
    pub fn new(informers: &Informers, pod_range: Ipv4Net, name_server: Ipv4Addr) -> Arc<Self> {
        let (services, slices, ingresses) =
            (informers.all::<Service>(), informers.all::<EndpointSlice>(), informers.all());
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
        let (policies, pods, namespaces) = (informers.all(), informers.all(), informers.all());
        changes.feed_isolation(&policies, &pods, &namespaces);
        let first = Snapshot { pod_range: Some(pod_range), ..Default::default() };
        let current = watch::Sender::new(Arc::new(first));
        Arc::new(Self {
            services,
            slices,
            slices_of,
            ingresses,
            policies,
            pods,
            namespaces,
            changes,
            current,
            tables: Mutex::default(),
            name_server: NameServer { address: name_server },
        })
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

    /// Takes an address out of every table and is ready once no new connection can reach it through one. A Service
    /// that has no other endpoint keeps it until it is released.
    pub async fn withdraw(&self, address: IpAddr) {
        let mut current = self.current.subscribe();
        self.changes.withdrawn.lock().withdraw(address);
        self.changes.any.notify_one();
        let without = current.wait_for(|s| s.withdrawn.contains(&address)).await.map(|s| s.generation);
        self.applied(without.unwrap_or_default()).await;
    }

    /// Ready once no EndpointSlice names a Pod as ready and every table has applied that: for a Pod with the node's own
    /// address, which others have as well.
    pub async fn left(&self, uid: &str) {
        let mut current = self.current.subscribe();
        let names = |slice: &Arc<EndpointSlice>| {
            slice.endpoints.iter().flatten().any(|endpoint| {
                let of_pod = endpoint.target_ref.as_ref().and_then(|r| r.uid.as_deref()) == Some(uid);
                let conditions = endpoint.conditions.as_ref();
                // A Service that publishes Pods whatever becomes of them wants this one to the last.
                let kept = conditions.and_then(|c| c.terminating) == Some(true);
                of_pod && !kept && conditions.and_then(|c| c.ready).unwrap_or(true)
            })
        };
        // Every change of a slice makes a new state, after the slice is known.
        while self.slices.list().iter().any(names) {
            if current.changed().await.is_err() {
                return;
            }
        }
        let mut without = current.borrow_and_update().generation;
        // The next state may have been begun before the slice was known; the one after it was not.
        for _ in 0..2 {
            self.changes.any.notify_one();
            match current.wait_for(|s| s.generation > without).await {
                Ok(state) => without = state.generation,
                Err(_) => return,
            }
        }
        self.applied(without).await;
    }

    /// The Pod of an address is gone: the address may serve another one once no EndpointSlice names it.
    pub fn release(&self, address: IpAddr) {
        if self.changes.withdrawn.lock().release(address) {
            self.changes.any.notify_one();
        }
    }

    /// A new Pod has the address.
    pub fn admit(&self, address: IpAddr) {
        if self.changes.withdrawn.lock().admit(address) {
            self.changes.any.notify_one();
        }
    }

    /// Makes exactly these Services' and Pods' ports the node's, and is ready once every table has applied that.
    pub async fn publish(&self, services: BTreeSet<ObjectKey>, host_ports: BTreeMap<HostPort, Endpoint>) {
        let mut current = self.current.subscribe();
        let count = {
            let mut published = self.changes.published.lock();
            let changed: Vec<_> = published.services.symmetric_difference(&services).cloned().collect();
            published.services = services;
            published.host_ports = host_ports;
            published.count += 1;
            self.changes.services.lock().extend(changed);
            published.count
        };
        self.changes.any.notify_one();
        let with = current.wait_for(|s| s.publications >= count).await.map(|s| s.generation);
        self.applied(with.unwrap_or_default()).await;
    }

    async fn applied(&self, generation: u64) {
        let tables = self.tables.lock().clone();
        all_applied(tables, generation).await;
    }

    /// Makes a new snapshot whenever something has changed, from what has changed only.
    pub async fn run(self: Arc<Self>) {
        self.services.synced().await;
        self.slices.synced().await;
        self.ingresses.synced().await;
        self.policies.synced().await;
        self.pods.synced().await;
        self.namespaces.synced().await;
        loop {
            self.update();
            self.changes.any.notified().await;
        }
    }

    fn update(&self) {
        let last = self.current.borrow().clone();
        let (withdrawn, gone) = self.withdrawn();
        // Before what has changed is taken: a Service that is published later changes again.
        let published = self.changes.published.lock().clone();
        let mut changed = std::mem::take(&mut *self.changes.services.lock());
        let ending = last.withdrawn.symmetric_difference(&withdrawn);
        changed.extend(self.services_of(&ending.chain(last.gone.symmetric_difference(&gone)).collect()));
        let entry = |key: &ObjectKey| {
            let service = self.services.get(key)?;
            Some(service_entry(
                &service,
                &self.slices_of.get(key),
                TerminatingAddresses { withdrawn: &withdrawn, gone: &gone },
                published.services.contains(key),
            ))
        };
        let services = changed.into_iter().map(|key| (key.clone(), entry(&key))).collect();
        let ingresses = std::mem::take(&mut *self.changes.ingresses.lock()).into_iter();
        let ingresses = ingresses.map(|key| (key.clone(), self.ingresses.get(&key))).collect();
        let mut next = next(&last, services, ingresses, withdrawn);
        next.gone = gone;
        next.publications = published.count;
        next.host_ports = published.host_ports;
        if self.changes.isolation.swap(false, Ordering::SeqCst) {
            let policies = self.policies.list();
            // Pods come and go all the time, and mostly there is no policy.
            let isolation = match policies.is_empty() {
                true => Isolation::default(),
                false => isolate(&policies, &self.pods.list(), &self.namespaces.list(), self.name_server),
            };
            if isolation != *next.isolation {
                next.isolation = Arc::new(isolation);
            }
        }
        self.current.send_replace(Arc::new(next));
    }

    /// Forgets released addresses that nothing names any more, and gives the rest: all, and those that are released.
    fn withdrawn(&self) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let mut withdrawn = self.changes.withdrawn.lock();
        if !withdrawn.released.is_empty() {
            let named: BTreeSet<IpAddr> = self.slices.list().iter().flat_map(|s| addresses(s)).collect();
            withdrawn.forget(&named);
        }
        (withdrawn.addresses.clone(), withdrawn.released.clone())
    }

    /// The Services whose slices name one of these addresses.
    fn services_of(&self, named: &BTreeSet<&IpAddr>) -> Vec<ObjectKey> {
        if named.is_empty() {
            return Vec::new();
        }
        let slices = self.slices.list();
        let naming = slices.iter().filter(|slice| addresses(slice).any(|a| named.contains(&a)));
        naming.filter_map(|slice| owner(slice)).collect()
    }
}

async fn all_applied(tables: Vec<watch::Receiver<u64>>, generation: u64) {
    for mut table in tables {
        // A table that has ended routes nothing any more.
        let _ = table.wait_for(|applied| *applied >= generation).await;
    }
}

impl Changes {
    /// Whether any policy is there is not asked here: feeds of several watches would have to agree on the time. A look
    /// without policies costs nothing.
    fn feed_isolation(
        self: &Arc<Self>,
        policies: &Informer<NetworkPolicy>,
        pods: &Informer<Pod>,
        namespaces: &Informer<Namespace>,
    ) {
        let noted = self.clone();
        policies.feed(move |_| noted.isolation());
        let noted = self.clone();
        pods.feed(move |change| {
            let aspects = |pod: &Option<Arc<Pod>>| {
                pod.as_deref().and_then(policy::aspects).map(|(address, labels)| (address, labels.clone()))
            };
            if aspects(&change.old) != aspects(&change.new) {
                noted.isolation();
            }
        });
        let noted = self.clone();
        namespaces.feed(move |change| {
            let labels =
                |ns: &Option<Arc<Namespace>>| ns.as_deref().and_then(|ns| ns.metadata.labels.clone());
            if labels(&change.old) != labels(&change.new) {
                noted.isolation();
            }
        });
    }

    fn isolation(&self) {
        self.isolation.store(true, Ordering::SeqCst);
        self.any.notify_one();
    }

    fn service(&self, key: ObjectKey) {
        self.services.lock().insert(key);
        self.any.notify_one();
    }
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice
        .endpoints
        .iter()
        .flatten()
        .flat_map(|e| &e.addresses)
        .filter_map(|a| a.parse::<IpAddr>().ok())
        .map(|a| a.to_canonical())
}

fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    let empty = BTreeMap::new();
    let labels = slice.meta().labels.as_ref().unwrap_or(&empty);
    let service = labels.get(labels::SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn an_address_is_withdrawn_until_nothing_names_it_or_a_new_pod_has_it() {
        let named = |lasts: &[u8]| lasts.iter().copied().map(address).collect::<BTreeSet<_>>();
        let mut withdrawn = Withdrawn::default();
        [1, 2, 3].into_iter().for_each(|last| withdrawn.withdraw(address(last)));
        // One that was never withdrawn has nothing to wait for.
        assert_eq!([1, 2, 9, 1].map(|last| withdrawn.release(address(last))), [true, true, false, false]);
        withdrawn.forget(&named(&[1, 3]));
        assert_eq!(withdrawn.addresses, named(&[1, 3]), "2 is gone and not named");
        // A new Pod has the address, and the slices that name it mean that one.
        assert!(withdrawn.admit(address(1)));
        assert!(!withdrawn.admit(address(1)));
        withdrawn.forget(&named(&[]));
        assert_eq!(withdrawn.addresses, named(&[3]), "the Pod of 3 still ends");
        withdrawn.release(address(3));
        withdrawn.forget(&named(&[]));
        assert!(withdrawn.addresses.is_empty() && withdrawn.released.is_empty());
    }

    #[test]
    fn a_snapshot_shares_what_did_not_change() {
        let entry = |last| ServiceEntry { cluster_ips: vec![address(last)], ..Default::default() };
        let key = |name: &str| ObjectKey::new("n", name);
        let services = |all: &[(&str, Option<u8>)]| {
            all.iter().map(|(name, last)| (key(name), last.map(entry))).collect::<BTreeMap<_, _>>()
        };
        let first = next(
            &Snapshot::default(),
            services(&[("a", Some(1)), ("b", Some(2)), ("c", Some(3))]),
            [(key("i"), Some(Arc::default())), (key("j"), Some(Arc::default()))].into(),
            BTreeSet::new(),
        );
        let second = next(
            &first,
            services(&[("a", Some(1)), ("b", Some(4)), ("c", None)]),
            [(key("i"), None)].into(),
            [address(9)].into(),
        );
        assert_eq!((first.generation, second.generation), (1, 2));
        assert!(Arc::ptr_eq(&first.services[&key("a")], &second.services[&key("a")]));
        assert_eq!(*second.services[&key("b")], entry(4));
        assert!(!second.services.contains_key(&key("c")));
        assert_eq!(second.ingresses.keys().cloned().collect::<Vec<_>>(), [key("j")]);
        assert_eq!(second.withdrawn, [address(9)].into());
    }

    #[test]
    fn a_generation_is_applied_once_every_table_that_lives_has_it() {
        let (first, seen_first) = watch::channel(0);
        let (second, seen_second) = watch::channel(0);
        let (ended, seen_ended) = watch::channel(0);
        let tables = vec![seen_first, seen_second, seen_ended];
        let is_applied = || all_applied(tables.clone(), 2).now_or_never().is_some();
        drop(ended);
        assert!(!is_applied());
        first.send_replace(2);
        assert!(!is_applied());
        second.send_replace(3);
        assert!(is_applied());
    }
}

//! How a request finds a Pod.
//!
//! ```text
//! NetworkPolicies, Pods ------------------policy-------\
//! Services, EndpointSlices, Ingresses --> index --snapshot--> nft     ClusterIP, NodePort, LoadBalancer, in the kernel
//!                                                \---------> dns     names
//!                                                \---------> router  HTTP by Host and path
//! ```
//!
//! One index feeds three tables. Each table acknowledges the generation it has applied, so that
//! [`Net::withdraw`] can tell when no new connection can reach an address any more.
#![allow(unsafe_code)] // network namespaces and netlink are system calls; each use says why it is sound

pub mod balancer;
pub mod dns;
pub mod drain;
mod host_ports;
pub mod index;
mod ingress_status;
pub mod nft;
pub mod pods;
pub mod policy;
pub mod router;
pub mod routing;
pub mod slot;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio::sync::watch;
use yado_reconcile::{Clock, Tasks, Watches};

use crate::dns::server::{Server, Sockets};
use crate::dns::zone::Zone;
use crate::index::Snapshot;
use crate::nft::{Rules, Table};
use crate::pods::{Attachment, PodNetwork};
use crate::router::Router;
use crate::routing::Routing;
use crate::slot::Slot;

/// How long a packet filter that refused a change is left alone before the same change is tried again.
const FILTER_RETRY: Duration = Duration::from_millis(500);

/// How often the packet filter is looked at: a firewall that loads its rules may have flushed ours, and nothing says so.
const FILTER_LOOK: Duration = Duration::from_secs(5);
/// Every so many looks a new firewall is looked for as well, which takes a list of all chains.
const FIREWALL_LOOKS: u32 = 12;

/// What a network is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What an Ingress's status says its address is.
    pub ingress_address: IpAddr,
    /// The node's address as others reach it: what the status of a LoadBalancer Service says.
    pub node_address: IpAddr,
    /// Names the node in events.
    pub node_name: String,
    /// Ports of the engine's own, with what they are: they cannot be published.
    pub own_ports: Vec<(u16, String)>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The text of the machine's `resolv.conf`.
    pub resolv_conf: String,
    /// What the router is started with.
    pub router: router::Options,
}

/// Why the network cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No slot.
    #[error(transparent)]
    Slot(#[from] slot::Error),
    /// The Pods' devices.
    #[error(transparent)]
    Pods(#[from] pods::Error),
    /// The packet filter.
    #[error(transparent)]
    Filter(#[from] nft::Error),
    /// The router's port.
    #[error(
        "{address} cannot be listened on for HTTP ({source}); stop what uses it or choose another --http-port"
    )]
    Http {
        /// Which.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The name server's port.
    #[error("{address} cannot be listened on for the Pods' name server ({source}); stop what uses it")]
    Dns {
        /// Which.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// The ports of the ingress router, taken before anything else is set up.
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Takes them, or tells which is in use.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let bound = router::bind(addresses).await;
        bound.map(Self).map_err(|(address, source)| Error::Http { address, source })
    }

    /// Where they are: the port that was chosen where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|l| l.local_addr().ok()).collect()
    }
}

/// The network of one node.
pub struct Net {
    slot: Slot,
    pods: PodNetwork,
    routing: Arc<Routing>,
    clock: Arc<dyn Clock>,
}

impl Net {
    /// Sets up the node's side and starts the tables.
    pub async fn start(
        slot: Slot,
        listeners: Listeners,
        config: &Config,
        watches: &Watches,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let pods = PodNetwork::start(&slot).await?;
        let address = SocketAddr::new(slot.gateway().into(), 53);
        let sockets = Sockets::bind(address).await.map_err(|source| Error::Dns { address, source })?;
        let table = Table::create(&slot)?;
        let routing = Routing::new(watches, slot.pod_cidr(), slot.gateway());
        let filtered = keep_filtered(table, routing.subscribe(), routing.table(), clock.clone());
        tasks.spawn("packet filter", filtered);
        Router::start(
            listeners.0,
            config.router.clone(),
            routing.subscribe(),
            routing.table(),
            clock.clone(),
            tasks,
        );
        let server = Server {
            zone: Zone {
                domain: config.cluster_domain.split('.').map(str::to_ascii_lowercase).collect(),
                ranges: vec![slot.pod_cidr(), slot.service_cidr()],
                host: slot.gateway(),
            },
            snapshots: routing.subscribe(),
            pods: watches.all::<Pod>().index(pod_addresses),
            upstream: dns::server::upstream(&config.resolv_conf, address.ip()),
            clock: clock.clone(),
        };
        server.start(sockets, tasks);
        balancer::start(watches, routing.clone(), config, clock.clone(), tasks);
        ingress_status::start(watches, config.ingress_address, clock.clone(), tasks);
        // Last, when every table listens.
        tasks.spawn("routing", routing.clone().run());
        Ok(Self { slot, pods, routing, clock: clock.clone() })
    }

    /// Ready once every table knows every Service.
    pub async fn synced(&self) {
        self.routing.synced().await;
    }

    /// Gives a Pod its network; asked again for the same Pod it gives the same.
    pub async fn attach(&self, uid: &str) -> Result<Attachment, Error> {
        let known = self.pods.address(uid).is_some();
        let attachment = self.pods.attach(uid).await?;
        if !known {
            self.routing.admit(attachment.address);
        }
        Ok(attachment)
    }

    /// Takes a Pod's network away.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        let address = self.pods.address(uid);
        self.pods.detach(uid).await?;
        if let Some(address) = address {
            self.routing.release(address.into());
        }
        Ok(())
    }

    /// The Pods that have a network here.
    pub fn attached(&self) -> Vec<String> {
        self.pods.attached().into_iter().map(|(uid, _)| uid).collect()
    }

    /// Takes an address out of every table and is ready once no new connection can reach it through one.
    pub async fn withdraw(&self, address: IpAddr) {
        self.routing.withdraw(address).await;
    }

    /// Ready once the connections to a withdrawn Pod are quiet: none awaits an answer, and none was used a moment ago; and
    /// no later than `within`.
    pub async fn quiet(&self, address: IpAddr, within: Duration) {
        if let Some(namespace) = self.pods.namespace_of(address) {
            drain::quiet(namespace, within, &*self.clock).await;
        }
    }

    /// [`Net::withdraw`] for a Pod that has the node's own address: ready once no EndpointSlice sends anything to it, and every
    /// table knows.
    pub async fn left(&self, uid: &str) {
        self.routing.left(uid).await;
    }

    /// Removes devices, namespaces, rules and records: nothing is left.
    pub async fn tear_down(&self) -> Result<(), Error> {
        Table::remove(&self.slot)?;
        self.pods.tear_down().await?;
        Ok(self.slot.remove()?)
    }
}

fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or_default();
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()?.parse().ok());
    address.filter(|_| !host_network && !yado_types::pod::is_ended(pod)).into_iter().collect()
}

/// Brings the kernel to every new snapshot, or to the newest where several came at once.
async fn keep_filtered(
    mut table: Table,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    applied: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
) {
    // The state it starts with is one to apply, too.
    snapshots.mark_changed();
    let mut looks = 0u32;
    loop {
        tokio::select! {
            changed = snapshots.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
            () = clock.sleep(FILTER_LOOK) => {
                looks = looks.wrapping_add(1);
                look_after(&mut table, looks);
                continue;
            }
        }
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            match table.apply(Rules::of(&snapshot)) {
                Ok(()) => {
                    applied.send_replace(snapshot.generation);
                    break;
                }
                // Nothing was applied and nothing is acknowledged; an endpoint that waits for it is let go by its
                // grace period.
                Err(error) => tracing::error!(%error, "Services are not up to date; trying again"),
            }
            clock.sleep(FILTER_RETRY).await;
        }
    }
}

/// Heals what others have broken.
fn look_after(table: &mut Table, looks: u32) {
    match table.heal() {
        Ok(true) => tracing::warn!("somebody flushed the packet filter; Services were set up anew"),
        Ok(false) if looks.is_multiple_of(FIREWALL_LOOKS) => table.open_firewall(),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the packet filter cannot be looked after"),
    }
}

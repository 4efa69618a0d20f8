//! Networking of Pods and Services on one node.
//!
//! ```text
//! NetworkPolicies, Pods ------------------policy-------\
//! Services, EndpointSlices, Ingresses --> index --snapshot--> nft     ClusterIP, NodePort, LoadBalancer, in the kernel
//!                                                \---------> dns     names
//!                                                \---------> router  HTTP by Host and path
//! ```
//!
//! The packet filter, the DNS server and the router follow one routing index. Each acknowledges the generation it has
//! applied, so that [`Net::withdraw`] knows when no new connection can reach an address.
#![allow(unsafe_code)] // network namespaces and netlink are system calls; each use says why it is sound

mod address_range;
pub mod balancer;
pub mod dns;
pub mod drain;
mod host_ports;
pub mod index;
mod ingress_status;
pub mod load_balancer;
pub mod nft;
pub mod pods;
pub mod policy;
pub mod protocol;
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
use yado_reconcile::{Clock, Informers, Tasks};

use crate::dns::server::{Server, Sockets};
use crate::dns::zone::Zone;
use crate::index::Snapshot;
use crate::nft::{Rules, Table};
use crate::pods::{Attachment, PodNetwork};
use crate::router::Router;
use crate::routing::Routing;
use crate::slot::Slot;

/// Retry delay after the kernel rejected a change of the packet filter.
const FILTER_RETRY: Duration = Duration::from_millis(500);

/// Interval of checks of the packet filter: a firewall that loads its rules may flush all tables, without notification.
const FILTER_CHECK: Duration = Duration::from_secs(5);
/// Number of checks after which new firewalls are searched as well, which requires a list of all chains.
const FIREWALL_CHECKS: u32 = 12;

/// Configuration of a node's network.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address in the status of Ingresses.
    pub ingress_address: IpAddr,
    /// The node's address as others reach it, for the status of LoadBalancer Services.
    pub node_address: IpAddr,
    /// Name of the node, for events.
    pub node_name: String,
    /// Ports that the engine itself uses, with a description. They cannot be published.
    pub own_ports: Vec<(u16, String)>,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// Content of the machine's `resolv.conf`, which has the upstream resolvers.
    pub resolv_conf: String,
    /// Configuration of the HTTP router.
    pub router: router::Options,
}

/// The network cannot be set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address range could be allocated.
    #[error(transparent)]
    Slot(#[from] slot::Error),
    /// Network devices or namespaces could not be configured.
    #[error(transparent)]
    Pods(#[from] pods::Error),
    /// The packet filter could not be configured.
    #[error(transparent)]
    Filter(#[from] nft::Error),
    /// The router's port could not be bound.
    #[error(
        "{address} cannot be listened on for HTTP ({source}); stop what uses it or choose another --http-port"
    )]
    Http {
        /// The address that could not be bound.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The DNS server's port could not be bound.
    #[error("{address} cannot be listened on for the Pods' name server ({source}); stop what uses it")]
    Dns {
        /// The address that could not be bound.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The bound listeners of the HTTP router.
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Binds all addresses. Fails with [`Error::Http`] for the first that cannot be bound.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let bound = router::bind(addresses).await;
        bound.map(Self).map_err(|(address, source)| Error::Http { address, source })
    }

    /// The bound addresses, with the allocated port in place of port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|l| l.local_addr().ok()).collect()
    }
}

/// Handle of a node's network.
pub struct Net {
    slot: Slot,
    pods: PodNetwork,
    routing: Arc<Routing>,
    clock: Arc<dyn Clock>,
}

impl Net {
    /// Configures the node's devices and packet filter, and starts the DNS server, the router and the controllers of
    /// Service and Ingress status. `tasks` owns their tasks.
    pub async fn start(
        slot: Slot,
        listeners: Listeners,
        config: &Config,
        informers: &Informers,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let pods = PodNetwork::start(&slot).await?;
        let address = SocketAddr::new(slot.gateway().into(), 53);
        let sockets = Sockets::bind(address).await.map_err(|source| Error::Dns { address, source })?;
        let table = Table::create(&slot)?;
        let routing = Routing::new(informers, slot.pod_cidr(), slot.gateway());
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
            pods: informers.all::<Pod>().index(pod_addresses),
            upstream: dns::server::upstream(&config.resolv_conf, address.ip()),
            clock: clock.clone(),
        };
        server.start(sockets, tasks);
        balancer::start(informers, routing.clone(), config, clock.clone(), tasks);
        ingress_status::start(informers, config.ingress_address, clock.clone(), tasks);
        // Last, when all consumers have subscribed.
        tasks.spawn("routing", routing.clone().run());
        Ok(Self { slot, pods, routing, clock: clock.clone() })
    }

    /// Waits until packet filter, DNS server and router have applied the first complete snapshot.
    pub async fn synced(&self) {
        self.routing.synced().await;
    }

    /// Creates a Pod's network namespace and address. Calling it again for the same Pod returns the same attachment.
    pub async fn attach(&self, uid: &str) -> Result<Attachment, Error> {
        let known = self.pods.address(uid).is_some();
        let attachment = self.pods.attach(uid).await?;
        if !known {
            self.routing.admit(attachment.address);
        }
        Ok(attachment)
    }

    /// Removes a Pod's network namespace and releases its address.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        let address = self.pods.address(uid);
        self.pods.detach(uid).await?;
        if let Some(address) = address {
            self.routing.release(address.into());
        }
        Ok(())
    }

    /// Uids of the Pods that are attached.
    pub fn attached(&self) -> Vec<String> {
        self.pods.attached().into_iter().map(|(uid, _)| uid).collect()
    }

    /// Withdraws an address from all routes, and waits until new connections no longer reach it.
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

    /// Removes all devices, namespaces, packet filter rules and state files.
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

/// Applies new snapshots to the packet filter, skipping to the latest, and checks it at intervals.
async fn keep_filtered(
    mut table: Table,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    applied: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
) {
    // The initial snapshot must be applied as well.
    snapshots.mark_changed();
    let mut checks = 0u32;
    loop {
        tokio::select! {
            changed = snapshots.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
            () = clock.sleep(FILTER_CHECK) => {
                checks = checks.wrapping_add(1);
                check_filter(&mut table, checks);
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
                // Nothing was applied, so nothing is acknowledged. A Pod that waits for its withdrawal ends at the end of
                // its grace period.
                Err(error) => tracing::error!(%error, "Services are not up to date; trying again"),
            }
            clock.sleep(FILTER_RETRY).await;
        }
    }
}

/// Restores rules that other programs have removed, and opens new firewalls to Pods.
fn check_filter(table: &mut Table, checks: u32) {
    match table.heal() {
        Ok(true) => tracing::warn!("somebody flushed the packet filter; Services were set up anew"),
        Ok(false) if checks.is_multiple_of(FIREWALL_CHECKS) => table.open_firewall(),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the packet filter cannot be looked after"),
    }
}

//! How a request finds a Pod.
//!
//! ```text
//! Services, EndpointSlices, Ingresses --> index --snapshot--> nft     ClusterIP and NodePort, in the kernel
//!                                                \---------> dns     names
//!                                                \---------> router  HTTP by Host and path
//! ```
//!
//! One index feeds three tables. Each table acknowledges the generation it has applied, so that
//! [`Net::withdraw`] can tell when no new connection can reach an address any more.
#![allow(unsafe_code)] // network namespaces and netlink are system calls; each use says why it is sound

pub mod dns;
pub mod index;
pub mod nft;
pub mod pods;
pub mod routing;
pub mod slot;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use yado_reconcile::{Tasks, Watches};

use crate::index::Snapshot;
use crate::nft::{Rules, Table};
use crate::pods::{Attachment, PodNetwork};
use crate::routing::Routing;
use crate::slot::Slot;

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
}

/// The network of one node.
pub struct Net {
    slot: Slot,
    pods: PodNetwork,
    routing: Arc<Routing>,
}

impl Net {
    /// Sets up the node's side and starts the tables.
    pub async fn start(slot: Slot, watches: &Watches, tasks: &Tasks) -> Result<Self, Error> {
        let pods = PodNetwork::start(&slot).await?;
        let table = Table::create(&slot)?;
        let routing = Routing::new(watches);
        tasks.spawn("routing", routing.clone().run());
        tasks.spawn("packet filter", keep_filtered(table, routing.subscribe(), routing.table()));
        Ok(Self { slot, pods, routing })
    }

    /// Ready once every table knows every Service.
    pub async fn synced(&self) {
        self.routing.synced().await;
    }

    /// Gives a Pod its network; asked again for the same Pod it gives the same.
    pub async fn attach(&self, uid: &str) -> Result<Attachment, Error> {
        let attachment = self.pods.attach(uid).await?;
        self.routing.admit(attachment.address);
        Ok(attachment)
    }

    /// Takes a Pod's network away.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        let address = self.pods.attached().into_iter().find(|(attached, _)| attached == uid).map(|(_, a)| a);
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

    /// Removes devices, namespaces, rules and records: nothing is left.
    pub async fn tear_down(&self) -> Result<(), Error> {
        Table::remove(&self.slot)?;
        Ok(self.pods.tear_down().await?)
    }
}

/// Brings the kernel to every new snapshot, or to the newest where several came at once.
async fn keep_filtered(mut table: Table, mut snapshots: watch::Receiver<Arc<Snapshot>>, applied: watch::Sender<u64>) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        match table.apply(Rules::of(&snapshot)) {
            Ok(()) => _ = applied.send(snapshot.generation),
            // The next change tries again from what the kernel has; until then nothing is acknowledged.
            Err(error) => tracing::error!(%error, generation = snapshot.generation, "Services are not up to date"),
        }
    }
}

//! Persistent volumes: which claim has which, making those that are missing, and what becomes of them.
//!
//! ```text
//! [StorageClass] --\
//! [PersistentVolumeClaim] <--bound--> [PersistentVolume] --> a directory on a node
//!        ^--- kept while in use by --- [Pod]
//! ```
//!
//! Watches claims, volumes, classes and Pods. Writes claims and volumes. A claim of a class that waits for its first
//! consumer is bound once the scheduler has named a node on it. Volumes of the class `local` are directories; making
//! their names and removing them is asked of [`Directories`], as controllers touch no files.

mod bind;
mod matching;
mod provision;
mod release;
mod run;

pub(crate) use matching::{class_of, find_match, fits_node};
pub(crate) use run::{claims_of, start};

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

/// The directories of provisioned volumes. Whoever wires the engine knows the disk.
pub trait Directories: Debug + Send + Sync {
    /// The node whose disk this is.
    fn node(&self) -> &str;
    /// The absolute path for a volume of this name, which is made when it is first mounted.
    fn path(&self, volume: &str) -> String;
    /// Removes a directory that [`Directories::path`] gave, with all that is in it; one that is not there is fine.
    fn remove(&self, path: String) -> BoxFuture<'_, std::io::Result<()>>;
}

/// Annotation: binding a claim and its volume to each other is complete.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation: this controller chose the other side, not the user.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of claims: who is to make a volume.
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// What a decision on a claim rests on.
pub struct Observed<'a> {
    /// The claim.
    pub claim: &'a PersistentVolumeClaim,
    /// Every volume.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// The class that the claim names, if it is there.
    pub class: Option<Arc<StorageClass>>,
    /// The node that the scheduler named on the claim, if it is there.
    pub node: Option<Arc<Node>>,
    /// Names of Pods that use the claim and have not ended.
    pub users: Vec<String>,
    /// The node on whose disk volumes can be made.
    pub provider: Option<String>,
}

/// What is to be done for a claim.
#[derive(Clone, Debug)]
pub enum Action {
    /// Say in the volume that it is the claim's.
    Reserve(Arc<PersistentVolume>),
    /// Say in the claim that it has this volume.
    Bind(Arc<PersistentVolume>),
    /// Make a volume for the claim.
    Provision {
        /// The node on whose disk it is to be.
        node: String,
    },
    /// The volume is as large as asked for.
    Grow(Arc<PersistentVolume>, String),
    /// Write the claim's phase.
    Phase(&'static str),
    /// The scheduler is to choose again.
    ForgetNode,
    /// Nobody uses the claim: it may go.
    LetGo,
    /// Tell the user; the first part says whether it is a warning.
    Tell(bool, &'static str, String),
}

#[cfg(test)]
mod tests;

//! The persistent volume controller: binds claims to volumes, provisions volumes, and reclaims released ones.
//!
//! ```text
//! [StorageClass] --\
//! [PersistentVolumeClaim] <--bound--> [PersistentVolume] --> a directory on a node
//!        ^--- kept while in use by --- [Pod]
//! ```
//!
//! Watches PersistentVolumeClaims, PersistentVolumes, StorageClasses, Nodes and Pods. Writes claims and volumes. A claim of
//! a class with `WaitForFirstConsumer` is bound once the scheduler has written the selected node to it. Volumes of Yado's
//! own provisioner are directories on a node. Controllers access no files: [`Directories`] gives the paths and removes
//! the directories.

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

/// Access to the directories of provisioned volumes, implemented by the binary.
pub trait Directories: Debug + Send + Sync {
    /// Name of the node on whose disk the directories are.
    fn node(&self) -> &str;
    /// The absolute path of the directory for a volume of this name. The directory is created when the volume is first
    /// mounted.
    fn path(&self, volume: &str) -> String;
    /// Removes a directory that [`Directories::path`] returned, with its contents. It succeeds if there is none.
    fn remove(&self, path: String) -> BoxFuture<'_, std::io::Result<()>>;
}

/// Annotation of a claim whose binding to its volume is complete; Kubernetes' name.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim or volume whose counterpart was chosen by the controller and not by the user; Kubernetes' name.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of claims with the provisioner that is to create a volume; Kubernetes' name.
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// Inputs of the reconcile pass of a claim.
pub struct Observed<'a> {
    /// The claim to reconcile.
    pub claim: &'a PersistentVolumeClaim,
    /// All PersistentVolumes.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// The StorageClass that the claim names, if it exists.
    pub class: Option<Arc<StorageClass>>,
    /// The node that the scheduler selected for the claim, if it exists.
    pub node: Option<Arc<Node>>,
    /// Names of Pods that use the claim and have not ended.
    pub users: Vec<String>,
    /// Name of the node on which volumes can be provisioned; `None` if provisioning is disabled.
    pub provider: Option<String>,
}

/// A write or event that the reconcile pass of a claim decided on.
#[derive(Clone, Debug)]
pub enum Action {
    /// Set the volume's `claimRef` to the claim.
    Reserve(Arc<PersistentVolume>),
    /// Set the claim's `volumeName` to the volume, its phase to Bound, and its capacity and access modes to the volume's.
    Bind(Arc<PersistentVolume>),
    /// Create a volume for the claim.
    Provision {
        /// Name of the node on whose disk it is created.
        node: String,
    },
    /// Set the volume's capacity to this size.
    Grow(Arc<PersistentVolume>, String),
    /// Set the claim's phase.
    Phase(&'static str),
    /// Remove the selected node from the claim, so that the scheduler selects another.
    ForgetNode,
    /// Remove the in-use finalizer of a claim that is being deleted: no Pod uses it any more.
    RemoveFinalizer,
    /// Record an event on the claim: whether it is a warning, reason and message.
    Event(bool, &'static str, String),
}

#[cfg(test)]
mod tests;

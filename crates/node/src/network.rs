//! The node's interface to the Pod network, which the binary implements with `yado-net`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

/// Identifies a Pod to the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's uid, by which it is detached.
    pub uid: String,
}

/// The network namespace and address of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Path of the network namespace, as for `setns`.
    pub netns: PathBuf,
    /// The Pod's address.
    pub address: IpAddr,
}

/// A failure of the network, as one sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(pub String);

/// Creates and removes network namespaces and addresses of Pods.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Attaches a Pod. For a Pod that is attached already, it returns the same attachment.
    async fn attach(&self, pod: &PodRef) -> Result<Attachment, NetworkError>;
    /// Removes a Pod's namespace and address. It succeeds if the Pod is not attached.
    async fn detach(&self, uid: &str) -> Result<(), NetworkError>;
    /// The uids of all attached Pods.
    async fn attached(&self) -> Vec<String>;
}

/// Observes traffic to Pods, so that they can be drained before they are stopped.
#[async_trait]
pub trait Traffic: Send + Sync + 'static {
    /// Waits until neither the router nor the packet filter sends new connections to the address.
    async fn withdrawn(&self, address: IpAddr);
    /// Waits until no connection to a withdrawn address awaits a response or was used recently, at most for the duration
    /// `within`, since clients may use a connection without pause.
    async fn quiet(&self, address: IpAddr, within: Duration);
    /// Like [`Traffic::withdrawn`], for a Pod with host networking, which has no address of its own.
    async fn left(&self, uid: &str);
}

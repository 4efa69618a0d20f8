//! What a node asks of the Pod network. The binary implements it over `yado-net`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

/// Names a Pod to the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, by which it is detached.
    pub uid: String,
}

/// A Pod's place on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The network namespace, as a path that can be opened.
    pub netns: PathBuf,
    /// The Pod's address.
    pub address: IpAddr,
}

/// Why the network refused, in one sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(pub String);

/// Gives Pods a network namespace and an address.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Attaches a Pod; one that is attached already gets the same answer again.
    async fn attach(&self, pod: &PodRef) -> Result<Attachment, NetworkError>;
    /// Takes a Pod's namespace and address back; one that is not attached is fine.
    async fn detach(&self, uid: &str) -> Result<(), NetworkError>;
    /// The uids of all attached Pods.
    async fn attached(&self) -> Vec<String>;
}

/// Knows who sends traffic to Pods.
#[async_trait]
pub trait Traffic: Send + Sync + 'static {
    /// Ready once no router and no Service table sends new connections to the address.
    async fn withdrawn(&self, address: IpAddr);
    /// Ready once no connection to a withdrawn address awaits an answer or was used a moment ago, and no later than
    /// `within`: where clients use a connection without pause, it never is quiet.
    async fn quiet(&self, address: IpAddr, within: Duration);
    /// [`Traffic::withdrawn`] for a Pod of the host's network, which has no address of its own to be known by.
    async fn left(&self, uid: &str);
}

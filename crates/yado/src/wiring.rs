//! The seams between crates that know nothing of each other.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use yado_net::Net;
use yado_node::{Attachment, NetworkError, Node, PodNetwork, PodRef, Traffic};
use yado_reconcile::Tasks;

/// Bytes on their way between the API server and the node in one process.
const PIPE: usize = 64 * 1024;

/// Gives the node the network of `yado-net`.
pub struct NodeNetwork(pub Arc<Net>);

#[async_trait]
impl PodNetwork for NodeNetwork {
    async fn attach(&self, pod: &PodRef) -> Result<Attachment, NetworkError> {
        let attached = self.0.attach(&pod.uid).await.map_err(|e| NetworkError(e.to_string()))?;
        Ok(Attachment { netns: attached.netns, address: attached.address })
    }

    async fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        self.0.detach(uid).await.map_err(|e| NetworkError(e.to_string()))
    }

    async fn attached(&self) -> Vec<String> {
        self.0.attached()
    }
}

#[async_trait]
impl Traffic for NodeNetwork {
    async fn withdrawn(&self, address: IpAddr) {
        self.0.withdraw(address).await;
    }

    async fn quiet(&self, address: IpAddr, within: Duration) {
        self.0.quiet(address, within).await;
    }

    async fn left(&self, uid: &str) {
        self.0.left(uid).await;
    }
}

/// Opens streams to the node of this process. The API server is there before the node is.
#[derive(Clone)]
pub struct Dialer {
    node: Arc<OnceLock<Node>>,
    tasks: Tasks,
}

impl Dialer {
    /// Leads nowhere yet; the streams' tasks will be `tasks`'.
    pub fn new(tasks: Tasks) -> Self {
        Self { node: Arc::default(), tasks }
    }

    /// From now on streams lead to `node`.
    pub fn lead_to(&self, node: Node) {
        // Called once, right after the node is made.
        let _ = self.node.set(node);
    }
}

#[async_trait]
impl yado_apiserver::NodeDialer for Dialer {
    async fn dial(&self, name: &str) -> io::Result<Box<dyn yado_apiserver::NodeStream>> {
        let not_here = || io::Error::new(io::ErrorKind::NotFound, format!("node {name} is not here"));
        let node = self.node.get().filter(|node| node.name() == name).ok_or_else(not_here)?.clone();
        let (near, far) = tokio::io::duplex(PIPE);
        self.tasks.spawn("node stream", async move { node.serve(far).await });
        Ok(Box::new(near))
    }
}

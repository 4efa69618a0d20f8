//! The DNS server of the cluster: names of Services and Pods.
//!
//! - [`message`]: the packets (RFC 1035), pure.
//! - [`zone`]: resolution of the cluster's names, pure.
//! - [`server`]: UDP and TCP, and forwarding of all other names to the machine's own resolvers.

pub mod message;
pub mod server;
pub mod zone;

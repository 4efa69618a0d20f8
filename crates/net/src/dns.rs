//! Names of Services and Pods, as an application asks for them.
//!
//! - [`message`]: the packets (RFC 1035), pure.
//! - [`zone`]: what a name stands for, pure.
//! - [`server`]: UDP and TCP, and the way to the machine's own resolvers for all other names.

pub mod message;
pub mod server;
pub mod zone;

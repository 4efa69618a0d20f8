//! The Kubernetes API as a `tower::Service` over a revisioned store.
//!
//! A request is parsed into one typed value ([`request`]), then allowed or not ([`auth`], by the roles in [`rbac`]), then
//! answered from memory ([`read`], [`watch`], [`discovery`]) or carried out against the store ([`write`]). The memory
//! ([`cache`]) is fed by the store's own watch. What objects look like, how they are patched and printed is pure and
//! apart: [`schema`], [`patch`], [`apply`], [`protobuf`], [`openapi`], [`table`]. What tells one kind from another
//! (defaults, rules, columns, what is allocated or looked up) stands in one module for each under [`kinds`]; the rest
//! asks it through [`kinds::strategy::Strategy`] and names no kind.
//!
//! Between a decision and its commit stand the [`admission`] chain and the [`quota`]s. Custom kinds join the registry
//! ([`resource`]) through [`definitions`]. Objects of a kind with several versions are converted ([`convert`]) between the
//! version that a request names and the one in the store. How many requests are worked on at once, and
//! whose, decides [`flow_control`].
//!
//! Groups that other servers serve are registered and reached through [`aggregation`]. With an audit policy, requests are
//! logged ([`audit`]).

mod admission;
mod aggregation;
pub mod apply;
pub mod audit;
pub mod auth;
mod bootstrap;
mod cache;
pub mod cel;
mod content;
mod convert;
mod definitions;
mod discovery;
mod edit;
mod expiry;
mod flow_control;
mod identity;
mod kinds;
mod metrics;
mod node_proxy;
mod object;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod protobuf;
mod proxy;
mod quota;
pub mod rbac;
mod read;
mod request;
mod resource;
pub mod schema;
mod serve;
mod server;
pub mod status;
pub mod table;
mod tls;
pub mod tokens;
mod tunnel;
mod usage_metrics;
mod watch;
mod webhook;
mod write;

pub use auth::{Identity, Tokens};
pub use content::Body;
pub use node_proxy::{NoNodes, NodeDialer, NodeStream};
pub use resource::secret_prefixes;
pub use server::{ApiServer, Config};
pub use status::Failure;

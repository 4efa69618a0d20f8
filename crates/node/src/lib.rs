//! Pods on this machine. A [`Node`] watches the Pods that are bound to it, runs them with the container runtime of
//! `yado-oci`, and reports how they fare.
//!
//! ```text
//! [Pod bound here] ──feed──▶ queue by uid ──▶ lifecycle::decide (pure) ──▶ actions ──▶ runtime, network, volumes
//!        ▲                       ▲                                                          │
//!        │                       └── container exits, probe results, pulled images ◀────────┘
//!        └── status, events
//! ```
//!
//! - [`lifecycle`](self): what is known of a Pod and what is to be done next; pure.
//! - `pod`: the thin loop that does it, and the tasks it starts.
//! - `admission`: whether this node can run a Pod at all; pure.
//! - `eviction`, `disk_usage`: limits of local disk.
//! - `container`, `environment`, `security`, `resources`, `hostfiles`: from a Pod's specification to a container's; pure.
//! - `annotations`: what Pods say beyond their fields.
//! - `spec`: reads a Pod's specification with its defaults; pure.
//! - `volumes`: directories, tmpfs, projected files with atomic refresh.
//! - `probes`, `images`, `logs`: what their names say.
//! - `api`: the HTTP API that the API server proxies `logs`, `exec`, `attach` and `port-forward` to.
//! - `registration`: the Node object and its lease.
#![allow(unsafe_code)] // entering a network namespace and inotify are system calls; each use says why it is sound

mod admission;
mod annotations;
mod api;
mod container;
mod disk_usage;
mod environment;
mod eviction;
mod hooks;
mod hostfiles;
mod images;
mod lifecycle;
mod logs;
mod machine;
mod network;
mod node;
mod pod;
mod probes;
mod registration;
mod resources;
mod security;
mod spec;
mod status;
mod streams;
mod volumes;

pub use machine::address as machine_address;
pub use network::{Attachment, NetworkError, PodNetwork, PodRef, Traffic};
pub use node::{Config, Node, NodeError};

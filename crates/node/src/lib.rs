//! Pods on this machine. A [`Node`] watches the Pods that are bound to it, runs them with the container runtime of
//! `yado-oci`, and reports how they fare.
//!
//! ```text
//! [Pod bound here] ──feed──▶ task of the Pod ──▶ lifecycle::decide (pure) ──▶ jobs ──▶ runtime, network, volumes
//!        ▲                     ▲   │                                           │
//!        │                     │   └── PodState ──▶ probes, hooks, API         │
//!        └── status, events ───┴──────── container exits, results ◀────────────┘
//! ```
//!
//! Modules use those further down only:
//!
//! - `node`: the node as its owner sees it.
//! - `api`: the HTTP API that the API server proxies `logs`, `exec`, `attach` and `port-forward` to, with `streams`, `logs`.
//! - `registration`: the Node object and its lease.
//! - `eviction`, `disk_usage`: limits of local disk.
//! - `sampling`, `usage`: reads what Pods and the node use; shows it as the kubelet does, which is pure.
//! - `pod`: the task of each Pod, which alone changes the Pod's state, and its jobs.
//! - `probes`, `hooks`: what is asked of running containers.
//! - `shared`, `handle`: the services that all Pods share; each Pod's published state and the requests to its task.
//! - `status`, `lifecycle`: a Pod's status; what is known of a Pod and what is to be done next; pure.
//! - `admission`: whether this node can run a Pod at all; pure.
//! - `container`, `security`, `hostfiles`: from a Pod's specification to a container's; pure.
//! - `volumes`: directories, tmpfs, projected files with atomic refresh.
//! - `sources`: the ConfigMaps and Secrets that Pods refer to.
//! - `tokens`: the ServiceAccount tokens of a Pod, and when they are to be replaced; pure.
//! - `images`: the image store with pulls that containers share.
//! - `annotations`, `environment`, `resources`, `spec`: read a Pod's specification; pure.
//! - `config`, `machine`, `network`: the configuration, the machine, the interface to the Pod network.
#![allow(unsafe_code)] // entering a network namespace and inotify are system calls; each use says why it is sound

mod admission;
mod annotations;
mod api;
mod config;
mod container;
mod disk_usage;
mod environment;
mod eviction;
mod handle;
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
mod sampling;
mod security;
mod shared;
mod sources;
mod spec;
mod status;
mod streams;
mod tokens;
mod usage;
mod volumes;

pub use config::Config;
pub use machine::address as machine_address;
pub use network::{Attachment, NetworkError, PodNetwork, PodRef, Traffic};
pub use node::{Node, NodeError};

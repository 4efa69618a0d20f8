//! Images and containers, with no word of Kubernetes.
//!
//! - [`image`]: what an image is, and the [`image::ImageStore`] that imports, pulls, unpacks and forgets them.
//! - [`build`]: a directory in, an image out.
//! - [`runtime`]: sandboxes and containers, each sandbox held by one shim process that outlives its starter.
//! - [`spec`]: what a caller says about a sandbox, a container, an exec.
#![allow(unsafe_code)] // namespaces, mounts and fd passing are system calls; each use says why it is sound

pub mod build;
pub mod image;
pub mod mountinfo;
pub mod runtime;
pub mod spec;

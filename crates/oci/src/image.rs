//! Images: content by digest, layers unpacked once and shared.
//!
//! ```text
//! DIR/lock                    held by the one process that owns the store
//! DIR/index.json              what is here: names, images, layers, import and build memory; replaced atomically
//! DIR/blobs/sha256/HEX        manifests and configurations (and layer blobs where the store keeps them)
//! DIR/layers/HEX/             one layer, unpacked, named by the digest of its uncompressed archive (diffID)
//! DIR/empty/                  stands for the layers of an image that has none
//! DIR/build/                  what the builder may reuse: package lists and packages
//! DIR/tmp/                    work in progress, swept when the store is opened
//! ```
//!
//! Everything is made in `tmp/` and renamed into place, and only then named in `index.json`. A process killed at any
//! point leaves either the old state or the new one; what no index entry names is swept at the next open.

mod archive;
mod auth;
mod error;
mod import;
mod layer;
mod manifest;
mod merged;
mod pack;
mod progress;
mod pull;
mod reference;
mod save;
mod store;
mod unpack;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use auth::{RegistryAuth, RegistryAuths};
pub use error::{ImageError, Result};
pub use import::Imported;
pub use merged::{Directory, Merged};
pub use progress::{Event, LayerState, Progress, StepState};
pub use reference::Reference;
pub use store::{Bounds, Freed, ImageStore, Keep, Limits, StoreConfig};

pub(crate) use error::{IoContext, tidy_reason};
pub(crate) use import::plain_manifest;
pub(crate) use manifest::{ConfigBlob, architecture, digest_of};
pub(crate) use pack::pack;
pub(crate) use store::{LayerRecord, NewImage, Pin, Staging};

/// An image that is complete on this machine and ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of the configuration: `sha256:…`. Two names of the same content have the same id.
    pub id: String,
    /// Every name it has here, normalised (`docker.io/library/busybox:latest`).
    pub names: Vec<String>,
    /// `repository@sha256:…` for each registry it was pulled from.
    pub repo_digests: Vec<String>,
    /// Bytes of the layers, unpacked.
    pub size: u64,
    /// What it says about running it.
    pub config: ImageConfig,
    /// Unpacked layer directories, topmost first: an overlay's lower directories.
    pub layers: Vec<PathBuf>,
}

/// The part of an image's configuration that says how to run it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Further words, replaced by a caller's arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty is `/`.
    pub working_dir: String,
    /// User as in [`crate::spec::ContainerSpec::user`].
    pub user: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Directories that the image declares to be volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM` where empty.
    pub stop_signal: String,
}

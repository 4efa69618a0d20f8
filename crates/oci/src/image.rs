//! Images: content by digest, layers unpacked once and shared.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

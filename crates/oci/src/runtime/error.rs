//! What can go wrong between a caller and its containers.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of a runtime call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a runtime call failed. Each text is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the runtime could not be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// A verb phrase: `read`, `create directory`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An id that cannot name a directory and a cgroup.
    #[error("{id:?} cannot be an id: use 1 to {max} characters of a-z, 0-9 and -")]
    InvalidId {
        /// The offending id.
        id: String,
        /// How long it may be.
        max: usize,
    },
    /// The machine has no cgroup hierarchy that could limit containers.
    #[error(
        "no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup or start yado as root on the host"
    )]
    NoCgroups,
    /// A sandbox of this id has a directory already.
    #[error("sandbox {id} exists already; destroy it first")]
    SandboxExists {
        /// Its id.
        id: String,
    },
    /// Nothing is known of this sandbox.
    #[error("there is no sandbox {id}")]
    NoSuchSandbox {
        /// Its id.
        id: String,
    },
    /// The shim process could not be started.
    #[error("the shim of sandbox {id} could not be started: {reason}")]
    ShimStart {
        /// The sandbox.
        id: String,
        /// What the shim said before it ended.
        reason: String,
    },
    /// The shim is dead, or dropped the connection and did not take a new one.
    #[error("the shim of sandbox {id} is gone and its containers with it; destroy the sandbox")]
    ShimGone {
        /// The sandbox.
        id: String,
    },
    /// The shim refused a request.
    #[error("{message}")]
    Refused {
        /// What kind of refusal.
        kind: Refusal,
        /// The sentence for the user.
        message: String,
    },
    /// An exec with a time limit did not end within it; it was killed.
    #[error("the command did not end within {0:?} and was killed")]
    ExecTimeout(Duration),
    /// Something would not die.
    #[error("processes of {what} are still there {after:?} after SIGKILL; look at cgroup {cgroup}")]
    StillAlive {
        /// The sandbox.
        what: String,
        /// How long was waited.
        after: Duration,
        /// Where they can be seen.
        cgroup: PathBuf,
    },
}

/// Why a shim refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No container of that id.
    NoSuchContainer,
    /// A container of that id is there already.
    ContainerExists,
    /// The container is not in the state that the request needs.
    WrongState,
    /// The program could not be run: not found, not executable, user unknown, a mount that failed.
    CannotStart,
    /// The sandbox's bounds on containers, execs or connections.
    Limit,
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

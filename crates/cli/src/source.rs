//! Where a description is, by which projects are told apart.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory of a description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The machine that it is on: its ID, or its name where it has none.
    pub machine: String,
    /// Absolute and without links.
    pub path: PathBuf,
}

impl Source {
    /// Of a description's directory.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn of(directory: &Path) -> std::io::Result<Self> {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        Ok(Source { machine: machine(), path: directory.canonicalize()? })
    }

    /// Whether another project may still be there: it is on another machine, or its directory exists.
    pub fn may_exist(&self) -> bool {
        self.machine != machine() || self.path.exists()
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let elsewhere = if self.machine == machine() { "" } else { " of another machine" };
        write!(f, "{}{elsewhere}", self.path.display())
    }
}

fn machine() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match id.trim() {
        "" => nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        id => id.to_owned(),
    }
}

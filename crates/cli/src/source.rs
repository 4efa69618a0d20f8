//! Where a description is, by which projects are told apart.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory of a description, or its file where a directory may hold several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The machine that it is on: its ID, or its name where it has none.
    pub machine: String,
    /// Absolute and without links.
    pub path: PathBuf,
}

impl Source {
    /// Of a description's directory or file.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Source { machine: machine(), path: path.canonicalize()? })
    }

    /// Whether it is this directory, or a file in it.
    pub fn is_in(&self, directory: &Source) -> bool {
        let parent = self.path.parent().filter(|_| self.path.is_file());
        self.machine == directory.machine
            && (self.path == directory.path || parent == Some(directory.path.as_path()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_holds_itself_and_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let (file, below) = (folder.path().join("web.yaml"), folder.path().join("below"));
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&below).unwrap();
        let of = |path: &Path| Source::of(path).unwrap();
        let here = of(folder.path());
        assert!(here.is_in(&here) && of(&file).is_in(&here));
        assert!(!of(&below).is_in(&here) && !here.is_in(&of(&below)));
        assert!(!Source { machine: "another".into(), ..of(&file) }.is_in(&here));
    }
}

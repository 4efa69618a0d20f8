//! The directories of persistent volumes, below the data directory.

use std::io;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use yado_controllers::volume::Directories;

/// A directory with a directory for each volume, on the disk of one node.
#[derive(Debug)]
pub struct LocalVolumes {
    node: String,
    root: PathBuf,
}

impl LocalVolumes {
    /// Volumes of the node `node` below `root`, which need not be there yet.
    pub fn new(node: &str, root: PathBuf) -> Self {
        Self { node: node.to_owned(), root }
    }
}

impl Directories for LocalVolumes {
    fn node(&self) -> &str {
        &self.node
    }

    fn path(&self, volume: &str) -> String {
        self.root.join(volume).to_string_lossy().into_owned()
    }

    fn remove(&self, path: String) -> BoxFuture<'_, io::Result<()>> {
        async move {
            // The path comes from an object that others may write; nothing but a volume is removed by it.
            let path = Path::new(&path);
            let is_volume = path.parent() == Some(&*self.root) && path.file_name().is_some();
            if !is_volume || path.components().any(|c| c.as_os_str() == "..") {
                return Err(io::Error::other(format!(
                    "{} is not a volume below {}: remove it yourself",
                    path.display(),
                    self.root.display()
                )));
            }
            match tokio::fs::remove_dir_all(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_volumes_are_removed() {
        let disk = tempfile::tempdir().expect("a directory");
        let volumes = LocalVolumes::new("n", disk.path().join("volumes"));
        let path = volumes.path("default_data_1");
        std::fs::create_dir_all(Path::new(&path).join("sub")).expect("a volume");
        let outside = disk.path().join("outside");
        std::fs::create_dir_all(&outside).expect("a directory");
        let dots = format!("{}/..", disk.path().join("volumes").display());
        for other in [outside.to_string_lossy().into_owned(), dots, format!("{path}/sub"), "/".into()] {
            assert!(volumes.remove(other.clone()).await.is_err(), "{other}");
        }
        assert!(outside.exists() && Path::new(&path).join("sub").exists());
        for _ in 0..2 {
            volumes.remove(path.clone()).await.expect("removed, or gone already");
            assert!(!Path::new(&path).exists());
        }
    }
}

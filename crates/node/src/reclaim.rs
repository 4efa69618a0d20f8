//! The files of volumes whose time is over.
//!
//! `[PersistentVolume]` that is being deleted, with [`labels::FINALIZER_LOCAL_VOLUME`] --> its directory is removed, then
//! the finalizer. Only what lies directly beneath this node's directory of volumes is ever removed.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use yado_reconcile::{Next, ObjectKey, Queue, run};
use yado_types::labels;

use crate::pod::Shared;

/// Where what is being removed is moved to: nobody meets it half removed.
const GONE: &str = ".gone";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path} cannot be removed: {error}")]
    Remove { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Removes directories until the node's tasks are stopped.
pub(crate) fn start(shared: &Arc<Shared>) {
    let Some(dir) = shared.config.volumes_dir.clone() else { return };
    let queue: Arc<Queue<ObjectKey>> = Queue::new(shared.clock.clone());
    let own = dir.clone();
    shared.volumes.feed_queue(&queue, move |change| {
        change.new.as_ref().filter(|volume| place(volume, &own).is_some()).map(|_| change.key.clone())
    });
    let owner = shared.clone();
    run(&shared.tasks, "volume files", &queue, 1, move |key: ObjectKey| {
        let (shared, dir) = (owner.clone(), dir.clone());
        async move {
            let volume = shared.volumes.get(&key);
            let Some((volume, path)) = volume.and_then(|v| place(&v, &dir).map(|path| (v, path))) else {
                return Ok(Next::Wait);
            };
            let gone = dir.join(GONE);
            let (to, shown) = (gone.join(volume.metadata.uid.clone().unwrap_or_default()), path.clone());
            let removed = tokio::task::spawn_blocking(move || remove(&path, &gone, &to)).await;
            let removed = removed.map_err(io::Error::other).and_then(|r| r);
            removed.map_err(|error| Error::Remove { path: shown, error })?;
            let finalizers = volume.metadata.finalizers.iter().flatten();
            let left: Vec<_> = finalizers.filter(|f| *f != labels::FINALIZER_LOCAL_VOLUME).collect();
            // The version says that nobody has put another one there meanwhile.
            let version = &volume.metadata.resource_version;
            let patch = json!({"metadata": {"finalizers": left, "resourceVersion": version}});
            let api: Api<PersistentVolume> = Api::all(shared.client.clone());
            match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => Ok::<_, Error>(Next::Wait),
                // Gone, or changed: the watch brings it again.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(Next::Wait),
                Err(error) => Err(error.into()),
            }
        }
    });
}

/// The directory of a volume that is to be removed.
fn place(volume: &PersistentVolume, dir: &Path) -> Option<PathBuf> {
    volume.metadata.deletion_timestamp.as_ref()?;
    let finalizers = volume.metadata.finalizers.iter().flatten();
    finalizers.into_iter().find(|f| *f == labels::FINALIZER_LOCAL_VOLUME)?;
    let path = PathBuf::from(&volume.spec.as_ref()?.host_path.as_ref()?.path);
    let mut inner = path.strip_prefix(dir).ok()?.components();
    let plain = matches!(inner.next(), Some(Component::Normal(name)) if name != GONE);
    (plain && inner.next().is_none()).then_some(path)
}

fn remove(path: &Path, gone: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(gone)?;
    match fs::rename(path, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(metadata: Value, path: &str, expect: bool) {
        let volume = json!({"metadata": metadata, "spec": {"hostPath": {"path": path}}});
        let volume: PersistentVolume = serde_json::from_value(volume).expect("a PersistentVolume");
        assert_eq!(place(&volume, Path::new("/data/volumes")).is_some(), expect, "{path}");
    }

    #[test]
    fn only_what_the_node_made_is_removed() {
        let over = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x", "yado.dev/local-volume"]});
        check(over.clone(), "/data/volumes/a", true);
        for path in [
            "/data/volumes",
            "/data/volumes/",
            "/data/volumes/..",
            "/data/volumes/a/b",
            "/data/other",
            "/",
            "/data/volumes/../x",
            "/data/volumes/.gone",
        ] {
            check(over.clone(), path, false);
        }
        check(json!({"finalizers": ["yado.dev/local-volume"]}), "/data/volumes/a", false);
        check(
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"]}),
            "/data/volumes/a",
            false,
        );
    }

    #[test]
    fn what_is_removed_is_gone_and_may_be_gone_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, gone) = (dir.path().join("a"), dir.path().join(GONE));
        fs::create_dir_all(path.join("b")).expect("a folder");
        fs::write(path.join("b/c"), "d").expect("a file");
        for _ in 0..2 {
            remove(&path, &gone, &gone.join("uid")).expect("to remove");
            assert!(!path.exists() && !gone.join("uid").exists());
        }
    }
}

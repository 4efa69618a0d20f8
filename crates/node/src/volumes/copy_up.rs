//! A new volume is filled with what the image has in its place, as users of Docker's named volumes expect: a database
//! finds its directory with the right owner, a web server its default pages.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use nix::sys::stat::{Mode, SFlag, mknod};
use parking_lot::Mutex;
use yado_oci::image::Merged;
use yado_types::labels;

use crate::environment::Sources;

/// In a volume while it is being filled: one that still holds it after a crash is filled again.
const UNFINISHED: &str = ".yado-copying";
/// What a new file system is not empty of.
const OF_FILE_SYSTEMS: &str = "lost+found";

/// An empty volume into which content of an image is to be copied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CopyUp {
    /// Path of the volume on this machine.
    pub volume: PathBuf,
    /// Path of the content in the image.
    pub from: PathBuf,
}

/// One lock for each volume that is being filled: a second container with the same volume waits until it is whole, and no
/// other container waits.
#[derive(Default)]
pub(crate) struct FillLocks {
    state: Mutex<FillState>,
}

#[derive(Default)]
struct FillState {
    locks: HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>,
    begun: u64,
}

impl FillLocks {
    /// The lock of a volume, which is known by where it really lies: several Pods may share a claim's. The number is
    /// another each time.
    pub(crate) fn of(&self, volume: &Path) -> (Arc<tokio::sync::Mutex<()>>, u64) {
        let volume = volume.canonicalize().unwrap_or_else(|_| volume.to_owned());
        let mut state = self.state.lock();
        state.locks.retain(|_, lock| lock.strong_count() > 0);
        state.begun += 1;
        let known = state.locks.get(&volume).and_then(Weak::upgrade);
        let lock = known.unwrap_or_else(|| {
            let lock = Arc::default();
            state.locks.insert(volume, Arc::downgrade(&lock));
            lock
        });
        (lock, state.begun)
    }
}

/// The volumes of a container that are empty and want it: those whose claims say so, and those that are as old as their
/// Pod and that the Pod names; without those that the Pod wants as they are.
pub(crate) fn volumes_to_fill(
    dir: &Path,
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
    sources: &dyn Sources,
) -> Vec<CopyUp> {
    let mut all: Vec<CopyUp> = Vec::new();
    let of_pod = pod.metadata.annotations.as_ref().and_then(|a| a.get(labels::COPY_UP));
    let named = |volume: &Volume| {
        volume.empty_dir.is_some() && of_pod.is_some_and(|n| n.split(',').any(|n| n.trim() == volume.name))
    };
    let left = pod.metadata.annotations.as_ref().and_then(|a| a.get(labels::NO_COPY_UP));
    let left = |name: &str| left.is_some_and(|names| names.split(',').any(|n| n.trim() == name));
    for mount in container.volume_mounts.iter().flatten().filter(|mount| !left(&mount.name)) {
        if [&mount.sub_path, &mount.sub_path_expr].into_iter().flatten().any(|path| !path.is_empty()) {
            continue;
        }
        let volume = spec.volumes.iter().flatten().find(|v| v.name == mount.name);
        let claim = volume.and_then(|v| sources.claim(&v.persistent_volume_claim.as_ref()?.claim_name));
        let of_claim = claim.and_then(|c| c.metadata.annotations.as_ref()?.get(labels::COPY_UP).cloned());
        let asked = of_claim.as_deref() == Some("true") || volume.is_some_and(named);
        let volume = dir.join(&mount.name);
        if asked && !all.iter().any(|w| w.volume == volume) && is_empty(&volume) {
            all.push(CopyUp { volume, from: PathBuf::from(&mount.mount_path) });
        }
    }
    all
}

fn is_empty(volume: &Path) -> bool {
    let Ok(entries) = fs::read_dir(volume) else { return false };
    let mut names = entries.flatten().map(|e| e.file_name()).filter(|name| name != OF_FILE_SYSTEMS);
    volume.join(UNFINISHED).exists() || names.next().is_none()
}

/// Fills volumes from an image's layers, looked at through `scratch`. The error is a sentence.
pub(crate) fn fill(all: &[CopyUp], layers: &[PathBuf], scratch: &Path) -> Result<(), String> {
    let merged = Merged::mount(layers, scratch)
        .map_err(|error| format!("the image cannot be looked into to fill a volume: {error}"))?;
    for wanted in all.iter().filter(|wanted| is_empty(&wanted.volume)) {
        let filled = match merged.directory(&wanted.from) {
            Ok(Some(from)) => from.path().and_then(|from| fill_one(&from, &wanted.volume)),
            // The image has nothing there.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        filled.map_err(|error| {
            format!("the volume at {} cannot be filled from the image: {error}", wanted.from.display())
        })?;
    }
    merged.unmount().map_err(|error| format!("the image cannot be put away again: {error}"))
}

fn fill_one(from: &Path, volume: &Path) -> io::Result<()> {
    let unfinished = volume.join(UNFINISHED);
    fs::File::create(&unfinished)?;
    copy_entries(from, volume)?;
    like(volume, &fs::metadata(from)?)?;
    fs::remove_file(&unfinished)
}

/// Copies what is in a directory. Depth is bounded by the length of paths.
fn copy_entries(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    let kind = found.file_type();
    if !kind.is_dir() && fs::symlink_metadata(to).is_ok() {
        // Of an attempt that was broken off.
        fs::remove_file(to)?;
    }
    if kind.is_dir() {
        match fs::create_dir(to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => copy_entries(from, to)?,
        }
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else if kind.is_fifo() {
        mknod(to, SFlag::S_IFIFO, Mode::empty(), 0)?;
    } else {
        // Sockets are of no use without who listens, and devices are no content.
        return Ok(());
    }
    like(to, &found)
}

/// Owner, mode and time. The owner first: a change of owner takes the set-user-id bit away.
fn like(path: &Path, original: &fs::Metadata) -> io::Result<()> {
    lchown(path, Some(original.uid()), Some(original.gid()))?;
    if original.file_type().is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(original.mode() & 0o7777))?;
    if original.is_file() {
        fs::File::open(path)?.set_modified(original.modified()?)?;
    }
    Ok(())
}

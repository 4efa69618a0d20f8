//! Work in progress: directories and files in `tmp/` that vanish unless they are put in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Inner, LayerRecord};
use crate::image::{IoContext as _, Result};

/// A path in `tmp/`, removed with all it holds when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    armed: bool,
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // Best effort: what stays is swept at the next open, and there is nobody to tell here.
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "could not remove unfinished work");
        }
    }
}

/// Keeps a layer from being collected while an operation counts on it.
#[derive(Debug)]
pub(crate) struct Pin {
    store: Arc<Inner>,
    diff_id: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        if let Some(count) = state.pins.get_mut(&self.diff_id) {
            *count -= 1;
            if *count == 0 {
                state.pins.remove(&self.diff_id);
            }
        }
    }
}

impl Inner {
    pub(super) fn temporary(&self, kind: &str) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.dir.join("tmp").join(format!("{kind}-{serial}"))
    }

    /// An empty directory to work in.
    pub(crate) fn stage_dir(&self, kind: &str) -> Result<Staging> {
        let path = self.temporary(kind);
        fs::create_dir(&path).at("make the directory", &path)?;
        Ok(Staging { path, armed: true })
    }

    /// An empty file to write to.
    pub(crate) fn stage_file(&self, kind: &str) -> Result<(Staging, fs::File)> {
        let path = self.temporary(kind);
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path).at("create", &path)?;
        Ok((Staging { path, armed: true }, file))
    }

    /// Counts on a layer from now on; the flag says whether it is here.
    pub(crate) fn pin(self: &Arc<Self>, diff_id: &str) -> (Pin, bool) {
        let mut state = self.state.lock();
        *state.pins.entry(diff_id.to_owned()).or_default() += 1;
        let present = state.index.layers.contains_key(diff_id);
        if present {
            Self::note_use(&mut state, diff_id);
        }
        (Pin { store: Arc::clone(self), diff_id: diff_id.to_owned() }, present)
    }

    /// Puts a finished layer in place, and the blob it came in where that is kept. Where somebody else was first,
    /// theirs stays and ours goes.
    pub(crate) fn place_layer(
        &self,
        diff_id: &str,
        mut staged: Staging,
        record: LayerRecord,
        blob: Option<Staging>,
    ) -> Result<()> {
        // Its files reach the disk before an index that names it does.
        self.sync()?;
        let mut state = self.state.lock();
        if state.index.layers.contains_key(diff_id) {
            return Ok(());
        }
        if let (Some(mut blob), Some(digest)) = (blob, &record.blob) {
            let path = self.blob_path(digest);
            fs::rename(&blob.path, &path).at("put the blob in place at", &path)?;
            blob.armed = false;
        }
        let path = self.layer_dir(diff_id);
        fs::rename(&staged.path, &path).at("put the layer in place at", &path)?;
        // Should the index not take it, it is removed from its new place.
        staged.path = path;
        self.update(&mut state.index, |index| {
            let used = super::collect::made();
            index.layers.insert(diff_id.to_owned(), LayerRecord { used, ..record });
        })?;
        staged.armed = false;
        Ok(())
    }
}

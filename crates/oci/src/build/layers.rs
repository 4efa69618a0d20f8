//! Steps, their keys, and layers made from directories.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::slice::SliceIndex;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest as _, Sha256};

use crate::image::{
    ConfigBlob, Image, ImageConfig, ImageError, ImageStore, IoContext as _, LayerRecord, NewImage, Pin,
    Progress, Reference, Result, Staging, StepState, architecture, digest_of, pack, plain_manifest,
};

/// Part of every key: a change in how layers are made makes them anew.
const GENERATION: &str = "1";
/// The time of whatever has no time of its own: 2000-01-01, which every archive format can hold.
pub(super) const MADE: i64 = 946_684_800;

/// One build under way.
pub(super) struct Build<'a> {
    pub(super) name: Reference,
    pub(super) store: &'a ImageStore,
    pub(super) progress: &'a Progress,
    /// Finished layers, bottom first.
    layers: Vec<Layer>,
    /// What is finished from now on serves later steps and is no part of the image.
    staging: bool,
}

/// A finished layer of a build under way.
struct Layer {
    diff_id: String,
    /// Keeps it from being collected.
    _pin: Pin,
    staged: bool,
}

/// The digest of everything a step depends on.
#[derive(Clone)]
pub(super) struct Key(Sha256);

impl Key {
    pub(super) fn new(step: &str) -> Self {
        let key = Self(Sha256::new());
        key.with(GENERATION).with(architecture()).with(step)
    }

    /// Adds an input. Lengths keep `ab`, `c` and `a`, `bc` apart.
    pub(super) fn with(mut self, input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref();
        self.0.update((input.len() as u64).to_le_bytes());
        self.0.update(input);
        self
    }

    pub(super) fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

impl<'a> Build<'a> {
    pub(super) fn new(name: &str, store: &'a ImageStore, progress: &'a Progress) -> Result<Self> {
        Ok(Self { name: name.parse()?, store, progress, layers: Vec::new(), staging: false })
    }

    /// The first `count` layers of this one, as a build of its own.
    pub(super) fn branch(&self, count: usize) -> Self {
        let layers = self.pinned(..count.min(self.layers.len()));
        Self { name: self.name.clone(), store: self.store, progress: self.progress, layers, staging: false }
    }

    /// This one with what `make` makes over its first `count` layers, below the others.
    pub(super) fn inserted(&self, count: usize, make: impl FnOnce(&mut Self) -> Result<()>) -> Result<Self> {
        let mut whole = self.branch(count);
        make(&mut whole)?;
        whole.layers.extend(self.pinned(count.min(self.layers.len())..));
        Ok(whole)
    }

    fn pinned(&self, range: impl SliceIndex<[Layer], Output = [Layer]>) -> Vec<Layer> {
        let pinned = |layer: &Layer| Layer {
            diff_id: layer.diff_id.clone(),
            _pin: self.store.inner.pin(&layer.diff_id).0,
            staged: layer.staged,
        };
        self.layers[range].iter().map(pinned).collect()
    }

    /// Does `work`, whose layers serve later steps only where `staging` is set.
    pub(super) fn staged<T>(&mut self, staging: bool, work: impl FnOnce(&mut Self) -> T) -> T {
        self.staging = staging;
        let done = work(self);
        self.staging = false;
        done
    }

    fn push(&mut self, diff_id: String, pin: Pin) {
        self.layers.push(Layer { diff_id, _pin: pin, staged: self.staging });
    }

    pub(super) fn failed(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Build { name: self.name.to_string(), reason: reason.into() }
    }

    pub(super) fn running(&self, step: &'static str, what: impl Into<String>) {
        self.progress.step(step, StepState::Running(what.into()));
    }

    /// The layers so far, bottom first, those of the building stage among them.
    pub(super) fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.diff_id.as_str())
    }

    /// Takes the layer that was made under this key before, if it is still here.
    pub(super) fn cached(&mut self, step: &'static str, key: &str) -> bool {
        let Some(diff_id) = self.store.inner.recall(key) else { return false };
        let (pin, present) = self.store.inner.pin(&diff_id);
        if present {
            self.progress.step(step, StepState::Cached);
            self.push(diff_id, pin);
        }
        present
    }

    /// Makes a directory a layer, and remembers it under the keys.
    pub(super) fn add(&mut self, step: &'static str, staged: Staging, keys: Vec<String>) -> Result<()> {
        let packed = pack(staged.path(), io::sink(), self.progress)?;
        let (pin, _) = self.store.inner.pin(&packed.digest);
        let record = LayerRecord {
            size: packed.content,
            packed: Some(packed.size),
            blob: None,
            ..LayerRecord::default()
        };
        self.store.inner.place_layer(&packed.digest, staged, record, None)?;
        self.store.inner.remember(keys.into_iter().map(|key| (key, packed.digest.clone())).collect())?;
        self.push(packed.digest, pin);
        self.progress.step(step, StepState::Done);
        Ok(())
    }

    /// The image of the layers so far.
    pub(super) fn finish(self, config: ImageConfig) -> Result<Image> {
        let in_image = self.layers.iter().filter(|layer| !layer.staged);
        let diff_ids: Vec<String> = in_image.map(|layer| layer.diff_id.clone()).collect();
        let mut blob = ConfigBlob {
            created: "2000-01-01T00:00:00Z".to_owned(),
            architecture: architecture().to_owned(),
            os: "linux".to_owned(),
            config: config.into(),
            ..ConfigBlob::default()
        };
        blob.rootfs.kind = "layers".to_owned();
        blob.rootfs.diff_ids.clone_from(&diff_ids);
        // Maps with string keys and plain values: serialisation has no way to fail.
        let config = serde_json::to_vec(&blob).expect("a configuration is plain data");
        let name = self.name.to_string();
        // Nothing has changed, so nothing is written.
        if let Some(image) = self.store.get(&digest_of(&config))?
            && image.names.contains(&name)
        {
            return Ok(image);
        }
        let manifest = plain_manifest(&config, &diff_ids);
        let (names, repo_digests) = (vec![name], Vec::new());
        self.store.inner.commit(NewImage { config: &config, manifest: &manifest, names, repo_digests })
    }
}

/// Makes a directory the same whenever it is made: whole seconds, a fixed time for whatever is newer than `started`
/// (seconds since the Unix epoch), and none of overlay's own attributes but the mark of an opaque directory.
pub(super) fn normalise(dir: &Path, started: i64) -> Result<()> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let path = entry.at("list", dir)?.path();
        let meta = fs::symlink_metadata(&path).at("look at", &path)?;
        if meta.is_dir() {
            normalise(&path, started)?;
        }
        set_time(&path, clamp(meta.mtime(), started))?;
        strip(&path)?;
    }
    let meta = fs::symlink_metadata(dir).at("look at", dir)?;
    set_time(dir, clamp(meta.mtime(), started))?;
    strip(dir)
}

/// Gives all that a tool made one time, so that nothing in it depends on when it was made.
pub(super) fn settle(dir: &Path) -> Result<()> {
    normalise(dir, i64::MIN)
}

fn clamp(modified: i64, started: i64) -> i64 {
    if modified >= started || modified < 0 { MADE } else { modified }
}

fn strip(path: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    for name in xattr::list(path).at("read the attributes of", path)? {
        let overlay = name.as_bytes().starts_with(b"trusted.overlay.");
        if overlay && name != "trusted.overlay.opaque" {
            xattr::remove(path, &name).at("change the attributes of", path)?;
        }
    }
    Ok(())
}

/// Sets the modification time of a path without following a link.
pub(super) fn set_time(path: &Path, seconds: i64) -> Result<()> {
    let time = TimeSpec::new(seconds, 0);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).at("set the time of", path)
}

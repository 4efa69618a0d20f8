//! The store itself: what is here, under which names, and what may go.

mod collect;
mod index;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

pub use self::collect::{Bounds, Keep};
pub(crate) use self::index::{ArchiveRecord, LayerRecord};
use self::index::{ImageRecord, Index};
pub(crate) use self::staging::{Pin, Staging};
use super::manifest::{ConfigBlob, digest_of};
use super::{Image, ImageConfig, ImageError, IoContext as _, Reference, Result};

/// How much one image may take. Input comes from others: without a bound, a small archive could fill the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of one layer, unpacked. The largest images in use (machine learning) have layers of about 10 GiB.
    pub layer_bytes: u64,
    /// Files, directories and links of one layer. A whole Debian desktop has about 300,000.
    pub layer_entries: u64,
    /// Bytes of an archive that arrives compressed or through a pipe and is put on disk before it is read.
    pub archive_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 32 << 30, layer_entries: 4_000_000, archive_bytes: 64 << 30 }
    }
}

/// How a store is opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreConfig {
    /// Keep layers also as they were transferred, so that [`ImageStore::save`] gives back the very same blobs.
    pub keep_blobs: bool,
    /// Bounds of what is imported and pulled.
    pub limits: Limits,
}

/// The images of one directory. Clones share it; it is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) config: StoreConfig,
    state: Mutex<State>,
    /// Names what is made in `tmp/`.
    serial: AtomicU64,
    /// One build at a time makes shared layers; the others then find them made.
    pub(crate) building: Mutex<()>,
    /// Held as long as the store is open.
    _lock: nix::fcntl::Flock<fs::File>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    /// Layers that an operation under way counts on, though no image names them yet.
    pins: BTreeMap<String, usize>,
    /// When images and layers were last used, in seconds since the Unix epoch, as far as this process knows. Bounded
    /// by what is in the index, as only that is used.
    used: BTreeMap<String, u64>,
}

/// What a clean-up removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Freed {
    /// Images, which were not used by anything.
    pub images: usize,
    /// Layers that no image uses.
    pub layers: usize,
    /// Bytes of those layers.
    pub bytes: u64,
}

/// All that makes an image, ready to be named in the index.
pub(crate) struct NewImage<'a> {
    pub(crate) config: &'a [u8],
    pub(crate) manifest: &'a [u8],
    pub(crate) names: Vec<String>,
    pub(crate) repo_digests: Vec<String>,
}

impl ImageStore {
    /// Opens the store in `dir`, making it if it is absent, and sweeps what a killed process left half done.
    ///
    /// # Errors
    /// [`ImageError::InUse`] where another process has it open, [`ImageError::Damaged`] where its index cannot be
    /// read (nothing is changed then), and errors of the file system.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, StoreConfig::default())
    }

    /// [`ImageStore::open`] with a configuration of one's own.
    ///
    /// # Errors
    /// As [`ImageStore::open`].
    pub fn open_with(dir: impl AsRef<Path>, config: StoreConfig) -> Result<Self> {
        let dir = dir.as_ref();
        for part in ["", "blobs/sha256", "layers", "tmp", "empty", "build"] {
            fs::create_dir_all(dir.join(part)).at("make the directory", dir.join(part))?;
        }
        let dir = fs::canonicalize(dir).at("open the directory", dir)?;
        let lock = take_lock(&dir)?;
        let index = Index::load(&dir)?;
        let inner = Inner {
            dir,
            config,
            state: Mutex::new(State { index, ..State::default() }),
            serial: AtomicU64::new(0),
            building: Mutex::new(()),
            _lock: lock,
        };
        inner.sweep()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory it is in.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The image that `reference` means here: a name, a name with a digest, or an image id (`sha256:…`).
    ///
    /// # Errors
    /// Where `reference` is malformed or a document of the store cannot be read. An unknown name is `None`.
    pub fn get(&self, reference: &str) -> Result<Option<Image>> {
        let mut state = self.inner.state.lock();
        let Some(id) = state.index.find(reference)? else { return Ok(None) };
        Inner::note_use(&mut state, &id);
        self.inner.image(&state.index, &id).map(Some)
    }

    /// All images, ordered by their first name; those without a name come last.
    ///
    /// # Errors
    /// Where a document of the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>> {
        let state = self.inner.state.lock();
        let ids = state.index.images.keys();
        let mut images = ids.map(|id| self.inner.image(&state.index, id)).collect::<Result<Vec<_>>>()?;
        images.sort_by(|a, b| {
            (a.names.is_empty(), &a.names, &a.id).cmp(&(b.names.is_empty(), &b.names, &b.id))
        });
        Ok(images)
    }

    /// Gives an image a further name; whatever had that name before loses it.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], a malformed name, or an index that cannot be written.
    pub fn tag(&self, reference: &str, name: &str) -> Result<Image> {
        let name: Reference = name.parse()?;
        if name.digest().is_some() {
            let reason = "a digest cannot be given, it follows from the content";
            return Err(ImageError::Reference { text: name.to_string(), reason });
        }
        let mut state = self.inner.state.lock();
        let id = state.index.find(reference)?.ok_or_else(|| ImageError::NotFound(reference.to_owned()))?;
        self.inner.update(&mut state.index, |index| index.name(&id, &name.to_string()))?;
        self.inner.image(&state.index, &id)
    }

    /// Takes a name away, or all names where an id is given. The content goes with the next
    /// [`ImageStore::collect_garbage`], so that containers which run from it go on.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], or an index that cannot be written.
    pub fn remove(&self, reference: &str) -> Result<()> {
        let mut state = self.inner.state.lock();
        let id = state.index.find(reference)?.ok_or_else(|| ImageError::NotFound(reference.to_owned()))?;
        let name = reference.parse::<Reference>().ok().map(|r| r.to_string());
        self.inner.update(&mut state.index, |index| index.unname(&id, name.as_deref()))
    }

    /// Removes images that have no name and are not in `in_use` (ids), and the layers that no remaining image needs.
    ///
    /// # Errors
    /// Of the file system; what was forgotten but could not be deleted goes at the next open.
    pub fn collect_garbage(&self, in_use: &BTreeSet<String>) -> Result<Freed> {
        self.inner.remove_where(|index, _, pinned| {
            let images = index.drop_images(in_use);
            (images, index.drop_layers(pinned))
        })
    }
}

impl Inner {
    /// Forgets what `choose` takes out of the index, and deletes its files. `choose` learns what was used when, and
    /// what is pinned, and gives the number of images and the layers that went.
    fn remove_where(
        &self,
        choose: impl FnOnce(
            &mut Index,
            &BTreeMap<String, u64>,
            &dyn Fn(&str) -> bool,
        ) -> (usize, Vec<(String, LayerRecord)>),
    ) -> Result<Freed> {
        let (freed, doomed) = {
            let mut state = self.state.lock();
            let State { index, pins, used } = &mut *state;
            let (mut freed, mut layers) = (Freed::default(), Vec::new());
            self.update(index, |index| {
                (freed.images, layers) = choose(index, used, &|id| pins.contains_key(id));
            })?;
            used.retain(|id, _| index.images.contains_key(id) || index.layers.contains_key(id));
            freed.layers = layers.len();
            freed.bytes = layers.iter().map(|(_, record)| record.size).sum();
            // Renamed under the lock, so that nobody counts on a layer that is being deleted.
            let mut doomed = Vec::new();
            for (id, _) in &layers {
                let trash = self.temporary("gone");
                let path = self.layer_dir(id);
                match fs::rename(&path, &trash) {
                    Ok(()) => doomed.push(trash),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(ImageError::io("remove the layer", &path, e)),
                }
            }
            self.sweep_blobs(&state.index)?;
            (freed, doomed)
        };
        for path in doomed {
            fs::remove_dir_all(&path).at("remove the layer", &path)?;
        }
        Ok(freed)
    }

    pub(crate) fn layer_dir(&self, diff_id: &str) -> PathBuf {
        self.dir.join("layers").join(diff_id.trim_start_matches("sha256:"))
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    pub(crate) fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).at("read", &path)?;
        let got = digest_of(&bytes);
        if got != digest {
            let what = format!("the file {}", path.display());
            return Err(ImageError::Digest { what, expected: digest.to_owned(), got });
        }
        Ok(bytes)
    }

    fn image(&self, index: &Index, id: &str) -> Result<Image> {
        let record = index.images.get(id).ok_or_else(|| ImageError::NotFound(id.to_owned()))?;
        let mut layers: Vec<PathBuf> = Vec::with_capacity(record.layers.len());
        for diff_id in record.layers.iter().rev() {
            let path = self.layer_dir(diff_id);
            // Overlay refuses a directory twice, and of two equal layers only the upper one can be seen.
            if !layers.contains(&path) {
                layers.push(path);
            }
        }
        if layers.is_empty() {
            layers.push(self.dir.join("empty"));
        }
        let size = record.layers.iter().filter_map(|l| index.layers.get(l)).map(|l| l.size).sum();
        Ok(Image {
            id: id.to_owned(),
            names: record.names.iter().cloned().collect(),
            repo_digests: record.repo_digests.iter().cloned().collect(),
            size,
            config: record.config.clone(),
            layers,
        })
    }

    /// Writes what is in the file system's memory to its disk.
    fn sync(&self) -> Result<()> {
        let dir = fs::File::open(&self.dir).at("open", &self.dir)?;
        // SAFETY: syncfs takes a descriptor, which `dir` keeps open, and touches no memory of ours.
        match unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&dir)) } {
            0 => Ok(()),
            _ => Err(ImageError::io("write to disk", &self.dir, std::io::Error::last_os_error())),
        }
    }

    /// Writes an image's documents and names it. Its layers must be in place and pinned by the caller.
    pub(crate) fn commit(&self, new: NewImage<'_>) -> Result<Image> {
        let id = digest_of(new.config);
        let parsed = ConfigBlob::parse(new.config)
            .map_err(|reason| ImageError::Registry { reference: id.clone(), reason })?;
        let manifest = digest_of(new.manifest);
        let mut state = self.state.lock();
        self.write_blob(&id, new.config)?;
        self.write_blob(&manifest, new.manifest)?;
        self.update(&mut state.index, |index| {
            let record = index.images.entry(id.clone()).or_insert_with(|| ImageRecord {
                manifest,
                layers: parsed.rootfs.diff_ids,
                config: ImageConfig::from(parsed.config),
                names: BTreeSet::new(),
                repo_digests: BTreeSet::new(),
                used: collect::made(),
            });
            record.repo_digests.extend(new.repo_digests);
            for name in &new.names {
                index.name(&id, name);
            }
        })?;
        self.image(&state.index, &id)
    }

    /// The manifest digest of an image and what is known of its layers, bottom first.
    pub(crate) fn parts(&self, id: &str) -> Result<(String, Vec<(String, LayerRecord)>)> {
        let state = self.state.lock();
        let record = state.index.images.get(id).ok_or_else(|| ImageError::NotFound(id.to_owned()))?;
        let layer = |l: &String| (l.clone(), state.index.layers.get(l).cloned().unwrap_or_default());
        Ok((record.manifest.clone(), record.layers.iter().map(layer).collect()))
    }

    /// What an earlier build or import left under `key`.
    pub(crate) fn recall(&self, key: &str) -> Option<String> {
        self.state.lock().index.steps.get(key).cloned()
    }

    /// Remembers the result of a step. It is forgotten when the layer it names goes.
    pub(crate) fn remember(&self, steps: Vec<(String, String)>) -> Result<()> {
        let mut state = self.state.lock();
        self.update(&mut state.index, |index| index.remember(steps))
    }

    pub(crate) fn archive_record(&self, key: &str) -> Option<ArchiveRecord> {
        let state = self.state.lock();
        let record = state.index.archives.get(key)?;
        let complete = record.images.iter().all(|id| state.index.images.contains_key(id));
        complete.then(|| record.clone())
    }

    pub(crate) fn remember_archive(&self, key: String, record: ArchiveRecord) -> Result<()> {
        let mut state = self.state.lock();
        self.update(&mut state.index, |index| {
            index.archives.insert(key, record);
        })
    }

    pub(crate) fn forget_archives(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let mut state = self.state.lock();
        if state.index.archives.keys().all(|key| keep(key)) {
            return Ok(());
        }
        self.update(&mut state.index, |index| index.archives.retain(|key, _| keep(key)))
    }

    /// Changes the index on disk and then in memory; where the disk refuses, both stay as they were.
    fn update(&self, index: &mut Index, change: impl FnOnce(&mut Index)) -> Result<()> {
        let mut next = index.clone();
        change(&mut next);
        if next != *index {
            self.write_file(&self.dir.join("index.json"), &next.to_json())?;
            *index = next;
        }
        Ok(())
    }

    pub(crate) fn write_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        self.write_file(&path, bytes)
    }

    /// Replaces a file as a whole: written beside, synced, renamed, and the rename synced.
    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary("file");
        let written = fs::File::create_new(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, path));
        if let Err(e) = written {
            let _ = fs::remove_file(&temporary); // best effort: the next open sweeps it
            return Err(ImageError::io("write", path, e));
        }
        let parent = path.parent().unwrap_or(&self.dir);
        fs::File::open(parent).and_then(|dir| dir.sync_all()).at("write to disk", parent)
    }

    fn sweep(&self) -> Result<()> {
        let remove = |path: &Path| -> Result<()> {
            let is_dir = fs::symlink_metadata(path).at("look at", path)?.is_dir();
            let gone = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            gone.at("remove what was left half done in", path)
        };
        for path in entries(&self.dir.join("tmp"))? {
            remove(&path)?;
        }
        let state = self.state.lock();
        for path in entries(&self.dir.join("layers"))? {
            let known = path.file_name().and_then(|n| n.to_str()).map(|hex| format!("sha256:{hex}"));
            if !known.is_some_and(|id| state.index.layers.contains_key(&id)) {
                remove(&path)?;
            }
        }
        self.sweep_blobs(&state.index)
    }

    fn sweep_blobs(&self, index: &Index) -> Result<()> {
        let named = index.blobs();
        for path in entries(&self.dir.join("blobs/sha256"))? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if !named.contains(name) {
                fs::remove_file(&path).at("remove the unused", &path)?;
            }
        }
        Ok(())
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(dir).at("list", dir)?;
    read.map(|entry| entry.map(|e| e.path()).at("list", dir)).collect()
}

fn take_lock(dir: &Path) -> Result<nix::fcntl::Flock<fs::File>> {
    let path = dir.join("lock");
    let mut options = fs::OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).mode(0o600).open(&path).at("open", &path)?;
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder); // only for the error's text
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).at("write", &path)?;
            std::io::Seek::rewind(&mut *lock).at("write", &path)?;
            write!(lock, "{}", std::process::id()).at("write", &path)?;
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            Err(ImageError::InUse { dir: dir.to_owned(), holder })
        }
        Err((_, e)) => Err(ImageError::io("lock", &path, e.into())),
    }
}

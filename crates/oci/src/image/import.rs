//! Archives in: what `docker save` writes, and OCI layouts.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;

use super::archive::Archive;
use super::layer::{self, Expected};
use super::manifest::{self, ConfigBlob, Descriptor, Manifest, digest_of};
use super::store::{ArchiveRecord, NewImage, Pin};
use super::{Event, Image, ImageError, ImageStore, IoContext as _, LayerState, Progress, Reference, Result};

/// Layers unpacked at once: enough to use the cores and a disk's queue; more only makes the disk seek.
const PARALLEL: usize = 4;
/// Depth of indexes within indexes; one more than any builder writes.
const MAX_NESTING: usize = 3;
/// Names that annotations give an image of a layout.
const FULL_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What became of one archive of a directory.
#[derive(Debug)]
pub struct Imported {
    /// The archive.
    pub path: PathBuf,
    /// Its images, or why it was not imported.
    pub result: Result<Vec<Image>>,
    /// It was imported before and has not changed since.
    pub unchanged: bool,
}

/// An entry of `manifest.json` as `docker save` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// One image found in an archive.
struct Found {
    config: Vec<u8>,
    /// As it was; `None` for the old form, which has none.
    manifest: Option<Vec<u8>>,
    /// Member and blob digest of each layer, bottom first.
    layers: Vec<(String, Option<String>)>,
    names: Vec<String>,
}

impl ImageStore {
    /// Imports all images of an archive file: `docker save` or OCI layout, plain, gzip or zstd. Layers that are here
    /// already are not read. Blocks; call it where blocking is allowed.
    ///
    /// # Errors
    /// Nothing is named in the store then that is not complete.
    pub fn import(&self, path: impl AsRef<Path>, progress: &Progress) -> Result<Vec<Image>> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        progress.report(|| Event::Started { name });
        let archive = Archive::open(&self.inner, path, progress)?;
        self.import_archive(&archive, progress)
    }

    /// [`ImageStore::import`] from a stream, such as standard input.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub fn import_reader(&self, reader: impl Read, progress: &Progress) -> Result<Vec<Image>> {
        let name = Path::new("(standard input)");
        progress.report(|| Event::Started { name: name.display().to_string() });
        let archive = Archive::copy(&self.inner, reader, name, progress)?;
        self.import_archive(&archive, progress)
    }

    /// Imports every archive in `dir` (`.tar`, `.tar.gz`, `.tgz`, `.tar.zst`, `.tar.zstd`), in the order of names.
    /// One that was imported before and has the same size and time is skipped while its images are still here.
    ///
    /// # Errors
    /// Where the directory cannot be listed; an absent one holds nothing. What is wrong with an archive stands in its
    /// own result, and the others are imported.
    pub fn import_dir(&self, dir: impl AsRef<Path>, progress: &Progress) -> Result<Vec<Imported>> {
        let dir = dir.as_ref();
        let mut paths = Vec::new();
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("list", dir)?,
        };
        for entry in entries {
            let path = entry.at("list", dir)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let archive =
                [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd"].iter().any(|end| name.ends_with(end));
            if archive && !name.starts_with('.') && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        let seen: BTreeSet<String> = paths.iter().map(|path| archive_key(path)).collect();
        let here = archive_key(dir);
        let beside = |key: &str| Path::new(key).parent() == Some(Path::new(&here));
        self.inner.forget_archives(|key| !beside(key) || seen.contains(key))?;
        Ok(paths.into_iter().map(|path| self.import_if_changed(path, progress)).collect())
    }

    fn import_if_changed(&self, path: PathBuf, progress: &Progress) -> Imported {
        let mut unchanged = false;
        let mut import = || -> Result<Vec<Image>> {
            let meta = fs::metadata(&path).at("look at", &path)?;
            let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            let key = archive_key(&path);
            let known = self.inner.archive_record(&key);
            if let Some(known) = known.filter(|k| (k.size, k.modified) == (meta.len(), modified)) {
                unchanged = true;
                return known.images.iter().filter_map(|id| self.get(id).transpose()).collect();
            }
            let images = self.import(&path, progress)?;
            let ids = images.iter().map(|image| image.id.clone()).collect();
            self.inner.remember_archive(key, ArchiveRecord { size: meta.len(), modified, images: ids })?;
            Ok(images)
        };
        let result = import();
        Imported { path, result, unchanged }
    }

    fn import_archive(&self, archive: &Archive, progress: &Progress) -> Result<Vec<Image>> {
        let found = if archive.has("manifest.json") {
            saved_images(archive)?
        } else if archive.has("index.json") {
            layout_images(archive)?
        } else {
            return Err(archive.bad("it has neither a `manifest.json` nor an `index.json`"));
        };
        if found.is_empty() {
            return Err(archive.bad("it holds no image"));
        }
        let mut images: Vec<Image> = Vec::with_capacity(found.len());
        for found in found {
            images.push(self.import_image(archive, found, progress)?);
        }
        // What a later image of the archive took from an earlier one shows in the result.
        images.iter().filter_map(|image| self.get(&image.id).transpose()).collect()
    }

    fn import_image(&self, archive: &Archive, found: Found, progress: &Progress) -> Result<Image> {
        let config = ConfigBlob::parse(&found.config).map_err(|reason| archive.bad(reason))?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != found.layers.len() {
            let (named, listed) = (diff_ids.len(), found.layers.len());
            return Err(archive.bad(format!("its configuration names {named} layers, its manifest {listed}")));
        }
        let _pins = self.import_layers(archive, &diff_ids, &found.layers, progress)?;
        let manifest = match found.manifest {
            Some(manifest) => manifest,
            None => plain_manifest(&found.config, &diff_ids),
        };
        self.inner.commit(NewImage {
            config: &found.config,
            manifest: &manifest,
            names: found.names,
            repo_digests: Vec::new(),
        })
    }

    /// Unpacks the layers that are missing, some at once. The pins keep them until the image is named.
    fn import_layers(
        &self,
        archive: &Archive,
        diff_ids: &[String],
        sources: &[(String, Option<String>)],
        progress: &Progress,
    ) -> Result<Vec<Pin>> {
        let mut pins = Vec::with_capacity(diff_ids.len());
        let mut wanted: Vec<(&String, &(String, Option<String>))> = Vec::new();
        for (index, (diff_id, source)) in diff_ids.iter().zip(sources).enumerate() {
            let (pin, present) = self.inner.pin(diff_id);
            pins.push(pin);
            let mut before = diff_ids.iter().zip(sources).take(index);
            let another_source = before.any(|(id, other)| id == diff_id && other != source);
            if present && !another_source {
                progress.layer(diff_id, LayerState::Present);
            } else if !wanted.contains(&(diff_id, source)) {
                // One diff_id with two sources: both are read, since each must hold what the configuration says.
                wanted.push((diff_id, source));
            }
        }
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(wanted.len()) {
                scope.spawn(|| {
                    while failed.lock().is_none() {
                        let Some((diff_id, (member, blob))) =
                            wanted.get(next.fetch_add(1, Ordering::Relaxed))
                        else {
                            break;
                        };
                        let added = archive.open_member(member).and_then(|(section, size)| {
                            let origin = format!("`{member}` of {}", archive.path().display());
                            let expected =
                                Expected { blob: blob.clone(), diff_id: (*diff_id).clone(), size, origin };
                            layer::add(&self.inner, section, &expected, progress)
                        });
                        if let Err(error) = added {
                            failed.lock().get_or_insert(error);
                        }
                    }
                });
            }
        });
        match failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(pins),
        }
    }
}

/// What stands for an archive in the index.
fn archive_key(path: &Path) -> String {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// A manifest for an image that came without one: its layers are known uncompressed.
pub(crate) fn plain_manifest(config: &[u8], diff_ids: &[String]) -> Vec<u8> {
    let layer = |id: &String| Descriptor {
        media_type: manifest::LAYER.to_owned(),
        digest: id.clone(),
        ..Descriptor::default()
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: manifest::MANIFEST.to_owned(),
        config: Some(Descriptor {
            media_type: manifest::CONFIG.to_owned(),
            digest: digest_of(config),
            size: config.len() as u64,
            ..Descriptor::default()
        }),
        layers: Some(diff_ids.iter().map(layer).collect()),
        manifests: None,
    };
    // Plain strings and numbers: serialisation has no way to fail.
    serde_json::to_vec(&manifest).expect("a manifest is plain data")
}

fn saved_images(archive: &Archive) -> Result<Vec<Found>> {
    let list: Vec<SavedImage> = serde_json::from_slice(&archive.document("manifest.json")?)
        .map_err(|e| archive.bad(format!("its `manifest.json` cannot be read ({e})")))?;
    let found = list.into_iter().map(|saved| {
        let names = saved.repo_tags.unwrap_or_default();
        let names = names.iter().map(|name| name.parse::<Reference>().map(|r| r.to_string()));
        let config = archive.document(&saved.config)?;
        // New archives keep blobs under their digests, old ones the configuration under its own.
        let digest = blob_digest(&saved.config);
        if let Some(expected) = digest.filter(|digest| *digest != digest_of(&config)) {
            let (what, got) =
                (format!("`{}` of {}", saved.config, archive.path().display()), digest_of(&config));
            return Err(ImageError::Digest { what, expected, got });
        }
        let layers = saved.layers.unwrap_or_default().into_iter();
        let layers = layers.map(|member| {
            let digest = member.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
            (member, digest)
        });
        Ok(Found { config, manifest: None, layers: layers.collect(), names: names.collect::<Result<_>>()? })
    });
    found.collect()
}

/// The digest that a configuration's member name states: `blobs/sha256/HEX` or `HEX.json`.
fn blob_digest(member: &str) -> Option<String> {
    let hex = member.strip_prefix("blobs/sha256/").or_else(|| member.strip_suffix(".json"))?;
    super::reference::check_digest(&format!("sha256:{hex}")).ok()
}

fn layout_images(archive: &Archive) -> Result<Vec<Found>> {
    let index = Manifest::parse(&archive.document("index.json")?).map_err(|reason| archive.bad(reason))?;
    let mut found: Vec<Found> = Vec::new();
    for entry in index.manifests.unwrap_or_default() {
        let name = layout_name(&entry);
        let name = name.map(|name| name.parse::<Reference>().map(|r| r.to_string())).transpose()?;
        let mut image = layout_image(archive, &entry, 0)?;
        image.names.extend(name);
        found.push(image);
    }
    Ok(found)
}

/// A full name, if the annotations give one: a bare tag belongs to no repository.
fn layout_name(entry: &Descriptor) -> Option<&String> {
    let reference = || entry.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    entry.annotations.get(FULL_NAME).or_else(reference)
}

fn layout_image(archive: &Archive, entry: &Descriptor, depth: usize) -> Result<Found> {
    if depth == MAX_NESTING {
        return Err(archive.bad("its indexes are nested too deeply"));
    }
    let bytes = layout_blob(archive, &entry.digest)?;
    let parsed = Manifest::parse(&bytes).map_err(|reason| archive.bad(reason))?;
    if let Some(entries) = &parsed.manifests {
        let name = layout_name(entry).cloned().unwrap_or_else(|| archive.path().display().to_string());
        return layout_image(archive, manifest::choose(entries, &name)?, depth + 1);
    }
    let (config, layers) = parsed.image().map_err(|reason| archive.bad(reason))?;
    let config = layout_blob(archive, &config.digest)?;
    let layers = layers.into_iter().map(|layer| (blob_member(&layer.digest), Some(layer.digest)));
    Ok(Found { config, manifest: Some(bytes), layers: layers.collect(), names: Vec::new() })
}

fn blob_member(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn layout_blob(archive: &Archive, digest: &str) -> Result<Vec<u8>> {
    let member = blob_member(digest);
    let bytes = archive.document(&member)?;
    let got = digest_of(&bytes);
    if got == digest {
        return Ok(bytes);
    }
    let what = format!("`{member}` of {}", archive.path().display());
    Err(ImageError::Digest { what, expected: digest.to_owned(), got })
}

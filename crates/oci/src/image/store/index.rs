//! `index.json`: the one document that says what is in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::image::{ImageConfig, ImageError, IoContext as _, Reference, Result};

/// Of the steps of builds, so many are remembered: some hundred builds of some steps each. A forgotten step is made anew.
const MAX_STEPS: usize = 4096;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Of this format.
    pub(crate) version: u32,
    /// By image id.
    pub(crate) images: BTreeMap<String, ImageRecord>,
    /// By diffID.
    pub(crate) layers: BTreeMap<String, LayerRecord>,
    /// Archives imported from a watched directory, by path.
    pub(crate) archives: BTreeMap<String, ArchiveRecord>,
    /// Results of build steps, by the digest of what they depend on.
    pub(crate) steps: BTreeMap<String, String>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            version: 1,
            images: BTreeMap::new(),
            layers: BTreeMap::new(),
            archives: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the manifest.
    pub(crate) manifest: String,
    /// diffIDs, bottom first.
    pub(crate) layers: Vec<String>,
    /// From the configuration blob, so that starting a container reads no further file.
    pub(crate) config: ImageConfig,
    pub(crate) names: BTreeSet<String>,
    pub(crate) repo_digests: BTreeSet<String>,
    /// When it was last used, to the hour, in seconds since the Unix epoch.
    #[serde(default)]
    pub(crate) used: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Bytes of the archive that our own packing of the directory gives, where its digest is the diffID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) packed: Option<u64>,
    /// Digest of the blob it came in, where that is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) blob: Option<String>,
    /// When it was last used, to the hour, in seconds since the Unix epoch.
    #[serde(default)]
    pub(crate) used: u64,
}

/// An archive file as it was when it was imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ArchiveRecord {
    pub(crate) size: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) modified: i128,
    /// Ids of its images.
    pub(crate) images: Vec<String>,
}

impl Index {
    /// Reads `DIR/index.json`; an absent one is an empty store.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("index.json");
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.at("read", &path)?,
        };
        let damaged = |reason: String| ImageError::Damaged { path: path.clone(), reason };
        let index: Self =
            serde_json::from_slice(&bytes).map_err(|e| damaged(format!("cannot be read ({e})")))?;
        match index.version {
            1 => Ok(index),
            other => Err(damaged(format!("is of format {other}, made by a newer version"))),
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Maps with string keys and plain values: serialisation has no way to fail.
        serde_json::to_vec(self).expect("the index is plain data")
    }

    /// The id that a name, a name with a digest, or an id means.
    pub(crate) fn find(&self, reference: &str) -> Result<Option<String>> {
        if self.images.contains_key(reference) {
            return Ok(Some(reference.to_owned()));
        }
        if reference.starts_with("sha256:") && super::super::reference::check_digest(reference).is_ok() {
            return Ok(None);
        }
        let reference: Reference = reference.parse()?;
        let has = |record: &ImageRecord| match reference.digest() {
            Some(digest) => record.repo_digests.contains(&reference.at_digest(digest)),
            None => record.names.contains(&reference.to_string()),
        };
        Ok(self.images.iter().find(|(_, record)| has(record)).map(|(id, _)| id.clone()))
    }

    /// Moves a name to an image.
    pub(crate) fn name(&mut self, id: &str, name: &str) {
        for (other, record) in &mut self.images {
            if other == id {
                record.names.insert(name.to_owned());
            } else {
                record.names.remove(name);
            }
        }
    }

    /// Takes `name`, or where it is not one of the image's names all of its names and digests.
    pub(crate) fn unname(&mut self, id: &str, name: Option<&str>) {
        if let Some(record) = self.images.get_mut(id)
            && !name.is_some_and(|name| record.names.remove(name))
        {
            record.names.clear();
            record.repo_digests.clear();
        }
    }

    /// Forgets images that nobody can name and nobody runs.
    pub(crate) fn drop_images(&mut self, in_use: &BTreeSet<String>) -> usize {
        let before = self.images.len();
        self.images.retain(|id, record| !record.names.is_empty() || in_use.contains(id));
        before - self.images.len()
    }

    /// Forgets layers that no image has, and build steps whose layer went.
    pub(crate) fn drop_layers(&mut self, pinned: impl Fn(&str) -> bool) -> Vec<(String, LayerRecord)> {
        let used: BTreeSet<&String> = self.images.values().flat_map(|record| &record.layers).collect();
        let unused = |id: &String| !used.contains(id) && !pinned(id);
        let gone: Vec<String> = self.layers.keys().filter(|id| unused(id)).cloned().collect();
        let gone = gone.into_iter().filter_map(|id| self.layers.remove_entry(&id)).collect();
        let layers = &self.layers;
        self.steps.retain(|_, result| !result.starts_with("sha256:") || layers.contains_key(result));
        gone
    }

    /// Forgets layers that no image has and no build step remembers.
    pub(crate) fn drop_unused(&mut self, pinned: impl Fn(&str) -> bool) -> Vec<(String, LayerRecord)> {
        let remembered: BTreeSet<String> = self.steps.values().cloned().collect();
        self.drop_layers(|id| pinned(id) || remembered.contains(id))
    }

    pub(crate) fn remember(&mut self, steps: Vec<(String, String)>) {
        self.steps.extend(steps);
        while self.steps.len() > MAX_STEPS {
            self.steps.pop_first();
        }
    }

    /// Hexadecimal names of the blobs that are needed.
    pub(crate) fn blobs(&self) -> BTreeSet<&str> {
        let documents = self.images.iter().flat_map(|(id, record)| [id.as_str(), record.manifest.as_str()]);
        let layers = self.layers.values().filter_map(|layer| layer.blob.as_deref());
        documents.chain(layers).map(|digest| digest.trim_start_matches("sha256:")).collect()
    }
}

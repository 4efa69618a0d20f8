//! Archives out: one that both `docker load` and readers of OCI layouts take.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::manifest::{self, ConfigBlob, Descriptor, Manifest, digest_of};
use super::pack::pack;
use super::store::LayerRecord;
use super::{ImageError, ImageStore, IoContext as _, Progress, Result};

/// One image as it will lie in the archive.
struct Saved {
    names: Vec<String>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    layers: Vec<SavedLayer>,
}

struct SavedLayer {
    diff_id: String,
    /// Digest and size of what is written.
    digest: String,
    size: u64,
    /// The blob is kept and copied; otherwise the directory is packed.
    kept: bool,
}

impl ImageStore {
    /// Writes images as one archive, an OCI layout that has Docker's `manifest.json` too. Layers are written as they
    /// came where their blobs are kept, and otherwise packed anew from their directories. Packing gives the digest
    /// that the image names for all that was built here; where it does not, the image in the archive has another id
    /// and the same files. Blocks; call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], and errors of the file system and of `writer`.
    pub fn save(&self, references: &[&str], writer: impl Write, progress: &Progress) -> Result<()> {
        let mut saved: Vec<Saved> = Vec::new();
        for reference in references {
            let image = self.get(reference)?.ok_or_else(|| ImageError::NotFound((*reference).to_owned()))?;
            let name = reference.parse::<super::Reference>().ok().map(|r| r.to_string());
            let name = name.filter(|name| image.names.contains(name));
            let mut next = self.prepare(&image.id, progress)?;
            // An image that is saved under two names is written once.
            match saved.iter_mut().find(|other| other.config == next.config) {
                Some(other) => other.names.extend(name),
                None => {
                    next.names.extend(name);
                    saved.push(next);
                }
            }
        }
        let mut builder = tar::Builder::new(writer);
        self.write(&mut builder, &saved, progress)?;
        let mut writer = builder.into_inner().at("write", "the archive")?;
        writer.flush().at("write", "the archive")
    }

    fn prepare(&self, id: &str, progress: &Progress) -> Result<Saved> {
        let (_, parts) = self.inner.parts(id)?;
        let mut config = self.inner.read_blob(id)?;
        let mut layers = Vec::with_capacity(parts.len());
        for (diff_id, record) in parts {
            layers.push(self.prepare_layer(diff_id, &record, progress)?);
        }
        let repacked = layers.iter().any(|layer| !layer.kept && layer.digest != layer.diff_id);
        if repacked {
            let damaged = |reason: String| ImageError::Damaged { path: self.inner.blob_path(id), reason };
            ConfigBlob::parse(&config).map_err(damaged)?;
            let mut document: serde_json::Value =
                serde_json::from_slice(&config).map_err(|e| damaged(e.to_string()))?;
            let ids = layers.iter().map(|l| if l.kept { l.diff_id.clone() } else { l.digest.clone() });
            document["rootfs"]["diff_ids"] = json!(ids.collect::<Vec<_>>());
            config = document.to_string().into_bytes();
        }
        let descriptor = |media_type: &str, digest: String, size| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            ..Descriptor::default()
        };
        let layer = |l: &SavedLayer| {
            // A kept blob is compressed as it came; readers go by its first bytes, registries by this.
            let gzip = if l.kept && l.digest != l.diff_id { "+gzip" } else { "" };
            descriptor(&format!("{}{gzip}", manifest::LAYER), l.digest.clone(), l.size)
        };
        let document = Manifest {
            schema_version: 2,
            media_type: manifest::MANIFEST.to_owned(),
            config: Some(descriptor(manifest::CONFIG, digest_of(&config), config.len() as u64)),
            layers: Some(layers.iter().map(layer).collect()),
            manifests: None,
        };
        // Plain strings and numbers: serialisation has no way to fail.
        let manifest = serde_json::to_vec(&document).expect("a manifest is plain data");
        Ok(Saved { names: Vec::new(), config, manifest, layers })
    }

    fn prepare_layer(
        &self,
        diff_id: String,
        record: &LayerRecord,
        progress: &Progress,
    ) -> Result<SavedLayer> {
        if let Some(digest) = &record.blob {
            let path = self.inner.blob_path(digest);
            let size = std::fs::metadata(&path).at("look at", &path)?.len();
            return Ok(SavedLayer { diff_id, digest: digest.clone(), size, kept: true });
        }
        if let Some(size) = record.packed {
            return Ok(SavedLayer { digest: diff_id.clone(), diff_id, size, kept: false });
        }
        let packed = pack(&self.inner.layer_dir(&diff_id), io::sink(), progress)?;
        Ok(SavedLayer { diff_id, digest: packed.digest, size: packed.size, kept: false })
    }

    fn write<W: Write>(
        &self,
        builder: &mut tar::Builder<W>,
        saved: &[Saved],
        progress: &Progress,
    ) -> Result<()> {
        let mut written = BTreeSet::new();
        let (mut manifests, mut docker) = (Vec::new(), Vec::new());
        for image in saved {
            for layer in &image.layers {
                if written.insert(layer.digest.clone()) {
                    self.write_layer(builder, layer, progress)?;
                }
            }
            for document in [&image.config, &image.manifest] {
                let digest = digest_of(document);
                if written.insert(digest.clone()) {
                    member(builder, &blob(&digest), document.len() as u64, document.as_slice())?;
                }
            }
            let names =
                if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
            for name in names {
                let mut entry = json!({
                    "mediaType": manifest::MANIFEST,
                    "digest": digest_of(&image.manifest),
                    "size": image.manifest.len(),
                });
                if let Some(name) = name {
                    let tag = name.rsplit(':').next();
                    entry["annotations"] =
                        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
                }
                manifests.push(entry);
            }
            docker.push(json!({
                "Config": blob(&digest_of(&image.config)),
                "RepoTags": image.names,
                "Layers": image.layers.iter().map(|l| blob(&l.digest)).collect::<Vec<_>>(),
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": manifests});
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        for (name, document) in
            [("oci-layout", layout), ("index.json", index), ("manifest.json", json!(docker))]
        {
            let bytes = document.to_string();
            member(builder, name, bytes.len() as u64, bytes.as_bytes())?;
        }
        Ok(())
    }

    fn write_layer<W: Write>(
        &self,
        builder: &mut tar::Builder<W>,
        layer: &SavedLayer,
        progress: &Progress,
    ) -> Result<()> {
        let name = blob(&layer.digest);
        if layer.kept {
            let path = self.inner.blob_path(&layer.digest);
            let file = std::fs::File::open(&path).at("open", &path)?;
            return member(builder, &name, layer.size, file);
        }
        let dir = self.inner.layer_dir(&layer.diff_id);
        builder.append_data(&mut header(layer.size), &name, io::empty()).at("write", &name)?;
        let packed = pack(&dir, builder.get_mut(), progress)?;
        if packed.digest != layer.digest {
            let what = format!("the layer directory {}", dir.display());
            return Err(ImageError::Digest { what, expected: layer.digest.clone(), got: packed.digest });
        }
        let padding = (512 - packed.size % 512) % 512;
        let zeros = [0; 512];
        // Less than 512, so within the array.
        builder.get_mut().write_all(&zeros[..padding as usize]).at("write", &name)
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

fn member<W: Write>(
    builder: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    content: impl io::Read,
) -> Result<()> {
    builder.append_data(&mut header(size), Path::new(name), content).at("write", name)
}

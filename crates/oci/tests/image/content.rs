//! Image content made by hand, so that what is written here and what is read there do not share a mistake.

use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// How a layer is compressed.
#[derive(Clone, Copy)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer as it is transferred.
#[derive(Clone)]
pub struct Layer {
    pub diff_id: String,
    pub media_type: &'static str,
    pub blob: Vec<u8>,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// Files, whiteouts among them, as a layer.
pub fn layer(files: &[(&str, &str)], packing: Packing) -> Layer {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let diff_id = digest(&archive);
    let (media_type, blob) = match packing {
        Packing::Plain => ("application/vnd.oci.image.layer.v1.tar", archive),
        Packing::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&archive).unwrap();
            ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish().unwrap())
        }
        Packing::Zstd => {
            ("application/vnd.oci.image.layer.v1.tar+zstd", zstd::encode_all(&archive[..], 1).unwrap())
        }
    };
    Layer { diff_id, media_type, blob }
}

/// An image's configuration for a platform, `architecture` in Go's words.
pub fn config(layers: &[Layer], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["serve"], "Env": ["A=1"], "Labels": {"for": architecture}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

pub fn manifest(config: &[u8], layers: &[Layer]) -> Vec<u8> {
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(layer.media_type, &layer.blob)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config),
        "layers": layers});
    serde_json::to_vec(&manifest).unwrap()
}

/// This machine in the words of image indexes.
pub fn here() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// What is in a store's directory besides its documents: nothing, if an operation that failed left no residue.
pub fn residue(store: &std::path::Path) -> Vec<String> {
    let mut left = Vec::new();
    for part in ["tmp", "layers", "blobs/sha256"] {
        for entry in std::fs::read_dir(store.join(part)).unwrap() {
            left.push(format!("{part}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    left.sort();
    left
}

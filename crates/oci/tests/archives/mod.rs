//! Images made for tests, byte by byte.
#![allow(dead_code)] // each test binary uses its part

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// An image to be put into an archive or a registry.
#[derive(Clone, Default)]
pub struct Sample {
    pub names: Vec<String>,
    /// Uncompressed archives, bottom first.
    pub layers: Vec<Vec<u8>>,
    /// What the configuration says of them, where that is to be wrong.
    pub diff_ids: Option<Vec<String>>,
}

/// Unpacking needs root; elsewhere the test says so and passes.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        yado_testkit::skip!("unpacking layers needs root");
    }
    root
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer of directories (names that end in `/`) and files.
pub fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        let directory = path.ends_with('/');
        header.set_entry_type(if directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(0o755);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        // Written past the builder's own checks, which refuse what an attacker would write.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

impl Sample {
    pub fn config(&self) -> Vec<u8> {
        let ids = self.diff_ids.clone().unwrap_or_else(|| self.layers.iter().map(|l| digest(l)).collect());
        json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": ["/app/run"], "Env": ["A=1"], "Labels": null},
            "rootfs": {"type": "layers", "diff_ids": ids},
        })
        .to_string()
        .into_bytes()
    }
}

fn member(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
}

/// As Docker wrote archives before it knew OCI layouts: equal layers are links.
pub fn docker_archive(samples: &[Sample]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut list = Vec::new();
    let mut written: Vec<(String, String)> = Vec::new();
    for (n, sample) in samples.iter().enumerate() {
        let config = sample.config();
        let mut members = Vec::new();
        for (i, content) in sample.layers.iter().enumerate() {
            let name = format!("{n}-{i}/layer.tar");
            match written.iter().find(|(id, _)| *id == digest(content)) {
                Some((_, first)) => {
                    let mut header = tar::Header::new_ustar();
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, &name, format!("../{first}")).unwrap();
                }
                None => {
                    member(&mut builder, &name, content);
                    written.push((digest(content), name.clone()));
                }
            }
            members.push(name);
        }
        let name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        member(&mut builder, &name, &config);
        list.push(json!({"Config": name, "RepoTags": sample.names, "Layers": members}));
    }
    member(&mut builder, "manifest.json", json!(list).to_string().as_bytes());
    builder.into_inner().unwrap()
}

/// Manifest, configuration and layer blobs as a registry has them.
pub fn blobs(sample: &Sample, compress: &dyn Fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let config = sample.config();
    let layers: Vec<Vec<u8>> = sample.layers.iter().map(|l| compress(l)).collect();
    let describe =
        |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|l| describe("application/vnd.oci.image.layer.v1.tar+gzip", l)).collect::<Vec<_>>(),
    });
    let mut all = layers;
    all.push(config);
    (manifest.to_string().into_bytes(), all)
}

/// An OCI layout.
pub fn oci_archive(samples: &[Sample], compress: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let path = |bytes: &[u8]| format!("blobs/{}", digest(bytes).replace(':', "/"));
    let mut entries = Vec::new();
    for sample in samples {
        let (manifest, blobs) = blobs(sample, compress);
        for blob in blobs.iter().chain([&manifest]) {
            member(&mut builder, &path(blob), blob);
        }
        for name in &sample.names {
            entries.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&manifest),
                "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }));
        }
    }
    member(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    member(
        &mut builder,
        "index.json",
        json!({"schemaVersion": 2, "manifests": entries}).to_string().as_bytes(),
    );
    builder.into_inner().unwrap()
}

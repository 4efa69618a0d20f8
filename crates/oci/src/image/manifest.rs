//! The JSON documents of an image: manifest, index, configuration. Only what is used here is typed; a document is kept
//! and hashed as the bytes it came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ImageConfig, ImageError, Result};

/// Manifests and configurations are read into memory; real ones are below 100 KiB, registries refuse above 4 MiB.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Overlay takes at most 500 lower directories.
pub(crate) const MAX_LAYERS: usize = 500;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What is asked of a registry.
pub(crate) const ACCEPTED: &[&str] = &[MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// The content digest of some bytes, as written everywhere: `sha256:…`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Points at other content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) urls: Option<Vec<String>>,
}

/// For which machines a manifest is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// An image manifest or an index of manifests: the two look alike but for their lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<Descriptor>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

/// The configuration blob.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigBlob {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) created: String,
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) config: RunConfig,
    pub(crate) rootfs: RootFs,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) history: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) diff_ids: Vec<String>,
}

/// How to run it, in the words of the format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RunConfig {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) volumes: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) stop_signal: String,
}

/// Docker writes `null` for what is empty.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<RunConfig> for ImageConfig {
    fn from(run: RunConfig) -> Self {
        Self {
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            working_dir: run.working_dir,
            user: run.user,
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            labels: run.labels,
            stop_signal: run.stop_signal,
        }
    }
}

impl From<ImageConfig> for RunConfig {
    fn from(config: ImageConfig) -> Self {
        let set = |names: Vec<String>| names.into_iter().map(|n| (n, serde_json::json!({}))).collect();
        Self {
            user: config.user,
            exposed_ports: set(config.exposed_ports),
            env: config.env,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            volumes: set(config.volumes),
            working_dir: config.working_dir,
            labels: config.labels,
            stop_signal: config.stop_signal,
        }
    }
}

impl ConfigBlob {
    /// Reads a configuration and refuses what could not be run or would be ambiguous.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let blob: Self = serde_json::from_slice(bytes)
            .map_err(|e| format!("its configuration is not an image configuration ({e})"))?;
        if blob.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(format!("it has {} layers, more than {MAX_LAYERS}", blob.rootfs.diff_ids.len()));
        }
        for id in &blob.rootfs.diff_ids {
            super::reference::check_digest(id)
                .map_err(|_| format!("its configuration names a layer `{id}`"))?;
        }
        Ok(blob)
    }
}

impl Manifest {
    /// Reads a manifest or an index, and checks the digests it names.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|e| format!("its manifest cannot be read ({e})"))?;
        if manifest.schema_version != 2 {
            return Err("its manifest is of the old schema 1, which is not supported".to_owned());
        }
        let lists = [&manifest.layers, &manifest.manifests];
        for descriptor in lists.into_iter().flatten().flatten().chain(&manifest.config) {
            super::reference::check_digest(&descriptor.digest)
                .map_err(|reason| format!("its manifest names `{}`, and {reason}", descriptor.digest))?;
        }
        Ok(manifest)
    }

    /// The configuration and the layers of an image manifest.
    pub(crate) fn image(self) -> Result<(Descriptor, Vec<Descriptor>), String> {
        let config = self.config.ok_or("its manifest names no configuration")?;
        let layers = self.layers.unwrap_or_default();
        if layers.len() > MAX_LAYERS {
            return Err(format!("it has {} layers, more than {MAX_LAYERS}", layers.len()));
        }
        Ok((config, layers))
    }
}

/// `amd64`, `arm64`: this machine in the words of the format.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The entry of an index that is for this machine.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], reference: &str) -> Result<&'a Descriptor> {
    let is_image = |d: &&Descriptor| {
        let platform = d.platform.as_ref();
        // Attestations are listed as images of an unknown platform.
        !platform.is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
    };
    let fits = |d: &&Descriptor| {
        d.platform.as_ref().is_some_and(|p| {
            let variant = matches!(p.variant.as_deref(), None | Some("" | "v8" | "v1"));
            p.os == "linux" && p.architecture == architecture() && variant
        })
    };
    let candidates: Vec<&Descriptor> = entries.iter().filter(is_image).collect();
    if let Some(entry) = candidates.iter().find(|d| fits(d)) {
        return Ok(entry);
    }
    match candidates[..] {
        // An index of one image that does not say for whom.
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            let name = |d: &&Descriptor| {
                let p = d.platform.clone().unwrap_or_default();
                format!("{}/{}", p.os, p.architecture)
            };
            let mut found: Vec<String> = candidates.iter().map(name).collect();
            found.dedup();
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            let wanted = format!("linux/{}", architecture());
            Err(ImageError::Platform { reference: reference.to_owned(), wanted, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_with_nulls_reads_as_empty() {
        let blob = ConfigBlob::parse(
            br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,
                "Labels":null,"Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"OnBuild":null},
                "rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        let config = ImageConfig::from(blob.config);
        assert_eq!(
            (config.cmd, config.volumes, config.exposed_ports),
            (vec!["sh".to_owned()], vec!["/data".to_owned()], vec!["80/tcp".to_owned()])
        );
        assert!(ConfigBlob::parse(br#"{"rootfs":{"diff_ids":["../../etc"]}}"#).is_err());
    }

    #[test]
    fn the_platform_of_this_machine_is_chosen() {
        let entry = |os: &str, arch: &str, variant: Option<&str>| Descriptor {
            digest: format!("{os}/{arch}/{}", variant.unwrap_or("-")),
            platform: Some(Platform {
                os: os.to_owned(),
                architecture: arch.to_owned(),
                variant: variant.map(str::to_owned),
            }),
            ..Descriptor::default()
        };
        let here = architecture();
        let check = |entries: &[Descriptor], expect: Option<&str>| {
            assert_eq!(choose(entries, "x").ok().map(|d| d.digest.as_str()), expect, "{entries:?}");
        };
        let linux = format!("linux/{here}/-");
        check(&[entry("windows", here, None), entry("linux", here, None)], Some(&linux));
        check(&[entry("unknown", "unknown", None), entry("linux", "s390x", None)], None);
        check(&[entry("unknown", "unknown", None), Descriptor::default()], Some(""));
        check(&[], None);
        let v8 = format!("linux/{here}/v8");
        check(&[entry("linux", here, Some("v7")), entry("linux", here, Some("v8"))], Some(&v8));
    }
}

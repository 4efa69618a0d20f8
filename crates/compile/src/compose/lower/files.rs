//! Configs and secrets as ConfigMaps and Secrets, and where services find them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMap, ConfigMapVolumeSource, KeyToPath, ProjectedVolumeSource, Secret, SecretProjection,
        SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    super::model::{Content, FileObject, FileReference, Service},
    Lowering,
};
use crate::{
    source::read_bytes,
    workload::{self, name::sanitised, pod::PodFragment},
};

/// Where secrets are, unless told another place.
const SECRETS: &str = "/run/secrets";

/// The group of Secrets in the output: a file of its own, which only its owner reads.
const SECRETS_GROUP: &str = "secrets";

/// The highest number of a user or group that a container has.
const MAX_ID: u32 = i32::MAX as u32;

/// What one ConfigMap or Secret may hold.
const MAX_BYTES: usize = 1 << 20;

impl Lowering<'_> {
    /// Makes the objects for configs and secrets that are in use.
    pub(super) fn files(&mut self) {
        let project = self.project;
        let used = |list: fn(&Service) -> &Vec<FileReference>| -> BTreeSet<&str> {
            project.services.values().flat_map(|s| list(s).iter().map(|r| r.source.as_str())).collect()
        };
        let (configs, secrets) = (used(|s| &s.configs), used(|s| &s.secrets));
        for (key, config) in project.configs.iter().filter(|(key, _)| configs.contains(key.as_str())) {
            if let Some(bytes) = self.content("config", key, config) {
                let metadata = self.file_metadata(&object_name(key, config), config);
                let map = match String::from_utf8(bytes) {
                    Ok(text) => ConfigMap {
                        metadata,
                        data: Some(BTreeMap::from([(data_key(key), text)])),
                        ..ConfigMap::default()
                    },
                    Err(binary) => {
                        let binary = ByteString(binary.into_bytes());
                        let binary_data = Some(BTreeMap::from([(data_key(key), binary)]));
                        ConfigMap { metadata, binary_data, ..ConfigMap::default() }
                    }
                };
                self.push(&self.names.app.clone(), workload::value(map));
            }
        }
        for (key, secret) in project.secrets.iter().filter(|(key, _)| secrets.contains(key.as_str())) {
            if let Some(bytes) = self.content("secret", key, secret) {
                let metadata = self.file_metadata(&object_name(key, secret), secret);
                let data = Some(BTreeMap::from([(data_key(key), ByteString(bytes))]));
                let object = Secret { metadata, data, type_: Some("Opaque".into()), ..Secret::default() };
                self.push(SECRETS_GROUP, workload::value(object));
            }
        }
    }

    fn file_metadata(&self, name: &str, file: &FileObject) -> ObjectMeta {
        let annotations: BTreeMap<String, String> = file
            .labels
            .iter()
            .filter(|(k, _)| workload::pod::is_annotation_key(k))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.names.namespace.clone()),
            // Labels are made here, as a map of strings.
            labels: serde_json::from_value(self.labels()).ok(),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        }
    }

    /// The content, or a word on why there is no object.
    fn content(&mut self, kind: &str, key: &str, file: &FileObject) -> Option<Vec<u8>> {
        let object = if kind == "secret" { "Secret" } else { "ConfigMap" };
        let name = object_name(key, file);
        if let Some(driver) = file.template_driver.as_ref().or(file.driver.as_ref()) {
            self.found.warn(&file.at, format!("driver {driver} of {kind} {key} has no effect"));
        }
        let bytes = match &file.content {
            Content::External => {
                let sentence = format!(
                    "{kind} {key} is external: a {object} {name} with the key {} has to be in the namespace",
                    data_key(key)
                );
                self.found.warn(&file.at, sentence);
                return None;
            }
            Content::Inline(text) => text.clone().into_bytes(),
            Content::Environment(_, Some(value)) => value.clone().into_bytes(),
            Content::Environment(variable, None) => {
                let sentence = format!(
                    "{kind} {key} is not made, as {variable} is not set: set it, or make the {object} {name} yourself"
                );
                self.found.warn(&file.at, sentence);
                return None;
            }
            Content::File(path) => match read_bytes(path, MAX_BYTES as u64) {
                Ok(bytes) => bytes,
                Err(e) if path.exists() => {
                    let mut sentence = format!("{kind} {key} cannot be read from {}: {e}", path.display());
                    if e.kind() == std::io::ErrorKind::FileTooLarge {
                        sentence
                            .push_str(&format!(", and a {object} has room for 1 MiB: mount it as a volume"));
                    }
                    self.found.error(&file.at, sentence);
                    return None;
                }
                Err(e) => {
                    let sentence = format!(
                        "{kind} {key} is not made, as {} cannot be read ({e}): write that file, or make the {object} {name} yourself",
                        path.display()
                    );
                    self.found.warn(&file.at, sentence);
                    return None;
                }
            },
        };
        if bytes.len() > MAX_BYTES {
            let sentence = format!(
                "{kind} {key} has {} bytes, and a {object} has room for 1 MiB: mount it as a volume",
                bytes.len()
            );
            self.found.error(&file.at, sentence);
            return None;
        }
        Some(bytes)
    }

    /// Mounts the configs and secrets of one service: what goes below /run/secrets as one volume, all else as a file.
    pub(super) fn file_mounts(&mut self, service: &Service, part: &mut PodFragment) {
        let mut below = Vec::new();
        let mut owners = Vec::new();
        for reference in &service.secrets {
            let owner = self.owner(reference);
            let Some(secret) = self.project.secrets.get(&reference.source) else { continue };
            let (name, item) = (object_name(&reference.source, secret), item(reference));
            let target = reference.target.clone().unwrap_or_else(|| reference.source.clone());
            let target = target.strip_prefix(&format!("{SECRETS}/")).unwrap_or(&target).to_string();
            if target.starts_with('/') {
                let secret = SecretVolumeSource {
                    secret_name: Some(name),
                    items: Some(vec![item]),
                    ..Default::default()
                };
                let volume = Volume {
                    name: volume_name("secret", reference),
                    secret: Some(secret),
                    ..Volume::default()
                };
                single(part, volume, &reference.source, target, owner);
            } else {
                let path = target.trim_start_matches("./").to_string();
                owners.extend(owner.map(|owner| (path, owner)));
                let item = KeyToPath { path: target.trim_start_matches("./").into(), ..item };
                below.push(VolumeProjection {
                    secret: Some(SecretProjection { name, items: Some(vec![item]), optional: None }),
                    ..VolumeProjection::default()
                });
            }
        }
        if !below.is_empty() {
            // Files of other owners are other files, so such a volume is not shared within a Pod.
            let own = format!("{}-secrets", part.container.name);
            let name = part.volume(Volume {
                name: if owners.is_empty() { "secrets".into() } else { own },
                projected: Some(ProjectedVolumeSource { sources: Some(below), default_mode: Some(0o444) }),
                ..Volume::default()
            });
            for (path, (uid, gid)) in owners {
                part.own(&name, &path, uid, gid);
            }
            let mount_path = SECRETS.to_string();
            part.mount_volume(VolumeMount {
                name,
                mount_path,
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
        for reference in &service.configs {
            let owner = self.owner(reference);
            let Some(config) = self.project.configs.get(&reference.source) else { continue };
            let target = reference.target.clone().unwrap_or_else(|| format!("/{}", reference.source));
            let target = if target.starts_with('/') { target } else { format!("/{target}") };
            let config_map = ConfigMapVolumeSource {
                name: object_name(&reference.source, config),
                items: Some(vec![item(reference)]),
                ..ConfigMapVolumeSource::default()
            };
            let volume = Volume {
                name: volume_name("config", reference),
                config_map: Some(config_map),
                ..Volume::default()
            };
            single(part, volume, &reference.source, target, owner);
        }
    }

    /// The owner that a file is to have, by numbers; root where nothing is written.
    fn owner(&mut self, reference: &FileReference) -> Option<(u32, u32)> {
        let mut number = |field: &str, id: &Option<String>| match id.as_deref() {
            None => 0,
            Some(text) => text.parse().ok().filter(|id| *id <= MAX_ID).unwrap_or_else(|| {
                let sentence = format!(
                    "{field} {text} of {} has no effect, so it is root's: write a number of at most {MAX_ID}",
                    reference.source
                );
                self.found.warn(&reference.at, sentence);
                0
            }),
        };
        let owner = (number("uid", &reference.uid), number("gid", &reference.gid));
        (owner != (0, 0)).then_some(owner)
    }
}

/// Mounts the one file of a volume.
fn single(
    part: &mut PodFragment,
    mut volume: Volume,
    source: &str,
    target: String,
    owner: Option<(u32, u32)>,
) {
    if let Some((uid, gid)) = owner {
        // The same file of another owner is another file.
        volume.name = sanitised(&format!("{}-{uid}-{gid}", volume.name), 58);
    }
    let name = part.volume(volume);
    if let Some((uid, gid)) = owner {
        part.own(&name, &data_key(source), uid, gid);
    }
    part.mount_volume(VolumeMount {
        name,
        mount_path: target,
        sub_path: Some(data_key(source)),
        read_only: Some(true),
        ..VolumeMount::default()
    });
}

fn item(reference: &FileReference) -> KeyToPath {
    let key = data_key(&reference.source);
    KeyToPath { path: key.clone(), key, mode: reference.mode.map(|m| (m & 0o777) as i32) }
}

/// Objects that others make have the name that these gave them.
fn object_name(key: &str, file: &FileObject) -> String {
    let name = if file.content == Content::External { &file.name } else { key };
    match sanitised(name, 63) {
        none if none.is_empty() => "file".into(),
        name => name,
    }
}

fn volume_name(kind: &str, reference: &FileReference) -> String {
    sanitised(&format!("{kind}-{}", reference.source), 58)
}

/// A key of a ConfigMap: letters, digits, `-`, `_` and `.`.
fn data_key(source: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    source.chars().map(keep).take(253).collect()
}

//! Writes volumes of a service and the sections of the file that they refer to.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMapVolumeSource, Container, KeyToPath, PodSpec, SecretVolumeSource, Volume, VolumeMount,
    },
};
use serde_json::{Map, Value, json};
use yado_types::{labels, tmpfs};

use super::{Writer, controller::PodController, deploy::memory, escaped};

/// Fields of a service that are derived from its mounts.
#[derive(Default)]
pub(super) struct Mounts {
    pub volumes: Vec<Value>,
    pub devices: Vec<Value>,
    pub configs: Vec<Value>,
    pub secrets: Vec<Value>,
    pub tmpfs: Vec<Value>,
    pub shm_size: Option<String>,
}

impl Writer<'_> {
    pub(super) fn mounts(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        container: &Container,
    ) -> Mounts {
        let mut all = Mounts::default();
        for mount in container.volume_mounts.iter().flatten() {
            let Some(volume) = pod.volumes.iter().flatten().find(|v| v.name == mount.name) else {
                // A StatefulSet's own claims have no volume in its Pod.
                let name = format!("{}-{}", mount.name, controller.service);
                self.volumes.insert(name.clone(), Value::Null);
                all.volumes.push(with_options(&name, mount));
                continue;
            };
            let before = (all.secrets.len(), all.configs.len());
            self.mount(controller, pod, volume, mount, &mut all);
            let owned = owners(controller, &volume.name);
            let files = all.secrets[before.0..].iter_mut().chain(&mut all.configs[before.1..]);
            files.for_each(|reference| own(reference, mount, &owned));
        }
        all
    }

    fn mount(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        volume: &Volume,
        mount: &VolumeMount,
        all: &mut Mounts,
    ) {
        if let Some(claim) = &volume.persistent_volume_claim {
            let key = self.claim(controller, &claim.claim_name);
            let nocopy = is_in(controller.annotation(labels::NO_COPY_UP), &volume.name);
            all.volumes.push(named(&key, mount, nocopy));
        } else if let Some(host) = &volume.host_path {
            if is_device(&host.path, host.type_.as_deref(), mount) {
                all.devices.push(escaped(&format!("{}:{}", host.path, mount.mount_path)).into());
            } else {
                all.volumes.push(bind(&host.path, host.type_.as_deref(), mount));
            }
        } else if volume.empty_dir.is_some() {
            self.empty_dir(controller, pod, volume, mount, all);
        } else if let Some(secret) = &volume.secret {
            self.secret_volume(secret, mount, all);
        } else if let Some(map) = &volume.config_map {
            self.config_volume(map, mount, all);
        } else if volume.projected.is_some() {
            self.projected(controller, volume, mount, all);
        } else if let Some(nfs) = &volume.nfs {
            let options =
                format!("addr={}{}", nfs.server, if nfs.read_only == Some(true) { ",ro" } else { "" });
            let options = json!({"type": "nfs", "o": options, "device": format!(":{}", nfs.path)});
            self.volumes.insert(volume.name.clone(), json!({"driver_opts": options}));
            all.volumes.push(with_options(&volume.name, mount));
        } else if let Some(image) = volume.image.as_ref().and_then(|i| i.reference.as_ref()) {
            let mut long = json!({"type": "image", "source": image, "target": mount.mount_path});
            if let Some(sub) = &mount.sub_path {
                long["image"] = json!({"subpath": sub});
            }
            all.volumes.push(long);
        } else {
            self.warn(
                controller,
                format!("volume {} is left out, as compose has no equivalent of its kind", volume.name),
            );
        }
    }

    fn empty_dir(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        volume: &Volume,
        mount: &VolumeMount,
        all: &mut Mounts,
    ) {
        let Some(empty) = &volume.empty_dir else { return };
        let size = empty.size_limit.as_ref().map(|q| memory(&q.0));
        let in_memory = empty.medium.as_deref() == Some("Memory");
        let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        let users =
            containers.filter(|c| c.volume_mounts.iter().flatten().any(|m| m.name == volume.name)).count();
        let options: BTreeMap<String, String> =
            serde_json::from_str(controller.annotation(labels::TMPFS)).unwrap_or_default();
        let asked = options.get(&volume.name).map(|list| tmpfs::parse(list).options).unwrap_or_default();
        match (in_memory, size) {
            // Options that the long form does not support, and the mounts after them, to keep the order.
            (true, size) if !only_mode(&asked) || !all.tmpfs.is_empty() => {
                let mut list: Vec<String> = vec![asked.to_string()];
                list.extend(size.map(|size| format!("size={size}")));
                list.extend((mount.read_only == Some(true)).then(|| "ro".into()));
                list.retain(|option| !option.is_empty());
                let options = if list.is_empty() { String::new() } else { format!(":{}", list.join(",")) };
                all.tmpfs.push(escaped(&format!("{}{options}", mount.mount_path)).into());
            }
            (true, Some(size)) if mount.mount_path == "/dev/shm" => all.shm_size = Some(size),
            (true, size) => {
                let mut long = json!({"type": "tmpfs", "target": mount.mount_path});
                if mount.read_only == Some(true) {
                    long["read_only"] = true.into();
                }
                if let Some(size) = size {
                    long["tmpfs"]["size"] = size.into();
                }
                if let Some(mode) = asked.mode {
                    long["tmpfs"]["mode"] = mode.into();
                }
                all.volumes.push(long);
            }
            (false, _) if users > 1 => {
                let name = format!("{}-{}", controller.service, volume.name);
                self.volumes.insert(name.clone(), Value::Null);
                all.volumes.push(with_options(&name, mount));
            }
            (false, _) if is_in(controller.annotation(labels::NO_COPY_UP), &volume.name) => {
                let mut long = json!({"type": "volume", "target": mount.mount_path});
                if mount.read_only == Some(true) {
                    long["read_only"] = true.into();
                }
                long["volume"] = json!({"nocopy": true});
                all.volumes.push(long);
            }
            (false, _) if mount.read_only == Some(true) => {
                all.volumes.push(json!({"type": "volume", "target": mount.mount_path, "read_only": true}));
            }
            (false, _) => all.volumes.push(mount.mount_path.clone().into()),
        }
    }

    fn projected(
        &mut self,
        controller: &PodController,
        volume: &Volume,
        mount: &VolumeMount,
        all: &mut Mounts,
    ) {
        let Some(projected) = &volume.projected else { return };
        for source in projected.sources.iter().flatten() {
            if let Some(secret) = &source.secret {
                let whole = SecretVolumeSource {
                    secret_name: Some(secret.name.clone()),
                    items: secret.items.clone(),
                    ..SecretVolumeSource::default()
                };
                self.secret_volume(&whole, mount, all);
            } else if let Some(map) = &source.config_map {
                let whole = ConfigMapVolumeSource {
                    name: map.name.clone(),
                    items: map.items.clone(),
                    ..ConfigMapVolumeSource::default()
                };
                self.config_volume(&whole, mount, all);
            } else {
                self.warn(controller, format!("a source of volume {} is left out", volume.name));
            }
        }
    }

    /// Declares the volume of a claim and returns its key. The Docker name of the volume is kept.
    fn claim(&mut self, controller: &PodController, name: &str) -> String {
        self.in_use.insert(("PersistentVolumeClaim", name.into()));
        let project = self.project();
        let Some(claim) = self.claims.get(name) else {
            let written: BTreeMap<String, String> =
                serde_json::from_str(controller.annotation(labels::DOCKER_VOLUMES)).unwrap_or_default();
            let written = written.get(name).map_or(name, String::as_str);
            self.volumes.insert(name.into(), json!({"external": true, "name": escaped(written)}));
            return name.into();
        };
        let mut section = Map::new();
        let written = claim.metadata.annotations.as_ref().and_then(|a| a.get(labels::DOCKER_VOLUME));
        let key = match written.map(|written| (written, written.strip_prefix(&format!("{project}_")))) {
            Some((_, Some(key))) if is_key(key) => key.to_string(),
            Some((written, _)) => {
                section.insert("name".into(), escaped(written).into());
                name.into()
            }
            None => name.into(),
        };
        let spec = claim.spec.clone().unwrap_or_default();
        let size =
            spec.resources.and_then(|r| r.requests).and_then(|r| r.get("storage").map(|q| q.0.clone()));
        if let Some(size) = size.filter(|s| s != "1Gi") {
            section.insert("driver_opts".into(), json!({"size": memory(&size)}));
        }
        let labels: Map<String, Value> = claim
            .metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| crate::workload::pod::is_annotation_key(key))
            .map(|(k, v)| (k.clone(), Value::from(escaped(v))))
            .collect();
        if !labels.is_empty() {
            section.insert("labels".into(), labels.into());
        }
        let section = if section.is_empty() { Value::Null } else { section.into() };
        self.volumes.insert(key.clone(), section);
        key
    }

    fn secret_volume(&mut self, volume: &SecretVolumeSource, mount: &VolumeMount, all: &mut Mounts) {
        let name = volume.secret_name.clone().unwrap_or_default();
        self.in_use.insert(("Secret", name.clone()));
        let data: Vec<(String, ByteString)> = self.keys.get(&name).map_or_else(Vec::new, |s| {
            let text =
                s.string_data.iter().flatten().map(|(k, v)| (k.clone(), ByteString(v.clone().into_bytes())));
            s.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).chain(text).collect()
        });
        let items = items(volume.items.as_deref(), data.iter().map(|(k, _)| k));
        for item in items.iter().filter(|i| wanted(mount, i)) {
            let here = data.iter().any(|(k, _)| *k == item.key);
            let key = section_key(&self.secrets, &name, &item.key, here);
            let section = match data.iter().find(|(k, _)| *k == item.key) {
                Some((_, ByteString(bytes))) => {
                    let file = format!("{}{key}", super::SECRETS);
                    self.file(&file, bytes.clone());
                    json!({"file": format!("./{file}")})
                }
                None => json!({"external": true, "name": name}),
            };
            let labels =
                self.keys.get(&name).and_then(|s| s.metadata.annotations.clone()).unwrap_or_default();
            self.secrets.insert(key.clone(), with_labels(section, labels));
            let target = target(mount, item);
            let target = target.strip_prefix("/run/secrets/").unwrap_or(&target);
            all.secrets.push(reference(&key, target, target == key, item.mode));
        }
    }

    fn config_volume(&mut self, volume: &ConfigMapVolumeSource, mount: &VolumeMount, all: &mut Mounts) {
        let name = &volume.name;
        self.in_use.insert(("ConfigMap", name.clone()));
        let map = self.maps.get(name).cloned().unwrap_or_default();
        let (text, binary) = (map.data.unwrap_or_default(), map.binary_data.unwrap_or_default());
        let items = items(volume.items.as_deref(), text.keys().chain(binary.keys()));
        for item in items.iter().filter(|i| wanted(mount, i)) {
            let here = text.contains_key(&item.key) || binary.contains_key(&item.key);
            let key = section_key(&self.configs, name, &item.key, here);
            let section = match (text.get(&item.key), binary.get(&item.key)) {
                (Some(text), _) => json!({"content": escaped(text)}),
                (None, Some(ByteString(bytes))) => {
                    let file = format!("configs/{key}");
                    self.file(&file, bytes.clone());
                    json!({"file": format!("./{file}")})
                }
                (None, None) => json!({"external": true, "name": name}),
            };
            self.configs.insert(
                key.clone(),
                with_labels(section, map.metadata.annotations.clone().unwrap_or_default()),
            );
            let target = target(mount, item);
            let usual = target == format!("/{key}");
            all.configs.push(reference(&key, &target, usual, item.mode));
        }
    }

    fn file(&mut self, name: &str, content: Vec<u8>) {
        if self.files.iter().all(|(known, _)| known != name) {
            self.files.push((name.into(), content));
        }
    }
}

/// The section key for one key of an object: the same key if it compiles to the same object again.
fn section_key(sections: &Map<String, Value>, object: &str, key: &str, here: bool) -> String {
    let same = match here {
        true => object == crate::workload::name::sanitised(key, 63),
        // External objects are referred to by name.
        false => sections.get(key).is_none_or(|s| s["name"] == object),
    };
    if same { key.into() } else { format!("{object}-{key}") }
}

fn with_labels(mut section: Value, labels: std::collections::BTreeMap<String, String>) -> Value {
    let labels: Map<String, Value> = labels
        .into_iter()
        .filter(|(k, _)| crate::workload::pod::is_annotation_key(k))
        .map(|(k, v)| (k, Value::from(escaped(&v))))
        .collect();
    if !labels.is_empty() {
        section["labels"] = labels.into();
    }
    section
}

/// The chosen items, or all keys if none are chosen.
fn items<'a>(chosen: Option<&[KeyToPath]>, all: impl Iterator<Item = &'a String>) -> Vec<KeyToPath> {
    match chosen {
        Some(items) => items.to_vec(),
        None => all.map(|k| KeyToPath { key: k.clone(), path: k.clone(), mode: None }).collect(),
    }
}

/// Whether a mount of a single file is that of this item.
fn wanted(mount: &VolumeMount, item: &KeyToPath) -> bool {
    mount.sub_path.as_ref().is_none_or(|sub| *sub == item.path)
}

fn target(mount: &VolumeMount, item: &KeyToPath) -> String {
    match &mount.sub_path {
        Some(_) => mount.mount_path.clone(),
        None => format!("{}/{}", mount.mount_path.trim_end_matches('/'), item.path),
    }
}

/// Owners of files of a volume, by their paths in it.
fn owners(controller: &PodController, volume: &str) -> BTreeMap<String, String> {
    let annotations = controller.template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    let all: Option<BTreeMap<String, BTreeMap<String, String>>> =
        annotations.and_then(|a| serde_json::from_str(a.get(labels::FILE_OWNERS)?).ok());
    all.and_then(|mut all| all.remove(volume)).unwrap_or_default()
}

/// Adds the owner to a reference to a secret or config.
fn own(reference: &mut Value, mount: &VolumeMount, owners: &BTreeMap<String, String>) {
    let path = match &mount.sub_path {
        Some(path) => Some(path.as_str()),
        None => reference["target"].as_str().or(reference.as_str()),
    };
    let Some((uid, gid)) = path.and_then(|path| owners.get(path)?.split_once(':')) else { return };
    if let Some(source) = reference.as_str() {
        *reference = json!({"source": source});
    }
    reference["uid"] = uid.into();
    reference["gid"] = gid.into();
}

fn reference(key: &str, target: &str, usual: bool, mode: Option<i32>) -> Value {
    if usual && mode.is_none() {
        return key.into();
    }
    let mut reference = json!({"source": key, "target": target});
    if let Some(mode) = mode {
        reference["mode"] = mode.into();
    }
    reference
}

/// A named volume, in the short form if possible.
fn with_options(source: &str, mount: &VolumeMount) -> Value {
    match &mount.sub_path {
        None => short(source, mount),
        Some(sub) => {
            let mut long = json!({"type": "volume", "source": source, "target": mount.mount_path});
            if mount.read_only == Some(true) {
                long["read_only"] = true.into();
            }
            long["volume"] = json!({"subpath": sub});
            long
        }
    }
}

/// Whether the mode is the only option of a tmpfs.
fn only_mode(options: &tmpfs::Options) -> bool {
    *options == tmpfs::Options { mode: options.mode, ..tmpfs::Options::default() }
}

/// Whether a comma-separated list contains a name.
fn is_in(list: &str, name: &str) -> bool {
    list.split(',').any(|one| one == name)
}

/// A named volume of a claim.
fn named(source: &str, mount: &VolumeMount, nocopy: bool) -> Value {
    let mut value = with_options(source, mount);
    if nocopy {
        match &mut value {
            Value::String(text) => {
                let more = if text.matches(':').count() > 1 { ',' } else { ':' };
                text.push(more);
                text.push_str("nocopy");
            }
            long => long["volume"]["nocopy"] = true.into(),
        }
    }
    value
}

/// Whether a key is valid for a volume.
fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn short(source: &str, mount: &VolumeMount) -> Value {
    let mut options: Vec<&str> = Vec::new();
    if mount.read_only == Some(true) {
        options.push("ro");
    }
    match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => options.push("rshared"),
        Some("HostToContainer") => options.push("rslave"),
        _ => {}
    }
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    escaped(&format!("{source}:{}{options}", mount.mount_path)).into()
}

/// Whether a mount is a device: a path below `/dev` that is not a socket such as `/dev/log`.
fn is_device(path: &str, type_: Option<&str>, mount: &VolumeMount) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let socket = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let plain =
        mount.sub_path.is_none() && mount.read_only != Some(true) && mount.mount_propagation.is_none();
    type_.is_none() && path.starts_with("/dev/") && plain && !socket
}

fn bind(path: &str, type_: Option<&str>, mount: &VolumeMount) -> Value {
    let source = match &mount.sub_path {
        Some(sub) => format!("{}/{sub}", path.trim_end_matches('/')),
        None => path.into(),
    };
    // The short form creates a missing directory.
    if type_ == Some("Directory") || source.contains(':') {
        let mut long = json!({"type": "bind", "source": escaped(&source), "target": mount.mount_path});
        if mount.read_only == Some(true) {
            long["read_only"] = true.into();
        }
        long["bind"] = json!({"create_host_path": type_ != Some("Directory")});
        match mount.mount_propagation.as_deref() {
            Some("Bidirectional") => long["bind"]["propagation"] = "rshared".into(),
            Some("HostToContainer") => long["bind"]["propagation"] = "rslave".into(),
            _ => {}
        }
        return long;
    }
    short(&source, mount)
}

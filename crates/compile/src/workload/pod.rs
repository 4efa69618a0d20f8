//! Translation of container settings, as Docker's flags and compose's fields define them, to fields of a Pod.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        Container, EmptyDirVolumeSource, HostAlias, HostPathVolumeSource, PersistentVolumeClaimVolumeSource,
        PodDNSConfig, PodDNSConfigOption, PodOS, PodSecurityContext, PodSpec, ResourceRequirements,
        SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::json;
use yado_types::{labels, pod::Restart, tmpfs};

use super::{amount, name, signal::signal_name};

pub use super::host_path::{host_path, socket_remark};

pub use health::HealthCheck;

mod health;
mod security;

/// Annotation of a Pod: Docker labels whose keys are not valid annotation keys, as JSON.
pub const LABELS: &str = "yado.dev/labels";

/// One container and the settings that it requires of its Pod.
#[derive(Debug, Clone, Default)]
pub struct PodFragment {
    /// The container.
    pub container: Container,
    /// The spec of the Pod, without this container.
    pub pod: PodSpec,
    /// Annotations set directly. [`PodFragment::annotations`] adds those that are derived from other settings.
    pub annotations: BTreeMap<String, String>,
    ulimits: BTreeMap<String, (i64, i64)>,
    users: BTreeMap<String, String>,
    /// Options of tmpfs volumes, by volume name.
    tmpfs: BTreeMap<String, String>,
    /// Volumes that are initialised with the image's content, and volumes that are not.
    filled: BTreeSet<String>,
    not_filled: BTreeSet<String>,
    /// Containers for which the health check of the image is disabled.
    unchecked: BTreeSet<String>,
    /// External claims and the names that Docker gives their volumes.
    docker_volumes: BTreeMap<String, String>,
    links: BTreeMap<String, BTreeMap<String, String>>,
    host_gateway: Vec<String>,
    owners: BTreeMap<String, BTreeMap<String, String>>,
    restarts: BTreeMap<String, Restart>,
    odd_labels: BTreeMap<String, String>,
}

/// The source of a volume's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// The PersistentVolumeClaim of this name.
    Claim(String),
    /// An absolute path on the node, and the `hostPath` type, such as `DirectoryOrCreate`.
    HostPath(String, Option<String>),
    /// An empty directory that lives as long as the Pod.
    EmptyDir,
    /// A tmpfs that lives as long as the Pod.
    Tmpfs(Tmpfs),
}

/// A tmpfs file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tmpfs {
    /// Its size limit, a quantity.
    pub size: Option<String>,
    /// Mode, owner and mount options.
    pub options: tmpfs::Options,
}

impl Tmpfs {
    /// A tmpfs with a size limit and default options.
    pub fn sized(size: Option<String>) -> Self {
        Tmpfs { size, ..Tmpfs::default() }
    }

    /// Parses Docker's tmpfs options. Returns the file system, whether it is read-only, and the options without effect.
    pub fn read(list: &str) -> (Self, bool, Vec<String>) {
        let tmpfs::ParsedOptions { options, size, read_only, unsupported: mut others } = tmpfs::parse(list);
        let amount = size.as_deref().and_then(amount::memory);
        if let (Some(written), None) = (&size, &amount) {
            others.push(format!("size={written}"));
        }
        (Tmpfs { size: amount, options }, read_only, others)
    }
}

/// A volume mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMount {
    /// The volume.
    pub source: MountSource,
    /// The absolute path in the container.
    pub path: String,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// The path within the volume to mount instead of its root.
    pub sub_path: Option<String>,
    /// `HostToContainer` or `Bidirectional`.
    pub propagation: Option<String>,
}

/// A setting that a Pod does not support fully; the text is the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsupported {
    /// The setting has another effect in a Pod, or none.
    Warning(String),
    /// The setting is not valid.
    Error(String),
}

impl PodFragment {
    /// A fragment of `container` and `pod` without derived settings.
    pub fn new(container: Container, pod: PodSpec) -> Self {
        PodFragment { container, pod, ..PodFragment::default() }
    }

    /// All annotations of the Pod, those derived from settings included.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut all = self.annotations.clone();
        if !self.ulimits.is_empty() {
            let limits: BTreeMap<&String, _> = self
                .ulimits
                .iter()
                .map(|(n, (soft, hard))| (n, json!({"soft": soft, "hard": hard})))
                .collect();
            all.insert(labels::ULIMITS.into(), json!(limits).to_string());
        }
        if !self.users.is_empty() {
            all.insert(labels::USERS.into(), json!(self.users).to_string());
        }
        if !self.docker_volumes.is_empty() {
            all.insert(labels::DOCKER_VOLUMES.into(), json!(self.docker_volumes).to_string());
        }
        if !self.tmpfs.is_empty() {
            all.insert(labels::TMPFS.into(), json!(self.tmpfs).to_string());
        }
        for (key, names) in [
            (labels::COPY_UP, &self.filled),
            (labels::NO_COPY_UP, &self.not_filled),
            (labels::NO_HEALTH_CHECK, &self.unchecked),
        ] {
            if !names.is_empty() {
                all.insert(key.into(), names.iter().cloned().collect::<Vec<_>>().join(","));
            }
        }
        if !self.links.is_empty() {
            all.insert(labels::LINKS.into(), json!(self.links).to_string());
        }
        if !self.host_gateway.is_empty() {
            all.insert(labels::HOST_GATEWAY.into(), self.host_gateway.join(","));
        }
        if !self.owners.is_empty() {
            all.insert(labels::FILE_OWNERS.into(), json!(self.owners).to_string());
        }
        if !self.restarts.is_empty() {
            let restarts: BTreeMap<&String, String> =
                self.restarts.iter().map(|(name, restart)| (name, restart.to_string())).collect();
            all.insert(labels::RESTART.into(), json!(restarts).to_string());
        }
        if !self.odd_labels.is_empty() {
            all.insert(LABELS.into(), json!(self.odd_labels).to_string());
        }
        all
    }

    /// Adds the container of `other` to this Pod, with its volumes and Pod settings.
    pub fn join(&mut self, other: PodFragment) {
        let PodFragment {
            mut container,
            pod,
            annotations,
            ulimits,
            users,
            mut tmpfs,
            filled,
            not_filled,
            unchecked,
            docker_volumes,
            links,
            host_gateway,
            mut owners,
            restarts,
            odd_labels,
        } = other;
        for volume in pod.volumes.into_iter().flatten() {
            let old = volume.name.clone();
            let new = self.volume(volume);
            if let Some(owned) = owners.remove(&old) {
                self.owners.entry(new.clone()).or_default().extend(owned);
            }
            self.tmpfs.extend(tmpfs.remove(&old).map(|options| (new.clone(), options)));
            for (theirs, ours) in [(&filled, &mut self.filled), (&not_filled, &mut self.not_filled)] {
                ours.extend(theirs.contains(&old).then(|| new.clone()));
            }
            for mount in container.volume_mounts.iter_mut().flatten().filter(|m| m.name == old) {
                mount.name.clone_from(&new);
            }
        }
        self.pod.containers.push(container);
        self.pod.containers.extend(pod.containers);
        if let Some(more) = pod.init_containers {
            self.pod.init_containers.get_or_insert_default().extend(more);
        }
        if let Some(more) = pod.host_aliases {
            self.pod.host_aliases.get_or_insert_default().extend(more);
        }
        self.pod.host_pid = self.pod.host_pid.or(pod.host_pid);
        self.pod.host_ipc = self.pod.host_ipc.or(pod.host_ipc);
        self.pod.host_network = self.pod.host_network.or(pod.host_network);
        self.pod.os = self.pod.os.take().or(pod.os);
        self.pod.termination_grace_period_seconds =
            self.pod.termination_grace_period_seconds.max(pod.termination_grace_period_seconds);
        if let Some(context) = pod.security_context {
            let own = self.pod_security();
            own.sysctls.get_or_insert_default().extend(context.sysctls.unwrap_or_default());
            own.sysctls = own.sysctls.take().filter(|s| !s.is_empty());
            own.supplemental_groups = own.supplemental_groups.take().or(context.supplemental_groups);
        }
        for (key, value) in annotations {
            self.annotations.entry(key).or_insert(value);
        }
        self.unchecked.extend(unchecked);
        self.docker_volumes.extend(docker_volumes);
        self.ulimits.extend(ulimits);
        self.users.extend(users);
        self.links.extend(links);
        self.restarts.extend(restarts);
        for host in host_gateway {
            if !self.host_gateway.contains(&host) {
                self.host_gateway.push(host);
            }
        }
        self.odd_labels.extend(odd_labels);
    }

    /// Initialises an empty volume with the content of the image at the mount path.
    pub fn fill(&mut self, volume: &str) {
        self.filled.insert(volume.into());
    }

    /// Keeps the volume mounted at `path` empty even if the image has content there.
    pub fn leave_as_it_is(&mut self, path: &str) {
        let mut mounts = self.container.volume_mounts.iter().flatten();
        let volume = mounts.rfind(|m| m.mount_path == path).map(|m| m.name.clone());
        if let Some(volume) = volume {
            self.filled.remove(&volume);
            self.not_filled.insert(volume);
        }
    }

    /// Records that Docker names the volume of an external claim `volume`.
    pub fn docker_volume(&mut self, claim: &str, volume: String) {
        self.docker_volumes.insert(claim.into(), volume);
    }

    /// Disables the health check of the image.
    pub fn no_health_check(&mut self) {
        self.unchecked.insert(self.container.name.clone());
    }

    /// Mounts a volume. It replaces an earlier mount at the same path.
    pub fn mount(&mut self, mount: ContainerMount) {
        let volume = match &mount.source {
            MountSource::Claim(claim) => Volume {
                name: claim.clone(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            },
            MountSource::HostPath(path, type_) => Volume {
                name: volume_name(&mount.path),
                host_path: Some(HostPathVolumeSource { path: path.clone(), type_: type_.clone() }),
                ..Volume::default()
            },
            MountSource::EmptyDir => Volume {
                name: volume_name(&mount.path),
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Volume::default()
            },
            MountSource::Tmpfs(memory) => Volume {
                name: volume_name(&mount.path),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".into()),
                    size_limit: memory.size.clone().map(Quantity),
                }),
                ..Volume::default()
            },
        };
        let name = self.volume(volume);
        if let MountSource::Tmpfs(Tmpfs { options, .. }) = &mount.source
            && *options != tmpfs::Options::default()
        {
            self.tmpfs.insert(name.clone(), options.to_string());
        }
        self.mount_volume(VolumeMount {
            name,
            mount_path: mount.path,
            read_only: mount.read_only.then_some(true),
            sub_path: mount.sub_path,
            mount_propagation: mount.propagation,
            ..VolumeMount::default()
        });
    }

    /// Mounts an existing volume of the Pod.
    pub fn mount_volume(&mut self, mount: VolumeMount) {
        let mounts = self.container.volume_mounts.get_or_insert_default();
        let replaced =
            mounts.iter().position(|m| m.mount_path == mount.mount_path).map(|p| mounts.remove(p).name);
        mounts.push(mount);
        // A volume without mounts is removed.
        if let Some(name) = replaced.filter(|name| mounts.iter().all(|m| m.name != *name)) {
            self.pod.volumes.iter_mut().for_each(|v| v.retain(|v| v.name != name));
            self.tmpfs.remove(&name);
            self.filled.remove(&name);
            self.not_filled.remove(&name);
        }
    }

    /// Adds a volume to the Pod and returns its name, which differs from the requested one if that is taken. An equal
    /// volume is added only once.
    pub fn volume(&mut self, mut volume: Volume) -> String {
        let volumes = self.pod.volumes.get_or_insert_default();
        let shareable = volume.empty_dir.is_none();
        let wanted = volume.name.clone();
        for number in 2.. {
            match volumes.iter().find(|known| known.name == volume.name) {
                None => break,
                Some(known) if shareable && *known == volume => return volume.name,
                Some(_) => volume.name = format!("{}-{number}", &wanted[..wanted.len().min(58)]),
            }
        }
        let name = volume.name.clone();
        volumes.push(volume);
        name
    }

    /// Sets the owner of a file in a volume of the Pod.
    pub fn own(&mut self, volume: &str, path: &str, uid: u32, gid: u32) {
        self.owners.entry(volume.into()).or_default().insert(path.into(), format!("{uid}:{gid}"));
    }

    /// Sets the restart policy of the container.
    pub fn restart(&mut self, restart: Restart) {
        let name = self.container.name.clone();
        match restart {
            Restart::Always => drop(self.restarts.remove(&name)),
            other => drop(self.restarts.insert(name, other)),
        }
    }

    /// Links, as `alias`, a container whose ports are declared only by its image.
    pub fn link(&mut self, alias: &str, image: &str) {
        let links = self.links.entry(self.container.name.clone()).or_default();
        links.insert(alias.into(), image.into());
    }

    /// Sets the user, `USER` or `USER:GROUP`, by number or name.
    pub fn user(&mut self, user: &str) {
        let (name, group) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
        // By convention of every system the name root has the number 0.
        let id = |name: &str| {
            if name == "root" { Some(0) } else { name.parse::<i64>().ok().filter(|id| *id >= 0) }
        };
        match (id(name), group.map(id)) {
            (Some(user), None) => self.security().run_as_user = Some(user),
            (Some(user), Some(Some(group))) => {
                self.security().run_as_user = Some(user);
                self.security().run_as_group = Some(group);
            }
            _ => drop(self.users.insert(self.container.name.clone(), user.into())),
        }
    }

    /// Adds a supplementary group by number. Names are not supported, since only the image can resolve them.
    pub fn group(&mut self, group: &str) -> Option<Unsupported> {
        match group.parse::<i64>() {
            Ok(id) if id >= 0 => {
                self.pod_security().supplemental_groups.get_or_insert_default().push(id);
                None
            }
            _ => Some(Unsupported::Warning(format!(
                "group {group} has no effect, as a Pod names further groups by number"
            ))),
        }
    }

    /// Adds a Docker label, which is free text, as an annotation of the Pod.
    pub fn label(&mut self, key: &str, value: &str) {
        if is_annotation_key(key) {
            self.annotations.insert(key.into(), value.into());
        } else {
            self.odd_labels.insert(key.into(), value.into());
        }
    }

    /// Adds a line to `/etc/hosts`.
    pub fn extra_host(&mut self, host: &str, address: &str) -> Option<Unsupported> {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address == "host-gateway" {
            if !self.host_gateway.iter().any(|known| known == host) {
                self.host_gateway.push(host.into());
            }
            return None;
        }
        if address.parse::<std::net::IpAddr>().is_err() {
            return Some(Unsupported::Error(format!("\"{address}\" is not a valid IP address for {host}")));
        }
        let aliases = self.pod.host_aliases.get_or_insert_default();
        match aliases.iter_mut().find(|a| a.ip == address) {
            Some(known) => known.hostnames.get_or_insert_default().push(host.into()),
            None => aliases.push(HostAlias { ip: address.into(), hostnames: Some(vec![host.into()]) }),
        }
        None
    }

    /// The DNS configuration, which extends that of the cluster.
    pub fn dns(&mut self) -> &mut PodDNSConfig {
        self.pod.dns_config.get_or_insert_default()
    }

    /// Adds an option of `resolv.conf`, such as `ndots:2`.
    pub fn dns_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').map_or((option, None), |(n, v)| (n, Some(v.to_string())));
        let options = self.dns().options.get_or_insert_default();
        options.push(PodDNSConfigOption { name: Some(name.into()), value });
    }

    /// Sets the limit of a resource.
    pub fn limit(&mut self, resource: &str, quantity: String) {
        self.resources().limits.get_or_insert_default().insert(resource.into(), Quantity(quantity));
    }

    /// Sets the request of a resource.
    pub fn request(&mut self, resource: &str, quantity: String) {
        self.resources().requests.get_or_insert_default().insert(resource.into(), Quantity(quantity));
    }

    fn resources(&mut self) -> &mut ResourceRequirements {
        self.container.resources.get_or_insert_default()
    }

    /// Sets the stop signal: `SIGQUIT`, `QUIT` or `3`.
    pub fn stop_signal(&mut self, signal: &str) -> Option<Unsupported> {
        let Some(name) = signal_name(signal) else {
            return Some(Unsupported::Error(format!(
                "\"{signal}\" is not a valid signal: write one such as SIGTERM"
            )));
        };
        self.container.lifecycle.get_or_insert_default().stop_signal = Some(name);
        // Kubernetes accepts a stop signal only if `spec.os` is set.
        self.pod.os = Some(PodOS { name: "linux".into() });
        None
    }

    /// Restricts the Pod to nodes of a platform in Docker's notation: `linux/arm64`, `arm64`.
    pub fn platform(&mut self, platform: &str) {
        let mut parts = platform.split('/');
        let (os, arch) = match (parts.next().unwrap_or_default(), parts.next()) {
            (os @ ("linux" | "windows"), None) => (os, None),
            (arch, None) => ("linux", Some(arch)),
            (os, arch) => (os, arch),
        };
        let selector = self.pod.node_selector.get_or_insert_default();
        selector.insert(labels::OS.into(), os.into());
        if let Some(arch) = arch {
            let arch = match arch {
                "x86_64" | "x86-64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            };
            selector.insert(labels::ARCH.into(), arch.into());
        }
    }

    /// Uses the network of the node and the DNS of the cluster.
    pub fn host_network(&mut self) {
        self.pod.host_network = Some(true);
        self.pod.dns_policy = Some("ClusterFirstWithHostNet".into());
    }

    /// Mounts a device of the node: `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rwm`.
    pub fn device(&mut self, device: &str) -> Option<Unsupported> {
        let mut parts = device.split(':');
        let source = parts.next().unwrap_or_default();
        let target = parts.next().filter(|t| t.starts_with('/')).unwrap_or(source);
        if let Some(kind) = source.strip_prefix("nvidia.com/").filter(|_| !source.starts_with('/')) {
            // A device of the container device interface: `nvidia.com/gpu=all`.
            let resource = kind.split('=').next().unwrap_or(kind);
            self.limit(&format!("nvidia.com/{resource}"), "1".into());
            return None;
        }
        if !source.starts_with("/") {
            return Some(Unsupported::Warning(format!(
                "device {device} has no effect: it is not a path on the node"
            )));
        }
        let from = MountSource::HostPath(source.into(), None);
        let read_only = false;
        self.mount(ContainerMount {
            source: from,
            path: target.into(),
            read_only,
            sub_path: None,
            propagation: None,
        });
        Some(Unsupported::Warning(format!(
            "device {source} is mounted from the node; a cluster that guards its devices also needs privileged: true"
        )))
    }

    /// The security context of the container.
    pub fn security(&mut self) -> &mut SecurityContext {
        self.container.security_context.get_or_insert_default()
    }

    /// The security context of the Pod.
    pub fn pod_security(&mut self) -> &mut PodSecurityContext {
        self.pod.security_context.get_or_insert_default()
    }
}

/// Escapes `text` for fields in which Kubernetes expands `$(NAME)`, so that it stays unchanged. `env` tells whether a name
/// is a variable of the container.
pub fn escape_references(text: &str, env: &dyn Fn(&str) -> bool) -> String {
    let mut all = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        all.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        all.push('$');
        if let Some(after) = rest.strip_prefix('$') {
            all.push_str("$$$");
            rest = after;
        } else if let Some(name) =
            rest.strip_prefix('(').and_then(|r| r.split_once(')')).map(|(name, _)| name)
            && env(name)
        {
            all.push('$');
        }
    }
    all.push_str(rest);
    all
}

/// The name of a volume after its mount path: `nginx-conf` for `/etc/nginx/nginx.conf`.
fn volume_name(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = name::sanitised(last, 58);
    if name.is_empty() { "volume".into() } else { name }
}

/// Whether `key` is a valid annotation key outside the prefixes of Kubernetes and Yado.
pub fn is_annotation_key(key: &str) -> bool {
    // Annotations' keys are in lower case where they have a prefix.
    yado_types::names::qualified_name(key).is_ok()
        && !key.split('/').next().is_some_and(|prefix| {
            key.contains('/')
                && ["yado.dev", "kubernetes.io", "k8s.io"]
                    .iter()
                    .any(|own| prefix == *own || prefix.ends_with(&format!(".{own}")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_have_names_of_their_own() {
        let mut part = PodFragment::default();
        let mount = |source: MountSource, path: &str| ContainerMount {
            source,
            path: path.into(),
            read_only: false,
            sub_path: None,
            propagation: None,
        };
        part.mount(mount(MountSource::EmptyDir, "/a/data"));
        part.mount(mount(MountSource::EmptyDir, "/b/data"));
        part.mount(mount(MountSource::Claim("db".into()), "/c"));
        part.mount(mount(MountSource::Claim("db".into()), "/d"));
        let names: Vec<String> = part.pod.volumes.unwrap_or_default().into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["data", "data-2", "db"]);
        let mounts: Vec<String> =
            part.container.volume_mounts.unwrap_or_default().into_iter().map(|m| m.name).collect();
        assert_eq!(mounts, ["data", "data-2", "db", "db"]);
    }

    #[test]
    fn text_is_passed_as_it_is_written() {
        for (text, expect) in [
            ("a $b $(c) $(HOME)", "a $b $(c) $$(HOME)"),
            ("$$", "$$$$"),
            ("$2y$05$x", "$2y$05$x"),
            ("$$(HOME) $(", "$$$$(HOME) $("),
            ("$", "$"),
        ] {
            assert_eq!(escape_references(text, &|name| name == "HOME"), expect, "{text}");
        }
    }

    #[test]
    fn users_by_number_and_by_name() {
        for (user, expect) in [
            ("1000", (Some(1000), None, None)),
            ("0:0", (Some(0), Some(0), None)),
            ("root", (Some(0), None, None)),
            ("node", (None, None, Some(r#"{"c":"node"}"#))),
            ("1000:users", (None, None, Some(r#"{"c":"1000:users"}"#))),
        ] {
            let mut part = PodFragment::default();
            part.container.name = "c".into();
            part.user(user);
            let context = part.container.security_context.clone().unwrap_or_default();
            let annotation = part.annotations().get(labels::USERS).cloned();
            assert_eq!((context.run_as_user, context.run_as_group, annotation.as_deref()), expect, "{user}");
        }
    }
}

//! What Docker's flags and compose's fields say of a container, as parts of a Pod. Both front ends write through here.

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

pub use health::Health;

mod health;
mod security;

/// Annotation of a Pod: Docker's labels whose keys no annotation may have, as JSON.
pub const LABELS: &str = "yado.dev/labels";

/// One container and what it asks of its Pod.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The container.
    pub container: Container,
    /// The Pod, but for this container.
    pub pod: PodSpec,
    /// Annotations of the Pod, but for those that are kept apart here; all come with [`Part::annotations`].
    pub annotations: BTreeMap<String, String>,
    ulimits: BTreeMap<String, (i64, i64)>,
    users: BTreeMap<String, String>,
    /// Volumes in memory and what is asked of them.
    tmpfs: BTreeMap<String, String>,
    /// Volumes with the image's content, and volumes without it.
    filled: BTreeSet<String>,
    not_filled: BTreeSet<String>,
    /// Containers whose images' health checks are switched off.
    unchecked: BTreeSet<String>,
    /// Claims that others make, and what Docker calls their volumes.
    docker_volumes: BTreeMap<String, String>,
    links: BTreeMap<String, BTreeMap<String, String>>,
    host_gateway: Vec<String>,
    owners: BTreeMap<String, BTreeMap<String, String>>,
    restarts: BTreeMap<String, Restart>,
    odd_labels: BTreeMap<String, String>,
}

/// Where the content of a mounted volume is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// In a claim of this name.
    Claim(String),
    /// At this absolute path of the node; the second is the type Kubernetes checks, such as `DirectoryOrCreate`.
    Host(String, Option<String>),
    /// In a directory that lives and ends with the Pod.
    Nowhere,
    /// In memory.
    Memory(Memory),
}

/// A file system in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its size at most, as a quantity.
    pub size: Option<String>,
    /// What else is asked of it.
    pub options: tmpfs::Options,
}

impl Memory {
    /// One with a size.
    pub fn sized(size: Option<String>) -> Self {
        Memory { size, ..Memory::default() }
    }

    /// Reads Docker's options of a tmpfs: the file system, whether it is read-only, and the options that have no effect.
    pub fn read(list: &str) -> (Self, bool, Vec<String>) {
        let tmpfs::ParsedOptions { options, size, read_only, unsupported: mut others } = tmpfs::parse(list);
        let amount = size.as_deref().and_then(amount::memory);
        if let (Some(written), None) = (&size, &amount) {
            others.push(format!("size={written}"));
        }
        (Memory { size: amount, options }, read_only, others)
    }
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub from: MountSource,
    /// Where, an absolute path.
    pub path: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// A path within the volume, which is mounted in place of its root.
    pub sub_path: Option<String>,
    /// `HostToContainer` or `Bidirectional`.
    pub propagation: Option<String>,
}

/// Said of something that has no full meaning in a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// It is kept differently, or not.
    Warning(String),
    /// It makes no sense at all.
    Mistake(String),
}

impl Part {
    /// A part around `container` and `pod`.
    pub fn new(container: Container, pod: PodSpec) -> Self {
        Part { container, pod, ..Part::default() }
    }

    /// All annotations of the Pod.
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

    /// Puts `other`'s container into this Pod, with its volumes and what else it asks of a Pod.
    pub fn join(&mut self, other: Part) {
        let Part {
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

    /// Has a volume that is as old as its Pod filled with what the image has in its place.
    pub fn fill(&mut self, volume: &str) {
        self.filled.insert(volume.into());
    }

    /// Leaves what is mounted at `path` as it is, whatever the image has there.
    pub fn leave_as_it_is(&mut self, path: &str) {
        let mut mounts = self.container.volume_mounts.iter().flatten();
        let volume = mounts.rfind(|m| m.mount_path == path).map(|m| m.name.clone());
        if let Some(volume) = volume {
            self.filled.remove(&volume);
            self.not_filled.insert(volume);
        }
    }

    /// Mounts a claim that others make and whose volume Docker calls otherwise.
    pub fn docker_volume(&mut self, claim: &str, volume: String) {
        self.docker_volumes.insert(claim.into(), volume);
    }

    /// Runs no health check of the image.
    pub fn no_health_check(&mut self) {
        self.unchecked.insert(self.container.name.clone());
    }

    /// Mounts a volume. What is mounted at the same path before is replaced, as the later word counts.
    pub fn mount(&mut self, mount: Mount) {
        let volume = match &mount.from {
            MountSource::Claim(claim) => Volume {
                name: claim.clone(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            },
            MountSource::Host(path, type_) => Volume {
                name: volume_name(&mount.path),
                host_path: Some(HostPathVolumeSource { path: path.clone(), type_: type_.clone() }),
                ..Volume::default()
            },
            MountSource::Nowhere => Volume {
                name: volume_name(&mount.path),
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Volume::default()
            },
            MountSource::Memory(memory) => Volume {
                name: volume_name(&mount.path),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".into()),
                    size_limit: memory.size.clone().map(Quantity),
                }),
                ..Volume::default()
            },
        };
        let name = self.volume(volume);
        if let MountSource::Memory(Memory { options, .. }) = &mount.from
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

    /// Mounts a volume that the Pod has.
    pub fn mount_volume(&mut self, mount: VolumeMount) {
        let mounts = self.container.volume_mounts.get_or_insert_default();
        let replaced =
            mounts.iter().position(|m| m.mount_path == mount.mount_path).map(|p| mounts.remove(p).name);
        mounts.push(mount);
        // A volume that nothing mounts any more goes, too.
        if let Some(name) = replaced.filter(|name| mounts.iter().all(|m| m.name != *name)) {
            self.pod.volumes.iter_mut().for_each(|v| v.retain(|v| v.name != name));
            self.tmpfs.remove(&name);
            self.filled.remove(&name);
            self.not_filled.remove(&name);
        }
    }

    /// Gives the Pod a volume and returns its name, which is another where the wanted one is taken. The very same
    /// volume is there once.
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

    /// Gives a file of a volume of the Pod an owner.
    pub fn own(&mut self, volume: &str, path: &str, uid: u32, gid: u32) {
        self.owners.entry(volume.into()).or_default().insert(path.into(), format!("{uid}:{gid}"));
    }

    /// How often the container is run again after it has ended.
    pub fn restart(&mut self, restart: Restart) {
        let name = self.container.name.clone();
        match restart {
            Restart::Always => drop(self.restarts.remove(&name)),
            other => drop(self.restarts.insert(name, other)),
        }
    }

    /// Links, as `alias`, a container whose ports only its image knows.
    pub fn link(&mut self, alias: &str, image: &str) {
        let links = self.links.entry(self.container.name.clone()).or_default();
        links.insert(alias.into(), image.into());
    }

    /// Runs as `user`, which is `USER` or `USER:GROUP`, by number or name.
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

    /// A further group, by number; names are for the image to know.
    pub fn group(&mut self, group: &str) -> Option<Remark> {
        match group.parse::<i64>() {
            Ok(id) if id >= 0 => {
                self.pod_security().supplemental_groups.get_or_insert_default().push(id);
                None
            }
            _ => Some(Remark::Warning(format!(
                "group {group} has no effect, as a Pod names further groups by number"
            ))),
        }
    }

    /// A label as Docker means it, free text: an annotation of the Pod.
    pub fn label(&mut self, key: &str, value: &str) {
        if is_annotation_key(key) {
            self.annotations.insert(key.into(), value.into());
        } else {
            self.odd_labels.insert(key.into(), value.into());
        }
    }

    /// A line of `/etc/hosts`.
    pub fn extra_host(&mut self, host: &str, address: &str) -> Option<Remark> {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address == "host-gateway" {
            if !self.host_gateway.iter().any(|known| known == host) {
                self.host_gateway.push(host.into());
            }
            return None;
        }
        if address.parse::<std::net::IpAddr>().is_err() {
            return Some(Remark::Mistake(format!("\"{address}\" is no IP address for {host}")));
        }
        let aliases = self.pod.host_aliases.get_or_insert_default();
        match aliases.iter_mut().find(|a| a.ip == address) {
            Some(known) => known.hostnames.get_or_insert_default().push(host.into()),
            None => aliases.push(HostAlias { ip: address.into(), hostnames: Some(vec![host.into()]) }),
        }
        None
    }

    /// Who is asked for names, beside the cluster.
    pub fn dns(&mut self) -> &mut PodDNSConfig {
        self.pod.dns_config.get_or_insert_default()
    }

    /// An option of `resolv.conf`, `ndots:2`.
    pub fn dns_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').map_or((option, None), |(n, v)| (n, Some(v.to_string())));
        let options = self.dns().options.get_or_insert_default();
        options.push(PodDNSConfigOption { name: Some(name.into()), value });
    }

    /// At most this much of a resource.
    pub fn limit(&mut self, resource: &str, quantity: String) {
        self.resources().limits.get_or_insert_default().insert(resource.into(), Quantity(quantity));
    }

    /// At least this much of a resource.
    pub fn request(&mut self, resource: &str, quantity: String) {
        self.resources().requests.get_or_insert_default().insert(resource.into(), Quantity(quantity));
    }

    fn resources(&mut self) -> &mut ResourceRequirements {
        self.container.resources.get_or_insert_default()
    }

    /// The signal that asks it to end: `SIGQUIT`, `QUIT` or `3`.
    pub fn stop_signal(&mut self, signal: &str) -> Option<Remark> {
        let Some(name) = signal_name(signal) else {
            return Some(Remark::Mistake(format!("\"{signal}\" is no signal: write one such as SIGTERM")));
        };
        self.container.lifecycle.get_or_insert_default().stop_signal = Some(name);
        // Kubernetes allows a signal only where it is told whose signals they are.
        self.pod.os = Some(PodOS { name: "linux".into() });
        None
    }

    /// Only on nodes of this system and processor, as Docker writes them: `linux/arm64`, `arm64`.
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

    /// Uses the node's own network, and still the cluster's names.
    pub fn host_network(&mut self) {
        self.pod.host_network = Some(true);
        self.pod.dns_policy = Some("ClusterFirstWithHostNet".into());
    }

    /// A device of the node, `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rwm`.
    pub fn device(&mut self, device: &str) -> Option<Remark> {
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
            return Some(Remark::Warning(format!(
                "device {device} has no effect: it is no path of the node"
            )));
        }
        let from = MountSource::Host(source.into(), None);
        let read_only = false;
        self.mount(Mount { from, path: target.into(), read_only, sub_path: None, propagation: None });
        Some(Remark::Warning(format!(
            "device {source} is mounted from the node; a cluster that guards its devices also needs privileged: true"
        )))
    }

    /// What the container may do.
    pub fn security(&mut self) -> &mut SecurityContext {
        self.container.security_context.get_or_insert_default()
    }

    /// What all containers of the Pod may do.
    pub fn pod_security(&mut self) -> &mut PodSecurityContext {
        self.pod.security_context.get_or_insert_default()
    }
}

/// `text` where Kubernetes replaces `$(NAME)`: what it would take for that, of the names in `env`, is written so that
/// it stays as it is.
pub fn verbatim(text: &str, env: &dyn Fn(&str) -> bool) -> String {
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

/// The opposite of [`verbatim`].
pub fn written(text: &str) -> String {
    text.replace("$$", "$")
}

/// A volume named after the place where it is mounted: `/etc/nginx/nginx.conf` is `nginx-conf`.
fn volume_name(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = name::sanitised(last, 58);
    if name.is_empty() { "volume".into() } else { name }
}

/// Whether an annotation may have this key without being taken for one of Kubernetes' or Yado's own.
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
        let mut part = Part::default();
        let mount = |from: MountSource, path: &str| Mount {
            from,
            path: path.into(),
            read_only: false,
            sub_path: None,
            propagation: None,
        };
        part.mount(mount(MountSource::Nowhere, "/a/data"));
        part.mount(mount(MountSource::Nowhere, "/b/data"));
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
            assert_eq!(verbatim(text, &|name| name == "HOME"), expect, "{text}");
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
            let mut part = Part::default();
            part.container.name = "c".into();
            part.user(user);
            let context = part.container.security_context.clone().unwrap_or_default();
            let annotation = part.annotations().get(labels::USERS).cloned();
            assert_eq!((context.run_as_user, context.run_as_group, annotation.as_deref()), expect, "{user}");
        }
    }
}

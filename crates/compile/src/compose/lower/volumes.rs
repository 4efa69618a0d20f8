//! Volumes: named ones are claims, binds are paths of the node, those without a name are as old as their Pod.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::{
    api::core::v1::{ImageVolumeSource, NFSVolumeSource, Volume as PodVolume, VolumeMount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;
use yado_types::labels;

use super::{
    super::model::{Mount, MountKind, Project, Service, Volume},
    Lowering, build,
    names::{Names, component},
};
use crate::{
    diagnostic::Findings,
    workload::{
        VolumeClaim, amount,
        name::sanitised,
        pod::{self, MountSource, PodFragment, Tmpfs, is_annotation_key},
    },
};

/// Where a named volume's content is.
#[derive(Debug, Clone)]
enum Place {
    Claim(VolumeClaim),
    /// A claim that others make.
    External(String),
    Pod(MountSource),
    Nfs(NFSVolumeSource),
}

/// The project's volumes.
pub(super) struct Volumes {
    named: BTreeMap<String, Place>,
    /// Volumes without a name that another service mounts, too: service and path to the claim that they are.
    lent: BTreeMap<(String, String), VolumeClaim>,
}

impl Volumes {
    pub(super) fn new(project: &Project, names: &Names, found: &mut Findings) -> Self {
        let mut taken = BTreeSet::new();
        let mut named = BTreeMap::new();
        let users = users(project);
        let lenders: BTreeSet<&str> = project
            .services
            .values()
            .flat_map(|s| s.volumes_from.iter().filter(|f| !f.container))
            .filter_map(|f| Some(lender(project, &f.source)?.name.as_str()))
            .collect();
        let used: Vec<(&String, &Volume)> =
            project.volumes.iter().filter(|(key, _)| users.contains_key(key.as_str())).collect();
        let mut by_name: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (key, volume) in &used {
            by_name.entry(&volume.name).or_default().push(key);
        }
        for (key, volume) in &used {
            let same = &by_name[volume.name.as_str()];
            // One volume by two keys.
            if let Some(place) = named.get(same[0]).cloned() {
                named.insert((*key).clone(), place);
                continue;
            }
            let written = volume.name != format!("{}_{key}", project.name);
            let mut name = claim_name(if written { &volume.name } else { key });
            if !taken.insert(name.clone()) {
                name = sanitised(&format!("{name}-{}", key.escape_unicode()), 63);
                taken.insert(name.clone());
            }
            let shared = same.len() > 1 || shared(&users[key.as_str()], &lenders);
            let mut place = place(key, volume, name, shared, found);
            if let Place::Claim(claim) = &mut place
                && volume.name != format!("{}_{}", project.name, claim.name)
            {
                claim.annotations.insert(labels::DOCKER_VOLUME.into(), volume.name.clone());
            }
            named.insert((*key).clone(), place);
        }
        let mut lent = BTreeMap::new();
        for service in project.services.values().filter(|s| lenders.contains(s.name.as_str())) {
            let own = service.volumes.iter().filter(|m| m.kind == MountKind::Volume && m.source.is_none());
            let paths: Vec<String> =
                own.map(|m| m.target.clone()).chain(build::dockerfile(service).volumes).collect();
            for path in paths {
                let object = &names.of(&service.name).object;
                let claim = VolumeClaim {
                    shared: true,
                    ..VolumeClaim::new(&sanitised(&format!("{object}-{path}"), 63))
                };
                lent.insert((service.name.clone(), path), claim);
            }
        }
        Volumes { named, lent }
    }

    /// The claims, in the order of their names.
    pub(super) fn claims(&self, labels: Value, namespace: &str) -> Vec<Value> {
        let metadata = ObjectMeta {
            namespace: Some(namespace.into()),
            // Labels are made here, as a map of strings.
            labels: serde_json::from_value(labels).ok(),
            ..ObjectMeta::default()
        };
        let named = self.named.values().filter_map(|p| match p {
            Place::Claim(claim) => Some(claim),
            _ => None,
        });
        let mut all: Vec<&VolumeClaim> = named.chain(self.lent.values()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        all.into_iter().map(|c| c.object(&metadata)).collect()
    }
}

/// The service that `volumes_from` means.
fn lender<'a>(project: &'a Project, source: &str) -> Option<&'a Service> {
    let by_container = || project.services.values().find(|s| s.container_name.as_deref() == Some(source));
    project.services.get(source).or_else(by_container)
}

fn claim_name(key: &str) -> String {
    match sanitised(key, 63) {
        name if name.is_empty() => "volume".into(),
        name => name,
    }
}

/// The services that mount each named volume.
fn users(project: &Project) -> BTreeMap<&str, Vec<&Service>> {
    let mut users: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    for service in project.services.values() {
        let named =
            service.volumes.iter().filter(|m| m.kind != MountKind::Bind).filter_map(|m| m.source.as_deref());
        for key in named.collect::<BTreeSet<_>>() {
            users.entry(key).or_default().push(service);
        }
    }
    users
}

/// Whether Pods on several nodes may use a volume at once that these services mount; `lenders` are those whose volumes
/// others take.
fn shared(users: &[&Service], lenders: &BTreeSet<&str>) -> bool {
    let many = |s: &Service| {
        s.replicas() > 1
            || s.deploy.as_ref().and_then(|d| d.mode.as_deref()).is_some_and(|m| m.starts_with("global"))
    };
    match users {
        [] => false,
        [only] => many(only) || lenders.contains(only.name.as_str()),
        _ => true,
    }
}

fn place(key: &str, volume: &Volume, name: String, shared: bool, found: &mut Findings) -> Place {
    if volume.external {
        let name = claim_name(&volume.name);
        let sentence =
            format!("volume {key} is external: a PersistentVolumeClaim {name} has to be in the namespace");
        found.warn(&volume.at, sentence);
        return Place::External(name);
    }
    let option = |name: &str| volume.driver_opts.get(name).map(String::as_str);
    let options: Vec<&str> = option("o").unwrap_or_default().split(',').collect();
    let value = |name: &str| options.iter().find_map(|o| o.strip_prefix(name)?.strip_prefix('='));
    let device = option("device").unwrap_or_default();
    match option("type") {
        Some("none" | "bind") | None
            if device.starts_with('/') && (options.contains(&"bind") || options.contains(&"rbind")) =>
        {
            return Place::Pod(pod::host_path(Path::new(device)));
        }
        Some("tmpfs") => {
            let (memory, _, others) = Tmpfs::read(option("o").unwrap_or_default());
            if !others.is_empty() {
                let sentence = format!("{} of volume {key} has no effect", others.join(", "));
                found.warn(&volume.at, sentence);
            }
            return Place::Pod(MountSource::Tmpfs(memory));
        }
        Some("nfs" | "nfs4") => {
            let (server, path) = match device.split_once(':') {
                Some((server, path)) if !server.is_empty() => (server, path),
                _ => (value("addr").unwrap_or_default(), device.trim_start_matches(':')),
            };
            let read_only = options.contains(&"ro").then_some(true);
            return Place::Nfs(NFSVolumeSource { server: server.into(), path: path.into(), read_only });
        }
        Some(other) => {
            let sentence =
                format!("type {other} of volume {key} has no effect: the cluster's storage class makes it");
            found.warn(&volume.at, sentence);
        }
        None => {}
    }
    if let Some(driver) = volume.driver.as_deref().filter(|d| !["local", "default", ""].contains(d)) {
        let sentence =
            format!("driver {driver} of volume {key} has no effect: the cluster's storage class makes it");
        found.warn(&volume.at, sentence);
    }
    let size = option("size").or_else(|| value("size")).and_then(|written| {
        let size = claim_size(written);
        if size.is_none() {
            let sentence = format!(
                "size {written} of volume {key} has no effect: write at least 1m, with a unit, as in 10g"
            );
            found.warn(&volume.at, sentence);
        }
        size
    });
    let annotations = volume
        .labels
        .iter()
        .filter(|(k, _)| is_annotation_key(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    Place::Claim(VolumeClaim { size, shared, annotations, ..VolumeClaim::new(&name) })
}

/// How large a claim is to be. Drivers read numbers without a unit in units of their own, so a few bytes are not meant.
fn claim_size(written: &str) -> Option<String> {
    amount::bytes(written).filter(|bytes| *bytes >= 1 << 20).and_then(|_| amount::memory(written))
}

impl Lowering<'_> {
    /// Mounts what the service has, over what it has from others.
    pub(super) fn mounts(&mut self, service: &Service, part: &mut PodFragment) {
        self.volumes_from(service, false, part, 0);
        self.own_mounts(service, service, false, part);
        for tmpfs in &service.tmpfs {
            let (path, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
            let (memory, read_only, others) = Tmpfs::read(options);
            if !others.is_empty() {
                let sentence = format!("{} of tmpfs {path} has no effect", others.join(", "));
                self.found.warn(service.place("tmpfs"), sentence);
            }
            part.mount(pod::ContainerMount {
                source: MountSource::Tmpfs(memory),
                path: path.into(),
                read_only,
                sub_path: None,
                propagation: None,
            });
        }
    }

    /// The mounts of the services that `volumes_from` names, and of those that these name.
    fn volumes_from(&mut self, service: &Service, read_only: bool, part: &mut PodFragment, depth: usize) {
        // A circle has been refused when the project was read; this bounds what has not.
        if depth > 32 {
            return;
        }
        for from in &service.volumes_from {
            let project = self.project;
            match lender(project, &from.source).filter(|_| !from.container) {
                Some(other) => {
                    let read_only = read_only || from.read_only;
                    self.volumes_from(other, read_only, part, depth + 1);
                    self.own_mounts(other, service, read_only, part);
                }
                None => {
                    let sentence = format!(
                        "volumes_from {} has no effect: it is not a service of this project",
                        from.source
                    );
                    self.found.warn(&from.at, sentence);
                }
            }
        }
    }

    /// Mounts what `owner` has in `part`, which is `service`'s.
    fn own_mounts(&mut self, owner: &Service, service: &Service, read_only: bool, part: &mut PodFragment) {
        for mount in &owner.volumes {
            self.mount(owner, mount, read_only || mount.read_only, part);
        }
        // Volumes that the image says are only known here where somebody else needs them.
        let written: Vec<&str> = owner.volumes.iter().map(|m| m.target.as_str()).collect();
        let lent: Vec<(String, String)> = self
            .volumes
            .lent
            .range((owner.name.clone(), String::new())..)
            .take_while(|((name, _), _)| *name == owner.name)
            .filter(|((_, path), _)| !written.contains(&path.as_str()))
            .map(|((_, path), claim)| (path.clone(), claim.name.clone()))
            .collect();
        for (path, claim) in lent {
            part.mount(pod::ContainerMount {
                source: MountSource::Claim(claim),
                path,
                read_only,
                sub_path: None,
                propagation: None,
            });
        }
        if owner.name == service.name && owner.volume_driver.is_some() {
            let sentence = "volume_driver has no effect: the cluster's storage class makes volumes";
            self.found.warn(owner.place("volume_driver"), sentence);
        }
    }

    fn mount(&mut self, owner: &Service, mount: &Mount, read_only: bool, part: &mut PodFragment) {
        let source = mount.source.as_deref().filter(|s| !s.is_empty());
        let path = normal(&mount.target);
        if !path.starts_with('/') || path.contains(':') {
            let sentence = format!(
                "{} is not an absolute path in the container: write one that begins with /",
                mount.target
            );
            return self.found.error(&mount.at, sentence);
        }
        let from = match (&mount.kind, source) {
            (MountKind::Bind, Some(source)) => self.bind(mount, source),
            (MountKind::Volume | MountKind::Cluster, Some(source)) => match self.volumes.named.get(source) {
                Some(Place::Claim(claim)) => MountSource::Claim(claim.name.clone()),
                Some(Place::External(name)) => {
                    let written = self.project.volumes.get(source).map(|v| v.name.clone());
                    if let Some(written) = written.filter(|written| written != name) {
                        part.docker_volume(name, written);
                    }
                    MountSource::Claim(name.clone())
                }
                Some(Place::Pod(from)) => from.clone(),
                Some(Place::Nfs(nfs)) => {
                    let volume = PodVolume {
                        name: claim_name(source),
                        nfs: Some(nfs.clone()),
                        ..PodVolume::default()
                    };
                    return self.mount_as(mount, path, read_only, volume, part);
                }
                None => MountSource::Claim(claim_name(source)),
            },
            (MountKind::Volume | MountKind::Cluster, None) => {
                match self.volumes.lent.get(&(owner.name.clone(), mount.target.clone())) {
                    Some(claim) => MountSource::Claim(claim.name.clone()),
                    None => return anonymous(path, read_only, mount.nocopy, part),
                }
            }
            (MountKind::Tmpfs, _) => {
                let mut memory = Tmpfs::sized(mount.tmpfs_size.and_then(|s| amount::memory(&s.to_string())));
                memory.options.mode = mount.tmpfs_mode.map(|mode| mode & 0o7777);
                MountSource::Tmpfs(memory)
            }
            (MountKind::Image, Some(source)) => {
                let image = Some(ImageVolumeSource { reference: Some(source.into()), pull_policy: None });
                let volume =
                    PodVolume { name: claim_name(&component(source)), image, ..PodVolume::default() };
                return self.mount_as(mount, path, true, volume, part);
            }
            _ => {
                let sentence = format!("the mount at {} is not supported: remove it", mount.target);
                return self.found.error(&mount.at, sentence);
            }
        };
        let propagation = self.propagation(mount, &path, part);
        let sub_path = mount.subpath.clone();
        part.mount(pod::ContainerMount {
            source: from,
            path: path.clone(),
            read_only,
            sub_path,
            propagation,
        });
        if mount.nocopy && matches!(mount.kind, MountKind::Volume | MountKind::Cluster) {
            part.leave_as_it_is(&path);
        }
    }

    /// Which mounts beneath it are seen on the other side; only privileged containers' are seen outside.
    fn propagation(&mut self, mount: &Mount, path: &str, part: &PodFragment) -> Option<String> {
        let privileged = part.container.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
        match mount.propagation.as_deref() {
            Some("shared" | "rshared") if privileged => Some("Bidirectional".into()),
            Some("shared" | "rshared") => {
                let sentence =
                    format!("what is mounted below {path} is not seen outside, which needs privileged: true");
                self.found.warn(&mount.at, sentence);
                Some("HostToContainer".into())
            }
            Some("slave" | "rslave") => Some("HostToContainer".into()),
            _ => None,
        }
    }

    fn mount_as(
        &mut self,
        mount: &Mount,
        path: String,
        read_only: bool,
        volume: PodVolume,
        part: &mut PodFragment,
    ) {
        let name = part.volume(volume);
        part.mount_volume(VolumeMount {
            name,
            mount_path: path,
            read_only: read_only.then_some(true),
            sub_path: mount.subpath.clone(),
            ..VolumeMount::default()
        });
    }

    fn bind(&mut self, mount: &Mount, source: &str) -> MountSource {
        let path = Path::new(source);
        let remark = pod::socket_remark(path);
        let is_told = remark.is_some();
        remark.into_iter().for_each(|sentence| self.found.warn(&mount.at, sentence));
        if !path.exists() && !is_told {
            if !mount.create_host_path {
                return MountSource::HostPath(source.into(), Some("Directory".into()));
            }
            // Files that are not there yet become directories, to everybody's surprise.
            if path.extension().is_some() {
                let sentence = format!("there is no {source}: an empty directory is mounted in its place");
                self.found.warn(&mount.at, sentence);
            }
        }
        pod::host_path(path)
    }
}

/// A volume without a name: as old as its Pod, and at first with what the image has there, as Docker's are.
fn anonymous(path: String, read_only: bool, nocopy: bool, part: &mut PodFragment) {
    part.mount(pod::ContainerMount {
        source: MountSource::EmptyDir,
        path: path.clone(),
        read_only,
        sub_path: None,
        propagation: None,
    });
    if nocopy {
        return part.leave_as_it_is(&path);
    }
    let mut mounts = part.container.volume_mounts.iter().flatten();
    if let Some(volume) = mounts.rfind(|m| m.mount_path == path).map(|m| m.name.clone()) {
        part.fill(&volume);
    }
}

/// `/data/` is `/data`.
fn normal(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".into() } else { trimmed.into() }
}

//! A Pod's volumes: planned purely from its specification, then made on disk.
//!
//! ```text
//! POD/volumes/NAME/            one volume; a tmpfs where it holds secrets or asks for memory
//!   ..state_0/                  one complete state of projected files
//!   ..data -> ..state_0         swapped by a rename, so that readers see the old state or the new one
//!   KEY -> ..data/KEY
//! POD/volumes/NAME -> PATH      a claim's volume, wherever that lies
//! POD/volumes/..of-images/CONTAINER/RUN/N   what an image declares to be a volume
//! ```

mod claims;
pub(crate) mod copy_up;
mod files;
pub(crate) mod image;
mod mounts;
mod payload;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use yado_oci::spec::BindMount;
use yado_types::quantity::Quantity;
use yado_types::{labels, tmpfs};

use crate::environment::{ConfigError, Scope, expand_text};
use crate::tokens::Tokens;
pub(crate) use mounts::unmount_beneath;
pub(crate) use payload::Payload;

/// Why a volume could not be made, in one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// What it refers to is missing.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    Source {
        /// Its name.
        volume: String,
        /// Why.
        reason: String,
    },
    /// The file system refused.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : cannot {action} {}: {error}", path.display())]
    File {
        /// Its name.
        volume: String,
        /// A verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The plan of one volume of a Pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedVolume {
    name: String,
    kind: VolumeKind,
    group: Option<u32>,
}

/// The size and mount options of a tmpfs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Memory {
    /// Bytes at most.
    size: Option<i64>,
    options: tmpfs::Options,
}

#[derive(Clone, Debug, PartialEq)]
enum VolumeKind {
    /// A directory, or a file system in memory.
    Empty { memory: Option<Memory> },
    /// A path of the host, with the type that it must have.
    Host { path: PathBuf, kind: String },
    /// A claim's volume: its path, with the type that it must have.
    Claimed { path: PathBuf, kind: String },
    /// Files of ours; on tmpfs where they are secret.
    Files { payload: Payload, secret: bool },
}

/// Plans every volume of a Pod. `tokens` are those that its projected volumes ask for.
pub(crate) fn plan(scope: &Scope, tokens: &Tokens) -> Result<Vec<PlannedVolume>, VolumeError> {
    let Some(spec) = scope.pod.spec.as_ref() else { return Ok(Vec::new()) };
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group).and_then(|g| u32::try_from(g).ok());
    let plan = |volume: &Volume| match kind_of(volume, scope, tokens) {
        Ok(kind) => Ok(PlannedVolume { name: volume.name.clone(), kind, group }),
        Err(ConfigError(reason)) => Err(VolumeError::Source { volume: volume.name.clone(), reason }),
    };
    spec.volumes.iter().flatten().map(plan).collect()
}

fn kind_of(volume: &Volume, scope: &Scope, tokens: &Tokens) -> Result<VolumeKind, ConfigError> {
    if let Some(empty) = &volume.empty_dir {
        let memory = (empty.medium.as_deref() == Some("Memory")).then(|| {
            let limit = empty.size_limit.as_ref().and_then(|q| q.0.parse::<Quantity>().ok());
            Memory {
                size: limit.map(Quantity::units).filter(|n| *n > 0),
                options: tmpfs_options(scope.pod, &volume.name),
            }
        });
        return Ok(VolumeKind::Empty { memory });
    }
    if let Some(host) = &volume.host_path {
        let path = PathBuf::from(&host.path);
        if path.components().any(|c| c == std::path::Component::ParentDir) {
            return Err(ConfigError(format!("hostPath {} must not contain \"..\"", host.path)));
        }
        return Ok(VolumeKind::Host { path, kind: host.type_.clone().unwrap_or_default() });
    }
    if let Some(payload) = payload::of(volume, scope, tokens)? {
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let secret = volume.secret.is_some()
            || projected.into_iter().any(|s| s.secret.is_some() || s.service_account_token.is_some());
        return Ok(VolumeKind::Files { payload, secret });
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return claims::of(claim, scope);
    }
    if *volume == (Volume { name: volume.name.clone(), ..Default::default() }) {
        return Ok(VolumeKind::Empty { memory: None });
    }
    Err(ConfigError(
        "its kind is not offered by this node; use emptyDir, hostPath, persistentVolumeClaim, configMap, secret, downwardAPI or projected".into(),
    ))
}

/// What the Pod's annotation asks of its volume in memory; what is no option has no effect.
fn tmpfs_options(pod: &Pod, volume: &str) -> tmpfs::Options {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(labels::TMPFS));
    let all = text.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok());
    all.and_then(|all| all.get(volume).map(|list| tmpfs::parse(list).options)).unwrap_or_default()
}

/// Makes the planned volumes beneath `dir`; what is there already is brought up to date.
pub(crate) fn make(dir: &Path, planned: &[PlannedVolume]) -> Result<(), VolumeError> {
    for volume in planned {
        let path = dir.join(&volume.name);
        let fail = |action: &'static str, path: &Path| {
            let (volume, path) = (volume.name.clone(), path.to_owned());
            move |error: io::Error| VolumeError::File { volume, action, path, error }
        };
        match &volume.kind {
            VolumeKind::Host { path, kind } => host_path(path, kind).map_err(fail("use", path))?,
            VolumeKind::Claimed { path: real, kind } => {
                claims::make(real, kind, volume.group).map_err(fail("use", real))?;
                claims::link(&path, real).map_err(fail("link", &path))?;
            }
            VolumeKind::Empty { memory } => {
                let fresh = !path.exists();
                fs::create_dir_all(&path).map_err(fail("create", &path))?;
                let wanted = memory.as_ref().map(|m| m.options.clone()).unwrap_or_default();
                let mode = wanted.mode.unwrap_or(0o777);
                if let Some(Memory { size, options }) = memory {
                    mounts::tmpfs(&path, *size, mode, options).map_err(fail("mount a tmpfs on", &path))?;
                }
                if fresh {
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                        .map_err(fail("open up", &path))?;
                    let group = volume.group.filter(|_| wanted.gid.is_none());
                    own(&path, group, 0o2000 | mode).map_err(fail("give to the fsGroup", &path))?;
                }
            }
            VolumeKind::Files { payload, secret } => {
                fs::create_dir_all(&path).map_err(fail("create", &path))?;
                if *secret {
                    mounts::tmpfs(&path, None, 0o755, &tmpfs::Options::default())
                        .map_err(fail("mount a tmpfs on", &path))?;
                }
                files::write(&path, payload, volume.group).map_err(fail("write", &path))?;
            }
        }
    }
    Ok(())
}

/// Brings projected files up to date and leaves all else alone.
pub(crate) fn refresh(dir: &Path, planned: &[PlannedVolume]) -> Result<(), VolumeError> {
    for volume in planned {
        let path = dir.join(&volume.name);
        if let VolumeKind::Files { payload, secret } = &volume.kind
            && path.exists()
        {
            // Whoever unmounted it has not made the disk beneath a place for secrets.
            let usual = tmpfs::Options::default();
            let ready = if *secret { mounts::tmpfs(&path, None, 0o755, &usual) } else { Ok(()) };
            let written = ready.and_then(|()| files::write(&path, payload, volume.group));
            written.map_err(|error| VolumeError::File {
                volume: volume.name.clone(),
                action: "refresh",
                path,
                error,
            })?;
        }
    }
    Ok(())
}

fn own(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    chown(path, None, Some(group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn host_path(path: &Path, kind: &str) -> io::Result<()> {
    let wrong =
        |what: &str| Err(io::Error::other(format!("it is not {what}, which its hostPath type asks for")));
    match kind {
        // Without a type nothing is checked, and what is not there becomes a directory, as container runtimes have it.
        "DirectoryOrCreate" | "" if !path.exists() => return fs::create_dir_all(path),
        "FileOrCreate" if !path.exists() => return fs::File::create(path).map(drop),
        _ => {}
    }
    let found = fs::metadata(path)?.file_type();
    match kind {
        "Directory" | "DirectoryOrCreate" if !found.is_dir() => wrong("a directory"),
        "File" | "FileOrCreate" if !found.is_file() => wrong("a file"),
        "Socket" if !found.is_socket() => wrong("a socket"),
        "CharDevice" if !found.is_char_device() => wrong("a character device"),
        "BlockDevice" if !found.is_block_device() => wrong("a block device"),
        _ => Ok(()),
    }
}

/// The bind mounts of a container's volumeMounts. `env` is for `subPathExpr`.
pub(crate) fn binds(
    dir: &Path,
    spec: &PodSpec,
    container: &Container,
    env: &[(String, OsString)],
) -> Result<Vec<BindMount>, ConfigError> {
    let mut all = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = spec.volumes.iter().flatten().find(|v| v.name == mount.name).ok_or_else(|| {
            ConfigError(format!(
                "volumeMount \"{}\" of container \"{}\" names no volume",
                mount.name, container.name
            ))
        })?;
        let root = match &volume.host_path {
            Some(host) => PathBuf::from(&host.path),
            None => dir.join(&volume.name),
        };
        let expanded = mount.sub_path_expr.as_deref().filter(|s| !s.is_empty());
        let expanded = expanded.map(|text| expand_text(text, env)).transpose()?;
        let sub_path = expanded.as_deref().or(mount.sub_path.as_deref()).unwrap_or_default();
        let source = if sub_path.is_empty() { root } else { within(&root, Path::new(sub_path))? };
        let projected = volume.secret.is_some()
            || volume.config_map.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        let claimed = volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only) == Some(true);
        all.push(BindMount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: projected || claimed || mount.read_only == Some(true),
        });
    }
    Ok(all)
}

/// A subPath, made where it is absent, with no way out of the volume: a container may have planted links in it.
fn within(root: &Path, sub_path: &Path) -> Result<PathBuf, ConfigError> {
    let refuse = |why: &dyn std::fmt::Display| {
        ConfigError(format!("failed to prepare subPath {}: {why}", sub_path.display()))
    };
    let plain = sub_path
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !plain {
        return Err(refuse(&"it must be relative and without \"..\""));
    }
    let root = root.canonicalize().map_err(|e| refuse(&e))?;
    let mut path = root.clone();
    for part in sub_path.components() {
        path.push(part);
        match path.canonicalize() {
            Ok(real) => path = real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path).map_err(|e| refuse(&e))?;
            }
            Err(error) => return Err(refuse(&error)),
        }
        if !path.starts_with(&root) {
            return Err(refuse(&"a link in it leads out of the volume"));
        }
    }
    Ok(path)
}

/// Whether files of the downward API may say something new: labels or annotations have changed that they show, or the Pod
/// is seen for the first time.
pub(crate) fn downward_changed(old: Option<&Pod>, new: &Pod) -> bool {
    let volumes = new.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut items = volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let projected = sources.filter_map(|s| s.downward_api.as_ref()?.items.as_ref());
        volume.downward_api.iter().filter_map(|d| d.items.as_ref()).chain(projected).flatten()
    });
    // Names, the namespace and the uid of a Pod never change.
    let shows_metadata = items.any(|item| {
        let path = item.field_ref.as_ref().map_or("", |field| field.field_path.as_str());
        path.starts_with("metadata.labels") || path.starts_with("metadata.annotations")
    });
    let metadata = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
    shows_metadata && old.is_none_or(|old| metadata(old) != metadata(new))
}

/// The ConfigMaps, Secrets and claims that a Pod refers to: a change of one of them is a reason to look at the Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub claims: BTreeSet<String>,
}

/// Everything a Pod's volumes, variables and images refer to.
pub(crate) fn references(pod: &Pod) -> References {
    let mut all = References::default();
    let Some(spec) = pod.spec.as_ref() else { return all };
    all.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
    for volume in spec.volumes.iter().flatten() {
        all.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        all.claims.extend(volume.persistent_volume_claim.iter().map(|c| c.claim_name.clone()));
        all.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            all.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
            all.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
        }
    }
    for container in crate::spec::all_containers(spec) {
        for source in container.env_from.iter().flatten() {
            all.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
            all.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            all.config_maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
            all.secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    all
}

#[cfg(test)]
mod tests;

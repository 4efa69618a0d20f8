//! Volumes by claim: Pod -> PersistentVolumeClaim -> PersistentVolume -> a directory of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaimVolumeSource};

use super::{VolumeKind, host_path, own};
use crate::environment::{ConfigError, Scope};

/// What a claim leads to, or why it leads nowhere yet.
pub(super) fn of(
    claimed: &PersistentVolumeClaimVolumeSource,
    scope: &Scope,
) -> Result<VolumeKind, ConfigError> {
    let name = &claimed.claim_name;
    let claim = scope
        .sources
        .claim(name)
        .ok_or_else(|| ConfigError(format!("persistentvolumeclaim \"{name}\" not found")))?;
    let bound = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|v| !v.is_empty());
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let volume = match bound {
        Some(volume) if phase == "Bound" => volume,
        _ if phase == "Lost" => {
            return Err(ConfigError(format!("persistentvolumeclaim \"{name}\" has lost its volume")));
        }
        _ => {
            return Err(ConfigError(format!(
                "persistentvolumeclaim \"{name}\" is not bound to a volume yet"
            )));
        }
    };
    let volume = scope
        .sources
        .volume(volume)
        .ok_or_else(|| ConfigError(format!("persistentvolume \"{volume}\" of claim \"{name}\" not found")))?;
    let owner = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_ref());
    if owner.is_some_and(|owner| Some(owner) != claim.metadata.uid.as_ref()) {
        return Err(ConfigError(format!(
            "persistentvolumeclaim \"{name}\" is not the claim that its volume is bound to"
        )));
    }
    place(&volume)
}

/// Where a volume's files lie.
fn place(volume: &PersistentVolume) -> Result<VolumeKind, ConfigError> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let refuse = |why: &str| Err(ConfigError(format!("persistentvolume \"{name}\" {why}")));
    let Some(spec) = &volume.spec else { return refuse("has no specification") };
    if spec.volume_mode.as_deref() == Some("Block") {
        return refuse("is a block device, which this node does not offer");
    }
    let (path, kind) = match (&spec.host_path, &spec.local) {
        (Some(host), _) => (&host.path, host.type_.clone().unwrap_or_default()),
        (None, Some(local)) => (&local.path, "Directory".to_owned()),
        (None, None) => return refuse("is of a kind that this node does not offer; use hostPath or local"),
    };
    let path = PathBuf::from(path);
    if !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
        return refuse("must name an absolute path without \"..\"");
    }
    Ok(VolumeKind::Claimed { path, kind })
}

/// Makes the directory where it is absent and may be made. One that its volume asks for is open to whoever runs in the
/// Pod.
pub(super) fn make(path: &Path, kind: &str, group: Option<u32>) -> io::Result<()> {
    let fresh = kind == "DirectoryOrCreate" && !path.exists();
    host_path(path, kind)?;
    if fresh && path.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        own(path, group, 0o2777)?;
    }
    Ok(())
}

/// Notes where the volume lies, for containers that start later, after a restart of this process too.
pub(super) fn link(at: &Path, to: &Path) -> io::Result<()> {
    if fs::read_link(at).is_ok_and(|before| before == to) {
        return Ok(());
    }
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(to, at)
}

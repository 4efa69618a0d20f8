//! A volume's files, replaced all at once.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::payload::{File, Owner, Payload};

/// The link that readers come through.
const CURRENT: &str = "..data";

/// Makes `dir` show exactly `payload`. Readers see the old state or the new one; nothing is written where nothing
/// has changed.
pub(super) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    let current = dir.join(CURRENT);
    let old = fs::read_link(&current).ok();
    if old.as_ref().is_some_and(|old| same(&dir.join(old), payload)) {
        return Ok(());
    }
    let fresh = fresh_name(dir);
    let fresh_dir = dir.join(&fresh);
    make_dir(&fresh_dir, group)?;
    for (path, file) in payload {
        write_file(&fresh_dir, Path::new(path), file, group)?;
    }
    let swap = dir.join("..data_tmp");
    match fs::remove_file(&swap) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&fresh, &swap)?;
    fs::rename(&swap, &current)?;
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(CURRENT).join(name), &link)?;
        }
    }
    sweep(dir, &fresh, &wanted)
}

/// Removes the states before this one, and links whose file is gone.
fn sweep(dir: &Path, fresh: &str, wanted: &BTreeSet<&str>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == CURRENT || name == fresh || wanted.contains(name.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?
        } else {
            fs::remove_file(entry.path())?
        }
    }
    Ok(())
}

/// A name that is not taken: states are numbered, since two may be written within one second.
fn fresh_name(dir: &Path) -> String {
    let taken = |n: &u64| fs::symlink_metadata(dir.join(format!("..state_{n}"))).is_ok();
    let number = (0..).find(|n| !taken(n)).unwrap_or_default();
    format!("..state_{number}")
}

fn make_dir(dir: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    if group.is_some() {
        chown(dir, None, group)?;
    }
    Ok(())
}

fn write_file(root: &Path, path: &Path, planned: &File, group: Option<u32>) -> io::Result<()> {
    let mut dir = root.to_owned();
    if let Some(parent) = path.parent() {
        for part in parent.components() {
            dir.push(part);
            if !dir.exists() {
                make_dir(&dir, group)?;
            }
        }
    }
    let path = root.join(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(&planned.content)?;
    let mode = match (planned.owner, group) {
        (Some(Owner { user, group: Some(group) }), _) => {
            chown(&path, Some(user), Some(group))?;
            planned.mode
        }
        (Some(Owner { user, group: None }), None) => {
            chown(&path, Some(user), None)?;
            planned.mode
        }
        // The group that owns the volume can read what it holds, as with Kubernetes' fsGroup.
        (owner, Some(group)) => {
            chown(&path, owner.map(|owner| owner.user), Some(group))?;
            planned.mode | 0o440
        }
        (None, None) => planned.mode,
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
}

fn same(state: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    count_files(state, &mut found).is_ok()
        && found == payload.len()
        && payload.iter().all(|(path, file)| {
            let path = state.join(path);
            let kept = |m: u32| m & 0o777 == file.mode || m & 0o777 == file.mode | 0o440;
            let owned = |m: &fs::Metadata| {
                file.owner.is_none_or(|o| o.user == m.uid() && o.group.is_none_or(|group| group == m.gid()))
            };
            fs::metadata(&path).is_ok_and(|m| kept(m.permissions().mode()) && owned(&m))
                && fs::read(&path).is_ok_and(|c| c == file.content)
        })
}

fn count_files(dir: &Path, found: &mut usize) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { count_files(&entry.path(), found)? } else { *found += 1 }
    }
    Ok(())
}

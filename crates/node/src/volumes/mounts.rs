//! tmpfs, and what is mounted where.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use yado_oci::mountinfo::mount_points;
use yado_types::tmpfs::Options;

/// Mounts a tmpfs on `path` unless something is mounted there. What lies on it is not swapped out to a disk; kernels
/// before 6.3 do not know how.
pub(super) fn tmpfs(path: &Path, size: Option<i64>, mode: u32, more: &Options) -> io::Result<()> {
    if mounted()?.iter().any(|m| m == path) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    for (name, value) in [
        ("size", size.and_then(|size| u64::try_from(size).ok())),
        ("uid", more.uid.map(u64::from)),
        ("gid", more.gid.map(u64::from)),
        ("nr_inodes", more.inodes),
    ] {
        options.extend(value.map(|value| format!(",{name}={value}")));
    }
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_NOEXEC, more.no_exec);
    let mount_with =
        |options: String| mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()));
    match mount_with(format!("{options},noswap")) {
        Err(nix::Error::EINVAL) => Ok(mount_with(options)?),
        mounted => Ok(mounted?),
    }
}

/// Unmounts everything at and beneath `dir`, deepest first. What is busy is detached: it goes with its last user.
pub(crate) fn unmount_beneath(dir: &Path) -> io::Result<()> {
    let mut beneath: Vec<_> = mounted()?.into_iter().filter(|m| m.starts_with(dir)).collect();
    beneath.sort_by_key(|m| std::cmp::Reverse(m.components().count()));
    for path in beneath {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Every mount point, from `/proc/self/mountinfo`.
pub(super) fn mounted() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_points(&table).collect())
}

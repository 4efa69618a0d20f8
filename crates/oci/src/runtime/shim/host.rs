//! The machine's own root as a container's: read-only under layers of the container's own.
//!
//! ```text
//! /            overlay: lower is the machine's /, without what is mounted in it
//! /usr, /var…  one more overlay for each file system of its own that programs of the machine live in
//! /tmp, /run   the container's own, empty
//! hidden       empty and closed
//! ```
//!
//! `/proc`, `/sys` and `/dev` are made as for every container. Disks elsewhere (`/mnt`, `/media`, `/boot`…) are not
//! programs of the machine: whoever wants one mounts it as a volume.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::rootfs::overlay;
use super::step;
use crate::mountinfo::unescape;
use crate::spec::HostRoot;

/// Where programs, their settings and their data live. Mounts beneath other directories are left out.
const SYSTEM: [&str; 14] = [
    "bin", "etc", "gnu", "home", "lib", "lib32", "lib64", "libx32", "nix", "opt", "root", "sbin", "srv",
    "usr",
];
/// Its mounts count, too, but for those of container engines.
const VARIABLE: &str = "var";
/// Deeper ones are somebody's private arrangement.
const DEPTH: usize = 3;
/// More than any machine is set up with by hand; the rest is left out.
const MOST: usize = 32;
/// Not files, or not of the machine.
const KINDS_LEFT_OUT: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "sysfs",
    "tmpfs",
];
const NONE: Option<&str> = None;

/// Mounts it at `root` in `dir`, the container's directory.
pub fn mount_root(host: &HostRoot, dir: &Path) -> Result<(), String> {
    let root = dir.join("root");
    overlay(&[PathBuf::from("/")], dir, &root)?;
    let table = step(|| "read the machine's mounts", fs::read_to_string("/proc/self/mountinfo"))?;
    for (index, point) in system_mounts(&table, &host.hidden).into_iter().enumerate() {
        add(&point, &root, &dir.join(format!("mount-{index}")))?;
    }
    for (path, mode) in [("tmp", "mode=1777"), ("run", "mode=755")] {
        let target = root.join(path);
        // A machine without the directory wants no such thing.
        if fs::symlink_metadata(&target).is_ok_and(|found| found.is_dir()) {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            step(
                || format!("mount a /{path} of the container's own"),
                mount(Some("tmpfs"), &target, Some("tmpfs"), flags, Some(mode)),
            )?;
        }
    }
    host.hidden.iter().try_for_each(|path| hide(path, &root))
}

/// One more file system of the machine.
fn add(point: &Path, root: &Path, dir: &Path) -> Result<(), String> {
    let Ok(inner) = point.strip_prefix("/") else { return Ok(()) };
    let target = root.join(inner);
    // Covered by another mount, or not a directory.
    if !point.is_dir() || !target.is_dir() {
        return Ok(());
    }
    for part in ["upper", "work"] {
        let path = dir.join(part);
        step(|| format!("make the directory {}", path.display()), fs::create_dir_all(&path))?;
    }
    // The upper directory's mode and owner are what the container sees.
    let shown = || format!("show {} in the container", point.display());
    let found = step(shown, fs::metadata(point))?;
    let mode = fs::Permissions::from_mode(found.permissions().mode() & 0o7777);
    step(shown, chown(dir.join("upper"), Some(found.uid()), Some(found.gid())))?;
    step(shown, fs::set_permissions(dir.join("upper"), mode))?;
    if overlay(&[point.to_owned()], dir, &target).is_ok() {
        return Ok(());
    }
    // A file system that no overlay can stand on is at least readable.
    step(shown, mount(Some(point), &target, NONE, MsFlags::MS_BIND, NONE))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    step(shown, mount(NONE, &target, NONE, flags, NONE))
}

/// Nobody gets past this: the paths below it lead nowhere any more.
fn hide(path: &Path, root: &Path) -> Result<(), String> {
    let target = path.strip_prefix("/").map(|inner| root.join(inner));
    let Some((target, found)) = target.ok().and_then(|t| fs::symlink_metadata(&t).ok().map(|f| (t, f)))
    else {
        return Ok(());
    };
    let result = if found.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &target, Some("tmpfs"), flags, Some("size=0k,mode=700"))
    } else {
        mount(Some("/dev/null"), &target, NONE, MsFlags::MS_BIND, NONE)
    };
    step(|| format!("hide {}", path.display()), result)
}

/// The mount points to show, outer ones first. Pure.
fn system_mounts(table: &str, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let path = unescape(mount.split(' ').nth(4)?);
        let kind = source.split(' ').next()?;
        (!KINDS_LEFT_OUT.contains(&kind) && !kind.starts_with("fuse")).then_some(path)
    };
    let shown = |path: &PathBuf| {
        let parts: Vec<_> = path.components().skip(1).collect();
        let Some(Component::Normal(first)) = parts.first() else { return false };
        let first = first.to_str().unwrap_or_default();
        // Engines mount their images and containers at /var/lib/ENGINE/….
        let within = SYSTEM.contains(&first) || first == VARIABLE;
        within && parts.len() <= DEPTH && !hidden.iter().any(|hidden| path.starts_with(hidden))
    };
    let mut all: Vec<PathBuf> = table.lines().filter_map(point).filter(shown).collect();
    all.sort();
    // One above the other: what is on top is what is seen.
    all.dedup();
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_programs_live_in_are_shown() {
        let line =
            |path: &str, kind: &str| format!("36 35 98:0 / {path} rw,noatime master:1 - {kind} /dev/x rw\n");
        let table: String = [
            ("/", "ext4"),
            ("/var", "xfs"),
            ("/usr", "squashfs"),
            ("/usr", "squashfs"),
            ("/var/lib/yado", "ext4"),
            ("/var/lib/docker/overlay2/x/merged", "overlay"),
            ("/var/lib/kubelet/pods/x/volumes/y", "ext4"),
            ("/proc", "proc"),
            ("/run", "tmpfs"),
            ("/home/a\\040b", "nfs4"),
            ("/mnt/disk", "ext4"),
            ("/opt/remote", "fuse.sshfs"),
        ]
        .iter()
        .map(|(path, kind)| line(path, kind))
        .collect();
        let shown = system_mounts(&table, &["/var/lib/yado".into()]);
        assert_eq!(shown, ["/home/a b", "/usr", "/var"].map(PathBuf::from));
    }
}

//! A container's view of the file system. Runs in the container's own first process, in its own mount namespace, so
//! every mount here goes away with it. The root is switched before anything is mounted at a path of the image: from
//! then on no symbolic link of the image can lead out of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::process::Join;
use super::{host, step};
use crate::spec::{BindMount, ContainerSpec};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_RDONLY: u64 = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;

/// Hidden from a container, and read-only in it: what container engines agree on.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A mount taken from the host's view before the root is switched.
pub struct Detached {
    tree: OwnedFd,
    directory: bool,
    target: PathBuf,
}

/// What [`enter`] needs besides the specification.
pub struct Surroundings<'a> {
    /// `upper`, `work` and `root` are in it.
    pub dir: &'a Path,
    /// Shared by the sandbox's containers, mounted at `/dev/shm`.
    pub shm: &'a Path,
    /// v1 hierarchies to show: mount options and directory name. Empty on a unified machine.
    pub cgroup_views: &'a [(String, String)],
    /// The unified hierarchy is all there is.
    pub unified: bool,
}

/// Mounts everything and makes the container's root this process's root. `join` puts the process into its cgroup; the
/// kernel may be slow at that, so it is asked for as late as the container's view of cgroups allows.
pub fn enter(spec: &ContainerSpec, around: &Surroundings, join: Join<'_>) -> Result<(), String> {
    let shm = BindMount { source: around.shm.to_owned(), target: "/dev/shm".into(), read_only: false };
    let shm = detach(&shm)?;
    let binds = spec.mounts.iter().map(detach).collect::<Result<Vec<_>, _>>()?;
    match &spec.host {
        Some(host) => host::mount_root(host, around.dir)?,
        None => overlay(&spec.layers, around.dir, Path::new("root"))?,
    }
    switch_root(&around.dir.join("root"))?;
    kernel_file_systems(spec.privileged)?;
    devices(spec.privileged)?;
    attach(&shm)?;
    if !spec.privileged {
        hide()?;
    }
    join()?;
    cgroups(around);
    for bind in &binds {
        attach(bind)?;
    }
    if !spec.cwd.as_os_str().is_empty() && !spec.cwd.exists() {
        step(|| format!("make the working directory {}", spec.cwd.display()), fs::create_dir_all(&spec.cwd))?;
    }
    if spec.read_only_root {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        step(|| "make the root file system read-only", mount(NONE, "/", NONE, flags, NONE))?;
    }
    Ok(())
}

const NONE: Option<&str> = None;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A copy of a mount and what is below it, attached nowhere.
fn detach(bind: &BindMount) -> Result<Detached, String> {
    let shown = || format!("mount {} at {}", bind.source.display(), bind.target.display());
    let source = step(shown, std::ffi::CString::new(bind.source.as_os_str().as_encoded_bytes()))?;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path is a C string that lives until the call returns; the kernel gives a new descriptor.
    let tree = unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags);
        OwnedFd::from_raw_fd(step(shown, check(fd))? as i32)
    };
    let attributes = libc::mount_attr {
        attr_set: if bind.read_only { MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        // What is mounted on the host later stays there.
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | AT_RECURSIVE;
    // SAFETY: the structure lives until the call returns, and its size is given.
    let set = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &attributes, size)
    };
    step(shown, check(set))?;
    let metadata = step(shown, nix::sys::stat::fstat(&tree))?;
    let directory = metadata.st_mode & libc::S_IFMT == libc::S_IFDIR;
    Ok(Detached { tree, directory, target: bind.target.clone() })
}

/// Attaches it, making the place where it is absent. A symbolic link is a place like any other: it is covered, wherever
/// it leads. An image's `/etc/resolv.conf` often is one into `/run`, which is empty in a container.
fn attach(bind: &Detached) -> Result<(), String> {
    let shown = || format!("mount a volume at {}", bind.target.display());
    let target = Path::new("/").join(&bind.target);
    if bind.directory {
        step(shown, fs::create_dir_all(&target))?;
    } else if fs::symlink_metadata(&target).is_err() {
        if let Some(parent) = target.parent() {
            step(shown, fs::create_dir_all(parent))?;
        }
        step(shown, fs::OpenOptions::new().create(true).append(true).open(&target))?;
    }
    let target = step(shown, std::ffi::CString::new(target.as_os_str().as_encoded_bytes()))?;
    let (tree, to) = (bind.tree.as_raw_fd(), target.as_ptr());
    // SAFETY: both paths are C strings that live until the call returns.
    let moved = unsafe {
        let from = c"".as_ptr();
        libc::syscall(libc::SYS_move_mount, tree, from, libc::AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH)
    };
    step(shown, check(moved)).map(|_| ())
}

/// Mounts layers at `target` with `upper` and `work` of `dir` above them. Layers are named by descriptor: their paths are
/// long, and all options must fit into one page.
pub fn overlay(layers: &[PathBuf], dir: &Path, target: &Path) -> Result<(), String> {
    let mut held = Vec::new();
    for layer in layers {
        let open =
            nix::fcntl::open(layer, nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC, Mode::empty());
        held.push(step(|| format!("open the image layer {}", layer.display()), open)?);
    }
    let lower: Vec<String> =
        held.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_fd().as_raw_fd())).collect();
    step(|| format!("enter {}", dir.display()), nix::unistd::chdir(dir))?;
    let options = format!("lowerdir={},upperdir=upper,workdir=work", lower.join(":"));
    // A container's writable layer does not survive the machine, so syncing it is waste.
    let volatile = format!("{options},volatile");
    let attempt =
        |options: &str| mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options));
    let result = attempt(&volatile).or_else(|_| attempt(&options));
    step(|| format!("mount the image's {} layers as an overlay below {}", held.len(), dir.display()), result)
}

fn switch_root(root: &Path) -> Result<(), String> {
    let all = || {
        nix::unistd::chdir(root)?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")
    };
    step(|| format!("make {} the root", root.display()), all())
}

/// Makes an empty, read-only file system this process's root. It is mounted over `place` in the process's own mount
/// namespace.
pub fn enter_empty(place: &Path) -> Result<(), String> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step(|| "mount an empty root", mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("size=4k")))?;
    switch_root(place)
}

/// A directory of the image, made where absent. A symbolic link would put a kernel file system where neither the
/// masks below nor the programs expect it.
fn directory(path: &str) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("the image's {path} is not a directory")),
        Err(_) => step(|| format!("make {path}"), fs::create_dir(path)),
    }
}

fn kernel_file_systems(privileged: bool) -> Result<(), String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    for path in ["/proc", "/dev", "/sys"] {
        directory(path)?;
    }
    let make = |kind: &str, target: &str, flags, options: Option<&str>| {
        step(|| format!("mount {kind} at {target}"), mount(Some(kind), target, Some(kind), flags, options))
    };
    make("proc", "/proc", quiet, None)?;
    let sysfs = if privileged { quiet } else { quiet | MsFlags::MS_RDONLY };
    make("sysfs", "/sys", sysfs, None)?;
    make("tmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, Some("mode=755,size=65536k"))?;
    for path in ["/dev/pts", "/dev/mqueue", "/dev/shm"] {
        directory(path)?;
    }
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    make("devpts", "/dev/pts", terminals, Some("newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
    // Message queues may be left out of a kernel.
    let _ = make("mqueue", "/dev/mqueue", quiet, None);
    Ok(())
}

fn devices(privileged: bool) -> Result<(), String> {
    let plain =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in plain {
        node(&Path::new("/dev").join(name), SFlag::S_IFCHR, 0o666, makedev(major, minor))?;
    }
    let links = [
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (to, path) in links {
        step(|| format!("make {path}"), symlink(to, path))?;
    }
    if privileged {
        host_devices()?;
    }
    Ok(())
}

fn node(path: &Path, kind: SFlag, mode: u32, device: u64) -> Result<(), String> {
    let shown = || format!("make {}", path.display());
    step(shown, mknod(path, kind, Mode::empty(), device))?;
    // Not through mknod's own mode, which the umask cuts.
    step(shown, fs::set_permissions(path, fs::Permissions::from_mode(mode)))
}

/// The machine's devices as the kernel lists them, for a privileged container.
fn host_devices() -> Result<(), String> {
    for (list, kind) in [("/sys/dev/char", SFlag::S_IFCHR), ("/sys/dev/block", SFlag::S_IFBLK)] {
        for entry in fs::read_dir(list).into_iter().flatten().flatten() {
            let Ok(event) = fs::read_to_string(entry.path().join("uevent")) else { continue };
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let numbers = (field("MAJOR=").map(str::parse), field("MINOR=").map(str::parse));
            let (Some(name), (Some(Ok(major)), Some(Ok(minor)))) = (field("DEVNAME="), numbers) else {
                continue;
            };
            let path = Path::new("/dev").join(name);
            if fs::symlink_metadata(&path)
                .is_ok_and(|found| found.file_type().is_char_device() || found.rdev() > 0)
            {
                continue;
            }
            if let Some(parent) = path.parent() {
                step(|| format!("make {}", parent.display()), fs::create_dir_all(parent))?;
            }
            if !path.exists() {
                node(&path, kind, 0o660, makedev(major, minor))?;
            }
        }
    }
    Ok(())
}

/// The container's own group, where programs look for their limits. What cannot be shown is left out: no limit
/// depends on it.
fn cgroups(around: &Surroundings) {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let path = "/sys/fs/cgroup";
    if around.unified {
        let _ = mount(Some("cgroup"), path, Some("cgroup2"), quiet | MsFlags::MS_RDONLY, NONE);
        return;
    }
    if mount(Some("tmpfs"), path, Some("tmpfs"), quiet, Some("mode=755,size=64k")).is_err() {
        return;
    }
    for (options, name) in around.cgroup_views {
        let target = Path::new(path).join(name);
        if fs::create_dir(&target).is_ok() {
            let flags = quiet | MsFlags::MS_RDONLY;
            let _ = mount(Some("cgroup"), &target, Some("cgroup"), flags, Some(options.as_str()));
        }
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | quiet;
    let _ = mount(NONE, path, NONE, flags, NONE);
}

fn hide() -> Result<(), String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        let shown = || format!("make {path} read-only");
        step(shown, mount(Some(*path), *path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | quiet;
        step(shown, mount(NONE, *path, NONE, flags, NONE))?;
    }
    for path in MASKED {
        let Ok(found) = fs::metadata(path) else { continue };
        let result = if found.is_dir() {
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))
        } else {
            mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE)
        };
        step(|| format!("hide {path}"), result)?;
    }
    Ok(())
}

//! The program that becomes a shim, seen through a mount of its own that is sealed once the shim runs.
//!
//! A process of a container is a copy of its shim until it executes its own program, so `/proc/self/exe` is the
//! engine's file until then. A command that is `/proc/self/exe`, a script or a loader that names it would execute the
//! engine inside the container, with libraries of the container, and from there reach the file on the machine. Through
//! a mount that forbids execution the kernel refuses all of these in execve(2) itself, whatever the path was made of.
//! No copy in memory is needed: the mount shows the same file, with the same cached pages.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag};

/// What a shim is called in lists of processes.
pub(super) const NAME: &str = "yado";

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOEXEC: u64 = 8;

/// A mount of one file that is attached nowhere. It goes with the last process that was executed through it.
pub(super) struct Program(OwnedFd);

impl Program {
    /// Mounts `file` once more, read-only. A program that has been deleted or replaced since it was started is found
    /// through `/proc/self/exe` all the same.
    pub(super) fn mount(file: &Path) -> io::Result<Self> {
        let name = CString::new(file.as_os_str().as_encoded_bytes())?;
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
        // SAFETY: the path is a C string that lives until the call returns; the kernel gives a new descriptor.
        let tree = unsafe {
            let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        set(&tree, MOUNT_ATTR_RDONLY)?;
        Ok(Self(tree))
    }

    /// A path by which a child of this process executes it, as long as this lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Forbids to execute this process's program through the mount that it was executed through. Works only while the
/// starter holds its [`Program`]: after that nobody can change the mount any more, nor undo this.
pub(super) fn seal() -> io::Result<()> {
    nix::sys::prctl::set_name(&CString::new(NAME)?)?;
    let program = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open("/proc/self/exe")?;
    set(&program.into(), MOUNT_ATTR_NOEXEC)
}

fn set(mount: &OwnedFd, attributes: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (empty, flags) = (c"".as_ptr(), AtFlags::AT_EMPTY_PATH.bits());
    // SAFETY: the structure lives until the call returns, and its size is given.
    let set = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), empty, flags, &attributes, size)
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! Shims as the daemon sees them: other processes, found by their socket or by their cgroup.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::SHIM_ARGUMENT;

/// A shim's process, held so that its id cannot become another's.
pub(super) struct ShimProcess {
    handle: AsyncFd<OwnedFd>,
    pid: i32,
}

impl ShimProcess {
    /// The process that listens on a connection's other side. It had the socket a moment ago and shims end only when
    /// destroyed, so the id is still its own.
    pub(super) fn behind(socket: &UnixStream) -> Option<Self> {
        Self::hold(socket.peer_cred().ok()?.pid()?)
    }

    /// A process of the shims' cgroup with the id of the sandbox that it was started for.
    pub(super) fn of_sandbox(pid: i32) -> Option<(String, Self)> {
        // Held first: what is read below is then this process's, or nothing.
        let shim = Self::hold(pid)?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).skip(1);
        let argument = words.next()?;
        let dir = Path::new(OsStr::from_bytes(words.next()?));
        let id = dir.file_name()?.to_str()?.to_owned();
        (argument == SHIM_ARGUMENT.as_bytes()).then_some((id, shim))
    }

    fn hold(pid: i32) -> Option<Self> {
        if pid <= 1 {
            return None;
        }
        // SAFETY: a system call without pointers; its new descriptor is nobody else's.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            if fd < 0 {
                return None;
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        // SAFETY: an owned descriptor stays open, and the same, for as long as the registration owns it.
        let handle = unsafe { AsyncFd::register(fd) }.ok()?;
        Some(Self { handle, pid })
    }

    /// A shim's current directory is its sandbox's.
    fn directory(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    /// Nobody can find its socket or states any more. The kernel marks the name.
    pub(super) fn directory_deleted(&self) -> bool {
        self.directory().is_some_and(|dir| dir.as_os_str().as_bytes().ends_with(b" (deleted)"))
    }

    pub(super) fn works_in(&self, dir: &Path) -> bool {
        std::fs::canonicalize(dir).is_ok_and(|dir| self.directory() == Some(dir))
    }

    /// Kills it and waits until it is gone; its mounts go with its namespace. False where it does not go.
    pub(super) async fn end(&self, limit: Duration) -> bool {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the pointer may be null. A process that has ended already is fine.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.handle.as_raw_fd(), libc::SIGKILL, no_info, 0)
        };
        tokio::time::timeout(limit, self.handle.readable()).await.is_ok()
    }
}

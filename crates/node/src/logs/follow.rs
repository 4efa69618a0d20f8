//! Waiting for a log to grow, with inotify.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::unix::AsyncFd;

/// Tells when something is written, made or renamed in a log's directory.
pub(super) struct Follow(AsyncFd<OwnedFd>);

impl Follow {
    /// Watches the directory of `path`, so that rotation is seen too.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let dir = CString::new(dir.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: takes flags only; a negative result is an error.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_MOVED_TO;
        // SAFETY: the descriptor is open and the path is a string that ends with a zero.
        if unsafe { libc::inotify_add_watch(fd.as_raw_fd(), dir.as_ptr(), events) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is owned by what is returned and stays open and the same until that is dropped.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Ready once something has changed since the last call. Says not what: the reader looks for itself.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = [0u8; 4096];
        let mut any = false;
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut buffer)?)) {
                Ok(Ok(_)) => any = true,
                Ok(Err(error)) => return Err(error),
                Err(_would_block) if any => return Ok(()),
                Err(_would_block) => {}
            }
            if any {
                // Everything that is there already stands for one change.
                while nix::unistd::read(self.0.get_ref(), &mut buffer).is_ok() {}
                return Ok(());
            }
        }
    }
}

//! Kernel keys of a container. Without a session keyring of its own a process has the one of the session that started
//! the engine, or its user's, and every container's root is the machine's root: they would read each other's keys.
//!
//! The user's keyrings themselves belong to the user id, not to the session; the filter of
//! [`seccomp`](crate::runtime::seccomp) keeps containers from them.

use std::ffi::CString;
use std::io;

/// The name of a container's session keyring, which its first process makes and its further processes join.
#[derive(Clone, Debug)]
pub struct Keyring(CString);

const JOIN_SESSION_KEYRING: libc::c_long = 1;
const SETPERM: libc::c_long = 5;
/// All rights for whoever has the keyring, and for its user (root of any container) only the one to join it by name.
const PERMISSIONS: libc::c_long = 0x3f00_0000 | 0x0008_0000;

impl Keyring {
    /// A name that nobody can guess: a keyring is joined by its name.
    pub fn new() -> io::Result<Self> {
        let mut random = [0u8; 16];
        // SAFETY: the buffer is of the given length and lives until the call returns.
        let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
        if got != random.len() as isize {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(CString::new(format!("container-{}", hex::encode(random)))?))
    }

    /// Gives the calling thread this keyring as its session's. Called as root, whose quota of keys is large; users
    /// have a quota of 200 keys each.
    ///
    /// A kernel without keys, or an engine that may not use them (then its containers may not either), has nothing to
    /// keep apart.
    pub fn join(&self) -> io::Result<()> {
        // SAFETY: the name is a C string that lives until the call returns.
        let ring = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, self.0.as_ptr(), 0, 0, 0) };
        if ring < 0 {
            return match io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
                error => Err(error),
            };
        }
        if ring == 0 {
            // It is this thread's already.
            return Ok(());
        }
        // SAFETY: a system call without pointers.
        if unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, ring, PERMISSIONS, 0, 0) } < 0 {
            return match io::Error::last_os_error() {
                // The container has taken this right away from its own keyring.
                error if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
                error => Err(error),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: libc::c_long = -3;
    const SEARCH: libc::c_long = 10;

    /// Runs `work` in a thread of its own, which is what has a session keyring.
    fn joined<T: Send + 'static>(ring: &Keyring, work: impl FnOnce() -> T + Send + 'static) -> T {
        let ring = ring.clone();
        let thread = std::thread::spawn(move || {
            ring.join().expect("joined");
            work()
        });
        thread.join().expect("no panic")
    }

    fn add() -> bool {
        let (kind, name, value) = (c"user".as_ptr(), c"token".as_ptr(), c"hidden".as_ptr());
        // SAFETY: C strings, and the length of the last one.
        unsafe { libc::syscall(libc::SYS_add_key, kind, name, value, 6, SESSION) > 0 }
    }

    fn found() -> bool {
        let (kind, name) = (c"user".as_ptr(), c"token".as_ptr());
        // SAFETY: C strings.
        unsafe { libc::syscall(libc::SYS_keyctl, SEARCH, SESSION, kind, name, 0) > 0 }
    }

    #[test]
    fn keys_are_seen_by_the_same_container_only() {
        let (one, two) = (Keyring::new().expect("random"), Keyring::new().expect("random"));
        let again = one.clone();
        let seen = joined(&one, move || (add(), joined(&again, found), joined(&two, found)));
        assert_eq!(seen, (true, true, false));
    }
}

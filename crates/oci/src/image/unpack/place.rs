//! Making files beneath a root that must not be left: every system call is relative to a directory handle.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::EntryType;

const OPAQUE: &str = "trusted.overlay.opaque";

/// What an entry has besides its content.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since the Unix epoch.
    pub(super) modified: i64,
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// The layer's directory. Remembers the last directory looked up: entries of one directory follow one another.
pub(super) struct Root {
    fd: OwnedFd,
    last: Option<(PathBuf, Directory)>,
}

/// A directory beneath the root.
pub(super) struct Directory(OwnedFd);

impl Root {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let fd =
            openat(AT_FDCWD, dir, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY, Mode::empty())?;
        Ok(Self { fd, last: None })
    }

    /// The directory at `path`, with symbolic links followed inside the root, made where it is missing.
    pub(super) fn directory(&mut self, path: &Path) -> nix::Result<&Directory> {
        if self.last.as_ref().is_none_or(|(cached, _)| cached != path) {
            // A failed lookup must not leave another path's handle behind.
            self.last = None;
            let found = match self.lookup(path) {
                Err(Errno::ENOENT) => self.make(path)?,
                found => found?,
            };
            self.last = Some((path.to_owned(), found));
        }
        match &self.last {
            Some((_, directory)) => Ok(directory),
            None => Err(Errno::ENOENT),
        }
    }

    /// The directory at `path` as it is.
    pub(super) fn directory_uncached(&self, path: &Path) -> nix::Result<Directory> {
        self.lookup(path)
    }

    fn lookup(&self, path: &Path) -> nix::Result<Directory> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.fd, path, how) {
                // The kernel saw a rename elsewhere and could not be sure; it asks to be called again.
                Err(Errno::EAGAIN) => {}
                opened => return opened.map(Directory),
            }
        }
    }

    /// Makes what is missing of `path`, component by component.
    fn make(&self, path: &Path) -> nix::Result<Directory> {
        let mut done = PathBuf::new();
        let mut at = self.lookup(&done)?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            done.push(name);
            at = match self.lookup(&done) {
                Err(Errno::ENOENT) => {
                    // A dangling symbolic link is replaced: an entry says that a directory belongs there.
                    at.clear(name, false)?;
                    mkdirat(&at.0, name, Mode::from_bits_truncate(0o755))?;
                    self.lookup(&done)?
                }
                found => found?,
            };
        }
        Ok(at)
    }

    pub(super) fn set_root(&self, attributes: &Attributes) -> io::Result<()> {
        set(self.fd.as_fd(), attributes)
    }

    pub(super) fn touch_directory(&mut self, path: &Path, modified: i64) -> nix::Result<()> {
        self.last = None;
        let Some(name) = path.file_name() else {
            return utimensat(
                &self.fd,
                ".",
                &TimeSpec::UTIME_OMIT,
                &time(modified),
                UtimensatFlags::NoFollowSymlink,
            );
        };
        let parent = self.lookup(path.parent().unwrap_or(Path::new("")))?;
        if !parent.stat(name)?.is_some_and(|s| is(&s, SFlag::S_IFDIR)) {
            return Ok(());
        }
        utimensat(&parent.0, name, &TimeSpec::UTIME_OMIT, &time(modified), UtimensatFlags::NoFollowSymlink)
    }
}

impl Directory {
    fn stat(&self, name: &OsStr) -> nix::Result<Option<FileStat>> {
        match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Removes what has this name. Gives back whether that was a whiteout; a directory stays where `keep_directory`.
    fn clear(&self, name: &OsStr, keep_directory: bool) -> nix::Result<bool> {
        let Some(stat) = self.stat(name)? else { return Ok(false) };
        if !is(&stat, SFlag::S_IFDIR) {
            unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?;
            return Ok(is_whiteout(&stat));
        }
        if !keep_directory {
            // Through the handle, so that the path cannot be another one by now; nothing is followed.
            let path = Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name);
            std::fs::remove_dir_all(path)
                .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        }
        Ok(false)
    }

    /// Opens something in this directory without following a link.
    fn open(&self, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
        openat(&self.0, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o600))
    }

    pub(super) fn directory(&self, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
        let hid_lower = self.clear(name, true)?;
        match mkdirat(&self.0, name, Mode::from_bits_truncate(0o700)) {
            Err(Errno::EEXIST) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
        let fd = self.open(name, OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
        if hid_lower {
            // The layer removes what was there and puts a new directory in its place.
            xattr::FileExt::set_xattr(&File::from(fd.try_clone()?), OPAQUE, b"y")?;
        }
        set(fd.as_fd(), attributes)
    }

    /// A new empty file, in place of whatever had the name.
    pub(super) fn file(&self, name: &OsStr) -> nix::Result<File> {
        self.clear(name, false)?;
        Ok(File::from(self.open(name, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY)?))
    }

    pub(super) fn symlink(&self, name: &OsStr, target: &OsStr, attributes: &Attributes) -> nix::Result<()> {
        self.clear(name, false)?;
        symlinkat(target, &self.0, name)?;
        self.own(name, attributes)?;
        self.touch(name, attributes.modified)
    }

    pub(super) fn hard_link(&self, name: &OsStr, from: &Directory, target: &OsStr) -> nix::Result<()> {
        let stat = from.stat(target)?.ok_or(Errno::ENOENT)?;
        if is(&stat, SFlag::S_IFDIR) || is_whiteout(&stat) {
            return Err(Errno::ENOENT);
        }
        if let Some(there) = self.stat(name)?
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.clear(name, false)?;
        linkat(&from.0, target, &self.0, name, AtFlags::empty())
    }

    pub(super) fn device(
        &self,
        name: &OsStr,
        kind: EntryType,
        (major, minor): (u32, u32),
        attributes: &Attributes,
    ) -> nix::Result<()> {
        let kind = match kind {
            EntryType::Char => SFlag::S_IFCHR,
            EntryType::Block => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        self.clear(name, false)?;
        mknodat(&self.0, name, kind, Mode::from_bits_truncate(0o600), libc::makedev(major, minor))?;
        self.own(name, attributes)?;
        let mode = Mode::from_bits_truncate(attributes.mode);
        nix::sys::stat::fchmodat(&self.0, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        self.touch(name, attributes.modified)
    }

    /// Hides what a lower layer has under this name. What this layer itself has there stays, and hides the rest.
    pub(super) fn whiteout(&self, name: &OsStr) -> nix::Result<()> {
        match self.stat(name)? {
            Some(stat) if is(&stat, SFlag::S_IFDIR) => self.set_opaque(Some(name)),
            Some(_) => Ok(()),
            None => mknodat(&self.0, name, SFlag::S_IFCHR, Mode::empty(), libc::makedev(0, 0)),
        }
    }

    /// Hides all that lower layers have in this directory, or in the one called `name` in it.
    pub(super) fn set_opaque(&self, name: Option<&OsStr>) -> nix::Result<()> {
        let fd = self.open(name.unwrap_or(OsStr::new(".")), OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
        xattr::FileExt::set_xattr(&File::from(fd), OPAQUE, b"y")
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    }

    fn own(&self, name: &OsStr, attributes: &Attributes) -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        fchownat(&self.0, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn touch(&self, name: &OsStr, modified: i64) -> nix::Result<()> {
        utimensat(&self.0, name, &TimeSpec::UTIME_OMIT, &time(modified), UtimensatFlags::NoFollowSymlink)
    }
}

/// Owner, mode, attributes and time of a file that is open and complete.
pub(super) fn set_file(file: &File, attributes: &Attributes) -> io::Result<()> {
    set(file.as_fd(), attributes)
}

fn set(fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    nix::unistd::fchown(fd, Some(uid), Some(gid))?;
    // After the owner: changing that clears the set-user-id bit and file capabilities.
    fchmod(fd, Mode::from_bits_truncate(attributes.mode))?;
    if !attributes.xattrs.is_empty() {
        let file = File::from(fd.try_clone_to_owned()?);
        for (name, value) in &attributes.xattrs {
            match xattr::FileExt::set_xattr(&file, name, value) {
                // A file system without such attributes: file capabilities must not be lost silently, others may.
                Err(e)
                    if e.raw_os_error() == Some(libc::EOPNOTSUPP)
                        && name.as_bytes() != b"security.capability" => {}
                set => set?,
            }
        }
    }
    nix::sys::stat::futimens(fd, &TimeSpec::UTIME_OMIT, &time(attributes.modified))?;
    Ok(())
}

fn time(seconds: i64) -> TimeSpec {
    TimeSpec::new(seconds, 0)
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

fn is_whiteout(stat: &FileStat) -> bool {
    is(stat, SFlag::S_IFCHR) && stat.st_rdev == 0
}

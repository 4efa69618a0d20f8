//! An image's layers as one tree, to look into without running it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

/// A mounted image, read-only. Dropping it unmounts it.
#[derive(Debug)]
pub struct Merged {
    root: PathBuf,
    at: PathBuf,
    mounted: bool,
}

/// A directory of a mounted image, held open.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// A path that leads to it as long as this lives.
    pub fn path(&self) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl Merged {
    /// Mounts an image's layers ([`super::Image::layers`]) below `at`, which is made, and removed at the end.
    pub fn mount(layers: &[PathBuf], at: &Path) -> io::Result<Self> {
        let (root, empty) = (at.join("root"), at.join("empty"));
        fs::create_dir_all(&root)?;
        // An overlay without a layer to write to wants two others at least.
        fs::create_dir_all(&empty)?;
        let held = layers
            .iter()
            .chain([&empty])
            .map(|layer| open(layer, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY, Mode::empty()));
        let held = held.collect::<Result<Vec<OwnedFd>, _>>()?;
        // By descriptor: paths are long, and all options must fit into one page.
        let lower: Vec<_> = held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("overlay"), &root, Some("overlay"), flags, Some(options.as_str()))?;
        Ok(Self { root, at: at.to_owned(), mounted: true })
    }

    /// A directory of the image; `None` where nothing is there, or something else. Symbolic links lead where they would
    /// in a container.
    pub fn directory(&self, path: &Path) -> io::Result<Option<Directory>> {
        let root = open(&self.root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(&root, path, how) {
            Ok(fd) => Ok(Some(Directory(fd))),
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Unmounts it, and says so if that fails.
    pub fn unmount(mut self) -> io::Result<()> {
        self.mounted = false;
        umount2(&self.root, MntFlags::MNT_DETACH)?;
        fs::remove_dir_all(&self.at)
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        if self.mounted && umount2(&self.root, MntFlags::MNT_DETACH).is_ok() {
            // Empty directories: whoever owns the place removes them, too.
            let _ = fs::remove_dir_all(&self.at);
        }
    }
}

//! How much disk a directory takes. What is measured changes meanwhile, and a container may want to mislead: no symbolic
//! link is followed, and nothing beyond the directory's own file system is looked at.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Bytes of a block as the kernel counts them in a file's metadata.
const BLOCK: u64 = 512;

/// Bytes on the disk below `root`, which need not be there; counting stops beyond `most`. A file with several names counts
/// once. Directories whose path below the root is longer than the kernel takes at once are left out.
pub(crate) fn of(root: &Path, most: u64) -> u64 {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(root) = open(root, flags, Mode::empty()) else { return 0 };
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let mut waiting = vec![PathBuf::from(".")];
    let mut linked = HashSet::new();
    let mut total = 0u64;
    while let Some(dir) = waiting.pop() {
        // What is gone by now takes nothing.
        let Ok(fd) = openat2(&root, &dir, how) else { continue };
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd())) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                waiting.push(dir.join(entry.file_name()));
            } else if found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
                continue;
            }
            total = total.saturating_add(found.blocks().saturating_mul(BLOCK));
            if total > most {
                return total;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        assert_eq!(of(&at("nothing"), u64::MAX), 0);
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("large"), vec![1; 1 << 20]).expect("a file");
        fs::create_dir_all(at("root/a/b")).expect("directories");
        std::os::unix::fs::symlink(outside.path(), at("root/link")).expect("a link");
        let empty = of(&at("root"), u64::MAX);
        assert!(empty < 64 << 10, "{empty}");
        fs::write(at("root/a/b/file"), vec![1; 256 << 10]).expect("a file");
        fs::hard_link(at("root/a/b/file"), at("root/again")).expect("a link");
        let sparse = fs::File::create(at("root/sparse")).expect("a file");
        sparse.set_len(1 << 30).expect("a length");
        let full = of(&at("root"), u64::MAX) - empty;
        assert!((256 << 10..512 << 10).contains(&full), "{full}");
        assert!(of(&at("root"), 1000) > 1000);
    }
}

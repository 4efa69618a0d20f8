//! Unpacks archives and copies directories, with limits and without leaving the target directory.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// Limit of unpacked bytes: far above the sources of any application, and far below the size of a disk.
const MAX_BYTES: u64 = 2 << 30;
/// Limit of files: more than the largest source trees have.
const MAX_FILES: usize = 200_000;
/// Limit of nested directories: deeper than any source tree.
const MAX_DEPTH: usize = 100;

/// Counts the files and bytes written and enforces the limits.
#[derive(Default)]
struct Written {
    bytes: u64,
    files: usize,
}

impl Written {
    fn file(&mut self) -> Result<(), String> {
        self.files += 1;
        if self.files > MAX_FILES { Err(format!("holds more than {MAX_FILES} files")) } else { Ok(()) }
    }

    fn copy(&mut self, from: impl Read, path: &Path, executable: bool) -> Result<(), String> {
        self.file()?;
        let cannot = |e: io::Error| format!("cannot write {}: {e}", path.display());
        parents(path)?;
        let mut out = File::create_new(path).map_err(cannot)?;
        self.bytes += io::copy(&mut from.take(MAX_BYTES - self.bytes + 1), &mut out).map_err(cannot)?;
        if self.bytes > MAX_BYTES {
            return Err(format!("holds more than {} GiB", MAX_BYTES >> 30));
        }
        let mode = if executable { 0o755 } else { 0o644 };
        out.set_permissions(fs::Permissions::from_mode(mode)).map_err(cannot)
    }
}

fn parents(path: &Path) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| format!("cannot make {}: {e}", parent.display()))
}

/// Unpacks the archive `file` of a `kind` into the directory `into`, which is not there yet.
pub(super) fn unpack(file: &Path, kind: &str, into: &Path) -> Result<(), String> {
    let opened = File::open(file).map_err(|e| format!("cannot be read: {e}"))?;
    fs::create_dir_all(into).map_err(|e| format!("cannot make {}: {e}", into.display()))?;
    match kind {
        "tar" => untar(opened, into),
        "tar.gz" | "tgz" => untar(flate2::read::MultiGzDecoder::new(opened), into),
        "tar.zst" => untar(
            zstd::Decoder::new(opened).map_err(|e| format!("is not a valid {kind} archive: {e}"))?,
            into,
        ),
        "zip" => unzip(opened, into),
        other => {
            Err(format!("archives of kind {other} are not unpacked here: offer a tar.gz, tar.zst or zip"))
        }
    }
}

fn untar(packed: impl Read, into: &Path) -> Result<(), String> {
    let broken = |e: io::Error| format!("is a broken tar archive: {e}");
    let mut written = Written::default();
    for entry in tar::Archive::new(packed).entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let Some(path) = inside(into, &name)? else { continue };
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                written.file()?;
                fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
                written.copy(entry, &path, executable)?;
            }
            tar::EntryType::Symlink => {
                written.file()?;
                let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                link(&name, &target, &path)?;
            }
            // Devices, sockets and hard links do not occur in source archives.
            _ => {}
        }
    }
    Ok(())
}

fn unzip(packed: File, into: &Path) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(packed).map_err(|e| format!("is not a valid zip archive: {e}"))?;
    let mut written = Written::default();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| format!("is a broken zip archive: {e}"))?;
        let name = entry.name().map_err(|e| format!("is a broken zip archive: {e}"))?;
        let name = PathBuf::from(name.as_ref());
        let Some(path) = inside(into, &name)? else { continue };
        if entry.is_dir() {
            written.file()?;
            fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        } else if entry.is_symlink() {
            written.file()?;
            let mut target = String::new();
            entry
                .by_ref()
                .take(4096)
                .read_to_string(&mut target)
                .map_err(|e| format!("is a broken zip archive: {e}"))?;
            link(&name, Path::new(&target), &path)?;
        } else {
            let executable = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
            written.copy(entry, &path, executable)?;
        }
    }
    Ok(())
}

/// The path of an archive entry, which has to be inside `into`: an entry with `..` or below a symbolic link, which may
/// have been unpacked before it, is refused.
fn inside(into: &Path, name: &Path) -> Result<Option<PathBuf>, String> {
    let mut path = into.to_path_buf();
    for part in name.components() {
        match part {
            Component::Normal(part) => {
                if path.is_symlink() {
                    return Err(format!("holds {}, which leads through a link", name.display()));
                }
                path.push(part);
            }
            Component::CurDir => {}
            _ => return Err(format!("holds {}, which leads out of it", name.display())),
        }
    }
    Ok((path != into).then_some(path))
}

/// Creates a symbolic link if its target is inside the archive. Other links are skipped, as their targets are not part
/// of the fetched source.
fn link(name: &Path, target: &Path, path: &Path) -> Result<(), String> {
    let mut depth = name.components().filter(|c| matches!(c, Component::Normal(_))).count() as i64 - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            _ => return Ok(()),
        }
        if depth < 0 {
            return Ok(());
        }
    }
    parents(path)?;
    symlink(target, path).map_err(|e| format!("cannot link {}: {e}", path.display()))
}

/// Copies a directory without the metadata of version control.
pub(super) fn copy(from: &Path, into: &Path) -> Result<(), String> {
    copy_below(from, into, Path::new(""), &mut Written::default(), 0)
}

fn copy_below(
    from: &Path,
    into: &Path,
    below: &Path,
    written: &mut Written,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("has directories more than {MAX_DEPTH} deep"));
    }
    let directory = from.join(below);
    let cannot = |e: io::Error| format!("cannot read {}: {e}", directory.display());
    fs::create_dir_all(into.join(below)).map_err(|e| format!("cannot make {}: {e}", into.display()))?;
    for entry in fs::read_dir(&directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = below.join(entry.file_name());
        let kind = entry.file_type().map_err(cannot)?;
        if [".git", ".hg"].iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if kind.is_dir() {
            written.file()?;
            copy_below(from, into, &name, written, depth + 1)?;
        } else if kind.is_symlink() {
            written.file()?;
            link(&name, &fs::read_link(entry.path()).map_err(cannot)?, &into.join(&name))?;
        } else if kind.is_file() {
            let file = File::open(entry.path()).map_err(cannot)?;
            let executable = entry.metadata().map_err(cannot)?.permissions().mode() & 0o111 != 0;
            written.copy(file, &into.join(&name), executable)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let link = *kind == tar::EntryType::Symlink;
            header.set_size(if link { 0 } else { content.len() as u64 });
            // Written past the checks that the writer has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if link {
                header.set_link_name(content).unwrap();
            }
            header.set_cksum();
            builder.append(&header, if link { &[][..] } else { content.as_bytes() }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_unpacked_outside() {
        use tar::EntryType::{Regular, Symlink};
        let directory = tempfile::tempdir().unwrap();
        for (i, (entries, expect)) in [
            (vec![("a/b", Regular, "x"), ("c", Symlink, "a/b")], Ok(())),
            (vec![("../b", Regular, "x")], Err("holds ../b, which leads out of it")),
            (vec![("/b", Regular, "x")], Err("holds /b, which leads out of it")),
            (vec![("l", Symlink, "."), ("l/b", Regular, "x")], Err("holds l/b, which leads through a link")),
            // The link is left out, so what seemed to lie behind it lies here.
            (vec![("l", Symlink, "/tmp"), ("l/b", Regular, "x")], Ok(())),
            (vec![("l", Symlink, "a/../../b")], Ok(())),
        ]
        .into_iter()
        .enumerate()
        {
            let (file, into) = (directory.path().join("a.tar"), directory.path().join(format!("{i}/in")));
            fs::write(&file, tar_of(&entries)).unwrap();
            assert_eq!(unpack(&file, "tar", &into), expect.map_err(str::to_string), "{i}");
            assert!(!directory.path().join(format!("{i}/b")).exists());
        }
        assert_eq!(fs::read_link(directory.path().join("0/in/c")).unwrap(), Path::new("a/b"));
        assert!(!directory.path().join("5/in/l").is_symlink());
    }
}

//! Directories as layers: the `app` step and the files of images made of packages.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use super::ignore::Ignore;
use super::layers::{Build, Key, MADE, set_time};
use crate::image::{ImageError, IoContext as _, Result};

/// A file of the directory.
struct Found {
    /// Relative to the directory.
    path: PathBuf,
    meta: fs::Metadata,
}

/// Makes a layer of a directory: at `target`, owned by `owner`, without what the directory's own files and `ignored`
/// leave out, with one time and two modes, as version control has no others.
pub(super) fn directory(
    build: &mut Build<'_>,
    step: &'static str,
    source: &Path,
    target: &Path,
    owner: u32,
    ignored: &[&str],
) -> Result<()> {
    let ignore = Ignore::read(source)?.and(ignored);
    let mut files = Vec::new();
    walk(build, source, Path::new(""), &ignore, &mut files)?;
    // What the file system says of the files stands for their content, so that nothing is read when nothing changed.
    let mut key = Key::new(step).with(target.as_os_str().as_encoded_bytes()).with(owner.to_le_bytes());
    for file in &files {
        let m = &file.meta;
        let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
        key = key.with(file.path.as_os_str().as_encoded_bytes());
        key = key.with(format!("{} {} {} {} {times:?}", m.mode(), m.len(), m.dev(), m.ino()));
    }
    let key = key.finish();
    if build.cached(step, &key) {
        return Ok(());
    }
    build.running(step, format!("copying {} files", files.len()));
    let staged = build.store.inner.stage_dir("app")?;
    let top = staged.path().join(target);
    fs::create_dir_all(&top).at("make the directory", &top)?;
    for file in &files {
        build.progress.check()?;
        copy(&source.join(&file.path), &top.join(&file.path), &file.meta)?;
    }
    own(staged.path(), &top, owner)?;
    build.add(step, staged, vec![key])
}

fn walk(build: &Build<'_>, source: &Path, dir: &Path, ignore: &Ignore, files: &mut Vec<Found>) -> Result<()> {
    let limits = build.store.inner.config.limits;
    let full = source.join(dir);
    let mut names = Vec::new();
    for entry in fs::read_dir(&full).at("list", &full)? {
        names.push(entry.at("list", &full)?.file_name());
    }
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let meta = fs::symlink_metadata(source.join(&path)).at("look at", source.join(&path))?;
        let excluded = ignore.excludes(&path);
        if excluded && !(meta.is_dir() && ignore.has_exceptions()) {
            continue;
        }
        if name.as_encoded_bytes().starts_with(b".wh.") {
            let reason = "names that begin with `.wh.` mean removal in an image; rename it or ignore it";
            return Err(build.failed(format!("{} cannot be copied: {reason}", source.join(&path).display())));
        }
        if meta.is_dir() {
            let at = files.len();
            walk(build, source, &path, ignore, files)?;
            // A directory that is excluded is there only for what is kept in it.
            if !excluded || files.len() > at {
                files.insert(at, Found { path, meta });
            }
        } else if meta.is_file() || meta.is_symlink() {
            files.push(Found { path, meta });
        }
        if files.len() as u64 > limits.layer_entries {
            let reason = format!("{} has more than {} files", source.display(), limits.layer_entries);
            return Err(build.failed(reason));
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, meta: &fs::Metadata) -> Result<()> {
    if meta.is_dir() {
        return fs::create_dir(to).at("make the directory", to);
    }
    if meta.is_symlink() {
        let target = fs::read_link(from).at("read the link", from)?;
        return std::os::unix::fs::symlink(target, to).at("make the link", to);
    }
    fs::copy(from, to).map(drop).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => ImageError::io("copy a file to", to, e),
        _ => ImageError::io("copy", from, e),
    })
}

/// Owners, modes and times of all that was copied; what leads to it belongs to root.
fn own(root: &Path, top: &Path, owner: u32) -> Result<()> {
    fn each(path: &Path, owner: u32) -> Result<()> {
        let meta = fs::symlink_metadata(path).at("look at", path)?;
        lchown(path, Some(owner), Some(owner)).at("change the owner of", path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(path).at("list", path)? {
                each(&entry.at("list", path)?.path(), owner)?;
            }
        }
        if !meta.is_symlink() {
            let mode = if meta.is_dir() || meta.mode() & 0o111 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("change the mode of", path)?;
        }
        set_time(path, MADE)
    }
    each(top, owner)?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).at("change the mode of", root)?;
    set_time(root, MADE)
}

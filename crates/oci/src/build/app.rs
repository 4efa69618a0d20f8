//! The `app` step, and images of directories with a Procfile.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use super::ignore::Ignore;
use super::layers::{Build, Key, MADE, set_time};
use super::procfile::{ProcessType, parse_aptfile, parse_procfile, process_command};
use super::{Base, Language, PROCESS_LABEL, base};
use crate::image::{Image, ImageConfig, ImageError, IoContext as _, Result};

/// A Procfile or Aptfile is some lines; a larger one is something else.
const MAX_FILE: u64 = 1 << 20;

/// Builds a directory of sources.
pub(super) fn build(
    mut build: Build<'_>,
    context: &Path,
    _language: Option<Language>,
    processes: &[(String, String)],
) -> Result<Image> {
    let context = &fs::canonicalize(context).at("open the directory", context)?;
    let (procfile, aptfile) = (context.join("Procfile"), context.join("Aptfile"));
    let types = match read(&procfile)? {
        Some(text) => parse_procfile(&procfile.display().to_string(), &text)?,
        None => processes
            .iter()
            .map(|(name, command)| ProcessType { name: name.clone(), command: command.clone() })
            .collect(),
    };
    if types.is_empty() {
        let reason = "there is no `Procfile`; add one with a line such as `web: python3 app.py`";
        return Err(build.failed(format!("in {} {reason}", context.display())));
    }
    let packages = match read(&aptfile)? {
        Some(text) => parse_aptfile(&aptfile.display().to_string(), &text)?,
        None => Vec::new(),
    };
    base::base(&mut build)?;
    if !packages.is_empty() {
        base::packages(&mut build, &packages, Base::Debian, &[])?;
    }
    directory(&mut build, "app", context, Path::new("app"), base::APP_ID)?;
    build.finish(config(&types))
}

/// How an image of these process types is run.
fn config(types: &[ProcessType]) -> ImageConfig {
    let main = types.iter().find(|t| t.name == "web").or(types.first());
    ImageConfig {
        cmd: main.map(|t| process_command(&t.command)).unwrap_or_default(),
        env: [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/app",
            "LANG=C.UTF-8",
            // What a program prints is a log line at once, as on Heroku.
            "PYTHONUNBUFFERED=1",
        ]
        .map(str::to_owned)
        .into(),
        working_dir: "/app".to_owned(),
        user: "app".to_owned(),
        labels: types.iter().map(|t| (format!("{PROCESS_LABEL}{}", t.name), t.command.clone())).collect(),
        ..ImageConfig::default()
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta if meta.as_ref().is_ok_and(|m| m.len() > MAX_FILE) => {
            return Err(ImageError::TooLarge { what: path.display().to_string(), limit: MAX_FILE });
        }
        _ => {}
    }
    fs::read_to_string(path).at("read", path).map(Some)
}

/// A file of the directory.
struct Found {
    /// Relative to the directory.
    path: PathBuf,
    meta: fs::Metadata,
}

/// Makes a layer of a directory: at `target`, owned by `owner`, with one time and two modes, as version control has
/// no others.
pub(super) fn directory(
    build: &mut Build<'_>,
    step: &'static str,
    source: &Path,
    target: &Path,
    owner: u32,
) -> Result<()> {
    let ignore = Ignore::read(source)?;
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

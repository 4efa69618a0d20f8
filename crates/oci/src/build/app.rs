//! Directories as layers: the `app` step and the files of images made of packages.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use super::ignore::{Ignore, InDirectory, Reason};
use super::layers::{Build, Key, MADE, set_time};
use super::suspicious;
use crate::image::{Event, ImageError, IoContext as _, Progress, Result};

/// So many paths are named in a sentence; more would hide the others.
const MAX_NAMED: usize = 10;

/// A file of the directory.
struct Found {
    /// Relative to the directory.
    path: PathBuf,
    meta: fs::Metadata,
}

/// What of a directory becomes part of an image.
#[derive(Default)]
struct Listing {
    /// Directories before what is in them, names in order.
    files: Vec<Found>,
    /// What stays out, but for what the tools of languages make anew.
    left_out: Vec<(PathBuf, Reason)>,
}

/// What is left out of a directory beside what its own files name.
#[derive(Clone, Copy, Default)]
pub(super) struct LeftOut<'a> {
    /// Patterns of what the steps of a plan make anew.
    pub(super) of_plan: &'a [&'static str],
    /// Files that a description names as env files and secrets, absolute or from the directory.
    pub(super) named: &'a [PathBuf],
}

/// Makes a layer of a directory: at `target`, owned by `owner`, without what the directory's own files and `left_out`
/// leave out, with one time and two modes, as version control has no others. Says which files it left out, and which of
/// those that it took look like secrets.
pub(super) fn directory(
    build: &mut Build<'_>,
    step: &'static str,
    source: &Path,
    target: &Path,
    owner: u32,
    left_out: LeftOut<'_>,
) -> Result<()> {
    let listing = list(source, left_out, build.store.inner.config.limits.layer_entries, build.progress)
        .map_err(|error| match error {
            ListError::Image(error) => error,
            ListError::Refused(reason) => build.failed(reason),
        })?;
    tell(&listing, source, build.progress);
    let files = listing.files;
    // What the file system says of the files stands for their content, so that nothing is read when nothing changed. Of
    // a directory only that it is there: what is in it stands for itself, and what is left out of it does not count.
    let mut key = Key::new(step).with(target.as_os_str().as_encoded_bytes()).with(owner.to_le_bytes());
    for file in &files {
        let m = &file.meta;
        key = key.with(file.path.as_os_str().as_encoded_bytes());
        if m.is_dir() {
            key = key.with("directory");
            continue;
        }
        let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
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

/// The files of the directory `source` that an image of it has, relative to it; `named` are those that a description
/// names as env files and secrets.
///
/// # Errors
/// The directory cannot be read, or has more files than `most`.
pub fn files_of(source: &Path, named: &[PathBuf], most: u64) -> Result<Vec<PathBuf>> {
    let left_out = LeftOut { of_plan: &[], named };
    match list(source, left_out, most, &Progress::none()) {
        Ok(listing) => Ok(listing.files.into_iter().map(|file| file.path).collect()),
        Err(ListError::Image(error)) => Err(error),
        Err(ListError::Refused(reason)) => {
            Err(ImageError::Build { name: source.display().to_string(), reason })
        }
    }
}

/// Why a directory cannot be listed.
enum ListError {
    Image(ImageError),
    /// Something in it can be no part of an image.
    Refused(String),
}

impl From<ImageError> for ListError {
    fn from(error: ImageError) -> Self {
        ListError::Image(error)
    }
}

fn list(source: &Path, left_out: LeftOut<'_>, most: u64, progress: &Progress) -> Result<Listing, ListError> {
    let ignore = Ignore::read(source)?.and(left_out.of_plan).and_named(source, left_out.named);
    let mut walk =
        Walk { source, has_exceptions: ignore.has_exceptions(), most, progress, listing: Listing::default() };
    walk.directory(Path::new(""), &ignore.at_top(source)?, false)?;
    Ok(walk.listing)
}

struct Walk<'w> {
    source: &'w Path,
    has_exceptions: bool,
    most: u64,
    progress: &'w Progress,
    listing: Listing,
}

impl Walk<'_> {
    /// Lists a directory, which is relative to the sources. `below`: it stays out itself, and so only what is kept in
    /// it counts.
    fn directory(&mut self, dir: &Path, ignore: &InDirectory<'_>, below: bool) -> Result<(), ListError> {
        self.progress.check()?;
        let full = self.source.join(dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).at("list", &full)? {
            names.push(entry.at("list", &full)?.file_name());
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let full = self.source.join(&path);
            let meta = fs::symlink_metadata(&full).at("look at", &full)?;
            let excluded = ignore.excludes(&path, meta.is_dir());
            let looked_into = meta.is_dir() && excluded == Some(Reason::Ignored) && self.has_exceptions;
            if let Some(reason) = excluded
                && !below
            {
                self.listing.left_out.push((path.clone(), reason));
            }
            if excluded.is_some() && !looked_into {
                continue;
            }
            if name.as_encoded_bytes().starts_with(b".wh.") {
                let reason = "names that begin with `.wh.` mean removal in an image; rename it or ignore it";
                return Err(ListError::Refused(format!("{} cannot be copied: {reason}", full.display())));
            }
            if meta.is_dir() {
                let at = self.listing.files.len();
                self.directory(&path, &ignore.deeper(self.source, &path)?, looked_into)?;
                // A directory that is excluded is there only for what is kept in it.
                if excluded.is_none() || self.listing.files.len() > at {
                    self.listing.files.insert(at, Found { path, meta });
                }
            } else if meta.is_file() || meta.is_symlink() {
                self.listing.files.push(Found { path, meta });
            }
            if self.listing.files.len() as u64 > self.most {
                let reason = format!("{} has more than {} files", self.source.display(), self.most);
                return Err(ListError::Refused(reason));
            }
        }
        Ok(())
    }
}

/// Says what stays out, by reason, and what looks like a secret and does not.
fn tell(listing: &Listing, source: &Path, progress: &Progress) {
    for reason in [Reason::EnvFile, Reason::Named, Reason::Git, Reason::Ignored, Reason::MadeAnew] {
        let paths: Vec<&Path> =
            listing.left_out.iter().filter(|(_, r)| *r == reason).map(|(path, _)| path.as_path()).collect();
        if !paths.is_empty() {
            let text = format!("left out of the image, {reason}: {}", listed(&paths));
            progress.report(|| Event::Notice { text });
        }
    }
    let files = listing.files.iter().filter(|file| file.meta.is_file());
    let secret: Vec<&Path> = files
        .filter(|file| suspicious::may_be_secret(source, &file.path, file.meta.len()))
        .map(|file| file.path.as_path())
        .collect();
    if !secret.is_empty() {
        let text = format!(
            "the image contains files that look like secrets, readable by everybody who has the image: {}; name them in .dockerignore, or in .gitignore, to leave them out",
            listed(&secret)
        );
        progress.report(|| Event::Warning { text });
    }
}

/// `a, b and 3 more`
fn listed(paths: &[&Path]) -> String {
    let shown: Vec<String> = paths.iter().take(MAX_NAMED).map(|path| path.display().to_string()).collect();
    match paths.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn secrets_stay_out_and_the_build_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            (".git/HEAD", "x"),
            (".gitignore", "/dist\n*.tmp\n/local\n"),
            (".dockerignore", "docs\n!docs/kept.md\n!dist\n"),
            (".env", "A=1"),
            ("api/.env", "A=1"),
            ("api/.gitignore", "own.txt\n"),
            ("api/own.txt", "x"),
            ("api/main.py", "x"),
            ("a.tmp", "x"),
            ("dist/app.js", "x"),
            ("docs/kept.md", "x"),
            ("docs/other.md", "x"),
            ("local/key", "x"),
            ("node_modules/a.js", "x"),
            ("other.env", "A=1"),
            ("prod.env", "A=1"),
            ("real-token", "x"),
            ("yado-overlay.yaml", "x"),
            ("Procfile", "web: run"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        std::os::unix::fs::symlink("real-token", dir.path().join("token")).expect("a link");
        let source = dir.path().canonicalize().expect("a path");
        let named =
            [source.join("prod.env"), PathBuf::from("token"), PathBuf::from("/elsewhere"), source.clone()];
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let progress = Progress::new(move |event| match event {
            Event::Notice { text } => sink.lock().expect("no panic").push(text),
            Event::Warning { text } => sink.lock().expect("no panic").push(format!("warning: {text}")),
            _ => {}
        });
        let left_out = LeftOut { of_plan: &["node_modules"], named: &named };
        let Ok(listing) = list(&source, left_out, 100, &progress) else { panic!("the directory is listed") };
        tell(&listing, &source, &progress);
        let files: Vec<String> = listing.files.iter().map(|f| f.path.display().to_string()).collect();
        assert_eq!(
            files,
            [
                ".dockerignore",
                ".gitignore",
                "Procfile",
                "api",
                "api/.gitignore",
                "api/main.py",
                "dist",
                "dist/app.js",
                "docs",
                "docs/kept.md",
                "other.env"
            ]
        );
        assert_eq!(
            *said.lock().expect("no panic"),
            [
                "left out of the image, an env file: .env, api/.env",
                "left out of the image, an env file or secret of the description: prod.env, real-token, token",
                "left out of the image, named by .gitignore: a.tmp, api/own.txt, local",
                "left out of the image, named by .dockerignore or .slugignore: docs",
                "left out of the image, recreated by the build: node_modules",
                "warning: the image contains files that look like secrets, readable by everybody who has the image: other.env; name them in .dockerignore, or in .gitignore, to leave them out",
            ]
        );
        assert!(list(&source, left_out, 3, &progress).is_err(), "more files than allowed");
    }
}

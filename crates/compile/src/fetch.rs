//! Fetches remote dependencies and imports into the directory of the compiled application:
//!
//! ```text
//! .yado/deps/mongodb/          an application, under its own name
//! .yado/imports/shared/        what an `import` named
//! .yado/deps/sources.json      address and commit of each
//! ```
//!
//! A source is kept between runs. It is fetched again if its address changes, for example its `?ref=`, or if
//! [`Options::update`](crate::Options::update) is set. A folder is moved to its place by one rename, so that it is never
//! incomplete.

mod archive;
mod http;
mod known;
mod program;
pub(crate) mod source;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::source::{Located, Remote, Tool};
use crate::{Event, Events};

/// Limit of consecutive redirects: a page may name another page as its source.
const MAX_HOPS: usize = 5;
/// Limit of imports that have the same folder name.
const MAX_SAME_NAMES: usize = 100;

/// The purpose of a source, which determines its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Dependency,
    Import,
}

/// Returns the name of the application in a directory, if its description has one.
pub(crate) type AppName = fn(&Path) -> Option<String>;

/// Fetches sources during one compilation, each source once.
pub(crate) struct Fetcher {
    /// Names the folders of dependencies.
    app_name: AppName,
    /// The directory `.yado` of the compiled application.
    home: PathBuf,
    update: bool,
    events: Events,
    index: Option<Index>,
    /// Results of earlier requests in this compilation, by address.
    asked: HashMap<String, Result<PathBuf, String>>,
    /// Repositories and archives fetched by this compilation, with their commit or checksum.
    checkouts: HashMap<String, Result<(PathBuf, String), String>>,
    /// The lock and scratch directory, so that concurrent compilations of one application do not interfere.
    scratch: Option<Scratch>,
}

/// Content of `sources.json`: folders by address.
#[derive(Default, Serialize, Deserialize)]
struct Index(BTreeMap<String, Entry>);

#[derive(Serialize, Deserialize)]
struct Entry {
    /// The folder, relative to `.yado`.
    folder: String,
    /// The commit or checksum.
    #[serde(default)]
    revision: String,
}

/// The directory for incomplete folders, and its lock. Dropping it removes the directory.
struct Scratch {
    path: PathBuf,
    _lock: fs::File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Files that cannot be removed now are removed by the next fetch.
        drop(fs::remove_dir_all(&self.path));
    }
}

impl Fetcher {
    /// A fetcher for the application in `directory`.
    pub fn new(directory: &Path, update: bool, events: &Events, app_name: AppName) -> Self {
        Fetcher {
            app_name,
            home: directory.join(".yado"),
            update,
            events: events.clone(),
            index: None,
            asked: HashMap::new(),
            checkouts: HashMap::new(),
            scratch: None,
        }
    }

    /// The directory that contains all fetched folders.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the directory of `remote`, fetching it if necessary. An error is the predicate of a sentence whose subject
    /// is the address.
    pub fn directory(&mut self, remote: &Remote, purpose: Purpose) -> Result<PathBuf, String> {
        let key = remote.to_string();
        if let Some(known) = self.asked.get(&key) {
            return known.clone();
        }
        let directory = self.kept(&key).map_or_else(|| self.fetch(remote, &key, purpose), Ok);
        self.asked.insert(key, directory.clone());
        directory
    }

    /// The folder fetched by an earlier run, if it may be used.
    fn kept(&mut self, key: &str) -> Option<PathBuf> {
        let folder = self.index().0.get(key)?.folder.clone();
        let path = self.home.join(folder);
        (!self.update && path.is_dir()).then_some(path)
    }

    fn index_path(&self) -> PathBuf {
        self.home.join("deps/sources.json")
    }

    fn index(&mut self) -> &mut Index {
        let path = self.index_path();
        // If the index is unreadable, everything is fetched again, which rewrites it.
        let read =
            || fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        self.index.get_or_insert_with(read)
    }

    fn fetch(&mut self, remote: &Remote, key: &str, purpose: Purpose) -> Result<PathBuf, String> {
        self.lock()?;
        self.events.emit(&Event::Fetching { url: key.to_string() });
        let scratch = self.scratch_path();
        let ready = scratch.join("ready");
        drop(fs::remove_dir_all(&ready));
        let revision = match known::files(remote) {
            Some(files) => {
                fs::create_dir_all(&ready).map_err(|e| format!("cannot make {}: {e}", ready.display()))?;
                for (name, text) in files {
                    fs::write(ready.join(name), text).map_err(|e| format!("cannot write {name}: {e}"))?;
                }
                "built in".to_string()
            }
            None => {
                let (whole, revision) = self.checkout(remote)?;
                archive::copy(&part(&whole, remote)?, &ready)?;
                revision
            }
        };
        let folder = self.folder(&ready, remote, key, purpose)?;
        self.put(&ready, &folder)?;
        self.index().0.retain(|_, entry| entry.folder != folder);
        self.index().0.insert(key.to_string(), Entry { folder: folder.clone(), revision });
        self.write_index()?;
        Ok(self.home.join(folder))
    }

    /// Fetches the whole repository or archive that contains `remote`.
    fn checkout(&mut self, remote: &Remote) -> Result<(PathBuf, String), String> {
        let whole = remote.whole();
        let key = whole.to_string();
        if let Some(known) = self.checkouts.get(&key) {
            return known.clone();
        }
        let scratch = self.scratch_path();
        let into = scratch.join(format!("checkout-{}", self.checkouts.len()));
        let fetched = fetch_whole(&whole, &into, &scratch);
        self.checkouts.insert(key, fetched.clone());
        fetched
    }

    fn scratch_path(&self) -> PathBuf {
        self.home.join("deps/.fetching")
    }

    fn lock(&mut self) -> Result<(), String> {
        if self.scratch.is_some() {
            return Ok(());
        }
        let path = self.scratch_path();
        let cannot =
            |e: std::io::Error| format!("cannot be kept in {}: {e}", self.home.join("deps").display());
        fs::create_dir_all(self.home.join("deps")).map_err(cannot)?;
        ignore_in_git(&self.home).map_err(cannot)?;
        let lock = fs::File::create(self.home.join("deps/.lock")).map_err(cannot)?;
        // Waits for another compilation of this application; fetching has a timeout, so the wait is bounded.
        lock.lock().map_err(cannot)?;
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).map_err(cannot)?;
        self.index = None;
        self.scratch = Some(Scratch { path, _lock: lock });
        Ok(())
    }

    /// Chooses the folder for the fetched directory `ready`: the folder of an application has the application's name.
    fn folder(
        &mut self,
        ready: &Path,
        remote: &Remote,
        key: &str,
        purpose: Purpose,
    ) -> Result<String, String> {
        let named = match purpose {
            Purpose::Dependency => (self.app_name)(ready),
            Purpose::Import => None,
        };
        let name = folder_name(named.as_deref().unwrap_or(remote.base()));
        let parent = if purpose == Purpose::Dependency { "deps" } else { "imports" };
        let folder = format!("{parent}/{name}");
        let Some(other) = self.used_by_other(&folder, key) else { return Ok(folder) };
        if purpose == Purpose::Dependency {
            return Err(format!(
                "is an application called {name}, as {other} is: two of one name cannot run beside each other, so rename one"
            ));
        }
        (2..MAX_SAME_NAMES)
            .map(|i| format!("{folder}-{i}"))
            .find(|folder| self.used_by_other(folder, key).is_none())
            .ok_or_else(|| format!("has too many others called {name} beside it"))
    }

    /// The other source that uses `folder` in this compilation.
    fn used_by_other(&mut self, folder: &str, key: &str) -> Option<String> {
        let owners: Vec<String> = self
            .index()
            .0
            .iter()
            .filter(|(_, entry)| entry.folder == folder)
            .map(|(k, _)| k.clone())
            .collect();
        owners.into_iter().find(|owner| owner != key && self.asked.contains_key(owner))
    }

    fn put(&self, ready: &Path, folder: &str) -> Result<(), String> {
        let (place, old) = (self.home.join(folder), self.scratch_path().join("old"));
        let cannot = |e: std::io::Error| format!("cannot be put into {}: {e}", place.display());
        fs::create_dir_all(place.parent().unwrap_or(&place)).map_err(cannot)?;
        drop(fs::remove_dir_all(&old));
        match fs::rename(&place, &old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot(e)),
            _ => {}
        }
        fs::rename(ready, &place).map_err(cannot)
    }

    fn write_index(&mut self) -> Result<(), String> {
        let (path, next) = (self.index_path(), self.scratch_path().join("sources.json"));
        let cannot = |e: std::io::Error| format!("cannot be noted in {}: {e}", path.display());
        // Strings in a map are always JSON.
        let text = serde_json::to_string_pretty(self.index()).unwrap_or_default();
        fs::write(&next, text + "\n").map_err(cannot)?;
        fs::rename(&next, &path).map_err(cannot)
    }
}

/// Fetches `remote` as a whole into `into`, following pages that name another source. Returns the directory and the
/// commit or checksum.
fn fetch_whole(remote: &Remote, into: &Path, scratch: &Path) -> Result<(PathBuf, String), String> {
    let mut remote = remote.clone();
    for _ in 0..MAX_HOPS {
        if remote.tool != Tool::Http {
            let revision = program::fetch(&remote, into, scratch)?;
            return Ok((named_part(into, &remote)?, revision));
        }
        match http::fetch(&remote, into, scratch)? {
            http::Fetched::Unpacked(sum) => return Ok((named_part(into, &remote)?, sum)),
            http::Fetched::Redirect(named) => match source::locate(&named) {
                Ok(Located::Remote(next)) => remote = next,
                Ok(Located::Local { .. }) => {
                    return Err(format!("the page names \"{named}\", which is not a valid address"));
                }
                Err(sentence) => return Err(format!("the page names \"{named}\": {sentence}")),
            },
        }
    }
    Err(format!("the pages name one another, {MAX_HOPS} in a row and no end"))
}

/// The directory that a page's address selects in the fetched source; the whole source if it selects none.
fn named_part(whole: &Path, remote: &Remote) -> Result<PathBuf, String> {
    if remote.subdir.is_some() { part(whole, remote) } else { Ok(whole.into()) }
}

/// The directory that `remote` selects in `whole`. A `*` matches exactly one directory. An archive with a single top
/// directory stands for that directory.
fn part(whole: &Path, remote: &Remote) -> Result<PathBuf, String> {
    let mut path = whole.to_path_buf();
    let Some(subdir) = &remote.subdir else {
        let appfile = ["Appfile", "Procfile"].iter().any(|name| path.join(name).is_file());
        if remote.tool == Tool::Http && !appfile {
            let mut entries = fs::read_dir(&path).map_err(|e| format!("cannot be read: {e}"))?.flatten();
            let only = entries.next().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink());
            if let (Some(only), None) = (only, entries.next()) {
                return Ok(only);
            }
        }
        return Ok(path);
    };
    for word in subdir.split('/').filter(|w| !w.is_empty() && *w != ".") {
        path = match word.split_once('*') {
            Some((before, after)) => {
                let fits = |p: &PathBuf| {
                    let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    p.is_dir() && name.starts_with(before) && name.ends_with(after)
                };
                let entries = fs::read_dir(&path).map_err(|e| format!("cannot be read: {e}"))?;
                let found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(fits).collect();
                match &found[..] {
                    [one] => one.clone(),
                    other => return Err(format!("has {} directories that fit {word}, not one", other.len())),
                }
            }
            None => path.join(word),
        };
        if path.is_symlink() || !path.is_dir() {
            return Err(format!("has no directory {subdir}"));
        }
    }
    Ok(path)
}

/// Writes a `.gitignore` for fetched and generated files into `.yado`, unless there is one.
pub(crate) fn ignore_in_git(home: &Path) -> std::io::Result<()> {
    let path = home.join(".gitignore");
    if path.exists() { Ok(()) } else { fs::write(path, "/deps/\n/imports/\n/secrets.json\n") }
}

/// Converts a name to a folder name without a leading dot, which is reserved for the fetcher's own files.
fn folder_name(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.trim().chars().map(keep).take(100).collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() || name == "sources.json" { "unnamed".into() } else { name.into() }
}

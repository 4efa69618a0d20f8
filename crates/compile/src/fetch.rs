//! Dependencies and imports that are elsewhere.
//!
//! What is fetched lies in the directory of the application that was asked for:
//!
//! ```text
//! .yado/deps/mongodb/          an application, under its own name
//! .yado/imports/shared/        what an `import` named
//! .yado/deps/sources.json      where each came from, and which commit it is
//! ```
//!
//! It stays there between runs, and is fetched anew when its address changes, such as its `?ref=`, or when
//! [`Options::update`](crate::Options::update) asks. A folder is put in its place in one step, so that what is there
//! is always whole.

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

/// A page may name another page as its source; more than a few in a row is a loop.
const MAX_HOPS: usize = 5;
/// Folders of one name that different imports may want, before something is wrong.
const MAX_SAME_NAMES: usize = 100;

/// What is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Dependency,
    Import,
}

/// Fetches for one compilation, each source once.
pub(crate) struct Fetcher {
    /// `.yado`, below the application that was asked for.
    home: PathBuf,
    update: bool,
    events: Events,
    index: Option<Index>,
    /// Sources that this compilation has asked for already.
    asked: HashMap<String, Result<PathBuf, String>>,
    /// Whole repositories and archives that this compilation has fetched, and what each one is a state of.
    checkouts: HashMap<String, Result<(PathBuf, String), String>>,
    /// Held while anything is fetched, so that two compilations of one application do not mix.
    scratch: Option<Scratch>,
}

/// Where each folder came from.
#[derive(Default, Serialize, Deserialize)]
struct Index(BTreeMap<String, Entry>);

#[derive(Serialize, Deserialize)]
struct Entry {
    /// The folder, from `.yado`.
    folder: String,
    /// The commit or checksum.
    #[serde(default)]
    revision: String,
}

/// The directory for what is half done, and its lock. It is removed in the end.
struct Scratch {
    path: PathBuf,
    _lock: fs::File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next fetch.
        drop(fs::remove_dir_all(&self.path));
    }
}

impl Fetcher {
    /// A fetcher for the application in `directory`.
    pub fn new(directory: &Path, update: bool, events: &Events) -> Self {
        Fetcher {
            home: directory.join(".yado"),
            update,
            events: events.clone(),
            index: None,
            asked: HashMap::new(),
            checkouts: HashMap::new(),
            scratch: None,
        }
    }

    /// The directory below which everything that is fetched lies.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory in which `remote` is, after fetching it where it is not here yet. The sentence of an error
    /// follows the address.
    pub fn directory(&mut self, remote: &Remote, purpose: Purpose) -> Result<PathBuf, String> {
        let key = remote.to_string();
        if let Some(known) = self.asked.get(&key) {
            return known.clone();
        }
        let directory = self.kept(&key).map_or_else(|| self.fetch(remote, &key, purpose), Ok);
        self.asked.insert(key, directory.clone());
        directory
    }

    /// The folder of an earlier run.
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
        // Without a readable index, everything is fetched anew: that mends it.
        let read =
            || fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        self.index.get_or_insert_with(read)
    }

    fn fetch(&mut self, remote: &Remote, key: &str, purpose: Purpose) -> Result<PathBuf, String> {
        self.lock()?;
        self.events.tell(&Event::Fetching { url: key.to_string() });
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

    /// The whole of what `remote` is a part of.
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
        // Waits for another compilation of this application, which ends as its fetching is bounded.
        lock.lock().map_err(cannot)?;
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).map_err(cannot)?;
        self.index = None;
        self.scratch = Some(Scratch { path, _lock: lock });
        Ok(())
    }

    /// The folder for what is `ready`: an application's is called as the application is.
    fn folder(
        &mut self,
        ready: &Path,
        remote: &Remote,
        key: &str,
        purpose: Purpose,
    ) -> Result<String, String> {
        let named = match purpose {
            Purpose::Dependency => crate::appfile::name_in(ready),
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

    /// Another source that this compilation has in `folder`.
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

/// Fetches all of `remote` into `into`, following pages that name another source; what it is a state of.
fn fetch_whole(remote: &Remote, into: &Path, scratch: &Path) -> Result<(PathBuf, String), String> {
    let mut remote = remote.clone();
    for _ in 0..MAX_HOPS {
        if remote.tool != Tool::Http {
            let revision = program::fetch(&remote, into, scratch)?;
            return Ok((named_part(into, &remote)?, revision));
        }
        match http::fetch(&remote, into, scratch)? {
            http::Answer::Unpacked(sum) => return Ok((named_part(into, &remote)?, sum)),
            http::Answer::Elsewhere(named) => match source::locate(&named) {
                Ok(Located::Remote(next)) => remote = next,
                Ok(Located::Local { .. }) => {
                    return Err(format!("the page names \"{named}\", which is no address"));
                }
                Err(sentence) => return Err(format!("the page names \"{named}\": {sentence}")),
            },
        }
    }
    Err(format!("the pages name one another, {MAX_HOPS} in a row and no end"))
}

/// What a page's address means of what it names; all of it where the address names no directory.
fn named_part(whole: &Path, remote: &Remote) -> Result<PathBuf, String> {
    if remote.subdir.is_some() { part(whole, remote) } else { Ok(whole.into()) }
}

/// The directory in `whole` that `remote` means. A `*` stands for the one directory that fits; an archive that is one
/// directory is that directory.
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

/// Has git leave out what is fetched and made in the directory `.yado`, unless somebody has decided that already.
pub(crate) fn ignore_in_git(home: &Path) -> std::io::Result<()> {
    let path = home.join(".gitignore");
    if path.exists() { Ok(()) } else { fs::write(path, "/deps/\n/imports/\n/secrets.json\n") }
}

/// A name that is one folder, and none that begins with a dot, as the fetcher's own do.
fn folder_name(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.trim().chars().map(keep).take(100).collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() || name == "sources.json" { "unnamed".into() } else { name.into() }
}

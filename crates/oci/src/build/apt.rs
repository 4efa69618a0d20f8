//! Packages from the machine's own sources, by its own `apt-get`, with state kept in the store: nothing of the
//! machine's package management is changed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::chroot::{end_of, run};
use super::layers::{Build, Key};
use crate::image::{ImageError, ImageStore, IoContext as _, Result};

/// Where a Debian system says where its packages come from.
const SOURCES: &[&str] = &["sources.list", "sources.list.d", "preferences", "preferences.d"];
/// The machine's package lists.
const LISTS: &str = "/var/lib/apt/lists";

/// The package management of one store.
pub(super) struct Apt {
    dir: PathBuf,
    /// The lists in use: the machine's, or ours where those are missing or older.
    lists: PathBuf,
}

/// A package to install.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Package {
    /// As downloaded.
    pub(super) file: String,
    pub(super) size: u64,
    /// `SHA256:…`
    pub(super) hash: String,
}

impl Apt {
    pub(super) fn new(build: &Build<'_>) -> Result<Self> {
        let dir = build.store.dir().join("build/apt");
        for part in ["lists/partial", "cache/archives/partial", "cache/none/partial", "state"] {
            fs::create_dir_all(dir.join(part)).at("make the directory", dir.join(part))?;
        }
        let ours = dir.join("lists");
        let lists = match (newest(&ours), newest(Path::new(LISTS))) {
            (ours_time, Some(machine)) if ours_time.is_none_or(|ours| ours < machine) => PathBuf::from(LISTS),
            _ => ours,
        };
        Ok(Self { dir, lists })
    }

    /// Changes whenever the sources or their lists do.
    pub(super) fn fingerprint(&self) -> Result<String> {
        let mut key = Key::new("sources");
        for source in SOURCES {
            let path = Path::new("/etc/apt").join(source);
            for file in files(&path) {
                let content = fs::read(&file).at("read", &file)?;
                key = key.with(file.to_string_lossy().as_bytes()).with(content);
            }
        }
        for file in files(&self.lists) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with("Release") {
                let meta = fs::metadata(&file).at("look at", &file)?;
                key = key.with(format!("{name} {} {}", meta.len(), meta.mtime()));
            }
        }
        Ok(key.finish())
    }

    /// Where packages are downloaded to.
    pub(super) fn archives(&self) -> PathBuf {
        self.dir.join("cache/archives")
    }

    fn command(&self, status: &Path) -> Command {
        let mut command = Command::new("apt-get");
        command.args(self.options(status)).arg("-qq");
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Keep everything that `apt` reads and writes in the store.
    fn options(&self, status: &Path) -> Vec<OsString> {
        let mut options: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &Path| {
            let mut text = OsString::from(format!("{name}="));
            text.push(value);
            options.extend(["-o".into(), text]);
        };
        option("Dir::State", &self.dir.join("state"));
        option("Dir::State::status", status);
        option("Dir::State::extended_states", &self.dir.join("state/extended_states"));
        option("Dir::State::lists", &self.lists);
        option("Dir::Cache", &self.dir.join("cache"));
        option("Dir::Cache::srcpkgcache", &self.dir.join("cache/srcpkgcache.bin"));
        for setting in [
            // The store has one owner, and it builds one image at a time.
            "Debug::NoLocking=true",
            "APT::Install-Recommends=false",
            "APT::Install-Suggests=false",
            "APT::Sandbox::User=root",
            "APT::Get::Assume-Yes=true",
            // `apt` itself is not part of an image.
            "pkgCacheGen::ForceEssential=,",
            "Acquire::ForceHash=SHA256",
            "Acquire::Languages=none",
            // Of two caches the one without the installed packages serves every step.
            "Dir::Cache::pkgcache=",
            // Short of what `apt-get` would wait: without a network, each of some dozen files would take its time.
            "Acquire::Retries=1",
            "Acquire::Retries::Delay::Maximum=1",
            "Acquire::http::Timeout=20",
            "Acquire::https::Timeout=20",
            // What the machine wants done after its own installations does not concern these.
            "Dir::Etc::aptlisten=/dev/null",
        ] {
            options.extend(["-o".into(), setting.into()]);
        }
        options
    }

    /// Fetches the package lists into the store.
    pub(super) fn update(&mut self, build: &Build<'_>, step: &'static str) -> Result<()> {
        build.running(step, "fetching package lists");
        self.lists = self.dir.join("lists");
        let mut command = self.command(Path::new("/dev/null"));
        command.arg("update");
        let (_, tail) = run(command, Stdio::null(), &self.dir.join("log"), build.progress)?;
        // One source of several that cannot be reached must not stop the others.
        match newest(&self.lists) {
            Some(_) => Ok(()),
            None => Err(build.failed(unreachable(&tail).unwrap_or_else(|| {
                let story = end_of(&tail);
                format!("no package list could be fetched from the sources in /etc/apt; check the network ({story})")
            }))),
        }
    }

    /// What installing `names` over `status` (a dpkg status file) takes, in the order of installation.
    pub(super) fn resolve(
        &mut self,
        build: &Build<'_>,
        step: &'static str,
        status: &Path,
        names: &[String],
    ) -> Result<Vec<Package>> {
        if newest(&self.lists).is_none() {
            self.update(build, step)?;
        }
        build.running(step, "choosing package versions");
        let log = self.dir.join("log");
        let names = self.choose(build, names)?;
        let mut command = self.command(status);
        // What an earlier build has downloaded and could not set up is left out of the list otherwise.
        let mut none = OsString::from("Dir::Cache::archives=");
        none.push(self.dir.join("cache/none"));
        command.arg("-o").arg(none);
        command.args(["--print-uris", "install", "--"]).args(names);
        let (status, tail) = run(command, Stdio::null(), &log, build.progress)?;
        if !status.success() {
            return Err(build.failed(explain(&tail)));
        }
        let text = fs::read_to_string(&log).at("read", &log)?;
        Ok(text.lines().filter_map(parse_uri).collect())
    }

    /// Of `a|b`, which stands for whichever is there, the first that is.
    fn choose(&self, build: &Build<'_>, names: &[String]) -> Result<Vec<String>> {
        names.iter().map(|name| self.choose_one(build, name)).collect()
    }

    fn choose_one(&self, build: &Build<'_>, name: &str) -> Result<String> {
        // A pattern of `apt` such as `?essential` is no choice.
        let Some((first, mut others)) = name.split_once('|') else { return Ok(name.to_owned()) };
        let mut candidate = first;
        loop {
            let mut command = Command::new("apt-cache");
            command.args(self.options(Path::new("/dev/null"))).args(["show", "--quiet", "--", candidate]);
            let (status, _) = run(command, Stdio::null(), &self.dir.join("log"), build.progress)?;
            if status.success() || others.is_empty() {
                return Ok(candidate.to_owned());
            }
            (candidate, others) = others.split_once('|').unwrap_or((others, ""));
        }
    }

    /// Downloads what [`Apt::resolve`] gave, verified by `apt-get` against the signed lists. Where a newer list could
    /// help it is no failure yet: the reason is given.
    pub(super) fn download(
        &self,
        build: &Build<'_>,
        step: &'static str,
        status: &Path,
        names: &[String],
        packages: &[Package],
    ) -> Result<Option<ImageError>> {
        let here =
            |p: &&Package| fs::metadata(self.archives().join(&p.file)).is_ok_and(|meta| meta.len() == p.size);
        let missing: Vec<&Package> = packages.iter().filter(|p| !here(p)).collect();
        let bytes: u64 = missing.iter().map(|p| p.size).sum();
        if !missing.is_empty() {
            let megabytes = bytes.div_ceil(1_000_000);
            build.running(step, format!("downloading {} packages ({megabytes} MB)", missing.len()));
        }
        let mut command = self.command(status);
        command.args(["--download-only", "install", "--"]).args(self.choose(build, names)?);
        let (status, tail) = run(command, Stdio::null(), &self.dir.join("log"), build.progress)?;
        if !status.success() {
            return match unreachable(&tail) {
                Some(reason) => Err(build.failed(reason)),
                None => Ok(Some(build.failed(explain(&tail)))),
            };
        }
        let missed = packages.iter().find(|p| !here(p));
        Ok(missed.map(|p| build.failed(format!("`apt-get` did not download {}", p.file))))
    }

    /// Removes downloaded packages: once they are in a layer they are not needed again.
    pub(super) fn forget(&self, packages: &[Package]) -> Result<()> {
        for package in packages {
            let path = self.archives().join(&package.file);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ImageError::io("remove", &path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Removes every downloaded package and what `apt` has worked out: a full disk needs the room.
pub(super) fn forget_downloads(store: &ImageStore) {
    let cache = store.dir().join("build/apt/cache");
    for file in files(&cache)
        .into_iter()
        .chain(files(&cache.join("archives")))
        .chain(files(&cache.join("archives/partial")))
    {
        // What cannot be removed now is overwritten by the next build.
        let _ = fs::remove_file(file);
    }
}

/// A line of `--print-uris`: `'http://…/x.deb' x.deb 1234 SHA256:…`
fn parse_uri(line: &str) -> Option<Package> {
    let mut words = line.strip_prefix('\'')?.split_once('\'')?.1.split_whitespace();
    let (file, size) = (words.next()?, words.next()?.parse().ok()?);
    Some(Package { file: file.to_owned(), size, hash: words.next().unwrap_or_default().to_owned() })
}

/// What `apt-get` says, with what to do about the usual causes.
fn explain(tail: &str) -> String {
    let missing = tail.split("Unable to locate package ").nth(1).and_then(|rest| {
        let name = rest.split([';', ' ', '\n']).next()?;
        (!name.is_empty()).then_some(name)
    });
    match missing {
        Some(name) => format!(
            "no package `{name}` is in this machine's package sources; check its name, or run `apt-get update`"
        ),
        None => format!("`apt-get` could not provide the packages: {}", end_of(tail)),
    }
}

/// Where there is no network, one source tells as much as all of them.
fn unreachable(tail: &str) -> Option<String> {
    let signs = [
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect to",
        "Cannot initiate the connection",
        "Network is unreachable",
        "Unable to connect to",
        "Connection failed",
        "Connection timed out",
    ];
    let at = signs.iter().filter_map(|sign| tail.find(sign)).min()?;
    let said = tail[at..].lines().next().unwrap_or_default();
    let said: String = said.split(" - ").next().unwrap_or(said).chars().take(100).collect();
    Some(format!(
        "Debian's packages cannot be fetched from the sources in /etc/apt ({}); check the network and the proxy settings",
        said.trim()
    ))
}

/// When the newest of the package lists was made, in seconds since the Unix epoch.
fn newest(lists: &Path) -> Option<i64> {
    let packages = |p: &PathBuf| p.to_string_lossy().contains("_Packages");
    if !files(lists).iter().any(packages) {
        return None;
    }
    let release = |p: &PathBuf| p.to_string_lossy().ends_with("Release");
    files(lists).iter().filter(|p| release(p)).filter_map(|p| fs::metadata(p).ok()).map(|m| m.mtime()).max()
}

/// A file, or the files of a directory in the order of their names; nothing where it is absent.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_apt() {
        let line = "'http://mirror.example/debian/pool/main/z/zlib/zlib1g_1%3a1.2.13_amd64.deb' \
                    zlib1g_1%3a1.2.13_amd64.deb 86684 SHA256:d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4";
        let package = parse_uri(line).unwrap();
        assert_eq!((package.file.as_str(), package.size), ("zlib1g_1%3a1.2.13_amd64.deb", 86684));
        assert_eq!(parse_uri("Reading package lists..."), None);
        assert!(explain("E: Unable to locate package no-such; E: x").contains("no package `no-such` is in"));
        assert_eq!(
            unreachable(
                "Err:1 http://d.example/debian x\n  Temporary failure resolving 'd.example'\nE: more"
            )
            .unwrap(),
            "Debian's packages cannot be fetched from the sources in /etc/apt (Temporary failure resolving \
             'd.example'); check the network and the proxy settings"
        );
        assert_eq!(unreachable("E: Failed to fetch x  404  Not Found"), None);
        assert!(explain("E: Failed to fetch http://x").contains("Failed to fetch"));
    }
}

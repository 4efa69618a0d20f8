//! What building a language's sources takes, as data: [`super::language`] says it, [`super::workshop`] does it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::image::{ImageError, IoContext as _, Result};
use yado_types::procfile::ProcessType;

/// Lock files of large applications have some megabytes; a larger file is something else.
const MAX_FILE: u64 = 16 << 20;
/// Searches end here: settings and entry points lie near the top.
const MAX_DEPTH: usize = 3;
/// Of larger trees only this many files are looked at.
const MAX_SEARCHED: usize = 5000;

/// How sources become an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Debian packages that the image has.
    pub(super) runtime: Vec<String>,
    /// Debian packages that the steps need beside those.
    pub(super) tools: Vec<String>,
    /// Further ones, for a second try at a step that failed without them: compilers take long to install, and most
    /// applications need none.
    pub(super) compilers: Vec<String>,
    /// Before the sources are there, with the manifests of dependencies only.
    pub(super) before: Vec<Step>,
    /// With the sources in `/app`.
    pub(super) after: Vec<Step>,
    /// Paths of the sources that are made anew by the steps.
    pub(super) ignored: Vec<&'static str>,
    /// First directories of the image's `PATH`.
    pub(super) path: Vec<&'static str>,
    /// Environment of the image.
    pub(super) env: Vec<(&'static str, String)>,
    /// Labels of the image.
    pub(super) labels: Vec<(&'static str, String)>,
    /// Where nobody says how the application is started.
    pub(super) processes: Vec<ProcessType>,
    /// The version that the sources ask for.
    pub(super) wanted: Option<Wanted>,
}

/// Something that is run with the tools, and what it makes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Step {
    /// `dependencies`, `compile`.
    pub(super) name: &'static str,
    /// What this step does, for a line of progress.
    pub(super) doing: &'static str,
    /// Where it is run.
    pub(super) dir: &'static str,
    /// Files that are there for it, by their absolute paths.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// Links that are there for it: path and target.
    pub(super) links: Vec<(&'static str, &'static str)>,
    /// Run by `sh -e`, as the user `app`.
    pub(super) script: String,
    /// What is kept: paths from the root, made as directories of `app` before, or a link's or a file's path.
    pub(super) outputs: Vec<&'static str>,
    /// Serves later steps and is no part of the image.
    pub(super) staged: bool,
    /// Where this fails the image goes without it, and a warning says so.
    pub(super) optional: bool,
    /// Environment.
    pub(super) env: Vec<(&'static str, String)>,
}

/// A version that a file asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// The file, from the sources' top.
    pub(super) file: &'static str,
    /// The language by its own name.
    pub(super) what: &'static str,
    /// As written: `3.11.4`, `~> 2.7`, `>=18`, `18.x`.
    pub(super) version: String,
    /// The Debian package whose version counts.
    pub(super) package: &'static str,
}

impl Wanted {
    /// Judges by the first two numbers, or by the first where there is one only. Whatever is no plain version (a
    /// range, a name) is met by anything at least as new.
    pub(super) fn is_met_by(&self, installed: &str) -> bool {
        let numbers = |text: &str| -> Vec<u32> {
            text.split(|c: char| !c.is_ascii_digit())
                .filter(|w| !w.is_empty())
                .take(2)
                .flat_map(str::parse)
                .collect()
        };
        let (wanted, have) = (numbers(&self.version), numbers(installed));
        let plain = self.version.trim_start_matches(['v', '=']).starts_with(|c: char| c.is_ascii_digit());
        match (wanted.is_empty(), plain) {
            (true, _) => true,
            (false, true) => have.starts_with(&wanted),
            (false, false) => self.version.contains('<') || have >= wanted,
        }
    }
}

/// The version of a package in a dpkg status file, without epoch and revision.
pub(super) fn installed_version(status: &str, package: &str) -> Option<String> {
    let heading = format!("Package: {package}\n");
    let stanza = status.split("\n\n").find(|s| s.trim_start().starts_with(&heading))?;
    let version = stanza.lines().find_map(|line| line.strip_prefix("Version: "))?;
    let version = version.split_once(':').map_or(version, |(_, v)| v);
    Some(version.split(['-', '+', '~']).next().unwrap_or(version).to_owned())
}

/// A directory of sources, as those who plan see it.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    dir: PathBuf,
}

impl Sources {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// What the directory is called.
    pub(super) fn title(&self) -> String {
        self.dir.file_name().map_or_else(|| "app".to_owned(), |n| n.to_string_lossy().into_owned())
    }

    /// A file's path, for errors.
    pub(super) fn name(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.dir.join(file).is_file()
    }

    pub(super) fn has_dir(&self, name: &str) -> bool {
        self.dir.join(name).is_dir()
    }

    /// The first of these files that is there.
    pub(super) fn first<'n>(&self, files: &[&'n str]) -> Option<&'n str> {
        files.iter().copied().find(|file| self.has(file))
    }

    /// A file's content; `None` where it is absent.
    pub(super) fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(file);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(meta) if !meta.is_file() => {
                let error = io::Error::other("it is not a plain file");
                return Err(ImageError::io("read", &path, error));
            }
            Ok(meta) if meta.len() > MAX_FILE => {
                return Err(ImageError::TooLarge { what: path.display().to_string(), limit: MAX_FILE });
            }
            _ => {}
        }
        fs::read(&path).at("read", &path).map(Some)
    }

    /// A file's text; `None` where it is absent. What is no UTF-8 is replaced.
    pub(super) fn text(&self, file: &str) -> Result<Option<String>> {
        Ok(self.bytes(file)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// [`Sources::text`], empty where the file is absent.
    pub(super) fn text_or_empty(&self, file: &str) -> Result<String> {
        Ok(self.text(file)?.unwrap_or_default())
    }

    /// Those of the files that are there, under `into`.
    pub(super) fn files(&self, names: &[&str], into: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for name in names {
            if let Some(bytes) = self.bytes(name)? {
                files.push((format!("{into}/{name}"), bytes));
            }
        }
        Ok(files)
    }

    /// Paths of files near the top whose name `wanted` accepts, in order; hidden directories are not looked into.
    pub(super) fn search(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut dirs = vec![(PathBuf::new(), 0)];
        while let Some((dir, depth)) = dirs.pop() {
            let Ok(entries) = fs::read_dir(self.dir.join(&dir)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let (path, kind) = (dir.join(&name), entry.file_type());
                looked_at += 1;
                if looked_at > MAX_SEARCHED {
                    break;
                }
                let passed_over =
                    name.starts_with('.') || matches!(name.as_str(), "node_modules" | "vendor" | "target");
                match kind {
                    Ok(kind) if kind.is_dir() && depth + 1 < MAX_DEPTH && !passed_over => {
                        dirs.push((path, depth + 1))
                    }
                    Ok(kind) if kind.is_file() && wanted(&name) => found.push(path.display().to_string()),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }
}

/// One process type, `web`.
pub(super) fn web(command: impl Into<String>) -> Vec<ProcessType> {
    vec![ProcessType { name: "web".to_owned(), command: command.into() }]
}

/// Owned words.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_by_their_first_numbers() {
        let check = |version: &str, installed: &str, expect: bool| {
            let wanted = Wanted {
                file: "runtime.txt",
                what: "Python",
                version: version.to_owned(),
                package: "python3",
            };
            assert_eq!(wanted.is_met_by(installed), expect, "{version} {installed}");
        };
        check("3.11.4", "3.11.2", true);
        check("3.9.1", "3.11.2", false);
        check("18.x", "18.20.4", true);
        check("20", "18.20.4", false);
        check(">=16", "18.20.4", true);
        check(">= 20.1", "18.20.4", false);
        check("v18.1.0", "18.20.4", false);
        check("^18", "18.20.4", true);
        check(">=10 <15", "18.20.4", true);
        check("lts/*", "18.20.4", true);
    }

    #[test]
    fn installed_versions_are_read_from_the_status_file() {
        let status = "Package: a\nStatus: x\nVersion: 1:2.3.4+dfsg-5\n\nPackage: b\nVersion: 7\n";
        assert_eq!(installed_version(status, "a").as_deref(), Some("2.3.4"));
        assert_eq!(installed_version(status, "b").as_deref(), Some("7"));
        assert_eq!(installed_version(status, "c"), None);
    }
}

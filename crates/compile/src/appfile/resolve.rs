//! Resolves a `source` to a directory, on this machine or fetched.

use std::path::{Component, Path, PathBuf};

use super::Text;
use crate::{
    diagnostic::Findings,
    fetch::{
        Fetcher, Purpose,
        source::{Located, Remote, Tool, locate},
    },
};

/// Resolves sources during one compilation.
pub(super) struct Resolver {
    fetcher: Fetcher,
    /// Fetched directories and their remote sources.
    fetched: Vec<(PathBuf, Remote)>,
}

impl Resolver {
    pub fn new(fetcher: Fetcher) -> Self {
        Resolver { fetcher, fetched: Vec::new() }
    }

    /// Whether a canonical directory is, or is below, a fetched directory.
    pub fn is_fetched(&self, directory: &Path) -> bool {
        self.origin(directory).is_some()
    }

    fn origin(&self, directory: &Path) -> Option<&(PathBuf, Remote)> {
        self.fetched.iter().find(|(root, _)| directory.starts_with(root))
    }

    /// Resolves `source`, written in a file in the directory `from`. Errors are reported.
    pub fn directory(
        &mut self,
        source: &Text,
        from: &Path,
        purpose: Purpose,
        found: &mut Findings,
    ) -> Option<PathBuf> {
        let what = if purpose == Purpose::Dependency { "dependency" } else { "import" };
        let written = &source.value;
        match self.find(source, from, purpose, found) {
            Ok(directory) if directory.is_dir() => Some(directory),
            Ok(directory) => {
                let shown = directory.display();
                found.error(
                    &source.at,
                    format!("{what} \"{written}\" does not exist: there is no directory {shown}"),
                );
                None
            }
            Err(sentence) => {
                found.error(&source.at, format!("{what} \"{written}\" {sentence}"));
                None
            }
        }
    }

    fn find(
        &mut self,
        source: &Text,
        from: &Path,
        purpose: Purpose,
        found: &mut Findings,
    ) -> Result<PathBuf, String> {
        let (path, subdir, tool, revision) =
            match locate(&source.value).map_err(|e| format!("is not understood: {e}"))? {
                Located::Remote(remote) => return self.fetch(remote, purpose),
                Located::Local { path, subdir, tool, revision } => (path, subdir, tool, revision),
            };
        if let Some(remote) = self.beside(&path, from)? {
            return self.fetch(remote, purpose);
        }
        let root = clean(&from.join(&path));
        let repository =
            root.join(".git").exists() || root.join(".hg").exists() || root.join("HEAD").is_file();
        if let (Some(tool), true) = (tool, repository) {
            let address = root.canonicalize().map_err(|e| format!("cannot be read: {e}"))?;
            let address = format!("file://{}", address.display());
            let remote = Remote { tool, address, subdir, revision, archive: None, checksum: None };
            return self.fetch(remote, purpose);
        }
        if let Some(tool) = tool {
            let tool = if tool == Tool::Hg { "hg" } else { "git" };
            if let Some(revision) = revision {
                return Err(format!("is not a {tool} repository, so it has no {revision}"));
            }
            let what = if purpose == Purpose::Dependency { "dependency" } else { "import" };
            let written = &source.value;
            let sentence =
                format!("{what} \"{written}\" is read as the directory is: it is not a {tool} repository");
            found.warn(&source.at, sentence);
        }
        Ok(match subdir {
            Some(subdir) => clean(&root.join(subdir)),
            None => root,
        })
    }

    fn fetch(&mut self, remote: Remote, purpose: Purpose) -> Result<PathBuf, String> {
        let directory = self
            .fetcher
            .directory(&remote, purpose)
            .map_err(|e| format!("cannot be fetched: {e} ({remote})"))?;
        let canonical = directory.canonicalize().map_err(|e| format!("cannot be read: {e}"))?;
        if !self.fetched.iter().any(|(root, _)| *root == canonical) {
            self.fetched.push((canonical, remote));
        }
        Ok(directory)
    }

    /// Resolves a relative path in a fetched file that leaves its directory to another directory of the same repository.
    /// Fetched files must not refer to other paths on this machine.
    fn beside(&self, path: &str, from: &Path) -> Result<Option<Remote>, String> {
        let canonical = from.canonicalize().map_err(|e| format!("cannot be read: {e}"))?;
        let Some((root, remote)) = self.origin(&canonical) else { return Ok(None) };
        if path.starts_with('/') {
            return Err("is a path on this machine, which a fetched file must not name".into());
        }
        let own = remote.subdir.as_deref().unwrap_or_default();
        let mut parts: Vec<String> = own.split('/').filter(|p| !p.is_empty()).map(Into::into).collect();
        let depth = parts.len();
        parts.extend(
            canonical.strip_prefix(root).unwrap_or(Path::new("")).iter().map(|p| p.to_string_lossy().into()),
        );
        let mut left = false;
        for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            if part == ".." {
                if parts.pop().is_none() {
                    return Err(format!("leads out of what was fetched ({})", remote.whole()));
                }
            } else {
                parts.push(part.into());
            }
            left |= parts.len() < depth;
        }
        // A path that leaves the directory and returns refers to the directory itself.
        let back = parts.join("/") == own;
        let subdir = Some(parts.join("/")).filter(|s| !s.is_empty());
        Ok((left && !back).then(|| Remote { subdir, ..remote.clone() }))
    }
}

/// Cleans a path; an empty result becomes `.`.
fn clean(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().filter(|c| !matches!(c, Component::CurDir)).collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

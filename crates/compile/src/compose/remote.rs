//! Compose files in repositories elsewhere, as `include` and `extends` name them.
//!
//! | written | is |
//! |---|---|
//! | `https://host/o/r.git` | the compose file in the repository, at its main branch |
//! | `https://host/o/r.git#v1` | the same at a branch, tag or commit |
//! | `https://host/o/r.git#v1:sub`, `...#:sub/db.yaml` | a directory in it, or a file |
//! | `git@host:o/r.git`, `ssh://`, `git://`, `github.com/o/r` | the same, spoken otherwise |
//!
//! A repository is kept in `.yado/imports/`, as one that an Appfile imports is.

use std::path::PathBuf;

use super::find;
use crate::fetch::{
    Fetcher, Purpose,
    source::{Remote, Tool},
};

/// Whether a compose file is named by an address.
pub(super) fn is_remote(path: &str) -> bool {
    let schemes = ["oci://", "http://", "https://", "git://", "ssh://", "git@", "github.com/"];
    schemes.iter().any(|s| path.starts_with(s))
}

/// The compose file that `text` means, after fetching its repository where that is not here yet. The sentence of an
/// error follows the address.
pub(super) fn file(text: &str, fetcher: &mut Fetcher) -> Result<PathBuf, String> {
    let (remote, inside) = parse(text)?;
    let mut path =
        fetcher.directory(&remote, Purpose::Import).map_err(|e| format!("cannot be fetched: {e}"))?;
    let named = inside.unwrap_or_default();
    path.push(named);
    // What a link leads to may be anywhere on this machine.
    let here = path.canonicalize().map_err(|_| format!("has no {named} in it"))?;
    let home = fetcher.home().canonicalize().map_err(|e| format!("cannot be found again: {e}"))?;
    if !here.starts_with(home) {
        return Err(format!("has {named} only as a link that leads out of it"));
    }
    if path.is_dir() {
        return find(&path)
            .ok_or_else(|| "has no compose file there: name one, as in #main:sub/file.yaml".into());
    }
    Ok(path)
}

/// The repository, and what is meant in it.
fn parse(text: &str) -> Result<(Remote, Option<&str>), String> {
    if text.starts_with("oci://") {
        let sentence = "is in an image registry, which is not asked for compose files";
        return Err(format!("{sentence}: name a git repository or a file"));
    }
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let web = address.starts_with("http://") || address.starts_with("https://");
    if web && !address.ends_with(".git") {
        return Err(
            "is not a git repository, as its address does not end in .git: fetch it and name the file".into(),
        );
    }
    let address = match address.strip_prefix("github.com/") {
        Some(path) => format!("https://github.com/{}.git", path.trim_end_matches(".git")),
        None => address.to_string(),
    };
    let (revision, inside) = fragment.split_once(':').unwrap_or((fragment, ""));
    if revision.starts_with('-') {
        return Err(format!("names {revision:?}, which is not a valid branch, tag or commit"));
    }
    if inside.split('/').any(|part| part == "..") {
        return Err(format!("names {inside}, which leads out of it"));
    }
    let mut remote = Remote::new(Tool::Git, address);
    remote.revision = Some(revision.to_string()).filter(|r| !r.is_empty());
    Ok((remote, Some(inside.trim_start_matches('/')).filter(|i| !i.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: &str| {
            let shown = match parse(text) {
                Ok((remote, inside)) => format!("{remote} {}", inside.unwrap_or("-")),
                Err(sentence) => sentence,
            };
            assert_eq!(shown, expected, "{text}");
        };
        check("https://h/o/r.git", "git::https://h/o/r.git -");
        check("https://h/o/r.git#v1", "git::https://h/o/r.git?ref=v1 -");
        check("https://h/o/r.git#v1:a/b", "git::https://h/o/r.git?ref=v1 a/b");
        check("https://h/o/r.git#:c.yaml", "git::https://h/o/r.git c.yaml");
        check("github.com/o/r#main:sub", "git::https://github.com/o/r.git?ref=main sub");
        check("git@h:o/r.git#v1", "git::git@h:o/r.git?ref=v1 -");
        check("ssh://git@h/o/r", "git::ssh://git@h/o/r -");
        check("https://h/o/r.git#a:../x", "names ../x, which leads out of it");
        check("https://h/o/r.git#--x", "names \"--x\", which is not a valid branch, tag or commit");
        check(
            "https://h/c.yaml",
            "is not a git repository, as its address does not end in .git: fetch it and name the file",
        );
        check(
            "oci://h/o:1",
            "is in an image registry, which is not asked for compose files: name a git repository or a file",
        );
    }
}

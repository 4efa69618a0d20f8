//! Descriptions that are no file: standard input, and what an http(s) address answers with.
//!
//! The compiler reads files, and tells formats apart by their names. So such a text is put into a file for as long as
//! it is compiled: standard input's into the working directory, because paths in it are meant from there; a page's into
//! a directory of its own.

use std::{
    borrow::Cow,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use yado_compile::{Diagnostics, Position};

/// A description of a thousand services has some hundred thousand bytes; what is larger is something else.
const LARGEST: u64 = 16 << 20;
/// Timeout of a connection, and of each read from it.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as browsers follow.
const REDIRECTS: usize = 10;

/// A description as a file.
pub struct Found {
    path: PathBuf,
    /// What the user calls it, where that is not its path.
    name: Option<String>,
    /// Where files made from it belong, where that is not beside it.
    home: Option<PathBuf>,
    _kept: Option<Kept>,
}

impl Found {
    /// The file or directory to compile.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where files made from it belong, if not into its own directory.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Diagnostics that name it as the user does.
    pub fn renamed(&self, mut diagnostics: Diagnostics) -> Diagnostics {
        if let Some(name) = &self.name {
            for diagnostic in &mut diagnostics.0 {
                if *diagnostic.at.file == *self.path {
                    diagnostic.at = Position { file: Path::new(name).into(), ..diagnostic.at.clone() };
                }
            }
        }
        diagnostics
    }
}

/// A file or directory that goes when it is dropped.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        // Left behind it would disturb nobody.
        let _ =
            if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}

/// Finds what `path` names: as it is, or brought here.
///
/// # Errors
///
/// Standard input or the address cannot be read.
pub async fn find(path: &Path) -> anyhow::Result<Found> {
    if path == Path::new("-") {
        let text = read_stdin()?;
        return keep_here(&text).context("standard input cannot be kept in a file");
    }
    let Some(url) = url(path) else {
        return Ok(Found { path: path.into(), name: None, home: None, _kept: None });
    };
    let text = get(&url).await?;
    let directory = std::env::temp_dir().join(format!("yado-{}-{}", std::process::id(), random()?));
    std::fs::create_dir(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let kept = Kept(directory.clone());
    // As the address calls it, if that is a name that says what it is.
    let last = url.split(['?', '#']).next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let name = if says_its_format(last) { Cow::Borrowed(last) } else { format_of(&text).into() };
    let path = directory.join(&*name);
    std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(Found { path, name: Some(url), home: Some(PathBuf::from(".")), _kept: Some(kept) })
}

/// The address that a path is, if it is one.
pub fn url(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (text.starts_with("http://") || text.starts_with("https://")).then(|| text.to_owned())
}

/// All of standard input.
///
/// # Errors
///
/// It cannot be read, is no text, or is too much.
pub fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text);
    read.context("standard input cannot be read")?;
    anyhow::ensure!(
        text.len() as u64 <= LARGEST,
        "standard input is not a valid description: it is larger than 16 MiB"
    );
    Ok(text)
}

/// What an address answers with.
///
/// # Errors
///
/// One sentence with the address and the reason.
pub async fn get(url: &str) -> anyhow::Result<String> {
    let fetch = async {
        let client = reqwest::Client::builder()
            .user_agent(concat!("yado/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(HTTP_TIMEOUT)
            .read_timeout(HTTP_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .build()?;
        let mut answer = client.get(url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            anyhow::ensure!(
                bytes.len() as u64 <= LARGEST,
                "it is not a valid description: it is larger than 16 MiB"
            );
        }
        String::from_utf8(bytes).context("it is not valid UTF-8")
    };
    // The client's own sentence names the address once more, and has the reason beneath it.
    fetch
        .await
        .map_err(|error: anyhow::Error| anyhow::anyhow!("{url} cannot be read: {}", error.root_cause()))
}

/// Standard input's text as a file of the working directory, hidden and with a name of its own.
fn keep_here(text: &str) -> anyhow::Result<Found> {
    let here = PathBuf::from(".");
    // An Appfile of another name than `Appfile` says by its extension that it is one.
    let format = match format_of(text) {
        "Appfile" => "Appfile.hcl",
        format => format,
    };
    let name = format!(".stdin-{}-{}-{format}", std::process::id(), random()?);
    let mut path = PathBuf::from(&name);
    if std::fs::write(&path, text).is_err() {
        // A directory that may not be written to holds nothing that the text could mean, or it is read all the same.
        path = std::env::temp_dir().join(&name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let kept = Kept(path.clone());
    Ok(Found { path, name: Some("standard input".into()), home: Some(here), _kept: Some(kept) })
}

fn random() -> anyhow::Result<String> {
    // The kernel's own source; enough that two runs at once do not meet.
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("no name can be chosen")?;
    Ok(uuid.trim().chars().take(8).collect())
}

fn says_its_format(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    let known =
        ["yaml", "yml", "json", "hcl", "dab", "service", "timer", "socket", "mount", "target", "path"];
    ["Appfile", "Procfile"].contains(&name) || known.contains(&extension)
}

/// A file name that says what format `text` is in, by the first line that tells.
fn format_of(text: &str) -> &'static str {
    if text.trim_start().starts_with('{') {
        return if text.contains("\"Services\"") { "bundle.dab" } else { "manifest.json" };
    }
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        let top = !line.starts_with(char::is_whitespace);
        match word {
            "[Unit]" | "[Service]" | "[X-Fleet]" => return "stdin.service",
            "application" | "customization" | "project" | "infrastructure" | "import"
                if line.contains('{') || line.contains('"') =>
            {
                return "Appfile";
            }
            "apiVersion:" | "kind:" if top => return "manifest.yaml",
            "services:" | "version:" | "include:" if top => return "compose.yaml",
            _ => {}
        }
        // Version 1 of compose has its services at the top.
        if ["image:", "build:"].contains(&word) && !top {
            return "compose.yaml";
        }
    }
    // `web: COMMAND`, as nothing above it is.
    let process =
        |line: &str| line.split_once(": ").is_some_and(|(name, _)| !name.contains(char::is_whitespace));
    let mut lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).peekable();
    if lines.peek().is_some() && lines.all(process) { "Procfile" } else { "manifest.yaml" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_what_it_is() {
        for (text, expect) in [
            ("application {\n  name = \"a\"\n}\n", "Appfile"),
            ("# words\nversion: '3'\nservices:\n  a: {image: b}\n", "compose.yaml"),
            ("web:\n  image: a\n", "compose.yaml"),
            ("---\napiVersion: v1\nkind: Pod\n", "manifest.yaml"),
            ("{\"kind\": \"List\"}", "manifest.json"),
            ("{\"Services\": {}}", "bundle.dab"),
            ("[Unit]\nDescription=a\n", "stdin.service"),
            ("web: python3 app.py\nworker: run it\n", "Procfile"),
            ("", "manifest.yaml"),
        ] {
            assert_eq!(format_of(text), expect, "{text}");
        }
    }
}

//! Which files of a directory stay out of an image.
//!
//! | reason | what |
//! |---|---|
//! | always | `.git`; `.env` anywhere, as it holds settings that may be secret; Yado's own files |
//! | named | the env files and secrets that a description names, whatever their names |
//! | git | what `.gitignore` files name ([`git`]) |
//! | ignored | what `.dockerignore` and `.slugignore` name |
//! | made anew | what the language's tools make in the image |
//!
//! A line `!PATH` of the last two keeps what they leave out. It keeps what git leaves out only where it names that very
//! path: who writes `!dist` wants the folder that the build of another machine has filled.

mod git;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::image::{ImageError, IoContext as _, Result};
use git::GitRules;

/// Left out at the top of the sources: version control, and what describes the application to Yado. A change of the
/// latter is no change of the program.
const ALWAYS_AT_TOP: &[&str] = &[".git", "yado-overlay.yaml", "Appfile", ".ottoid"];
/// Left out anywhere: each part of an application may have its own settings, and our output, which may hold secrets.
const ALWAYS_ANYWHERE: &[&str] = &[".env", ".yado"];
/// An ignore file is a few lines; a larger one is a mistake.
const MAX_PATTERNS: usize = 10_000;
/// So is one of more bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why a path stays out of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Never part of an image, and of no interest to say: version control and Yado's own files.
    Own,
    /// A `.env` file.
    EnvFile,
    /// The description names it as an env file or a secret.
    Named,
    /// A `.gitignore` names it.
    Git,
    /// A `.dockerignore` or a `.slugignore` names it.
    Ignored,
    /// The language's tools make it anew.
    MadeAnew,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Own => "version control and files of Yado's own",
            Reason::EnvFile => "an env file",
            Reason::Named => "an env file or secret of the description",
            Reason::Git => "named by .gitignore",
            Reason::Ignored => "named by .dockerignore or .slugignore",
            Reason::MadeAnew => "recreated by the build",
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Pattern {
    parts: Vec<String>,
    /// `!`: what matches is kept after all.
    keep: bool,
}

/// The patterns of a directory, in order; the last one that matches decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
    /// The language's own, which no pattern of the directory keeps.
    of_plan: Vec<Pattern>,
    named: Vec<PathBuf>,
}

/// Which files of one directory within the sources stay out.
#[derive(Clone, Debug)]
pub(super) struct InDirectory<'i> {
    ignore: &'i Ignore,
    git: GitRules,
}

/// The text of an ignore file; nothing where there is none. What is no plain file has no patterns.
fn read_patterns(path: &Path) -> Result<Option<String>> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() > MAX_BYTES => {
            Err(ImageError::TooLarge { what: path.display().to_string(), limit: MAX_BYTES })
        }
        Ok(meta) if meta.is_file() => {
            let bytes = fs::read(path).at("read", path)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Ok(None),
    }
}

impl Ignore {
    /// Reads the ignore files of a directory.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut ignore = Self::default();
        for (name, anywhere) in [(".slugignore", true), (".dockerignore", false)] {
            let path = dir.join(name);
            if let Some(text) = read_patterns(&path)? {
                ignore.patterns.extend(patterns(&text, anywhere));
            }
            if ignore.patterns.len() > MAX_PATTERNS {
                let limit = MAX_PATTERNS as u64;
                return Err(ImageError::TooLarge { what: path.display().to_string(), limit });
            }
        }
        Ok(ignore)
    }

    /// Leaves out further paths, whatever the files of the directory keep.
    pub(super) fn and(mut self, paths: &[&str]) -> Self {
        self.of_plan.extend(paths.iter().flat_map(|path| patterns(path, false)));
        self
    }

    /// Leaves out files of the directory `dir` that a description names, and those that they are links to.
    pub(super) fn and_named(mut self, dir: &Path, paths: &[PathBuf]) -> Self {
        for path in paths {
            let path = dir.join(path);
            for path in [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten() {
                // The directory itself is the sources.
                let inside = path.strip_prefix(dir).ok().filter(|inside| !inside.as_os_str().is_empty());
                self.named.extend(inside.map(Path::to_owned));
            }
        }
        self
    }

    /// For the top of the sources, which are the directory `source`.
    pub(super) fn at_top(&self, source: &Path) -> Result<InDirectory<'_>> {
        let git = GitRules::above(source)?.in_directory(source, Path::new(""))?;
        Ok(InDirectory { ignore: self, git })
    }

    /// There are patterns that keep something; it may lie in a directory that stays out.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|p| p.keep)
    }

    /// Whether a line keeps this very path.
    fn keeps(&self, parts: &[&str]) -> bool {
        let literal = |p: &&Pattern| {
            p.parts.iter().map(String::as_str).filter(|part| *part != "**").eq(parts.iter().copied())
        };
        self.patterns.iter().rev().find(literal).is_some_and(|p| p.keep)
    }
}

impl InDirectory<'_> {
    /// For a directory within this one; `dir` is relative to the sources, which are `source`.
    pub(super) fn deeper(&self, source: &Path, dir: &Path) -> Result<Self> {
        let git =
            if git::has_rules(source, dir) { self.git.in_directory(source, dir)? } else { self.git.clone() };
        Ok(InDirectory { ignore: self.ignore, git })
    }

    /// Why a path of this directory, relative to the sources, stays out. A directory that stays out is not looked into,
    /// unless it is [`Reason::Ignored`] and [`Ignore::has_exceptions`].
    pub(super) fn excludes(&self, path: &Path, is_dir: bool) -> Option<Reason> {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let name = parts.last().copied().unwrap_or_default();
        if parts.len() == 1 && ALWAYS_AT_TOP.contains(&name) || name == ".yado" {
            return Some(Reason::Own);
        }
        if self.ignore.named.iter().any(|named| path == named) {
            return Some(Reason::Named);
        }
        if ALWAYS_ANYWHERE.contains(&name) {
            return Some(Reason::EnvFile);
        }
        if self.git.excludes(path, is_dir) && !self.ignore.keeps(&parts) {
            return Some(Reason::Git);
        }
        // A pattern covers what is beneath what it matches.
        let covers = |p: &&Pattern| (1..=parts.len()).any(|n| matches(&p.parts, &parts[..n]));
        if self.ignore.of_plan.iter().any(|p| covers(&p)) {
            return Some(Reason::MadeAnew);
        }
        let own = self.ignore.patterns.iter().rev().find(covers).is_some_and(|p| !p.keep);
        own.then_some(Reason::Ignored)
    }
}

/// The patterns of an ignore file. `anywhere`: as in a `.slugignore`, a pattern without a leading `/` matches at any
/// depth; in a `.dockerignore` every pattern starts at the top.
fn patterns(text: &str, anywhere: bool) -> Vec<Pattern> {
    let mut all = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (line, keep) = match line.strip_prefix('!') {
            Some(rest) => (rest.trim(), true),
            None => (line, false),
        };
        let rooted = line.starts_with('/') || !anywhere;
        let mut parts: Vec<String> = if rooted { Vec::new() } else { vec!["**".to_owned()] };
        parts.extend(line.split('/').filter(|p| !p.is_empty() && *p != ".").map(str::to_owned));
        // A line such as `/` names nothing.
        if parts.len() > usize::from(!rooted) {
            all.push(Pattern { parts, keep });
        }
    }
    all
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => (0..=path.len()).any(|n| matches(rest, &path[n..])),
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(name, beneath)| glob(first.as_bytes(), name.as_bytes()) && matches(rest, beneath)),
    }
}

/// `*`, `?`, `[a-z]`, `[^a]` and `\` within one component. Goes back only to the last `*`, so it is quadratic at worst.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) => one(&pattern[p..], name[n]),
            None => None,
        };
        match (step, back) {
            (Some(width), _) => (p, n) = (p + width, n + 1),
            (None, Some((after, from))) => {
                back = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Whether the first element of the pattern matches the byte; its width if so.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => {
            let negated = matches!(rest.first(), Some(b'^' | b'!'));
            let rest = if negated { &rest[1..] } else { rest };
            let Some(end) = rest.iter().skip(1).position(|&b| b == b']').map(|at| at + 1) else {
                // Not closed: an ordinary bracket.
                return (byte == b'[').then_some(1);
            };
            let (mut class, mut inside) = (&rest[..end], false);
            while let [low, tail @ ..] = class {
                if let [b'-', high, after @ ..] = tail {
                    inside |= (*low..=*high).contains(&byte);
                    class = after;
                } else {
                    inside |= *low == byte;
                    class = tail;
                }
            }
            (inside != negated).then_some(1 + usize::from(negated) + end + 1)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_docker_and_slugs() {
        let check = |docker: &str, slug: &str, path: &str, expect: bool| {
            let mut ignore = Ignore::default();
            ignore.patterns.extend(patterns(slug, true));
            ignore.patterns.extend(patterns(docker, false));
            let all = InDirectory { ignore: &ignore, git: GitRules::default() };
            let path = Path::new(path);
            // As a walk through the directories finds it.
            let above = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
            let excluded = all.excludes(path, false).is_some()
                || above.map(|dir| all.excludes(dir, true)).any(|r| r.is_some_and(|r| r != Reason::Ignored));
            assert_eq!(excluded, expect, "{docker:?} {slug:?} {}", path.display());
        };
        check("", "", ".git/config", true);
        check("", "", ".env", true);
        check("", "", ".yado/secrets.json", true);
        check("", "!api", "api/.yado", true);
        check("", "", ".github/x", false);
        check("", "", "a/.env", true);
        check("!.env", "", ".env", true);
        check("", "", "a/.env.example", false);
        check("", "", "yado-overlay.yaml", true);
        check("", "", "a/yado-overlay.yaml", false);
        check("", "", "Appfile", true);
        check("*.log", "", "a.log", true);
        check("*.log", "", "b/a.log", false);
        check("**/*.log", "", "b/c/a.log", true);
        check("", "*.log", "b/a.log", true);
        check("", "/test", "test/x", true);
        check("", "/test", "a/test", false);
        check("node_modules", "", "node_modules/a/b", true);
        check("./build/", "", "build/x", true);
        check("docs\n!docs/README.md", "", "docs/a", true);
        check("docs\n!docs/README.md", "", "docs/README.md", false);
        check("# c\n\na?[0-9]", "", "ab1", true);
        check("a?[0-9]", "", "abc", false);
        check("[^a]x", "", "bx", true);
        check("[^a]x", "", "ax", false);
        check("a\\*", "", "a*", true);
        check("a\\*", "", "ab", false);
        check("*a*b*c", "", "xxaxbxbc", true);
        check("**", "", "x/y", true);
        check("*", "", "x/y", true);
        check("*\n!keep", "", "keep/y", false);
        check("a/**/z", "", "a/z", true);
        check("a/**/z", "", "a/b/c/z", true);
        check("[", "", "[", true);
    }
}

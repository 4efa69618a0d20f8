//! Which files of a directory stay out of an image: `.dockerignore` and `.slugignore`.

use std::fs;
use std::path::Path;

use crate::image::{ImageError, Result};

/// Never part of an image: version control, and settings that may be secret.
const ALWAYS: &[&str] = &[".git", ".env"];
/// An ignore file is a few lines; a larger one is a mistake.
const MAX_PATTERNS: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
struct Pattern {
    parts: Vec<String>,
    /// `!`: what matches is kept after all.
    keep: bool,
}

/// The patterns of a directory, in order; the last one that matches decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

impl Ignore {
    /// Reads the ignore files of a directory.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut ignore = Self::default();
        for (name, anywhere) in [(".slugignore", true), (".dockerignore", false)] {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => ignore.add(&text, anywhere),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(ImageError::io("read", &path, e)),
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
        paths.iter().for_each(|path| self.add(path, false));
        self
    }

    /// Adds lines. `anywhere`: as in a `.slugignore`, a pattern without a leading `/` matches at any depth; in a
    /// `.dockerignore` every pattern starts at the top.
    fn add(&mut self, text: &str, anywhere: bool) {
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
                self.patterns.push(Pattern { parts, keep });
            }
        }
    }

    /// Whether a path, relative to the directory, stays out. A directory that stays out is not looked into, unless
    /// [`Ignore::has_exceptions`].
    pub(super) fn excludes(&self, path: &Path) -> bool {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        // Our own output may hold secrets, and each part of an app has its own.
        if parts.first().is_some_and(|first| ALWAYS.contains(first)) || parts.contains(&".yado") {
            return true;
        }
        // A pattern covers what is beneath what it matches.
        let covers = |p: &Pattern| (1..=parts.len()).any(|n| matches(&p.parts, &parts[..n]));
        self.patterns.iter().rev().find(|p| covers(p)).is_some_and(|p| !p.keep)
    }

    /// There are patterns that keep something; it may lie in a directory that stays out.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|p| p.keep)
    }
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
    fn patterns() {
        let check = |docker: &str, slug: &str, path: &str, expect: bool| {
            let mut ignore = Ignore::default();
            ignore.add(slug, true);
            ignore.add(docker, false);
            assert_eq!(ignore.excludes(Path::new(path)), expect, "{docker:?} {slug:?} {path}");
        };
        check("", "", ".git/config", true);
        check("", "", ".env", true);
        check("", "", ".yado/secrets.json", true);
        check("", "!api", "api/.yado", true);
        check("", "", ".github/x", false);
        check("", "", "a/.env", false);
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

//! `.gitignore` files, by git's own rules: what is not under version control is no part of the program, and often holds
//! secrets.
//!
//! | pattern | matches |
//! |---|---|
//! | `*.log` | at any depth below its file |
//! | `/dist`, `doc/x` | from the directory of its file |
//! | `build/` | directories only |
//! | `!keep.log` | what is kept after all, unless a directory above it is left out |
//!
//! The last pattern that matches decides, and a file deeper in the tree comes before one above it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Pattern, matches, read_patterns};
use crate::image::Result;

/// A repository within a directory tree deeper than this is not looked for.
const MAX_ABOVE: usize = 64;

/// The rules that hold in one directory of the sources.
#[derive(Clone, Debug, Default)]
pub(super) struct GitRules {
    /// Of the repository's top first.
    files: Vec<RulesFile>,
}

#[derive(Clone, Debug)]
struct RulesFile {
    /// The sources' directory, relative to the directory of the file. Empty for files in the sources themselves.
    above: PathBuf,
    /// The directory of the file, relative to the sources. Empty for files above them.
    dir: PathBuf,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    directories_only: bool,
}

impl GitRules {
    /// The rules for the directory `source`: those of the directories above it, up to the repository's top. Where
    /// `source` lies in no repository, its own file is all that counts.
    pub(super) fn above(source: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let in_repository = source.ancestors().take(MAX_ABOVE).any(|dir| dir.join(".git").exists());
        for dir in source.ancestors().take(MAX_ABOVE).filter(|_| in_repository) {
            if dir != source {
                let above = source.strip_prefix(dir).unwrap_or(source).to_owned();
                files.extend(RulesFile::read(&dir.join(".gitignore"), above, PathBuf::new())?);
            }
            if dir.join(".git").exists() {
                let above = source.strip_prefix(dir).unwrap_or(source).to_owned();
                files.extend(RulesFile::read(&dir.join(".git/info/exclude"), above, PathBuf::new())?);
                break;
            }
        }
        files.reverse();
        // A directory that is left out of a repository is no part of it, as below a home directory under version control.
        let is_part = |file: &RulesFile| {
            let above: Vec<&Path> =
                file.above.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
            above.iter().all(|dir| file.decides(dir, true) != Some(true))
        };
        Ok(if files.iter().all(is_part) { Self { files } } else { Self::default() })
    }

    /// The rules for the directory `dir` of the sources, relative to them, beneath one for which `self` holds.
    pub(super) fn in_directory(&self, source: &Path, dir: &Path) -> Result<Self> {
        let mut rules = self.clone();
        let file = source.join(dir).join(".gitignore");
        rules.files.extend(RulesFile::read(&file, PathBuf::new(), dir.to_owned())?);
        Ok(rules)
    }

    /// Whether a path of the sources is left out. Those of the directories above it are not looked at again.
    pub(super) fn excludes(&self, path: &Path, is_dir: bool) -> bool {
        let decides =
            |file: &RulesFile| file.decides(&file.above.join(path.strip_prefix(&file.dir).ok()?), is_dir);
        self.files.iter().rev().find_map(decides).unwrap_or(false)
    }
}

impl RulesFile {
    /// Whether a path, from the directory of the file, is left out; nothing where no rule matches.
    fn decides(&self, path: &Path, is_dir: bool) -> Option<bool> {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let applies =
            |rule: &&Rule| (is_dir || !rule.directories_only) && matches(&rule.pattern.parts, &parts);
        self.rules.iter().rev().find(applies).map(|rule| !rule.pattern.keep)
    }

    fn read(file: &Path, above: PathBuf, dir: PathBuf) -> Result<Option<Self>> {
        let Some(text) = read_patterns(file)? else { return Ok(None) };
        let rules: Vec<Rule> = text.lines().filter_map(rule).take(super::MAX_PATTERNS).collect();
        Ok((!rules.is_empty()).then_some(Self { above, dir, rules }))
    }
}

fn rule(line: &str) -> Option<Rule> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    // Spaces at the end mean nothing unless the last one is escaped.
    let trimmed = line.trim_end_matches(' ');
    let line =
        if trimmed.ends_with('\\') && trimmed.len() < line.len() { &line[..=trimmed.len()] } else { trimmed };
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (line, keep) = line.strip_prefix('!').map_or((line, false), |rest| (rest, true));
    let (line, directories_only) = line.strip_suffix('/').map_or((line, false), |rest| (rest, true));
    let mut parts: Vec<String> = if line.contains('/') { Vec::new() } else { vec!["**".to_owned()] };
    let named = parts.len();
    parts.extend(line.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
    (parts.len() > named).then_some(Rule { pattern: Pattern { parts, keep }, directories_only })
}

/// Whether the sources at `source` have a `.gitignore` in `dir`, for who looks at many directories.
pub(super) fn has_rules(source: &Path, dir: &Path) -> bool {
    fs::symlink_metadata(source.join(dir).join(".gitignore")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_patterns() {
        let check = |text: &str, path: &str, is_dir: bool, expect: bool| {
            let rules: Vec<Rule> = text.lines().filter_map(rule).collect();
            let file = RulesFile { above: PathBuf::new(), dir: PathBuf::new(), rules };
            let all = GitRules { files: vec![file] };
            assert_eq!(all.excludes(Path::new(path), is_dir), expect, "{text:?} {path}");
        };
        for (text, path, is_dir, expect) in [
            ("*.log", "a.log", false, true),
            ("*.log", "b/a.log", false, true),
            ("/dist", "dist", true, true),
            ("/dist", "a/dist", true, false),
            ("doc/x", "doc/x", false, true),
            ("doc/x", "a/doc/x", false, false),
            ("build/", "build", true, true),
            ("build/", "build", false, false),
            ("build/", "a/build", true, true),
            ("*.env\n!a.env", "a.env", false, false),
            ("!a.env\n*.env", "a.env", false, true),
            ("**/logs", "x/y/logs", true, true),
            ("a/**/b", "a/x/y/b", false, true),
            ("# no\n\n  \n", "# no", false, false),
            ("\\#yes", "#yes", false, true),
            ("\\!yes", "!yes", false, true),
            ("end \r\n", "end", false, true),
            ("/", "x", false, false),
            ("*", "x", true, true),
        ] {
            check(text, path, is_dir, expect);
        }
    }

    #[test]
    fn files_of_other_directories_count_from_where_they_lie() {
        let top = tempfile::tempdir().expect("a directory");
        let source = top.path().join("apps/web");
        fs::create_dir_all(source.join("deep")).expect("directories");
        fs::create_dir(top.path().join(".git")).expect("a directory");
        fs::write(top.path().join(".gitignore"), "/apps/web/own\n*.key\n").expect("a file");
        fs::write(source.join(".gitignore"), "own.txt\n!kept.key\n").expect("a file");
        fs::write(source.join("deep/.gitignore"), "/here\n!own.txt\n").expect("a file");
        let rules =
            GitRules::above(&source).and_then(|r| r.in_directory(&source, Path::new(""))).expect("rules");
        let deep = rules.in_directory(&source, Path::new("deep")).expect("rules");
        for (rules, path, expect) in [
            (&rules, "own", true),
            (&rules, "a.key", true),
            (&rules, "kept.key", false),
            (&rules, "own.txt", true),
            (&deep, "deep/own.txt", false),
            (&deep, "deep/here", true),
            (&rules, "here", false),
        ] {
            assert_eq!(rules.excludes(Path::new(path), false), expect, "{path}");
        }
        // Where the directory itself is left out, what lies above it has no say.
        fs::write(top.path().join(".gitignore"), "*\n").expect("a file");
        let alone = GitRules::above(&source).expect("rules");
        assert!(!alone.excludes(Path::new("a.key"), false));
    }
}

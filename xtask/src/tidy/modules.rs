//! Circles of imports between the top-level modules of a crate.
//!
//! A directory module counts as one with its children, and the crate root with all modules: it re-exports their items and
//! wires them. A name that the root re-exports counts as an import of the module that defines it. Test code is ignored.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// Imports between modules: the importing module, the imported one, and a file with such an import.
#[derive(Default)]
pub struct Imports(BTreeMap<String, BTreeMap<String, String>>);

impl Imports {
    /// Collects the imports of a crate. `files` are paths relative to `src`, such as `image/pull.rs`, and their texts. A
    /// file that is not Rust is skipped, as it is reported elsewhere.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let sources: Vec<(&str, Source)> =
            files.iter().filter_map(|(path, text)| Some((*path, Source::parse(text).ok()?))).collect();
        let modules: BTreeSet<&str> = files.iter().filter_map(|(path, _)| top_level(path)).collect();
        let roots = sources.iter().filter(|(path, _)| top_level(path).is_none());
        let reexports: BTreeMap<&str, &str> = roots
            .flat_map(|(_, root)| &root.imports)
            .filter_map(|(name, path)| {
                let path = path.strip_prefix("crate::").or(path.strip_prefix("self::")).unwrap_or(path);
                let module = path.split("::").next().filter(|module| modules.contains(module))?;
                Some((name.as_str(), module))
            })
            .collect();
        let mut all = Imports::default();
        for (file, source) in &sources {
            let Some(module) = top_level(file) else { continue };
            let imported = source.imports.iter().map(|(_, path)| path);
            for path in imported.chain(source.paths.iter().map(|used| &used.path)) {
                let Some(first) = in_crate(file, path) else { continue };
                let target = modules.get(first).or_else(|| reexports.get(first));
                if let Some(target) = target.filter(|target| **target != module) {
                    let targets = all.0.entry(module.to_owned()).or_default();
                    targets.entry((*target).to_owned()).or_insert_with(|| (*file).to_owned());
                }
            }
        }
        all
    }

    /// One circle of each group of modules that import each other, as `a (a.rs) -> b (b/c.rs) -> a`.
    pub fn circles(&self) -> Vec<String> {
        let mut reported: BTreeSet<&str> = BTreeSet::new();
        let mut circles = Vec::new();
        for module in self.0.keys() {
            if reported.contains(module.as_str()) {
                continue;
            }
            let Some(circle) = self.shortest_circle(module) else { continue };
            let text: String = circle
                .iter()
                .zip(circle.iter().cycle().skip(1))
                .map(|(from, to)| format!("{from} ({}) -> ", self.0[*from][*to]))
                .collect();
            circles.push(format!("{text}{module}"));
            // Other circles of the same group come to light when this one is gone.
            let group =
                self.reachable(module).into_iter().filter(|m| self.reachable(m).contains(module.as_str()));
            reported.extend(group);
        }
        circles
    }

    /// The shortest way from a module back to itself, without the repetition of the module at its end.
    fn shortest_circle<'a>(&'a self, module: &'a str) -> Option<Vec<&'a str>> {
        let mut ways = vec![vec![module]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                let last = way.last().copied().unwrap_or(module);
                for next in self.0.get(last).into_iter().flat_map(BTreeMap::keys) {
                    if next == module {
                        return Some(way);
                    }
                    if seen.insert(next.as_str()) {
                        longer.push([way.as_slice(), &[next.as_str()]].concat());
                    }
                }
            }
            ways = longer;
        }
        None
    }

    /// Modules that a module imports directly or through others.
    fn reachable<'a>(&'a self, module: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![module];
        while let Some(module) = open.pop() {
            let targets = self.0.get(module).into_iter().flat_map(BTreeMap::keys);
            open.extend(targets.map(String::as_str).filter(|target| reached.insert(*target)));
        }
        reached
    }
}

/// The top-level module of a file; `None` for the crate root.
fn top_level(file: &str) -> Option<&str> {
    let first = file.split('/').next().unwrap_or(file);
    let first = first.strip_suffix(".rs").unwrap_or(first);
    (first != "lib" && first != "main").then_some(first)
}

/// The first name after `crate::` in a path that leads into the crate of `file`, where `super::` is resolved.
fn in_crate<'p>(file: &'p str, path: &'p str) -> Option<&'p str> {
    let mut names = path.split("::").peekable();
    if names.next_if_eq(&"crate").is_some() {
        return names.next();
    }
    // A file is as deep as its path: `a.rs` is a child of the root, `a/b.rs` of `a`.
    let mut above = 0;
    while names.next_if_eq(&"super").is_some() {
        above += 1;
    }
    (above == file.split('/').count()).then(|| names.next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_between_modules_are_found() {
        type Files<'a> = &'a [(&'a str, &'a str)];
        let rows: [(&str, Files<'_>, &[&str]); 13] = [
            ("one way", &[("a.rs", "use crate::b::B;"), ("b.rs", "")], &[]),
            (
                "each other",
                &[("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::A;")],
                &["a (a.rs) -> b (b.rs) -> a"],
            ),
            (
                "grouped imports",
                &[("a.rs", "use crate::{b::{B, C}, c};"), ("b.rs", "use crate::{a};"), ("c.rs", "")],
                &["a (a.rs) -> b (b.rs) -> a"],
            ),
            (
                "three modules",
                &[("a.rs", "use crate::b;"), ("b.rs", "use crate::c::C;"), ("c.rs", "use crate::a::A;")],
                &["a (a.rs) -> b (b.rs) -> c (c.rs) -> a"],
            ),
            (
                "two groups",
                &[
                    ("a.rs", "use crate::b;"),
                    ("b.rs", "use crate::a;"),
                    ("c.rs", "use crate::{a, d};"),
                    ("d.rs", "use crate::c;"),
                ],
                &["a (a.rs) -> b (b.rs) -> a", "c (c.rs) -> d (d.rs) -> c"],
            ),
            (
                "paths in code",
                &[("a.rs", "fn f() { crate::b::g(); }"), ("b.rs", "fn g() { m!(crate::a::f()); }")],
                &["a (a.rs) -> b (b.rs) -> a"],
            ),
            (
                "children, by super",
                &[("a.rs", ""), ("a/c.rs", "use super::super::b::B;"), ("b.rs", "use super::a::A;")],
                &["a (a/c.rs) -> b (b.rs) -> a"],
            ),
            (
                "parent and child",
                &[("a.rs", "mod c; use c::C;"), ("a/c.rs", "use super::A; use crate::a::D;")],
                &[],
            ),
            (
                "re-exports of the root",
                &[
                    ("lib.rs", "pub use a::A; pub use self::b::B as C;"),
                    ("a.rs", "use crate::C;"),
                    ("b.rs", "use crate::{A, D};"),
                ],
                &["a (a.rs) -> b (b.rs) -> a"],
            ),
            ("items of the root", &[("lib.rs", "use a::f; pub struct R;"), ("a.rs", "use crate::R;")], &[]),
            (
                "everything",
                &[("a.rs", "use crate::b::*;"), ("b.rs", "use crate::a::*;")],
                &["a (a.rs) -> b (b.rs) -> a"],
            ),
            (
                "tests",
                &[("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; }")],
                &[],
            ),
            (
                "another crate",
                &[("a.rs", "use crate::b;"), ("b.rs", "use a::A; fn f(a: X) { other::a::g() }")],
                &[],
            ),
        ];
        for (what, files, expect) in rows {
            assert_eq!(Imports::of(files).circles(), expect, "{what}");
        }
    }
}

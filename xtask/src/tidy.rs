//! `cargo xtask tidy`: checks the project's rules that the compiler does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::root;

mod modules;
mod source;

use modules::Imports;
use source::{Function, Source};

/// Which of our crates each may use. The central ban: who runs or describes apps gets a `kube::Client` and never
/// reaches `store` or `apiserver`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("store", &[]),
    ("oci", &["types"]),
    ("apiserver", &["store", "types"]),
    ("reconcile", &["types"]),
    ("controllers", &["reconcile", "types"]),
    ("node", &["oci", "reconcile", "types"]),
    ("net", &["reconcile", "types"]),
    ("compile", &["types"]),
    ("cli", &["compile", "types"]),
    ("testkit", &[]),
];

/// What only tests may use, of every crate.
const DEVELOPMENT: &str = "testkit";

/// Crates that hold no ban: the binary wires everything, `xtask` builds demonstration images.
const FREE: &[&str] = &["yado", "xtask"];

/// Crates whose modules still import each other in circles.
const CIRCULAR: &[&str] = &["apiserver"];

/// The only modules of a crate that another one may use, where the whole would bring in what its row above does not
/// show: `oci` knows no Kubernetes.
const ONLY_MODULES: &[(&str, &str, &[&str])] = &[("crates/oci/", "yado_types", &["procfile"])];

/// Lines a file may have without its tests. Beyond it there is a seam to be found.
const FILE_LINES: usize = 600;
/// Lines a function may have.
const FUNCTION_LINES: usize = 70;

/// Functions that may not be called, where they may be all the same, and why.
struct Ban {
    /// Full paths, as the source resolves them through its `use` declarations.
    paths: &'static [&'static str],
    except: &'static [&'static str],
    reason: &'static str,
}

const CLOCKS: &[&str] = &["crates/types/src/clock.rs", "crates/oci/", "xtask/", "crates/yado/tests/"];

const BANS: &[Ban] = &[
    Ban {
        paths: &["tokio::spawn", "tokio::task::spawn"],
        except: &["crates/oci/"],
        reason: "a task without an owner is never joined: use `Tasks` or a `JoinSet`",
    },
    Ban {
        paths: &[
            "std::time::Instant::now",
            "tokio::time::Instant::now",
            "std::time::SystemTime::now",
            "jiff::Timestamp::now",
            "jiff::Zoned::now",
        ],
        except: CLOCKS,
        reason: "time is injected: take a `Clock`",
    },
];

/// Module names that do not describe their content.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc", "mod"];

/// Checks everything and lists every finding.
pub fn run() -> Result<()> {
    let mut findings = dependencies()?;
    let paths = sources(&root())?;
    let mut files = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        check_file(&name, &text, &mut findings);
        files.push((name, text));
    }
    findings.extend(import_circles(&files, CIRCULAR));
    findings.extend(architecture_names_every_crate()?);
    if findings.is_empty() {
        println!("tidy: {} files, nothing found", files.len());
        return Ok(());
    }
    bail!("tidy found:\n  {}", findings.join("\n  "))
}

fn dependencies() -> Result<Vec<String>> {
    let metadata = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root())
        .output()
        .context("cargo metadata cannot be run")?;
    let metadata: Value =
        serde_json::from_slice(&metadata.stdout).context("cargo metadata cannot be read")?;
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or_default());
        if FREE.contains(&name) {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            findings.push(format!("crate {name} has no row in the table of who may use whom"));
            continue;
        };
        let used = package["dependencies"].as_array().into_iter().flatten();
        let used = used
            .filter(|d| d["kind"] != "dev" || short(d["name"].as_str().unwrap_or_default()) != DEVELOPMENT);
        let ours = used.filter(|d| d["path"].is_string()).filter_map(|d| d["name"].as_str()).map(short);
        let banned: BTreeSet<_> = ours.filter(|d| !allowed.contains(d)).collect();
        findings.extend(banned.iter().map(|d| format!("crate {name} may not use {d}")));
    }
    Ok(findings)
}

fn short(package: &str) -> &str {
    package.strip_prefix("yado-").unwrap_or(package)
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("{} cannot be listed", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(name: &str, text: &str, findings: &mut Vec<String>) {
    let stem = Path::new(name).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    // Every file directly in `tests/` is a test of its own, so what several share must be a folder with a `mod.rs`.
    if EMPTY_NAMES.contains(&stem) && !(stem == "mod" && name.contains("/tests/")) {
        findings.push(format!("{name}: the name says nothing of what is inside"));
    }
    // Tests are tables: rows make them long, and what they start ends with them.
    if is_test(name) {
        return;
    }
    let source = match Source::parse(text) {
        Ok(source) => source,
        Err(error) => return findings.push(format!("{name}: it is not Rust: {error}")),
    };
    if source.lines > FILE_LINES {
        findings.push(format!("{name}: {} lines without its tests, more than {FILE_LINES}", source.lines));
    }
    for Function { name: function, line, lines } in &source.functions {
        if *lines > FUNCTION_LINES {
            findings
                .push(format!("{name}:{line}: `{function}` has {lines} lines, more than {FUNCTION_LINES}"));
        }
    }
    for (_, of, modules) in ONLY_MODULES.iter().filter(|(folder, ..)| name.starts_with(folder)) {
        let used =
            source.imports.iter().map(|(_, path)| path).chain(source.paths.iter().map(|used| &used.path));
        let inside = |path: &&String| path.split_once("::").is_some_and(|(first, _)| first == *of);
        let allowed = |path: &str| modules.iter().any(|m| path.split("::").nth(1) == Some(m));
        let banned: BTreeSet<&String> = used.filter(inside).filter(|path| !allowed(path)).collect();
        findings.extend(banned.iter().map(|path| format!("{name}: `{path}` may not be used here")));
    }
    for ban in BANS.iter().filter(|ban| !ban.except.iter().any(|e| name.starts_with(e))) {
        for used in source.paths.iter().filter(|used| ban.paths.contains(&used.path.as_str())) {
            findings.push(format!("{name}:{}: `{}`: {}", used.line, used.path, ban.reason));
        }
    }
}

/// Whether a file holds nothing but tests.
fn is_test(name: &str) -> bool {
    let stem = Path::new(name).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    name.contains("/tests/") || stem == "tests" || stem.ends_with("_tests")
}

/// Circles of imports between modules, by crate. A crate in `circular` may have some; once it has none, it has to be taken
/// from the list, so that it stays clean.
fn import_circles(files: &[(String, String)], circular: &[&str]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (name, text) in files.iter().filter(|(name, _)| !is_test(name)) {
        if let Some((folder, file)) = name.split_once("/src/") {
            crates.entry(folder).or_default().push((file, text));
        }
    }
    let mut findings = Vec::new();
    for (folder, files) in crates {
        let circles = Imports::of(&files).circles();
        let exempt = folder.strip_prefix("crates/").is_some_and(|name| circular.contains(&name));
        if exempt && circles.is_empty() {
            findings.push(format!("{folder}: no module imports in a circle any more: take it from the list"));
        } else if !exempt {
            let finding = |circle| format!("{folder}: modules import each other: {circle}");
            findings.extend(circles.into_iter().map(finding));
        }
    }
    findings
}

fn architecture_names_every_crate() -> Result<Vec<String>> {
    let text =
        fs::read_to_string(root().join("ARCHITECTURE.md")).context("ARCHITECTURE.md cannot be read")?;
    let missing =
        MAY_USE.iter().map(|(name, _)| *name).chain(["yado"]).filter(|n| !text.contains(&format!("`{n}`")));
    Ok(missing.map(|name| format!("ARCHITECTURE.md says nothing of crate `{name}`")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_the_place() {
        let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_LINES));
        let nested = format!("mod a {{\n    impl B {{\n    {long}}}\n}}\n");
        let file = "const X: u8 = 1;\n".repeat(FILE_LINES);
        let tests = format!("{file}#[cfg(test)]\nmod tests {{\n{file}}}\n");
        let rows = [
            ("crates/node/src/a.rs", "fn a() {\n    tokio::spawn(b());\n}\n", 1),
            ("crates/node/src/a.rs", "fn a() {\n    tokio::task::spawn(b());\n}\n", 1),
            ("crates/node/src/a.rs", "use tokio::task;\nfn a() { task::spawn(b()); }\n", 1),
            ("crates/node/src/a.rs", "use tokio::{spawn as start};\nfn a() { start(b()); }\n", 2),
            ("crates/node/src/a.rs", "fn a() { tokio::select! { x = c => { tokio::spawn(b()); } } }\n", 1),
            ("crates/node/src/a.rs", "fn a() { b.map(tokio::spawn) }\n", 1),
            ("crates/node/src/a.rs", "fn a() { tasks.spawn(b()); tokio::task::spawn_blocking(c); }\n", 0),
            ("crates/node/src/a.rs", "// tokio::spawn(b());\nconst A: &str = \"tokio::spawn(\";\n", 0),
            ("crates/node/src/a.rs", "#[cfg(test)]\nmod t { fn a() { tokio::spawn(b()); } }\n", 0),
            ("crates/node/src/a.rs", "#[cfg(test)]\nuse x::y;\nfn a() { tokio::spawn(b()); }\n", 1),
            ("crates/node/src/a.rs", "#[cfg(all(test, unix))]\nmod t { fn a() { tokio::spawn(b()); } }\n", 0),
            ("crates/node/src/a.rs", "use std::time::*;\nfn a() { Instant::now(); }\n", 1),
            ("crates/node/src/a.rs", "use jiff::Timestamp;\nfn a() { Timestamp::now(); }\n", 1),
            (
                "crates/types/src/clock.rs",
                "use std::time::Instant;\nfn a() -> Instant { Instant::now() }\n",
                0,
            ),
            ("crates/node/src/util.rs", "", 1),
            ("crates/node/src/a.rs", &long, 1),
            ("crates/node/src/a.rs", &nested, 1),
            ("crates/node/src/a.rs", &file, 0),
            ("crates/node/src/a.rs", &format!("{file}{file}"), 1),
            ("crates/node/src/a.rs", &tests, 0),
            ("crates/node/src/a.rs", "fn {", 1),
            (
                "crates/oci/src/a.rs",
                "use yado_types::procfile::{self, argv};\nfn a() { procfile::parse(b); }\n",
                0,
            ),
            ("crates/oci/src/a.rs", "use yado_types::{pod, procfile};\n", 1),
            ("crates/oci/src/a.rs", "fn a() { yado_types::labels::b(); }\n", 1),
            ("crates/net/src/a.rs", "use yado_types::labels;\n", 0),
        ];
        for (name, text, expect) in rows {
            let mut findings = Vec::new();
            check_file(name, text, &mut findings);
            assert_eq!(findings.len(), expect, "{name}: {findings:?}\n{}", &text[..text.len().min(200)]);
        }
    }

    #[test]
    fn circles_are_found_by_crate() {
        let circular = [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::A;")];
        let plain = [("a.rs", "use crate::b::B;"), ("b.rs", "use std::path::Path;")];
        let tests = [("a.rs", "use crate::b::B;"), ("b.rs", ""), ("b/tests.rs", "use crate::a::A;")];
        for (folder, files, expect) in [
            (
                "crates/net",
                &circular[..],
                Some("crates/net: modules import each other: a (a.rs) -> b (b.rs) -> a"),
            ),
            ("crates/net", &plain[..], None),
            ("crates/net", &tests[..], None),
            ("crates/node", &circular[..], None),
            (
                "crates/node",
                &plain[..],
                Some("crates/node: no module imports in a circle any more: take it from the list"),
            ),
            ("xtask", &circular[..], Some("xtask: modules import each other: a (a.rs) -> b (b.rs) -> a")),
        ] {
            let files: Vec<(String, String)> = files
                .iter()
                .map(|(name, text)| (format!("{folder}/src/{name}"), (*text).to_owned()))
                .collect();
            let found = import_circles(&files, &["node"]);
            assert_eq!(found, expect.into_iter().collect::<Vec<_>>(), "{folder} {files:?}");
        }
    }
}

//! `cargo xtask tidy`: the rules of the house that the compiler does not check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::root;

/// Which of our crates each may use. The central ban: who runs or describes apps gets a `kube::Client` and never
/// reaches `store` or `apiserver`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("store", &[]),
    ("oci", &[]),
    ("apiserver", &["store", "types"]),
    ("reconcile", &["types"]),
    ("controllers", &["reconcile", "types"]),
    ("node", &["oci", "reconcile", "types"]),
    ("net", &["reconcile", "types"]),
    ("compile", &["types"]),
    ("cli", &["compile", "types"]),
];

/// Crates that hold no ban: the binary wires everything, `xtask` builds demonstration images.
const FREE: &[&str] = &["yado", "xtask"];

/// Lines a file may have before its tests. Beyond it there is a seam to be found.
const FILE_LINES: usize = 700;
/// Lines a function may have.
const FUNCTION_LINES: usize = 80;

/// A text that may not stand in the code, where it may all the same, and why.
struct Ban {
    text: &'static str,
    except: &'static [&'static str],
    reason: &'static str,
}

const CLOCKS: &[&str] = &["crates/types/src/clock.rs", "crates/oci/", "xtask/", "crates/yado/tests/"];

const BANS: &[Ban] = &[
    Ban {
        text: "tokio::spawn(",
        except: &["crates/oci/"],
        reason: "a task without an owner is never joined: use `Tasks` or a `JoinSet`",
    },
    Ban { text: "Instant::now(", except: CLOCKS, reason: "time is injected: take a `Clock`" },
    Ban { text: "SystemTime::now(", except: CLOCKS, reason: "time is injected: take a `Clock`" },
    Ban { text: "Timestamp::now(", except: CLOCKS, reason: "time is injected: take a `Clock`" },
];

/// Module names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc", "mod"];

/// Checks everything and lists every finding.
pub fn run() -> Result<()> {
    let mut findings = dependencies()?;
    let files = sources(&root())?;
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        check_file(&name, &text, &mut findings);
    }
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
    let is_test = name.contains("/tests/") || stem == "tests" || stem.ends_with("_tests");
    let code: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
    if code.len() > FILE_LINES && !is_test {
        findings.push(format!("{name}: {} lines before its tests, more than {FILE_LINES}", code.len()));
    }
    let functions = if is_test { Vec::new() } else { long_functions(&code) };
    for (at, lines) in functions {
        findings.push(format!("{name}:{at}: a function of {lines} lines, more than {FUNCTION_LINES}"));
    }
    if name == "xtask/src/tidy.rs" {
        return;
    }
    for ban in BANS.iter().filter(|ban| !is_test && !ban.except.iter().any(|e| name.starts_with(e))) {
        for (i, line) in code.iter().enumerate() {
            if line.contains(ban.text) && !line.trim_start().starts_with("//") {
                findings.push(format!("{name}:{}: `{}`: {}", i + 1, ban.text, ban.reason));
            }
        }
    }
}

/// Functions over the limit, as first line and length. Formatted code ends a function with a brace at its own indent.
fn long_functions(code: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let words: Vec<&str> = body.split_whitespace().take(6).collect();
        let is_fn = words.iter().position(|w| *w == "fn").is_some_and(|at| {
            words[..at]
                .iter()
                .all(|w| w.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(w))
        });
        if !is_fn {
            continue;
        }
        let end = code[start..].iter().position(|l| l.len() == indent + 1 && l.ends_with('}'));
        if let Some(lines) = end.map(|e| e + 1).filter(|lines| *lines > FUNCTION_LINES) {
            found.push((start + 1, lines));
        }
    }
    found
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
        let rows = [
            ("crates/node/src/a.rs", "fn a() {\n    tokio::spawn(b());\n}\n", 1),
            ("crates/node/src/a.rs", "// tokio::spawn(b());\n", 0),
            ("crates/node/src/a.rs", "#[cfg(test)]\nmod t { fn a() { tokio::spawn(b()); } }\n", 0),
            ("crates/types/src/clock.rs", "fn a() -> Instant {\n    Instant::now()\n}\n", 0),
            ("crates/node/src/util.rs", "", 1),
            ("crates/node/src/a.rs", &long, 1),
        ];
        for (name, text, expect) in rows {
            let mut findings = Vec::new();
            check_file(name, text, &mut findings);
            assert_eq!(findings.len(), expect, "{name}: {findings:?}");
        }
    }
}

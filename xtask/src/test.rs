//! `cargo xtask test`: everything a change must pass, on a machine that has only Rust and Debian's packages.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{RETRIES, demo_images, is_installed, kubectl, root, run as command, test_notes, tidy};

/// Debian packages by the program, or the path, that each brings: real peers for the tests.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),          // a root file system for containers
    ("docker-registry", "docker-registry"), // pulls
    ("htpasswd", "apache2-utils"),          // pulls with authentication
    ("nsenter", "util-linux"),              // network namespaces of the tests' own
    ("script", "bsdutils"),                 // a terminal for `kubectl exec -it`
    ("ip", "iproute2"),                     // the loopback device of such a namespace
    ("curl", "curl"),                       // what users call pages with
    ("python3", "python3"),                 // unpacks an archive
    ("/usr/lib/python3/dist-packages/kubernetes", "python3-kubernetes"), // a client of Kubernetes
    ("hg", "mercurial"),                    // dependencies in Mercurial's repositories
    ("cc", "gcc"),                          // the linker, and C in a few crates
];

/// Installs, checks, builds and tests; `filter` goes to the test runner.
pub fn run(filter: &[String]) -> Result<()> {
    install_packages()?;
    kubectl::install()?;
    run_checks()?;
    demo_images::run(std::env::var("YADO_TEST_APPS").is_ok_and(|apps| apps == "all"))?;
    let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
    let notes = Notes::begin()?;
    let tested = if is_installed("cargo-nextest") {
        command("cargo", &[&["nextest", "run", "--workspace", "--no-fail-fast"], &filter[..]].concat())
    } else {
        command("cargo", &[&["test", "--workspace", "--no-fail-fast", "--"], &filter[..]].concat())
    };
    notes.print()?;
    tested
}

/// What a green run does not prove: parts that tests left out, and tests that passed only at their second attempt.
struct Notes {
    /// Where tests append a line for each part that they leave out; see the crate `testkit`.
    left_out: PathBuf,
    junit: PathBuf,
}

impl Notes {
    /// Forgets the notes of earlier runs.
    fn begin() -> Result<Self> {
        let this = Self { left_out: test_notes(), junit: root().join("target/nextest/default/junit.xml") };
        for file in [&this.left_out, &this.junit] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{} cannot be removed", file.display()));
                }
                _ => {}
            }
        }
        Ok(this)
    }

    /// Prints what was not proved, and the names of flaky tests as the last line.
    fn print(&self) -> Result<()> {
        let text = fs::read_to_string(&self.left_out).unwrap_or_default();
        let left_out: BTreeSet<&str> = text.lines().collect();
        for line in &left_out {
            println!("not proved: {line}");
        }
        if self.junit.exists() {
            let report = fs::read_to_string(&self.junit).context("the test report cannot be read")?;
            let flaky = flaky(&report);
            let names = if flaky.is_empty() { "none".into() } else { flaky.join(", ") };
            println!("flaky tests: {names}");
        }
        Ok(())
    }
}

/// Names of the tests that a JUnit report of nextest calls flaky: they failed and passed when they were run again.
fn flaky(report: &str) -> Vec<String> {
    let cases = report.split("<testcase ").skip(1);
    let flaky =
        cases.filter(|case| case.split("</testcase>").next().is_some_and(|c| c.contains("<flakyFailure")));
    flaky
        .map(|case| {
            let attribute = |name: &str| {
                let start = case.find(&format!("{name}=\""))? + name.len() + 2;
                case[start..].split('"').next()
            };
            format!(
                "{} {}",
                attribute("classname").unwrap_or_default(),
                attribute("name").unwrap_or_default()
            )
        })
        .collect()
}

fn run_checks() -> Result<()> {
    command("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    command("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

fn install_packages() -> Result<()> {
    let is_there = |brought: &str| {
        if brought.starts_with('/') { Path::new(brought).exists() } else { is_installed(brought) }
    };
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(brought, _)| !is_there(brought)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        if !is_installed("apt-get") {
            bail!(
                "these packages are missing and there is no apt-get to install them: {}",
                missing.join(", ")
            );
        }
        command("apt-get", &["update", "-qq", RETRIES])?;
        let install = ["install", "-y", "-qq", "--no-install-recommends", RETRIES];
        command("apt-get", &[&install[..], &missing].concat())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn flaky_tests_are_found_in_the_report() {
        let report = r#"<testsuites><testsuite name="yado::e2e">
            <testcase name="a_good_one" classname="yado::e2e" time="1"></testcase>
            <testcase name="k31_updates" classname="yado::e2e" time="2">
                <flakyFailure type="test failure"><system-out>x</system-out></flakyFailure>
            </testcase>
            <testcase name="another" classname="yado-net::router" time="3"/>
            </testsuite></testsuites>"#;
        assert_eq!(super::flaky(report), ["yado::e2e k31_updates"]);
    }
}

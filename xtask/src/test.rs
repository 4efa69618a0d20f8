//! `cargo xtask test`: everything a change must pass, on a machine that has only Rust and Debian's packages.

use anyhow::{Result, bail};

use crate::{demo_images, is_installed, kubectl, run as command, tidy};

/// Debian packages by the program each brings: real peers for the tests.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),          // a root file system for containers
    ("docker-registry", "docker-registry"), // pulls
    ("htpasswd", "apache2-utils"),          // pulls with authentication
    ("nsenter", "util-linux"),              // network namespaces of the tests' own
    ("script", "bsdutils"),                 // a terminal for `kubectl exec -it`
    ("ip", "iproute2"),                     // the loopback device of such a namespace
    ("curl", "curl"),                       // what users call pages with
    ("python3", "python3"),                 // unpacks an archive
    ("hg", "mercurial"),                    // dependencies in Mercurial's repositories
    ("cc", "gcc"),                          // the linker, and C in a few crates
];

/// A mirror that does not answer once is asked again.
pub const RETRIES: &str = "-oAcquire::Retries=5";

/// Installs, checks, builds and tests; `filter` goes to the test runner.
pub fn run(filter: &[String]) -> Result<()> {
    install_packages()?;
    kubectl::install()?;
    run_checks()?;
    demo_images::run(std::env::var("YADO_TEST_APPS").is_ok_and(|apps| apps == "all"))?;
    let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
    if is_installed("cargo-nextest") {
        command("cargo", &[&["nextest", "run", "--workspace", "--no-fail-fast"], &filter[..]].concat())
    } else {
        command("cargo", &[&["test", "--workspace", "--no-fail-fast", "--"], &filter[..]].concat())
    }
}

fn run_checks() -> Result<()> {
    command("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    command("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

fn install_packages() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        if !is_installed("apt-get") {
            bail!(
                "these programs are missing and there is no apt-get to install them: {}",
                missing.join(", ")
            );
        }
        command("apt-get", &["update", "-qq", RETRIES])?;
        let install = ["install", "-y", "-qq", "--no-install-recommends", RETRIES];
        command("apt-get", &[&install[..], &missing].concat())?;
    }
    Ok(())
}

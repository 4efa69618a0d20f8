//! `cargo xtask bench`: what users feel, measured on the binary of the `dist` profile, as a Markdown table.
//!
//! The measurements run in a network namespace of their own, so that no port is taken and nothing is left behind, and in
//! a release build of this program, so that the client does not limit the figures.

mod api;
mod client;
mod cluster;
mod compile;
mod daemon;
mod dev;
mod docker;
mod memory;
mod report;
mod workloads;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use report::Report;

use crate::{demo_images, root, run as command};

/// The word by which the program finds itself again.
const INSIDE: &str = "--measure";

/// Builds, and measures what `filter` names: `daemon`, `workloads`, `api`, `memory` and `objects` (which take ten minutes
/// each), `compile`, `dev`; all of it by default.
pub fn run(filter: &[String]) -> Result<()> {
    if let Some((INSIDE, filter)) = filter.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return measure(filter);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark starts containers, which needs root");
    }
    // One after the other: together they would be built with the union of their dependencies' features.
    command("cargo", &["build", "--profile", "dist", "--package", "yado"])?;
    command("cargo", &["build", "--release", "--package", "xtask"])?;
    if !root().join("target/images/busybox.tar").exists() {
        demo_images::run(false)?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(target.join("release/xtask"))
        .args(["bench", INSIDE])
        .args(filter)
        .status();
    let status = status.context("unshare cannot be started; it is in Debian's package util-linux")?;
    if !status.success() {
        bail!("the measuring failed: {status}");
    }
    Ok(())
}

fn measure(filter: &[String]) -> Result<()> {
    // It fails only where another provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|word| word == name);
    let machine = report::machine();
    let mut report = Report::default();
    let peer = docker::engine();
    runtime.block_on(async {
        if wanted("daemon") {
            daemon::measure(&mut report).await?;
        }
        if wanted("workloads") {
            workloads::measure(&mut report).await?;
            if let Ok(version) = &peer {
                eprintln!("Docker {version}");
                docker::measure(&mut report)?;
            }
        }
        if wanted("api") {
            api::measure(&mut report).await?;
        }
        if wanted("memory") {
            memory::after_pods(&mut report).await?;
        }
        if wanted("objects") {
            memory::many_objects(&mut report).await?;
        }
        if wanted("compile") {
            compile::measure(&mut report)?;
        }
        if wanted("dev") {
            dev::measure(&mut report).await?;
        }
        anyhow::Ok(())
    })?;
    println!("Medians, on {machine}.");
    if let Err(why) = &peer {
        println!("Docker is not compared: {why}.");
    }
    let peer = peer.ok().map(|version| format!("Docker {version}"));
    println!("\n{}", report.table(peer.as_deref()));
    Ok(())
}

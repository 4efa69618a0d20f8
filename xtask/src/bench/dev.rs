//! `yado dev` on an app whose image is built already.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::cluster::{pid_of, reset, yado};
use super::report::{Report, median, ms};
use crate::root;

const RUNS: usize = 5;
const APP: &str = "examples/hello";

pub async fn measure(report: &mut Report) -> Result<()> {
    let store = root().join("target/image-store");
    if !store.exists() {
        eprintln!("`yado dev` is not measured: `cargo xtask demo-images` has not been run");
        return Ok(());
    }
    let data = tempfile::Builder::new().prefix("yado-bench-").tempdir()?;
    // Neither the project's folder nor its images are written to.
    let app = tempfile::tempdir()?;
    for file in fs::read_dir(root().join(APP))?.flatten().filter(|f| f.path().is_file()) {
        fs::copy(file.path(), app.path().join(file.file_name()))?;
    }
    let copied = Command::new("cp").arg("-a").arg(&store).arg(data.path().join("oci")).status().await?;
    if !copied.success() {
        bail!("{} cannot be copied: {copied}", store.display());
    }
    once(data.path(), app.path()).await?;
    let mut all = Vec::new();
    for _ in 0..RUNS {
        all.push(once(data.path(), app.path()).await?);
    }
    report.add("`yado dev examples/hello`, second run → address", ms(median(all)), "2 s");
    reset(data.path()).await
}

/// From the start to the line with the address; then Ctrl-C, and to the end of the clean-up.
async fn once(data: &Path, app: &Path) -> Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new(yado())
        .args(["dev", "--http-port", "8080", "--data-dir"])
        .args([data, app])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("yado has no output")?).lines();
    let line = lines.next_line().await?.unwrap_or_default();
    let took = began.elapsed();
    if let Some(pid) = child.id() {
        kill(pid_of(pid), Signal::SIGINT)?;
    }
    while lines.next_line().await?.is_some() {}
    child.wait().await?;
    if !line.starts_with("http://") {
        bail!("yado dev said {line:?}");
    }
    Ok(took)
}

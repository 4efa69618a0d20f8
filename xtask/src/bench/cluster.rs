//! A `yado up` under measurement, and the kernel's figures of its processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::client::Access;
use crate::root;

/// The port of the router. The benchmark has a network namespace of its own, so every port is free.
pub const HTTP: u16 = 8080;

/// Path of the measured binary.
pub fn yado() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("dist/yado")
}

/// A data directory, with or without a running engine.
pub struct Cluster {
    child: Option<Child>,
    pub data: TempDir,
}

impl Cluster {
    /// Creates a data directory with these image archives to import.
    pub fn new(images: &[&str]) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("yado-bench-").tempdir()?;
        let archives = data.path().join("images");
        fs::create_dir(&archives)?;
        for image in images {
            let from = root().join("target/images").join(image);
            fs::copy(&from, archives.join(image)).with_context(|| from.display().to_string())?;
        }
        Ok(Self { child: None, data })
    }

    /// Starts the engine and returns the time until it reported that the node is Ready.
    pub async fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let mut child = Command::new(yado())
            .args([
                "up",
                "--api-port",
                "6443",
                "--http-port",
                &HTTP.to_string(),
                "--name",
                "node-1",
                "--data-dir",
            ])
            .arg(self.data.path())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| yado().display().to_string())?;
        let stdout = child.stdout.take().context("yado has no output")?;
        self.child = Some(child);
        let line = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
        if !line.starts_with("ready in ") {
            bail!("yado up said {line:?}");
        }
        Ok(began.elapsed())
    }

    /// Stops the engine as a service manager would.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            kill(pid_of(pid), Signal::SIGTERM)?;
        }
        child.wait().await?;
        Ok(())
    }

    pub fn access(&self) -> Result<Access> {
        Access::read(&self.data.path().join("kubeconfig"))
    }

    /// Process id of the engine.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().and_then(Child::id).context("yado does not run")
    }

    /// Stops the engine and removes everything that it has created.
    pub async fn remove(mut self) -> Result<()> {
        self.stop().await?;
        reset(self.data.path()).await
    }
}

impl Drop for Cluster {
    /// After an error: processes must not outlive the benchmark.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.start_kill();
        while let Ok(None) = child.try_wait() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let reset =
            std::process::Command::new(yado()).args(["reset", "--data-dir"]).arg(self.data.path()).status();
        if !reset.is_ok_and(|status| status.success()) {
            eprintln!("xtask: {} is not removed entirely", self.data.path().display());
        }
    }
}

/// Removes what a stopped engine has left behind (`yado reset`).
pub async fn reset(data: &Path) -> Result<()> {
    let status = Command::new(yado()).args(["reset", "--data-dir"]).arg(data).status().await?;
    if !status.success() {
        bail!("yado reset: {status}");
    }
    Ok(())
}

pub fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    pub private: u64,
    /// Not backed by a file: what the process has allocated and written.
    pub anonymous: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
            line.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Self {
            rss: field("Rss:"),
            pss: field("Pss:"),
            private: field("Private_Clean:") + field("Private_Dirty:"),
            anonymous: field("Anonymous:"),
        })
    }
}

/// Processor time that a process's threads have used. In nanoseconds, unlike /proc/PID/stat: an engine at rest uses less
/// than that counts.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let threads = format!("/proc/{pid}/task");
    let mut used = 0;
    for thread in fs::read_dir(&threads).with_context(|| threads.clone())?.flatten() {
        // A thread may have ended since the directory was listed.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        used += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(used))
}

/// Process ids of the shims of this data directory's Pods.
pub fn shims(data: &Path) -> Result<Vec<u32>> {
    let data = data.to_string_lossy().into_owned();
    let is_shim = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        words.get(1).is_some_and(|w| w == "shim") && words.iter().any(|w| w.contains(&data))
    };
    Ok(processes()?.into_iter().filter(is_shim).collect())
}

/// The first process of a Pod's container, in the host's numbering.
pub fn container_pid(pod: &str) -> Result<u32> {
    let wanted = format!("HOSTNAME={pod}");
    let is_first = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes())
            && numbers.split_whitespace().last() == Some("1")
    };
    processes()?.into_iter().find(is_first).with_context(|| format!("Pod {pod} has no process"))
}

fn processes() -> Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
}

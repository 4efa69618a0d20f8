//! The same measurements with Docker, if its engine runs, on single containers, since Docker has no Deployments.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::report::{Report, median, ms};
use super::workloads::{AVAILABLE, GONE, KILLED, PODS, PROGRAM};
use crate::root;

const RUNS: usize = 3;

/// The engine's version, or why there is none to compare with.
pub fn engine() -> Result<String, &'static str> {
    let output = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let output = output.map_err(|_| "it is not installed")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !version.is_empty() { Ok(version) } else { Err("its engine does not run") }
}

pub fn measure(report: &mut Report) -> Result<()> {
    let archive = root().join("target/images/busybox.tar");
    docker(&["load", "--quiet", "--input", &archive.to_string_lossy()])?;
    let (mut started, mut killed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let names: Vec<String> =
            (0..PODS).map(|n| format!("yado-bench-{}-{n}", std::process::id())).collect();
        let began = Instant::now();
        let made = at_once(&names, |name| {
            docker(&[
                "run",
                "-d",
                "--network=none",
                "--restart=always",
                "--name",
                name,
                "busybox",
                "sh",
                "-c",
                PROGRAM,
            ])
        });
        started.push(began.elapsed());
        let again = made.and_then(|()| names.first().context("no container").and_then(|name| restart(name)));
        let began = Instant::now();
        at_once(&names, |name| docker(&["stop", name]).and_then(|_| docker(&["rm", name])))?;
        gone.push(began.elapsed());
        killed.push(again?);
    }
    report.compare(AVAILABLE, ms(median(started)));
    report.compare(KILLED, ms(median(killed)));
    report.compare(GONE, ms(median(gone)));
    Ok(())
}

/// Kills a container's process and waits for Docker's word that it runs again.
fn restart(name: &str) -> Result<Duration> {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", name])?;
    let filter = format!("container={name}");
    let mut events = Command::new("docker")
        .args([
            "events",
            "--since",
            "0s",
            "--filter",
            &filter,
            "--filter",
            "event=die",
            "--filter",
            "event=start",
            "--format",
            "{{.Status}}",
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(events.stdout.take().context("docker has no output")?).lines();
    let began = Instant::now();
    let killed = Command::new("kill").args(["-9", pid.trim()]).status();
    // The container's first start may be among them: Docker counts `since` in whole seconds.
    let seen = lines.map_while(Result::ok).skip_while(|line| line != "die").any(|line| line == "start");
    let took = began.elapsed();
    events.kill()?;
    events.wait()?;
    if !killed?.success() || !seen {
        bail!("container {name} did not come back");
    }
    Ok(took)
}

fn at_once(names: &[String], act: impl Fn(&str) -> Result<String> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| scope.spawn(|| act(name))).collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done.map(drop),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn docker(words: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(words).output()?;
    if !output.status.success() {
        bail!("docker {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

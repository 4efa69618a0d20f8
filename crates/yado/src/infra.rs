//! `yado infra`: the engine as a service of this machine, with what all apps share: names, the router, the store.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use yado_cli::args::{Format, Global, InfraArgs, InfraCommand, InfraUp, ResetArgs, StatusArgs, UpArgs};
use yado_cli::deploy::record;
use yado_cli::local::Running;
use yado_cli::progress::Progress;
use yado_cli::scope::Scope;

use crate::background;
use crate::data_dir::require_root;
use crate::reset;

/// The engine's log, in the data directory.
const LOG: &str = "engine.log";
/// Where a service's unit belongs that an administrator installs.
const UNIT: &str = "/etc/systemd/system/yado.service";
/// There is such a directory where systemd is what started the machine.
const SYSTEMD: &str = "/run/systemd/system";

/// `yado infra`.
pub async fn run(global: &Global, args: &InfraArgs) -> Result<()> {
    match &args.command {
        None => up(global, &args.up).await,
        Some(InfraCommand::Up(up_args)) => up(global, up_args).await,
        Some(InfraCommand::Status { of, output }) => status(global, &of.data_dir, *output).await,
        Some(InfraCommand::Halt(of)) => halt(global, &of.data_dir).await,
        Some(InfraCommand::Destroy { of, force }) => destroy(global, &of.data_dir, *force).await,
    }
}

async fn up(global: &Global, args: &InfraUp) -> Result<()> {
    let progress = Progress::stderr(global.color);
    require_root()?;
    let data_dir = &args.engine.data_dir;
    if let Some(running) = Running::find(data_dir) {
        if let Some(dev) = &running.dev {
            bail!(
                "`yado dev` of {} runs on {} (process {}): end it with `yado dev destroy`, or name another directory \
                 with --data-dir",
                dev.name,
                data_dir.display(),
                running.pid
            );
        }
        progress.say(format!("==> Infra is already running (process {})", running.pid));
        foundation(data_dir, &running, &progress);
        return Ok(());
    }
    progress.say("==> Building infra...");
    if args.install {
        return install(&args.engine, &progress).await;
    }
    let step = progress.step("infra", "starting the engine");
    let mut started = background::start(data_dir, LOG, &words(global, &args.engine))?;
    match started.ready(data_dir, false, &step).await {
        Ok(running) => {
            step.done(format!(
                "the engine runs in the background (process {}, log {})",
                running.pid,
                started.log.display()
            ));
            foundation(data_dir, &running, &progress);
            progress.say("==> Infra success!");
            Ok(())
        }
        Err(error) => {
            step.fail();
            Err(error)
        }
    }
}

/// The words that start an engine like this one.
fn words(global: &Global, args: &UpArgs) -> Vec<OsString> {
    let mut words: Vec<OsString> = args.words().into_iter().collect();
    if let Some(file) = &global.kubeconfig {
        words.extend(["--kubeconfig".into(), file.into()]);
    }
    words
}

/// What all apps share, as Otto named its parts.
fn foundation(data_dir: &Path, running: &Running, progress: &Progress) {
    let rows = [
        ("API", format!("{} (export KUBECONFIG={})", running.api, data_dir.join("kubeconfig").display())),
        (
            "names",
            "NAME, NAME.NAMESPACE.svc.cluster.local and NAME.service.consul, in every container".into(),
        ),
        ("router", format!("http://NAME.localhost:{}", running.http_port)),
        ("store", data_dir.join("store").display().to_string()),
        ("images", data_dir.join(crate::storage::IMAGES).display().to_string()),
    ];
    progress.say("    Foundation:");
    rows.iter().for_each(|(name, what)| progress.say(format!("      {name:<8} {what}")));
}

async fn status(global: &Global, data_dir: &Path, format: Option<Format>) -> Result<()> {
    let running = Running::find(data_dir);
    let mut out = std::io::stdout();
    if let Some(format) = format {
        let state = match &running {
            Some(engine) => {
                json!({"state": "created", "engine": engine, "kubeconfig": data_dir.join("kubeconfig")})
            }
            None => json!({"state": "not created"}),
        };
        return Ok(write!(out, "{}", yado_cli::formatted(&state, format)?)?);
    }
    let Some(running) = running else {
        return Ok(writeln!(out, "Infra: NOT CREATED (`yado infra` starts it)")?);
    };
    writeln!(out, "Infra: CREATED (process {}, node {})", running.pid, running.node)?;
    out.flush()?;
    foundation(data_dir, &running, &Progress::stderr(global.color));
    let global = Global { kubeconfig: Some(data_dir.join("kubeconfig")), ..global.clone() };
    yado_cli::status::run(&global, &StatusArgs { app: None, output: None }).await
}

async fn halt(global: &Global, data_dir: &Path) -> Result<()> {
    let progress = Progress::stderr(global.color);
    let Some(running) = engine(data_dir)? else {
        progress.say("no engine runs here: there is nothing to stop");
        return Ok(());
    };
    let step = progress.step("halt", "the engine");
    stop(running.pid, data_dir).await?;
    step.done("the engine has stopped; containers go on, and `yado infra` adopts them");
    Ok(())
}

/// The engine that runs, unless it is `yado dev`'s.
fn engine(data_dir: &Path) -> Result<Option<Running>> {
    match Running::find(data_dir) {
        Some(Running { dev: Some(dev), .. }) => {
            bail!("`yado dev` of {} runs here: end it with `yado dev destroy`", dev.name)
        }
        running => Ok(running),
    }
}

async fn destroy(global: &Global, data_dir: &Path, force: bool) -> Result<()> {
    let progress = Progress::stderr(global.color);
    require_root()?;
    let running = engine(data_dir)?;
    if let Some(running) = &running {
        let apps = if force { Vec::new() } else { deployed(global, data_dir).await? };
        if !apps.is_empty() {
            bail!(
                "{} deployed here: remove that with `yado down`, or all of it with --force",
                apps.join(", ") + if apps.len() == 1 { " is" } else { " are" }
            );
        }
        let step = progress.step("destroy", "the engine");
        stop(running.pid, data_dir).await?;
        step.done("the engine has stopped");
    }
    let step = progress.step("destroy", "containers, networks and state");
    reset::run(&ResetArgs { data_dir: data_dir.into() }).await?;
    step.done("nothing is left but the images");
    Ok(())
}

/// The apps that somebody deployed by themselves.
async fn deployed(global: &Global, data_dir: &Path) -> Result<Vec<String>> {
    let global = Global { kubeconfig: Some(data_dir.join("kubeconfig")), namespace: None, ..global.clone() };
    let scope = Scope::of(&global).await?;
    let mut apps = Vec::new();
    for namespace in &scope.namespaces {
        let records = record::all(&scope.client, namespace).await?;
        apps.extend(records.into_iter().filter(|r| r.asked).map(|r| r.app));
    }
    Ok(apps)
}

/// Stops an engine, through systemd where that would start it again.
async fn stop(pid: u32, data_dir: &Path) -> Result<()> {
    let of_unit = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|text| text.contains("/yado.service"));
    if of_unit {
        systemctl(&["disable", "--now", "yado.service"])?;
        std::fs::remove_file(UNIT)
            .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    }
    background::end_and_wait(pid).await?;
    Running::remove(data_dir);
    Ok(())
}

/// Makes the engine a service of systemd's and starts it.
async fn install(args: &UpArgs, progress: &Progress) -> Result<()> {
    if !Path::new(SYSTEMD).is_dir() {
        bail!(
            "systemd does not run here, so there is nothing to install into; `yado infra` alone starts the engine"
        );
    }
    let program = std::env::current_exe().context("this program's own file is unknown")?;
    let text = unit(&program, args);
    std::fs::write(UNIT, text).with_context(|| format!("{UNIT} cannot be written"))?;
    systemctl(&["daemon-reload"])?;
    let step = progress.step("infra", "starting yado.service");
    // It is of the kind that says when it is ready only through its file.
    systemctl(&["enable", "--now", "yado.service"])?;
    let patience = std::time::Duration::from_secs(60);
    let ready = async {
        loop {
            match Running::find(&args.data_dir) {
                Some(running) => return running,
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    let running = tokio::time::timeout(patience, ready).await;
    let running = running.context("yado.service is not ready after 60 s: see `journalctl -u yado`")?;
    step.done(format!("yado.service runs (process {}) and starts with the machine", running.pid));
    foundation(&args.data_dir, &running, progress);
    Ok(())
}

fn systemctl(words: &[&str]) -> Result<()> {
    let done = Command::new("systemctl").args(words).output().context("systemctl cannot be run")?;
    if !done.status.success() {
        bail!("systemctl {}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// The unit. Its containers are in cgroups of their own, and outlive it.
fn unit(program: &Path, args: &UpArgs) -> String {
    let quoted = |word: OsString| {
        let word = word.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
        format!("\"{word}\"")
    };
    let words: Vec<String> = std::iter::once(program.into()).chain(args.words()).map(quoted).collect();
    format!(
        "[Unit]\nDescription=Yado\nAfter=network-online.target\nWants=network-online.target\n\n[Service]\nExecStart={}\n\
         Restart=always\nKillMode=process\nDelegate=yes\nLimitNOFILE=1048576\n\n[Install]\nWantedBy=multi-user.target\n",
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use yado_cli::args::{Cli, Command as Word};

    use super::*;

    #[test]
    fn a_unit_starts_the_engine_with_the_same_words() {
        let line = [
            "yado",
            "up",
            "--data-dir",
            "/var/lib/a b",
            "--api-port",
            "1",
            "--name",
            "n",
            "--trusted-proxies",
            "10.0.0.0/8,192.0.2.1",
            "--allowed-unsafe-sysctls",
            "net.core.*,kernel/sem",
            "--secrets-key",
            "/k",
        ];
        let Word::Up(args) = Cli::parse_from(line).command else { panic!("no up") };
        let text = unit(Path::new("/usr/bin/yado"), &args);
        let start = text.lines().find(|l| l.starts_with("ExecStart=")).expect("a line");
        assert_eq!(
            start,
            "ExecStart=\"/usr/bin/yado\" \"up\" \"--data-dir\" \"/var/lib/a b\" \"--api-port\" \"1\" \"--http-port\" \
             \"8080\" \"--name\" \"n\" \"--trusted-proxies\" \"10.0.0.0/8\" \"--trusted-proxies\" \"192.0.2.1/32\" \
             \"--allowed-unsafe-sysctls\" \"net.core.*,kernel.sem\" \"--secrets-key\" \"/k\""
        );
    }
}

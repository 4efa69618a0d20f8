//! Words to a `yado dev` that runs: `ssh`, `address`, `status`, `logs`, `destroy`; and starting one in the background.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use yado_cli::args::{DevCommand, DevStart, Global, LogsArgs, PsArgs};
use yado_cli::exec::{self, Terminal};
use yado_cli::local::{DevApp, Running};
use yado_cli::progress::Progress;
use yado_cli::scope::Scope;
use yado_cli::{EXIT_OK, logs, process, ps};
use yado_types::labels;

use crate::background;

/// The log of a `yado dev --detach`, in the data directory.
const LOG: &str = "dev.log";
/// The best shell there is.
const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi";

/// Carries a word out; the exit code is that of the command which `ssh` runs.
pub async fn run(global: &Global, command: &DevCommand) -> Result<u8> {
    match command {
        DevCommand::Ssh { process, of, command } => {
            let (_, dev) = find(&of.data_dir)?;
            return ssh(&of_run(global, &of.data_dir, &dev), &dev, process.as_deref(), command).await;
        }
        DevCommand::Address(of) => {
            let (_, dev) = find(&of.data_dir)?;
            print(&dev.addresses.join("\n"))?;
        }
        DevCommand::Status { of, output } => status(global, &of.data_dir, *output).await?,
        DevCommand::Logs(of) => {
            let (_, dev) = find(&of.data_dir)?;
            let args =
                LogsArgs { name: None, follow: true, tail: None, no_prefix: false, raw: false, all: false };
            logs::run(&of_run(global, &of.data_dir, &dev), &args).await?;
        }
        DevCommand::Destroy(of) => destroy(global, &of.data_dir).await?,
        DevCommand::Vagrant { args } => bail!(
            "there is no Vagrant below `yado dev` that `{}` could be passed on to: processes run in containers on this \
             machine; see `yado dev status`, `yado dev ssh` and `yado dev destroy` (a directory is named as ./vagrant)",
            args.join(" ")
        ),
    }
    Ok(EXIT_OK)
}

fn print(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// The `yado dev` of a data directory.
fn find(data_dir: &Path) -> Result<(Running, DevApp)> {
    match Running::find(data_dir) {
        Some(Running { dev: Some(dev), pid, node, api, http_port }) => {
            Ok((Running { pid, node, api, http_port, dev: None }, dev))
        }
        Some(_) => bail!("`yado up` runs here, not `yado dev`: see `yado status` and `yado exec`"),
        None => {
            bail!("no `yado dev` runs here; start it with `yado dev`, with --detach to keep this terminal")
        }
    }
}

/// Talk to that engine, in the app's namespace.
fn of_run(global: &Global, data_dir: &Path, dev: &DevApp) -> Global {
    Global {
        kubeconfig: Some(data_dir.join("kubeconfig")),
        namespace: Some(dev.namespace.clone()),
        ..global.clone()
    }
}

async fn ssh(global: &Global, dev: &DevApp, wanted: Option<&str>, command: &[String]) -> Result<u8> {
    let scope = Scope::of(global).await?;
    let pod = match wanted {
        Some(wanted) => exec::find(&scope, wanted).await?,
        None => {
            let pods = scope.pods().await?;
            let pod =
                main_process(&pods, &dev.name).with_context(|| format!("no process of {} runs", dev.name))?;
            pod.clone()
        }
    };
    let shell = ["/bin/sh".to_owned(), "-c".to_owned(), SHELL.to_owned()];
    let command = if command.is_empty() { shell.to_vec() } else { command.to_vec() };
    exec::attach(&scope, &pod, None, command, Terminal::default()).await
}

/// The process that is meant when an app is: its web process, or its first; where nothing is labelled, any.
fn main_process<'a>(pods: &'a [Pod], app: &str) -> Option<&'a Pod> {
    let rank = |pod: &Pod| {
        let label = |key: &str| pod.labels().get(key).map(String::as_str);
        let own = label(labels::APP_NAME) == Some(app);
        let web = label(labels::APP_COMPONENT) == Some("web");
        (!own, !web, pod.name_any())
    };
    pods.iter().filter(|pod| process::state(pod) == "Running").min_by_key(|pod| rank(pod))
}

async fn status(global: &Global, data_dir: &Path, format: Option<yado_cli::args::Format>) -> Result<()> {
    let found = Running::find(data_dir).and_then(|running| Some((running.pid, running.dev?)));
    if let Some(format) = format {
        let state = match &found {
            Some((pid, dev)) => json!({"state": "created", "process": pid, "app": dev}),
            None => json!({"state": "not created"}),
        };
        return Ok(write!(std::io::stdout(), "{}", yado_cli::formatted(&state, format)?)?);
    }
    let Some((pid, dev)) = found else { return print("Dev environment: NOT CREATED") };
    print(&format!("Dev environment: CREATED (process {pid})"))?;
    print(&format!("Application:     {} ({})", dev.name, dev.path.display()))?;
    dev.addresses.iter().try_for_each(|address| print(&format!("Address:         {address}")))?;
    print("")?;
    ps::run(&of_run(global, data_dir, &dev), &PsArgs { name: None, all: false, output: None }).await
}

async fn destroy(global: &Global, data_dir: &Path) -> Result<()> {
    let progress = Progress::stderr(global.color);
    let found = Running::find(data_dir);
    let Some(Running { pid, dev, .. }) = found else {
        progress.say("no `yado dev` runs here: there is nothing to remove");
        return Ok(());
    };
    let Some(dev) = dev else { bail!("`yado up` runs here, not `yado dev`: see `yado infra destroy`") };
    let step = progress.step("stop", &dev.name);
    background::end_and_wait(pid).await?;
    step.done(format!("{}: nothing is left but the images", dev.name));
    Ok(())
}

/// One runs already: the same app's is as good as a new one.
pub fn already(running: &Running, args: &DevStart, progress: &Progress) -> Result<()> {
    let (pid, data_dir) = (running.pid, args.data_dir.display());
    let Some(dev) = &running.dev else {
        bail!(
            "an engine runs on {data_dir} (process {pid}): run the app on it with `yado deploy`, or name another \
             directory for this run with --data-dir"
        );
    };
    let path = args.source.files.first().unwrap_or(&args.source.path);
    if !super::same_path(&dev.path, path) {
        bail!(
            "`yado dev` of {} ({}) runs on {data_dir}: end it with `yado dev destroy`, or name another directory for \
             this run with --data-dir",
            dev.name,
            dev.path.display()
        );
    }
    progress.say(format!("{} runs already (process {pid})", dev.name));
    dev.addresses.iter().try_for_each(|address| print(address))
}

/// Starts it in the background and waits until it serves.
pub async fn detach(args: &DevStart, progress: &Progress) -> Result<()> {
    let mut words: Vec<_> = std::env::args_os().skip(1).collect();
    words.push("--attached".into());
    let step = progress.step("dev", "starting in the background");
    let mut started = background::start(&args.data_dir, LOG, &words)?;
    let running = match started.ready(&args.data_dir, true, &step).await {
        Ok(running) => running,
        Err(error) => {
            step.fail();
            return Err(error);
        }
    };
    let dev = running.dev.context("it does not say what it runs")?;
    step.done(format!("{} runs in the background; `yado dev destroy` ends it", dev.name));
    dev.addresses.iter().try_for_each(|address| print(address))
}

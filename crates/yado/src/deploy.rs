//! `yado deploy`: build what is to be built, and put it in place to stay.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use yado_cli::apply::{Outcome, Summary};
use yado_cli::args::{DeployStart, Format, Global};
use yado_cli::connect::{Target, target};
use yado_cli::deploy::{self, Options, Report};
use yado_cli::describe::{Telling, describe};
use yado_cli::local::{Running, addresses};
use yado_cli::progress::Progress;
use yado_cli::ready::Wait;
use yado_compile::{Compiled, ExternalEndpoint};

use crate::answers;
use crate::build::{Artifacts, build_all, keep};
use crate::control::Images;

/// Deploys a description.
pub async fn run(global: &Global, args: &DeployStart) -> Result<()> {
    let progress = Progress::stderr(global.color);
    let mut described = describe(&args.source, Telling::Fetching, &progress).await?;
    let compiled = &mut described.compiled;
    if !compiled.has_workloads() && compiled.objects.is_empty() {
        bail!(
            "{} describes nothing to deploy; a Procfile next to the Appfile says how to start it",
            described.shown
        );
    }
    let target = target(global).await?;
    if let Some(namespace) = &global.namespace {
        deploy::in_namespace(compiled, namespace);
    }
    let local = local_engine(&target, &args.place.data_dir);
    keep(&described)?;
    let compiled = &mut described.compiled;
    if !compiled.builds.is_empty() {
        progress.say(format!("==> Building {}...", compiled.app));
        build(args, compiled, local.is_some(), &target, &progress).await?;
    }
    let namespace = compiled.namespace.clone().unwrap_or_else(|| target.namespace.clone());
    progress.say(format!("==> Deploying {} to namespace {namespace} of {}...", compiled.app, target.server));
    let wait = Wait { timeout: Duration::from_secs(args.timeout), settle: Duration::from_secs(args.settle) };
    let wait = (!args.no_wait).then_some(wait);
    let options = Options { dry_run: args.dry_run, wait, take_over: args.take_over };
    let source = described.source.clone();
    let compiled = &described.compiled;
    let report = deploy::deploy(&target.client, &namespace, compiled, source, options, &progress).await?;
    report.kept.iter().for_each(|key| {
        progress.say(format!("{key} stays: `yado down {} --volumes` removes it", report.record.app))
    });
    let http_port = local.as_ref().map(|engine| engine.http_port);
    let published: Vec<ExternalEndpoint> = report.record.published.iter().map(Into::into).collect();
    let published = deploy::reached(&target.client, &namespace, &published).await;
    let addresses = addresses(report.record.host.as_deref(), &published, http_port);
    // Only those of this machine's engine are known to lead through a door that is reached from here.
    if let Some(wait) = wait.filter(|_| local.is_some() && !args.dry_run) {
        answers::wait(&addresses, http_port, wait.timeout, &progress).await?;
    }
    progress.say(if args.dry_run { "==> Nothing was changed" } else { "==> Deploy success!" });
    print(&namespace, &report, &addresses, args.output)
}

/// Builds the images where the cluster finds them.
async fn build(
    args: &DeployStart,
    compiled: &mut Compiled,
    is_local: bool,
    target: &Target,
    progress: &Progress,
) -> Result<()> {
    let engine = Images::of_engine(&args.place.data_dir).await.filter(|_| is_local);
    let Some(images) = engine else {
        let names: Vec<&str> = compiled.builds.iter().map(|b| b.image.as_str()).collect();
        bail!(
            "{} must be built, and {} is not the engine of {}: images that are built here are not where that cluster \
             can pull them; deploy to `yado infra`, or name images of a registry in the description",
            names.join(", "),
            target.server,
            args.place.data_dir.display()
        );
    };
    let artifacts = args.place.artifacts.as_deref().map(Artifacts::open).transpose()?;
    build_all(compiled, &images, artifacts.as_ref(), progress).await?;
    Ok(())
}

/// The engine of this machine, if that is what the commands talk to.
fn local_engine(target: &Target, data_dir: &Path) -> Option<Running> {
    Running::find(data_dir).filter(|engine| target.server.trim_end_matches('/') == engine.api)
}

fn print(namespace: &str, report: &Report, addresses: &[String], format: Option<Format>) -> Result<()> {
    let record = &report.record;
    let summary = Summary::of(&report.outcomes);
    let mut text = String::new();
    match format {
        Some(format) => {
            let changes: Vec<_> = report
                .outcomes
                .iter()
                .map(|o| json!({"object": o.object, "became": o.verb.word(), "fields": o.fields}))
                .collect();
            let value = json!({
                "app": record.app, "namespace": namespace, "revision": record.revision,
                "added": summary.added, "changed": summary.changed, "destroyed": summary.destroyed,
                "objects": changes, "addresses": addresses, "kept": report.kept,
            });
            text.push_str(&yado_cli::formatted(&value, format)?);
        }
        None => {
            report.outcomes.iter().filter_map(Outcome::diff).try_for_each(|line| writeln!(text, "{line}"))?;
            writeln!(text, "{summary}")?;
            addresses.iter().try_for_each(|address| writeln!(text, "url = {address}"))?;
        }
    }
    use std::io::Write as _;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

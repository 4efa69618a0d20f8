//! Images of directories of sources.
//!
//! ```text
//! base -> packages -> [tools] -> dependencies -> app -> compile
//! ```
//!
//! What is in brackets, and what a plan says is staged, serves the steps after it and is no part of the image.

use std::fs;
use std::path::{Path, PathBuf};

use yado_types::procfile::{self, ProcessType};

use super::aptfile::parse_aptfile;
use super::layers::Build;
use super::native;
use super::plan::{Plan, Sources};
use super::workshop::Workshop;
use super::{Base, Language, PROCESS_LABEL, app, base, language};
use crate::image::{Event, Image, ImageConfig, ImageError, IoContext as _, Result};

/// Whatever the language: who calls others over TLS needs to know whom to trust, and times have zones.
const COMMON: &[&str] = &["ca-certificates", "tzdata"];

/// Where a `web` process listens unless who runs the image says another port.
const PORT: u16 = 8080;

/// Builds a directory of sources.
pub(super) fn build(
    mut build: Build<'_>,
    context: &Path,
    language: Option<Language>,
    processes: &[(String, String)],
    left_out: &[PathBuf],
) -> Result<Image> {
    let context = &fs::canonicalize(context).at("open the directory", context)?;
    let sources = Sources::new(context);
    let own = own_processes(&sources, processes)?;
    let aptfile = match sources.text("Aptfile")? {
        Some(text) => parse_aptfile(&sources.name("Aptfile"), &text)?,
        None => Vec::new(),
    };
    let mut plan = match language {
        Some(language) => language::plan(language, &sources)?,
        None => Plan::default(),
    };
    let types = if own.is_empty() { std::mem::take(&mut plan.processes) } else { own };
    if types.is_empty() {
        let reason = "there is no `Procfile`; add one with a line such as `web: python3 app.py`";
        return Err(build.failed(format!("in {} {reason}", context.display())));
    }
    if let Some(language) = language {
        native::add(language, &sources, &mut plan)?;
    }
    base::base(&mut build)?;
    let packages = packages(language, &plan, &aptfile);
    if !packages.is_empty() {
        base::packages(&mut build, &packages, Base::Debian, &[])?;
    }
    warn_of_versions(&build, &sources, &plan)?;
    let mut workshop = Workshop::new(&mut build, &plan);
    for step in plan.before.iter() {
        workshop.carry_out(step)?;
    }
    let left_out = app::LeftOut { of_plan: &plan.ignored, named: left_out };
    app::directory(workshop.build, "app", context, Path::new("app"), base::APP_ID, left_out)?;
    for step in plan.after.iter() {
        workshop.carry_out(step)?;
    }
    build.finish(config(&plan, &types))
}

/// The Procfile's process types, or else the given ones.
fn own_processes(sources: &Sources, processes: &[(String, String)]) -> Result<Vec<ProcessType>> {
    if let Some(text) = sources.text("Procfile")? {
        let definitions = procfile::parse(&text).map_err(|errors| {
            let (line, reason) = errors.first().map_or((1, String::new()), |e| (e.line, e.to_string()));
            ImageError::BuildFile { file: sources.name("Procfile"), line, reason }
        })?;
        return Ok(definitions.into_iter().map(|d| d.process).collect());
    }
    let given =
        |(name, command): &(String, String)| ProcessType { name: name.clone(), command: command.clone() };
    Ok(processes.iter().map(given).collect())
}

fn packages(language: Option<Language>, plan: &Plan, aptfile: &[String]) -> Vec<String> {
    let mut packages: Vec<String> = plan.runtime.clone();
    if language.is_some() {
        packages.extend(COMMON.iter().map(|&name| name.to_owned()));
    }
    for package in aptfile {
        if !packages.contains(package) {
            packages.push(package.clone());
        }
    }
    packages
}

/// The runtime is that of the machine's package sources; who asked for another one is told.
fn warn_of_versions(build: &Build<'_>, sources: &Sources, plan: &Plan) -> Result<()> {
    let Some(wanted) = &plan.wanted else { return Ok(()) };
    let Some(top) = build.layers().last() else { return Ok(()) };
    let status = build.store.inner.layer_dir(top).join("var/lib/dpkg/status");
    let Ok(status) = fs::read_to_string(&status) else { return Ok(()) };
    if let Some(installed) = super::plan::installed_version(&status, wanted.package)
        && !wanted.is_met_by(&installed)
    {
        let text = format!(
            "{} asks for {} {}, but this machine's package sources have {installed}, which the image gets",
            sources.name(wanted.file),
            wanted.what,
            wanted.version
        );
        build.progress.report(|| Event::Warning { text });
    }
    Ok(())
}

/// How an image of these process types is run.
fn config(plan: &Plan, types: &[ProcessType]) -> ImageConfig {
    let main = types.iter().find(|t| t.name == "web").or(types.first());
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = plan.path.iter().copied().chain([path]).collect::<Vec<_>>().join(":");
    let mut env = vec![
        format!("PATH={path}"),
        "HOME=/app".to_owned(),
        "LANG=C.UTF-8".to_owned(),
        // Who runs the image may set another; with nothing but its defaults it has to start, too.
        format!("PORT={PORT}"),
        // What a program prints is a log line at once, as on Heroku.
        "PYTHONUNBUFFERED=1".to_owned(),
    ];
    env.extend(plan.env.iter().map(|(name, value)| format!("{name}={value}")));
    let mut labels: std::collections::BTreeMap<String, String> =
        types.iter().map(|t| (format!("{PROCESS_LABEL}{}", t.name), t.command.clone())).collect();
    labels.extend(plan.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    ImageConfig {
        cmd: main.map(|t| procfile::argv(&t.command)).unwrap_or_default(),
        env,
        working_dir: "/app".to_owned(),
        user: "app".to_owned(),
        labels,
        ..ImageConfig::default()
    }
}

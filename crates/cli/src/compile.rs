//! `yado compile`: from a description to files.

use std::{io::Write, path::Path};

use serde_json::{Value, json};
use yado_compile::{BuildMethod, Compiled, output};

use crate::{
    args::{BackEnd, CompileArgs, Format, Global},
    describe::{Described, Telling, describe},
    progress::Progress,
    table,
};

pub(crate) async fn run(global: &Global, args: &CompileArgs) -> anyhow::Result<()> {
    let progress = Progress::stderr(global.color);
    let described = describe(&args.source, Telling::Stages, &progress).await?;
    if args.check {
        progress.say("==> Compilation success!");
        summary(&described.compiled).iter().for_each(|line| progress.say(line));
    } else {
        write(&described, args, &progress)?;
    }
    match args.output {
        Some(format) => print_objects(&described.compiled, format),
        None => Ok(()),
    }
}

fn write(described: &Described, args: &CompileArgs, progress: &Progress) -> anyhow::Result<()> {
    let compiled = &described.compiled;
    if let Some(path) = &compiled.missing_id {
        output::write_id(path)?;
        progress.say(format!("    Made {}: keep it under version control", path.display()));
    }
    let place = |usual: &str| args.out.clone().unwrap_or_else(|| described.directory.join(usual));
    let last = match args.format {
        BackEnd::Kubernetes => {
            let directory = place(output::DEFAULT_DIRECTORY);
            let files = output::write(compiled, &directory)?;
            written(compiled.objects.len(), files.len(), &directory)
        }
        BackEnd::Compose => {
            let directory = place(output::COMPOSE_DIRECTORY);
            let composed = output::compose::compose(compiled);
            composed.warnings.iter().for_each(|w| progress.warn(w.to_string()));
            let files = output::write_compose(&composed, &directory)?;
            format!("{} in {}", counted(files.len(), "file"), directory.display())
        }
    };
    progress.say("==> Compilation success!");
    summary(compiled).iter().for_each(|line| progress.say(line));
    progress.say(format!("    {last}"));
    Ok(())
}

/// What was found, and what is yet to be done with it.
fn summary(compiled: &Compiled) -> Vec<String> {
    let kind = if compiled.app_type.is_empty() { String::new() } else { format!(" ({})", compiled.app_type) };
    let mut lines =
        vec![format!("    {}{kind}: {}", compiled.app, counted(compiled.objects.len(), "object"))];
    lines.extend(compiled.namespace.iter().map(|n| format!("    In namespace {n} of its own")));
    lines.extend(compiled.dependencies.iter().map(|d| format!("    With {d}")));
    for build in &compiled.builds {
        let how = match build.method {
            BuildMethod::Source { .. } => "",
            BuildMethod::Dockerfile { .. } => " (from its Dockerfile, which `yado build` does not support)",
        };
        lines.push(format!("    To build: {} from {}{how}", build.image, build.context.display()));
    }
    for port in &compiled.published {
        let at = port.port.map_or_else(|| "a free port".into(), |p| format!("port {p}"));
        lines.push(format!("    Published: {} at {at} ({})", port.component, port.protocol));
    }
    lines
}

fn written(objects: usize, files: usize, directory: &Path) -> String {
    let (objects, files) = (counted(objects, "object"), counted(files, "file"));
    format!("{objects} in {files} in {}", directory.display())
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn print_objects(compiled: &Compiled, format: Format) -> anyhow::Result<()> {
    let objects: Vec<&Value> = compiled.objects.iter().map(|o| &o.value).collect();
    let text = match format {
        Format::Json => {
            table::formatted(&json!({"apiVersion": "v1", "kind": "List", "items": objects}), format)?
        }
        Format::Yaml => objects.iter().map(|o| format!("---\n{}", output::yaml(o))).collect(),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

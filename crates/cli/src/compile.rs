//! `yado compile`: from a description to files.

use std::io::Write;

use serde_json::{Value, json};
use yado_compile::{Compiled, Options, output};

use crate::{
    args::{CompileArgs, Format, Global},
    progress::Progress,
    table,
};

pub(crate) fn run(global: &Global, args: &CompileArgs) -> anyhow::Result<()> {
    let progress = Progress::stderr(global.color);
    let compiled = yado_compile::compile(&args.path, &Options::default())?;
    compiled.warnings.iter().for_each(|w| progress.warn(w.to_string()));
    if !args.check {
        write(&compiled, args, &progress)?;
    }
    match args.output {
        Some(format) => print_objects(&compiled, format),
        None => Ok(()),
    }
}

fn write(compiled: &Compiled, args: &CompileArgs, progress: &Progress) -> anyhow::Result<()> {
    if let Some(path) = &compiled.missing_id {
        output::write_id(path)?;
        progress.say(format!("made {}: keep it under version control", path.display()));
    }
    let directory = args.out.clone().unwrap_or_else(|| compiled.directory.join(output::DEFAULT_DIRECTORY));
    let files = output::write(compiled, &directory)?;
    let step = progress.step("compile", "");
    let kind = if compiled.app_type.is_empty() { String::new() } else { format!(" ({})", compiled.app_type) };
    step.done(format!(
        "{}{kind}: {} objects in {} files in {}",
        compiled.app,
        compiled.objects.len(),
        files.len(),
        directory.display()
    ));
    for dependency in &compiled.dependencies {
        progress.say(format!("            with {dependency}"));
    }
    for build in &compiled.builds {
        progress.say(format!("            to build: {} from {}", build.image, build.context.display()));
    }
    Ok(())
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

//! From the words of a command line to a compiled description: where it is read from, how, and what is said meanwhile.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use yado_compile::{Compiled, Diagnostics, Event, Events, Options};

use crate::{args::SourceArgs, progress::Progress, source::Source};

pub(crate) mod elsewhere;

/// A compiled description, and where files made from it belong.
pub struct Described {
    /// What it became.
    pub compiled: Compiled,
    /// The directory below which `.yado` is written: the description's own, or the working directory where the
    /// description came from standard input or another machine.
    pub directory: PathBuf,
    /// What the user calls the description.
    pub shown: String,
    /// Where it is, unless it came from standard input or another machine.
    pub source: Option<Source>,
}

/// How much is told of a compilation's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Each, as Otto did.
    Stages,
    /// Only what takes time: fetching.
    Fetching,
}

/// Compiles what the command line names. Warnings are said, stages as `telling` says.
///
/// # Errors
///
/// [`Diagnostics`], with every mistake of the description; a [`crate::Usage`] where the command line contradicts itself.
pub async fn describe(args: &SourceArgs, telling: Telling, progress: &Progress) -> anyhow::Result<Described> {
    let (path, overrides) = chosen(args)?;
    let options = Options {
        env: yado_compile::compose::variables(environment(), &args.env_files)?,
        env_files: args.env_files.clone(),
        dot_env: args.env_files.is_empty(),
        overrides,
        profiles: args.profiles.clone(),
        project: args.project.clone(),
        update: args.update,
        events: stages(telling, progress),
        ..Options::default()
    };
    let path = or_above(path, args, &options, progress);
    let found = elsewhere::find(&path).await?;
    // It reads files, and waits for other machines.
    let at = found.path().to_path_buf();
    let compiled = tokio::task::spawn_blocking(move || yado_compile::compile(&at, &options)).await?;
    let mut compiled = compiled.map_err(|mistakes| found.renamed(mistakes))?;
    let warnings = std::mem::take(&mut compiled.warnings);
    compiled.warnings = found.renamed(Diagnostics(warnings)).0;
    compiled.warnings.iter().for_each(|w| progress.warn(w.to_string()));
    let directory = found.home().map_or_else(|| compiled.directory.clone(), Path::to_path_buf);
    if found.home().is_some() {
        // It lay in a file only for the compiler: there is nowhere to keep an identity.
        compiled.missing_id = None;
    }
    let source = match found.home() {
        None => Source::of(&identity(&path, &compiled)).ok(),
        Some(_) => None,
    };
    Ok(Described { compiled, directory, shown: path.display().to_string(), source })
}

/// What tells a description from others: its directory, which may have only one compose project or Appfile, or else the
/// file, of which there may be several with names that come out as one.
fn identity(path: &Path, compiled: &Compiled) -> PathBuf {
    let by_file = compiled.app_type.is_empty() || path.extension().is_some_and(|e| e == "service");
    match (by_file && path.is_file(), compiled.directory.as_os_str().is_empty()) {
        (true, _) => path.to_owned(),
        (false, true) if path.is_dir() => path.to_owned(),
        (false, true) => path.parent().unwrap_or(path).to_owned(),
        (false, false) => compiled.directory.clone(),
    }
}

/// The description, and the files to lay over it.
fn chosen(args: &SourceArgs) -> anyhow::Result<(PathBuf, Vec<PathBuf>)> {
    let Some((first, rest)) = args.files.split_first() else { return Ok((args.path.clone(), Vec::new())) };
    if args.path != Path::new(".") {
        let sentence =
            format!("both {} and --file {} are given: give one", args.path.display(), first.display());
        return Err(crate::Usage(sentence).into());
    }
    Ok((first.clone(), rest.to_vec()))
}

/// The compose file of a directory above, where the working directory has no description and none is named: docker
/// compose is used from anywhere within a project.
fn or_above(path: PathBuf, args: &SourceArgs, options: &Options, progress: &Progress) -> PathBuf {
    let unnamed = path == Path::new(".") && args.files.is_empty();
    if !unnamed || yado_compile::is_described(&path, options) {
        return path;
    }
    let Some(file) = yado_compile::compose::above(&path) else { return path };
    progress.say(format!("==> This directory has no description: using {}", file.display()));
    file.parent().map_or(path, Path::to_path_buf)
}

/// The variables that are text, as all that a description can name are.
fn environment() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// Says the stages in Otto's words.
fn stages(telling: Telling, progress: &Progress) -> Events {
    let progress = progress.clone();
    Events::new(move |event| {
        if telling == Telling::Stages || matches!(event, Event::Fetching { .. }) {
            stage(event).iter().for_each(|line| progress.say(line));
        }
    })
}

/// A stage's lines.
fn stage(event: &Event) -> Vec<String> {
    match event {
        Event::Loading { path } => {
            let name = path.file_name().unwrap_or("Appfile".as_ref()).to_string_lossy();
            vec![format!("==> Loading {name}...")]
        }
        Event::FetchingDependencies => vec!["==> Fetching all Appfile dependencies...".into()],
        Event::Fetching { url } => vec![format!("    Fetching dependency: {url}")],
        Event::Compiling { application, app_type, project, infrastructure } => {
            let kind = if app_type.is_empty() { String::new() } else { format!(" ({app_type})") };
            vec![
                "==> Compiling...".into(),
                format!("    Application:    {application}{kind}"),
                format!("    Project:        {project}"),
                format!("    Infrastructure: {infrastructure}"),
                String::new(),
            ]
        }
        Event::CompilingPart { part } if part.starts_with("foundation") => {
            vec![format!("    Compiling {part}")]
        }
        Event::CompilingPart { part } => vec![format!("    Compiling {part}...")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o07_stages_are_said_in_ottos_words() {
        let part = |part: &str| Event::CompilingPart { part: part.into() };
        let events = [
            Event::Loading { path: "blog/Appfile".into() },
            Event::FetchingDependencies,
            Event::Fetching { url: "git::https://github.com/o/r.git//sub".into() },
            Event::Compiling {
                application: "blog".into(),
                app_type: "ruby".into(),
                project: "blog".into(),
                infrastructure: "aws (simple)".into(),
            },
            part("infra"),
            part("foundation: consul"),
            part("dependency 'mongodb'"),
            part("main application"),
        ];
        let text = events.iter().flat_map(stage).collect::<Vec<_>>().join("\n");
        expect_test::expect![[r#"
            ==> Loading Appfile...
            ==> Fetching all Appfile dependencies...
                Fetching dependency: git::https://github.com/o/r.git//sub
            ==> Compiling...
                Application:    blog (ruby)
                Project:        blog
                Infrastructure: aws (simple)

                Compiling infra...
                Compiling foundation: consul
                Compiling dependency 'mongodb'...
                Compiling main application..."#]]
        .assert_eq(&text);
    }
}

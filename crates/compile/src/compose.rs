//! The compose front end: compose files of all versions and `.dab` bundles are read to a [`model::Project`], which is
//! compiled to objects.
//!
//! ```text
//! files -> yaml -> variables -> include, extends, overrides -> one tree -> Project -> objects
//!          yaml    template     load, merge                    fields,     check
//!                                                              service,
//!                                                              project
//! ```
//!
//! The rules are those of the compose specification as implemented by `docker compose`: what it refuses is an error with a
//! position here. Version 1 files and fields of versions 1 and 2 are supported.

mod bundle;
mod check;
mod dotenv;
mod fields;
mod load;
pub mod lower;
mod merge;
pub mod model;
mod old;
mod project;
mod remote;
mod service;
mod template;
mod units;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    Compiled, Event, Options,
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    fetch::Fetcher,
    source::{Source, clean},
    yaml,
};
use load::{Environment, Loader};
use model::Project;

/// Default names of the compose file, in order of precedence.
const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// Default names of the override file.
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Environment variables of docker compose (versions 1 and 2) without effect.
const UNHEEDED: [&str; 18] = [
    "COMPOSE_ANSI",
    "COMPOSE_API_VERSION",
    "COMPOSE_BAKE",
    "COMPOSE_COMPATIBILITY",
    "COMPOSE_CONVERT_WINDOWS_PATHS",
    "COMPOSE_DOCKER_CLI_BUILD",
    "COMPOSE_EXPERIMENTAL",
    "COMPOSE_FORCE_WINDOWS_HOST",
    "COMPOSE_HTTP_TIMEOUT",
    "COMPOSE_IGNORE_ORPHANS",
    "COMPOSE_INTERACTIVE_NO_CLI",
    "COMPOSE_MENU",
    "COMPOSE_PARALLEL_LIMIT",
    "COMPOSE_PROGRESS",
    "COMPOSE_REMOVE_ORPHANS",
    "COMPOSE_STATUS_STDOUT",
    "COMPOSE_TLS_VERSION",
    "DOCKER_DEFAULT_PLATFORM",
];

/// The compose file in a directory, if there is one.
pub fn find(directory: &Path) -> Option<PathBuf> {
    FILES.iter().map(|name| directory.join(name)).find(|path| path.is_file())
}

/// Whether a file is a compose file, by its name (`compose.yaml`, `docker-compose.prod.yml`, `stack.dab`) or its content:
/// `services`, or services of version 1. A file with an `apiVersion` is a Kubernetes manifest whatever its name is.
pub fn is_compose(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.ends_with(".dab") {
        return true;
    }
    if ![".yaml", ".yml", ".json"].iter().any(|extension| name.ends_with(extension)) {
        return false;
    }
    let named = name.starts_with("compose.") || name.contains("docker-compose");
    let Ok(source) = Source::read(path) else { return named };
    let begins = |word: &str| source.text.lines().any(|line| line.starts_with(word));
    if begins("apiVersion:") {
        return false;
    }
    if named || begins("services:") || begins("include:") {
        return true;
    }
    // Version 1 has no characteristic key, and JSON may be a single line.
    let documents = yaml::read(&source).unwrap_or_default();
    documents.first().is_some_and(|d| {
        let services = d.get("services").is_some_and(|s| s.as_mapping().is_some());
        (services && d.get("apiVersion").is_none()) || old::is_version_1(d)
    })
}

/// Compiles the compose file, bundle or directory at `path`.
///
/// # Errors
///
/// As for [`load`], and settings that cannot be compiled.
pub fn compile(path: &Path, options: &Options) -> Result<Compiled, Diagnostics> {
    let file = if path.is_dir() { find(path) } else { None };
    options.events.emit(&Event::Loading { path: file.unwrap_or_else(|| path.into()) });
    lower::lower(&load(path, options)?, options)
}

/// Reads the compose file, bundle or directory at `path`.
///
/// # Errors
///
/// All errors in its files, each with its position.
pub fn load(path: &Path, options: &Options) -> Result<Project, Diagnostics> {
    if path.extension().is_some_and(|e| e == "dab") {
        return bundle::read(path, options);
    }
    let mut loader = Loader::default();
    let start = if path.is_dir() { path } else { parent(path) };
    let environment = environment(start, options, &mut loader.found);
    loader.env_files = env_files(start, options);
    loader.env_files.extend(options.env_files.iter().cloned());
    let files = files(path, options, &environment)?;
    let directory = absolute(parent(&files[0]));
    let name = project_name(&files, &directory, &environment, options)?;
    let mut environment = environment;
    environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
    loader.environment = environment.clone();
    loader.fetcher = Some(Fetcher::new(&directory, options.update, &options.events, |_| None));
    let Some(mut tree) = loader.model(&files, &directory, &environment, &[]) else {
        if loader.found.errors.is_empty() {
            loader.found.errors.push(Diagnostic::of_file(&files[0], "is empty: a compose file has services"));
        }
        loader.explain();
        loader.found.finish()?;
        return Ok(Project::default());
    };
    merge::strip_resets(&mut tree);
    let whole = loader.found.errors.is_empty();
    let mut project = project::read(&tree, name, &environment, &mut loader);
    project.version_1 = loader.version_1;
    if project.services.is_empty() && loader.found.errors.is_empty() {
        loader.found.error(&tree.at, "has no services, so there is nothing to run");
    }
    // If a file or service could not be read, references to it would only be consequential errors.
    if whole && !loader.dropped {
        check::check(&mut project, &profiles(&environment, options), &mut loader.found);
    }
    project.directory = directory;
    loader.explain();
    unheeded(&files[0], &environment, &mut loader.found);
    project.files = loader.files;
    project.env_files = loader.env_files;
    project.warnings = loader.found.finish()?;
    Ok(project)
}

/// The variables in `.env`, overridden by those of the caller.
fn environment(directory: &Path, options: &Options, found: &mut Findings) -> Environment {
    let mut env = options.env.clone();
    // Compose files use PWD, since every shell sets it; docker compose sets it if there is no shell.
    if let (false, Ok(current)) = (env.contains_key("PWD"), std::env::current_dir()) {
        env.insert("PWD".into(), current.to_string_lossy().into_owned());
    }
    laid_over(&env, &env_files(directory, options), found)
}

/// The default environment files: those listed in `COMPOSE_ENV_FILES`, else `.env`.
fn env_files(directory: &Path, options: &Options) -> Vec<PathBuf> {
    let said = |name: &str| options.env.get(name).map(String::as_str).unwrap_or_default();
    if !options.dot_env {
        return Vec::new();
    }
    let listed: Vec<PathBuf> = said("COMPOSE_ENV_FILES")
        .split(',')
        .map(str::trim)
        .filter(|f| !f.is_empty())
        .map(absolute_text)
        .collect();
    if !listed.is_empty() {
        return listed;
    }
    let off = ["1", "true", "TRUE", "True", "t", "T"].contains(&said("COMPOSE_DISABLE_ENV_FILE"));
    Some(directory.join(".env")).filter(|file| !off && file.is_file()).into_iter().collect()
}

fn absolute_text(path: &str) -> PathBuf {
    absolute(Path::new(path))
}

/// Whether `COMPOSE_FILE`, in the caller's environment or in `.env`, names a compose file for the directory.
pub(crate) fn is_named_for(directory: &Path, options: &Options) -> bool {
    let environment = environment(directory, options, &mut Findings::default());
    let named = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty());
    named.is_some_and(|_| {
        let files = files(directory, options, &environment).unwrap_or_default();
        files.first().is_some_and(|file| file.is_file())
    })
}

/// The compose file in the nearest parent of `directory`, as docker compose searches for it.
pub fn above(directory: &Path) -> Option<PathBuf> {
    absolute(directory).ancestors().skip(1).find_map(find)
}

/// Warns about variables of docker compose without effect.
fn unheeded(file: &Path, environment: &Environment, found: &mut Findings) {
    let set: Vec<&str> = UNHEEDED
        .iter()
        .filter(|name| environment.get(**name).is_some_and(|v| !v.is_empty()))
        .copied()
        .collect();
    if !set.is_empty() {
        let have = if set.len() == 1 { "has" } else { "have" };
        found.warn(&Position::of_file(file), format!("{} {have} no effect here", set.join(", ")));
    }
}

/// The variables in `files`, where later files override earlier ones, overridden by `env`.
///
/// # Errors
///
/// A file cannot be read, or has lines that are not of the form `NAME=VALUE`.
pub fn variables(
    env: BTreeMap<String, String>,
    files: &[PathBuf],
) -> Result<BTreeMap<String, String>, Diagnostics> {
    let mut found = Findings::default();
    let all = laid_over(&env, files, &mut found);
    found.finish()?;
    Ok(all)
}

fn laid_over(env: &Environment, files: &[PathBuf], found: &mut Findings) -> Environment {
    let mut all = env.clone();
    for file in files.iter().rev() {
        for (name, value) in dotenv::read_file(file, &|name| env.get(name).cloned(), found) {
            all.entry(name).or_insert(value);
        }
    }
    all
}

/// The files of the project, at least one.
fn files(path: &Path, options: &Options, environment: &Environment) -> Result<Vec<PathBuf>, Diagnostics> {
    let mut files = Vec::new();
    if !path.is_dir() {
        files.push(path.to_path_buf());
    } else if let Some(list) = environment.get("COMPOSE_FILE").filter(|l| !l.is_empty()) {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        files.extend(list.split(separator).filter(|f| !f.is_empty()).map(|f| path.join(f)));
    } else if let Some(file) = find(path) {
        files.push(file);
        if options.overrides.is_empty() {
            files.extend(OVERRIDES.iter().map(|name| path.join(name)).find(|p| p.is_file()));
        }
    }
    files.extend(options.overrides.iter().cloned());
    if files.is_empty() {
        return Err(Diagnostic::of_file(path, "holds no compose file: name one, or add compose.yaml").into());
    }
    Ok(files)
}

fn profiles(environment: &Environment, options: &Options) -> Vec<String> {
    let written = environment.get("COMPOSE_PROFILES").map_or("", String::as_str);
    let written = written.split(',').map(|p| p.trim().to_string()).filter(|p| !p.is_empty());
    options.profiles.iter().cloned().chain(written).collect()
}

/// The project name: that of the caller, of `COMPOSE_PROJECT_NAME`, of the last file with a `name`, or of the directory.
fn project_name(
    files: &[PathBuf],
    directory: &Path,
    environment: &Environment,
    options: &Options,
) -> Result<String, Diagnostics> {
    let said = options
        .project
        .as_ref()
        .or_else(|| environment.get("COMPOSE_PROJECT_NAME").filter(|n| !n.is_empty()));
    if let Some(name) = said {
        let allowed = "lower-case letters, digits, '-' and '_', beginning with a letter or digit";
        if normalise(name) != *name || name.is_empty() {
            let sentence = format!("the project cannot be called {name:?}: a name has {allowed}");
            return Err(Diagnostic::of_file(&files[0], sentence).into());
        }
        return Ok(name.clone());
    }
    let written = files.iter().rev().find_map(|file| written_name(file, environment));
    let name = written.map(|n| normalise(&n)).filter(|n| !n.is_empty());
    let own = directory.file_name().map(|n| normalise(&n.to_string_lossy())).unwrap_or_default();
    match name.unwrap_or(own) {
        empty if empty.is_empty() => {
            let sentence = "has no name, and neither has its directory: add a line with name";
            Err(Diagnostic::of_file(&files[0], sentence).into())
        }
        name => Ok(name),
    }
}

/// The `name` in a file. Errors are ignored, since they are reported when the file is loaded.
fn written_name(file: &Path, environment: &Environment) -> Option<String> {
    struct Quiet<'a>(&'a Environment);
    impl template::VariableLookup for Quiet<'_> {
        fn value(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }
        fn missing(&mut self, _: &str) {}
    }
    let source = Source::read(file).ok()?;
    // Few files have a name; the others need not be parsed twice.
    if !source.text.contains("name:") {
        return None;
    }
    let begins =
        |line: &str| line.starts_with("name:") || line.starts_with("\"name\"") || line.starts_with('{');
    if !source.text.lines().any(begins) {
        return None;
    }
    let documents = yaml::read(&source).ok()?;
    let name = documents.iter().rev().find_map(|d| d.get("name").filter(|n| !n.is_null())?.printed())?;
    template::substitute(&name, &mut Quiet(environment)).ok().map(|replaced| replaced.unwrap_or(name))
}

/// Converts a directory name to a project name like docker compose: invalid characters are removed.
fn normalise(name: &str) -> String {
    let lower = name.to_lowercase();
    let kept =
        lower.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
    kept.collect::<String>().trim_start_matches(['-', '_']).to_string()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn absolute(path: &Path) -> PathBuf {
    clean(&std::path::absolute(path).unwrap_or_else(|_| path.into()))
}

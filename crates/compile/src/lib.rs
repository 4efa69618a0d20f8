//! Compiles application descriptions into Kubernetes objects.
//!
//! A front end parses one format and reports its mistakes: [`appfile`] (HCL, with the applications it depends on),
//! [`compose`], [`fleet`] (systemd units), [`procfile`], [`manifest`] (Kubernetes YAML and JSON). All front ends but the
//! last build their objects through [`workload`]. Back ends in [`output`] write the objects as YAML files for people and
//! `kubectl`, or as a compose file. Kubernetes objects are the only model of an application that leaves this crate.
//!
//! ```text
//! Appfile ──┐
//! compose ──┤
//! units ────┤
//! Procfile ─┼─> workload ──> objects ──> .yado/compiled/*.yaml
//! YAML ─────┘  (already objects)
//! ```
//!
//! The compiler uses no clock and no random numbers, and the network only to fetch remote dependencies, so the same
//! files give the same objects.

mod app_json;
pub mod appfile;
pub mod compose;
mod detect;
pub mod diagnostic;
pub mod docker_run;
mod fetch;
pub mod fleet;
mod hcl;
pub mod manifest;
mod model;
mod other_tools;
pub mod output;
pub mod procfile;
mod source;
pub mod workload;
pub mod yaml;

use std::path::{Path, PathBuf};

pub use diagnostic::{Diagnostic, Diagnostics, Position};
pub use model::{
    BuildMethod, BuildRequest, Compiled, Event, Events, ExternalEndpoint, Object, Options, WEB_PORT,
};

/// Compiles the description at `path`: a directory with an Appfile, a compose file, a Procfile, a chart or
/// kustomization, units or manifests (looked for in that order), or one such file.
///
/// The user's overlay ([`output::overlay::FILE`]) beside the description is then merged into the objects.
///
/// # Errors
///
/// All mistakes, not only the first, each with its position.
pub fn compile(path: &Path, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut compiled = match describe(path, options)? {
        Description::Application(file) => appfile::compile(&file, options),
        Description::Units(files, name) => fleet::compile(&files, &name, options),
        Description::Compose(path) => compose::compile(&path, options),
        Description::Manifests(files, name) => manifest::compile(&files, &name),
        Description::Rendered(renderer, name) => manifest::compile_rendered(&renderer, &name),
    }?;
    output::overlay::apply(&mut compiled)?;
    Ok(compiled)
}

/// Whether a description exists at `path`, valid or not.
pub fn is_described(path: &Path, options: &Options) -> bool {
    describe(path, options).is_ok()
}

enum Description {
    /// An Appfile, a Procfile or a directory of sources.
    Application(PathBuf),
    /// A compose file, a bundle, or a directory with a compose file.
    Compose(PathBuf),
    /// fleet units and their project.
    Units(Vec<PathBuf>, String),
    Manifests(Vec<PathBuf>, String),
    Rendered(manifest::Renderer, String),
}

/// Second half of the message about files of other tools.
const NOT_YET: &str = "is not supported yet: add a Procfile with a line such as web: COMMAND, or build the image elsewhere and name it in a compose file or manifest";

/// The key by which a file is recognised as a Kubernetes manifest.
const API_VERSION: &[u8] = b"apiVersion";

/// Detects the format of the description at `path` by file names and, in a directory without one, by file contents.
fn describe(path: &Path, options: &Options) -> Result<Description, Diagnostics> {
    if fleet::is_unit(path) {
        return Ok(Description::Units(vec![path.into()], fleet::project_of(path)));
    }
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Diagnostic::of_file(path, "there is no such file or directory"),
        _ => Diagnostic::of_file(path, format!("cannot be read: {e}")),
    })?;
    if meta.is_file() {
        return describe_file(path, options);
    }
    if path.join("Appfile").is_file() {
        return Ok(Description::Application(path.join("Appfile")));
    }
    if compose::find(path).is_some() || compose::is_named_for(path, options) {
        return Ok(Description::Compose(path.into()));
    }
    if path.join("Procfile").is_file() {
        return Ok(Description::Application(path.join("Procfile")));
    }
    let absolute = path
        .canonicalize()
        .map_err(|e| Diagnostic::of_file(path, format!("cannot be resolved to an absolute path: {e}")))?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(renderer) = manifest::Renderer::of(path) {
        return Ok(Description::Rendered(renderer, name));
    }
    let units = fleet::files_in(path)?;
    // Source trees may contain a systemd unit that installs them; only a section `[X-Fleet]` marks a fleet unit.
    let meant = |unit: &PathBuf| {
        source::read_bytes(unit, source::MAX_BYTES).is_ok_and(|t| t.windows(9).any(|w| w == b"[X-Fleet]"))
    };
    if !units.is_empty() && (units.iter().any(meant) || detect::app_type(path).is_none()) {
        return Ok(Description::Units(units, name));
    }
    let files = manifest::files_in(path)?;
    // Source trees contain YAML and JSON files that are not manifests.
    let manifest = |file: &PathBuf| {
        let text = source::read_bytes(file, source::MAX_BYTES).unwrap_or_default();
        text.windows(API_VERSION.len()).any(|part| part == API_VERSION)
    };
    if !files.iter().any(manifest) && detect::app_type(path).is_some() {
        return Ok(Description::Application(path.into()));
    }
    if !files.iter().any(manifest)
        && let Some(mistake) = nothing_in(path, files.is_empty())
    {
        return Err(mistake.into());
    }
    Ok(Description::Manifests(files, name))
}

/// The format of a single file.
fn describe_file(path: &Path, options: &Options) -> Result<Description, Diagnostics> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.extension().and_then(|e| e.to_str()) {
        _ if procfile::is_named(path) || name == "Appfile" => Ok(Description::Application(path.into())),
        Some("hcl") => Ok(Description::Application(path.into())),
        _ if manifest::Renderer::is_named(&name) => {
            let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            describe(directory, options)
        }
        _ if compose::is_compose(path) => Ok(Description::Compose(path.into())),
        _ if other_tools::is_named(path).is_some() => {
            let what = other_tools::is_named(path).map_or("", |one| one.what);
            Err(Diagnostic::of_file(path, format!("is {what}, which {NOT_YET}")).into())
        }
        Some("yaml" | "yml" | "json") => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            Ok(Description::Manifests(vec![path.into()], stem.into_owned()))
        }
        _ => Err(Diagnostic::of_file(
            path,
            "is in no supported format: name an Appfile, a compose file, a Procfile, or a .yaml, .yml or .json manifest",
        )
        .into()),
    }
}

/// The error for a directory without manifests: it contains files of other tools only, or nothing known.
fn nothing_in(directory: &Path, is_empty: bool) -> Option<Diagnostic> {
    let files = other_tools::all_in(directory);
    if !files.is_empty() {
        let sentence = format!("holds {}, which {NOT_YET}", other_tools::listed(&files));
        return Some(Diagnostic::of_file(directory, sentence));
    }
    let sentence = "holds no Appfile, no compose file, no Procfile, no sources in a supported language and no .yaml, .yml or .json manifest: add one, or name another directory";
    is_empty.then(|| Diagnostic::of_file(directory, sentence))
}

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
mod other_tools;
pub mod output;
pub mod procfile;
mod source;
pub mod workload;
pub mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Diagnostics, Position};
use serde_json::Value;

/// Default value of the variable `PORT`, the port that a `web` process listens on.
pub const WEB_PORT: u16 = 8080;

/// Options of a compilation.
#[derive(Debug, Clone)]
pub struct Options {
    /// The domain under which an app gets its host name: `guestbook` becomes `guestbook.localhost`.
    pub domain: String,
    /// The caller's environment, for `${NAME}` in compose files and `-e NAME`.
    pub env: BTreeMap<String, String>,
    /// Environment files already merged into `env`. They may hold secrets, so they are excluded from images.
    pub env_files: Vec<PathBuf>,
    /// Compose: whether the variables of `.env` are defaults for `env`; off where the caller named other files.
    pub dot_env: bool,
    /// Compose: override files, merged over the first file in this order.
    pub overrides: Vec<PathBuf>,
    /// Compose: active profiles, in addition to those in `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// Compose and units: the project name; `None` takes the name in the description, else that of the directory.
    pub project: Option<String>,
    /// Fetch remote dependencies again even if they are already on disk.
    pub update: bool,
    /// Receives an event before each stage.
    pub events: Events,
}

impl Default for Options {
    /// `localhost`: browsers and resolvers send every name below it to this machine (RFC 6761).
    fn default() -> Self {
        Options {
            domain: "localhost".into(),
            env: BTreeMap::new(),
            env_files: Vec::new(),
            dot_env: true,
            overrides: Vec::new(),
            profiles: Vec::new(),
            project: None,
            update: false,
            events: Events::default(),
        }
    }
}

/// A stage of a compilation, reported before its work begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The description is read.
    Loading {
        /// The file or directory.
        path: PathBuf,
    },
    /// Dependencies are loaded; remote ones are fetched.
    FetchingDependencies,
    /// One dependency is fetched.
    Fetching {
        /// The full address, such as `git::https://github.com/o/r.git//sub`.
        url: String,
    },
    /// An application is compiled.
    Compiling {
        /// Its name.
        application: String,
        /// Its type.
        app_type: String,
        /// Its project.
        project: String,
        /// Its infrastructure and, in brackets, its flavor.
        infrastructure: String,
    },
    /// A part of an application is compiled: `infra`, `foundation: consul`, `dependency 'x'`, `main application`.
    CompilingPart {
        /// Which part.
        part: String,
    },
}

/// Callback that receives [`Event`]s; the default discards them.
#[derive(Clone, Default)]
pub struct Events(Option<Arc<Listener>>);

type Listener = dyn Fn(&Event) + Send + Sync;

impl Events {
    /// Passes every event to `listener`.
    pub fn new(listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Events(Some(Arc::new(listener)))
    }

    /// Passes `event` to the listener, if there is one.
    pub fn emit(&self, event: &Event) {
        if let Some(listener) = &self.0 {
            listener(event);
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Events(listened to)" } else { "Events(none)" })
    }
}

/// An image that has to be built before the objects can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// The application.
    pub name: String,
    /// The directory with its `Procfile`, `Aptfile` and sources.
    pub context: PathBuf,
    /// The image reference in the objects, such as `yado.local/guestbook:latest`.
    pub image: String,
    /// The build method.
    pub method: BuildMethod,
    /// Environment and secret files named by the description, absolute or relative to the working directory. They are
    /// excluded from the image whatever their names are.
    pub excluded: Arc<[PathBuf]>,
}

/// The method by which an image is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildMethod {
    /// From the sources in the context, without a Dockerfile.
    Source {
        /// The application's type (`ruby`, `node`, ...), whose runtime and dependencies are installed; `None` if
        /// only the Procfile and Aptfile define the image.
        language: Option<String>,
        /// Process types and their commands, used if the context has no Procfile.
        processes: Vec<(String, String)>,
    },
    /// From a Dockerfile.
    Dockerfile {
        /// Its path, absolute or from the context; `None` is `Dockerfile`.
        file: Option<PathBuf>,
        /// Inline text of the Dockerfile, if the description contains it.
        inline: Option<String>,
        /// The stage to stop at.
        target: Option<String>,
        /// Build arguments.
        args: BTreeMap<String, String>,
    },
}

/// A Kubernetes object and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The Kubernetes object, `apiVersion` first.
    pub value: Value,
    /// Name of the output file without extension: an application's name or a manifest's file stem.
    pub group: String,
    /// The description file that the object was compiled from.
    pub source: PathBuf,
}

impl Object {
    /// `apiVersion`, or an empty string.
    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    /// `kind`, or an empty string.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`, or an empty string.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace` where one is written.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }
}

/// A port that is reachable from outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalEndpoint {
    /// The process type or compose service.
    pub component: String,
    /// The Service of type LoadBalancer or NodePort.
    pub service: String,
    /// The external port; `None` if the cluster chooses one.
    pub port: Option<u16>,
    /// The port of the process.
    pub target: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Whether the port is expected to serve web pages.
    pub web: bool,
    /// The host name under which the router serves it.
    pub host: Option<String>,
}

/// The result of compiling a description.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The app's name, which compiled objects carry in the label `app.kubernetes.io/part-of`.
    pub app: String,
    /// The application type, declared or detected (`ruby`, `docker-external`); empty for manifests.
    pub app_type: String,
    /// The directory the description is in.
    pub directory: PathBuf,
    /// The host name of the app's web page, if it has one.
    pub host: Option<String>,
    /// The namespace of the objects, where the description asks for one of its own, as a compose project does.
    pub namespace: Option<String>,
    /// Published ports by which the app is reachable from outside, in addition to `host`.
    pub published: Vec<ExternalEndpoint>,
    /// Objects in creation order: an object precedes those that depend on it.
    pub objects: Vec<Object>,
    /// Images to build, each once.
    pub builds: Vec<BuildRequest>,
    /// Applications the app depends on, in the order found.
    pub dependencies: Vec<String>,
    /// Settings that have no effect, and guesses that the user should confirm.
    pub warnings: Vec<Diagnostic>,
    /// Path of the `.ottoid` file to create, if the description is an Appfile without one.
    pub missing_id: Option<PathBuf>,
}

impl Compiled {
    /// Whether the objects run any Pods. A valid Appfile may start nothing, for example if its type needs a Procfile and
    /// there is none.
    pub fn has_workloads(&self) -> bool {
        self.objects.iter().any(|o| {
            matches!(
                o.kind(),
                "Deployment" | "Pod" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "CronJob"
            )
        })
    }

    /// Replaces the image `image` by `pinned` in every container, so that a new build creates a new revision.
    pub fn pin_image(&mut self, image: &str, pinned: &str) {
        for object in &mut self.objects {
            for list in ["containers", "initContainers"] {
                let containers = object.value.pointer_mut(&format!("/spec/template/spec/{list}"));
                for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
                    if container["image"] == image {
                        container["image"] = pinned.into();
                    }
                }
            }
        }
    }
}

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

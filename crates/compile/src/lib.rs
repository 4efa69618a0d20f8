//! Descriptions in, Kubernetes objects out.
//!
//! A front end reads one format and its mistakes: [`appfile`] (HCL, with the applications it depends on), [`compose`],
//! [`fleet`] (systemd's units), [`procfile`], [`manifest`] (Kubernetes' own YAML and JSON). What an application becomes
//! is written once, in [`workload`]. A back end writes the objects out: [`output`] as YAML files that a reader and
//! `kubectl` understand. The objects are the only model of an app that is passed on; nobody downstream sees an Appfile.
//!
//! ```text
//! Appfile ──┐
//! compose ──┤
//! units ────┤
//! Procfile ─┼─> workload ──> objects ──> .yado/compiled/*.yaml
//! YAML ─────┘  (passes by)
//! ```
//!
//! Nothing here asks the network (but for fetching dependencies that are elsewhere), the clock or chance: the same files
//! give the same objects.

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
pub mod output;
pub mod procfile;
mod source;
mod unbuilt;
pub mod workload;
pub mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Diagnostics, Position};
use serde_json::Value;

/// The port a `web` process is told to listen on, in `PORT`, unless the description says another.
pub const WEB_PORT: u16 = 8080;

/// How to compile.
#[derive(Debug, Clone)]
pub struct Options {
    /// The domain under which an app gets its host name: `guestbook` becomes `guestbook.localhost`.
    pub domain: String,
    /// The caller's environment, for `${NAME}` in compose files and `-e NAME`.
    pub env: BTreeMap<String, String>,
    /// Files whose variables are in `env` already. They may hold secrets, so images are made without them.
    pub env_files: Vec<PathBuf>,
    /// Compose: whether `.env` is read beneath `env`, as it is unless the caller named other files.
    pub dot_env: bool,
    /// Compose: files laid over the first one, in this order.
    pub overrides: Vec<PathBuf>,
    /// Compose: profiles that are on, beside those in `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// Compose and units: the project's name; `None` is the directory's, or what the description says.
    pub project: Option<String>,
    /// Fetch what is fetched already once more.
    pub update: bool,
    /// Is told of each stage.
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

/// A stage of a compilation. Each is told before its work begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The description is read.
    Loading {
        /// The file or directory.
        path: PathBuf,
    },
    /// All dependencies are read, and fetched where they are elsewhere.
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

/// Who is told of stages; by default nobody.
#[derive(Clone, Default)]
pub struct Events(Option<Arc<Listener>>);

type Listener = dyn Fn(&Event) + Send + Sync;

impl Events {
    /// Tells `listener`.
    pub fn new(listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Events(Some(Arc::new(listener)))
    }

    /// Tells of `event`.
    pub fn tell(&self, event: &Event) {
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
    /// The name under which the objects ask for it, such as `yado.local/guestbook:latest`.
    pub image: String,
    /// How it is made.
    pub how: BuildHow,
    /// Env files and files of secrets that the description names, absolute or from the working directory: whatever they
    /// are called, they are no part of the image.
    pub left_out: Arc<[PathBuf]>,
}

/// How an image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildHow {
    /// From the sources in the context, without a Dockerfile.
    Source {
        /// The application's type (`ruby`, `node`, ...), whose runtime and dependencies are installed; `None` where the
        /// Procfile and Aptfile say all.
        language: Option<String>,
        /// Process types and their commands where the context has no Procfile.
        processes: Vec<(String, String)>,
    },
    /// By a Dockerfile.
    Dockerfile {
        /// Its path, absolute or from the context; `None` is `Dockerfile`.
        file: Option<PathBuf>,
        /// Its text where the description holds it.
        inline: Option<String>,
        /// The stage to stop at.
        target: Option<String>,
        /// Build arguments.
        args: BTreeMap<String, String>,
    },
}

/// One object and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The Kubernetes object, `apiVersion` first.
    pub value: Value,
    /// What it is filed under in the output: an application's name or a manifest's file stem.
    pub group: String,
    /// The file that asked for it.
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

/// A port that is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The process type or compose service.
    pub component: String,
    /// The Service of type LoadBalancer or NodePort.
    pub service: String,
    /// The port outside; `None` where the cluster chooses one.
    pub port: Option<u16>,
    /// The port of the process.
    pub target: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Whether it serves a web page, as far as can be seen.
    pub web: bool,
    /// The host name at which the router answers for it.
    pub host: Option<String>,
}

/// What a description became.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The app's name; objects that `compile` made carry it in the label `app.kubernetes.io/part-of`.
    pub app: String,
    /// The type the application says or its files show (`ruby`, `docker-external`); empty for manifests.
    pub app_type: String,
    /// The directory the description is in.
    pub directory: PathBuf,
    /// The host name of the app's web page, if it has one.
    pub host: Option<String>,
    /// The namespace of the objects, where the description asks for one of its own, as a compose project does.
    pub namespace: Option<String>,
    /// Where the app is reached from outside, beside `host`: ports that it publishes.
    pub published: Vec<Published>,
    /// Objects in the order in which to create them: what others depend on comes first.
    pub objects: Vec<Object>,
    /// Images to build, each once.
    pub builds: Vec<BuildRequest>,
    /// Applications the app depends on, in the order found.
    pub dependencies: Vec<String>,
    /// Things that were understood but have no effect, or were guessed.
    pub warnings: Vec<Diagnostic>,
    /// Where an `.ottoid` has to be made, if the description is an Appfile without one.
    pub missing_id: Option<PathBuf>,
}

impl Compiled {
    /// Whether anything would run. An Appfile may be well formed and still start nothing, for example when its type
    /// is one that only a Procfile can start.
    pub fn has_workloads(&self) -> bool {
        self.objects.iter().any(|o| {
            matches!(
                o.kind(),
                "Deployment" | "Pod" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "CronJob"
            )
        })
    }

    /// Makes every container that asks for `image` ask for `pinned`, so that a new build is a new revision.
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

/// Compiles what `path` names: a directory with an `Appfile`, a `Procfile` or manifests (looked for in that order),
/// or one such file.
///
/// The user's own edits, in [`output::overlay::FILE`] beside the description, are laid over the objects.
///
/// # Errors
///
/// Every mistake found, not only the first, each with its place.
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

/// Whether there is a description at `path`, be it well formed or not.
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

/// Said of what another tool builds or deploys by.
const NOT_YET: &str = "is not supported yet: add a Procfile with a line such as web: COMMAND, or build the image elsewhere and name it in a compose file or manifest";

/// What each Kubernetes object has.
const API_VERSION: &[u8] = b"apiVersion";

/// Decides which format `path` is in, by names and, of a directory without a description, by what is in its files.
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
    // Sources may hold a unit that installs them; fleet's own section shows that units are meant.
    let meant = |unit: &PathBuf| {
        source::read_bytes(unit, source::MAX_BYTES).is_ok_and(|t| t.windows(9).any(|w| w == b"[X-Fleet]"))
    };
    if !units.is_empty() && (units.iter().any(meant) || detect::app_type(path).is_none()) {
        return Ok(Description::Units(units, name));
    }
    let files = manifest::files_in(path)?;
    // Sources have YAML and JSON files of their own, which are no manifests.
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
        _ if unbuilt::is_named(path).is_some() => {
            let what = unbuilt::is_named(path).map_or("", |one| one.what);
            Err(Diagnostic::of_file(path, format!("is {what}, which {NOT_YET}")).into())
        }
        Some("yaml" | "yml" | "json") => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            Ok(Description::Manifests(vec![path.into()], stem.into_owned()))
        }
        _ => Err(Diagnostic::of_file(
            path,
            "is in no format known here: name an Appfile, a compose file, a Procfile, or a .yaml, .yml or .json manifest",
        )
        .into()),
    }
}

/// Why there is nothing to compile in a directory without manifests: only files of other tools, or none at all.
fn nothing_in(directory: &Path, is_empty: bool) -> Option<Diagnostic> {
    let unbuilt = unbuilt::all_in(directory);
    if !unbuilt.is_empty() {
        let sentence = format!("holds {}, which {NOT_YET}", unbuilt::listed(&unbuilt));
        return Some(Diagnostic::of_file(directory, sentence));
    }
    let sentence = "holds no Appfile, no compose file, no Procfile, no sources in a language known here and no .yaml, .yml or .json manifest: add one, or name another directory";
    is_empty.then(|| Diagnostic::of_file(directory, sentence))
}

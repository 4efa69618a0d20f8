//! Input and result of a compilation: the types that all front ends and back ends share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::Diagnostic;

/// The file beside an Appfile that contains the application's identity.
pub const ID_FILE: &str = ".ottoid";

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
                let job = if object.kind() == "CronJob" { "/spec/jobTemplate" } else { "" };
                let containers = object.value.pointer_mut(&format!("{job}/spec/template/spec/{list}"));
                for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
                    if container["image"] == image {
                        container["image"] = pinned.into();
                    }
                }
            }
        }
    }
}

//! What one process type of an application becomes: a Deployment, DaemonSet or Job, a Service by which others find it,
//! one more for what is published, an Ingress where it has host names. Every front end that has processes goes through
//! here, so that all of them agree on names, labels and probes.
//!
//! | object | name | where |
//! |---|---|---|
//! | PersistentVolumeClaim | the volume's | each of `claims` |
//! | Service | `service` | where others have a name for it; headless where no port is known |
//! | Service | each of `aliases` | the same Pods by another name |
//! | Deployment, DaemonSet, Job | `name` | always |
//! | Service LoadBalancer | `name`-public | ports that are published |
//! | Service LoadBalancer | `name`-local | ports that are published to the machine itself |
//! | Service NodePort | `name`-ports | ports that are published wherever there is room |
//! | Ingress | `name` | where it has host names |

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{
            DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec,
            DeploymentStrategy, RollingUpdateDaemonSet, RollingUpdateDeployment,
        },
        batch::v1::{Job, JobSpec},
        core::v1::{
            Container, ContainerPort, PodSpec, PodTemplateSpec, Probe, SeccompProfile, TCPSocketAction,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde::Serialize;
use serde_json::Value;
use yado_types::labels;

pub use claim::Claim;
pub use service::{Port, PublishedPort};

pub mod amount;
mod claim;
mod host_path;
pub mod known_ports;
pub mod name;
pub mod pod;
mod service;
mod signal;

/// One process type, with the parts of a Pod that its front end decides. `..Workload::default()` is a Deployment of
/// one Pod that nobody connects to.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// The application, a DNS label.
    pub app: String,
    /// The process type, a DNS label.
    pub component: String,
    /// The app that the user asked for, which may be the application itself or one that depends on it.
    pub part_of: String,
    /// The name of the Deployment, DaemonSet or Job, a DNS label.
    pub name: String,
    /// What the Services that publish its ports are named after, where `name` would make a name that is taken.
    pub outer: Option<String>,
    /// The namespace of all its objects, where the description asks for one.
    pub namespace: Option<String>,
    /// What keeps its Pods.
    pub kind: Kind,
    /// How a new version takes the place of the old one.
    pub update: Update,
    /// The name others connect to, where there is one; a DNS label that starts with a letter.
    pub service: Option<String>,
    /// Whether its name leads to each Pod's own address, and not to one for all.
    pub headless: bool,
    /// Further names for the same. Those that cannot be a Service's are answered by Yado's name server only.
    pub aliases: Vec<String>,
    /// Further names that are not worth a Service each: Yado's name server answers them.
    pub by_name_server: Vec<String>,
    /// How many; nothing to a DaemonSet.
    pub replicas: i32,
    /// The Pod's spec. Its `containers` come after [`Workload::container`].
    pub pod: PodSpec,
    /// The container but for its ports and, unless it has a probe of its own, the one that [`Workload::ready`] asks for.
    pub container: Container,
    /// When the container is ready, where it has no probe.
    pub ready: Ready,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// Which of its ports are reached from outside, and where.
    pub published: Vec<PublishedPort>,
    /// Host names of its web page.
    pub hosts: Vec<String>,
    /// Which port of the Service is the web page; `None` is the first.
    pub web_port: Option<u16>,
    /// What has to be there before a Pod is placed: component to `started`, `healthy` or `completed`.
    pub depends_on: BTreeMap<String, String>,
    /// Claims for its volumes, unless its front end makes them elsewhere.
    pub claims: Vec<Claim>,
    /// Further labels of its objects and Pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Deployment, DaemonSet or Job.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of its Pods.
    pub pod_annotations: BTreeMap<String, String>,
}

/// What keeps a workload's Pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kind {
    /// Always as many as said.
    #[default]
    Deployment,
    /// One on each node that its Pods may be on.
    DaemonSet,
    /// As many as said, until each has ended well.
    Job {
        /// How many failures are borne; 0 is none.
        retries: i32,
        /// How many run at once; `None` is all.
        at_once: Option<i32>,
    },
}

/// How a new version takes the place of the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Update {
    /// As Kubernetes does unless told: a new one beside the old ones, then an old one less.
    #[default]
    Default,
    /// All old ones stop first. For what must not run twice, such as databases on one volume.
    Recreate,
    /// Some at a time.
    Rolling {
        /// How many more than wanted may run.
        surge: i32,
        /// How many fewer than wanted may run.
        unavailable: i32,
        /// Seconds for which a new one has to be ready before the next is begun.
        watch_seconds: i32,
    },
}

/// When a container without a probe of its own becomes ready; it then stays so until it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ready {
    /// When a connection to its first TCP port is accepted.
    #[default]
    Listening,
    /// When a connection to this port of the container is accepted.
    ListeningOn(u16),
    /// When it has been started.
    Started,
}

impl Workload {
    /// The objects: claims and the Service first, so that its name resolves when the first process asks for it.
    pub fn objects(self) -> Vec<Value> {
        let mut objects: Vec<Value> = self.claims.iter().map(|c| c.object(&self.metadata(&c.name))).collect();
        objects.extend(self.named_services().map(value));
        objects.push(match &self.kind {
            Kind::Deployment => value(self.deployment()),
            Kind::DaemonSet => value(self.daemon_set()),
            Kind::Job { retries, at_once } => value(self.job(*retries, *at_once)),
        });
        objects.extend(self.published_services().map(value));
        objects.extend(self.ingress().map(value));
        objects
    }

    /// Labels that never change in a process type's life, and so may select its Pods.
    fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::APP_NAME.into(), self.app.clone()),
            (labels::APP_COMPONENT.into(), self.component.clone()),
        ])
    }

    fn label_selector(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(self.selector()), ..LabelSelector::default() }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.labels.clone();
        all.extend(self.selector());
        all.insert(labels::APP_PART_OF.into(), self.part_of.clone());
        all.insert(labels::APP_MANAGED_BY.into(), labels::MANAGED_BY_YADO.into());
        all
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: self.namespace.clone(),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    /// The metadata of the Deployment, DaemonSet or Job.
    fn own_metadata(&self) -> ObjectMeta {
        ObjectMeta { annotations: some(self.annotations.clone()), ..self.metadata(&self.name) }
    }

    fn deployment(&self) -> Deployment {
        let (strategy, min_ready_seconds) = match self.update {
            Update::Default => (None, None),
            Update::Recreate => (
                Some(DeploymentStrategy { type_: Some("Recreate".into()), ..DeploymentStrategy::default() }),
                None,
            ),
            Update::Rolling { surge, unavailable, watch_seconds } => {
                let rolling_update = Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                });
                let strategy = DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update };
                (Some(strategy), Some(watch_seconds).filter(|s| *s > 0))
            }
        };
        Deployment {
            metadata: self.own_metadata(),
            spec: Some(DeploymentSpec {
                replicas: Some(self.replicas),
                selector: self.label_selector(),
                template: self.template(None),
                strategy,
                min_ready_seconds,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn daemon_set(&self) -> DaemonSet {
        let (update_strategy, min_ready_seconds) = match self.update {
            // Two Pods of one DaemonSet are never on a node together but where told so.
            Update::Default | Update::Recreate => (None, None),
            Update::Rolling { surge, unavailable, watch_seconds } => {
                let rolling_update = Some(RollingUpdateDaemonSet {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                });
                let strategy =
                    DaemonSetUpdateStrategy { type_: Some("RollingUpdate".into()), rolling_update };
                (Some(strategy), Some(watch_seconds).filter(|s| *s > 0))
            }
        };
        DaemonSet {
            metadata: self.own_metadata(),
            spec: Some(DaemonSetSpec {
                selector: self.label_selector(),
                template: self.template(None),
                update_strategy,
                min_ready_seconds,
                ..DaemonSetSpec::default()
            }),
            ..DaemonSet::default()
        }
    }

    fn job(&self, retries: i32, at_once: Option<i32>) -> Job {
        Job {
            metadata: self.own_metadata(),
            spec: Some(JobSpec {
                backoff_limit: Some(retries),
                completions: Some(self.replicas).filter(|n| *n != 1),
                parallelism: at_once.or(Some(self.replicas)).filter(|n| *n != 1),
                template: self.template(Some(if retries == 0 { "Never" } else { "OnFailure" })),
                ..JobSpec::default()
            }),
            ..Job::default()
        }
    }

    fn template(&self, restart: Option<&str>) -> PodTemplateSpec {
        let mut container = self.container.clone();
        let mut ports: Vec<ContainerPort> = Vec::new();
        for port in self.ports.iter().map(Port::of_container) {
            // A Service may offer one port of the container under two numbers.
            if ports.iter().all(|p| (p.container_port, &p.protocol) != (port.container_port, &port.protocol))
            {
                ports.push(port);
            }
        }
        container.ports = (!ports.is_empty()).then_some(ports).or(container.ports);
        let probed = container.readiness_probe.is_some() || container.startup_probe.is_some();
        if !probed && !matches!(self.kind, Kind::Job { .. }) {
            container.startup_probe = match self.ready {
                Ready::Started => None,
                Ready::ListeningOn(port) => Some(started_when_listening(port)),
                Ready::Listening => self
                    .ports
                    .iter()
                    .find(|p| p.protocol == "TCP")
                    .map(|p| started_when_listening(p.container)),
            };
        }
        let mut annotations = self.pod_annotations.clone();
        if !self.depends_on.is_empty() {
            annotations.insert(labels::DEPENDS_ON.into(), value(&self.depends_on).to_string());
        }
        let mut pod = self.pod.clone();
        pod.containers.insert(0, container);
        // An app's environment never depends on which Services happen to be in its namespace.
        pod.enable_service_links.get_or_insert(false);
        let security = pod.security_context.get_or_insert_default();
        security.seccomp_profile.get_or_insert_with(|| SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        });
        pod.restart_policy = pod.restart_policy.or(restart.map(Into::into));
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(self.labels()),
                annotations: some(annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(pod),
        }
    }
}

/// Started, and with that ready, once something listens. A startup probe ends with its first success, so that a
/// database does not log a connection without a login every second for as long as it runs. It is asked every second, as
/// somebody waits for the start, and never gives up: a process that listens nowhere is not ready, which is no reason to
/// restart it.
fn started_when_listening(port: u16) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port.into()), host: None }),
        period_seconds: Some(1),
        failure_threshold: Some(i32::MAX),
        ..Probe::default()
    }
}

/// A map where it holds anything, as an empty one is not written.
fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// A typed object as JSON.
pub(crate) fn value(object: impl Serialize) -> Value {
    // Kubernetes' types have string keys and no floats, so they are always JSON.
    serde_json::to_value(object).unwrap_or_default()
}

//! The objects of one process type: a Deployment, DaemonSet, Job or CronJob, its Services, its Ingress and its claims. Every front
//! end that has processes builds them here, so that names, labels and probes agree.
//!
//! | object | name | created for |
//! |---|---|---|
//! | PersistentVolumeClaim | the volume's | each of `claims` |
//! | Service | `service` | workloads that have a service name; headless if no port is known |
//! | Service | each of `aliases` | further names of the same Pods |
//! | Deployment, DaemonSet, Job | `name` | unless it is for certain times |
//! | CronJob | `name`, `name`-2, ... | each of its times |
//! | Service LoadBalancer | `name`-public | published ports |
//! | Service LoadBalancer | `name`-local | ports published on the loopback address |
//! | Service NodePort | `name`-ports | published ports whose number the cluster chooses |
//! | Ingress | `name` | workloads with host names |

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{
            DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec,
            DeploymentStrategy, RollingUpdateDaemonSet, RollingUpdateDeployment,
        },
        batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec},
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

pub use claim::VolumeClaim;
pub use service::{Port, PublishedPort};

pub mod amount;
mod claim;
mod host_path;
pub mod known_ports;
pub mod name;
pub mod pod;
mod service;
mod signal;

/// Characters of a CronJob's name: its Jobs have a hyphen and the minute after it.
const MAX_CRON_JOB_NAME: usize = 52;

/// One process type and the parts of its Pod that the front end decides. The default is a Deployment of one Pod without
/// a Service.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// The application, a DNS label.
    pub app: String,
    /// The process type, a DNS label.
    pub component: String,
    /// The app that the user compiled: the application itself or one that depends on it.
    pub part_of: String,
    /// The name of the Deployment, DaemonSet or Job, a DNS label.
    pub name: String,
    /// Name prefix of the Services that publish its ports, if names derived from `name` are taken.
    pub publish_as: Option<String>,
    /// The namespace of all its objects, if the description defines one.
    pub namespace: Option<String>,
    /// The object that controls its Pods.
    pub kind: WorkloadKind,
    /// How a new version replaces the old one.
    pub update: UpdateStrategy,
    /// The name of its Service, if it has one; a DNS label that starts with a letter.
    pub service: Option<String>,
    /// Whether the Service is headless, so that its name resolves to the addresses of the Pods.
    pub headless: bool,
    /// Further names. Names that are not valid for a Service are answered by Yado's name server only.
    pub aliases: Vec<String>,
    /// Further names that are answered by Yado's name server and get no Service.
    pub dns_aliases: Vec<String>,
    /// Number of Pods; ignored for a DaemonSet.
    pub replicas: i32,
    /// The spec of the Pod. Its `containers` follow [`Workload::container`].
    pub pod: PodSpec,
    /// The main container. Its ports, and its probe if it has none, are filled in from `ports` and `ready`.
    pub container: Container,
    /// Readiness of a container that has no probe.
    pub ready: Readiness,
    /// Ports on which the process listens.
    pub ports: Vec<Port>,
    /// Ports that are reachable from outside the cluster.
    pub published: Vec<PublishedPort>,
    /// Host names of its web page.
    pub hosts: Vec<String>,
    /// The port of the Service that serves web pages; `None` is the first.
    pub web_port: Option<u16>,
    /// Components that have to be `started`, `healthy` or `completed` before a Pod is scheduled.
    pub depends_on: BTreeMap<String, String>,
    /// Claims for its volumes, unless the front end creates them itself.
    pub claims: Vec<VolumeClaim>,
    /// Additional labels of its objects and Pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Deployment, DaemonSet or Job.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of its Pods.
    pub pod_annotations: BTreeMap<String, String>,
}

/// The kind of object that controls the Pods of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WorkloadKind {
    /// Keeps `replicas` Pods running.
    #[default]
    Deployment,
    /// Runs one Pod on each node that its Pods may be scheduled on.
    DaemonSet,
    /// Runs `replicas` Pods until each has succeeded.
    Job {
        /// Number of failures that are retried.
        retries: i32,
        /// Number of Pods that run at the same time; `None` is all.
        parallelism: Option<i32>,
    },
    /// Runs a Pod at certain times, until it has succeeded. What still runs is not started again.
    CronJob {
        /// Schedules and their time zones. Each has a CronJob of its own.
        times: Vec<(String, Option<String>)>,
        /// Seconds after a time in which the Pod may still be started; `None` is for ever.
        deadline: Option<i64>,
        /// Number of failures that are retried.
        retries: i32,
    },
}

/// How a new version of a workload replaces the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// The Kubernetes default, a rolling update that surges and removes a quarter of the Pods.
    #[default]
    Default,
    /// Stop all old Pods first. For processes that must not run twice, such as databases on one volume.
    Recreate,
    /// A rolling update with explicit bounds.
    Rolling {
        /// Number of Pods that may run above `replicas`.
        surge: i32,
        /// Number of Pods that may be missing from `replicas`.
        unavailable: i32,
        /// Seconds for which a new Pod has to be ready before the next one is replaced.
        min_ready_seconds: i32,
    },
}

/// The condition under which a container without a probe becomes ready. It then stays ready until it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readiness {
    /// It accepts a connection to its first TCP port.
    #[default]
    Listening,
    /// It accepts a connection to this container port.
    ListeningOn(u16),
    /// It has been started.
    Started,
}

impl Workload {
    /// Builds the objects. Claims and Services come first, so that names resolve before the first process looks them up.
    pub fn objects(self) -> Vec<Value> {
        let mut objects: Vec<Value> = self.claims.iter().map(|c| c.object(&self.metadata(&c.name))).collect();
        objects.extend(self.named_services().map(value));
        match &self.kind {
            WorkloadKind::Deployment => objects.push(value(self.deployment())),
            WorkloadKind::DaemonSet => objects.push(value(self.daemon_set())),
            WorkloadKind::Job { retries, parallelism } => {
                objects.push(value(self.job(*retries, *parallelism)));
            }
            WorkloadKind::CronJob { times, deadline, retries } => {
                let all = times.iter().zip(1..);
                objects.extend(all.map(|(time, n)| value(self.cron_job(time, n, *deadline, *retries))));
            }
        }
        objects.extend(self.published_services().map(value));
        objects.extend(self.ingress().map(value));
        objects
    }

    /// Labels that never change over the life of a process type, and so may select its Pods.
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
            UpdateStrategy::Default => (None, None),
            UpdateStrategy::Recreate => (
                Some(DeploymentStrategy { type_: Some("Recreate".into()), ..DeploymentStrategy::default() }),
                None,
            ),
            UpdateStrategy::Rolling { surge, unavailable, min_ready_seconds } => {
                let rolling_update = Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                });
                let strategy = DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update };
                (Some(strategy), Some(min_ready_seconds).filter(|s| *s > 0))
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
            // A DaemonSet never runs two of its Pods on one node unless `maxSurge` allows it.
            UpdateStrategy::Default | UpdateStrategy::Recreate => (None, None),
            UpdateStrategy::Rolling { surge, unavailable, min_ready_seconds } => {
                let rolling_update = Some(RollingUpdateDaemonSet {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                });
                let strategy =
                    DaemonSetUpdateStrategy { type_: Some("RollingUpdate".into()), rolling_update };
                (Some(strategy), Some(min_ready_seconds).filter(|s| *s > 0))
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

    fn job(&self, retries: i32, parallelism: Option<i32>) -> Job {
        let spec = JobSpec {
            completions: Some(self.replicas).filter(|n| *n != 1),
            parallelism: parallelism.or(Some(self.replicas)).filter(|n| *n != 1),
            ..self.job_spec(retries)
        };
        Job { metadata: self.own_metadata(), spec: Some(spec), ..Job::default() }
    }

    fn job_spec(&self, retries: i32) -> JobSpec {
        JobSpec {
            backoff_limit: Some(retries),
            template: self.template(Some(if retries == 0 { "Never" } else { "OnFailure" })),
            ..JobSpec::default()
        }
    }

    fn cron_job(
        &self,
        (schedule, zone): &(String, Option<String>),
        number: usize,
        deadline: Option<i64>,
        retries: i32,
    ) -> CronJob {
        let mut metadata = self.own_metadata();
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let name = name::sanitised(&self.name, MAX_CRON_JOB_NAME - suffix.len());
        metadata.name = Some(name + &suffix);
        CronJob {
            metadata,
            spec: CronJobSpec {
                schedule: schedule.clone(),
                time_zone: zone.clone(),
                concurrency_policy: Some("Forbid".into()),
                starting_deadline_seconds: deadline,
                job_template: JobTemplateSpec { metadata: None, spec: Some(self.job_spec(retries)) },
                ..CronJobSpec::default()
            },
            ..CronJob::default()
        }
    }

    fn template(&self, restart: Option<&str>) -> PodTemplateSpec {
        let mut container = self.container.clone();
        let mut ports: Vec<ContainerPort> = Vec::new();
        for port in self.ports.iter().map(Port::of_container) {
            // A Service may map two of its ports to one container port.
            if ports.iter().all(|p| (p.container_port, &p.protocol) != (port.container_port, &port.protocol))
            {
                ports.push(port);
            }
        }
        container.ports = (!ports.is_empty()).then_some(ports).or(container.ports);
        let probed = container.readiness_probe.is_some() || container.startup_probe.is_some();
        let ends = matches!(self.kind, WorkloadKind::Job { .. } | WorkloadKind::CronJob { .. });
        if !probed && !ends {
            container.startup_probe = match self.ready {
                Readiness::Started => None,
                Readiness::ListeningOn(port) => Some(started_when_listening(port)),
                Readiness::Listening => self
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
        // Nor does an app ask the cluster's API for anything, so that it needs no credentials for it.
        pod.automount_service_account_token.get_or_insert(false);
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

/// A startup probe that succeeds once the port accepts connections. A startup probe ends with its first success, so a
/// database does not log a connection without a login every second for as long as it runs. The period is one second,
/// since a user waits for the start. The failure threshold is practically infinite: a process that does not listen is
/// not ready, which is no reason to restart it.
fn started_when_listening(port: u16) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port.into()), host: None }),
        period_seconds: Some(1),
        failure_threshold: Some(i32::MAX),
        ..Probe::default()
    }
}

/// `None` for an empty map, which is then omitted from the object.
fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// A typed object as JSON.
pub(crate) fn value(object: impl Serialize) -> Value {
    // Kubernetes' types have string keys and no floats, so they are always JSON.
    serde_json::to_value(object).unwrap_or_default()
}

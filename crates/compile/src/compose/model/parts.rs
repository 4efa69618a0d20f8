//! The parts of a service.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use crate::diagnostic::Position;

/// How an image is built.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Build {
    /// Where `build` is.
    pub at: Position,
    /// The directory, absolute, or the address of a repository.
    pub context: String,
    /// `dockerfile`, as written: from the context, or absolute.
    pub dockerfile: Option<String>,
    /// `dockerfile_inline`
    pub dockerfile_inline: Option<String>,
    /// `args`; a name without a value has the caller's, or is left out if the caller has none.
    pub args: IndexMap<String, String>,
    /// `additional_contexts`
    pub additional_contexts: IndexMap<String, String>,
    /// `cache_from`
    pub cache_from: Vec<String>,
    /// `cache_to`
    pub cache_to: Vec<String>,
    /// `entitlements`
    pub entitlements: Vec<String>,
    /// `extra_hosts`
    pub extra_hosts: Vec<(String, String)>,
    /// `isolation`
    pub isolation: Option<String>,
    /// `labels`
    pub labels: IndexMap<String, String>,
    /// `network`
    pub network: Option<String>,
    /// `no_cache`
    pub no_cache: Option<bool>,
    /// `no_cache_filter`
    pub no_cache_filter: Vec<String>,
    /// `platforms`
    pub platforms: Vec<String>,
    /// `privileged`
    pub privileged: Option<bool>,
    /// `provenance`
    pub provenance: Option<String>,
    /// `pull`
    pub pull: Option<bool>,
    /// `sbom`
    pub sbom: Option<String>,
    /// `secrets`
    pub secrets: Vec<FileReference>,
    /// `shm_size`, bytes
    pub shm_size: Option<u64>,
    /// `ssh`: an id and its path or socket
    pub ssh: IndexMap<String, String>,
    /// `tags`
    pub tags: Vec<String>,
    /// `target`
    pub target: Option<String>,
    /// `ulimits`
    pub ulimits: IndexMap<String, Ulimit>,
}

/// `develop`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Develop {
    /// `watch`
    pub watch: Vec<Watch>,
}

/// What happens when a file changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Watch {
    /// Where it is.
    pub at: Position,
    /// `path`, absolute
    pub path: PathBuf,
    /// `action`: `rebuild`, `sync`, `restart`, `sync+restart` or `sync+exec`
    pub action: String,
    /// `target`
    pub target: Option<String>,
    /// `ignore`
    pub ignore: Vec<String>,
    /// `include`
    pub include: Vec<String>,
    /// `initial_sync`
    pub initial_sync: Option<bool>,
    /// `exec`
    pub exec: Option<Hook>,
}

/// `blkio_config`; rates and weights by device path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Blkio {
    /// `weight`
    pub weight: Option<i64>,
    /// `weight_device`
    pub weight_device: Vec<(String, i64)>,
    /// `device_read_bps`, bytes in a second
    pub device_read_bps: Vec<(String, u64)>,
    /// `device_read_iops`
    pub device_read_iops: Vec<(String, u64)>,
    /// `device_write_bps`, bytes in a second
    pub device_write_bps: Vec<(String, u64)>,
    /// `device_write_iops`
    pub device_write_iops: Vec<(String, u64)>,
}

/// A config or secret as a service uses it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileReference {
    /// Where it is.
    pub at: Position,
    /// Its key under `configs` or `secrets`.
    pub source: String,
    /// `target`: for configs a path (`/SOURCE` where nothing is written), for secrets a path or a name below
    /// `/run/secrets` (the source's where nothing is written).
    pub target: Option<String>,
    /// `uid`
    pub uid: Option<String>,
    /// `gid`
    pub gid: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
}

/// `credential_spec`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CredentialSpec {
    /// `config`
    pub config: Option<String>,
    /// `file`
    pub file: Option<String>,
    /// `registry`
    pub registry: Option<String>,
}

/// When a service may start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// `service_started`
    #[default]
    Started,
    /// `service_healthy`
    Healthy,
    /// `service_completed_successfully`
    Completed,
}

/// A service that another one needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dependency {
    /// Where it is.
    pub at: Position,
    /// `condition`
    pub condition: Condition,
    /// `restart`
    pub restart: bool,
    /// `required`; false: a service that is off is no mistake
    pub required: bool,
    /// It is not written under `depends_on` but follows from another field, which this names.
    pub implied_by: Option<&'static str>,
}

/// `deploy`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deploy {
    /// `mode`: `replicated` (which is meant where nothing is written), `global`, `replicated-job` or `global-job`
    pub mode: Option<String>,
    /// `endpoint_mode`: `vip` or `dnsrr`
    pub endpoint_mode: Option<String>,
    /// `replicas`
    pub replicas: Option<u32>,
    /// `labels`
    pub labels: IndexMap<String, String>,
    /// `update_config`
    pub update: Option<UpdateConfig>,
    /// `rollback_config`
    pub rollback: Option<UpdateConfig>,
    /// `resources.limits`
    pub limits: Option<Resources>,
    /// `resources.reservations`
    pub reservations: Option<Resources>,
    /// `restart_policy`
    pub restart: Option<RestartPolicy>,
    /// `placement.constraints`, such as `node.role == manager`
    pub constraints: Vec<String>,
    /// `placement.preferences`: what to spread over
    pub spread: Vec<String>,
    /// `placement.max_replicas_per_node`
    pub max_replicas_per_node: Option<u32>,
}

/// `update_config` or `rollback_config`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateConfig {
    /// `parallelism`; 0 is all at once
    pub parallelism: Option<u32>,
    /// `delay`
    pub delay: Option<Duration>,
    /// `failure_action`: `continue`, `rollback` or `pause`
    pub failure_action: Option<String>,
    /// `monitor`
    pub monitor: Option<Duration>,
    /// `max_failure_ratio`
    pub max_failure_ratio: Option<f64>,
    /// `order`: `start-first` or `stop-first`
    pub order: Option<String>,
}

/// `limits` or `reservations`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// `cpus`
    pub cpus: Option<f64>,
    /// `memory`, bytes
    pub memory: Option<u64>,
    /// `pids`
    pub pids: Option<i64>,
    /// `devices`
    pub devices: Vec<DeviceRequest>,
    /// `generic_resources`: kind and count
    pub generic: Vec<(String, i64)>,
}

/// `deploy.restart_policy`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RestartPolicy {
    /// `condition`: `none`, `on-failure` or `any`
    pub condition: Option<String>,
    /// `delay`
    pub delay: Option<Duration>,
    /// `max_attempts`
    pub max_attempts: Option<u32>,
    /// `window`
    pub window: Option<Duration>,
}

/// A device of the machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Device {
    /// Where it is.
    pub at: Position,
    /// The path on the machine, or a CDI name.
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// Any of `rwm`.
    pub permissions: String,
}

/// `gpus` or `reservations.devices`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceRequest {
    /// `capabilities`
    pub capabilities: Vec<String>,
    /// `count`; -1 is all
    pub count: Option<i64>,
    /// `device_ids`
    pub device_ids: Vec<String>,
    /// `driver`
    pub driver: Option<String>,
    /// `options`
    pub options: IndexMap<String, String>,
}

/// A port that only others of the project reach.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposed {
    /// Where it is.
    pub at: Position,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// `db:database`: a service or container and the name it has here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Link {
    /// Where it is.
    pub at: Position,
    /// The service, for `external_links` the container.
    pub target: String,
    /// The name here; the target's where none is written.
    pub alias: String,
}

/// `healthcheck`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Healthcheck {
    /// Where it is.
    pub at: Position,
    /// `test`: begins with `CMD`, `CMD-SHELL` or `NONE`; empty where none is written.
    pub test: Vec<String>,
    /// `interval`
    pub interval: Option<Duration>,
    /// `timeout`
    pub timeout: Option<Duration>,
    /// `retries`
    pub retries: Option<u32>,
    /// `start_period`
    pub start_period: Option<Duration>,
    /// `start_interval`
    pub start_interval: Option<Duration>,
    /// `disable: true`, or a test that is `NONE`
    pub disable: bool,
}

/// `post_start`, `pre_start` or `pre_stop`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hook {
    /// Where it is.
    pub at: Position,
    /// `command`
    pub command: Vec<String>,
    /// `image`, for `pre_start`
    pub image: Option<String>,
    /// `user`
    pub user: Option<String>,
    /// `privileged`
    pub privileged: Option<bool>,
    /// `working_dir`
    pub working_dir: Option<String>,
    /// `environment`
    pub environment: IndexMap<String, String>,
    /// `per_replica`, for `pre_start`
    pub per_replica: Option<bool>,
}

/// `logging`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logging {
    /// `driver`
    pub driver: Option<String>,
    /// `options`
    pub options: IndexMap<String, String>,
}

/// How a service uses a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelReference {
    /// `endpoint_var`
    pub endpoint_var: Option<String>,
    /// `model_var`
    pub model_var: Option<String>,
}

/// `network_mode`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// `none`
    None,
    /// `host`
    Host,
    /// `bridge`, and `default`
    Bridge,
    /// `service:NAME`, and `container:NAME` of version 1 where a service has that name
    Service(String),
    /// `container:NAME`
    Container(String),
    /// Any other: the name of a network of docker's
    Network(String),
}

/// How a service takes part in a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attachment {
    /// Where it is.
    pub at: Position,
    /// `aliases`
    pub aliases: Vec<String>,
    /// `interface_name`
    pub interface_name: Option<String>,
    /// `ipv4_address`
    pub ipv4_address: Option<String>,
    /// `ipv6_address`
    pub ipv6_address: Option<String>,
    /// `link_local_ips`
    pub link_local_ips: Vec<String>,
    /// `mac_address`
    pub mac_address: Option<String>,
    /// `driver_opts`
    pub driver_opts: IndexMap<String, String>,
    /// `priority`
    pub priority: Option<i64>,
    /// `gw_priority`
    pub gw_priority: Option<i64>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PortMapping {
    /// Where it is.
    pub at: Position,
    /// The port of the process.
    pub target: u16,
    /// The first port of the machine; `None` where the machine chooses one.
    pub published: Option<u16>,
    /// The last port of the machine, where it may choose from a range (`8000-8010:80`).
    pub published_end: Option<u16>,
    /// The address of the machine.
    pub host_ip: Option<String>,
    /// `tcp`, `udp` or `sctp`
    pub protocol: String,
    /// `mode`: `ingress` (which is meant where nothing is written) or `host`
    pub mode: Option<String>,
    /// `name`
    pub name: Option<String>,
    /// `app_protocol`
    pub app_protocol: Option<String>,
}

/// `provider`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provider {
    /// `type`
    pub kind: String,
    /// `options`
    pub options: IndexMap<String, Vec<String>>,
}

/// `restart`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// `no`
    No,
    /// `always`
    Always,
    /// `on-failure`, with the number of attempts after a colon
    OnFailure(Option<u32>),
    /// `unless-stopped`
    UnlessStopped,
}

/// `ulimits`; -1 is without limit
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// `soft`
    pub soft: i64,
    /// `hard`
    pub hard: i64,
}

/// What is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the machine; `source` is absolute.
    Bind,
    /// A named volume, or one without a name where `source` is `None`.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// A pipe of Windows.
    NamedPipe,
    /// A volume of the cluster's storage.
    Cluster,
    /// The files of an image.
    Image,
}

/// One of `volumes` of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mount {
    /// Where it is.
    pub at: Position,
    /// `type`
    pub kind: MountKind,
    /// The path on the machine, the volume or the image.
    pub source: Option<String>,
    /// The path in the container.
    pub target: String,
    /// `read_only`, and `ro`
    pub read_only: bool,
    /// `consistency`
    pub consistency: Option<String>,
    /// `bind.propagation`
    pub propagation: Option<String>,
    /// `bind.create_host_path`; true for the short form
    pub create_host_path: bool,
    /// `bind.recursive`
    pub recursive: Option<String>,
    /// `bind.selinux`: `z` or `Z`
    pub selinux: Option<String>,
    /// `volume.nocopy`
    pub nocopy: bool,
    /// `volume.subpath` or `image.subpath`
    pub subpath: Option<String>,
    /// `volume.labels`
    pub labels: IndexMap<String, String>,
    /// `content`, a field of Coolify: what the file holds that is mounted.
    pub content: Option<String>,
    /// `tmpfs.size`, bytes
    pub tmpfs_size: Option<u64>,
    /// `tmpfs.mode`
    pub tmpfs_mode: Option<u32>,
}

/// `volumes_from`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumesFrom {
    /// Where it is.
    pub at: Position,
    /// The service, or the container's name.
    pub source: String,
    /// It is `container:NAME`, which is not of this project.
    pub container: bool,
    /// `:ro`
    pub read_only: bool,
}

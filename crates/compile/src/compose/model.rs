//! A compose project after everything was read: files merged, variables replaced, short forms written out, paths
//! absolute. Names and defaults are the compose specification's.
//!
//! What has a place of its own in a file carries `at`; the place of any field of a service is [`Service::place`].

mod parts;
mod shared;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

pub use parts::*;
pub use shared::*;

use crate::diagnostic::{Diagnostic, Position};

/// Everything that belongs together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    /// Lower-case letters, digits, `-` and `_`, beginning with a letter or digit.
    pub name: String,
    /// Its main file is of version 1: links give variables, and all such projects share one network.
    pub version_1: bool,
    /// What relative paths start from.
    pub directory: PathBuf,
    /// The files read, the first one being the main one; included and extended ones too.
    pub files: Vec<PathBuf>,
    /// Env files read for the whole project, and for projects that it includes.
    pub env_files: Vec<PathBuf>,
    /// Services that are on, in the order written.
    pub services: IndexMap<String, Service>,
    /// Services that are off because none of their profiles is on.
    pub disabled: IndexMap<String, Service>,
    /// Networks, those only services use included: `default` is there if any service uses it.
    pub networks: IndexMap<String, Network>,
    /// Named volumes.
    pub volumes: IndexMap<String, Volume>,
    /// Configs.
    pub configs: IndexMap<String, FileObject>,
    /// Secrets.
    pub secrets: IndexMap<String, FileObject>,
    /// AI models.
    pub models: IndexMap<String, Model>,
    /// What was understood but looks like a mistake.
    pub warnings: Vec<Diagnostic>,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Its key under `services`.
    pub name: String,
    /// Where the key is.
    pub at: Position,
    /// Where each of its fields is: `ports`, and for fields of `build`, `deploy` and `healthcheck` also
    /// `deploy.placement` and `deploy.resources.limits`.
    pub places: BTreeMap<String, Position>,

    /// `annotations`
    pub annotations: IndexMap<String, String>,
    /// `attach`
    pub attach: Option<bool>,
    /// `build`
    pub build: Option<Build>,
    /// `develop`
    pub develop: Option<Develop>,
    /// `blkio_config`
    pub blkio: Option<Blkio>,
    /// `cap_add`
    pub cap_add: Vec<String>,
    /// `cap_drop`
    pub cap_drop: Vec<String>,
    /// `cgroup`: `host` or `private`
    pub cgroup: Option<String>,
    /// `cgroup_parent`
    pub cgroup_parent: Option<String>,
    /// `command`, split as a shell would; `Some` of an empty list clears the image's.
    pub command: Option<Vec<String>>,
    /// `configs`
    pub configs: Vec<FileReference>,
    /// `container_name`
    pub container_name: Option<String>,
    /// `cpu_count`
    pub cpu_count: Option<i64>,
    /// `cpu_percent`
    pub cpu_percent: Option<f64>,
    /// `cpu_period`, microseconds
    pub cpu_period: Option<i64>,
    /// `cpu_quota`, microseconds in each period
    pub cpu_quota: Option<i64>,
    /// `cpu_rt_period`, microseconds
    pub cpu_rt_period: Option<i64>,
    /// `cpu_rt_runtime`, microseconds
    pub cpu_rt_runtime: Option<i64>,
    /// `cpu_shares`, of 1024
    pub cpu_shares: Option<i64>,
    /// `cpus`
    pub cpus: Option<f64>,
    /// `cpuset`
    pub cpuset: Option<String>,
    /// `credential_spec`
    pub credential_spec: Option<CredentialSpec>,
    /// `depends_on`, with what `links`, `volumes_from` and `network_mode: service:x` add.
    pub depends_on: IndexMap<String, Dependency>,
    /// `deploy`
    pub deploy: Option<Deploy>,
    /// `device_cgroup_rules`
    pub device_cgroup_rules: Vec<String>,
    /// `devices`
    pub devices: Vec<Device>,
    /// `dns`
    pub dns: Vec<String>,
    /// `dns_opt`
    pub dns_opt: Vec<String>,
    /// `dns_search`
    pub dns_search: Vec<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// `entrypoint`, split as a shell would; `Some` of an empty list clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `environment`, over what `env_file` says. A name without a value has the caller's, or is left out if the caller
    /// has none.
    pub environment: IndexMap<String, String>,
    /// `env_file`, which are in `environment` already.
    pub env_files: Vec<PathBuf>,
    /// `expose`: port or range with an optional `/udp`, spread out.
    pub expose: Vec<Exposed>,
    /// `external_links`
    pub external_links: Vec<Link>,
    /// `extra_hosts`: name and address (`host-gateway` is kept).
    pub extra_hosts: Vec<(String, String)>,
    /// `gpus`
    pub gpus: Vec<DeviceRequest>,
    /// `group_add`
    pub group_add: Vec<String>,
    /// `healthcheck`
    pub healthcheck: Option<Healthcheck>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `image`
    pub image: Option<String>,
    /// Where `image` is, if there is nothing in it
    pub empty_image: Option<Position>,
    /// `init`
    pub init: Option<bool>,
    /// `ipc`
    pub ipc: Option<String>,
    /// `isolation`
    pub isolation: Option<String>,
    /// `labels`, over what `label_file` says
    pub labels: IndexMap<String, String>,
    /// `links`
    pub links: Vec<Link>,
    /// `logging`, and `log_driver` with `log_opt` of version 1
    pub logging: Option<Logging>,
    /// `mac_address`
    pub mac_address: Option<String>,
    /// `mem_limit`, bytes
    pub mem_limit: Option<u64>,
    /// `mem_reservation`, bytes
    pub mem_reservation: Option<u64>,
    /// `mem_swappiness`
    pub mem_swappiness: Option<i64>,
    /// `memswap_limit`, bytes; -1 is without limit
    pub memswap_limit: Option<i64>,
    /// `models`
    pub models: IndexMap<String, ModelReference>,
    /// `network_mode`, and `net` of version 1
    pub network_mode: Option<NetworkMode>,
    /// `networks`; `default` where nothing is said. Empty with a `network_mode`.
    pub networks: IndexMap<String, Attachment>,
    /// `oom_kill_disable`
    pub oom_kill_disable: Option<bool>,
    /// `oom_score_adj`
    pub oom_score_adj: Option<i64>,
    /// `pid`
    pub pid: Option<String>,
    /// `pids_limit`
    pub pids_limit: Option<i64>,
    /// `platform`
    pub platform: Option<String>,
    /// `ports`, ranges spread out
    pub ports: Vec<PortMapping>,
    /// `post_start`
    pub post_start: Vec<Hook>,
    /// `pre_start`
    pub pre_start: Vec<Hook>,
    /// `pre_stop`
    pub pre_stop: Vec<Hook>,
    /// `privileged`
    pub privileged: Option<bool>,
    /// `profiles`
    pub profiles: Vec<String>,
    /// `provider`
    pub provider: Option<Provider>,
    /// `pull_policy`
    pub pull_policy: Option<String>,
    /// `pull_refresh_after`
    pub pull_refresh_after: Option<String>,
    /// `read_only`
    pub read_only: Option<bool>,
    /// `restart`; `None` is not written, which docker takes as `no`
    pub restart: Option<Restart>,
    /// `runtime`
    pub runtime: Option<String>,
    /// `scale`; see [`Service::replicas`]
    pub scale: Option<u32>,
    /// `secrets`
    pub secrets: Vec<FileReference>,
    /// `security_opt`
    pub security_opt: Vec<String>,
    /// `shm_size`, bytes
    pub shm_size: Option<u64>,
    /// `stdin_open`
    pub stdin_open: Option<bool>,
    /// `stop_grace_period`
    pub stop_grace_period: Option<Duration>,
    /// `stop_signal`
    pub stop_signal: Option<String>,
    /// `storage_opt`
    pub storage_opt: IndexMap<String, String>,
    /// `sysctls`
    pub sysctls: IndexMap<String, String>,
    /// `tmpfs`: path, with options after a colon
    pub tmpfs: Vec<String>,
    /// `tty`
    pub tty: Option<bool>,
    /// `ulimits`
    pub ulimits: IndexMap<String, Ulimit>,
    /// `use_api_socket`
    pub use_api_socket: Option<bool>,
    /// `user`: name or number, with an optional group after a colon
    pub user: Option<String>,
    /// `userns_mode`
    pub userns_mode: Option<String>,
    /// `uts`
    pub uts: Option<String>,
    /// `volume_driver` of versions 1 and 2
    pub volume_driver: Option<String>,
    /// `volumes`
    pub volumes: Vec<Mount>,
    /// `volumes_from`
    pub volumes_from: Vec<VolumesFrom>,
    /// `working_dir`
    pub working_dir: Option<String>,
}

impl Service {
    /// Where a field is written, such as `ports` or `deploy.placement`; the service itself where it is not.
    pub fn place(&self, field: &str) -> &Position {
        let mut field = field;
        loop {
            if let Some(at) = self.places.get(field) {
                return at;
            }
            match field.rsplit_once('.') {
                Some((above, _)) => field = above,
                None => return &self.at,
            }
        }
    }

    /// Whether a field is written.
    pub fn has(&self, field: &str) -> bool {
        self.places.contains_key(field)
    }

    /// How many: `scale`, else `deploy.replicas`, else 1.
    pub fn replicas(&self) -> u32 {
        self.scale.or(self.deploy.as_ref().and_then(|d| d.replicas)).unwrap_or(1)
    }
}

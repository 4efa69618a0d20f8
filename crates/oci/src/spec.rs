//! What a caller says about a sandbox, a container and an exec. Plain data: it crosses the shim's socket as JSON.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A group of containers that share a network namespace, a host name and a cgroup; one shim process holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Names the sandbox's directory, socket and cgroup: `[a-z0-9-]`, at most 63 characters, unique per runtime.
    pub id: String,
    /// The UTS host name.
    pub hostname: String,
    /// The network namespace to join, as a path that can be opened; `None` stays in the host's.
    pub netns: Option<PathBuf>,
    /// Use the host's process namespace.
    pub host_pid: bool,
    /// Use the host's IPC namespace; otherwise the containers of the sandbox share one of their own.
    pub host_ipc: bool,
    /// One process namespace for all containers of the sandbox.
    pub share_pid: bool,
    /// Limits of the whole sandbox.
    pub resources: Resources,
    /// Kernel parameters set in the sandbox's namespaces, by names with dots. A dot within a part is written as a slash.
    pub sysctls: BTreeMap<String, String>,
    /// Given back unchanged by [`crate::runtime::Runtime::sandboxes`]: what the caller needs to adopt it again.
    pub labels: BTreeMap<String, String>,
}

/// One container of a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique within the sandbox, `[a-z0-9-]`, at most 80 characters.
    pub id: String,
    /// The overlay's lower directories, topmost first, as [`crate::image::Image::layers`] gives them. Not used with
    /// [`ContainerSpec::host`].
    pub layers: Vec<PathBuf>,
    /// The root is this machine's own, read-only under a layer of the container's own.
    #[serde(default)]
    pub host: Option<HostRoot>,
    /// No write reaches the root file system.
    pub read_only_root: bool,
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, later ones win. Values are bytes, whatever they mean.
    #[serde(with = "words")]
    pub env: Vec<OsString>,
    /// The working directory, made if absent.
    pub cwd: PathBuf,
    /// As an image writes it: `name`, `uid`, `name:group`, `uid:gid`; empty is root. Names are looked up in the
    /// container's own `/etc/passwd` and `/etc/group`; digits are always an id, at most [`LARGEST_ID`].
    pub user: String,
    /// Refuse to run as user 0, whatever [`ContainerSpec::user`] resolves to.
    #[serde(default)]
    pub run_as_non_root: bool,
    /// Further group ids.
    pub groups: Vec<u32>,
    /// Bind mounts, in order.
    pub mounts: Vec<BindMount>,
    /// Capability names such as `CAP_CHOWN`, for the bounding, permitted and effective sets.
    pub capabilities: Vec<String>,
    /// All devices, all capabilities, nothing masked, no system-call filter.
    pub privileged: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// The system-call filter.
    pub seccomp: Seccomp,
    /// Limits of this container.
    pub resources: Resources,
    /// Limits of each of its processes, by the names of [`RLIMITS`].
    #[serde(default)]
    pub limits: BTreeMap<String, Limit>,
    /// How willingly the kernel's memory killer takes it, -1000 (never) to 1000 (first); usually 0.
    pub oom_score_adj: i32,
    /// A pseudo-terminal as standard input, output and error.
    pub terminal: bool,
    /// Keep standard input open for attachers; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Where output goes.
    pub log: LogSpec,
    /// Given back unchanged with the container's status.
    pub labels: BTreeMap<String, String>,
}

/// What a container that runs on the machine's own root does not get to see of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostRoot {
    /// Absolute paths without symbolic links, of directories and files that are empty in the container.
    pub hidden: Vec<PathBuf>,
}

/// A process limit as setrlimit(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What holds.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// No limit, in either half of a [`Limit`].
pub const UNLIMITED: u64 = u64::MAX;

/// Names of process limits, each at its number in the kernel.
pub const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// The largest user or group id that a container can have. The kernel takes 2^32 - 1 for "leave unchanged", and ids
/// above this one are negative for programs that keep them in a signed number. Kubernetes has the same bound.
pub const LARGEST_ID: u32 = i32::MAX as u32;

/// A directory or file of the host seen in a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindMount {
    /// On the host; must exist.
    pub source: PathBuf,
    /// Absolute, in the container; made if absent.
    pub target: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Seccomp {
    /// No filter, as asked for by name.
    Unconfined,
    /// Nothing was asked for: no filter but one that closes the keyrings that the container's user has on the machine.
    Unspecified,
    /// The default filter, which refuses what container engines commonly refuse.
    Default,
    /// A profile in the OCI `linux.seccomp` JSON form.
    Profile(PathBuf),
}

/// cgroup limits. `None` is the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// v1 `cpu.shares` (2–262144); turned into `cpu.weight` on v2.
    pub cpu_shares: Option<u64>,
    /// CFS quota in microseconds of each period.
    pub cpu_quota_us: Option<i64>,
    /// CFS period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Processes and threads.
    pub pids_limit: Option<i64>,
}

/// Output of a container: lines in the CRI format (`TIME stream F|P text`) in `path`, rotated to `path.1`, `path.2`…
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The current file.
    pub path: PathBuf,
    /// A file that reaches this size is rotated.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

/// A further process in a running container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// Added to the container's own environment.
    pub env: Vec<String>,
    /// A pseudo-terminal; standard error then arrives on standard output.
    pub terminal: bool,
    /// Whether standard input is connected.
    pub stdin: bool,
}

/// How a container fares. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Set up, not started.
    Created,
    /// Its first process runs.
    Running {
        /// In the host's process namespace.
        pid: i32,
        /// When it was started.
        started_at: i128,
    },
    /// Its first process has ended.
    Exited {
        /// The exit code; 128 + signal number where a signal ended it.
        code: i32,
        /// The kernel's memory killer took a process of it.
        oom_killed: bool,
        /// When it was started; `None` where it never ran.
        started_at: Option<i128>,
        /// When it ended.
        finished_at: i128,
        /// Why it could not be started, for the user; empty otherwise.
        message: String,
    },
}

/// One container as its shim sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// [`ContainerSpec::id`].
    pub id: String,
    /// How it fares.
    pub state: ContainerState,
    /// [`ContainerSpec::labels`].
    pub labels: BTreeMap<String, String>,
}

/// Words of any bytes, in JSON: as text where they are text.
mod words {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Word<Text, Bytes> {
        Text(Text),
        Bytes(Bytes),
    }

    pub(super) fn serialize<S: Serializer>(words: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(words.iter().map(|word| match word.to_str() {
            Some(text) => Word::Text(text),
            None => Word::Bytes(word.as_bytes()),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OsString>, D::Error> {
        let words: Vec<Word<String, Vec<u8>>> = Deserialize::deserialize(deserializer)?;
        let word = |word| match word {
            Word::Text(text) => OsString::from(text),
            Word::Bytes(bytes) => OsString::from_vec(bytes),
        };
        Ok(words.into_iter().map(word).collect())
    }

    #[cfg(test)]
    #[test]
    fn words_of_any_bytes_come_back() {
        #[derive(Serialize, Deserialize)]
        struct Of(#[serde(with = "super::words")] Vec<OsString>);
        let words = vec!["A=ü".into(), OsString::from_vec(b"B=\xff".to_vec()), "".into()];
        let text = serde_json::to_string(&Of(words.clone())).unwrap();
        assert_eq!(text, r#"["A=ü",[66,61,255],""]"#);
        assert_eq!(serde_json::from_str::<Of>(&text).unwrap().0, words);
    }
}

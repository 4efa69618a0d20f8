//! Sandboxes and containers. [`Runtime`] starts one shim process per sandbox and talks to it over a Unix socket;
//! the shim forks the containers, keeps their mounts, logs and exit codes, and goes on when its starter dies.
//!
//! ```text
//! daemon (tokio)                     shim (one thread, one per sandbox)
//! Runtime ── create_sandbox ──spawn──▶ setsid, new mount/UTS/IPC namespaces, double fork
//! Sandbox ══ shim.sock: requests ════▶ poll loop ── clone3 ──▶ container: overlay, pivot_root, execve
//!         ◀═ replies, events, fds ═══             ◀─ SIGCHLD ─ exit code into state.json
//! ```
//!
//! The binary that is [`Config::shim_exe`] must call [`shim_main`] before anything else when its first argument
//! is [`SHIM_ARGUMENT`]: the shim must never have a second thread.

mod cgroup;
mod connection;
mod error;
mod program;
mod protocol;
mod sandbox;
mod seccomp;
mod session;
mod shim;
mod shim_process;
mod users;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use self::program::Program;
use self::protocol::Request;
use self::sandbox::CONTAINER_ID_MAX;
use self::shim_process::ShimProcess;
use crate::spec::{ContainerStatus, SandboxSpec};

pub use error::{Error, Refusal, Result};
pub use sandbox::{Sandbox, SandboxState};
pub use session::{AttachSession, ExecOutput, ExecSession, FdStream};
pub use shim::shim_main;

/// The first argument of a process that is to become a shim.
pub const SHIM_ARGUMENT: &str = "shim";

/// Where a [`Runtime`] keeps what must outlive it.
#[derive(Clone, Debug)]
pub struct Config {
    /// One directory per sandbox: its specification, socket, states and the containers' writable layers. It must
    /// be on a file system that can be an overlay's upper directory (ext4, xfs, btrfs, tmpfs).
    pub state_dir: PathBuf,
    /// The program that becomes the shim, normally `/proc/self/exe`.
    pub shim_exe: PathBuf,
    /// The cgroup above all sandboxes, relative to the hierarchies' roots: `yado/<instance>`.
    pub cgroup_root: String,
}

/// A sandbox found on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// As it was created.
    pub spec: SandboxSpec,
    /// Its shim answers, so [`Runtime::adopt`] works; otherwise only [`Runtime::destroy`] does.
    pub alive: bool,
}

/// What a sandbox, or one of its containers, uses at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of memory that cannot be given back at once: usage without inactive file pages.
    pub working_set: u64,
    /// Bytes of memory, pages of files included.
    pub memory: u64,
    /// Bytes of memory that no file backs.
    pub anonymous: u64,
    /// Bytes of memory that hold pages of files.
    pub file: u64,
    /// Faults of pages so far.
    pub page_faults: u64,
    /// Those of them that had to wait for a disk.
    pub major_page_faults: u64,
    /// Processes that the kernel's memory killer took.
    pub oom_kills: u64,
    /// Periods of the processor limit so far, those of them in which it was reached, and the nanoseconds lost in them.
    pub throttling: (u64, u64, u64),
}

/// Starts, finds, adopts and destroys sandboxes. One per state directory.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    hierarchies: cgroup::Hierarchies,
    /// Connected sandboxes; entries leave in `destroy`, so there are as many as sandboxes.
    sandboxes: Mutex<HashMap<String, Sandbox>>,
}

/// Ids become directory and cgroup names.
const SANDBOX_ID_MAX: usize = 63;

/// How long killed processes may take to go. Uninterruptible sleep on a slow disk is the usual reason; after this
/// it is a fault that someone must see.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

/// The group of all shims, beside the sandboxes' own: limits of a sandbox must not hit its shim.
pub(crate) const SHIMS: &str = ".shims";

impl Runtime {
    /// Makes the state directory and finds the machine's cgroups.
    pub fn new(config: Config) -> Result<Self> {
        // Whoever reaches a shim's socket is root in its containers.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir);
        made.map_err(Error::file("create directory", &config.state_dir))?;
        let hierarchies =
            cgroup::Hierarchies::detect().map_err(Error::file("read", Path::new("/proc/self/mountinfo")))?;
        if hierarchies.is_empty() {
            return Err(Error::NoCgroups);
        }
        let missing = hierarchies.missing();
        if !missing.is_empty() {
            tracing::warn!(
                ?missing,
                "the kernel has no such cgroup controllers, so these limits are not enforced"
            );
        }
        let inner = Inner { config, hierarchies, sandboxes: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sandboxes found on disk, with their shims alive (to be adopted) or dead (to be cleaned by
    /// [`Self::destroy`]). A directory without a readable specification was never a whole sandbox and is removed. A
    /// sandbox whose directory was deleted under its shim cannot be reached any more and is destroyed.
    pub async fn sandboxes(&self) -> Result<Vec<Found>> {
        let root = &self.inner.config.state_dir;
        let entries = std::fs::read_dir(root).map_err(Error::file("read directory", root))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            if check_id(&id, SANDBOX_ID_MAX).is_err() {
                // Somebody else's, or one that is being made.
                continue;
            }
            match self.read_spec(&id) {
                Ok(spec) => {
                    let alive = connection::connect(&entry.path()).await.is_ok();
                    found.push(Found { spec, alive });
                }
                Err(_) => self.destroy(&id).await?,
            }
        }
        found.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        self.destroy_unreachable().await?;
        Ok(found)
    }

    /// The shims' cgroup knows those whose directories are gone. One that this runtime is connected to goes on.
    async fn destroy_unreachable(&self) -> Result<()> {
        for (id, shim) in self.shims() {
            let connected = self.inner.sandboxes.lock().contains_key(&id);
            if shim.directory_deleted() && !connected && check_id(&id, SANDBOX_ID_MAX).is_ok() {
                tracing::warn!(sandbox = %id, "the directory of a running sandbox was deleted, so it is destroyed");
                self.destroy(&id).await?;
            }
        }
        Ok(())
    }

    /// Every running shim with the id of its sandbox.
    fn shims(&self) -> Vec<(String, ShimProcess)> {
        let group = format!("{}/{SHIMS}", self.inner.config.cgroup_root);
        let processes = self.inner.hierarchies.group(&group).processes();
        processes.into_iter().filter_map(ShimProcess::of_sandbox).collect()
    }

    /// The shim of a sandbox: who listens on its socket, or, where that was deleted, who works in its directory.
    async fn shim_of(&self, id: &str, dir: &Path) -> Option<ShimProcess> {
        let listening = connection::connect(dir).await.ok();
        listening.and_then(|socket| ShimProcess::behind(&socket)).or_else(|| {
            let mut shims = self.shims().into_iter();
            shims
                .find(|(of, shim)| of == id && (shim.directory_deleted() || shim.works_in(dir)))
                .map(|(_, shim)| shim)
        })
    }

    /// Makes a sandbox: its namespaces, its cgroup, and the shim that holds them. A sandbox that cannot be made
    /// leaves nothing behind.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        check_id(&spec.id, SANDBOX_ID_MAX)?;
        let id = spec.id.clone();
        let dir = self.dir(&id);
        self.make_directory(&spec, &dir)?;
        match self.start_sandbox(spec, &dir).await {
            Ok(sandbox) => {
                self.inner.sandboxes.lock().insert(id, sandbox.clone());
                Ok(sandbox)
            }
            Err(error) => {
                if let Err(left) = self.destroy(&id).await {
                    tracing::warn!(sandbox = %id, error = %left, "a sandbox that failed to start is not cleaned up");
                }
                Err(error)
            }
        }
    }

    /// The directory appears under its name with the specification in it, or not at all.
    fn make_directory(&self, spec: &SandboxSpec, dir: &Path) -> Result<()> {
        let fresh = self.inner.config.state_dir.join(format!(".{}", spec.id));
        let path = fresh.join(protocol::SPEC_FILE);
        let text = serde_json::to_vec(spec)
            .map_err(|error| Error::ShimStart { id: spec.id.clone(), reason: error.to_string() })?;
        if let Err(error) = std::fs::create_dir(&fresh)
            // Left by a daemon that was killed right here.
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(Error::file("create directory", &fresh)(error));
        }
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
        match std::fs::rename(&fresh, dir) {
            Err(error) if dir.exists() => {
                tracing::debug!(sandbox = %spec.id, %error, "a sandbox of this id is there");
                // Best effort: it is found and used again by the next of this id.
                let _ = std::fs::remove_dir_all(&fresh);
                Err(Error::SandboxExists { id: spec.id.clone() })
            }
            result => result.map_err(Error::file("create directory", dir)),
        }
    }

    async fn start_sandbox(&self, spec: SandboxSpec, dir: &Path) -> Result<Sandbox> {
        let refused = |reason: String| Error::ShimStart { id: spec.id.clone(), reason };
        // Held until the shim has sealed it.
        let program = Program::mount(&self.inner.config.shim_exe)
            .map_err(Error::file("mount a copy of", &self.inner.config.shim_exe))?;
        let mut starter = tokio::process::Command::new(program.path())
            .arg0(program::NAME)
            .arg(SHIM_ARGUMENT)
            .arg(dir)
            .arg(&self.inner.config.cgroup_root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::file("run", &self.inner.config.shim_exe))?;
        let mut word = [0; shim::READY.len()];
        let ready = match starter.stdout.take() {
            Some(mut stdout) => stdout.read_exact(&mut word).await.is_ok() && word == shim::READY,
            None => false,
        };
        if !ready {
            let output = starter.wait_with_output().await;
            let output = output.map_err(Error::file("run", &self.inner.config.shim_exe))?;
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(refused(if reason.is_empty() { output.status.to_string() } else { reason }));
        }
        // The starter ends by itself in a moment, and tokio reaps it.
        drop((starter, program));
        Sandbox::connect(dir, spec).await
    }

    /// Takes a sandbox over that an earlier process created. The handle of one that this runtime knows already is
    /// given again.
    pub async fn adopt(&self, id: &str) -> Result<Sandbox> {
        if let Some(known) = self.inner.sandboxes.lock().get(id) {
            return Ok(known.clone());
        }
        let spec = self.read_spec(id)?;
        let sandbox = Sandbox::connect(&self.dir(id), spec).await?;
        // Two at once: the first one's connection is kept.
        Ok(self.inner.sandboxes.lock().entry(id.to_owned()).or_insert(sandbox).clone())
    }

    /// The containers' last known states, also where the shim is dead.
    pub async fn last_states(&self, id: &str) -> Vec<ContainerStatus> {
        if let Ok(sandbox) = self.adopt(id).await {
            return sandbox.statuses();
        }
        connection::dead_states(id, &self.dir(id)).into_values().collect()
    }

    /// Kills everything in a sandbox and removes its cgroups, mounts and directories, also where the shim is dead.
    /// A sandbox that is not there is fine, and so is one whose directory or socket was deleted.
    pub async fn destroy(&self, id: &str) -> Result<()> {
        check_id(id, SANDBOX_ID_MAX)?;
        let dir = self.dir(id);
        let known = self.inner.sandboxes.lock().remove(id);
        let shim = self.shim_of(id, &dir).await;
        if let Some(sandbox) = known {
            // Only a politeness: what follows ends a shim that does not answer.
            let _ = tokio::time::timeout(DEATH_LIMIT, sandbox.caller().done(Request::Shutdown)).await;
        }
        if let Some(shim) = shim
            && !shim.end(DEATH_LIMIT).await
        {
            let cgroup = self.inner.hierarchies.group(&self.inner.config.cgroup_root).shown();
            return Err(Error::StillAlive { what: format!("sandbox {id}"), after: DEATH_LIMIT, cgroup });
        }
        self.clear_cgroups(id).await?;
        let removed = dir.clone();
        let result = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&removed)).await;
        match result {
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// What a sandbox uses, or the container of that id in it; `None` where there is none. It reads a few files of the
    /// kernel.
    pub fn usage(&self, sandbox: &str, container: Option<&str>) -> Option<Usage> {
        self.inner.hierarchies.group(&self.group_path(sandbox, container)?).usage()
    }

    /// The ids of the processes of a container, in the node's own process namespace.
    pub fn processes(&self, sandbox: &str, container: &str) -> BTreeSet<i32> {
        let path = self.group_path(sandbox, Some(container));
        path.map(|path| self.inner.hierarchies.group(&path).processes()).unwrap_or_default()
    }

    /// The path of a group, where its ids are ones that can name it.
    fn group_path(&self, sandbox: &str, container: Option<&str>) -> Option<String> {
        check_id(sandbox, SANDBOX_ID_MAX).ok()?;
        let root = &self.inner.config.cgroup_root;
        let Some(container) = container else { return Some(format!("{root}/{sandbox}")) };
        check_id(container, CONTAINER_ID_MAX).ok()?;
        Some(format!("{root}/{sandbox}/{container}"))
    }

    async fn clear_cgroups(&self, id: &str) -> Result<()> {
        let root = &self.inner.config.cgroup_root;
        let (path, shims) = (format!("{root}/{id}"), format!("{root}/{SHIMS}"));
        let group = self.inner.hierarchies.group(&path);
        let started = tokio::time::Instant::now();
        loop {
            let alive = group.kill().map_err(Error::file("read", &group.shown()))?;
            // A group of dead but unreaped processes is busy for a moment more.
            match group.remove() {
                Ok(()) if !alive => break,
                _ if started.elapsed() > DEATH_LIMIT => {
                    let cgroup = group.shown();
                    return Err(Error::StillAlive {
                        what: format!("sandbox {id}"),
                        after: DEATH_LIMIT,
                        cgroup,
                    });
                }
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        // The last one out: these stay while other sandboxes are there.
        let shims = self.inner.hierarchies.group(&shims);
        while !shims.remove_if_empty() && !shims.populated() && started.elapsed() < DEATH_LIMIT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut above = Some(Path::new(root));
        while let Some(path) = above.filter(|path| !path.as_os_str().is_empty()) {
            self.inner.hierarchies.group(&path.to_string_lossy()).remove_if_empty();
            above = path.parent();
        }
        Ok(())
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.inner.config.state_dir.join(id)
    }

    fn read_spec(&self, id: &str) -> Result<SandboxSpec> {
        check_id(id, SANDBOX_ID_MAX)?;
        std::fs::read(self.dir(id).join(protocol::SPEC_FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .ok_or_else(|| Error::NoSuchSandbox { id: id.to_owned() })
    }
}

fn check_id(id: &str, max: usize) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !id.is_empty() && id.len() <= max && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::InvalidId { id: id.to_owned(), max })
}

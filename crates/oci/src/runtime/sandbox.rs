//! A sandbox with a living shim, as its callers see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{Caller, Connection};
use super::error::{Error, Result};
use super::protocol::{CONTAINERS, GONE, Reply, Request, UPPER};
use super::session::{AttachSession, ExecOutput, ExecSession, Streams};
use crate::spec::{ContainerSpec, ContainerState, ContainerStatus, ExecSpec, SandboxSpec};

/// Everything known of a sandbox's containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxState {
    /// The shim answers. Once false it stays false; running containers are then shown as exited with 137.
    pub alive: bool,
    /// By id.
    pub containers: BTreeMap<String, ContainerStatus>,
}

/// A handle on one sandbox; clones share one connection. Dropping the last one, and the runtime's own with
/// [`super::Runtime`], leaves the sandbox running.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    spec: SandboxSpec,
    dir: PathBuf,
    caller: Caller,
    state: watch::Receiver<Arc<SandboxState>>,
    /// The connection's task, aborted when the last handle goes.
    _task: Mutex<JoinSet<()>>,
}

impl Sandbox {
    pub(super) async fn connect(dir: &Path, spec: SandboxSpec) -> Result<Self> {
        let (connection, caller, state) = Connection::open(&spec.id, dir).await?;
        let mut task = JoinSet::new();
        task.spawn(connection.run());
        Ok(Self {
            inner: Arc::new(Inner { spec, dir: dir.to_owned(), caller, state, _task: Mutex::new(task) }),
        })
    }

    /// As it was created.
    pub fn spec(&self) -> &SandboxSpec {
        &self.inner.spec
    }

    /// Sets a container up to the point where its program would run: limits, mounts, user. A container that cannot
    /// be set up leaves nothing behind.
    pub async fn create(&self, spec: ContainerSpec) -> Result<()> {
        super::check_id(&spec.id, CONTAINER_ID_MAX)?;
        self.inner.caller.done(Request::Create(Box::new(spec))).await
    }

    /// Runs a created container's program and returns its process id. Where the program cannot be run, that is the
    /// error, and the container's state is `Exited` with code 128 and the same sentence.
    pub async fn start(&self, id: &str) -> Result<i32> {
        match self.call(Request::Start { id: id.to_owned() }).await? {
            Reply::Started { pid } => Ok(pid),
            _ => Err(self.gone()),
        }
    }

    /// Sends a signal to the container's first process; a container or shim that has ended is fine.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        match self.inner.caller.done(Request::Signal { id: id.to_owned(), signal }).await {
            Err(Error::ShimGone { .. }) => Ok(()),
            other => other,
        }
    }

    /// Kills every process of every container. Their exits arrive as events.
    pub async fn kill_all(&self) -> Result<()> {
        match self.inner.caller.done(Request::KillAll).await {
            Err(Error::ShimGone { .. }) => Ok(()),
            other => other,
        }
    }

    /// Forgets an exited or never started container and deletes its writable layer. One that is not there is fine.
    pub async fn remove(&self, id: &str) -> Result<()> {
        self.inner.caller.done(Request::Remove { id: id.to_owned() }).await?;
        // The shim only moves it aside: deleting a large tree would keep it from its other containers.
        let gone = self.inner.dir.join(GONE);
        let result = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&gone) {
            // Two removals at once take each other's files away, which is what both want.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &gone)(error))
            }
            _ => Ok(()),
        });
        result.await.unwrap_or(Ok(()))
    }

    /// Where the files lie that a container has written over its image; there as long as the container is.
    pub fn writable_layer(&self, id: &str) -> PathBuf {
        self.inner.dir.join(CONTAINERS).join(id).join(UPPER)
    }

    /// All containers, as last heard. Waits for nothing.
    pub fn statuses(&self) -> Vec<ContainerStatus> {
        self.inner.state.borrow().containers.values().cloned().collect()
    }

    /// One container, as last heard.
    pub fn status(&self, id: &str) -> Option<ContainerStatus> {
        self.inner.state.borrow().containers.get(id).cloned()
    }

    /// The state from now on. A receiver that is slow sees the newest state, not each one on the way, so nothing is
    /// lost; after a broken connection the shim's whole state is fetched again. The shim's death is a change too
    /// ([`SandboxState::alive`]); the channel closes after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<SandboxState>> {
        self.inner.state.clone()
    }

    /// Waits until a container has exited, or is not there any more.
    pub async fn wait(&self, id: &str) -> Option<ContainerState> {
        let mut state = self.subscribe();
        let ended = |state: &Arc<SandboxState>| match state.containers.get(id) {
            None => true,
            Some(status) => matches!(status.state, ContainerState::Exited { .. }),
        };
        match state.wait_for(ended).await {
            Ok(state) => state.containers.get(id).map(|status| status.state.clone()),
            Err(_) => self.status(id).map(|status| status.state),
        }
    }

    /// Runs a further process in a running container, as the container's user.
    pub async fn exec(&self, id: &str, spec: ExecSpec) -> Result<ExecSession> {
        let request = Request::Exec { id: id.to_owned(), spec, tied: true };
        let answer = self.inner.caller.call(request).await?;
        let Reply::Streams { exec, stdin, stderr, terminal } = answer.reply else { return Err(self.gone()) };
        let streams = Streams::new(answer.fds, stdin, stderr, terminal)
            .map_err(Error::file("use a stream of", Path::new(id)))?;
        Ok(ExecSession {
            stdin: streams.stdin,
            stdout: Some(streams.stdout),
            stderr: streams.stderr,
            kill_on_drop: true,
            terminal: streams.terminal,
            exec,
            exit: answer.exit,
            caller: self.inner.caller.clone(),
        })
    }

    /// Runs a process to its end, as a probe does, and kills it with what it has started where it takes longer than
    /// `timeout` ([`Error::ExecTimeout`]). Of each output stream the first `limit` bytes are kept. What the process leaves
    /// in the background when it ends is neither waited for nor killed.
    pub async fn exec_sync(
        &self,
        id: &str,
        args: Vec<String>,
        timeout: Duration,
        limit: usize,
    ) -> Result<ExecOutput> {
        let spec = ExecSpec { args, env: Vec::new(), terminal: false, stdin: false };
        self.exec(id, spec).await?.collect(limit, timeout).await
    }

    /// Joins a running container's own streams.
    pub async fn attach(&self, id: &str) -> Result<AttachSession> {
        let answer = self.inner.caller.call(Request::Attach { id: id.to_owned() }).await?;
        let Reply::Streams { stdin, stderr, terminal, .. } = answer.reply else { return Err(self.gone()) };
        let streams = Streams::attached(answer.fds, stdin, stderr, terminal)
            .map_err(Error::file("use a stream of", Path::new(id)))?;
        Ok(AttachSession {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
        })
    }

    /// Ends a container's standard input once no attacher holds it any more.
    pub async fn close_stdin(&self, id: &str) -> Result<()> {
        self.inner.caller.done(Request::CloseStdin { id: id.to_owned() }).await
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.inner.caller
    }

    async fn call(&self, request: Request) -> Result<Reply> {
        Ok(self.inner.caller.call(request).await?.reply)
    }

    fn gone(&self) -> Error {
        Error::ShimGone { id: self.inner.spec.id.clone() }
    }
}

/// cgroup and directory names may be longer, but Pod and container names together are not.
pub(super) const CONTAINER_ID_MAX: usize = 80;

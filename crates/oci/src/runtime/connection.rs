//! The daemon's connection to one shim: a task that owns the socket, matches replies to calls, keeps the last known
//! state of every container, and connects again where a connection broke but the shim lives.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{Error, Result};
use super::protocol::{Call, Inbox, Message, Reply, Request, SOCKET, STATE_FILE, encode};
use super::sandbox::SandboxState;
use crate::spec::{ContainerState, ContainerStatus};

/// Calls waiting for the connection's task. A Pod's containers and probes make a handful at a time; more than this
/// and the callers wait.
const CALLS: usize = 64;

/// A reply with what belongs to it.
pub(super) struct Answer {
    pub reply: Reply,
    pub fds: Vec<OwnedFd>,
    /// Resolves with the exit code, where the reply started an exec.
    pub exit: Option<oneshot::Receiver<i32>>,
}

enum Command {
    Call {
        request: Request,
        answer: oneshot::Sender<Answer>,
    },
    /// Nobody waits for the answer.
    Cast(Request),
}

/// Sends requests to one shim.
#[derive(Clone, Debug)]
pub struct Caller {
    sandbox: Arc<str>,
    commands: mpsc::Sender<Command>,
}

impl Caller {
    pub(super) fn sandbox(&self) -> &str {
        &self.sandbox
    }

    pub(super) async fn call(&self, request: Request) -> Result<Answer> {
        let gone = || Error::ShimGone { id: self.sandbox.to_string() };
        let (answer, receiver) = oneshot::channel();
        self.commands.send(Command::Call { request, answer }).await.map_err(|_| gone())?;
        let answer = receiver.await.map_err(|_| gone())?;
        match answer.reply {
            Reply::Refused { kind, message } => Err(Error::Refused { kind, message }),
            _ => Ok(answer),
        }
    }

    pub(super) async fn done(&self, request: Request) -> Result<()> {
        self.call(request).await.map(|_| ())
    }

    /// Sends without waiting, from where nothing can wait. A full queue drops it: the shim ends what is tied to a
    /// connection when the connection ends.
    pub(super) fn cast(&self, request: Request) {
        let _ = self.commands.try_send(Command::Cast(request));
    }
}

/// Connects; the sandbox's directory may be deeper than a socket address is long.
pub(super) async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let handle = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd())).await
}

/// The states that the shim last wrote to disk.
fn read_states(dir: &Path) -> BTreeMap<String, ContainerStatus> {
    std::fs::read(dir.join(STATE_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Vec<ContainerStatus>>(&bytes).ok())
        .unwrap_or_default()
        .into_iter()
        .map(|status| (status.id.clone(), status))
        .collect()
}

/// The next message. May be dropped at its await: bytes stay in the inbox.
async fn next_message(socket: &UnixStream, inbox: &mut Inbox) -> io::Result<Message> {
    loop {
        if let Some(message) = inbox.next()? {
            return Ok(message);
        }
        if socket.async_io(Interest::READABLE, || inbox.receive(socket.as_fd())).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The task's state.
pub(super) struct Connection {
    id: Arc<str>,
    dir: PathBuf,
    socket: UnixStream,
    inbox: Inbox,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<Arc<SandboxState>>,
    next_seq: u64,
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<u64, oneshot::Sender<i32>>,
}

impl Connection {
    /// Connects and waits for the shim's first message, so that the state is whole.
    pub(super) async fn open(
        id: &str,
        dir: &Path,
    ) -> Result<(Self, Caller, watch::Receiver<Arc<SandboxState>>)> {
        let socket = connect(dir).await.map_err(|_| Error::ShimGone { id: id.to_owned() })?;
        let (sender, commands) = mpsc::channel(CALLS);
        let (state, receiver) = watch::channel(Arc::new(SandboxState::default()));
        let id: Arc<str> = id.into();
        let mut connection = Self {
            id: id.clone(),
            dir: dir.to_owned(),
            socket,
            inbox: Inbox::default(),
            commands,
            state,
            next_seq: 0,
            calls: HashMap::new(),
            execs: HashMap::new(),
        };
        let first = next_message(&connection.socket, &mut connection.inbox)
            .await
            .map_err(|_| Error::ShimGone { id: id.to_string() })?;
        connection.handle(first);
        Ok((connection, Caller { sandbox: id, commands: sender }, receiver))
    }

    /// Serves until the shim is gone or every [`Caller`] is.
    pub(super) async fn run(mut self) {
        loop {
            let broken = tokio::select! {
                biased;
                message = next_message(&self.socket, &mut self.inbox) => match message {
                    Ok(message) => { self.handle(message); continue }
                    Err(error) => error,
                },
                command = self.commands.recv() => match command {
                    None => return,
                    Some(command) => match self.send(command).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    },
                },
            };
            // Whoever waits learns at once that the answer is lost.
            self.calls.clear();
            self.execs.clear();
            if !self.reconnect().await {
                tracing::debug!(sandbox = %self.id, %broken, "the shim is gone");
                return self.finish();
            }
        }
    }

    async fn send(&mut self, command: Command) -> io::Result<()> {
        let seq = self.next_seq;
        self.next_seq += 1;
        let (request, answer) = match command {
            Command::Call { request, answer } => (request, Some(answer)),
            Command::Cast(request) => (request, None),
        };
        let frame = match encode(&Call { seq, request }) {
            Ok(frame) => frame,
            Err(error) => {
                if let Some(answer) = answer {
                    let kind = super::error::Refusal::Limit;
                    let reply =
                        Reply::Refused { kind, message: format!("the request cannot be sent: {error}") };
                    let _ = answer.send(Answer { reply, fds: Vec::new(), exit: None });
                }
                return Ok(());
            }
        };
        if let Some(answer) = answer {
            self.calls.insert(seq, answer);
        }
        // The shim always reads: it never waits for this side.
        self.socket.write_all(&frame).await
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Snapshot(statuses) => {
                let containers = statuses.into_iter().map(|status| (status.id.clone(), status)).collect();
                self.state.send_replace(Arc::new(SandboxState { alive: true, containers }));
            }
            Message::Changed(status) => self.update(|containers| {
                containers.insert(status.id.clone(), status);
            }),
            Message::Removed { id } => self.update(|containers| {
                containers.remove(&id);
            }),
            Message::ExecExited { exec, code } => {
                if let Some(waiter) = self.execs.remove(&exec) {
                    let _ = waiter.send(code);
                }
            }
            Message::Reply { seq, reply, fds } => {
                // Descriptors are taken even where nobody waits any more, or the next reply would get them.
                let fds = self.inbox.take_fds(fds).unwrap_or_default();
                let exit = match reply {
                    Reply::Streams { exec, .. } if exec != 0 => {
                        let (sender, receiver) = oneshot::channel();
                        self.execs.insert(exec, sender);
                        Some(receiver)
                    }
                    _ => None,
                };
                if let Some(waiter) = self.calls.remove(&seq) {
                    let _ = waiter.send(Answer { reply, fds, exit });
                }
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<String, ContainerStatus>)) {
        self.state.send_modify(|state| change(&mut Arc::make_mut(state).containers));
    }

    /// A shim that listens is alive. Its first message brings the state up to date.
    async fn reconnect(&mut self) -> bool {
        let Ok(socket) = connect(&self.dir).await else { return false };
        self.socket = socket;
        self.inbox = Inbox::default();
        match next_message(&self.socket, &mut self.inbox).await {
            Ok(message) => {
                self.handle(message);
                true
            }
            Err(_) => false,
        }
    }

    fn finish(self) {
        let containers = dead_states(&self.id, &self.dir);
        self.state.send_replace(Arc::new(SandboxState { alive: false, containers }));
    }
}

/// The states of a sandbox whose shim is dead, so that the kernel has killed what it held.
pub(super) fn dead_states(id: &str, dir: &Path) -> BTreeMap<String, ContainerStatus> {
    let mut containers = read_states(dir);
    for status in containers.values_mut() {
        let started_at = match status.state {
            ContainerState::Exited { .. } => continue,
            ContainerState::Running { started_at, .. } => Some(started_at),
            ContainerState::Created => None,
        };
        status.state = ContainerState::Exited {
            code: 128 + libc::SIGKILL,
            oom_killed: false,
            started_at,
            finished_at: super::shim::now(),
            message: format!("the shim of sandbox {id} ended unexpectedly"),
        };
    }
    containers
}

//! The shim's loop: who connects, who asks, who has died, who has said something.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Home;
use super::container::{Container, PidNamespaces, pause};
use super::log::Stream;
use crate::runtime::error::Refusal;
use crate::runtime::protocol::{Call, Inbox, Message, Reply, Request, STATE_FILE, encode, send};
use crate::spec::{ContainerSpec, ContainerState, ContainerStatus, ExecSpec};

/// A daemon has one connection; a starting one and a stopping one may overlap, and a look at whether the shim is
/// alive is one too.
const CONNECTIONS: usize = 16;
/// Maximum number of containers in one Pod sandbox. A Pod has a few; each costs descriptors.
const CONTAINERS: usize = 200;
/// Processes started by exec at a time.
const EXECS: usize = 200;
/// Bytes that wait for one client. One that does not take them is cut off and fetches the state anew.
const BACKLOG: usize = 1 << 20;

struct Client {
    id: u64,
    socket: UnixStream,
    inbox: Inbox,
    /// Frames not yet sent, with the descriptors that go with their first byte.
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    waiting: usize,
    dead: bool,
}

struct Exec {
    id: u64,
    client: u64,
    tied: bool,
    /// Of which container.
    container: String,
}

struct Server {
    home: Home,
    pids: PidNamespaces,
    containers: BTreeMap<String, Container>,
    /// By process id.
    execs: BTreeMap<i32, Exec>,
    clients: Vec<Client>,
    next: u64,
    /// Asked to end: the client to tell once nothing runs any more.
    ending: Option<(u64, u64)>,
}

/// Who is behind a polled descriptor.
enum Source {
    Listener,
    Signals,
    Client(u64),
    Output(String, Stream),
}

/// Serves until asked to end.
pub fn serve(home: Home, listener: UnixListener) -> io::Result<()> {
    // SAFETY: system calls without pointers. Orphans of host-pid containers come to the shim.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let mut handled = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        handled.add(signal);
    }
    // Blocked means: read from the descriptor, and ignored there unless it is SIGCHLD. A shim ends when it is told
    // to over its socket, not with the session or service that started it.
    handled.thread_block()?;
    let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let shared = match home.spec.share_pid && !home.spec.host_pid {
        true => Some(pause(&home.dir).map_err(io::Error::other)?),
        false => None,
    };
    let pids = PidNamespaces { own: File::open("/proc/self/ns/pid")?, shared };
    let mut server = Server {
        home,
        pids,
        containers: BTreeMap::new(),
        execs: BTreeMap::new(),
        clients: Vec::new(),
        next: 1,
        ending: None,
    };
    server.trim();
    loop {
        for source in server.poll(&listener, &signals)? {
            match source {
                Source::Listener => server.accept(&listener),
                Source::Signals => {
                    while let Ok(Some(_)) = signals.read_signal() {}
                    server.reap();
                }
                Source::Client(id) => server.serve_client(id),
                Source::Output(id, stream) => {
                    if let Some(container) = server.containers.get_mut(&id) {
                        container.pump(stream);
                    }
                }
            }
        }
        server.drop_dead_clients();
        if server.finished() {
            return Ok(());
        }
    }
}

impl Server {
    /// Waits until something is to be done, and says what.
    fn poll(&self, listener: &UnixListener, signals: &SignalFd) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Listener, Source::Signals];
        let mut fds = vec![
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        for client in &self.clients {
            let writes = if client.outbox.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            fds.push(PollFd::new(client.socket.as_fd(), PollFlags::POLLIN | writes));
            sources.push(Source::Client(client.id));
        }
        for (id, container) in &self.containers {
            for (stream, fd) in container.outputs() {
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
                sources.push(Source::Output(id.clone(), stream));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>();
        Ok(sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect())
    }

    fn accept(&mut self, listener: &UnixListener) {
        while let Ok((socket, _)) = listener.accept() {
            if self.clients.len() >= CONNECTIONS || socket.set_nonblocking(true).is_err() {
                // Closing it says so.
                continue;
            }
            let id = self.next;
            self.next += 1;
            let (inbox, outbox) = (Inbox::default(), VecDeque::new());
            let mut client = Client { id, socket, inbox, outbox, waiting: 0, dead: false };
            client.post(&Message::Snapshot(self.statuses()), Vec::new());
            self.clients.push(client);
        }
    }

    fn serve_client(&mut self, id: u64) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        client.flush();
        let mut calls: Vec<Call> = Vec::new();
        match client.inbox.receive(client.socket.as_fd()) {
            Ok(0) => client.dead = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => client.dead = true,
            Ok(_) => loop {
                match client.inbox.next() {
                    Ok(Some(call)) => calls.push(call),
                    Ok(None) => break,
                    Err(_) => {
                        client.dead = true;
                        break;
                    }
                }
            },
        }
        for Call { seq, request } in calls {
            if matches!(request, Request::Shutdown) {
                self.kill_all();
                self.ending = Some((id, seq));
                continue;
            }
            let (reply, fds) = self
                .answer(id, request)
                .unwrap_or_else(|(kind, message)| (Reply::Refused { kind, message }, Vec::new()));
            self.post_to(id, &Message::Reply { seq, reply, fds: fds.len() }, fds);
        }
    }

    fn answer(&mut self, client: u64, request: Request) -> Result<(Reply, Vec<OwnedFd>), (Refusal, String)> {
        let done = Ok((Reply::Done, Vec::new()));
        match request {
            Request::Create(spec) => self.create(*spec),
            Request::Start { id } => self.start(&id),
            Request::Signal { id, signal } => {
                self.container(&id)?.signal(signal);
                done
            }
            Request::KillAll => {
                self.kill_all();
                done
            }
            Request::Remove { id } => self.remove(&id),
            Request::Exec { id, spec, tied } => self.exec(client, &id, &spec, tied),
            Request::SignalExec { exec, signal } => {
                let found = self.execs.iter().find(|(_, known)| known.id == exec && known.client == client);
                match found {
                    Some((pid, exec)) if signal == libc::SIGKILL => self.kill_exec(*pid, exec),
                    Some((pid, _)) => {
                        // SAFETY: a system call without pointers; the process is our unreaped child.
                        unsafe { libc::kill(*pid, signal) };
                    }
                    None => {}
                }
                done
            }
            Request::Attach { id } => {
                let container = self.container(&id)?;
                let terminal = container.spec.terminal;
                let (fds, stdin) = container.attach().map_err(|message| (Refusal::Limit, message))?;
                Ok((Reply::Streams { exec: 0, stdin, stderr: !terminal, terminal }, fds))
            }
            Request::CloseStdin { id } => {
                self.container(&id)?.close_stdin();
                done
            }
            Request::Shutdown => done,
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, (Refusal, String)> {
        let missing = || format!("there is no container {id} in sandbox {}", self.home.spec.id);
        match self.containers.get_mut(id) {
            Some(container) => Ok(container),
            None => Err((Refusal::NoSuchContainer, missing())),
        }
    }

    fn create(&mut self, spec: ContainerSpec) -> Result<(Reply, Vec<OwnedFd>), (Refusal, String)> {
        let id = spec.id.clone();
        if self.containers.contains_key(&id) {
            return Err((
                Refusal::ContainerExists,
                format!("container {id} exists already; remove it first"),
            ));
        }
        if self.containers.len() >= CONTAINERS || self.ending.is_some() {
            let message = format!("sandbox {} takes no further container", self.home.spec.id);
            return Err((Refusal::Limit, message));
        }
        let made = Container::create(spec, &self.home, &self.pids);
        let container = made.map_err(|message| (Refusal::CannotStart, message))?;
        self.containers.insert(id.clone(), container);
        self.changed(&id);
        Ok((Reply::Done, Vec::new()))
    }

    fn start(&mut self, id: &str) -> Result<(Reply, Vec<OwnedFd>), (Refusal, String)> {
        let sandbox = &self.home.spec.id;
        let Some(container) = self.containers.get_mut(id) else {
            return Err((
                Refusal::NoSuchContainer,
                format!("there is no container {id} in sandbox {sandbox}"),
            ));
        };
        if container.state != ContainerState::Created {
            return Err((Refusal::WrongState, format!("container {id} was started before")));
        }
        let result = container.start(&self.home);
        self.changed(id);
        let pid = result.map_err(|message| (Refusal::CannotStart, message))?;
        Ok((Reply::Started { pid }, Vec::new()))
    }

    fn remove(&mut self, id: &str) -> Result<(Reply, Vec<OwnedFd>), (Refusal, String)> {
        let Some(container) = self.containers.get_mut(id) else { return Ok((Reply::Done, Vec::new())) };
        match container.state {
            ContainerState::Running { .. } => {
                return Err((
                    Refusal::WrongState,
                    format!("container {id} is running; stop it before removing it"),
                ));
            }
            // Its process waits on the line, whose end it takes for a no; the reaper finds no container for it.
            ContainerState::Created => {
                container.kill(&self.home);
                container.end(&self.home, 128 + libc::SIGKILL, String::new());
            }
            ContainerState::Exited { .. } => {}
        }
        container.retire(&self.home).map_err(|message| (Refusal::WrongState, message))?;
        self.containers.remove(id);
        self.save();
        self.broadcast(&Message::Removed { id: id.to_owned() });
        Ok((Reply::Done, Vec::new()))
    }

    fn exec(
        &mut self,
        client: u64,
        id: &str,
        spec: &ExecSpec,
        tied: bool,
    ) -> Result<(Reply, Vec<OwnedFd>), (Refusal, String)> {
        if self.execs.len() >= EXECS {
            return Err((
                Refusal::Limit,
                format!("{EXECS} commands run in sandbox {} already", self.home.spec.id),
            ));
        }
        let Some(container) = self.containers.get(id) else {
            let message = format!("there is no container {id} in sandbox {}", self.home.spec.id);
            return Err((Refusal::NoSuchContainer, message));
        };
        if !matches!(container.state, ContainerState::Running { .. }) {
            return Err((Refusal::WrongState, format!("container {id} is not running")));
        }
        let started = container.exec(spec, &self.home, &self.pids);
        let (pid, fds) = started.map_err(|message| (Refusal::CannotStart, message))?;
        let exec = self.next;
        self.next += 1;
        self.execs.insert(pid, Exec { id: exec, client, tied, container: id.to_owned() });
        Ok((Reply::Streams { exec, stdin: spec.stdin, stderr: !spec.terminal, terminal: spec.terminal }, fds))
    }

    /// Kills a process that was started by exec, with whatever it has started.
    fn kill_exec(&self, pid: i32, exec: &Exec) {
        match self.containers.get(&exec.container) {
            Some(container) => container.kill_family(&self.home, pid),
            // Its cgroup is gone, and so is everything else in it.
            None => {
                // SAFETY: a system call without pointers; the process is our unreaped child.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }

    fn kill_all(&mut self) {
        for container in self.containers.values() {
            container.kill(&self.home);
        }
    }

    /// Takes every dead child. Exits are on disk before anyone hears of them.
    fn reap(&mut self) {
        let mut ended = Vec::new();
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a number that lives until the call returns.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            let code = match libc::WIFEXITED(status) {
                true => libc::WEXITSTATUS(status),
                false => 128 + libc::WTERMSIG(status),
            };
            if let Some(exec) = self.execs.remove(&pid) {
                self.post_to(exec.client, &Message::ExecExited { exec: exec.id, code }, Vec::new());
                continue;
            }
            let of = self.containers.values_mut().find(|container| container.pid == Some(pid));
            if let Some(container) = of {
                container.end(&self.home, code, String::new());
                ended.push(container.spec.id.clone());
            }
        }
        for id in ended {
            self.changed(&id);
        }
    }

    /// Nothing runs any more and the client that asked for the end has its answer.
    fn finished(&mut self) -> bool {
        let Some((client, seq)) = self.ending else { return false };
        if self.containers.values().any(|container| container.pid.is_some()) {
            return false;
        }
        self.post_to(client, &Message::Reply { seq, reply: Reply::Done, fds: 0 }, Vec::new());
        true
    }

    fn statuses(&self) -> Vec<ContainerStatus> {
        self.containers.values().map(Container::status).collect()
    }

    fn changed(&mut self, id: &str) {
        self.save();
        let Some(container) = self.containers.get(id) else { return };
        let message = Message::Changed(container.status());
        self.broadcast(&message);
        self.trim();
    }

    /// Replaces the state file. A machine that loses power loses its containers too, so it is not synced.
    fn save(&self) {
        let written = serde_json::to_vec(&self.statuses())
            .map_err(io::Error::from)
            .and_then(|text| fs::write("state.new", text))
            .and_then(|()| fs::rename("state.new", STATE_FILE));
        if let Err(error) = written {
            use std::io::Write;
            // The daemon still hears it; one that starts later would not.
            let _ = writeln!(io::stderr(), "cannot write {STATE_FILE}: {error}");
        }
    }

    fn broadcast(&mut self, message: &Message) {
        for client in &mut self.clients {
            client.post(message, Vec::new());
        }
    }

    fn post_to(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.post(message, fds);
        }
    }

    /// What a client had running for it alone ends with it.
    fn drop_dead_clients(&mut self) {
        let gone: Vec<u64> =
            self.clients.iter().filter(|client| client.dead).map(|client| client.id).collect();
        if gone.is_empty() {
            return;
        }
        for (pid, exec) in &self.execs {
            if exec.tied && gone.contains(&exec.client) {
                self.kill_exec(*pid, exec);
            }
        }
        self.clients.retain(|client| !client.dead);
    }

    /// Gives free memory back: an idle shim should cost next to nothing.
    fn trim(&self) {
        #[cfg(target_env = "gnu")]
        // SAFETY: a call without pointers; it only touches what the C allocator owns.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

impl Client {
    fn post(&mut self, message: &Message, fds: Vec<OwnedFd>) {
        let Ok(frame) = encode(message) else {
            self.dead = true;
            return;
        };
        self.waiting += frame.len();
        self.outbox.push_back((frame, fds));
        self.flush();
        if self.waiting > BACKLOG {
            self.dead = true;
        }
    }

    fn flush(&mut self) {
        while let Some((frame, fds)) = self.outbox.front_mut() {
            let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let socket: BorrowedFd = self.socket.as_fd();
            match send(socket, frame, &raw) {
                Ok(count) => {
                    fds.clear();
                    frame.drain(..count);
                    self.waiting -= count;
                    if frame.is_empty() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
        }
    }
}

//! One container as its shim holds it: made by [`Container::create`], run by [`Container::start`], and exited when
//! the loop reaps its first process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::family;
use super::handshake::{KILL_ROUNDS, Pipes, Waiting, go, line, nonblocking, pipe};
use super::keyring::Keyring;
use super::log::{Logger, Stream};
use super::process::{self, Launch};
use super::rootfs::{self, Surroundings};
use super::{Home, step};
use crate::runtime::protocol;
use crate::runtime::seccomp::{self, Filters};
use crate::spec::{ContainerSpec, ContainerState, ContainerStatus, ExecSpec};

/// Those that watch one container at a time. More are people's mistakes.
const ATTACHERS: usize = 16;

/// Looks at what a killed session has started. Each finds only what was forked during the one before it.
const FAMILY_ROUNDS: usize = 32;

/// The process namespaces that children are put into.
pub struct PidNamespaces {
    /// The shim's own, to come back to.
    pub own: File,
    /// Of the sandbox's shared namespace's first process.
    pub shared: Option<i32>,
}

impl PidNamespaces {
    /// Clones with children put into the namespace of process `of`.
    fn clone_into(&self, of: Option<i32>, flags: libc::c_int) -> io::Result<i32> {
        let Some(of) = of else { return process::clone(flags) };
        setns(File::open(format!("/proc/{of}/ns/pid"))?, CloneFlags::CLONE_NEWPID)?;
        let pid = process::clone(flags);
        if matches!(pid, Ok(0)) {
            return pid;
        }
        setns(&self.own, CloneFlags::CLONE_NEWPID)?;
        pid
    }
}

/// A client that sees a container's output.
struct Attacher {
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// See the module.
pub struct Container {
    pub spec: ContainerSpec,
    pub state: ContainerState,
    /// Its first process while there is one.
    pub pid: Option<i32>,
    filters: Filters,
    keyring: Keyring,
    capabilities: u64,
    line: Option<OwnedFd>,
    /// The shim's ends: a pipe each, or the terminal's master as the first.
    outputs: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    logger: Logger,
    attachers: Vec<Attacher>,
    dir: PathBuf,
    cgroup: String,
}

impl Container {
    /// Sets it up to the point where its program would run.
    pub fn create(spec: ContainerSpec, home: &Home, pids: &PidNamespaces) -> Result<Self, String> {
        if spec.args.is_empty() {
            return Err(
                "the container has no command: neither the image nor the specification names one".to_owned()
            );
        }
        let filters = seccomp::filters(&spec)?;
        let keyring = step(|| "name a session keyring", Keyring::new())?;
        let capabilities = match spec.privileged {
            true => process::all_capabilities(),
            false => process::capability_bits(&spec.capabilities)?,
        };
        let dir = home.dir.join(protocol::CONTAINERS).join(&spec.id);
        let cgroup = format!("{}/{}", home.cgroup, spec.id);
        let logger = Logger::new(spec.log.clone());
        let mut container = Self {
            state: ContainerState::Created,
            pid: None,
            filters,
            keyring,
            capabilities,
            line: None,
            outputs: [None, None],
            stdin: None,
            logger,
            attachers: Vec::new(),
            dir,
            cgroup,
            spec,
        };
        match container.set_up(home, pids) {
            Ok(()) => Ok(container),
            Err(error) => {
                container.clear_cgroup(home);
                // What is left is seen and removed with the sandbox.
                let _ = fs::remove_dir_all(&container.dir);
                Err(error)
            }
        }
    }

    fn set_up(&mut self, home: &Home, pids: &PidNamespaces) -> Result<(), String> {
        for name in [protocol::UPPER, "work", "root"] {
            let path = self.dir.join(name);
            step(|| format!("make the directory {}", path.display()), fs::create_dir_all(&path))?;
            // The upper directory's mode is the container's root's, whatever umask the daemon was started with.
            let mode = fs::Permissions::from_mode(0o755);
            step(|| format!("open up {}", path.display()), fs::set_permissions(&path, mode))?;
        }
        let group = home.hierarchies.group(&self.cgroup);
        step(|| "make the container's cgroup", group.create())?;
        step(|| "set the container's limits", group.limit(&self.spec.resources))?;
        if !self.spec.privileged {
            step(|| "restrict the container's devices", group.guard_devices())?;
        }
        let (ours, theirs) = line()?;
        let (streams, stdin, outputs) = match self.spec.terminal {
            true => ([None, None, None], None, None),
            false => {
                let pipes = Pipes::new(self.spec.stdin)?;
                (pipes.theirs, pipes.stdin, Some(pipes.outputs))
            }
        };
        let doors = step(|| "join the container's cgroup", group.doors())?;
        let shared = home.spec.share_pid.then_some(pids.shared).flatten();
        let mut flags = libc::CLONE_NEWNS;
        if !home.spec.host_pid && shared.is_none() {
            flags |= libc::CLONE_NEWPID;
        }
        let pid = step(|| "clone a process", pids.clone_into(shared, flags))?;
        if pid == 0 {
            drop(ours);
            self.become_first(
                home,
                Launch {
                    args: &self.spec.args,
                    env: self.spec.env.clone(),
                    cwd: &self.spec.cwd,
                    user: &self.spec.user,
                    run_as_non_root: self.spec.run_as_non_root,
                    groups: &self.spec.groups,
                    keyring: &self.keyring,
                    capabilities: self.capabilities,
                    no_new_privileges: self.spec.no_new_privileges,
                    filters: &self.filters,
                    oom_score_adj: self.spec.oom_score_adj,
                    limits: &self.spec.limits,
                    terminal: self.spec.terminal,
                    streams,
                    doors,
                    line: theirs,
                },
            );
        }
        drop((theirs, streams));
        let Waiting { line, terminal } = Waiting::new(pid, ours)?;
        self.pid = Some(pid);
        self.line = Some(line);
        self.hold_streams(terminal, stdin, outputs)
    }

    /// Keeps the shim's ends of the process's streams: those of its terminal, or those of its pipes.
    fn hold_streams(
        &mut self,
        terminal: Option<OwnedFd>,
        stdin: Option<OwnedFd>,
        outputs: Option<[OwnedFd; 2]>,
    ) -> Result<(), String> {
        if let Some(master) = terminal {
            nonblocking(&master)?;
            self.stdin = match self.spec.stdin {
                true => Some(step(|| "share the terminal", master.try_clone())?),
                false => None,
            };
            self.outputs = [Some(master), None];
        } else if let Some([stdout, stderr]) = outputs {
            nonblocking(&stdout)?;
            nonblocking(&stderr)?;
            self.stdin = stdin;
            self.outputs = [Some(stdout), Some(stderr)];
        }
        Ok(())
    }

    /// In the child.
    fn become_first(&self, home: &Home, launch: Launch) -> ! {
        let shm = if home.spec.host_ipc { PathBuf::from("/dev/shm") } else { home.dir.join("shm") };
        let views: Vec<(String, String)> = home
            .hierarchies
            .v1_views()
            .filter(|(options, _)| !options.starts_with("name="))
            .filter_map(|(options, mount)| Some((options, mount.file_name()?.to_string_lossy().into_owned())))
            .collect();
        let around = Surroundings {
            dir: &self.dir,
            shm: &shm,
            cgroup_views: &views,
            unified: home.hierarchies.unified(),
        };
        launch.run(|join| {
            rootfs::enter(&self.spec, &around, &mut || {
                join()?;
                step(|| "make a cgroup namespace", nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP))
            })
        })
    }

    /// Runs the program. A failure is also the container's end.
    pub fn start(&mut self, home: &Home) -> Result<i32, String> {
        let (Some(pid), Some(line)) = (self.pid, self.line.take()) else {
            return Err(format!("container {} cannot be started a second time", self.spec.id));
        };
        let started = super::now();
        match go(pid, line.as_fd()) {
            Ok(()) => {
                self.state = ContainerState::Running { pid, started_at: started };
                Ok(pid)
            }
            Err(message) => {
                self.pid = None;
                self.end(home, 128, message.clone());
                Err(message)
            }
        }
    }

    /// Its first process has been reaped: what is left of it goes, its last words are written, its state is final.
    pub fn end(&mut self, home: &Home, code: i32, message: String) {
        self.pid = None;
        self.line = None;
        let group = home.hierarchies.group(&self.cgroup);
        for _ in 0..KILL_ROUNDS {
            if !matches!(group.kill(), Ok(true)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(stream);
            self.outputs[stream as usize] = None;
            self.logger.end(stream, super::now());
        }
        self.stdin = None;
        self.attachers.clear();
        let started_at = match self.state {
            ContainerState::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        let oom_killed = group.oom_kills() > 0;
        self.state =
            ContainerState::Exited { code, oom_killed, started_at, finished_at: super::now(), message };
        self.clear_cgroup(home);
    }

    fn clear_cgroup(&self, home: &Home) {
        // One that is still busy goes with the container's removal or the sandbox's destruction.
        let _ = home.hierarchies.group(&self.cgroup).remove();
    }

    /// Kills what there is of it. Its end arrives through the reaper.
    pub fn kill(&self, home: &Home) {
        self.signal(libc::SIGKILL);
        let _ = home.hierarchies.group(&self.cgroup).kill();
    }

    /// Kills the leader of a session in it and everything that the leader has started, as far as that can be told.
    pub fn kill_family(&self, home: &Home, leader: i32) {
        let group = home.hierarchies.group(&self.cgroup);
        let mut killed = BTreeSet::new();
        for _ in 0..FAMILY_ROUNDS {
            let mut family = family::of(leader, &group.processes());
            family.insert(leader);
            // A process may have been forked while the others were looked at.
            if family.is_subset(&killed) {
                return;
            }
            for pid in &family {
                // SAFETY: a system call without pointers. The ids were in the container's cgroup a moment ago, and the
                // leader is our unreaped child.
                unsafe { libc::kill(*pid, libc::SIGKILL) };
            }
            killed.extend(family);
        }
    }

    /// To its first process; one that has ended is fine.
    pub fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid {
            // SAFETY: a system call without pointers; the process is our unreaped child, so the id is its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Moves its directory to where the daemon deletes it, which may take long.
    pub fn retire(&self, home: &Home) -> Result<(), String> {
        self.clear_cgroup(home);
        let gone = home.dir.join(protocol::GONE);
        step(|| format!("make the directory {}", gone.display()), fs::create_dir_all(&gone))?;
        let to = gone.join(format!("{}.{}", self.spec.id, super::now()));
        step(|| format!("move {} away", self.dir.display()), fs::rename(&self.dir, to))
    }

    pub fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.spec.id.clone(),
            state: self.state.clone(),
            labels: self.spec.labels.clone(),
        }
    }

    /// What the loop polls.
    pub fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let named = [Stream::Stdout, Stream::Stderr].into_iter().zip(&self.outputs);
        named.filter_map(|(stream, fd)| Some((stream, fd.as_ref()?.as_fd())))
    }

    /// Reads once from an output that is ready. Says whether more may be there.
    pub fn pump(&mut self, stream: Stream) -> bool {
        let Some(fd) = &self.outputs[stream as usize] else { return false };
        let mut buffer = [0; 16 << 10];
        match nix::unistd::read(fd, &mut buffer) {
            Ok(count @ 1..) => {
                self.logger.feed(stream, &buffer[..count], super::now());
                self.attachers.retain(|attacher| attacher.take(stream, &buffer[..count]));
                true
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => false,
            // The end, or EIO: a terminal that nobody in the container holds open.
            Ok(_) | Err(_) => {
                self.outputs[stream as usize] = None;
                self.logger.end(stream, super::now());
                false
            }
        }
    }

    /// All that is in a stream whose writers are dead. A pipe or terminal holds no more than 1 MiB.
    fn drain(&mut self, stream: Stream) {
        for _ in 0..64 {
            if !self.pump(stream) {
                return;
            }
        }
    }

    /// Descriptors for a new attacher, in the protocol's order, and whether standard input is among them.
    pub fn attach(&mut self) -> Result<(Vec<OwnedFd>, bool), String> {
        if self.attachers.len() >= ATTACHERS {
            return Err(format!("container {} has {ATTACHERS} attachers already", self.spec.id));
        }
        let share = |fd: &OwnedFd| step(|| "share a stream", fd.try_clone());
        let mut fds = Vec::new();
        let stdin = self.stdin.is_some();
        match (&self.stdin, &self.outputs[0]) {
            (_, Some(master)) if self.spec.terminal => fds.push(share(master)?),
            (None, None) if self.spec.terminal => return Err("the terminal is closed".to_owned()),
            (Some(stdin), _) => fds.push(share(stdin)?),
            _ => {}
        }
        let (read, stdout) = pipe()?;
        nonblocking(&stdout)?;
        fds.push(read);
        let stderr = if self.spec.terminal {
            None
        } else {
            let (read, stderr) = pipe()?;
            nonblocking(&stderr)?;
            fds.push(read);
            Some(stderr)
        };
        self.attachers.push(Attacher { stdout, stderr });
        Ok((fds, stdin))
    }

    pub fn close_stdin(&mut self) {
        if !self.spec.terminal {
            self.stdin = None;
        }
    }

    /// Starts a further process in it. Returns its id and the caller's streams.
    pub fn exec(
        &self,
        spec: &ExecSpec,
        home: &Home,
        pids: &PidNamespaces,
    ) -> Result<(i32, Vec<OwnedFd>), String> {
        let Some(first) = self.pid.filter(|_| matches!(self.state, ContainerState::Running { .. })) else {
            return Err(format!("container {} is not running", self.spec.id));
        };
        if spec.args.is_empty() {
            return Err("there is no command to run".to_owned());
        }
        let (ours, theirs) = line()?;
        let (streams, mut passed) = match spec.terminal {
            true => ([None, None, None], Vec::new()),
            false => {
                let pipes = Pipes::new(spec.stdin)?;
                (pipes.theirs, pipes.stdin.into_iter().chain(pipes.outputs).collect())
            }
        };
        let mounts = step(|| "find the container", File::open(format!("/proc/{first}/ns/mnt")))?;
        let cgroups = step(|| "find the container", File::open(format!("/proc/{first}/ns/cgroup")))?;
        let doors = step(|| "join the container's cgroup", home.hierarchies.group(&self.cgroup).doors())?;
        let namespace = (!home.spec.host_pid).then_some(first);
        let pid = step(|| "clone a process", pids.clone_into(namespace, 0))?;
        if pid == 0 {
            drop((ours, passed));
            let launch = Launch {
                args: &spec.args,
                env: self.spec.env.iter().cloned().chain(spec.env.iter().map(OsString::from)).collect(),
                cwd: &self.spec.cwd,
                user: &self.spec.user,
                run_as_non_root: self.spec.run_as_non_root,
                groups: &self.spec.groups,
                keyring: &self.keyring,
                capabilities: self.capabilities,
                no_new_privileges: self.spec.no_new_privileges,
                filters: &self.filters,
                oom_score_adj: self.spec.oom_score_adj,
                limits: &self.spec.limits,
                terminal: spec.terminal,
                streams,
                doors,
                line: theirs,
            };
            launch.run(|join| {
                join()?;
                step(
                    || "enter the container's cgroup namespace",
                    setns(cgroups, CloneFlags::CLONE_NEWCGROUP),
                )?;
                step(|| "enter the container's mounts", setns(mounts, CloneFlags::CLONE_NEWNS))
            });
        }
        drop((theirs, streams));
        let waiting = Waiting::new(pid, ours)?;
        go(pid, waiting.line.as_fd())?;
        passed.extend(waiting.terminal);
        Ok((pid, passed))
    }
}

impl Attacher {
    /// Passes bytes on. One that is gone, or so slow that its pipe is full, is given up.
    fn take(&self, stream: Stream, bytes: &[u8]) -> bool {
        let fd = match stream {
            Stream::Stdout => Some(&self.stdout),
            Stream::Stderr => self.stderr.as_ref(),
        };
        fd.is_none_or(|fd| nix::unistd::write(fd, bytes) == Ok(bytes.len()))
    }
}

/// The first process of a namespace that the sandbox's containers share: it reaps and does nothing else. `dir` is the
/// shim's current directory.
///
/// Containers see it as process 1, and one that may trace processes could follow its root: that is an empty file
/// system, not the machine's.
pub fn pause(dir: &Path) -> Result<i32, String> {
    let pid = step(|| "clone a process", process::clone(libc::CLONE_NEWPID | libc::CLONE_NEWNS))?;
    if pid != 0 {
        return Ok(pid);
    }
    process::detach_from_shim();
    if rootfs::enter_empty(dir).is_err() {
        // SAFETY: ends this process; the shim's first container then says that the namespace is not there.
        unsafe { libc::_exit(1) }
    }
    // SAFETY: system calls with a static string and null pointers. Blocked, so that waiting takes the signal.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        loop {
            libc::sigwaitinfo(&set, std::ptr::null_mut());
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
}

//! The shim: a process of one thread that holds one sandbox. It uses no asynchronous runtime; it is a poll loop over
//! a listening socket, a signalfd, connections and the containers' output.

mod container;
mod family;
mod handshake;
mod host;
mod keyring;
mod log;
mod process;
mod rootfs;
mod server;

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket};
use nix::unistd::{ForkResult, Pid};

use super::cgroup::Hierarchies;
use super::program;
use super::protocol::{SHIM_LOG, SOCKET, SPEC_FILE};
use crate::spec::SandboxSpec;

/// Nanoseconds since the Unix epoch.
pub(super) fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i128)
}

/// Turns an error into a sentence: `cannot WHAT: ERROR`.
fn step<T, E: Display, S: Display>(what: impl FnOnce() -> S, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("cannot {}: {error}", what()))
}

/// What a running shim knows from its start.
struct Home {
    spec: SandboxSpec,
    /// The sandbox's directory; also the current one.
    dir: PathBuf,
    /// The sandbox's cgroup, relative.
    cgroup: String,
    hierarchies: Hierarchies,
}

/// Becomes the shim of one sandbox; `args` are those after [`super::SHIM_ARGUMENT`]: the sandbox's directory and the
/// cgroup root. Must be called before the process has a second thread, a runtime, or anything else of its own.
///
/// The process that calls this prepares everything that can fail, forks the real shim, says `ready` on standard output
/// when the shim listens, and ends; where it fails, with a sentence on standard error instead.
pub fn shim_main(args: &[OsString]) -> ! {
    let result = match args {
        [dir, root] => prepare(Path::new(dir), &root.to_string_lossy()),
        _ => Err("a shim is started by yado itself, with a directory and a cgroup".to_owned()),
    };
    let code = match result {
        Ok(prepared) => become_shim(prepared),
        Err(sentence) => {
            use std::io::Write;
            let _ = writeln!(io::stderr(), "{sentence}");
            1
        }
    };
    std::process::exit(code)
}

struct Prepared {
    home: Home,
    socket: OwnedFd,
    /// The `cgroup.procs` files of the group of all shims.
    doors: Vec<OwnedFd>,
}

/// Namespaces, cgroups and the socket. All of it is inherited by the fork.
fn prepare(dir: &Path, root: &str) -> Result<Prepared, String> {
    // What containers get as their environment passes through here. Programs that are run can be dumped again.
    step(|| "forbid core dumps", nix::sys::prctl::set_dumpable(false))?;
    step(|| "seal this program", program::seal())?;
    let dir = step(|| format!("find {}", dir.display()), fs::canonicalize(dir))?;
    step(|| format!("enter {}", dir.display()), std::env::set_current_dir(&dir))?;
    let text = step(|| format!("read {SPEC_FILE} in {}", dir.display()), fs::read(SPEC_FILE))?;
    let spec: SandboxSpec = step(|| format!("understand {SPEC_FILE}"), serde_json::from_slice(&text))?;
    let hierarchies = step(|| "find the cgroup hierarchies", Hierarchies::detect())?;
    step(|| "leave the session", nix::unistd::setsid())?;
    let doors = make_cgroups(&hierarchies, root, &spec)?;
    // -999 and -1000 are for what the machine cannot do without; a kernel that refuses leaves it as it is.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    enter_namespaces(&spec)?;
    let socket = step(|| format!("make {SOCKET} in {}", dir.display()), bind())?;
    let cgroup = format!("{root}/{}", spec.id);
    Ok(Prepared { home: Home { spec, dir, cgroup, hierarchies }, socket, doors })
}

/// A socket with a name that nobody can connect to yet: the process that listens is the one that the kernel names to
/// those who connect, and that must be the shim itself.
fn bind() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(SOCKET)?)?;
    Ok(socket)
}

/// A destroyed sandbox may take the shared groups away between making and opening them; then they are made again.
const MAKE_ATTEMPTS: usize = 10;

fn make_cgroups(hierarchies: &Hierarchies, root: &str, spec: &SandboxSpec) -> Result<Vec<OwnedFd>, String> {
    let sandbox = hierarchies.group(&format!("{root}/{}", spec.id));
    let shims = hierarchies.group(&format!("{root}/{}", super::SHIMS));
    let attempt = || {
        sandbox.create()?;
        shims.create()?;
        shims.doors()
    };
    let mut result: io::Result<Vec<OwnedFd>> = attempt();
    for _ in 1..MAKE_ATTEMPTS {
        match &result {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV)) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
        result = attempt();
    }
    let doors = step(|| format!("make the cgroup {root}/{}", spec.id), result)?;
    step(|| "set the sandbox's limits", sandbox.limit(&spec.resources))?;
    Ok(doors)
}

fn enter_namespaces(spec: &SandboxSpec) -> Result<(), String> {
    if let Some(path) = &spec.netns {
        let shown = || format!("join the network namespace {}", path.display());
        let file = step(shown, fs::File::open(path))?;
        step(shown, setns(file, CloneFlags::CLONE_NEWNET))?;
    }
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    step(|| "make namespaces (is yado running as root?)", unshare(flags))?;
    let none: Option<&str> = None;
    // Unmounts on the host arrive here, mounts made here stay here.
    let slave = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none);
    step(|| "separate the mounts from the host's", slave)?;
    step(|| "set the host name", nix::unistd::sethostname(&spec.hostname))?;
    for (name, value) in &spec.sysctls {
        set_sysctl(spec, name, value)?;
    }
    if !spec.host_ipc {
        step(|| "make the directory shm", fs::create_dir_all("shm"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // Its pages count against the containers that write them, so they bound it; this only bounds one without.
        let options = Some("mode=1777,size=64m");
        step(|| "mount the shared memory", mount(Some("shm"), "shm", Some("tmpfs"), flags, options))?;
    }
    Ok(())
}

/// Only what belongs to the sandbox's own namespaces; anything else would change the host.
fn set_sysctl(spec: &SandboxSpec, name: &str, value: &str) -> Result<(), String> {
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    let own = (name.starts_with("net.") && spec.netns.is_some())
        || (ipc.iter().any(|prefix| name.starts_with(prefix)) && !spec.host_ipc);
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = name.chars().map(swap).collect();
    if !own || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!(
            "the kernel parameter {name} does not belong to the sandbox and would change the host"
        ));
    }
    let path = Path::new("/proc/sys").join(path);
    step(|| format!("set the kernel parameter {name}"), fs::write(path, value))
}

/// What the daemon reads from the starting process's standard output once the shim listens.
pub(super) const READY: &[u8] = b"ready\n";

/// Forks, so that the shim is nobody's child, and serves in the child.
fn become_shim(prepared: Prepared) -> i32 {
    let Prepared { home, socket, doors } = prepared;
    let forked = nix::unistd::pipe2(OFlag::O_CLOEXEC).and_then(|pipe| {
        // SAFETY: the process has one thread, so the child may go on as if nothing had happened.
        unsafe { nix::unistd::fork() }.map(|side| (pipe, side))
    });
    match forked {
        Err(error) => last_words("cannot fork", &error),
        Ok(((ready, told), ForkResult::Parent { child })) => {
            drop((told, socket));
            let code = introduce(ready, child, &doors);
            // SAFETY: ends this process without what exit runs, which is the child's to run.
            unsafe { libc::_exit(code) }
        }
        Ok(((ready, told), ForkResult::Child)) => {
            drop((ready, doors));
            // Before the streams are redirected, so that a failure is heard.
            let listening = nix::sys::socket::listen(&socket, Backlog::MAXCONN).map_err(io::Error::from);
            if let Err(error) = listening.and_then(|()| redirect()) {
                return last_words("cannot listen", &error);
            }
            let served = nix::unistd::write(&told, b"r").map_err(io::Error::from).and_then(|_| {
                drop(told);
                server::serve(home, UnixListener::from(socket))
            });
            match served {
                Ok(()) => 0,
                Err(error) => last_words("the shim ends", &error),
            }
        }
    }
}

/// Waits until the shim listens, says so, and moves it to its cgroup. The move comes last because the kernel may take
/// ten milliseconds for it after a pause, and nobody needs to wait for that: containers join groups of their own.
fn introduce(ready: OwnedFd, shim: Pid, doors: &[OwnedFd]) -> i32 {
    let mut word = [0];
    if nix::unistd::read(&ready, &mut word) != Ok(1) {
        return 1;
    }
    // A daemon that has gone meanwhile will find the sandbox later.
    let _ = nix::unistd::write(io::stdout(), READY);
    for door in doors {
        // It may have been destroyed already, and the group with it. Its id cannot be another's: nobody but this
        // process could have reaped it.
        let _ = nix::unistd::write(door, shim.to_string().as_bytes());
    }
    0
}

/// The shim has no log but this.
fn last_words(what: &str, error: &dyn Display) -> i32 {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{what}: {error}");
    1
}

/// Standard input and output are nothing, standard error is a small file for last words.
fn redirect() -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = fs::OpenOptions::new().create(true).append(true).open(SHIM_LOG)?;
    for (from, to) in [(null.as_raw_fd(), 0), (null.as_raw_fd(), 1), (log.as_raw_fd(), 2)] {
        // SAFETY: all are open descriptors; these numbers belong to no owner in Rust.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // A starter that closed its streams would have let these land on 0 to 2, where they must stay open.
    if null.as_raw_fd() <= 2 {
        let _ = null.into_raw_fd();
    }
    if log.as_raw_fd() <= 2 {
        let _ = log.into_raw_fd();
    }
    Ok(())
}

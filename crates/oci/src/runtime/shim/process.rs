//! From a cloned process to the container's program: streams, terminal, capabilities, user, filter, execve. The same
//! for a container's first process and for an exec; they differ only in how they get into the namespaces.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid};

use super::keyring::Keyring;
use super::step;
use crate::runtime::protocol;
use crate::runtime::seccomp::{self, Filters};
use crate::runtime::users::{self, User};
use crate::spec::{Limit, RLIMITS, UNLIMITED};

/// What is run and as whom.
pub struct Launch<'a> {
    pub args: &'a [String],
    pub env: Vec<OsString>,
    pub cwd: &'a Path,
    pub user: &'a str,
    pub run_as_non_root: bool,
    pub groups: &'a [u32],
    pub keyring: &'a Keyring,
    pub capabilities: u64,
    pub no_new_privileges: bool,
    pub filters: &'a Filters,
    pub oom_score_adj: i32,
    pub limits: &'a BTreeMap<String, Limit>,
    pub terminal: bool,
    /// Standard input, output and error; not used with a terminal.
    pub streams: [Option<OwnedFd>; 3],
    /// `cgroup.procs` files to join through.
    pub doors: Vec<OwnedFd>,
    /// The child's end of the line to the shim.
    pub line: OwnedFd,
}

/// The child's messages to the shim.
pub const READY: u8 = b'R';
pub const FAILED: u8 = b'E';
/// The start signal from the shim to the container's child process.
pub const GO: u8 = b'G';

/// Clones this process into new namespaces, like fork otherwise. Returns 0 in the child.
pub fn clone(namespaces: libc::c_int) -> io::Result<i32> {
    // SAFETY: without CLONE_VM this is a fork. The shim has one thread, so the child's memory is consistent. The
    // remaining arguments (stack, thread ids, TLS) are unused with these flags, in any architecture's order.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, (namespaces | libc::SIGCHLD) as libc::c_long, 0, 0, 0, 0) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid as i32) }
}

/// What every child does first: nothing of the shim's handling of signals remains, and it dies with the shim.
pub fn detach_from_shim() {
    // Not through libc, which keeps the first two real-time signals to itself: a starter may have ignored them.
    let default = [0u64; 4];
    // SAFETY: all zero is the kernel's `struct sigaction` for the default, of at most four words, with a set of eight
    // bytes; it lives until the call returns. The two signals that cannot be changed fail, which is fine.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setsid();
    }
    // Unblocking cannot fail with a valid set.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Puts the calling process into its cgroup.
pub type Join<'a> = &'a mut dyn FnMut() -> Result<(), String>;

impl Launch<'_> {
    /// The life of a cloned process. `enter` brings it into its file system and namespaces, and calls what it is given
    /// to join the cgroup.
    pub fn run(mut self, enter: impl FnOnce(Join<'_>) -> Result<(), String>) -> ! {
        detach_from_shim();
        let Err(message) = self.prepare(enter).and_then(|user| self.execute(&user));
        let mut text = vec![FAILED];
        text.extend_from_slice(message.as_bytes());
        let _ = protocol::send(self.line.as_fd(), &text, &[]);
        // SAFETY: ends this process without running what the shim registered for its own end.
        unsafe { libc::_exit(128) }
    }

    fn prepare(&mut self, enter: impl FnOnce(Join<'_>) -> Result<(), String>) -> Result<User, String> {
        // Nobody in the container may look into this process (and through it at the shim's program) until execve.
        // SAFETY: a system call without pointers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
        // What every Unix program expects; the daemon's may be stricter.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let adjust = || fs::write("/proc/self/oom_score_adj", self.oom_score_adj.to_string());
        step(|| "set oom_score_adj", adjust())?;
        let mut doors = std::mem::take(&mut self.doors);
        enter(&mut || {
            let mut doors = doors.drain(..);
            doors.try_for_each(|door| step(|| "join the cgroup", fs::File::from(door).write_all(b"0")))
        })?;
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let user = users::resolve(self.user, self.groups, &read("/etc/passwd"), &read("/etc/group"))?;
        if self.run_as_non_root && user.uid == 0 {
            return Err(format!(
                "the container must not run as root (runAsNonRoot), and its user {:?} is root",
                self.user
            ));
        }
        step(|| "give the container a session keyring", self.keyring.join())?;
        let mut passed: Vec<RawFd> = Vec::new();
        let mut master = None;
        if self.terminal {
            let (ours, theirs) = step(|| "open a terminal", open_terminal(user.uid))?;
            passed.push(ours.as_raw_fd());
            master = Some(ours);
            let copy = || theirs.try_clone().map(Some);
            self.streams =
                [step(|| "open a terminal", copy())?, step(|| "open a terminal", copy())?, Some(theirs)];
        }
        step(|| "report to the shim", protocol::send(self.line.as_fd(), &[READY], &passed))?;
        drop(master);
        let mut answer = [0];
        match nix::unistd::read(&self.line, &mut answer) {
            Ok(1) if answer[0] == GO => Ok(user),
            // The shim has closed the line: the container is not wanted any more.
            _ => Err("it was never started".to_owned()),
        }
    }

    fn execute(&mut self, user: &User) -> Result<Infallible, String> {
        for (number, stream) in self.streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            // SAFETY: both are open descriptor numbers; the streams' own are above 2.
            step(|| "connect the streams", check(unsafe { libc::dup2(stream.as_raw_fd(), number as i32) }))?;
        }
        if self.terminal {
            // SAFETY: descriptor 0 is the terminal; the argument is a number.
            step(|| "take the terminal", check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }))?;
        }
        close_all_but(self.line.as_fd());
        // What the shim does without to stay small is no rule for the program. A kernel that does not know the setting
        // has nothing to undo.
        let _ = nix::sys::prctl::set_thp_disable(false);
        let cwd = if self.cwd.as_os_str().is_empty() { Path::new("/") } else { self.cwd };
        if !self.no_new_privileges {
            // Needs CAP_SYS_ADMIN, which is about to go.
            step(|| "apply the seccomp filter", seccomp::install(self.filters))?;
        }
        // While raising one is still allowed.
        for (name, limit) in self.limits {
            limit_processes(name, *limit)?;
        }
        self.become_user(user)?;
        step(|| format!("enter the working directory {}", cwd.display()), nix::unistd::chdir(cwd))?;
        let env = environment(std::mem::take(&mut self.env), &user.home);
        let program = find(&self.args[0], &env)?;
        let args = self.args.iter().enumerate().map(argument).collect::<Result<Vec<_>, _>>()?;
        let env = env.into_iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        let path = CString::new(program.into_os_string().into_vec())
            .map_err(|_| "the program's path contains a NUL byte".to_owned())?;
        // SAFETY: system calls without pointers. It was cleared with the change of user. A shim that ended in
        // between is seen by the line: the process then stops here.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let mut line = [PollFd::new(self.line.as_fd(), PollFlags::empty())];
        if step(|| "look for the shim", poll(&mut line, PollTimeout::ZERO))? > 0 {
            return Err("the shim is gone".to_owned());
        }
        if self.no_new_privileges {
            step(|| "set no_new_privs", nix::sys::prctl::set_no_new_privs())?;
            step(|| "apply the seccomp filter", seccomp::install(self.filters))?;
        }
        let error =
            nix::unistd::execve(&path, &args, &env).map_or_else(|error| error, |never| match never {});
        Err(format!("exec: {:?}: {}", self.args[0], describe(error)))
    }

    /// Order matters: the bounding set needs a capability, groups need root, and capabilities are set last.
    fn become_user(&self, user: &User) -> Result<(), String> {
        let keep = self.capabilities;
        for capability in (0..64).filter(|bit| keep & (1 << bit) == 0) {
            // SAFETY: a system call without pointers. Numbers that the kernel does not know fail, which is fine.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        // SAFETY: a system call without pointers.
        step(|| "keep capabilities", check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }))?;
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        step(|| "set the groups", nix::unistd::setgroups(&groups))?;
        step(|| "set the group", nix::unistd::setresgid(gid, gid, gid))?;
        step(|| "set the user", nix::unistd::setresuid(uid, uid, uid))?;
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3, 0];
        let (low, high) = (keep as u32, (keep >> 32) as u32);
        let sets = [low, low, 0, high, high, 0];
        // SAFETY: the header and the two structures of three words are as capset(2) describes for version 3.
        let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        step(|| "set the capabilities", check(set as i32))
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn limit_processes(name: &str, limit: Limit) -> Result<(), String> {
    let number = RLIMITS.iter().position(|known| *known == name);
    let number = number.ok_or_else(|| format!("{name} is not a valid process limit; see setrlimit(2)"))?;
    let values = [limit.soft, limit.hard];
    // SAFETY: two words of 64 bits are what the call takes as the new limit; they live until it returns.
    let set =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, number, values.as_ptr(), std::ptr::null::<u64>()) };
    let shown = |n: u64| if n == UNLIMITED { "unlimited".to_owned() } else { n.to_string() };
    step(
        || format!("set the limit {name} to {} (at most {})", shown(limit.soft), shown(limit.hard)),
        check(set as i32),
    )
}

/// Beyond the three streams only the line to the shim stays, and execve closes that.
fn close_all_but(kept: BorrowedFd) {
    let kept = kept.as_raw_fd() as libc::c_uint;
    // SAFETY: nothing uses these descriptors any more: what owns them is never dropped, since this process execs or
    // calls _exit.
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
    }
}

/// A pseudo-terminal of this mount namespace's own devpts; the other side belongs to the user.
fn open_terminal(uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let open = |path: &str| {
        use std::os::unix::fs::OpenOptionsExt;
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
            .map(OwnedFd::from)
    };
    let master = open("/dev/pts/ptmx")?;
    let unlock: libc::c_int = 0;
    // SAFETY: the requests take a pointer to a number that lives until the call returns, and flags.
    let slave = unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let fd = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags);
        check(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    nix::unistd::fchown(&slave, Some(Uid::from_raw(uid)), None)?;
    Ok((master, slave))
}

/// What an argument says may be secret, so the error does not repeat it.
fn argument((index, word): (usize, &String)) -> Result<CString, String> {
    CString::new(word.as_str()).map_err(|_| format!("argument {index} of the command contains a NUL byte"))
}

/// The same of a variable's value.
fn variable(entry: OsString) -> Result<CString, String> {
    CString::new(entry.into_vec()).map_err(|error| {
        let entry = error.into_vec();
        let name = String::from_utf8_lossy(name_of(&entry));
        format!("the environment variable {name:?} contains a NUL byte")
    })
}

/// The name in `NAME=value`.
fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// Later values win; `PATH` and `HOME` are never absent.
fn environment(env: Vec<OsString>, home: &str) -> Vec<OsString> {
    let mut result: Vec<OsString> = Vec::with_capacity(env.len() + 2);
    let same = |a: &OsString, b: &OsString| name_of(a.as_bytes()) == name_of(b.as_bytes());
    let defaults = [
        format!("HOME={home}"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    for default in defaults.map(OsString::from) {
        if !env.iter().any(|entry| same(entry, &default)) {
            result.push(default);
        }
    }
    for (index, entry) in env.iter().enumerate() {
        if !env[index + 1..].iter().any(|later| same(later, entry)) {
            result.push(entry.clone());
        }
    }
    result
}

/// What a shell would run. The sentences are the ones that container users know.
fn find(program: &str, env: &[OsString]) -> Result<PathBuf, String> {
    if program.is_empty() {
        return Err("exec: the command is empty".to_owned());
    }
    let runnable = |path: &Path| match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(nix::Error::EISDIR),
        Ok(found) if found.mode() & 0o111 == 0 => Err(nix::Error::EACCES),
        Ok(_) => Ok(()),
        Err(error) => Err(nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::ENOENT))),
    };
    if program.contains('/') {
        return match runnable(Path::new(program)) {
            Ok(()) => Ok(PathBuf::from(program)),
            Err(nix::Error::ENOENT) => {
                Err(format!("exec: {program:?}: stat {program}: no such file or directory"))
            }
            Err(error) => Err(format!("exec: {program:?}: {}", describe(error))),
        };
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let mut denied = false;
    for dir in path.split(|byte| *byte == b':') {
        let candidate = Path::new(OsStr::from_bytes(if dir.is_empty() { b"." } else { dir })).join(program);
        match runnable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(nix::Error::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    let reason = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(format!("exec: {program:?}: {reason}"))
}

fn describe(error: nix::Error) -> String {
    match error {
        nix::Error::ENOENT => {
            "no such file or directory (is its interpreter or loader in the image?)".to_owned()
        }
        nix::Error::EACCES => "permission denied".to_owned(),
        nix::Error::EISDIR => "is a directory".to_owned(),
        nix::Error::ENOEXEC => "exec format error".to_owned(),
        other => other.desc().to_lowercase(),
    }
}

/// Bits of a capability set by name; names may lack `CAP_`, and `ALL` is all that there are.
pub fn capability_bits(names: &[String]) -> Result<u64, String> {
    let available = all_capabilities();
    let mut bits = 0;
    for name in names {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            return Ok(available);
        }
        let number = CAPABILITIES.iter().position(|known| *known == short);
        let bit = 1 << number.ok_or_else(|| format!("{name} is not a capability; see capabilities(7)"))?;
        if available & bit == 0 {
            return Err(format!("the capability {name} cannot be given: yado itself was started without it"));
        }
        bits |= bit;
    }
    Ok(bits)
}

/// All that this process could give.
pub fn all_capabilities() -> u64 {
    // SAFETY: a system call without pointers; numbers that the kernel does not know fail.
    let there = |number: &u64| unsafe { libc::prctl(libc::PR_CAPBSET_READ, *number, 0, 0, 0) } == 1;
    (0..64).filter(there).fold(0, |bits, number| bits | 1 << number)
}

/// In the order of their numbers in `include/uapi/linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments() {
        let rows: [(&[&str], &[&str]); 3] = [
            (&[], &["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            (&["PATH=/bin", "A=1", "A=2"], &["HOME=/root", "PATH=/bin", "A=2"]),
            (&["HOME=/x", "PATH=", "A=b=c"], &["HOME=/x", "PATH=", "A=b=c"]),
        ];
        for (input, expect) in rows {
            let input = input.iter().map(OsString::from).collect();
            assert_eq!(environment(input, "/root"), expect);
        }
        // Bytes are handed on as they are; what cannot be is told without its value.
        let bytes = |entry: &[u8]| OsString::from_vec(entry.to_vec());
        assert_eq!(variable(bytes(b"A=\xff\xfe")), Ok(CString::new(*b"A=\xff\xfe").unwrap()));
        let refused = "the environment variable \"KEY\" contains a NUL byte".to_owned();
        assert_eq!(variable(bytes(b"KEY=hunter2\0=x")), Err(refused));
        let refused = "argument 1 of the command contains a NUL byte".to_owned();
        assert_eq!(argument((1, &"hunter2\0".to_owned())), Err(refused));
    }

    #[test]
    fn capabilities() {
        let bits =
            |names: &[&str]| capability_bits(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(bits(&["CAP_CHOWN", "kill"]), Ok((1 | 1 << 5) & all_capabilities()));
        assert_eq!(CAPABILITIES[21], "SYS_ADMIN");
        assert_eq!(bits(&["ALL"]), Ok(all_capabilities()));
        assert_eq!(bits(&["CAP_FLY"]), Err("CAP_FLY is not a capability; see capabilities(7)".to_owned()));
    }
}

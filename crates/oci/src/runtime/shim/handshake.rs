//! The shim's side of starting a process: the streams it gets, and the handshake with it until it runs its program.
//! The process's own side is in [`process`](super::process).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::process::{FAILED, GO, READY};
use super::step;
use crate::runtime::protocol::{self, Inbox};

/// How long setting up or starting may take before it is given up: a mount on a dead network file system is the
/// usual reason, and the sandbox's other containers wait meanwhile.
const SETUP_LIMIT: Duration = Duration::from_secs(20);

/// Rounds of killing what does not die at once, with a millisecond between them.
pub const KILL_ROUNDS: usize = 500;

/// A process that has been cloned and waits for [`GO`].
pub struct Waiting {
    /// Carries [`GO`], and what the process answers.
    pub line: OwnedFd,
    /// The controlling side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// A pipe: the end to read and the end to write.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    step(|| "make a pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC))
}

/// A line between the shim and a process: packets, and descriptors with them.
pub fn line() -> Result<(OwnedFd, OwnedFd), String> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    step(|| "make a socket pair", pair)
}

/// Makes reads and writes return at once, so that the shim's loop never waits for one stream.
pub fn nonblocking(fd: impl AsFd) -> Result<(), String> {
    let set = || {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
    };
    step(|| "make a stream non-blocking", set()).map(|_| ())
}

/// Both sides of a process's standard streams without a terminal.
pub struct Pipes {
    /// The process's standard input, output and error.
    pub theirs: [Option<OwnedFd>; 3],
    /// Where its input is written to, if it has any.
    pub stdin: Option<OwnedFd>,
    /// Where its output and error are read from.
    pub outputs: [OwnedFd; 2],
}

impl Pipes {
    /// New ones; without `stdin` the process reads an empty input.
    pub fn new(stdin: bool) -> Result<Self, String> {
        let (their_in, stdin) = if stdin {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            (step(|| "open /dev/null", File::open("/dev/null"))?.into(), None)
        };
        let (our_out, their_out) = pipe()?;
        let (our_err, their_err) = pipe()?;
        Ok(Self {
            theirs: [Some(their_in), Some(their_out), Some(their_err)],
            stdin,
            outputs: [our_out, our_err],
        })
    }
}

/// Waits for the child's word: ready, with a terminal or without; failed; or, once started, the line's end.
fn hear(line: BorrowedFd) -> Result<Option<(u8, String, Vec<OwnedFd>)>, String> {
    let timeout = PollTimeout::try_from(SETUP_LIMIT).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(line, PollFlags::POLLIN)];
    match step(|| "wait for the process", poll(&mut fds, timeout))? {
        0 => Err(format!(
            "the process was not ready after {} s; is a volume's file system dead?",
            SETUP_LIMIT.as_secs()
        )),
        _ => {
            let mut inbox = Inbox::default();
            let message = step(|| "hear from the process", inbox.receive_packet(line))?;
            Ok(message
                .split_first()
                .map(|(tag, text)| (*tag, String::from_utf8_lossy(text).into_owned(), inbox.all_fds())))
        }
    }
}

impl Waiting {
    /// From a cloned process to one that waits; one that cannot get there is dead and reaped.
    pub fn new(pid: i32, line: OwnedFd) -> Result<Self, String> {
        let message = match hear(line.as_fd()) {
            Ok(Some((READY, _, fds))) => return Ok(Self { line, terminal: fds.into_iter().next() }),
            Ok(Some((_, text, _))) => text,
            Ok(None) => {
                "the process was killed while it was set up; is its memory limit too small?".to_owned()
            }
            Err(error) => error,
        };
        kill_and_reap(pid);
        Err(message)
    }
}

/// Lets a waiting process become its program. On failure it is dead and reaped.
pub fn go(pid: i32, line: BorrowedFd) -> Result<(), String> {
    let heard = match protocol::send(line, &[GO], &[]) {
        Ok(_) => hear(line),
        Err(error) => Err(format!("cannot start the process: {error}")),
    };
    let message = match heard {
        // The line closed with execve.
        Ok(None) => return Ok(()),
        Ok(Some((FAILED, text, _))) => text,
        Ok(Some(_)) => "the process said something unexpected".to_owned(),
        Err(error) => error,
    };
    kill_and_reap(pid);
    Err(message)
}

/// Ends a child that failed. One that does not die at once, hanging in the kernel, is left to the loop's reaper.
fn kill_and_reap(pid: i32) {
    for _ in 0..KILL_ROUNDS {
        // SAFETY: system calls whose only pointer may be null; the process is our unreaped child, so the id is its.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            if libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) != 0 {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

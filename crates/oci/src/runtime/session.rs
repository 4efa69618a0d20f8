//! The daemon's end of an exec or an attachment: streams, a terminal's size, an exit code.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::connection::Caller;
use super::error::{Error, Result};
use super::protocol::Request;

/// A pipe or a pseudo-terminal as a tokio stream. A terminal whose other side is gone reads as the end.
#[derive(Debug)]
pub struct FdStream(AsyncFd<OwnedFd>);

impl FdStream {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an owned descriptor stays open, and the same, for as long as the registration owns it.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }
}

impl AsyncRead for FdStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), space)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The kernel's word for a terminal nobody holds open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => continue,
            }
        }
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => continue,
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The streams that a shim passed, in the protocol's order.
pub(super) struct Streams {
    pub stdin: Option<FdStream>,
    pub stdout: FdStream,
    pub stderr: Option<FdStream>,
    pub terminal: Option<OwnedFd>,
}

impl Streams {
    pub(super) fn new(fds: Vec<OwnedFd>, stdin: bool, stderr: bool, terminal: bool) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| io::Error::other("the shim passed too few streams"));
        if terminal {
            let master = next()?;
            let stdin = if stdin { Some(FdStream::new(master.try_clone()?)?) } else { None };
            let stdout = FdStream::new(master.try_clone()?)?;
            return Ok(Self { stdin, stdout, stderr: None, terminal: Some(master) });
        }
        Ok(Self {
            stdin: if stdin { Some(FdStream::new(next()?)?) } else { None },
            stdout: FdStream::new(next()?)?,
            stderr: if stderr { Some(FdStream::new(next()?)?) } else { None },
            terminal: None,
        })
    }

    /// Of an attachment: output always comes through pipes, since the shim itself reads the terminal; the terminal
    /// serves as input and for its size.
    pub(super) fn attached(fds: Vec<OwnedFd>, stdin: bool, stderr: bool, terminal: bool) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| io::Error::other("the shim passed too few streams"));
        let input = if stdin || terminal { Some(next()?) } else { None };
        let stdout = FdStream::new(next()?)?;
        let stderr = if stderr { Some(FdStream::new(next()?)?) } else { None };
        let (stdin, terminal) = match input {
            Some(master) if terminal => {
                (if stdin { Some(FdStream::new(master.try_clone()?)?) } else { None }, Some(master))
            }
            Some(pipe) => (Some(FdStream::new(pipe)?), None),
            None => (None, None),
        };
        Ok(Self { stdin, stdout, stderr, terminal })
    }
}

fn resize(terminal: Option<&OwnedFd>, columns: u16, rows: u16) -> io::Result<()> {
    let Some(terminal) = terminal else { return Ok(()) };
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the argument is the structure that this request reads.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A process started by [`super::Sandbox::exec`]. Take the streams out of it as needed.
#[derive(Debug)]
pub struct ExecSession {
    /// Standard input, where [`crate::spec::ExecSpec::stdin`] asked for it; dropping it is the end of input, but not
    /// on a terminal.
    pub stdin: Option<FdStream>,
    /// Standard output; on a terminal, all output. `None` once taken.
    pub stdout: Option<FdStream>,
    /// Standard error; absent on a terminal.
    pub stderr: Option<FdStream>,
    /// Whether dropping the session kills the process (the default). A process that is left alone ends with its
    /// container, or with the daemon.
    pub kill_on_drop: bool,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) exec: u64,
    pub(super) exit: Option<oneshot::Receiver<i32>>,
    pub(super) caller: Caller,
}

impl ExecSession {
    /// Sets the terminal's size; without a terminal, nothing happens.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        resize(self.terminal.as_ref(), columns, rows)
    }

    /// A further hold on the terminal's size, for a task of its own.
    pub fn resizer(&self) -> io::Result<impl Fn(u16, u16) -> io::Result<()> + Send + Sync + 'static> {
        let terminal = self.terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(move |columns, rows| resize(terminal.as_ref(), columns, rows))
    }

    /// Sends a signal to the process; one that has ended is fine.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.caller.done(Request::SignalExec { exec: self.exec, signal }).await
    }

    /// The exit code; 128 + signal number where a signal ended it. May be called again after cancellation, not
    /// after it has answered. It does not wait for the streams to end.
    pub async fn wait(&mut self) -> Result<i32> {
        let gone = || Error::ShimGone { id: self.caller.sandbox().to_owned() };
        let Some(exit) = self.exit.as_mut() else { return Err(gone()) };
        let code = exit.await.map_err(|_| gone());
        self.exit = None;
        code
    }

    /// Everything it says until it ends, up to `limit` bytes of each stream, and how it ended. What it leaves running in
    /// the background, perhaps with its streams open, is not waited for.
    pub(super) async fn collect(mut self, limit: usize, timeout: Duration) -> Result<ExecOutput> {
        self.stdin = None;
        let mut stdout = Kept::new(self.stdout.take(), limit);
        let mut stderr = Kept::new(self.stderr.take(), limit);
        let end = async {
            let streams = async { tokio::join!(stdout.follow(), stderr.follow()) };
            tokio::select! {
                code = self.wait() => code,
                (never, _) = streams => match never {},
            }
        };
        // Dropping the session at a timeout kills the process and what it has started.
        let code = tokio::time::timeout(timeout, end).await.unwrap_or(Err(Error::ExecTimeout(timeout)))?;
        Ok(ExecOutput { code, stdout: stdout.finish(), stderr: stderr.finish() })
    }
}

impl Drop for ExecSession {
    fn drop(&mut self) {
        if self.kill_on_drop && self.exit.is_some() {
            self.caller.cast(Request::SignalExec { exec: self.exec, signal: libc::SIGKILL });
        }
    }
}

/// The first bytes of a stream, which is read on beyond them so that nobody waits for a reader.
struct Kept {
    stream: Option<FdStream>,
    bytes: Vec<u8>,
    limit: usize,
}

/// Bytes that a pipe can hold at most, by the kernel's default for unprivileged programs.
const PIPE_BYTES: usize = 1 << 20;

impl Kept {
    fn new(stream: Option<FdStream>, limit: usize) -> Self {
        Self { stream, bytes: Vec::new(), limit }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Reads until this future is dropped, which loses nothing. A stream that fails is a stream that has ended.
    async fn follow(&mut self) -> Infallible {
        let mut buffer = vec![0; 4096];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => self.take(&buffer[..count]),
                Ok(0) | Err(_) => self.stream = None,
            }
        }
        std::future::pending().await
    }

    /// With what is in the pipe at this moment.
    fn finish(mut self) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        let mut left = PIPE_BYTES;
        while let (Some(stream), 1..) = (&self.stream, left) {
            match nix::unistd::read(stream.0.get_ref(), &mut buffer) {
                Ok(count @ 1..) => {
                    left = left.saturating_sub(count);
                    self.take(&buffer[..count]);
                }
                Ok(0) | Err(_) => break,
            }
        }
        self.bytes
    }
}

/// What [`super::Sandbox::exec_sync`] brings back.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecOutput {
    /// The exit code; 128 + signal number where a signal ended it.
    pub code: i32,
    /// Standard output, cut at the limit.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the limit.
    pub stderr: Vec<u8>,
}

/// A further pair of eyes, and perhaps hands, on a container's own streams.
#[derive(Debug)]
pub struct AttachSession {
    /// The container's standard input, where it was created with one.
    pub stdin: Option<FdStream>,
    /// Output from now on. An attacher that does not read is cut off rather than letting the container wait.
    pub stdout: FdStream,
    /// Absent on a terminal.
    pub stderr: Option<FdStream>,
    pub(super) terminal: Option<OwnedFd>,
}

impl AttachSession {
    /// Sets the terminal's size; without a terminal, nothing happens.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        resize(self.terminal.as_ref(), columns, rows)
    }

    /// A further hold on the terminal's size, for a task of its own.
    pub fn resizer(&self) -> io::Result<impl Fn(u16, u16) -> io::Result<()> + Send + Sync + 'static> {
        let terminal = self.terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(move |columns, rows| resize(terminal.as_ref(), columns, rows))
    }
}

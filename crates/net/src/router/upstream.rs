//! Connections to one endpoint, kept for the next request.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Idle connections kept for an endpoint: as many as a busy one has requests at once.
const IDLE: usize = 256;
/// A Pod on the same network answers in well under this, or its node is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an endpoint that refused a connection is passed over where there are others.
const EJECTED: Duration = Duration::from_secs(1);

/// One endpoint, for as long as routes lead to it.
pub struct Upstream {
    address: SocketAddr,
    state: Mutex<State>,
    /// Milliseconds of the monotonic clock.
    ejected_until: AtomicU64,
}

struct State {
    idle: Vec<TcpStream>,
    /// Copied into each [`Lease`]; `None` once no route leads here.
    in_use: Option<mpsc::Sender<()>>,
}

/// The right to send one request to an endpoint. An endpoint that left gives no more of them, and waits for those
/// that are out.
pub struct Lease {
    upstream: Arc<Upstream>,
    _in_use: mpsc::Sender<()>,
}

/// A connection that is free, and whether it was just made.
pub struct Free {
    /// Takes one request.
    pub stream: TcpStream,
    /// No request went over it yet, so a failure is the endpoint's and not of a connection that had idled too long.
    pub fresh: bool,
}

impl Upstream {
    /// An endpoint without connections, and a receiver that ends when it has left and its last request has ended.
    pub fn new(address: SocketAddr) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (in_use, ended) = mpsc::channel(1);
        let state = Mutex::new(State { idle: Vec::new(), in_use: Some(in_use) });
        (Arc::new(Self { address, state, ejected_until: AtomicU64::new(0) }), ended)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It refused a connection a moment ago.
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.as_millis() as u64
    }

    /// It has just refused a connection.
    pub fn eject(&self, now: Duration) {
        self.ejected_until.store((now + EJECTED).as_millis() as u64, Ordering::Relaxed);
    }

    /// No request starts here from now on, and idle connections are closed.
    pub fn leave(&self) {
        let mut state = self.state.lock();
        state.in_use = None;
        state.idle.clear();
    }

    /// The right to one request, unless the endpoint has left.
    pub fn lease(self: &Arc<Self>) -> Option<Lease> {
        let in_use = self.state.lock().in_use.clone()?;
        Some(Lease { upstream: self.clone(), _in_use: in_use })
    }
}

impl Lease {
    /// An idle connection, or a new one.
    pub async fn connection(&self) -> io::Result<Free> {
        while let Some(stream) = self.take() {
            if is_quiet(&stream) {
                return Ok(Free { stream, fresh: false });
            }
        }
        self.connect().await
    }

    /// A new connection.
    pub async fn connect(&self) -> io::Result<Free> {
        let stream =
            tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.upstream.address)).await??;
        stream.set_nodelay(true)?;
        Ok(Free { stream, fresh: true })
    }

    /// The youngest idle connection: it is the least likely to have been closed.
    fn take(&self) -> Option<TcpStream> {
        self.upstream.state.lock().idle.pop()
    }

    /// Keeps a connection whose response is over for the next request.
    pub fn put(&self, stream: TcpStream) {
        let mut state = self.upstream.state.lock();
        if state.in_use.is_some() && state.idle.len() < IDLE {
            state.idle.push(stream);
        }
    }

    /// The endpoint has just refused a connection.
    pub fn eject(&self, now: Duration) {
        self.upstream.eject(now);
    }
}

/// Whether an idle connection is open and nothing has come over it. Bytes that came unasked would be taken for the
/// response to the next request. Asks the kernel: what the runtime knows may be a moment old.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut byte, flags) == Err(Errno::EAGAIN)
}

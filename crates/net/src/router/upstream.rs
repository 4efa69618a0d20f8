//! Connections to one endpoint, kept for the next request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use yado_reconcile::Tasks;

/// Takes requests to an endpoint, one at a time.
pub type Sender = SendRequest<RequestBody>;

/// Idle connections kept for an endpoint: as many as a busy one has requests at once.
const IDLE: usize = 256;
/// A Pod on the same network answers in well under this, or its node is gone.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
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
    idle: Vec<Sender>,
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
    pub sender: Sender,
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
    pub async fn connection(&self, tasks: &Tasks) -> io::Result<Free> {
        if let Some(sender) = self.take() {
            return Ok(Free { sender, fresh: false });
        }
        let connect = async {
            let stream = TcpStream::connect(self.upstream.address).await?;
            stream.set_nodelay(true)?;
            let mut builder = Builder::new();
            builder.max_buf_size(super::BUFFER);
            builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (mut sender, connection) = tokio::time::timeout(CONNECT_PATIENCE, connect).await??;
        // When the router stops, requests under way have a while to finish. So this does not end with the stop, but
        // with its sender: when the last request is over and the endpoint is forgotten.
        tasks.spawn_until_stopped("upstream", async move {
            // A broken connection shows at the request that uses it.
            let _ = connection.with_upgrades().await;
        });
        sender.ready().await.map_err(io::Error::other)?;
        Ok(Free { sender, fresh: true })
    }

    /// The youngest connection that can take a request now: it is the least likely to have been closed. One whose
    /// answer came before the request's body was through is still busy with that body, for as long as its client
    /// likes; nobody waits for it.
    fn take(&self) -> Option<Sender> {
        let idle = &mut self.upstream.state.lock().idle;
        for i in (0..idle.len()).rev() {
            if idle[i].is_closed() {
                idle.remove(i);
            } else if idle[i].is_ready() {
                return Some(idle.remove(i));
            }
        }
        None
    }

    fn put(&self, sender: Sender) {
        if !sender.is_closed() {
            let mut state = self.upstream.state.lock();
            if state.in_use.is_some() && state.idle.len() < IDLE {
                state.idle.push(sender);
            }
        }
    }

    /// The endpoint has just refused a connection.
    pub fn eject(&self, now: Duration) {
        self.upstream.eject(now);
    }
}

/// A request's body: the client's, or none where a request is sent again.
#[derive(Default)]
pub struct RequestBody {
    body: Option<Incoming>,
    moved: Option<Arc<AtomicBool>>,
}

impl RequestBody {
    /// The client's body.
    pub fn new(body: Incoming) -> Self {
        if body.is_end_stream() {
            return Self::default();
        }
        Self { body: Some(body), moved: Some(Arc::default()) }
    }

    /// Set whenever a part of the body goes on its way; `None` where there is no body.
    pub fn moved(&self) -> Option<Arc<AtomicBool>> {
        self.moved.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if let (true, Some(moved)) = (frame.is_ready(), &self.moved) {
            moved.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A response's body. At its end, and not before, its connection is free for the next request; if the client goes
/// away in the middle, the connection is closed, since what is left of the body stands on it.
pub struct ResponseBody {
    body: Incoming,
    connection: Option<(Lease, Sender)>,
}

impl ResponseBody {
    /// A body that came over this connection.
    pub fn new(body: Incoming, lease: Lease, sender: Sender) -> Self {
        let mut body = Self { body, connection: Some((lease, sender)) };
        if body.body.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        if let Some((lease, sender)) = self.connection.take() {
            lease.put(sender);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.finish(),
            Poll::Ready(Some(Err(_))) => self.connection = None,
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

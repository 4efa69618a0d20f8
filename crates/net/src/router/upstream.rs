//! Connections to one endpoint, kept for the next request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use yado_reconcile::Tasks;

/// A request's body: the client's, or none where a request is sent again.
pub type RequestBody = Either<Incoming, Empty<Bytes>>;
type Sender = SendRequest<RequestBody>;

/// Idle connections kept for an endpoint: as many as a busy one has requests at once.
const IDLE: usize = 256;
/// A Pod on the same network answers in well under this, or its node is gone.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long an endpoint that refused a connection is passed over where there are others.
const EJECTED: Duration = Duration::from_secs(1);

/// One endpoint, for as long as routes lead to it.
pub struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<Sender>>,
    /// Milliseconds of the monotonic clock.
    ejected_until: AtomicU64,
    /// Dropped with the last request that uses the endpoint.
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
    /// An endpoint without connections, and a receiver that ends when nobody uses it any more.
    pub fn new(address: SocketAddr) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (in_use, ended) = mpsc::channel(1);
        let upstream =
            Self { address, idle: Mutex::default(), ejected_until: AtomicU64::new(0), _in_use: in_use };
        (Arc::new(upstream), ended)
    }

    /// It refused a connection a moment ago.
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.as_millis() as u64
    }

    /// It has just refused a connection.
    pub fn eject(&self, now: Duration) {
        self.ejected_until.store((now + EJECTED).as_millis() as u64, Ordering::Relaxed);
    }

    /// An idle connection, or a new one.
    pub async fn connection(&self, tasks: &Tasks) -> io::Result<Free> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_ok() {
                return Ok(Free { sender, fresh: false });
            }
        }
        let connect = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (mut sender, connection) = tokio::time::timeout(CONNECT_PATIENCE, connect).await??;
        tasks.spawn("upstream", async move {
            // A broken connection shows at the request that uses it.
            let _ = connection.with_upgrades().await;
        });
        sender.ready().await.map_err(io::Error::other)?;
        Ok(Free { sender, fresh: true })
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        // The youngest first: it is the least likely to have been closed.
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, sender: Sender) {
        if !sender.is_closed() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE {
                idle.push(sender);
            }
        }
    }
}

/// A response's body. At its end, and not before, its connection is free for the next request; if the client goes
/// away in the middle, the connection is closed, since what is left of the body stands on it.
pub struct ResponseBody {
    body: Incoming,
    connection: Option<(Arc<Upstream>, Sender)>,
}

impl ResponseBody {
    /// A body that came over this connection.
    pub fn new(body: Incoming, upstream: Arc<Upstream>, sender: Sender) -> Self {
        let mut body = Self { body, connection: Some((upstream, sender)) };
        if body.body.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        if let Some((upstream, sender)) = self.connection.take() {
            upstream.put(sender);
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

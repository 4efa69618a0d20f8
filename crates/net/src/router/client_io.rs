//! The bytes of a client's HTTP/1 connection, below hyper: interim responses (1xx), which hyper's server cannot send, are
//! written between responses here, and its own `100 Continue` is left out, since that is for the app to say.
//!
//! hyper and the service of a connection run in one task, so the order of events is that of the calls.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What hyper writes when a body is asked for that the client announced with `Expect`.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection.
pub struct ClientIo {
    stream: TcpStream,
    /// Read before hyper had the connection.
    prefix: Bytes,
    interim: Arc<Interim>,
}

/// The way for interim responses, from the service of a connection to its bytes.
#[derive(Default)]
pub struct Interim {
    /// Counts how often hyper had nothing left to write. It asks for that at the end of every turn.
    flushes: AtomicU32,
    has_queued: AtomicBool,
    /// The next bytes from hyper are left out if they are its `100 Continue`.
    drops_continue: AtomicBool,
    has_waker: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queued: BytesMut,
    waker: Option<Waker>,
}

/// The moment at which a request was read.
#[derive(Clone, Copy)]
pub struct Mark(u32);

impl Interim {
    /// The present moment.
    pub fn mark(&self) -> Mark {
        Mark(self.flushes.load(Ordering::Relaxed))
    }

    /// Writes an interim response, once everything that hyper had to write at `since` was written: the responses to the
    /// requests before.
    pub async fn send(&self, since: Mark, response: &[u8]) {
        self.flushed(since).await;
        self.state.lock().queued.extend_from_slice(response);
        self.has_queued.store(true, Ordering::Relaxed);
    }

    /// Leaves out hyper's own `100 Continue` for the request that was read at `since`. The body must not be read before
    /// this is ready.
    pub async fn drop_continue(&self, since: Mark) {
        self.flushed(since).await;
        self.drops_continue.store(true, Ordering::Relaxed);
    }

    async fn flushed(&self, since: Mark) {
        std::future::poll_fn(|cx| {
            if self.flushes.load(Ordering::Relaxed) != since.0 {
                return Poll::Ready(());
            }
            self.state.lock().waker = Some(cx.waker().clone());
            self.has_waker.store(true, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }
}

impl ClientIo {
    /// A connection of which `prefix` was read.
    pub fn new(stream: TcpStream, prefix: Bytes, interim: Arc<Interim>) -> Self {
        Self { stream, prefix, interim }
    }

    /// Writes the interim responses that are queued.
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.has_queued.load(Ordering::Relaxed) {
            let mut state = self.interim.state.lock();
            while !state.queued.is_empty() {
                let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &state.queued))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                state.queued.advance(count);
            }
            self.interim.has_queued.store(false, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether these bytes from hyper begin with what is to be left out.
    fn drops(&self, bytes: &[u8]) -> bool {
        let drops = &self.interim.drops_continue;
        drops.load(Ordering::Relaxed) && {
            drops.store(false, Ordering::Relaxed);
            bytes.starts_with(CONTINUE)
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_queued(cx))?;
        if self.drops(bytes) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_queued(cx))?;
        if slices.first().is_some_and(|first| self.drops(first)) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_queued(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        let interim = &self.interim;
        interim.flushes.store(interim.flushes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        if interim.has_waker.load(Ordering::Relaxed) {
            interim.has_waker.store(false, Ordering::Relaxed);
            if let Some(waker) = interim.state.lock().waker.take() {
                waker.wake();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

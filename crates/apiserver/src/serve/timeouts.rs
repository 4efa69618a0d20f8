//! Ends connections whose client takes too long to send a request's head, or sends none.
//!
//! hyper's own timeout for heads also runs while a connection waits for its next request, where clients expect to be
//! given minutes; so what a connection does is noted here, and looked at every few seconds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yado_types::clock::Clock;

use crate::content::{Body, BoxError};

/// A request's head has to be complete this long after its first byte; the first one, after the connection is open. As
/// kube-apiserver does.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without requests is kept this long, as long as common clients keep theirs: a client that sends its next
/// request just when the server closes would lose it.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at a connection: often enough for the timeouts, too seldom to be felt with thousands of them.
const TICK: Duration = Duration::from_secs(5);

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests that are not answered whole.
    requests: AtomicUsize,
    /// A head is being read, or the first one waited for.
    reading: AtomicBool,
    /// Counts the changes of the other two.
    changes: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (requests, reading, changes) = (AtomicUsize::new(0), AtomicBool::new(true), AtomicU64::new(0));
        Arc::new(Self { requests, reading, changes })
    }

    /// A request's head is complete; the request lasts until what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Bytes have come.
    fn received(&self) {
        let waits = self.requests.load(Ordering::Relaxed) == 0 && !self.reading.load(Ordering::Relaxed);
        if waits {
            self.reading.store(true, Ordering::Relaxed);
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request that is not answered whole.
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.reading.store(false, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A head did not come in time.
    Head,
    /// No request came in time.
    Idle,
}

/// How long nothing has changed.
#[derive(Debug, Default)]
struct Watchdog {
    seen: u64,
    quiet: Duration,
}

impl Watchdog {
    /// Looks at a connection `TICK` after the last time.
    fn look(&mut self, activity: &Activity) -> Option<Overdue> {
        let changes = activity.changes.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.seen, changes) != changes {
            self.quiet = Duration::ZERO;
            return None;
        }
        self.quiet += TICK;
        let (limit, overdue) = match activity.reading.load(Ordering::Relaxed) {
            _ if activity.requests.load(Ordering::Relaxed) > 0 => return None,
            true => (HEAD_TIMEOUT, Overdue::Head),
            false => (IDLE_TIMEOUT, Overdue::Idle),
        };
        (self.quiet >= limit).then_some(overdue)
    }
}

/// Ready once a connection is overdue.
pub(super) async fn overdue(activity: &Activity, clock: &dyn Clock) -> Overdue {
    let mut watchdog = Watchdog::default();
    loop {
        clock.sleep(TICK).await;
        if let Some(overdue) = watchdog.look(activity) {
            return overdue;
        }
    }
}

/// A connection's stream, whose reads are noted.
pub(super) struct Noted<S> {
    pub(super) stream: S,
    /// `None` in HTTP/2, where frames come at any time and pings show whether the client is there.
    pub(super) activity: Option<Arc<Activity>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let noted = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut noted.stream).poll_read(context, buffer);
        if let Some(activity) = noted.activity.as_ref().filter(|_| buffer.filled().len() > before) {
            activity.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// An answer's body, with which its request ends.
pub(super) struct Answer {
    pub(super) body: Body,
    /// Dropped with the body.
    pub(super) _request: InFlight,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a connection is ended, where `events` happen at their seconds.
    fn ended(events: &[(u64, &str)]) -> Option<(u64, Overdue)> {
        let (activity, mut watchdog) = (Activity::new(), Watchdog::default());
        let mut requests = Vec::new();
        for second in 0..600 {
            for (_, event) in events.iter().filter(|(at, _)| *at == second) {
                match *event {
                    "bytes" => activity.received(),
                    "request" => requests.push(activity.request()),
                    "answered" => drop(requests.pop()),
                    other => panic!("{other}"),
                }
            }
            if second % TICK.as_secs() == 0
                && second > 0
                && let Some(overdue) = watchdog.look(&activity)
            {
                return Some((second, overdue));
            }
        }
        None
    }

    #[test]
    fn slow_heads_and_idle_connections_are_ended_and_requests_are_not() {
        let drops: Vec<(u64, &str)> = (0..600).map(|second| (second, "bytes")).collect();
        let later: Vec<(u64, &str)> =
            [(1, "request"), (2, "answered")].into_iter().chain((60..600).map(|s| (s, "bytes"))).collect();
        for (events, expect) in [
            (&[][..], Some((30, Overdue::Head))),
            (&drops[..], Some((30, Overdue::Head))),
            (&later[..], Some((90, Overdue::Head))),
            (&[(1, "request")][..], None),
            (&[(1, "request"), (2, "answered")][..], Some((125, Overdue::Idle))),
            (&[(1, "request"), (2, "request"), (3, "answered")][..], None),
            (
                &[(1, "request"), (2, "answered"), (100, "bytes"), (101, "request"), (102, "answered")][..],
                Some((225, Overdue::Idle)),
            ),
        ] {
            assert_eq!(ended(events), expect, "{:?}", &events[..events.len().min(6)]);
        }
    }
}

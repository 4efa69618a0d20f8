//! The body of an app's response on its way to the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::oneshot;
use yado_reconcile::Tasks;

use super::chunked::{Decoder, Part};
use super::clients::InFlight;
use super::exchange::{Exchange, Outgoing, Received, SendError};
use super::response::{Framing, Malformed};
use super::upstream::Lease;

/// What the response is read from.
enum Source {
    /// The connection.
    Whole(TcpStream),
    /// Its reading half, while the rest of the request is sent by another task; that takes the connection back when the
    /// response is over.
    Half(OwnedReadHalf, oneshot::Sender<(OwnedReadHalf, Lease)>),
}

/// How much of a body is to come.
enum Rest {
    Length(u64),
    Chunked(Decoder),
    Close,
}

/// A response's body. At its end, and not before, its connection is free for the next request; if the client goes
/// away in the middle, the connection is closed, since what is left of the body stands on it.
pub struct ResponseBody {
    /// `None` once the body is over.
    open: Option<Open>,
    /// Read before the head was passed on.
    first: Option<Frame<Bytes>>,
    /// Why it broke off, to be told when what came before has been written.
    failed: Option<Error>,
    _request: InFlight,
}

struct Open {
    source: Source,
    received: Received,
    rest: Rest,
    reusable: bool,
    lease: Lease,
}

/// Why a body ended too early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not valid.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection broke.
    #[error("the connection to the app broke: {0}")]
    Broken(#[from] io::Error),
}

impl ResponseBody {
    /// The body of a response whose head was read. `abandon` ends the connection with the response although the request
    /// was not sent to its end.
    pub fn new(
        exchange: Exchange,
        framing: Framing,
        reusable: bool,
        lease: Lease,
        request: InFlight,
        tasks: &Tasks,
        abandon: bool,
    ) -> Self {
        let Exchange { stream, request: outgoing, received, broken, .. } = exchange;
        let (rest, over) = match framing {
            Framing::None | Framing::Length(0) => (Rest::Length(0), true),
            Framing::Length(length) => (Rest::Length(length), false),
            Framing::Chunked => (Rest::Chunked(Decoder::default()), false),
            Framing::Close => (Rest::Close, false),
        };
        let sent = outgoing.is_sent();
        let source = if sent || broken || abandon {
            Source::Whole(stream)
        } else {
            send_rest(stream, outgoing, tasks)
        };
        let reusable = reusable && !broken && (sent || !abandon);
        let open = Open { source, received, rest, reusable, lease };
        let mut body = Self { open: Some(open), first: None, failed: None, _request: request };
        if over {
            body.finish();
        }
        body
    }

    /// Reads what has come of the body already, so that one that is broken from its start can still be answered for.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.poll_part(cx) {
            Poll::Ready(Some(Ok(frame))) => self.first = Some(frame),
            Poll::Ready(Some(Err(error))) => return Err(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        let part = ready!(open.poll_part(cx));
        if open.is_over(&part) {
            self.finish();
        }
        match part {
            Ok(Part::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(Part::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(Part::End) => Poll::Ready(None),
            Err(error) => {
                self.open = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn finish(&mut self) {
        let Some(Open { source, received, reusable, lease, .. }) = self.open.take() else { return };
        // Bytes behind a body belong to no response.
        if !reusable || !received.buffer.is_empty() {
            return;
        }
        match source {
            Source::Whole(stream) => lease.put(stream),
            // The task may have ended with an error; then so does the connection.
            Source::Half(half, back) => _ = back.send((half, lease)),
        }
    }
}

impl Open {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Error>> {
        loop {
            let buffer = &mut self.received.buffer;
            match &mut self.rest {
                Rest::Length(0) => return Poll::Ready(Ok(Part::End)),
                Rest::Length(left) if !buffer.is_empty() => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    *left -= count as u64;
                    return Poll::Ready(Ok(Part::Data(buffer.split_to(count).freeze())));
                }
                Rest::Chunked(decoder) => {
                    if let Some(part) = decoder.decode(buffer)? {
                        return Poll::Ready(Ok(part));
                    }
                }
                Rest::Close if !buffer.is_empty() => {
                    return Poll::Ready(Ok(Part::Data(buffer.split().freeze())));
                }
                Rest::Length(_) | Rest::Close => {}
            }
            let more = match &mut self.source {
                Source::Whole(stream) => ready!(self.received.poll_read(stream, cx))?,
                Source::Half(half, _) => ready!(self.received.poll_read(half, cx))?,
            };
            if !more {
                return Poll::Ready(match self.rest {
                    Rest::Close => Ok(Part::End),
                    Rest::Length(_) | Rest::Chunked(_) => Err(Malformed::Truncated.into()),
                });
            }
        }
    }

    /// Whether nothing comes after this part.
    fn is_over(&self, part: &Result<Part, Error>) -> bool {
        let ends = matches!(part, Ok(Part::Trailers(_) | Part::End));
        ends || part.is_ok() && matches!(self.rest, Rest::Length(0))
    }
}

/// Sends the rest of a request whose response came early, beside the response: a client may well send everything before
/// it reads anything. Ends with the response's body where that is given up.
fn send_rest(stream: TcpStream, mut outgoing: Outgoing, tasks: &Tasks) -> Source {
    let (read, mut write) = stream.into_split();
    let (back, mut over) = oneshot::channel::<(OwnedReadHalf, Lease)>();
    tasks.spawn("rest of a request", async move {
        let send = std::future::poll_fn(|cx| outgoing.poll_send(&mut write, cx));
        let returned = tokio::select! {
            sent = send => match sent {
                Ok(()) => over.await.ok(),
                Err(SendError::Body | SendError::Connection) => None,
            },
            // Whoever has the response's end first waits for the other.
            returned = &mut over => match returned {
                Ok(returned) => {
                    let sent = std::future::poll_fn(|cx| outgoing.poll_send(&mut write, cx)).await;
                    sent.ok().map(|()| returned)
                }
                Err(_) => None,
            },
        };
        if let Some((read, lease)) = returned
            && let Ok(stream) = read.reunite(write)
        {
            lease.put(stream);
        }
    });
    Source::Half(read, back)
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.first.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.poll_part(cx)) {
            // At an error hyper drops what it has not written yet; it writes before it asks again.
            Some(Err(error)) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            part => Poll::Ready(part),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none() && self.first.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            None => 0,
            Some(frame) => match frame.data_ref() {
                Some(data) => data.len() as u64,
                // Trailers need a body that is open at its end.
                None => return SizeHint::default(),
            },
        };
        match self.open.as_ref().map(|open| &open.rest) {
            None => SizeHint::with_exact(first),
            Some(Rest::Length(left)) => SizeHint::with_exact(first + left),
            Some(_) => SizeHint::default(),
        }
    }
}

//! One request and its response over one connection to an app. HTTP/1.1, in the task of the client's request: no other
//! task has to be woken for a part of a body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Method;
use hyper::body::{Body, Frame, Incoming};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::forwarded::line;
use super::request::{BodyFraming, is_trailer};
use super::response::{self, Head, Malformed};

/// Bytes read at once; doubled while reads fill it, up to [`MAX_READ`].
const MIN_READ: usize = 8 << 10;
/// The most bytes read at once, and held of a response for a client that takes them slowly.
const MAX_READ: usize = 64 << 10;

/// A request's body on its way.
pub struct RequestBody {
    incoming: Option<Incoming>,
    framing: BodyFraming,
    /// A part that was taken from the client and not sent.
    returned: Option<Bytes>,
}

impl RequestBody {
    /// The client's body.
    pub fn new(body: Incoming) -> Self {
        let framing = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => BodyFraming::None,
            (_, Some(length)) => BodyFraming::Length(length),
            (_, None) => BodyFraming::Chunked,
        };
        let incoming = (framing != BodyFraming::None).then_some(body);
        Self { incoming, framing, returned: None }
    }

    /// No body.
    pub fn none() -> Self {
        Self { incoming: None, framing: BodyFraming::None, returned: None }
    }

    /// How its end is told.
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(data) = self.returned.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

/// Why sending ended before the request did.
#[derive(Debug)]
pub enum SendError {
    /// The client's body is broken, or the client is gone.
    Body,
    /// The app takes no more.
    Connection,
}

/// Why no response was read.
#[derive(Debug)]
pub enum ReadError {
    /// The app closed the connection without one.
    Closed,
    /// The client's body is broken, or the client is gone.
    RequestBody,
    /// It is not one that can be passed on.
    Malformed(Malformed),
}

/// A request on its way over `stream`.
pub struct Outgoing {
    body: RequestBody,
    /// The head, the size of a chunk, its content, and what follows it, in this order.
    parts: [Bytes; 4],
    /// Nothing of the body is to come.
    complete: bool,
    /// Something was sent.
    started: bool,
    /// Something of a request with a body was sent since this was last asked.
    moved: bool,
}

impl Outgoing {
    /// A request that was not sent yet.
    pub fn new(head: Bytes, body: RequestBody) -> Self {
        let complete = body.incoming.is_none() && body.returned.is_none();
        let parts = [head, Bytes::new(), Bytes::new(), Bytes::new()];
        Self { body, parts, complete, started: false, moved: false }
    }

    /// Whether something of a request with a body was sent since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// The body, where nothing of the request was sent, so that it may be sent elsewhere.
    pub fn into_unsent(mut self) -> Option<RequestBody> {
        if self.started {
            return None;
        }
        let data = std::mem::take(&mut self.parts[2]);
        self.body.returned = (!data.is_empty()).then_some(data);
        Some(self.body)
    }

    /// Whether all was sent.
    pub fn is_sent(&self) -> bool {
        self.complete && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    /// Sends what there is; ready once all was sent. The first part of a body goes with the head if it has come already.
    pub fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            if !self.complete && self.parts[1..].iter().all(Bytes::is_empty) {
                match self.body.poll_frame(cx) {
                    Poll::Ready(frame) => self.push(frame.transpose().map_err(|_| SendError::Body)?),
                    Poll::Pending if self.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            match (self.is_empty(), self.complete) {
                (true, true) => return Poll::Ready(Ok(())),
                // An empty part of a body.
                (true, false) => continue,
                (false, _) => {}
            }
            match ready!(self.poll_write(stream, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(SendError::Connection)),
                Ok(_) => (self.started, self.moved) = (true, self.body.framing != BodyFraming::None),
            }
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let count = if self.parts[1..].iter().all(Bytes::is_empty) {
            ready!(Pin::new(stream).poll_write(cx, &self.parts[0]))?
        } else {
            let slices = self.parts.each_ref().map(|part| IoSlice::new(part));
            ready!(Pin::new(stream).poll_write_vectored(cx, &slices))?
        };
        let mut left = count;
        for part in &mut self.parts {
            let taken = left.min(part.len());
            part.advance(taken);
            left -= taken;
        }
        Poll::Ready(Ok(count))
    }

    /// Frames a part of the body, or its end. The parts before it have been sent.
    fn push(&mut self, frame: Option<Frame<Bytes>>) {
        let chunked = self.body.framing == BodyFraming::Chunked;
        let frame = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                if chunked && !data.is_empty() {
                    self.parts[1] = Bytes::from(format!("{:x}\r\n", data.len()));
                    self.parts[3] = Bytes::from_static(b"\r\n");
                }
                self.parts[2] = data;
                return;
            }
            Some(Err(frame)) => Some(frame),
            None => None,
        };
        self.complete = true;
        if !chunked {
            return;
        }
        self.parts[3] = match frame.and_then(|frame| frame.into_trailers().ok()) {
            None => Bytes::from_static(b"0\r\n\r\n"),
            Some(trailers) => {
                let mut end = BytesMut::from(&b"0\r\n"[..]);
                for (name, value) in trailers.iter().filter(|(name, _)| is_trailer(name)) {
                    line(&mut end, name.as_str(), &[value.as_bytes()]);
                }
                end.put_slice(b"\r\n");
                end.freeze()
            }
        };
    }
}

/// What comes back over a connection: bytes that were read and not yet taken.
#[derive(Default)]
pub struct Received {
    /// The bytes.
    pub buffer: BytesMut,
    next_read: usize,
}

impl Received {
    /// Reads more; ready with false at the end of the connection.
    pub fn poll_read<R: tokio::io::AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let size = self.next_read.clamp(MIN_READ, MAX_READ);
        if self.buffer.capacity() - self.buffer.len() < size / 2 {
            self.buffer.reserve(size);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let count = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.buffer))?;
        if count == room {
            self.next_read = size * 2;
        }
        Poll::Ready(Ok(count > 0))
    }
}

/// A request and its response over one connection.
pub struct Exchange {
    /// The connection.
    pub stream: TcpStream,
    /// The request.
    pub request: Outgoing,
    /// What came back.
    pub received: Received,
    /// Sending failed: the connection takes no further request.
    pub broken: bool,
    method: Method,
}

impl Exchange {
    /// A request that was not sent yet.
    pub fn new(stream: TcpStream, request: Outgoing, method: Method) -> Self {
        Self { stream, request, received: Received::default(), broken: false, method }
    }

    /// Sends the request and reads the next head of a response meanwhile, interim ones too. An app may answer before it
    /// has read the whole request, and close: then its response counts, not the failure to send the rest.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, ReadError>> {
        if !self.broken && !self.request.is_sent() {
            match self.request.poll_send(&mut self.stream, cx) {
                Poll::Ready(Err(SendError::Connection)) => self.broken = true,
                Poll::Ready(Err(SendError::Body)) => return Poll::Ready(Err(ReadError::RequestBody)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            response::skip_empty_lines(&mut self.received.buffer);
            if !self.received.buffer.is_empty()
                && let Some(head) =
                    response::parse(&mut self.received.buffer, &self.method).map_err(ReadError::Malformed)?
            {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.received.poll_read(&mut self.stream, cx)) {
                Ok(true) => {}
                Ok(false) if !self.received.buffer.is_empty() => {
                    return Poll::Ready(Err(ReadError::Malformed(Malformed::Truncated)));
                }
                Ok(false) | Err(_) => return Poll::Ready(Err(ReadError::Closed)),
            }
        }
    }
}

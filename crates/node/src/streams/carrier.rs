//! What SPDY frames travel on: the messages of a WebSocket, or the upgraded connection itself.

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, channels};

/// Bytes are read in pieces of at most this size.
const PIECE: usize = 32 << 10;

type Connection = TokioIo<Upgraded>;

/// A client's connection.
pub(crate) enum Carrier {
    WebSocket(Socket),
    Connection(Connection),
}

/// Bytes from the client.
pub(super) enum Reader {
    WebSocket(SplitStream<Socket>),
    Connection(ReadHalf<Connection>),
}

/// Bytes to the client.
pub(super) enum Writer {
    WebSocket(SplitSink<Socket, Message>),
    Connection(WriteHalf<Connection>),
}

impl Carrier {
    pub(super) fn split(self) -> (Reader, Writer) {
        match self {
            Self::WebSocket(socket) => {
                let (writer, reader) = socket.split();
                (Reader::WebSocket(reader), Writer::WebSocket(writer))
            }
            Self::Connection(connection) => {
                let (reader, writer) = tokio::io::split(connection);
                (Reader::Connection(reader), Writer::Connection(writer))
            }
        }
    }
}

impl Reader {
    /// The next bytes; `None` once the client has ended its side.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::WebSocket(reader) => loop {
                match reader.next().await?.ok()? {
                    Message::Binary(bytes) => return Some(bytes),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Self::Connection(reader) => {
                let mut buffer = BytesMut::with_capacity(PIECE);
                match reader.read_buf(&mut buffer).await {
                    Ok(1..) => Some(buffer.freeze()),
                    Ok(0) | Err(_) => None,
                }
            }
        }
    }
}

impl Writer {
    /// Sends a frame; false where the client is gone.
    pub(super) async fn send(&mut self, frame: Bytes) -> bool {
        match self {
            Self::WebSocket(writer) => writer.send(Message::Binary(frame)).await.is_ok(),
            Self::Connection(writer) => {
                writer.write_all(&frame).await.is_ok() && writer.flush().await.is_ok()
            }
        }
    }

    /// Ends this side; false where the client is gone.
    pub(super) async fn close(&mut self) -> bool {
        match self {
            Self::WebSocket(writer) => writer.send(channels::close()).await.is_ok(),
            Self::Connection(writer) => writer.shutdown().await.is_ok(),
        }
    }
}

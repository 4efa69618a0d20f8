//! One forwarded connection, from its opening to its end. Either direction may end before the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ForwardTarget;
use crate::streams::spdy::Encoder;

/// Data is read in pieces of this size.
const PIECE: usize = 32 << 10;

/// What a client says on a connection. That the sender goes without an [`End`](Self::End) means that the client has
/// given the connection up.
pub(super) enum FromClient {
    Data(Bytes),
    /// Nothing more comes from the client; it still listens.
    End,
}

/// How a connection's bytes are told to the client.
#[derive(Clone, Copy)]
pub(super) enum Replies {
    /// On streams of SPDY. A client may have opened no error stream.
    Streams { data: u32, error: Option<u32> },
    /// On a channel; the next one is for errors.
    Channels { data: u8 },
}

impl Replies {
    fn data(self, bytes: &[u8]) -> Bytes {
        match self {
            Self::Streams { data, .. } => Encoder::data(data, bytes, false),
            Self::Channels { data } => channel(data, bytes),
        }
    }

    /// The end of the Pod's side, with what went wrong if anything did. Channels have no end of their own.
    fn end(self, failure: Option<&str>) -> Vec<Bytes> {
        match self {
            Self::Streams { data, error } => {
                let text = failure.unwrap_or_default();
                let told = error.map(|error| Encoder::data(error, text.as_bytes(), true));
                let end = Some(Encoder::data(data, b"", true));
                // A client that sees the data end looks for what went wrong at once.
                let frames = if failure.is_some() { [told, end] } else { [end, told] };
                frames.into_iter().flatten().collect()
            }
            Self::Channels { data } => {
                failure.map(|text| channel(data + 1, text.as_bytes())).into_iter().collect()
            }
        }
    }
}

fn channel(number: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(number);
    frame.extend_from_slice(bytes);
    frame.freeze()
}

/// Joins a client with a port of the Pod until the Pod's side has ended and the client's too, or the client gives up.
pub(super) async fn carry(
    place: &ForwardTarget,
    port: u16,
    replies: Replies,
    mut from_client: mpsc::Receiver<FromClient>,
    frames: &mpsc::Sender<Bytes>,
) {
    let connection = match connect(place, port).await {
        Ok(connection) => connection,
        Err(reason) => return finish(place, port, replies, frames, Some(reason)).await,
    };
    let (mut reader, mut writer) = connection.into_split();
    let client_ended = CancellationToken::new();
    let down = async {
        let mut buffer = vec![0; PIECE];
        let failure = loop {
            match reader.read(&mut buffer).await {
                Ok(0) => break None,
                Ok(count) => {
                    // Fails only where the client is gone, which whoever holds this connection sees too.
                    if frames.send(replies.data(&buffer[..count])).await.is_err() {
                        return;
                    }
                }
                Err(error) => break Some(error.to_string()),
            }
        };
        finish(place, port, replies, frames, failure).await;
        match replies {
            // The Pod may read on.
            Replies::Streams { .. } => client_ended.cancelled().await,
            // A client cannot say that it has no more, so that nothing would end the connection.
            Replies::Channels { .. } => {}
        }
    };
    let up = async {
        let mut open = true;
        while let Some(from) = from_client.recv().await {
            match from {
                // What the Pod no longer reads is dropped, so that other connections of this client go on.
                FromClient::Data(bytes) => open = open && writer.write_all(&bytes).await.is_ok(),
                FromClient::End => {
                    // The client says no more; the Pod may still answer.
                    let _ = writer.shutdown().await;
                    client_ended.cancel();
                }
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Tells the client that the Pod's side has ended, and what went wrong if anything did.
async fn finish(
    place: &ForwardTarget,
    port: u16,
    replies: Replies,
    frames: &mpsc::Sender<Bytes>,
    failure: Option<String>,
) {
    let text = failure.map(|why| format!("error forwarding port {port} to pod {}: {why}", place.pod));
    for frame in replies.end(text.as_deref()) {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Connects to a port of the Pod as if from within it: to loopback first, since that is where a port may be hidden.
async fn connect(place: &ForwardTarget, port: u16) -> Result<TcpStream, String> {
    let Some(netns) = place.netns.clone() else {
        return TcpStream::connect((place.address, port)).await.map_err(|e| e.to_string());
    };
    let inside = tokio::task::spawn_blocking(move || connect_within(&netns, port)).await;
    let stream = inside.unwrap_or_else(|e| Err(io::Error::other(e)));
    let stream = stream.and_then(|s| {
        s.set_nonblocking(true)?;
        TcpStream::from_std(s)
    });
    match stream {
        Ok(stream) => Ok(stream),
        // It may listen on the Pod's address only.
        Err(first) => TcpStream::connect((place.address, port)).await.map_err(|_| first.to_string()),
    }
}

/// Connects on a thread of its own, which enters the namespace and ends: no other work ever sees that namespace.
fn connect_within(netns: &Path, port: u16) -> io::Result<std::net::TcpStream> {
    let namespace = std::fs::File::open(netns)?;
    let connecting = std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let loopback = [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let addresses = loopback.map(|ip| SocketAddr::new(ip, port));
        std::net::TcpStream::connect(&addresses[..])
    })?;
    connecting.join().unwrap_or_else(|_| Err(io::Error::other("the connecting thread failed")))
}

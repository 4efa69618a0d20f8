//! port-forward: for each connection an error stream and a data stream, joined with a port of the Pod.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::Socket;
use super::spdy::{Broken, Decoder, Encoder, Frame};

/// The protocol inside the WebSocket.
pub(crate) const PROTOCOLS: &[&str] = &["SPDY/3.1+portforward.k8s.io"];

/// Streams of one client at the same time: two for each connection, as many as a browser may want at once and more.
const MOST_STREAMS: usize = 512;
/// Pieces that wait for a slow side; then the other side waits.
const PIECES: usize = 8;
/// Data is read in pieces of this size.
const PIECE: usize = 32 << 10;

/// Where a Pod's ports are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The Pod's network namespace, where a port may be bound to loopback only; `None` is the host's.
    pub netns: Option<PathBuf>,
    /// The Pod's address, for messages and where there is no namespace to enter.
    pub address: IpAddr,
    /// For messages.
    pub pod: String,
}

/// Serves one client until it is gone.
pub(crate) async fn serve(socket: Socket, place: Place) {
    let (mut to_client, mut from_client) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<Bytes>(PIECES);
    let writing = async {
        while let Some(frame) = outgoing.recv().await {
            if to_client.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let mut session = Session {
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            streams: HashMap::new(),
            errors: HashMap::new(),
            frames,
            place,
            connections: JoinSet::new(),
        };
        while let Some(Ok(message)) = from_client.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            if let Err(error) = session.feed(&bytes).await {
                tracing::debug!(pod = session.place.pod, %error, "port-forward ended");
                break;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// What goes to a connection: bytes, or the end of them.
type ToPod = mpsc::Sender<Option<Bytes>>;

struct Session {
    decoder: Decoder,
    encoder: Encoder,
    /// Data streams that are open. At most [`MOST_STREAMS`].
    streams: HashMap<u32, ToPod>,
    /// Error streams by request id, until their data stream comes. At most [`MOST_STREAMS`].
    errors: HashMap<String, u32>,
    frames: mpsc::Sender<Bytes>,
    place: Place,
    /// Aborted with the session.
    connections: JoinSet<u32>,
}

impl Session {
    async fn feed(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.decoder.feed(bytes);
        while let Some(frame) = self.decoder.next()? {
            while let Some(ended) = self.connections.try_join_next() {
                if let Ok(id) = ended {
                    self.streams.remove(&id);
                }
            }
            match frame {
                Frame::Open { id, headers, .. } => self.open(id, &headers).await?,
                Frame::Data { id, bytes, fin } => {
                    if let Some(stream) = self.streams.get(&id) {
                        // Fails only where the connection has ended already.
                        if !bytes.is_empty() {
                            let _ = stream.send(Some(bytes)).await;
                        }
                        if fin {
                            let _ = stream.send(None).await;
                        }
                    }
                }
                Frame::Reset { id } => drop(self.streams.remove(&id)),
                Frame::Ping { payload } => self.send(Encoder::ping(&payload)).await,
                Frame::GoAway => {}
            }
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, headers: &[(String, String)]) -> Result<(), Broken> {
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let (kind, port) = (header("streamtype"), header("port").parse::<u16>().ok().filter(|p| *p > 0));
        let request = header("requestid").to_owned();
        let room = self.streams.len().max(self.errors.len()) < MOST_STREAMS;
        match (kind, port) {
            ("error", Some(_)) if room => {
                let reply = self.encoder.reply(id)?;
                self.send(reply).await;
                self.errors.insert(request, id);
            }
            ("data", Some(port)) if room => {
                let reply = self.encoder.reply(id)?;
                self.send(reply).await;
                let (sender, receiver) = mpsc::channel(PIECES);
                self.streams.insert(id, sender);
                let error = self.errors.remove(&request);
                let (place, frames) = (self.place.clone(), self.frames.clone());
                self.connections.spawn(async move {
                    carry(place, port, id, error, receiver, frames).await;
                    id
                });
            }
            _ => self.send(Encoder::refuse(id)).await,
        }
        Ok(())
    }

    async fn send(&self, frame: Bytes) {
        // Fails only where the client is gone, which its reader sees too.
        let _ = self.frames.send(frame).await;
    }
}

/// One connection, from its opening to its end.
async fn carry(
    place: Place,
    port: u16,
    id: u32,
    error: Option<u32>,
    mut from_client: mpsc::Receiver<Option<Bytes>>,
    frames: mpsc::Sender<Bytes>,
) {
    let send = |frame| async { frames.send(frame).await.is_ok() };
    let connection = match connect(&place, port).await {
        Ok(connection) => connection,
        Err(reason) => {
            if let Some(error) = error {
                let text = format!("error forwarding port {port} to pod {}: {reason}", place.pod);
                send(Encoder::data(error, text.as_bytes(), true)).await;
            }
            send(Encoder::data(id, b"", true)).await;
            return;
        }
    };
    let (mut reader, mut writer) = connection.into_split();
    let up = async {
        while let Some(Some(bytes)) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The client says no more; the Pod may still answer.
        let _ = writer.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if !send(Encoder::data(id, &buffer[..count], false)).await {
                return;
            }
        }
        send(Encoder::data(id, b"", true)).await;
        if let Some(error) = error {
            send(Encoder::data(error, b"", true)).await;
        }
    };
    tokio::join!(up, down);
}

/// Connects to a port of the Pod as if from within it: to loopback first, since that is where a port may be hidden.
async fn connect(place: &Place, port: u16) -> Result<TcpStream, String> {
    let Some(netns) = place.netns.clone() else {
        return TcpStream::connect((place.address, port)).await.map_err(|e| e.to_string());
    };
    let inside = tokio::task::spawn_blocking(move || connect_within(&netns, port)).await;
    let stream = inside.unwrap_or_else(|e| Err(std::io::Error::other(e)));
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
fn connect_within(netns: &std::path::Path, port: u16) -> std::io::Result<std::net::TcpStream> {
    let namespace = std::fs::File::open(netns)?;
    let connecting = std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let loopback = [std::net::Ipv4Addr::LOCALHOST.into(), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        let addresses = loopback.map(|ip| std::net::SocketAddr::new(ip, port));
        std::net::TcpStream::connect(&addresses[..])
    })?;
    connecting.join().unwrap_or_else(|_| Err(std::io::Error::other("the connecting thread failed")))
}

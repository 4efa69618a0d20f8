//! port-forward: connections of a client, each joined with a port of the Pod. In SPDY a connection is an error stream and
//! a data stream that the client opens; in channels there is one connection for each port that the request names.

mod connection;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::carrier::Carrier;
use super::channels::{self, Encoding};
use super::spdy::{Broken, Decoder, Encoder, Frame};
use super::{Client, LINGER_TIMEOUT, Socket};
use connection::{FromClient, Replies};

/// Streams of one client at the same time: two for each connection, as many as a browser may want at once and more.
const MOST_STREAMS: usize = 512;
/// Ports of one client in channels: two channels each, numbered in a byte whose last value has another meaning.
const MOST_PORTS: usize = 127;
/// Pieces that wait for a slow side; then the other side waits.
const PIECES: usize = 8;

/// The Pod whose ports are forwarded.
#[derive(Clone, Debug)]
pub(crate) struct ForwardTarget {
    /// The Pod's network namespace, where a port may be bound to loopback only; `None` is the host's.
    pub netns: Option<PathBuf>,
    /// The Pod's address, for messages and where there is no namespace to enter.
    pub address: IpAddr,
    /// For messages.
    pub pod: String,
}

/// Serves one client until it is gone. `ports` are those that the request names, which matter to channels only.
pub(crate) async fn serve(client: Client, place: ForwardTarget, ports: Vec<u16>) {
    match client {
        Client::Spdy(carrier, _) => serve_streams(carrier, place).await,
        Client::Channels(socket, protocol) => serve_channels(socket, protocol.encoding, place, &ports).await,
    }
}

async fn serve_streams(carrier: Carrier, place: ForwardTarget) {
    let (mut from_client, mut to_client) = carrier.split();
    let (frames, mut outgoing) = mpsc::channel::<Bytes>(PIECES);
    let writing = async {
        while let Some(frame) = outgoing.recv().await {
            if !to_client.send(frame).await {
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
        while let Some(bytes) = from_client.next().await {
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

struct Session {
    decoder: Decoder,
    encoder: Encoder,
    /// Data streams that are open. At most [`MOST_STREAMS`].
    streams: HashMap<u32, mpsc::Sender<FromClient>>,
    /// Error streams by request id, until their data stream comes. At most [`MOST_STREAMS`].
    errors: HashMap<String, u32>,
    frames: mpsc::Sender<Bytes>,
    place: ForwardTarget,
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
                            let _ = stream.send(FromClient::Data(bytes)).await;
                        }
                        if fin {
                            let _ = stream.send(FromClient::End).await;
                        }
                    }
                }
                // The connection sees its sender go, and ends.
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
                let replies = Replies::Streams { data: id, error: self.errors.remove(&request) };
                let (place, frames) = (self.place.clone(), self.frames.clone());
                self.connections.spawn(async move {
                    connection::carry(&place, port, replies, receiver, &frames).await;
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

/// Channel 2N carries the data of the N-th port, channel 2N+1 what goes wrong with it. Each begins with the port's
/// number in two bytes.
async fn serve_channels(socket: Socket, encoding: Encoding, place: ForwardTarget, ports: &[u16]) {
    let (mut to_client, mut from_client) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<Bytes>(PIECES);
    let mut senders = Vec::new();
    let mut carrying = Vec::new();
    for (data, port) in (0u8..).step_by(2).zip(ports.iter().copied()).take(MOST_PORTS) {
        let (sender, receiver) = mpsc::channel(PIECES);
        senders.push(sender);
        let (place, frames) = (&place, frames.clone());
        carrying.push(async move {
            let replies = Replies::Channels { data };
            for channel in [data, data + 1] {
                let [low, high] = port.to_le_bytes();
                let _ = frames.send(Bytes::copy_from_slice(&[channel, low, high])).await;
            }
            connection::carry(place, port, replies, receiver, &frames).await;
        });
    }
    drop(frames);
    let writing = async {
        while let Some(frame) = outgoing.recv().await {
            if to_client.send(encoding.message(frame[0], &frame[1..])).await.is_err() {
                return false;
            }
        }
        to_client.send(channels::close()).await.is_ok()
    };
    let reading = async {
        while let Some(Ok(message)) = from_client.next().await {
            if message.is_close() {
                return;
            }
            let Ok(parsed) = encoding.parse(message) else { return };
            let Some((channel, bytes)) = parsed.filter(|(channel, _)| channel % 2 == 0) else { continue };
            if let Some(sender) = senders.get(usize::from(channel / 2)) {
                // Fails only where the connection has ended already.
                let _ = sender.send(FromClient::Data(bytes)).await;
            }
        }
    };
    tokio::pin!(reading);
    let told = tokio::select! {
        (told, _) = async { tokio::join!(writing, futures::future::join_all(carrying)) } => told,
        () = &mut reading => false,
    };
    if told {
        let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await;
    }
}

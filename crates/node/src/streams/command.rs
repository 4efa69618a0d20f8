//! A process's streams over SPDY: the client opens a stream for each of them, and one for the status.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::{mpsc, watch};

use super::LINGER_TIMEOUT;
use super::carrier::{Carrier, Reader};
use super::process::{Input, Inputs, Output, RequestedStreams, StatusForm};
use super::spdy::{Broken, Decoder, Encoder, Frame};

/// How long a client may take to open its streams. Kubernetes' value.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that wait for a slow client; then the process waits.
const FRAMES: usize = 8;
/// Bytes of one size of a terminal; it is two numbers and their names.
const LARGEST_SIZE: usize = 1024;

/// One of the protocols of SPDY streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub status: StatusForm,
    /// A client with a terminal opens a stream for its size.
    pub resize: bool,
}

/// The streams that a client has opened, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Streams {
    status: Option<u32>,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
}

impl Streams {
    fn place(&mut self, kind: &str) -> Option<&mut Option<u32>> {
        match kind {
            "error" => Some(&mut self.status),
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    /// All are there that the client has said it wants. Nothing may be sent before: a client that opens a stream once
    /// all is over waits for its reply.
    fn complete(&self, wanted: RequestedStreams, protocol: Protocol) -> bool {
        self.status.is_some()
            && (self.resize.is_some() || !wanted.terminal || !protocol.resize)
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr || wanted.terminal)
    }
}

/// Serves a client until it has got all output, or is gone.
pub(super) async fn serve(
    carrier: Carrier,
    protocol: Protocol,
    wanted: RequestedStreams,
    inputs: Inputs,
    outputs: mpsc::Receiver<Output>,
) {
    let (reader, mut writer) = carrier.split();
    let (frames, mut to_client) = mpsc::channel(FRAMES);
    let (opened, streams) = watch::channel(Streams::default());
    let session =
        Session { decoder: Decoder::new(), encoder: Encoder::new(), sizes: BytesMut::new(), opened };
    let reading = read(reader, session, frames.clone(), &inputs);
    tokio::pin!(reading);
    let output = write(streams, wanted, protocol, outputs, frames);
    let writing = async {
        let sending = async {
            while let Some(Some(frame)) = to_client.recv().await {
                if !writer.send(frame).await {
                    return false;
                }
            }
            writer.close().await
        };
        let output = async {
            output.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            told = sending => told,
            () = output => false,
        }
    };
    let told = tokio::select! {
        told = writing => told,
        () = &mut reading => false,
    };
    if told {
        inputs.end();
        let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await;
    }
}

/// Frames on their way to a client; `None` follows the last.
type Frames = mpsc::Sender<Option<Bytes>>;

/// Sends output on the streams that the client has opened, then the end of each of them.
async fn write(
    mut streams: watch::Receiver<Streams>,
    wanted: RequestedStreams,
    protocol: Protocol,
    mut outputs: mpsc::Receiver<Output>,
    frames: Frames,
) {
    let complete =
        async { streams.wait_for(|streams| streams.complete(wanted, protocol)).await.ok().map(|s| *s) };
    let Ok(Some(streams)) = tokio::time::timeout(STREAMS_TIMEOUT, complete).await else {
        // The client is gone, or has not opened what it wanted to in time.
        let _ = frames.send(None).await;
        return;
    };
    while let Some(output) = outputs.recv().await {
        let sent = match output {
            Output::Stdout(bytes) => send(&frames, streams.stdout, &bytes, false).await,
            Output::Stderr(bytes) => send(&frames, streams.stderr, &bytes, false).await,
            Output::Status(status) => {
                send(&frames, streams.stdout, b"", true).await
                    && send(&frames, streams.stderr, b"", true).await
                    && send(&frames, streams.status, &protocol.status.write(&status), true).await
            }
        };
        if !sent {
            return;
        }
    }
    let _ = frames.send(None).await;
}

/// Sends bytes on a stream, if the client has opened it; false where the client is gone.
async fn send(frames: &Frames, id: Option<u32>, bytes: &[u8], fin: bool) -> bool {
    match id {
        Some(id) => frames.send(Some(Encoder::data(id, bytes, fin))).await.is_ok(),
        None => true,
    }
}

struct Session {
    decoder: Decoder,
    encoder: Encoder,
    /// Sizes of the terminal, of which the last may not be whole yet.
    sizes: BytesMut,
    opened: watch::Sender<Streams>,
}

/// Reads frames until the client is gone.
async fn read(mut reader: Reader, mut session: Session, frames: Frames, inputs: &Inputs) {
    while let Some(bytes) = reader.next().await {
        session.decoder.feed(&bytes);
        loop {
            match session.decoder.next() {
                Ok(Some(frame)) => {
                    if let Err(error) = session.take(frame, &frames, inputs).await {
                        return tracing::debug!(%error, "a client's stream ended");
                    }
                }
                Ok(None) => break,
                Err(error) => return tracing::debug!(%error, "a client's stream ended"),
            }
        }
    }
}

impl Session {
    async fn take(&mut self, frame: Frame, frames: &Frames, inputs: &Inputs) -> Result<(), Broken> {
        let streams = *self.opened.borrow();
        match frame {
            Frame::Open { id, headers, .. } => self.open(id, &headers, frames).await?,
            Frame::Data { id, bytes, fin } if Some(id) == streams.stdin => {
                if !bytes.is_empty() {
                    inputs.take(Input::Data(bytes)).await;
                }
                if fin {
                    inputs.take(Input::End).await;
                }
            }
            Frame::Data { id, bytes, .. } if Some(id) == streams.resize => {
                for size in self.sizes(&bytes) {
                    inputs.take(size).await;
                }
            }
            Frame::Reset { id } if Some(id) == streams.stdin => inputs.take(Input::End).await,
            Frame::Ping { payload } => drop(frames.send(Some(Encoder::ping(&payload))).await),
            Frame::Data { .. } | Frame::Reset { .. } | Frame::GoAway => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, headers: &[(String, String)], frames: &Frames) -> Result<(), Broken> {
        let kind = headers.iter().find(|(name, _)| name == "streamtype").map_or("", |(_, v)| v.as_str());
        let mut streams = *self.opened.borrow();
        let Some(place @ None) = streams.place(kind) else {
            let _ = frames.send(Some(Encoder::refuse(id))).await;
            return Ok(());
        };
        *place = Some(id);
        // Before anything is sent on it. Fails only where the client is gone.
        let reply = self.encoder.reply(id)?;
        let _ = frames.send(Some(reply)).await;
        self.opened.send_replace(streams);
        Ok(())
    }

    /// The sizes that are whole: objects of JSON, each on a line of its own.
    fn sizes(&mut self, bytes: &[u8]) -> Vec<Input> {
        self.sizes.extend_from_slice(bytes);
        let mut sizes = Vec::new();
        while let Some(end) = self.sizes.iter().position(|byte| *byte == b'}') {
            let text = self.sizes.split_to(end + 1);
            sizes.extend(Input::size(text.trim_ascii_start()));
        }
        if self.sizes.len() > LARGEST_SIZE {
            self.sizes.advance(self.sizes.len());
        }
        sizes
    }
}

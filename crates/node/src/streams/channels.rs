//! exec and attach: `v5.channel.k8s.io` and `v4.channel.k8s.io`. The first byte of a message is its channel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Socket;

/// Protocols offered, the newest first. Only v5 can half-close standard input.
pub(crate) const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Output is read in pieces of this size.
const PIECE: usize = 32 << 10;
/// Pieces of output that wait for a slow client; then the container's process waits.
const PIECES: usize = 8;

/// Sets a terminal's size: columns, rows.
pub(crate) type Resize = Box<dyn Fn(u16, u16) + Send + Sync>;

/// What a client is joined with.
pub(crate) struct Process {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub resize: Resize,
}

/// What a message from the client means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Data(Bytes),
    End,
    Size {
        columns: u16,
        rows: u16,
    },
    /// Nothing that concerns us.
    Other,
}

impl Input {
    pub(crate) fn parse(message: &Bytes) -> Self {
        match message.first() {
            Some(&STDIN) => Self::Data(message.slice(1..)),
            Some(&CLOSE) if message.get(1) == Some(&STDIN) => Self::End,
            Some(&RESIZE) => {
                let size: Value = serde_json::from_slice(&message[1..]).unwrap_or_default();
                let of =
                    |name: &str| size.get(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
                match (of("Width"), of("Height")) {
                    (Some(columns), Some(rows)) => Self::Size { columns, rows },
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

/// The status channel's last word about an exit code.
pub(crate) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The status channel's last word where nothing could be run.
pub(crate) fn failure_status(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
}

/// Tells a client why there is no process to join it with.
pub(crate) async fn fail(socket: Socket, message: String) {
    let nothing = Process { stdin: None, stdout: None, stderr: None, resize: Box::new(|_, _| {}) };
    join(socket, nothing, async move { failure_status(&message) }).await;
}

/// A stream whose end is noticed: dropping it drops `open`.
pub(crate) struct Noticed<S> {
    stream: S,
    _open: oneshot::Sender<()>,
}

impl<S> Noticed<S> {
    pub(crate) fn new(stream: S, open: oneshot::Sender<()>) -> Self {
        Self { stream, _open: open }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noticed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Joins a client with a process until the process's output has ended and `end` gives the last word, or the client
/// is gone.
pub(crate) async fn join(socket: Socket, process: Process, end: impl Future<Output = Value>) {
    let (mut to_client, mut from_client) = socket.split();
    let (sender, mut messages) = mpsc::channel::<Message>(PIECES);
    let output = async {
        tokio::join!(
            copy_out(process.stdout, STDOUT, sender.clone()),
            copy_out(process.stderr, STDERR, sender.clone())
        );
        let status = end.await;
        // Fails only where the client is gone.
        let _ = sender.send(message(STATUS, status.to_string().as_bytes())).await;
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sender.send(Message::Close(Some(close))).await;
    };
    let (input_sender, input_receiver) = mpsc::channel::<Input>(PIECES);
    let writing = async {
        while let Some(message) = messages.recv().await {
            let last = matches!(message, Message::Close(_));
            if to_client.send(message).await.is_err() || last {
                break;
            }
        }
    };
    let reading = async {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(bytes) => match Input::parse(&bytes) {
                    Input::Size { columns, rows } => (process.resize)(columns, rows),
                    Input::Other => {}
                    // A full queue makes the client wait: that is the back-pressure.
                    input => {
                        if input_sender.send(input).await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                },
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    let writing_input = async {
        write_in(process.stdin, input_receiver).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(output, writing) } => {}
        () = reading => {}
        () = writing_input => {}
    }
}

async fn copy_out(stream: Option<Box<dyn AsyncRead + Send + Unpin>>, channel: u8, to: mpsc::Sender<Message>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if to.send(message(channel, &buffer[..count])).await.is_err() {
            return;
        }
    }
}

/// Ends once the process takes no more input, or there will be none. Dropping the stream is the end of input.
async fn write_in(stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>, mut inputs: mpsc::Receiver<Input>) {
    let mut stdin = stdin;
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Data(bytes) => {
                if let Some(open) = &mut stdin
                    && open.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            _ => stdin = None,
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut all = Vec::with_capacity(bytes.len() + 1);
    all.push(channel);
    all.extend_from_slice(bytes);
    Message::Binary(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood() {
        let check = |message: &[u8], expect: Input| {
            assert_eq!(Input::parse(&Bytes::copy_from_slice(message)), expect, "{message:?}");
        };
        check(b"\0abc", Input::Data("abc".into()));
        check(b"\0", Input::Data(Bytes::new()));
        check(b"\xff\0", Input::End);
        check(b"\xff\x01", Input::Other);
        check(b"\x04{\"Width\":80,\"Height\":24}", Input::Size { columns: 80, rows: 24 });
        check(b"\x04{\"Width\":80000,\"Height\":24}", Input::Other);
        check(b"\x04{", Input::Other);
        check(b"", Input::Other);
    }

    #[test]
    fn exit_codes_become_a_status() {
        assert_eq!(exit_status(0)["status"], "Success");
        assert_eq!(exit_status(7)["details"]["causes"][0]["message"], "7");
    }
}

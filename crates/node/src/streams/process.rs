//! Joins a client with a process, whatever protocol the client speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Client, channels, command};

/// Output is read in pieces of this size.
const PIECE: usize = 32 << 10;
/// Pieces that wait for a slow side; then the other side waits.
const PIECES: usize = 8;

/// Sets a terminal's size: columns, rows.
pub(crate) type Resize = Box<dyn Fn(u16, u16) + Send + Sync>;

/// The process's side.
pub(crate) struct Process {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub resize: Resize,
}

impl Process {
    /// No process: there is only a status to be told.
    pub(crate) fn none() -> Self {
        Self { stdin: None, stdout: None, stderr: None, resize: Box::new(|_, _| {}) }
    }
}

/// The streams that a client has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestedStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub terminal: bool,
}

/// How the final status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusForm {
    /// A `Status` object, whatever the result.
    Json,
    /// The message of a failure, and nothing for a success.
    Text,
}

impl StatusForm {
    pub(crate) fn write(self, status: &Value) -> Bytes {
        match self {
            Self::Json => status.to_string().into(),
            Self::Text if status["status"] == "Success" => Bytes::new(),
            Self::Text => status["message"].as_str().unwrap_or_default().to_owned().into(),
        }
    }
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes for standard input.
    Data(Bytes),
    /// The end of standard input.
    End,
    /// The terminal's size.
    Size { columns: u16, rows: u16 },
}

impl Input {
    /// `{"Width":80,"Height":24}`; `None` where it is nothing of the kind.
    pub(crate) fn size(text: &[u8]) -> Option<Self> {
        let size: Value = serde_json::from_slice(text).ok()?;
        let of = |name: &str| size.get(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        Some(Self::Size { columns: of("Width")?, rows: of("Height")? })
    }
}

/// What a client is sent.
#[derive(Debug)]
pub(crate) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last: how the process ended.
    Status(Value),
}

/// Where a protocol puts what its client sends.
pub(crate) struct Inputs {
    sender: mpsc::Sender<Input>,
    resize: Resize,
    /// Set once no input is wanted any more: what comes is then dropped.
    ended: CancellationToken,
}

impl Inputs {
    /// Waits while the process is slow: that is the back-pressure.
    pub(crate) async fn take(&self, input: Input) {
        match input {
            Input::Size { columns, rows } => (self.resize)(columns, rows),
            // Fails where the process takes no more, which is its affair: its output goes on.
            input => drop(self.ended.run_until_cancelled(self.sender.send(input)).await),
        }
    }

    /// Drops all input from now on.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }
}

/// The final status of a process that ran.
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

/// The final status where nothing could be run.
pub(crate) fn failure_status(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
}

/// Tells a client why there is no process to join it with.
pub(crate) async fn fail(client: Client, wanted: RequestedStreams, message: String) {
    join(client, wanted, Process::none(), async move { failure_status(&message) }).await;
}

/// A stream that drops `open` when it is dropped, by which its end can be awaited.
pub(crate) struct DropNotifier<S> {
    stream: S,
    _open: oneshot::Sender<()>,
}

impl<S> DropNotifier<S> {
    pub(crate) fn new(stream: S, open: oneshot::Sender<()>) -> Self {
        Self { stream, _open: open }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DropNotifier<S> {
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

/// Joins a client with a process. Returns once the process's output has ended, `end` has given the status and the
/// client has been told all of it, or once the client is gone. Input that still comes then is dropped.
pub(crate) async fn join(
    client: Client,
    wanted: RequestedStreams,
    process: Process,
    end: impl Future<Output = Value>,
) {
    let (outputs, to_client) = mpsc::channel(PIECES);
    let (sender, from_client) = mpsc::channel(PIECES);
    let inputs = Inputs { sender, resize: process.resize, ended: CancellationToken::new() };
    let output = async move {
        tokio::join!(
            copy_out(process.stdout, Output::Stdout, outputs.clone()),
            copy_out(process.stderr, Output::Stderr, outputs.clone())
        );
        // Fails only where the client is gone.
        let _ = outputs.send(Output::Status(end.await)).await;
    };
    let input = write_in(process.stdin, from_client);
    let serving = async {
        match client {
            Client::Channels(socket, protocol) => channels::serve(socket, protocol, inputs, to_client).await,
            Client::Spdy(carrier, protocol) => {
                command::serve(carrier, protocol, wanted, inputs, to_client).await;
            }
        }
    };
    // The client's side decides when all is over; neither direction of the process's does.
    let process = async {
        tokio::join!(output, input);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        () = process => {}
    }
}

async fn copy_out(
    stream: Option<Box<dyn AsyncRead + Send + Unpin>>,
    output: fn(Bytes) -> Output,
    to: mpsc::Sender<Output>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if to.send(output(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}

/// Ends once there will be no more input. Dropping the stream is the end of input; what a process no longer reads is
/// dropped.
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

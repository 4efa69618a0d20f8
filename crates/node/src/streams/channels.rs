//! A process's streams as channels of a WebSocket: the first byte of a message is its channel.
//!
//! `v5.channel.k8s.io` and `v4.channel.k8s.io` tell the end as a `Status`, `channel.k8s.io` as a text. The `base64`
//! protocols carry the same in text: a digit for the channel, then the bytes in Base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::process::{Input, Inputs, Output, StatusForm};
use super::{LINGER_TIMEOUT, Socket};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// How a channel and its bytes become a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// The channel's number as a byte.
    Binary,
    /// The channel's number as a digit, the bytes in Base64.
    Base64,
}

/// A message is not in the protocol's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is not in Base64")]
pub(crate) struct Malformed;

impl Encoding {
    /// A message for a client.
    pub(crate) fn message(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut all = Vec::with_capacity(bytes.len() + 1);
                all.push(channel);
                all.extend_from_slice(bytes);
                Message::Binary(all.into())
            }
            Self::Base64 => {
                let mut text = String::from(char::from(b'0' + channel));
                STANDARD.encode_string(bytes, &mut text);
                Message::Text(text.into())
            }
        }
    }

    /// Channel and bytes of a message; `None` where it has none. Some clients send text in a binary protocol.
    pub(crate) fn parse(self, message: Message) -> Result<Option<(u8, Bytes)>, Malformed> {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return Ok(None),
        };
        let Some(first) = bytes.first().copied() else { return Ok(None) };
        let rest = bytes.slice(1..);
        match self {
            Self::Binary => Ok(Some((first, rest))),
            Self::Base64 => {
                let decoded = STANDARD.decode(&rest).map_err(|_| Malformed)?;
                Ok(Some((first.wrapping_sub(b'0'), decoded.into())))
            }
        }
    }
}

/// One of the channel protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub encoding: Encoding,
    pub status: StatusForm,
    /// A client may end its standard input without going away.
    pub half_close: bool,
}

impl Protocol {
    /// The oldest, for a client that names none.
    pub(crate) const PLAIN: Self =
        Self { encoding: Encoding::Binary, status: StatusForm::Text, half_close: false };

    fn input(self, channel: u8, bytes: Bytes) -> Option<Input> {
        match channel {
            STDIN => Some(Input::Data(bytes)),
            CLOSE if self.half_close && bytes.first() == Some(&STDIN) => Some(Input::End),
            RESIZE => Input::size(&bytes),
            _ => None,
        }
    }

    fn output(self, output: Output) -> Option<Message> {
        let (channel, bytes) = match output {
            Output::Stdout(bytes) => (STDOUT, bytes),
            Output::Stderr(bytes) => (STDERR, bytes),
            Output::Status(status) => (STATUS, self.status.write(&status)),
        };
        // An empty status is a success that this protocol has no words for.
        (channel != STATUS || !bytes.is_empty()).then(|| self.encoding.message(channel, &bytes))
    }
}

/// The last message of a WebSocket.
pub(crate) fn close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Serves a client until it has got all output, or is gone.
pub(super) async fn serve(
    socket: Socket,
    protocol: Protocol,
    inputs: Inputs,
    mut outputs: mpsc::Receiver<Output>,
) {
    let (mut to_client, mut from_client) = socket.split();
    let writing = async {
        while let Some(output) = outputs.recv().await {
            if let Some(message) = protocol.output(output)
                && to_client.send(message).await.is_err()
            {
                return false;
            }
        }
        to_client.send(close()).await.is_ok()
    };
    let reading = async {
        while let Some(Ok(message)) = from_client.next().await {
            if message.is_close() {
                return;
            }
            match protocol.encoding.parse(message) {
                Ok(Some((channel, bytes))) => {
                    if let Some(input) = protocol.input(channel, bytes) {
                        inputs.take(input).await;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "a client's stream ended");
                    return;
                }
            }
        }
    };
    tokio::pin!(reading);
    let told = tokio::select! {
        told = writing => told,
        () = &mut reading => false,
    };
    if told {
        inputs.end();
        let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::process::exit_status;

    const V5: Protocol = Protocol { encoding: Encoding::Binary, status: StatusForm::Json, half_close: true };
    const BASE64: Protocol = Protocol { encoding: Encoding::Base64, ..Protocol::PLAIN };

    fn parsed(protocol: Protocol, message: Message) -> Result<Option<Input>, Malformed> {
        let parsed = protocol.encoding.parse(message)?;
        Ok(parsed.and_then(|(channel, bytes)| protocol.input(channel, bytes)))
    }

    #[test]
    fn messages_are_understood() {
        let check = |protocol: Protocol, message: &[u8], expect: Result<Option<Input>, Malformed>| {
            let binary = Message::Binary(Bytes::copy_from_slice(message));
            assert_eq!(parsed(protocol, binary), expect, "{message:?}");
            // The same as text, where it is one.
            if let Ok(text) = std::str::from_utf8(message) {
                assert_eq!(parsed(protocol, Message::Text(text.into())), expect, "{text:?}");
            }
        };
        let data = |bytes: &'static [u8]| Ok(Some(Input::Data(bytes.into())));
        let size = || Ok(Some(Input::Size { columns: 80, rows: 24 }));
        check(V5, b"\0abc", data(b"abc"));
        check(V5, b"\0", data(b""));
        check(V5, b"\xff\0", Ok(Some(Input::End)));
        check(V5, b"\xff\x01", Ok(None));
        check(Protocol::PLAIN, b"\xff\0", Ok(None));
        check(V5, b"\x04{\"Width\":80,\"Height\":24}", size());
        check(V5, b"\x04{\"Width\":80000,\"Height\":24}", Ok(None));
        check(V5, b"\x04{", Ok(None));
        check(V5, b"", Ok(None));
        check(BASE64, b"0YWJj", data(b"abc"));
        check(BASE64, b"0", data(b""));
        check(BASE64, b"4eyJXaWR0aCI6ODAsIkhlaWdodCI6MjR9", size());
        check(BASE64, b"0?", Err(Malformed));
    }

    #[test]
    fn output_is_written_in_the_protocols_form() {
        let check = |protocol: Protocol, output: Output, expect: Option<&[u8]>| {
            let written = protocol.output(output).map(Message::into_data);
            assert_eq!(written.as_deref(), expect);
        };
        check(V5, Output::Stdout(Bytes::from_static(b"a\0")), Some(b"\x01a\0"));
        check(BASE64, Output::Stderr(Bytes::from_static(b"abc")), Some(b"2YWJj"));
        check(V5, Output::Status(exit_status(0)), Some(b"\x03{\"metadata\":{},\"status\":\"Success\"}"));
        check(Protocol::PLAIN, Output::Status(exit_status(0)), None);
        let told = b"\x03command terminated with non-zero exit code: exit status 7";
        check(Protocol::PLAIN, Output::Status(exit_status(7)), Some(told));
    }

    #[test]
    fn exit_codes_become_a_status() {
        assert_eq!(exit_status(0)["status"], "Success");
        assert_eq!(exit_status(7)["details"]["causes"][0]["message"], "7");
    }
}

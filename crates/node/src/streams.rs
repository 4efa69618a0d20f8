//! Streams over an upgraded connection: exec and attach in Kubernetes' channel protocols or in SPDY, port-forward in
//! SPDY (with or without a WebSocket around it) or in channels.
//!
//! [`accept`] agrees on a protocol; [`process`] joins a client with a process and does not know which protocol it is.

pub(crate) mod carrier;
pub(crate) mod channels;
pub(crate) mod command;
pub(crate) mod forward;
pub(crate) mod process;
pub(crate) mod spdy;

use std::time::Duration;

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use carrier::Carrier;
use channels::{Encoding, Protocol};
use process::StatusForm;

/// Bytes of one WebSocket message from a client. kubectl sends at most 32 KiB of data at once.
const LARGEST_MESSAGE: usize = 1 << 20;
/// How long input that nobody reads any more is taken from a client that has got all its output. A connection that is
/// closed while input is on its way is reset by the kernel, and the reset destroys output that the client has not
/// read yet.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// Names a protocol of SPDY streams, in requests and answers.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What SPDY is called in `Upgrade`.
const SPDY: &str = "SPDY/3.1";

/// A client's WebSocket, boxed since it is far larger than a plain connection.
pub(crate) type Socket = Box<WebSocketStream<TokioIo<Upgraded>>>;

/// The kinds of session for which a connection is upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    /// exec and attach.
    Process,
    /// port-forward.
    PortForward,
}

/// The protocol that client and node have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// A WebSocket whose messages begin with a channel.
    Channels(Protocol),
    /// A WebSocket whose messages are pieces of SPDY.
    Tunnel,
    /// SPDY itself.
    Spdy(command::Protocol),
}

/// A client after the upgrade.
pub(crate) enum Client {
    /// A WebSocket whose messages begin with a channel.
    Channels(Socket, Protocol),
    /// SPDY frames.
    Spdy(Carrier, command::Protocol),
}

/// Protocols inside a WebSocket for exec and attach, the newest first. Only v5 can half-close standard input.
const PROCESS_CHANNELS: [(&str, Agreement); 5] = {
    const fn channels(encoding: Encoding, status: StatusForm, half_close: bool) -> Agreement {
        Agreement::Channels(Protocol { encoding, status, half_close })
    }
    [
        ("v5.channel.k8s.io", channels(Encoding::Binary, StatusForm::Json, true)),
        ("v4.channel.k8s.io", channels(Encoding::Binary, StatusForm::Json, false)),
        ("v4.base64.channel.k8s.io", channels(Encoding::Base64, StatusForm::Json, false)),
        ("channel.k8s.io", channels(Encoding::Binary, StatusForm::Text, false)),
        ("base64.channel.k8s.io", channels(Encoding::Base64, StatusForm::Text, false)),
    ]
};
/// The same for port-forward.
const PORT_CHANNELS: [(&str, Agreement); 3] = [
    ("SPDY/3.1+portforward.k8s.io", Agreement::Tunnel),
    ("v4.channel.k8s.io", Agreement::Channels(Protocol::PLAIN)),
    (
        "v4.base64.channel.k8s.io",
        Agreement::Channels(Protocol { encoding: Encoding::Base64, ..Protocol::PLAIN }),
    ),
];
/// What a client speaks that names no protocol of SPDY streams.
const PLAIN_STREAMS: command::Protocol = command::Protocol { status: StatusForm::Text, resize: false };
/// Protocols of SPDY streams for exec and attach. Before v4 a failure is told as plain text.
const PROCESS_STREAMS: [(&str, Agreement); 4] = {
    const fn streams(status: StatusForm, resize: bool) -> Agreement {
        Agreement::Spdy(command::Protocol { status, resize })
    }
    [
        ("v4.channel.k8s.io", streams(StatusForm::Json, true)),
        ("v3.channel.k8s.io", streams(StatusForm::Text, true)),
        ("v2.channel.k8s.io", streams(StatusForm::Text, false)),
        ("channel.k8s.io", streams(StatusForm::Text, false)),
    ]
};
/// The same for port-forward.
const PORT_STREAMS: [(&str, Agreement); 1] = [("portforward.k8s.io", Agreement::Spdy(PLAIN_STREAMS))];

/// The answer to an upgrade, with the first of our protocols that the client offers. A client that offers none gets
/// the oldest, as in Kubernetes.
///
/// # Errors
/// A sentence, where the request is no upgrade or no protocol is common.
pub(crate) fn accept(headers: &HeaderMap, kind: SessionKind) -> Result<(Response<()>, Agreement), String> {
    let upgrade = headers.get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case(SPDY) {
        return accept_spdy(headers, kind);
    }
    let key = headers.get("sec-websocket-key").map(HeaderValue::as_bytes);
    let (true, Some(key)) = (upgrade.eq_ignore_ascii_case("websocket"), key) else {
        return Err(format!("this needs an upgraded connection: ask for a WebSocket or {SPDY}"));
    };
    let ours: &[(&'static str, Agreement)] = match kind {
        SessionKind::Process => &PROCESS_CHANNELS,
        SessionKind::PortForward => &PORT_CHANNELS,
    };
    let chosen = choose(headers, &SEC_WEBSOCKET_PROTOCOL, ours)?;
    let mut response = switching("websocket");
    let to = response.headers_mut();
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|e| e.to_string())?;
    to.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let Some((name, agreement)) = chosen else {
        return Ok((response, Agreement::Channels(Protocol::PLAIN)));
    };
    to.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    Ok((response, agreement))
}

fn accept_spdy(headers: &HeaderMap, kind: SessionKind) -> Result<(Response<()>, Agreement), String> {
    let ours: &[(&'static str, Agreement)] = match kind {
        SessionKind::Process => &PROCESS_STREAMS,
        SessionKind::PortForward => &PORT_STREAMS,
    };
    let mut response = switching(SPDY);
    let Some((name, agreement)) = choose(headers, &STREAM_PROTOCOL, ours)? else {
        return Ok((response, Agreement::Spdy(PLAIN_STREAMS)));
    };
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
    Ok((response, agreement))
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

/// The first of our protocols that the client offers; `None` where it offers none at all.
fn choose(
    headers: &HeaderMap,
    header: &HeaderName,
    ours: &[(&'static str, Agreement)],
) -> Result<Option<(&'static str, Agreement)>, String> {
    let all = headers.get_all(header).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> =
        all.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect();
    if offered.is_empty() {
        return Ok(None);
    }
    let chosen = ours.iter().find(|(name, _)| offered.contains(name));
    chosen.copied().map(Some).ok_or_else(|| {
        let ours: Vec<&str> = ours.iter().map(|(name, _)| *name).collect();
        format!("none of the protocols {offered:?} is offered here; use one of {ours:?}")
    })
}

impl Client {
    /// A client whose connection has been upgraded as agreed.
    pub(crate) async fn new(upgraded: Upgraded, agreement: Agreement) -> Self {
        match agreement {
            Agreement::Channels(protocol) => Self::Channels(socket(upgraded).await, protocol),
            Agreement::Tunnel => Self::Spdy(Carrier::WebSocket(socket(upgraded).await), PLAIN_STREAMS),
            Agreement::Spdy(protocol) => Self::Spdy(Carrier::Connection(TokioIo::new(upgraded)), protocol),
        }
    }
}

/// The server's end of a WebSocket over an upgraded connection.
async fn socket(upgraded: Upgraded) -> Socket {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
        .write_buffer_size(0);
    Box::new(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await)
}

#[cfg(test)]
mod tests;

//! Streams over a WebSocket: exec and attach in Kubernetes' channel protocol, port-forward in SPDY frames.

pub(crate) mod channels;
pub(crate) mod forward;
pub(crate) mod spdy;

use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Bytes of one WebSocket message from a client. kubectl sends at most 32 KiB of data at once.
const LARGEST_MESSAGE: usize = 1 << 20;

/// A client's WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The answer to a WebSocket handshake, with the first of our protocols that the client offers.
pub(crate) fn accept(
    headers: &HeaderMap,
    ours: &[&'static str],
) -> Result<(Response<()>, &'static str), String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let key = headers.get("sec-websocket-key").map(HeaderValue::as_bytes);
    let (true, Some(key)) = (text("upgrade").eq_ignore_ascii_case("websocket"), key) else {
        return Err("this is for a WebSocket: ask for an upgrade".into());
    };
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect();
    let chosen = ours
        .iter()
        .find(|p| offered.contains(p))
        .ok_or_else(|| format!("none of the protocols {offered:?} is offered here; use one of {ours:?}"))?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let to = response.headers_mut();
    to.insert(UPGRADE, HeaderValue::from_static("websocket"));
    to.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    to.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|e| e.to_string())?;
    to.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, chosen))
}

/// The server's end of a WebSocket over an upgraded connection.
pub(crate) async fn socket(upgraded: Upgraded) -> Socket {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await
}

#[cfg(test)]
mod tests;

//! Streams with a real WebSocket client, or one that speaks SPDY, over a real HTTP server, in memory.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::forward::ForwardTarget;
use super::process::{Process, RequestedStreams, exit_status};
use super::spdy::tests::ClientEncoder;
use super::spdy::{Decoder, Encoder, Frame};
use super::*;

type WebSocket = WebSocketStream<DuplexStream>;

/// All streams but a terminal.
const ALL: RequestedStreams = RequestedStreams { stdin: true, stdout: true, stderr: true, terminal: false };

/// A connection to a server that upgrades one request and goes on with `then`.
fn server<F, W>(kind: SessionKind, then: F) -> DuplexStream
where
    F: FnOnce(Client) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let (near, far) = tokio::io::duplex(64 << 10);
    let then = std::sync::Arc::new(parking_lot::Mutex::new(Some(then)));
    tokio::spawn(async move {
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let then = then.clone();
            async move {
                let (response, agreement) = accept(request.headers(), kind).expect("a handshake");
                let upgraded = hyper::upgrade::on(&mut request);
                let then = then.lock().take().expect("one request");
                tokio::spawn(async move {
                    then(Client::new(upgraded.await.expect("upgraded"), agreement).await).await;
                });
                Ok::<_, std::convert::Infallible>(response.map(|()| Empty::<Bytes>::new()))
            }
        });
        http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades().await
    });
    near
}

/// A WebSocket client that offers `wanted`, and what was agreed on.
async fn connect<F, W>(kind: SessionKind, wanted: &str, then: F) -> (WebSocket, String)
where
    F: FnOnce(Client) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let mut request = "ws://node/".into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", wanted.parse().expect("a header"));
    let near = server(kind, then);
    let (client, response) = tokio_tungstenite::client_async(request, near).await.expect("a WebSocket");
    let protocol = response.headers()["sec-websocket-protocol"].to_str().expect("text").to_owned();
    (client, protocol)
}

/// A client of SPDY itself, and the head of the answer.
async fn connect_spdy<F, W>(kind: SessionKind, wanted: &str, then: F) -> (DuplexStream, String)
where
    F: FnOnce(Client) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let mut near = server(kind, then);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {wanted}\r\nContent-Length: 0\r\n\r\n"
    );
    near.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.expect("an answer"));
    }
    (near, String::from_utf8(head).expect("text").to_lowercase())
}

/// Says what it is told, in upper case, then `done` on its other output, and ends with 7.
async fn shout(client: Client) {
    let (stdin, mut inside) = tokio::io::duplex(16);
    let (mut output, stdout) = tokio::io::duplex(16);
    let (mut errors, stderr) = tokio::io::duplex(16);
    let process = Process {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: Box::new(|_, _| {}),
    };
    let shouting = async move {
        let mut asked = vec![0; 5];
        inside.read_exact(&mut asked).await.expect("read");
        output.write_all(&asked.to_ascii_uppercase()).await.expect("written");
        errors.write_all(b"done").await.expect("written");
    };
    tokio::join!(shouting, process::join(client, ALL, process, async { exit_status(7) }));
}

/// The status message, and what came on each output channel before it.
async fn outputs(client: &mut WebSocket) -> (Value, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match client.next().await.expect("a status before the end").expect("a message") {
            Message::Binary(bytes) => match bytes[0] {
                1 => out.extend_from_slice(&bytes[1..]),
                2 => err.extend_from_slice(&bytes[1..]),
                3 => {
                    let text = |bytes| String::from_utf8(bytes).expect("text");
                    return (serde_json::from_slice(&bytes[1..]).expect("JSON"), text(out), text(err));
                }
                other => panic!("channel {other}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_process_is_spoken_to_until_its_input_ends() {
    let (sizes, mut resized) = mpsc::unbounded_channel();
    let (mut client, protocol) =
        connect(SessionKind::Process, "v5.channel.k8s.io, v4.channel.k8s.io", |client| async move {
            // Stands for `cat; echo done >&2`, with a pipe for each stream.
            let (stdin, mut inside) = tokio::io::duplex(16);
            let (mut output, stdout) = tokio::io::duplex(16);
            let (mut errors, stderr) = tokio::io::duplex(16);
            let process = Process {
                stdin: Some(Box::new(stdin)),
                stdout: Some(Box::new(stdout)),
                stderr: Some(Box::new(stderr)),
                resize: Box::new(move |columns, rows| sizes.send((columns, rows)).expect("it is received")),
            };
            let cat = async move {
                tokio::io::copy(&mut inside, &mut output).await.expect("copied");
                errors.write_all(b"done").await.expect("written");
            };
            tokio::join!(cat, process::join(client, ALL, process, async { exit_status(7) }));
        })
        .await;
    assert_eq!(protocol, "v5.channel.k8s.io");
    let long = "x".repeat(100_000);
    client
        .send(Message::Binary(Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}")))
        .await
        .expect("sent");
    let (mut to, from) = client.split();
    let sending = async {
        for piece in long.as_bytes().chunks(1000) {
            to.send(Message::Binary([b"\0", piece].concat().into())).await.expect("sent");
        }
        to.send(Message::Binary(Bytes::from_static(b"\xff\0"))).await.expect("sent");
        to
    };
    let receiving = async {
        let (mut from, mut out, mut err, mut status) = (from, String::new(), String::new(), Value::Null);
        while let Some(Ok(Message::Binary(bytes))) = from.next().await {
            let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
            match bytes[0] {
                1 => out.push_str(&text),
                2 => err.push_str(&text),
                _ => status = serde_json::from_str(&text).expect("JSON"),
            }
        }
        (out, err, status)
    };
    let (_to, (out, err, status)) = tokio::join!(sending, receiving);
    assert_eq!(out, long);
    assert_eq!(err, "done");
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    assert_eq!(resized.recv().await, Some((80, 24)));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_process() {
    let (ended, mut was_ended) = mpsc::channel::<()>(1);
    let (client, protocol) = connect(SessionKind::Process, "v4.channel.k8s.io", |client| async move {
        let (_output, stdout) = tokio::io::duplex(16);
        let process = Process {
            stdin: None,
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: Box::new(|_, _| {}),
        };
        process::join(client, ALL, process, std::future::pending()).await;
        drop(ended);
    })
    .await;
    assert_eq!(protocol, "v4.channel.k8s.io");
    drop(client);
    assert_eq!(was_ended.recv().await, None);
}

#[tokio::test]
async fn a_failure_is_told_on_the_status_channel() {
    let (mut client, _) = connect(SessionKind::Process, "v5.channel.k8s.io", |client| async move {
        process::fail(client, ALL, "no such program".into()).await;
    })
    .await;
    let (status, out, err) = outputs(&mut client).await;
    assert_eq!((status["message"].as_str(), out.as_str(), err.as_str()), (Some("no such program"), "", ""));
}

/// Frames as they come from the server; replies are left out.
async fn frame(client: &mut WebSocket, decoder: &mut Decoder) -> Frame {
    loop {
        if let Some(frame) = decoder.next().expect("sound frames") {
            return frame;
        }
        if let Message::Binary(bytes) = client.next().await.expect("more").expect("a message") {
            decoder.feed(&bytes);
        }
    }
}

async fn open_pair(client: &mut WebSocket, encoder: &mut ClientEncoder, first: u32, port: u16) {
    let port = port.to_string();
    for (id, kind) in [(first, "error"), (first + 2, "data")] {
        let request = first.to_string();
        let headers = [("streamType", kind), ("port", &port), ("requestID", &request)];
        client.send(Message::Binary(encoder.open(id, &headers))).await.expect("sent");
    }
}

fn place() -> ForwardTarget {
    ForwardTarget { netns: None, address: [127, 0, 0, 1].into(), pod: "n/p".into() }
}

async fn forwarding() -> WebSocket {
    let protocol = "SPDY/3.1+portforward.k8s.io";
    let (client, _) =
        connect(SessionKind::PortForward, protocol, |client| forward::serve(client, place(), Vec::new()))
            .await;
    client
}

#[tokio::test]
async fn connections_are_forwarded_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut asked = String::new();
        stream.read_to_string(&mut asked).await.expect("read");
        stream.write_all(asked.to_uppercase().as_bytes()).await.expect("written");
    });
    let mut client = forwarding().await;
    let (mut encoder, mut decoder) = (ClientEncoder::new(), Decoder::new());
    open_pair(&mut client, &mut encoder, 1, port).await;
    for (bytes, fin) in [(b"hel".as_slice(), false), (b"lo", true)] {
        client.send(Message::Binary(Encoder::data(3, bytes, fin))).await.expect("sent");
    }
    let mut answer = Vec::new();
    loop {
        match frame(&mut client, &mut decoder).await {
            Frame::Data { id: 3, bytes, fin } => {
                answer.extend_from_slice(&bytes);
                if fin {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answer, b"HELLO");
    // The error stream ends without a word.
    assert_eq!(frame(&mut client, &mut decoder).await, Frame::Data { id: 1, bytes: Bytes::new(), fin: true });
    serving.await.expect("served");
    client.send(Message::Binary(Encoder::ping(&[0, 0, 0, 5]))).await.expect("sent");
    assert_eq!(
        frame(&mut client, &mut decoder).await,
        Frame::Ping { payload: Bytes::from_static(&[0, 0, 0, 5]) }
    );
}

#[tokio::test]
async fn a_refused_connection_is_told_on_the_error_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let mut client = forwarding().await;
    let (mut encoder, mut decoder) = (ClientEncoder::new(), Decoder::new());
    open_pair(&mut client, &mut encoder, 1, port).await;
    match frame(&mut client, &mut decoder).await {
        Frame::Data { id: 1, bytes, fin: true } => {
            let said = String::from_utf8_lossy(&bytes).into_owned();
            assert!(said.starts_with(&format!("error forwarding port {port} to pod n/p: ")), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

/// The port of a server for one connection, which `serve` gets.
async fn listening<W>(serve: impl FnOnce(tokio::net::TcpStream) -> W + Send + 'static) -> u16
where
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { serve(listener.accept().await.expect("a client").0).await });
    port
}

#[tokio::test]
async fn a_connection_that_the_pod_stops_reading_does_not_hold_up_the_others() {
    let (finished, until) = oneshot::channel::<()>();
    let deaf = listening(|stream| async move {
        // Closed for reading: the kernel answers further data with a reset.
        let stream = stream.into_std().expect("a socket");
        stream.shutdown(std::net::Shutdown::Read).expect("shut down");
        let _ = until.await;
    })
    .await;
    let echo = listening(|mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.expect("copied");
    })
    .await;
    let mut client = forwarding().await;
    let (mut encoder, mut decoder) = (ClientEncoder::new(), Decoder::new());
    open_pair(&mut client, &mut encoder, 1, deaf).await;
    open_pair(&mut client, &mut encoder, 5, echo).await;
    drop(finished);
    for _ in 0..40 {
        client.send(Message::Binary(Encoder::data(3, &[0; 32 << 10], false))).await.expect("sent");
    }
    client.send(Message::Binary(Encoder::data(7, b"hello", true))).await.expect("sent");
    let mut answer = Vec::new();
    loop {
        if let Frame::Data { id: 7, bytes, fin } = frame(&mut client, &mut decoder).await {
            answer.extend_from_slice(&bytes);
            if fin {
                break;
            }
        }
    }
    assert_eq!(answer, b"hello");
}

#[tokio::test]
async fn a_stream_that_the_client_resets_ends_at_the_pod() {
    let (told, mut seen) = mpsc::channel(1);
    let port = listening(|mut stream| async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        let _ = told.send(rest).await;
    })
    .await;
    let mut client = forwarding().await;
    let mut encoder = ClientEncoder::new();
    open_pair(&mut client, &mut encoder, 1, port).await;
    client.send(Message::Binary(Encoder::data(3, b"bye", false))).await.expect("sent");
    client.send(Message::Binary(Encoder::refuse(3))).await.expect("sent");
    assert_eq!(seen.recv().await.as_deref(), Some(b"bye".as_slice()));
}

/// The ends of both SPDY protocols are told apart by their frames only.
#[tokio::test]
async fn a_process_is_spoken_to_in_spdy() {
    let rows = [
        ("v5.channel.k8s.io, v4.channel.k8s.io", "v4.channel.k8s.io", "\"NonZeroExitCode\""),
        (
            "v3.channel.k8s.io",
            "v3.channel.k8s.io",
            "command terminated with non-zero exit code: exit status 7",
        ),
        ("channel.k8s.io", "channel.k8s.io", "command terminated with non-zero exit code: exit status 7"),
    ];
    for (offered, agreed, status) in rows {
        let (mut client, head) = connect_spdy(SessionKind::Process, offered, shout).await;
        assert!(head.contains("101 switching protocols") && head.contains("upgrade: spdy/3.1"), "{head}");
        assert!(head.contains(&format!("x-stream-protocol-version: {agreed}")), "{head}");
        let (mut encoder, mut decoder) = (ClientEncoder::new(), Decoder::new());
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
            client.write_all(&encoder.open(id, &[("streamType", kind)])).await.expect("sent");
        }
        client.write_all(&Encoder::data(3, b"hello and more that nobody reads", false)).await.expect("sent");
        let mut said = std::collections::BTreeMap::<u32, (Vec<u8>, bool)>::new();
        let mut buffer = vec![0; 1024];
        loop {
            let count = client.read(&mut buffer).await.expect("read");
            if count == 0 {
                break;
            }
            decoder.feed(&buffer[..count]);
            while let Some(frame) = decoder.next().expect("sound frames") {
                if let Frame::Data { id, bytes, fin } = frame {
                    let (all, ended) = said.entry(id).or_default();
                    all.extend_from_slice(&bytes);
                    *ended |= fin;
                }
            }
            // Input goes on all the while.
            let _ = client.write_all(&Encoder::data(3, b"more", false)).await;
        }
        assert_eq!(said.get(&5), Some(&(b"HELLO".to_vec(), true)));
        assert_eq!(said.get(&7), Some(&(b"done".to_vec(), true)));
        let (told, ended) = said.remove(&1).expect("a status");
        let told = String::from_utf8(told).expect("text");
        assert!(told.contains(status) && ended, "{offered}: {told}");
    }
}

#[tokio::test]
async fn a_terminal_that_ends_at_once_waits_for_its_client() {
    let wanted = RequestedStreams { stdin: true, stdout: true, stderr: false, terminal: true };
    let over = move |client| process::join(client, wanted, Process::none(), async { exit_status(0) });
    let (mut client, _) = connect_spdy(SessionKind::Process, "v4.channel.k8s.io", over).await;
    let (mut encoder, mut decoder) = (ClientEncoder::new(), Decoder::new());
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.write_all(&encoder.open(id, &[("streamType", kind)])).await.expect("sent");
    }
    // The reply to a ping follows whatever was sent before it.
    client.write_all(&Encoder::ping(&[0, 0, 0, 9])).await.expect("sent");
    let mut buffer = vec![0; 1024];
    let mut frames = Vec::new();
    while !frames.contains(&Frame::Ping { payload: Bytes::from_static(&[0, 0, 0, 9]) }) {
        let count = client.read(&mut buffer).await.expect("read");
        decoder.feed(&buffer[..count]);
        while let Some(frame) = decoder.next().expect("sound frames") {
            frames.push(frame);
        }
    }
    assert_eq!(frames.len(), 1, "{frames:?}");
    client.write_all(&encoder.open(7, &[("streamType", "resize")])).await.expect("sent");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("read");
    decoder.feed(&rest);
    while let Some(frame) = decoder.next().expect("sound frames") {
        frames.push(frame);
    }
    assert!(matches!(frames.last(), Some(Frame::Data { id: 1, fin: true, .. })), "{frames:?}");
}

#[tokio::test]
async fn a_process_is_spoken_to_in_the_older_channels() {
    let rows: [(&str, Message, &[u8], &[u8]); 4] = [
        ("channel.k8s.io", Message::Text("\0hello".into()), b"\x01HELLO", b"\x03command terminated"),
        (
            "base64.channel.k8s.io",
            Message::Text("0aGVsbG8=".into()),
            b"1SEVMTE8=",
            b"3Y29tbWFuZCB0ZXJtaW5hdGVk",
        ),
        ("v4.base64.channel.k8s.io", Message::Text("0aGVsbG8=".into()), b"1SEVMTE8=", b"3eyJtZXRhZGF0YSI6"),
        (
            "v4.channel.k8s.io",
            Message::Binary(Bytes::from_static(b"\0hello")),
            b"\x01HELLO",
            b"\x03{\"metadata\"",
        ),
    ];
    for (protocol, input, output, status) in rows {
        let (mut client, agreed) = connect(SessionKind::Process, protocol, shout).await;
        assert_eq!(agreed, protocol);
        client.send(input).await.expect("sent");
        let mut messages = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            if message.is_close() {
                break;
            }
            messages.push(message.into_data());
        }
        assert!(messages.iter().any(|m| m == output), "{protocol}: {messages:?}");
        assert!(messages.last().is_some_and(|m| m.starts_with(status)), "{protocol}: {messages:?}");
    }
}

#[tokio::test]
async fn ports_are_forwarded_in_channels() {
    let port = listening(|mut stream| async move {
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).await.expect("read");
        stream.write_all(&asked.to_ascii_uppercase()).await.expect("written");
    })
    .await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let ports = vec![port, closed];
    let (mut client, _) = connect(SessionKind::PortForward, "v4.channel.k8s.io", move |client| {
        forward::serve(client, place(), ports)
    })
    .await;
    client.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.expect("sent");
    let mut said = std::collections::BTreeMap::<u8, Vec<u8>>::new();
    while let Some(Ok(Message::Binary(bytes))) = client.next().await {
        said.entry(bytes[0]).or_default().extend_from_slice(&bytes[1..]);
    }
    let begins = |port: u16, rest: &str| [&port.to_le_bytes()[..], rest.as_bytes()].concat();
    assert_eq!(said.remove(&0), Some(begins(port, "HELLO")));
    assert_eq!(said.remove(&1), Some(begins(port, "")));
    assert_eq!(said.remove(&2), Some(begins(closed, "")));
    let failure = said.remove(&3).expect("an error");
    let expect = begins(closed, &format!("error forwarding port {closed} to pod n/p: "));
    assert!(failure.starts_with(&expect), "{}", String::from_utf8_lossy(&failure));
}

#[test]
fn protocols_are_agreed_on() {
    let check = |kind: SessionKind,
                 headers: &[(&'static str, &'static str)],
                 expect: Result<(Option<&str>, Agreement), &str>| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let found = accept(&map, kind).map(|(response, agreement)| {
            let named = [SEC_WEBSOCKET_PROTOCOL, STREAM_PROTOCOL]
                .iter()
                .find_map(|n| response.headers().get(n).cloned());
            (named.map(|v| v.to_str().expect("text").to_owned()), agreement)
        });
        let expect = expect.map(|(name, agreement)| (name.map(str::to_owned), agreement));
        assert_eq!(found, expect.map_err(str::to_owned), "{headers:?}");
    };
    let (ws, key) = (("upgrade", "WebSocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
    let spdy = ("upgrade", "SPDY/3.1");
    let plain = Agreement::Channels(channels::Protocol::PLAIN);
    check(SessionKind::Process, &[ws, key], Ok((None, plain)));
    check(
        SessionKind::Process,
        &[
            ws,
            key,
            ("sec-websocket-protocol", "base64.channel.k8s.io"),
            ("sec-websocket-protocol", "x, channel.k8s.io"),
        ],
        Ok((Some("channel.k8s.io"), plain)),
    );
    check(
        SessionKind::PortForward,
        &[ws, key, ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")],
        Ok((Some("SPDY/3.1+portforward.k8s.io"), Agreement::Tunnel)),
    );
    check(SessionKind::Process, &[spdy], Ok((None, Agreement::Spdy(PLAIN_STREAMS))));
    check(
        SessionKind::PortForward,
        &[spdy, ("x-stream-protocol-version", "portforward.k8s.io")],
        Ok((Some("portforward.k8s.io"), Agreement::Spdy(PLAIN_STREAMS))),
    );
    check(
        SessionKind::Process,
        &[spdy, ("x-stream-protocol-version", "v9.channel.k8s.io")],
        Err(
            "none of the protocols [\"v9.channel.k8s.io\"] is offered here; use one of [\"v4.channel.k8s.io\", \
             \"v3.channel.k8s.io\", \"v2.channel.k8s.io\", \"channel.k8s.io\"]",
        ),
    );
    check(
        SessionKind::Process,
        &[ws],
        Err("this needs an upgraded connection: ask for a WebSocket or SPDY/3.1"),
    );
    check(
        SessionKind::Process,
        &[],
        Err("this needs an upgraded connection: ask for a WebSocket or SPDY/3.1"),
    );
}

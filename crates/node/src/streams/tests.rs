//! Streams with a real WebSocket client over a real HTTP server, in memory.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::channels::{Process, exit_status};
use super::forward::Place;
use super::spdy::tests::ClientEncoder;
use super::spdy::{Decoder, Encoder, Frame};
use super::*;

type Client = WebSocketStream<DuplexStream>;

/// A client joined with what `then` does on the server's side.
async fn connect<F, W>(ours: &'static [&'static str], wanted: &str, then: F) -> (Client, String)
where
    F: FnOnce(Socket) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let (near, far) = tokio::io::duplex(64 << 10);
    let then = std::sync::Arc::new(parking_lot::Mutex::new(Some(then)));
    tokio::spawn(async move {
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let then = then.clone();
            async move {
                let (response, _) = accept(request.headers(), ours).expect("a handshake");
                let upgraded = hyper::upgrade::on(&mut request);
                let then = then.lock().take().expect("one request");
                tokio::spawn(async move { then(socket(upgraded.await.expect("upgraded")).await).await });
                Ok::<_, std::convert::Infallible>(response.map(|()| Empty::<Bytes>::new()))
            }
        });
        http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades().await
    });
    let mut request = "ws://node/".into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", wanted.parse().expect("a header"));
    let (client, response) = tokio_tungstenite::client_async(request, near).await.expect("a WebSocket");
    let protocol = response.headers()["sec-websocket-protocol"].to_str().expect("text").to_owned();
    (client, protocol)
}

/// The status message, and what came on each output channel before it.
async fn outputs(client: &mut Client) -> (Value, String, String) {
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
        connect(channels::PROTOCOLS, "v5.channel.k8s.io, v4.channel.k8s.io", |socket| async move {
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
            tokio::join!(cat, channels::join(socket, process, async { exit_status(7) }));
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
    let (client, protocol) = connect(channels::PROTOCOLS, "v4.channel.k8s.io", |socket| async move {
        let (_output, stdout) = tokio::io::duplex(16);
        let process = Process {
            stdin: None,
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: Box::new(|_, _| {}),
        };
        channels::join(socket, process, std::future::pending()).await;
        drop(ended);
    })
    .await;
    assert_eq!(protocol, "v4.channel.k8s.io");
    drop(client);
    assert_eq!(was_ended.recv().await, None);
}

#[tokio::test]
async fn a_failure_is_told_on_the_status_channel() {
    let (mut client, _) = connect(channels::PROTOCOLS, "v5.channel.k8s.io", |socket| async move {
        channels::fail(socket, "no such program".into()).await;
    })
    .await;
    let (status, out, err) = outputs(&mut client).await;
    assert_eq!((status["message"].as_str(), out.as_str(), err.as_str()), (Some("no such program"), "", ""));
}

/// Frames as they come from the server; replies are left out.
async fn frame(client: &mut Client, decoder: &mut Decoder) -> Frame {
    loop {
        if let Some(frame) = decoder.next().expect("sound frames") {
            return frame;
        }
        if let Message::Binary(bytes) = client.next().await.expect("more").expect("a message") {
            decoder.feed(&bytes);
        }
    }
}

async fn open_pair(client: &mut Client, encoder: &mut ClientEncoder, first: u32, port: u16) {
    let port = port.to_string();
    for (id, kind) in [(first, "error"), (first + 2, "data")] {
        let request = first.to_string();
        let headers = [("streamType", kind), ("port", &port), ("requestID", &request)];
        client.send(Message::Binary(encoder.open(id, &headers))).await.expect("sent");
    }
}

async fn forwarding() -> Client {
    let (client, _) = connect(forward::PROTOCOLS, forward::PROTOCOLS[0], |socket| {
        let place = Place { netns: None, address: [127, 0, 0, 1].into(), pod: "n/p".into() };
        forward::serve(socket, place)
    })
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

//! Clients that speak HTTP/2 by prior knowledge.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use yado_reconcile::Tasks;

use super::{App, Stage, scripted, soon};

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

async fn connect(stage: &Stage) -> SendRequest<Body> {
    let stream = TcpStream::connect(stage.address).await.expect("to connect");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    stage.tasks.spawn("client", async move {
        let _ = connection.await;
    });
    sender
}

async fn ask(sender: &mut SendRequest<Body>, request: Request<Body>) -> Response<Incoming> {
    soon(sender.send_request(request)).await.expect("an answer")
}

fn post(uri: &str, frames: Vec<Frame<Bytes>>) -> Request<Body> {
    let frames = futures::stream::iter(frames.into_iter().map(Ok));
    Request::post(uri).body(StreamBody::new(frames).boxed()).expect("a request")
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("a body").to_bytes().to_vec())
        .expect("text")
}

#[tokio::test]
async fn http_2_is_served_by_prior_knowledge() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    let mut client = connect(&stage).await;
    let mut request = Request::get("http://a.test/x?y=1").body(Full::default().boxed()).expect("a request");
    request.headers_mut().insert("x-forwarded-for", "1.2.3.4".parse().expect("a value"));
    let answer = ask(&mut client, request).await;
    assert_eq!(
        text(answer).await,
        "app: GET /x?y=1\nhost: a.test\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.test\n\
         x-forwarded-proto: http\nx-real-ip: 127.0.0.1\n"
    );
    // Many at once on one connection, each with its own body.
    let bodies = (0..50).map(|i| {
        let mut client = client.clone();
        async move {
            let body = format!("{i}-").repeat(5000);
            let answer =
                ask(&mut client, post("http://a.test/echo", vec![Frame::data(body.clone().into())])).await;
            assert!(text(answer).await == body);
        }
    });
    futures::future::join_all(bodies).await;
    let missing = Request::get("http://b.test/").body(Full::default().boxed()).expect("a request");
    assert_eq!(ask(&mut client, missing).await.status(), StatusCode::NOT_FOUND);
    let healthy = Request::get("http://b.test/healthz").body(Full::default().boxed()).expect("a request");
    assert_eq!(ask(&mut client, healthy).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn trailers_pass_between_http_2_and_http_1() {
    let (app, tasks) = (App::new("app").await, Tasks::new());
    let answer = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nhi\n0\ngrpc-status: 0\nHost: evil\n\n";
    let (trailing, _) = scripted(&tasks, answer).await;
    let stage = Stage::with(&[("a.test", "/", &[app.address]), ("b.test", "/", &[trailing])]).await;
    let mut client = connect(&stage).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().expect("a value"));
    let frames = vec![Frame::data("ab".into()), Frame::trailers(trailers)];
    assert_eq!(text(ask(&mut client, post("http://a.test/name", frames)).await).await, "app");
    let get = Request::get("http://b.test/").body(Full::default().boxed()).expect("a request");
    let answer = ask(&mut client, get).await.into_body().collect().await.expect("a body");
    let trailers = answer.trailers().expect("trailers");
    assert_eq!((trailers.len(), trailers["grpc-status"].as_bytes()), (1, &b"0"[..]));
    assert_eq!(answer.to_bytes(), "hi");
}

#[tokio::test]
async fn a_client_may_begin_in_small_pieces() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let mut stream = TcpStream::connect(stage.address).await.expect("to connect");
    stream.set_nodelay(true).expect("an option");
    for byte in begin {
        stream.write_all(&[byte]).await.expect("to write");
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    soon(stream.read_exact(&mut frame)).await.expect("a frame");
    assert_eq!(frame[3], 4, "SETTINGS");
    // What only begins like it is a request of HTTP/1.
    let mut client = stage.client().await;
    client.send("P").await;
    client.send("UT /name HTTP/1.1\nHost: a.test\nContent-Length: 0\n\n").await;
    assert_eq!(client.answer().await, (200, "app".into()));
}

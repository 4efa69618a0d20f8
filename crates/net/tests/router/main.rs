//! The ingress router over loopback: raw clients, real HTTP servers behind it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use expect_test::{Expect, expect};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use yado_net::index::{Endpoint, PortEntry, Protocol, ServiceEntry, Snapshot};
use yado_net::router::{Options, Router, bind};
use yado_reconcile::{ManualClock, Tasks};
use yado_types::key::ObjectKey;

mod clients;
mod http2;
mod wire;

/// A router with routes of the test's own. Its clock stands still unless it is moved.
struct Stage {
    address: SocketAddr,
    snapshots: watch::Sender<Arc<Snapshot>>,
    applied: watch::Receiver<u64>,
    clock: ManualClock,
    tasks: Tasks,
}

/// Host, path and the endpoints behind them.
type Route<'a> = (&'a str, &'a str, &'a [SocketAddr]);

impl Stage {
    async fn new(options: Options) -> Self {
        let tasks = Tasks::new();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let (snapshots, seen) = watch::channel(Arc::default());
        let (acknowledge, applied) = watch::channel(0);
        let listeners = bind(&["127.0.0.1:0".parse().expect("an address")]).await.expect("a port");
        let address = listeners[0].local_addr().expect("an address");
        Router::start(listeners, options, seen, acknowledge, Arc::new(clock.clone()), &tasks);
        Self { address, snapshots, applied, clock, tasks }
    }

    async fn with(routes: &[Route<'_>]) -> Self {
        Self::with_options(routes, Options::default()).await
    }

    async fn with_options(routes: &[Route<'_>], options: Options) -> Self {
        let mut stage = Self::new(options).await;
        stage.route(routes).await;
        stage
    }

    /// Changes the routes without waiting.
    fn change(&self, routes: &[Route<'_>]) -> u64 {
        let mut snapshot =
            Snapshot { generation: self.snapshots.borrow().generation + 1, ..Default::default() };
        for (i, (host, path, endpoints)) in routes.iter().enumerate() {
            let name = format!("app-{i}");
            let endpoints = endpoints.iter();
            let endpoints =
                endpoints.map(|e| Endpoint { address: e.ip(), port: e.port(), hostname: None }).collect();
            let port = PortEntry {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
                endpoints,
            };
            let service = ServiceEntry { ports: vec![port], ..Default::default() };
            snapshot.services.insert(ObjectKey::new("n", &name), Arc::new(service));
            let backend = json!({"service": {"name": name, "port": {"number": 80}}});
            let path = json!({"path": path, "pathType": "Prefix", "backend": backend});
            let mut rule = json!({"http": {"paths": [path]}});
            if !host.is_empty() {
                rule["host"] = json!(host);
            }
            let ingress = json!({"metadata": {"namespace": "n", "name": name}, "spec": {"rules": [rule]}});
            let ingress = serde_json::from_value(ingress).expect("an Ingress");
            snapshot.ingresses.insert(ObjectKey::new("n", &name), Arc::new(ingress));
        }
        let generation = snapshot.generation;
        self.snapshots.send_replace(Arc::new(snapshot));
        generation
    }

    /// Changes the routes and waits until the router has them.
    async fn route(&mut self, routes: &[Route<'_>]) {
        let generation = self.change(routes);
        self.acknowledged(generation).await;
    }

    async fn acknowledged(&mut self, generation: u64) {
        soon(self.applied.wait_for(|g| *g >= generation)).await.expect("the router");
    }

    /// What comes back until the connection's end, without dates. Lines of `request` end with CR LF.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("to connect");
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.expect("to write");
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.expect("an answer");
        let text = String::from_utf8(answer).expect("text").replace("\r\n", "\n");
        text.lines().filter(|l| !l.starts_with("date:")).map(|l| format!("{l}\n")).collect()
    }

    async fn check(&self, request: &str, expect: Expect) {
        expect.assert_eq(&self.raw(request).await);
    }

    /// A connection that stays.
    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("to connect");
        Client { stream: BufReader::new(stream) }
    }
}

/// A test that waits for ever says nothing.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future).await.expect("something to happen")
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.replace('\n', "\r\n").as_bytes()).await.expect("to write");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon(self.stream.read_line(&mut line)).await.expect("a line");
        line.trim_end().to_owned()
    }

    /// The status line, and the length of the body where it is told.
    async fn head(&mut self) -> (String, usize) {
        let status = self.line().await;
        let mut length = 0;
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return (status, length);
            }
            if let Some(told) = line.strip_prefix("content-length: ") {
                length = told.parse().expect("a length");
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> String {
        let mut body = vec![0; length];
        soon(self.stream.read_exact(&mut body)).await.expect("a body");
        String::from_utf8(body).expect("text")
    }

    /// A whole answer: its code and its body.
    async fn answer(&mut self) -> (u16, String) {
        let (status, length) = self.head().await;
        let code = status.split(' ').nth(1).and_then(|c| c.parse().ok());
        (code.unwrap_or_else(|| panic!("no answer but {status:?}")), self.exactly(length).await)
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\nHost: a.test\n\n")).await;
        self.answer().await
    }
}

/// An HTTP server. It tells what it was asked; `/gate` waits to be let through, `/echo` streams the body back,
/// `/parts` counts the parts of a body as they come, and `/name` tells its name only.
struct App {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    /// A permit for each request that has come to `/gate`, and for each part that has come to `/parts`.
    arrived: Arc<Semaphore>,
    /// A permit for each request that may leave it.
    open: Arc<Semaphore>,
    tasks: Tasks,
}

impl App {
    async fn new(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let app = Self {
            address: listener.local_addr().expect("an address"),
            asked: Arc::default(),
            arrived: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
            tasks: Tasks::new(),
        };
        let (asked, arrived, open) = (app.asked.clone(), app.arrived.clone(), app.open.clone());
        let tasks = app.tasks.clone();
        app.tasks.spawn("app", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, arrived, open) = (asked.clone(), arrived.clone(), open.clone());
                let service = service_fn(move |request| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    reply(name, request, arrived.clone(), open.clone())
                });
                tasks.spawn("connection", async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        app
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn arrived(&self) {
        soon(self.arrived.acquire()).await.expect("a request").forget();
    }

    /// Ends at once, with every connection.
    async fn stop(self) {
        self.tasks.shutdown(Duration::from_secs(60)).await;
    }
}

async fn reply(
    name: &str,
    request: Request<Incoming>,
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
) -> Result<Response<Either<Incoming, Full<Bytes>>>, Infallible> {
    let text = match request.uri().path() {
        "/echo" => return Ok(Response::new(Either::Left(request.into_body()))),
        "/gate" => {
            arrived.add_permits(1);
            open.acquire().await.expect("to be let through").forget();
            name.to_owned()
        }
        "/name" => name.to_owned(),
        "/parts" => {
            let mut body = request.into_body();
            while body.frame().await.is_some() {
                arrived.add_permits(1);
            }
            name.to_owned()
        }
        _ => {
            let (parts, body) = request.into_parts();
            let mut told = format!("{name}: {} {}\n", parts.method, parts.uri);
            let mut headers: Vec<_> =
                parts.headers.iter().map(|(n, v)| format!("{n}: {}\n", v.to_str().expect("text"))).collect();
            headers.retain(|h| !h.starts_with("x-forwarded-port"));
            headers.sort();
            told.extend(headers);
            told += match body.collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                Err(_) => "the body broke off".to_owned(),
            }
            .as_str();
            told
        }
    };
    let mut response = Response::new(Either::Right(Full::from(text)));
    response.headers_mut().insert("keep-alive", "timeout=5".parse().expect("a value"));
    Ok(response)
}

/// A server that reads one request's head from each connection, writes `answer` and closes. Counts what it was asked.
async fn scripted(tasks: &Tasks, answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    tasks.spawn("scripted app", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
                    break;
                }
            }
            if !line.is_empty() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer.replace('\n', "\r\n").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (address, asked)
}

/// An address that refuses connections for as long as the socket is kept.
fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    (socket.local_addr().expect("an address"), socket)
}

#[tokio::test]
async fn requests_reach_the_app_of_their_host_and_path() {
    let (web, api) = (App::new("web").await, App::new("api").await);
    let routes: &[Route] = &[("a.test", "/", &[web.address]), ("a.test", "/api", &[api.address])];
    let stage = Stage::with(routes).await;
    stage
        .check(
            "GET /x?y=1 HTTP/1.1\nHost: A.test:80\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\n\
             Connection: close, X-Hop\nX-Hop: 1\nTE: trailers\nProxy-Authorization: secret\n\n",
            expect![[r#"
                HTTP/1.1 200 OK
                content-length: 132
                connection: close

                web: GET /x?y=1
                host: A.test:80
                x-forwarded-for: 127.0.0.1
                x-forwarded-host: A.test:80
                x-forwarded-proto: http
                x-real-ip: 127.0.0.1
            "#]],
        )
        .await;
    stage
        .check(
            "PUT http://a.test/api/v1 HTTP/1.1\nHost: a.test\nContent-Length: 5\nConnection: close\n\nhello",
            expect![[r#"
                HTTP/1.1 200 OK
                content-length: 150
                connection: close

                api: PUT /api/v1
                content-length: 5
                host: a.test
                x-forwarded-for: 127.0.0.1
                x-forwarded-host: a.test
                x-forwarded-proto: http
                x-real-ip: 127.0.0.1
                hello
            "#]],
        )
        .await;
    stage
        .check(
            "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\nConnection: close\n\n\
             5\nhello\n6\n world\n0\n\n",
            expect![[r#"
                HTTP/1.1 200 OK
                content-length: 160
                connection: close

                web: POST /
                host: a.test
                transfer-encoding: chunked
                x-forwarded-for: 127.0.0.1
                x-forwarded-host: a.test
                x-forwarded-proto: http
                x-real-ip: 127.0.0.1
                hello world
            "#]],
        )
        .await;
    stage
        .check(
            "HEAD / HTTP/1.1\nHost: a.test\nConnection: close\n\n",
            expect![[r#"
        HTTP/1.1 200 OK
        content-length: 122
        connection: close

    "#]],
        )
        .await;
}

#[tokio::test]
async fn http_1_0_is_served_with_a_host_and_without_one() {
    let web = App::new("web").await;
    let stage = Stage::with(&[("a.test", "/", &[web.address]), ("", "/any", &[web.address])]).await;
    stage
        .check(
            "GET / HTTP/1.0\nHost: a.test\n\n",
            expect![[r#"
        HTTP/1.0 200 OK
        content-length: 121

        web: GET /
        host: a.test
        x-forwarded-for: 127.0.0.1
        x-forwarded-host: a.test
        x-forwarded-proto: http
        x-real-ip: 127.0.0.1
    "#]],
        )
        .await;
    stage
        .check(
            "GET /any HTTP/1.0\n\n",
            expect![[r#"
                HTTP/1.0 200 OK
                content-length: 93

                web: GET /any
                host: 
                x-forwarded-for: 127.0.0.1
                x-forwarded-proto: http
                x-real-ip: 127.0.0.1
            "#]],
        )
        .await;
    stage
        .check(
            "POST /echo HTTP/1.0\nHost: a.test\nContent-Length: 2\n\nhi",
            expect![[r#"
        HTTP/1.0 200 OK
        content-length: 2

        hi
    "#]],
        )
        .await;
}

#[tokio::test]
async fn what_has_no_route_is_answered_as_the_default_backend_does() {
    let stage = Stage::with(&[("a.test", "/", &[])]).await;
    stage
        .check(
            "GET / HTTP/1.1\nHost: b.test\nConnection: close\n\n",
            expect![[r#"
        HTTP/1.1 404 Not Found
        content-type: text/plain; charset=utf-8
        connection: close
        content-length: 22

        default backend - 404
    "#]],
        )
        .await;
    stage
        .check(
            "GET /healthz HTTP/1.1\nHost: b.test\nConnection: close\n\n",
            expect![[r#"
        HTTP/1.1 200 OK
        content-type: text/plain; charset=utf-8
        connection: close
        content-length: 3

        ok
    "#]],
        )
        .await;
}

#[tokio::test]
async fn what_has_two_readings_is_refused_or_read_in_one_way() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    let long = format!("GET / HTTP/1.1\nHost: a.test\nX: {}\n\n", "x".repeat(400 << 10));
    let many = format!("GET / HTTP/1.1\nHost: a.test\n{}\n", "X: y\n".repeat(200));
    for (what, request, expect) in [
        ("two Hosts", "GET / HTTP/1.1\nHost: a.test\nHost: b.test\n\n", "400"),
        ("the same Host twice", "GET / HTTP/1.1\nHost: a.test\nHost: a.test\n\n", "400"),
        ("no Host", "GET / HTTP/1.1\n\n", "400"),
        ("another Host in the request line", "GET http://b.test/ HTTP/1.1\nHost: a.test\n\n", "400"),
        ("credentials in the Host", "GET / HTTP/1.1\nHost: x@a.test\n\n", "400"),
        ("a path in the Host", "GET / HTTP/1.1\nHost: a.test/b\n\n", "400"),
        ("a tunnel", "CONNECT a.test:80 HTTP/1.1\nHost: a.test:80\n\n", "405"),
        ("a folded header", "GET / HTTP/1.1\nHost: a.test\nX: 1\n 2\n\n", "400"),
        ("a space before the colon", "GET / HTTP/1.1\nHost: a.test\nContent-Length : 4\n\nGET ", "400"),
        ("two lengths", "POST / HTTP/1.1\nHost: a.test\nContent-Length: 1\nContent-Length: 2\n\nab", "400"),
        ("a signed length", "POST / HTTP/1.1\nHost: a.test\nContent-Length: +1\n\na", "400"),
        ("an unknown encoding", "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: xchunked\n\n0\n\n", "400"),
        (
            "chunks inside",
            "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked, identity\n\n0\n\n",
            "400",
        ),
        ("chunks in HTTP/1.0", "POST / HTTP/1.0\nHost: a.test\nTransfer-Encoding: chunked\n\n0\n\n", "400"),
        ("no HTTP", "hello\n\n", "400"),
        ("long headers", &long, "431"),
        ("many headers", &many, "431"),
    ] {
        let answer = stage.raw(request).await;
        assert_eq!(answer.split(' ').nth(1), Some(expect), "{what}: {answer}");
    }
    assert_eq!(app.asked(), 0, "nothing of these reaches an app");
    // With both a length and chunks the chunks count (RFC 9112 section 6.3): the length goes no further, and what
    // follows on the connection is not read.
    for request in [
        "POST /1 HTTP/1.1\nHost: a.test\nContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\nGET /2 HTTP/1.1\n\
         Host: a.test\n\n",
        "POST /1 HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\nContent-Length: 4\n\n0\n\nGET /2 HTTP/1.1\n\
         Host: a.test\n\n",
    ] {
        let before = app.asked();
        let answer = stage.raw(request).await;
        assert!(answer.contains("app: POST /1\n") && !answer.contains("content-length: 4"), "{answer}");
        assert_eq!(app.asked() - before, 1, "{answer}");
    }
    // A body that breaks is passed on as broken, not as ended.
    let answer =
        stage.raw("POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\n\n3\nabc\nzz\n\n").await;
    assert!(!answer.contains("200 OK") || answer.contains("the body broke off"), "{answer}");
    // One that may ask for HTTP/2 over the connection is answered as if it had not.
    let tunnel = "GET / HTTP/1.1\nHost: a.test\nConnection: Upgrade, HTTP2-Settings, close\nUpgrade: h2c\n\
                  HTTP2-Settings: x\n\n";
    let answer = stage.raw(tunnel).await;
    assert!(
        answer.contains("200 OK") && !answer.contains("upgrade") && !answer.contains("http2"),
        "{answer}"
    );
}

#[tokio::test]
async fn bodies_stream_both_ways_and_connections_are_kept() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    let mut client = stage.client().await;
    client.send("POST /echo HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\n\n5\nfirst\n").await;
    assert_eq!(client.head().await.0, "HTTP/1.1 200 OK");
    // Each part arrives before the next is sent.
    assert_eq!((client.line().await, client.line().await), ("5".into(), "first".into()));
    client.send("6\nsecond\n").await;
    assert_eq!((client.line().await, client.line().await), ("6".into(), "second".into()));
    client.send("0\n\n").await;
    assert_eq!((client.line().await, client.line().await), ("0".into(), String::new()));
    // The same connection serves the next requests, also when they come at once.
    assert_eq!(client.get("/name").await, (200, "app".into()));
    client.send("GET /name HTTP/1.1\nHost: a.test\n\nGET /name HTTP/1.1\nHost: a.test\n\n").await;
    assert_eq!(client.answer().await, (200, "app".into()));
    assert_eq!(client.answer().await, (200, "app".into()));
    // A large body, larger than any buffer on the way.
    let large = "x".repeat(3 << 20);
    client.send(&format!("POST /echo HTTP/1.1\nHost: a.test\nContent-Length: {}\n\n", large.len())).await;
    let Client { stream } = client;
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = BufReader::new(read);
    let (sent, received) = tokio::join!(write.write_all(large.as_bytes()), async {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).await.expect("a line");
        }
        let mut body = vec![0; large.len()];
        soon(reader.read_exact(&mut body)).await.expect("the body");
        body
    });
    sent.expect("to write");
    assert!(received == large.as_bytes());
}

#[tokio::test]
async fn an_app_that_answers_early_keeps_its_other_clients() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    // It answers although this client's body has not come, and never does.
    let mut slow = stage.client().await;
    slow.send("POST /name HTTP/1.1\nHost: a.test\nContent-Length: 1000000\n\nx").await;
    assert_eq!(slow.answer().await, (200, "app".into()));
    let mut other = stage.client().await;
    for _ in 0..10 {
        assert_eq!(other.get("/name").await, (200, "app".into()));
    }
}

#[tokio::test]
async fn an_app_that_speaks_http_1_0_is_served_as_http_1_1() {
    let tasks = Tasks::new();
    let (app, _) = scripted(&tasks, "HTTP/1.0 200 OK\nContent-Type: text/plain\n\nhello").await;
    let stage = Stage::with(&[("a.test", "/", &[app])]).await;
    let mut client = stage.client().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\nHost: a.test\n\n").await;
        assert_eq!(client.head().await.0, "HTTP/1.1 200 OK");
        assert_eq!((client.line().await, client.line().await), ("5".into(), "hello".into()));
        assert_eq!((client.line().await, client.line().await), ("0".into(), String::new()));
    }
}

#[tokio::test]
async fn changed_protocols_are_tunnelled() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn("app", async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(stream);
        let (mut line, mut head) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.expect("a line");
            head += &line;
        }
        assert!(
            head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
            "{head}"
        );
        // The first bytes of the new protocol come along with the answer.
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome\n";
        stream.write_all(answer.as_bytes()).await.expect("to answer");
        let mut lines = stream;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).await.expect("a line") == 0 {
                lines.write_all(b"bye\n").await.expect("a farewell");
                return;
            }
            lines.write_all(line.to_uppercase().as_bytes()).await.expect("to echo");
        }
    });
    let stage = Stage::with(&[("a.test", "/", &[address])]).await;
    let mut client = stage.client().await;
    client
        .send("GET / HTTP/1.1\nHost: a.test\nConnection: keep-alive, Upgrade\nUpgrade: websocket\n\nhello\n")
        .await;
    assert_eq!(client.head().await.0, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(client.line().await, "welcome");
    assert_eq!(client.line().await, "HELLO");
    client.send("again\n").await;
    assert_eq!(client.line().await, "AGAIN");
    // Each side ends by itself: what the other still has to say arrives.
    client.stream.shutdown().await.expect("to end");
    assert_eq!(client.line().await, "bye");
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn a_protocol_is_changed_only_when_both_want_it() {
    let (app, tasks) = (App::new("app").await, Tasks::new());
    let (eager, _) = scripted(&tasks, "HTTP/1.1 101 Switching Protocols\nUpgrade: x\n\n").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address]), ("b.test", "/", &[eager])]).await;
    let mut client = stage.client().await;
    client.send("GET /name HTTP/1.1\nHost: a.test\nConnection: Upgrade\nUpgrade: websocket\n\n").await;
    assert_eq!(client.answer().await, (200, "app".into()));
    assert_eq!(client.get("/name").await, (200, "app".into()));
    stage
        .check(
            "GET / HTTP/1.1\nHost: b.test\n\n",
            expect![[r#"
        HTTP/1.1 502 Bad Gateway
        content-type: text/plain; charset=utf-8
        connection: close
        content-length: 37

        the app changed the protocol unasked
    "#]],
        )
        .await;
}

#[tokio::test]
async fn failures_are_sentences() {
    let tasks = Tasks::new();
    let (refused, _socket) = refusing();
    let (closing, _) = scripted(&tasks, "").await;
    let (garbled, _) = scripted(&tasks, "SSH-2.0-OpenSSH\n").await;
    let waiting = App::new("waiting").await;
    let stage = Stage::with(&[
        ("none.test", "/", &[]),
        ("refused.test", "/", &[refused]),
        ("closing.test", "/", &[closing]),
        ("garbled.test", "/", &[garbled]),
        ("waiting.test", "/", &[waiting.address]),
    ])
    .await;
    for (host, expect) in [
        ("none.test", "503 Service Unavailable: the app has no endpoint that is ready"),
        ("refused.test", "502 Bad Gateway: no endpoint of the app accepts connections"),
        ("closing.test", "502 Bad Gateway: the app closed the connection without an answer"),
        ("garbled.test", "502 Bad Gateway: the app's response is not valid HTTP/1.1"),
    ] {
        let answer = stage.raw(&format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
        let (head, sentence) = answer.split_once("\n\n").expect("a head and a body");
        let status = head.lines().next().and_then(|l| l.strip_prefix("HTTP/1.1 ")).unwrap_or_default();
        assert_eq!(format!("{status}: {}", sentence.trim()), expect);
    }
    let asking = stage.raw("GET /gate HTTP/1.1\nHost: waiting.test\n\n");
    let (answer, ()) = tokio::join!(asking, async {
        waiting.arrived().await;
        stage.clock.advance(Duration::from_secs(121));
    });
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.ends_with("\n\nthe app did not answer in time\n"), "{answer}");
}

#[tokio::test]
async fn a_long_upload_is_not_a_late_answer() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    let mut client = stage.client().await;
    client.send("POST /parts HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\n\n").await;
    for _ in 0..3 {
        client.send("1\nx\n").await;
        app.arrived().await;
        stage.clock.advance(Duration::from_secs(121));
    }
    client.send("0\n\n").await;
    assert_eq!(client.answer().await, (200, "app".into()));
}

#[tokio::test]
async fn requests_go_to_the_next_endpoint_where_that_is_safe() {
    let (app, tasks) = (App::new("app").await, Tasks::new());
    let (refused, _socket) = refusing();
    let (closing, asked) = scripted(&tasks, "").await;
    let stage =
        Stage::with(&[("a.test", "/", &[refused, app.address]), ("b.test", "/", &[closing, app.address])])
            .await;
    // Nothing was sent to what refused, so anything may be sent again.
    for method in ["GET", "POST", "DELETE"].iter().cycle().take(12) {
        let body =
            format!("{method} /name HTTP/1.1\nHost: a.test\nContent-Length: 1\nConnection: close\n\nx");
        assert!(stage.raw(&body).await.starts_with("HTTP/1.1 200 OK"));
    }
    // What may have been received is sent again only if it changes nothing.
    for _ in 0..8 {
        let answer = stage.raw("GET /name HTTP/1.1\nHost: b.test\nConnection: close\n\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    assert!(asked.load(Ordering::SeqCst) > 0);
    let (closed_before, served_before) = (asked.load(Ordering::SeqCst), app.asked());
    let mut codes = Vec::new();
    for _ in 0..8 {
        let answer =
            stage.raw("POST /name HTTP/1.1\nHost: b.test\nContent-Length: 1\nConnection: close\n\nx").await;
        codes.push(answer[9..12].to_owned());
    }
    codes.sort();
    assert_eq!(codes, ["200", "200", "200", "200", "502", "502", "502", "502"]);
    assert_eq!((asked.load(Ordering::SeqCst) - closed_before, app.asked() - served_before), (4, 4));
}

#[tokio::test]
async fn idle_connections_that_the_app_closed_cost_no_request() {
    let tasks = Tasks::new();
    let (app, asked) = scripted(&tasks, "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi").await;
    let stage = Stage::with(&[("a.test", "/", &[app])]).await;
    let mut client = stage.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await, (200, "hi".into()));
    }
    assert!(asked.load(Ordering::SeqCst) >= 50);
}

#[tokio::test]
async fn a_connection_that_the_app_closes_as_a_request_comes_costs_no_request() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn("app", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            assert!(stream.read(&mut buffer).await.expect("a request") > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.expect("to answer");
            // The next request is taken and not answered.
            let _ = stream.read(&mut buffer).await;
        }
    });
    let stage = Stage::with(&[("a.test", "/", &[address])]).await;
    let mut client = stage.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await, (200, "hi".into()));
    }
}

#[tokio::test]
async fn a_leaving_endpoint_finishes_its_requests_and_gets_no_new_ones() {
    let (old, new) = (App::new("old").await, App::new("new").await);
    let mut stage = Stage::with(&[("a.test", "/", &[old.address])]).await;
    let mut client = stage.client().await;
    let mut idle = stage.client().await;
    assert_eq!(idle.get("/name").await, (200, "old".into()));
    client.send("GET /gate HTTP/1.1\nHost: a.test\n\n").await;
    old.arrived().await;

    let generation = stage.change(&[("a.test", "/", &[new.address])]);
    // Connections that there are and connections that come: all lead to the new one as soon as the table is there.
    while stage.client().await.get("/name").await.1 != "new" {}
    assert_eq!(idle.get("/name").await, (200, "new".into()));
    assert!(*stage.applied.borrow() < generation, "acknowledged before its request was over");
    let before = old.asked();
    for _ in 0..10 {
        assert_eq!(stage.client().await.get("/name").await, (200, "new".into()));
    }
    assert_eq!(old.asked(), before);
    old.open.add_permits(1);
    assert_eq!(client.answer().await, (200, "old".into()));
    stage.acknowledged(generation).await;

    // A request that takes longer than patience lasts is left to the grace period.
    client.send("GET /gate HTTP/1.1\nHost: a.test\n\n").await;
    new.arrived().await;
    let generation = stage.change(&[("a.test", "/", &[old.address])]);
    while stage.client().await.get("/name").await.1 != "old" {}
    stage.clock.advance(Duration::from_secs(6));
    stage.acknowledged(generation).await;
    new.open.add_permits(1);
    assert_eq!(client.answer().await, (200, "new".into()));
}

#[tokio::test]
async fn a_leaving_endpoint_does_not_wait_for_its_neighbours() {
    let (a, b) = (App::new("a").await, App::new("b").await);
    let mut stage = Stage::with(&[("a.test", "/", &[a.address]), ("b.test", "/", &[b.address])]).await;
    let mut client = stage.client().await;
    client.send("GET /gate HTTP/1.1\nHost: a.test\n\n").await;
    a.arrived().await;
    stage.route(&[("a.test", "/", &[a.address])]).await;
    a.open.add_permits(1);
    assert_eq!(client.answer().await, (200, "a".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_are_replaced_under_load_without_one_failed_request() {
    let mut apps = vec![App::new("first").await, App::new("second").await];
    let mut stage = Stage::with(&[("a.test", "/", &[apps[0].address, apps[1].address])]).await;
    let (done, stop) = watch::channel(false);
    let mut clients = JoinSet::new();
    for i in 0..8 {
        let (address, stop) = (stage.address, stop.clone());
        clients.spawn(async move {
            let mut served = 0;
            while !*stop.borrow() {
                let stream = TcpStream::connect(address).await.expect("to connect");
                let mut client = Client { stream: BufReader::new(stream) };
                // Some connections live long, some for one request.
                for _ in 0..[1, 50][i % 2] {
                    client.send("POST /echo HTTP/1.1\nHost: a.test\nContent-Length: 5\n\nhello").await;
                    assert_eq!(client.answer().await, (200, "hello".into()));
                    served += 1;
                }
            }
            served
        });
    }
    for _ in 0..40 {
        // As a rolling update does it: the new one in, the old one out, and only then stopped.
        apps.push(App::new("next").await);
        let addresses: Vec<_> = apps.iter().map(|a| a.address).collect();
        stage.route(&[("a.test", "/", &addresses)]).await;
        stage.route(&[("a.test", "/", &addresses[1..])]).await;
        apps.remove(0).stop().await;
    }
    done.send_replace(true);
    let served: usize = soon(clients.join_all()).await.into_iter().sum();
    assert!(served > 100, "{served} requests are no load");
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_takes_no_new_ones() {
    let app = App::new("app").await;
    let stage = Stage::with(&[("a.test", "/", &[app.address])]).await;
    let (mut busy, mut idle) = (stage.client().await, stage.client().await);
    assert_eq!(idle.get("/name").await, (200, "app".into()));
    busy.send("GET /gate HTTP/1.1\nHost: a.test\n\n").await;
    app.arrived().await;
    let (tasks, address) = (stage.tasks.clone(), stage.address);
    let (stubborn, ()) = tokio::join!(tasks.shutdown(Duration::from_secs(120)), async {
        // The idle connection ends at once; then the router no longer listens either.
        assert_eq!(idle.line().await, "");
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        app.open.add_permits(1);
        assert_eq!(busy.answer().await, (200, "app".into()));
        assert_eq!(busy.line().await, "");
    });
    assert!(stubborn.is_empty(), "{stubborn:?}");
}

//! What goes over the wire, byte for byte: each row is a rule of HTTP that a proxy between a client and an app keeps.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use yado_net::router::Options;
use yado_net::router::forwarded::TrustedProxies;
use yado_reconcile::Tasks;

use super::{Stage, soon};

/// One row of the table. Lines end with CR LF on the wire.
struct Row {
    what: &'static str,
    /// What the client sends before it ends its side; with `|` at the end it does not end it.
    client: &'static str,
    /// What the app answers each request with that it has read. With `!` in front it answers as soon as it has the head,
    /// and at `^` it closes the connection.
    app: &'static str,
    /// The requests that the app received, without the headers that say who asked.
    app_sees: &'static str,
    /// What the client receives until the end, without dates. With `=` in front: the status and the sentence of a response
    /// of the router's own, after which the connection ends.
    client_sees: &'static str,
}

const HI: &str = "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi";
const HI_SEEN: &str = "HTTP/1.1 200 OK\ncontent-length: 2\n\nhi";
const GET: &str = "GET / HTTP/1.1\nHost: a.test\n\n";
const GET_SEEN: &str = "GET / HTTP/1.1\nhost: a.test\n\n";

const fn row(
    what: &'static str,
    client: &'static str,
    app: &'static str,
    app_sees: &'static str,
    client_sees: &'static str,
) -> Row {
    Row { what, client, app, app_sees, client_sees }
}

const REQUESTS: &[Row] = &[
    row("a half-closed client gets its response", GET, HI, GET_SEEN, HI_SEEN),
    row(
        "chunked named twice",
        "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
        HI,
        "",
        "= 400 Bad Request: the request does not name the chunked coding once",
    ),
    row(
        "chunked twice in a list",
        "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked, chunked\n\n5\nhello\n0\n\n",
        HI,
        "",
        "= 400 Bad Request: the request does not name the chunked coding once",
    ),
    row(
        "a coding that is not served",
        "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: gzip, chunked\n\n5\nhello\n0\n\n",
        HI,
        "",
        "= 501 Not Implemented: the only transfer coding that is served is chunked",
    ),
    row(
        "both lengths: the chunks count",
        "POST / HTTP/1.1\nHost: a.test\nContent-Length: 4\nTransfer-Encoding: chunked\n\n2\nab\n0\n\n",
        HI,
        "POST / HTTP/1.1\nhost: a.test\ntransfer-encoding: chunked\n\n2\nab\n0\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 2\nconnection: close\n\nhi",
    ),
    row(
        "chunks are framed anew, without extensions",
        "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\n\n0002;x=y\nab\n000\n\n",
        HI,
        "POST / HTTP/1.1\nhost: a.test\ntransfer-encoding: chunked\n\n2\nab\n0\n\n",
        HI_SEEN,
    ),
    row(
        "trailers go on, but none that routes or frames",
        "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\nTrailer: x-sum\n\n2\nab\n0\nX-Sum: 7\n\
         X-Forwarded-For: 1\nContent-Length: 3\n\n",
        HI,
        "POST / HTTP/1.1\nhost: a.test\ntrailer: x-sum\ntransfer-encoding: chunked\n\n2\nab\n0\nx-sum: 7\n\n",
        HI_SEEN,
    ),
    row(
        "headers of one connection stay there",
        "GET / HTTP/1.1\nHost: a.test\nConnection: X-Hop, Host\nX-Hop: 1\nTE: trailers\nKeep-Alive: 5\nX: 1\n\n",
        HI,
        "GET / HTTP/1.1\nhost: a.test\nx: 1\n\n",
        HI_SEEN,
    ),
    row(
        "underscores do not stand in for hyphens",
        "GET / HTTP/1.1\nHost: a.test\nX_Forwarded_For: 1.2.3.4\nX_Real-IP: 1\nContent_Length: 5\nA_B: 1\n\n",
        HI,
        "GET / HTTP/1.1\nhost: a.test\na_b: 1\n\n",
        HI_SEEN,
    ),
    row(
        "absolute form becomes origin form",
        "GET http://a.test/x?y HTTP/1.1\nHost: A.test:80\n\n",
        HI,
        "GET /x?y HTTP/1.1\nhost: a.test\n\n",
        HI_SEEN,
    ),
    row(
        "dot segments are resolved before a route is chosen",
        "GET /pre/%2e%2e/x//y HTTP/1.1\nHost: a.test\n\n",
        HI,
        "GET /x/y HTTP/1.1\nhost: a.test\n\n",
        HI_SEEN,
    ),
    row(
        "dot segments that only some servers see",
        "GET /pre/..%2fx HTTP/1.1\nHost: a.test\n\n",
        HI,
        "",
        "= 400 Bad Request: the path holds a dot segment that servers read in different ways",
    ),
    row(
        "no label in place of a star",
        "GET / HTTP/1.1\nHost: .w.test\nConnection: close\n\n",
        HI,
        "",
        "HTTP/1.1 404 Not Found\ncontent-type: text/plain; charset=utf-8\nconnection: close\ncontent-length: 22\n\n\
         default backend - 404\n",
    ),
    row(
        "what follows a change of protocol that did not happen is a request",
        "GET /1 HTTP/1.1\nHost: a.test\nConnection: Upgrade\nUpgrade: websocket\n\nGET /2 HTTP/1.1\nHost: a.test\n\n",
        HI,
        "GET /1 HTTP/1.1\nhost: a.test\nconnection: upgrade\nupgrade: websocket\n\nGET /2 HTTP/1.1\nhost: a.test\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nhiHTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    ),
    row(
        "no change of protocol to HTTP/2",
        "GET / HTTP/1.1\nHost: a.test\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: x\n\n",
        HI,
        GET_SEEN,
        HI_SEEN,
    ),
    row(
        "no change of protocol with a body",
        "POST / HTTP/1.1\nHost: a.test\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 2\n\nab",
        HI,
        "POST / HTTP/1.1\nhost: a.test\ncontent-length: 2\n\nab",
        HI_SEEN,
    ),
    row(
        "a broken body is no complete one",
        "POST / HTTP/1.1\nHost: a.test\nTransfer-Encoding: chunked\n\n2\nab\nzz\n\n",
        HI,
        "POST / HTTP/1.1\nhost: a.test\ntransfer-encoding: chunked\n\n2\nab\n",
        "= 400 Bad Request: the request's body is not valid or broke off",
    ),
];

const EXPECTING: &str = "POST / HTTP/1.1\nHost: a.test\nExpect: 100-continue\nContent-Length: 2\n\n|";
const EXPECTED: &str = "POST / HTTP/1.1\nhost: a.test\nexpect: 100-continue\ncontent-length: 2\n\n";

const RESPONSES: &[Row] = &[
    row(
        "both lengths: the chunks count",
        GET,
        "HTTP/1.1 200 OK\nContent-Length: 500\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
        GET_SEEN,
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n",
    ),
    row(
        "a length beside a coding that is none",
        GET,
        "HTTP/1.1 200 OK\nTransfer-Encoding: identity\nContent-Length: 5\n\nhello",
        GET_SEEN,
        "= 502 Bad Gateway: the app's response has a Transfer-Encoding other than chunked",
    ),
    row(
        "two lengths",
        GET,
        "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\nhello",
        GET_SEEN,
        "= 502 Bad Gateway: the Content-Length of the app's response is not valid",
    ),
    row(
        "a body that ends with the connection",
        GET,
        "HTTP/1.1 200 OK\n\nhello^",
        GET_SEEN,
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n",
    ),
    row(
        "chunks for a client of HTTP/1.0",
        "GET / HTTP/1.0\nHost: a.test\n\n",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
        GET_SEEN,
        "HTTP/1.0 200 OK\n\nhello",
    ),
    row(
        "a first chunk that is broken",
        GET,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\nhello\n0\n\n",
        GET_SEEN,
        "= 502 Bad Gateway: the chunked body of the app's response is not valid",
    ),
    row(
        "a later chunk that is broken",
        GET,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\nzz\n",
        GET_SEEN,
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n5\nhello\n",
    ),
    row(
        "a body that does not come",
        GET,
        "HTTP/1.1 200 OK\nContent-Length: 5\n\n^",
        GET_SEEN,
        "= 502 Bad Gateway: the app closed the connection before its response was complete",
    ),
    row(
        "a folded header",
        GET,
        "HTTP/1.1 200 OK\nX: 1\n 2\nContent-Length: 2\n\nhi",
        GET_SEEN,
        "= 502 Bad Gateway: the app's response is not valid HTTP/1.1",
    ),
    row(
        "an app of HTTP/2",
        GET,
        "\0\0\0\x04\0\0\0\0\0",
        GET_SEEN,
        "= 502 Bad Gateway: the app answered in HTTP/2; the router speaks HTTP/1.1 to apps, so let it serve that on this port",
    ),
    row(
        "headers of one connection stay there",
        GET,
        "HTTP/1.1 200 OK\nConnection: X-Hop\nX-Hop: 1\nKeep-Alive: timeout=5\nX: 1\nContent-Length: 2\n\nhi",
        GET_SEEN,
        "HTTP/1.1 200 OK\nx: 1\ncontent-length: 2\n\nhi",
    ),
    row(
        "a status text of the app's own",
        GET,
        "HTTP/1.1 299 Nearly Good\nContent-Length: 2\n\nhi",
        GET_SEEN,
        "HTTP/1.1 299 Nearly Good\ncontent-length: 2\n\nhi",
    ),
    row(
        "no body after 204, whatever it says",
        GET,
        "HTTP/1.1 204 No Content\nContent-Length: 5\n\n",
        GET_SEEN,
        "HTTP/1.1 204 No Content\n\n",
    ),
    row(
        "no body for HEAD",
        "HEAD / HTTP/1.1\nHost: a.test\n\n",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n",
        "HEAD / HTTP/1.1\nhost: a.test\n\n",
        "HTTP/1.1 200 OK\n\n",
    ),
    row(
        "a second response that nobody asked for is nobody's",
        "GET /1 HTTP/1.1\nHost: a.test\n\nGET /2 HTTP/1.1\nHost: a.test\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nhiHTTP/1.1 200 OK\nContent-Length: 4\n\nevil",
        "GET /1 HTTP/1.1\nhost: a.test\n\nGET /2 HTTP/1.1\nhost: a.test\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nhiHTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    ),
    row(
        "trailers for a client that takes them",
        "GET / HTTP/1.1\nHost: a.test\nTE: trailers\n\n",
        "HTTP/1.1 200 OK\nTrailer: x-sum\nTransfer-Encoding: chunked\n\n2\nhi\n0\nX-Sum: 7\n\n",
        GET_SEEN,
        "HTTP/1.1 200 OK\ntrailer: x-sum\ntransfer-encoding: chunked\n\n2\nhi\n0\nx-sum: 7\n\n",
    ),
    row(
        "interim responses go on",
        "GET /1 HTTP/1.1\nHost: a.test\n\nGET /2 HTTP/1.1\nHost: a.test\n\n",
        "HTTP/1.1 103 Early Hints\nLink: </a.css>\nKeep-Alive: 1\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        "GET /1 HTTP/1.1\nhost: a.test\n\nGET /2 HTTP/1.1\nhost: a.test\n\n",
        "HTTP/1.1 103 Early Hints\nlink: </a.css>\n\nHTTP/1.1 200 OK\ncontent-length: 2\n\nhi\
         HTTP/1.1 103 Early Hints\nlink: </a.css>\n\nHTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    ),
    row(
        "but not to a client of HTTP/1.0",
        "GET / HTTP/1.0\nHost: a.test\n\n",
        "HTTP/1.1 103 Early Hints\nLink: </a.css>\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        GET_SEEN,
        "HTTP/1.0 200 OK\ncontent-length: 2\n\nhi",
    ),
    row(
        "nor a 100 that nobody waits for",
        GET,
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        GET_SEEN,
        HI_SEEN,
    ),
    row(
        "what is announced and refused is not asked for",
        EXPECTING,
        "!HTTP/1.1 417 Expectation Failed\nContent-Length: 2\n\nno",
        EXPECTED,
        "HTTP/1.1 417 Expectation Failed\ncontent-length: 2\nconnection: close\n\nno",
    ),
    row(
        "what the app asks for is asked for",
        "POST / HTTP/1.1\nHost: a.test\nExpect: 100-continue\nContent-Length: 2\n\nab",
        "!HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        "POST / HTTP/1.1\nhost: a.test\nexpect: 100-continue\ncontent-length: 2\n\nab",
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    ),
    row(
        "a client that does not wait gets the app's answer alone",
        "POST / HTTP/1.1\nHost: a.test\nExpect: 100-continue\nContent-Length: 2\n\nab",
        HI,
        "POST / HTTP/1.1\nhost: a.test\nexpect: 100-continue\ncontent-length: 2\n\nab",
        HI_SEEN,
    ),
];

/// An app that does what a row says. Returns its address and what it received.
async fn app(tasks: &Tasks, answer: String) -> (std::net::SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::<Mutex<String>>::default();
    let (log, owner) = (seen.clone(), tasks.clone());
    tasks.spawn("app", async move {
        while let Ok((stream, _)) = listener.accept().await {
            owner.spawn("connection", connection(stream, answer.clone(), log.clone()));
        }
    });
    (address, seen)
}

async fn connection(mut stream: TcpStream, answer: String, log: Arc<Mutex<String>>) {
    let early = answer.starts_with('!');
    let answer = answer.trim_start_matches('!');
    let mut request = String::new();
    let mut answered = false;
    let mut buffer = vec![0; 65536];
    loop {
        if !answered && is_complete(&request, early) {
            let closes = answer.ends_with('^');
            stream.write_all(answer.trim_end_matches('^').as_bytes()).await.expect("to answer");
            if closes {
                return;
            }
            answered = true;
        }
        if answered && is_complete(&request, false) {
            (answered, request) = (false, String::new());
        }
        let count = stream.read(&mut buffer).await.unwrap_or_default();
        if count == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&buffer[..count]);
        request += &text;
        *log.lock() += &text;
    }
}

/// Whether a request has come, as far as an app wants it.
fn is_complete(request: &str, head_only: bool) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length: ")).map(|l| l.parse().expect("a length"));
    match (head_only, length, head.contains("transfer-encoding: chunked")) {
        (true, ..) => true,
        (_, Some(length), _) => body.len() >= length,
        (_, _, true) => body.starts_with("0\r\n") || body.contains("\r\n0\r\n"),
        _ => true,
    }
}

/// What the client receives, and what the app received.
async fn exchange(options: Options, client: &str, answer: &str) -> (String, String) {
    let tasks = Tasks::new();
    let (address, seen) = app(&tasks, answer.replace('\n', "\r\n")).await;
    let routes = [("a.test", "/", &[address][..]), ("a.test", "/pre", &[]), ("*.w.test", "/", &[address])];
    let stage = Stage::with_options(&routes, options).await;
    let mut stream = TcpStream::connect(stage.address).await.expect("to connect");
    let sent = client.trim_end_matches('|').replace('\n', "\r\n");
    stream.write_all(sent.as_bytes()).await.expect("to write");
    if !client.ends_with('|') {
        stream.shutdown().await.expect("to end one side");
    }
    let mut received = Vec::new();
    soon(stream.read_to_end(&mut received)).await.expect("an answer");
    let received = String::from_utf8_lossy(&received).replace("\r\n", "\n");
    let received = received.split_inclusive('\n').filter(|line| !line.starts_with("date: ")).collect();
    let seen = seen.lock().replace("\r\n", "\n");
    (received, seen)
}

/// The status and the sentence of a response of the router's own.
fn own(received: &str) -> String {
    let (head, sentence) = received.split_once("\n\n").expect("a head and a body");
    assert!(head.contains("\nconnection: close"), "{received}");
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).unwrap_or_default();
    format!("= {status}: {}", sentence.trim_end())
}

async fn check(rows: &[Row]) {
    for row in rows {
        let (received, seen) = exchange(Options::default(), row.client, row.app).await;
        let who_asked = |line: &&str| !line.starts_with("x-forwarded-") && !line.starts_with("x-real-ip");
        let seen: String = seen.split_inclusive('\n').filter(who_asked).collect();
        assert_eq!(seen, row.app_sees, "{}: what the app sees", row.what);
        let received = if row.client_sees.starts_with('=') { own(&received) } else { received };
        assert_eq!(received, row.client_sees, "{}: what the client sees", row.what);
    }
}

#[tokio::test]
async fn requests_are_passed_on_by_the_rules() {
    check(REQUESTS).await;
}

#[tokio::test]
async fn responses_are_passed_on_by_the_rules() {
    check(RESPONSES).await;
}

#[tokio::test]
async fn a_response_of_too_many_headers_is_named() {
    let answer = format!("HTTP/1.1 200 OK\n{}Content-Length: 5\n\nhello", "X: a\n".repeat(300));
    let (received, _) = exchange(Options::default(), GET, &answer).await;
    let text = "\n\nthe app's response has more than 256 headers, the most that the router takes\n";
    assert!(received.starts_with("HTTP/1.1 502 ") && received.ends_with(text), "{received}");
}

#[tokio::test]
async fn forwarding_headers_are_believed_of_trusted_proxies_only() {
    let request = "GET / HTTP/1.1\nHost: a.test\nX-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https\n\
                   Forwarded: for=198.51.100.7\nX-Forwarded-Prefix: /x\n\n";
    let who_asked = |seen: String| {
        let mut lines: Vec<_> =
            seen.lines().filter(|l| l.contains("orwarded") || l.contains("real")).collect();
        lines.sort_unstable();
        lines.retain(|line| !line.starts_with("x-forwarded-port"));
        lines.join("\n")
    };
    let (_, seen) = exchange(Options::default(), request, HI).await;
    let replaced =
        "x-forwarded-for: 127.0.0.1\nx-forwarded-host: a.test\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1";
    assert_eq!(who_asked(seen), replaced);
    let trusted_proxies = TrustedProxies::new(["127.0.0.0/8".parse().expect("a network")]);
    let (_, seen) = exchange(Options { trusted_proxies, ..Default::default() }, request, HI).await;
    let kept = "forwarded: for=198.51.100.7, for=127.0.0.1\nx-forwarded-for: 198.51.100.7, 127.0.0.1\n\
                x-forwarded-host: a.test\nx-forwarded-prefix: /x\nx-forwarded-proto: https\nx-real-ip: 198.51.100.7";
    assert_eq!(who_asked(seen), kept);
}

//! The health check of gRPC (`grpc.health.v1.Health/Check`) over plain HTTP/2: one call with one small message each way,
//! for which no code needs to be generated.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::handler::plain;

/// The answer is one message of two bytes with its head; a server that sends much more is not one of these.
const ANSWER_LIMIT: usize = 4 << 10;
/// Protobuf: field 1, a string.
const SERVICE_FIELD: u8 = 0x0a;
/// Protobuf: field 1, a number.
const STATUS_FIELD: u8 = 0x08;
/// Names of the statuses of a service, by number.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;
/// gRPC's number for a method that a server does not have.
const UNIMPLEMENTED: &str = "12";

/// Well where the server says that `service` (empty for the server as a whole) is serving.
pub(crate) async fn check(address: IpAddr, port: u16, service: &str) -> Result<(), String> {
    let authority = std::net::SocketAddr::new(address, port).to_string();
    let failed = |what: String| format!("failed to connect service \"{authority}\": {what}");
    let tcp = TcpStream::connect((address, port)).await;
    let tcp = tcp.map_err(|e| failed(format!("dial tcp {authority}: connect: {}", plain(&e))))?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp));
    let (mut sender, connection) = handshake.await.map_err(|e| failed(e.to_string()))?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|e| failed(e.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| failed(causes(&e)))?;
        judge(response).await
    };
    // The connection ends with this future: nothing of it outlives the probe.
    tokio::pin!(answer);
    tokio::select! {
        result = &mut answer => result,
        closed = connection => match closed {
            Ok(()) => answer.await,
            Err(error) => Err(failed(causes(&error))),
        },
    }
}

/// hyper's own words say little; what lies below says why.
fn causes(error: &hyper::Error) -> String {
    let below = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", below.unwrap_or_default())
}

/// A HealthCheckRequest with gRPC's head: not compressed, then its length.
fn message(service: &str) -> Bytes {
    let mut body = BytesMut::new();
    if !service.is_empty() {
        body.put_u8(SERVICE_FIELD);
        put_varint(&mut body, service.len() as u64);
        body.put_slice(service.as_bytes());
    }
    let mut all = BytesMut::with_capacity(body.len() + 5);
    all.put_u8(0);
    all.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    all.extend_from_slice(&body);
    all.freeze()
}

fn put_varint(to: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

async fn judge(response: Response<Incoming>) -> Result<(), String> {
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(format!("health rpc probe failed: the server answered with HTTP status {}", head.status));
    }
    let broken = |what: String| format!("health rpc probe failed: {what}");
    let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|e| broken(e.to_string()))?;
    // An error without a message stands in the head.
    let trailers = body.trailers().cloned().unwrap_or_else(|| head.headers.clone());
    verdict(&trailers, &body.to_bytes())
}

/// Decides by the status of the call and, where that is well, by the status in the answer. Pure.
fn verdict(trailers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let said = text("grpc-message");
    match text("grpc-status") {
        "0" => {}
        UNIMPLEMENTED => {
            return Err(format!(
                "this server does not implement the grpc health protocol (grpc.health.v1.Health): {said}"
            ));
        }
        "" => return Err("health rpc probe failed: the answer has no grpc-status".into()),
        code => return Err(format!("health rpc probe failed: grpc-status {code}: {said}")),
    }
    let status = serving_status(body).ok_or("health rpc probe failed: the answer cannot be read")?;
    if status == SERVING {
        return Ok(());
    }
    let name = usize::try_from(status).ok().and_then(|n| STATUSES.get(n)).copied().unwrap_or("UNRECOGNIZED");
    Err(format!("service unhealthy (responded with \"{name}\")"))
}

/// The number in a HealthCheckResponse with gRPC's head. Protobuf leaves a zero out.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (head, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    match (head[0], message) {
        (0, message) if message.len() != length => None,
        (0, []) => Some(0),
        (0, [STATUS_FIELD, status]) if *status < 0x80 => Some(u64::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_the_service() {
        assert_eq!(message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(message("ab")[..], *b"\0\0\0\0\x04\x0a\x02ab");
        let long = message(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn answers_are_judged() {
        let check = |status: &'static str, said: &'static str, body: &[u8], expect: Result<(), &str>| {
            let mut trailers = HeaderMap::new();
            if !status.is_empty() {
                trailers.insert("grpc-status", status.parse().expect("a header"));
            }
            trailers.insert("grpc-message", said.parse().expect("a header"));
            assert_eq!(verdict(&trailers, body), expect.map_err(str::to_owned), "{status} {body:?}");
        };
        check("0", "", b"\0\0\0\0\x02\x08\x01", Ok(()));
        check("0", "", b"\0\0\0\0\x02\x08\x02", Err("service unhealthy (responded with \"NOT_SERVING\")"));
        check("0", "", b"\0\0\0\0\0", Err("service unhealthy (responded with \"UNKNOWN\")"));
        check("0", "", b"\0\0\0\0\x02\x08\x09", Err("service unhealthy (responded with \"UNRECOGNIZED\")"));
        check("0", "", b"", Err("health rpc probe failed: the answer cannot be read"));
        check("0", "", b"\0\0\0\0\x05\x08\x01", Err("health rpc probe failed: the answer cannot be read"));
        check("5", "unknown service", b"", Err("health rpc probe failed: grpc-status 5: unknown service"));
        check(
            "12",
            "no such method",
            b"",
            Err(
                "this server does not implement the grpc health protocol (grpc.health.v1.Health): no such method",
            ),
        );
        check("", "", b"", Err("health rpc probe failed: the answer has no grpc-status"));
    }

    /// Answers one connection over real HTTP/2, with the trailers that gRPC has.
    async fn server(status: &'static str, body: &'static [u8]) -> u16 {
        use http_body_util::StreamBody;
        use hyper::body::Frame;
        use hyper::service::service_fn;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let service = service_fn(move |request: Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let asked = request.into_body().collect().await.expect("a message").to_bytes();
                assert_eq!(asked, message("shop"));
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", status.parse().expect("a header"));
                let frames = [Frame::data(Bytes::from_static(body)), Frame::trailers(trailers)];
                let frames = futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
                Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(frames)))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        port
    }

    #[tokio::test]
    async fn a_server_is_asked_over_http2() {
        let here: IpAddr = [127, 0, 0, 1].into();
        let port = server("0", b"\0\0\0\0\x02\x08\x01").await;
        assert_eq!(check(here, port, "shop").await, Ok(()));
        let port = server("0", b"\0\0\0\0\x02\x08\x02").await;
        assert_eq!(
            check(here, port, "shop").await,
            Err("service unhealthy (responded with \"NOT_SERVING\")".into())
        );
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = closed.local_addr().expect("an address").port();
        drop(closed);
        let refused = check(here, port, "shop").await.expect_err("nobody listens");
        assert!(refused.ends_with("connect: connection refused"), "{refused}");
        // One that does not speak HTTP/2.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.expect("a client");
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
        let other = check(here, port, "shop").await.expect_err("not gRPC");
        assert!(other.starts_with("failed to connect service"), "{other}");
    }
}

//! One request from a client to an endpoint and back.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::Router;
use super::request::{self, Client, Refusal};
use super::routes::Backend;
use super::upstream::{Lease, RequestBody, ResponseBody, Sender, Upstream};

/// What goes to the client: an endpoint's answer or our own sentence.
type Answer = Response<Either<ResponseBody, Full<Bytes>>>;

/// How long an endpoint may take until the headers of its answer, counted from the last part of the request's body
/// that it took.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// Endpoints tried for one request: enough to get past a few that have just gone, few enough not to multiply the
/// load of a backend that is down.
const TRIES: usize = 4;
/// Tables looked at for one request, where a change of the table takes the endpoints away under its feet.
const TABLES: usize = 4;

/// A client's connection.
pub struct Connection {
    /// Who is at its other end.
    pub client: Client,
    /// Its place among the connections that are served at once.
    pub place: OwnedSemaphorePermit,
}

/// Where the bytes go once both ends have changed the protocol; it keeps the connection's place.
type Tunnel = (OnUpgrade, Arc<Connection>);

/// Serves one request.
pub async fn serve(
    router: Arc<Router>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (mut parts, body) = request.into_parts();
    let host = match request::host(&parts) {
        Ok(host) => host,
        Err(Refusal(code, why)) => return Ok(closing(sentence(code, why))),
    };
    if router.routes().find(&host, parts.uri.path()).is_none() {
        // What load balancers ask of a router without a route, as the classic default backend answers it.
        return Ok(match parts.uri.path() {
            "/healthz" => sentence(StatusCode::OK, "ok\n"),
            _ => sentence(StatusCode::NOT_FOUND, "default backend - 404\n"),
        });
    }
    let upgrade = request::upgrade(&parts).and_then(|_| parts.extensions.remove::<OnUpgrade>());
    let client = connection.client.address;
    request::prepare(&mut parts, connection.client);
    let tunnel = upgrade.map(|upgrade| (upgrade, connection));
    Ok(pass_on(&router, client, &host, parts, body, tunnel).await)
}

/// Why an endpoint did not answer, and what is left to try with.
enum Failure {
    /// Nothing of the request was sent: any other endpoint may have it.
    Unsent(Box<Request<RequestBody>>),
    /// It may have been received.
    Sent,
    /// No answer in time.
    TooLate,
}

async fn pass_on(
    router: &Arc<Router>,
    client: IpAddr,
    host: &str,
    parts: Parts,
    body: Incoming,
    tunnel: Option<Tunnel>,
) -> Answer {
    // A request that changes nothing and has no body can be sent once more even where it may have been received.
    let again = parts.method.is_idempotent() && body.is_end_stream() && tunnel.is_none();
    let mut again = again.then(|| Request::from_parts(parts.clone(), RequestBody::default()));
    let mut request = Request::from_parts(parts, RequestBody::new(body));
    let mut tried: Vec<SocketAddr> = Vec::new();
    for _ in 0..TABLES {
        let routes = router.routes();
        let Some(backend) = routes.find(host, request.uri().path()) else { break };
        if !backend.callers.admits(client) {
            return failed(StatusCode::FORBIDDEN, "the app is not open to this address\n");
        }
        backend.earn();
        let mut kept_out = false;
        for upstream in candidates(backend, router.clock.monotonic()) {
            if tried.len() == TRIES {
                break;
            }
            if tried.contains(&upstream.address()) {
                continue;
            }
            if !routes.admits(client, upstream.address()) {
                kept_out = true;
                continue;
            }
            let Some(lease) = upstream.lease() else { continue };
            match send(router, &lease, request).await {
                Ok((response, sender)) => return answer(router, lease, response, sender, tunnel),
                Err(Failure::Unsent(unsent)) => request = *unsent,
                Err(Failure::Sent) => match again.take().filter(|_| backend.spend()) {
                    Some(copy) => request = copy,
                    None => return failed(StatusCode::BAD_GATEWAY, "the app closed the connection\n"),
                },
                Err(Failure::TooLate) => {
                    return failed(StatusCode::GATEWAY_TIMEOUT, "the app did not answer in time\n");
                }
            }
            tried.push(upstream.address());
        }
        if kept_out && tried.is_empty() {
            return failed(StatusCode::FORBIDDEN, "a NetworkPolicy keeps this Pod from the app\n");
        }
        // An endpoint leaves only after a table without it is in place: that one knows who took over.
        if tried.len() == TRIES || Arc::ptr_eq(&routes, &router.routes()) {
            break;
        }
    }
    match tried.is_empty() {
        true => failed(StatusCode::SERVICE_UNAVAILABLE, "the app has no endpoint that is ready\n"),
        false => failed(StatusCode::BAD_GATEWAY, "no endpoint of the app took the request\n"),
    }
}

/// The endpoints of a backend in the order in which to try them: those that have just refused a connection last.
fn candidates(backend: &Backend, now: Duration) -> impl Iterator<Item = &Arc<Upstream>> {
    let (well, ejected): (Vec<_>, Vec<_>) = backend.in_turn().partition(|u| !u.is_ejected(now));
    well.into_iter().chain(ejected)
}

async fn send(
    router: &Arc<Router>,
    lease: &Lease,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Sender), Failure> {
    loop {
        let Ok(mut free) = lease.connection(&router.tasks).await else {
            lease.eject(router.clock.monotonic());
            return Err(Failure::Unsent(Box::new(request)));
        };
        let moved = request.body().moved();
        let mut answered = pin!(free.sender.try_send_request(request));
        let sent = loop {
            tokio::select! {
                biased;
                sent = answered.as_mut() => break sent,
                () = router.clock.sleep(ANSWER_PATIENCE) => {
                    // A long upload is not a late answer.
                    if !moved.as_ref().is_some_and(|m| m.swap(false, Ordering::Relaxed)) {
                        return Err(Failure::TooLate);
                    }
                }
            }
        };
        match sent {
            Ok(response) => return Ok((response, free.sender)),
            Err(mut error) => match error.take_message() {
                // A connection that had idled was closed at the other end: the next one may live.
                Some(unsent) if !free.fresh => request = unsent,
                Some(unsent) => return Err(Failure::Unsent(Box::new(unsent))),
                None => return Err(Failure::Sent),
            },
        }
    }
}

fn answer(
    router: &Arc<Router>,
    lease: Lease,
    mut response: Response<Incoming>,
    sender: Sender,
    tunnel: Option<Tunnel>,
) -> Answer {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some((client, connection)) = tunnel else {
            return failed(StatusCode::BAD_GATEWAY, "the app changed the protocol unasked\n");
        };
        let app = hyper::upgrade::on(&mut response);
        // It has no end of its own to wait for, so it ends with the router, and keeps no endpoint from leaving: the
        // app hears of its end by a signal and closes what it has open.
        router.tasks.spawn("upgraded", async move {
            if let (Ok(client), Ok(app)) = tokio::join!(client, app) {
                // It ends when either side does; which one, and how, is theirs to know.
                let _ =
                    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(app)).await;
            }
            drop(connection);
        });
        let mut answer = Response::new(Either::Right(Full::default()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        return answer;
    }
    let (mut parts, body) = response.into_parts();
    request::remove_hop_by_hop(&mut parts.headers);
    // An app that speaks HTTP/1.0 is no reason to speak it to the client.
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Either::Left(ResponseBody::new(body, lease, sender)))
}

/// An answer of ours after the request went on, in whole or in part.
fn failed(code: StatusCode, text: &'static str) -> Answer {
    closing(sentence(code, text))
}

fn sentence(code: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Either::Right(Full::from(text)));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// After a request that was not read to its end, what follows on the connection has no meaning.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

//! One request from a client to an endpoint and back.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::Router;
use super::body::ResponseBody;
use super::client_io::{Interim, Mark};
use super::clients::{Connection, InFlight};
use super::exchange::{Exchange, Outgoing, ReadError, RequestBody};
use super::forwarded;
use super::request::{self, RequestError, Sending};
use super::response::{self, Head, Malformed};
use super::routes::Backend;
use super::upstream::{Lease, Upstream};

/// The response to the client: that of an endpoint, or a sentence of the router's own.
type ClientResponse = Response<Either<ResponseBody, Full<Bytes>>>;

/// How long an endpoint may take until the head of its response, counted from the last part of the request that it
/// took.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Endpoints tried for one request: enough to get past a few that have just gone, few enough not to multiply the
/// load of a backend that is down.
const TRIES: usize = 4;
/// Tables looked at for one request, where a change of the table takes the endpoints away under its feet.
const TABLES: usize = 4;
/// Interim responses that are passed on before one response; further ones are left out.
const INTERIM: usize = 16;

/// Where interim responses go, and when the request was read; `None` where the client cannot take them.
pub type ToClient = Option<(Arc<Interim>, Mark)>;

/// A request on its way through the router.
struct Passing<'a> {
    router: &'a Arc<Router>,
    host: &'a str,
    path: String,
    method: Method,
    head: Bytes,
    upgrade: Option<OnUpgrade>,
    interim: ToClient,
    /// The client announced its body and waits for an interim 100.
    expects: bool,
    /// It was told to go on.
    continued: bool,
}

/// Serves one request.
pub async fn serve(
    router: Arc<Router>,
    connection: Arc<Connection>,
    interim: ToClient,
    request: Request<Incoming>,
) -> Result<ClientResponse, Infallible> {
    let multiplexed = request.version() == Version::HTTP_2;
    let (mut parts, body) = request.into_parts();
    let origin = forwarded::origin(&parts.headers, connection.peer, &router.trusted);
    let accepted = connection.begin(origin, multiplexed).and_then(|r| Ok((r, request::accept(&mut parts)?)));
    let (in_flight, host) = match accepted {
        Ok(accepted) => accepted,
        Err(RequestError(code, why)) => return Ok(closing(sentence(code, why), &parts)),
    };
    if router.routes().find(&host, parts.uri.path()).is_none() {
        // What load balancers ask of a router without a route, as the classic default backend answers it.
        return Ok(match parts.uri.path() {
            "/healthz" => sentence(StatusCode::OK, "ok\n"),
            _ => sentence(StatusCode::NOT_FOUND, "default backend - 404\n"),
        });
    }
    let body = RequestBody::new(body);
    // A protocol is changed at the end of a request; one with a body would leave open where that is.
    let protocol = request::upgrade(&parts).filter(|_| body.framing() == request::BodyFraming::None);
    let upgrade = protocol.as_ref().and_then(|_| parts.extensions.remove::<OnUpgrade>());
    let expects = request::expects_continue(&parts) && body.framing() != request::BodyFraming::None;
    if let (true, Some((interim, mark))) = (expects, &interim) {
        interim.drop_continue(*mark).await;
    }
    let sending =
        Sending { peer: connection.peer, origin, framing: body.framing(), upgrade: protocol.as_deref() };
    let passing = Passing {
        router: &router,
        host: &host,
        path: parts.uri.path().to_owned(),
        head: request::encode_head(&parts, &sending).freeze(),
        method: parts.method.clone(),
        upgrade,
        interim: interim.filter(|_| parts.version == Version::HTTP_11),
        expects,
        continued: false,
    };
    Ok(match passing.pass_on(body, in_flight).await {
        Ok(answer) => answer,
        Err((code, why)) => closing(sentence(code, why), &parts),
    })
}

/// Why an attempt at one endpoint failed, with the request body if it can be sent to another one.
enum AttemptError {
    /// It took no connection.
    Refused(RequestBody),
    /// The connection broke before anything was sent.
    Unsent(RequestBody),
    /// It closed the connection without a response, and may have received the request.
    Closed,
    /// No other endpoint is to be tried: the status and the reason for the client.
    Final(StatusCode, String),
}

impl From<Malformed> for AttemptError {
    fn from(malformed: Malformed) -> Self {
        Self::Final(StatusCode::BAD_GATEWAY, format!("{malformed}\n"))
    }
}

type Failed = (StatusCode, String);

impl Passing<'_> {
    async fn pass_on(mut self, mut body: RequestBody, in_flight: InFlight) -> Result<ClientResponse, Failed> {
        // A request that changes nothing and has no body can be sent once more even where it may have been received.
        let mut again = self.method.is_idempotent()
            && body.framing() == request::BodyFraming::None
            && self.upgrade.is_none();
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut why = "the app has no endpoint that is ready\n";
        let mut code = StatusCode::SERVICE_UNAVAILABLE;
        for _ in 0..TABLES {
            let routes = self.router.routes();
            let Some(backend) = routes.find(self.host, &self.path) else { break };
            let client = in_flight.peer();
            if !backend.callers.admits(client) {
                return Err((StatusCode::FORBIDDEN, "the app is not open to this address\n".to_owned()));
            }
            backend.earn();
            let mut kept_out = false;
            for upstream in candidates(backend, self.router.clock.monotonic()) {
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
                code = StatusCode::BAD_GATEWAY;
                body = match self.send(&lease, body, &mut again, backend).await {
                    Ok((exchange, head)) => return self.answer(lease, exchange, head, in_flight).await,
                    Err(AttemptError::Refused(body)) => {
                        why = "no endpoint of the app accepts connections\n";
                        body
                    }
                    Err(AttemptError::Unsent(body)) => {
                        why = CLOSED;
                        body
                    }
                    Err(AttemptError::Closed) if again && backend.spend() => {
                        (again, why) = (false, CLOSED);
                        RequestBody::none()
                    }
                    Err(AttemptError::Closed) => return Err((code, CLOSED.to_owned())),
                    Err(AttemptError::Final(code, why)) => return Err((code, why)),
                };
                tried.push(upstream.address());
            }
            if kept_out && tried.is_empty() {
                let why = "a NetworkPolicy keeps this Pod from the app\n".to_owned();
                return Err((StatusCode::FORBIDDEN, why));
            }
            // An endpoint leaves only after a table without it is in place: that one knows who took over.
            if tried.len() == TRIES || Arc::ptr_eq(&routes, &self.router.routes()) {
                break;
            }
        }
        Err((code, why.to_owned()))
    }

    /// Sends the request to one endpoint and waits for the head of its response. `again` says that it may be sent once
    /// more although it may have been received, and is cleared when it was.
    async fn send(
        &mut self,
        lease: &Lease,
        mut body: RequestBody,
        again: &mut bool,
        backend: &Backend,
    ) -> Result<(Exchange, Head), AttemptError> {
        let mut idle = true;
        loop {
            let free = if idle { lease.connection().await } else { lease.connect().await };
            let Ok(free) = free else {
                lease.eject(self.router.clock.monotonic());
                return Err(AttemptError::Refused(body));
            };
            let outgoing = Outgoing::new(self.head.clone(), body);
            let mut exchange = Exchange::new(free.stream, outgoing, self.method.clone());
            match self.head_of(&mut exchange).await {
                Ok(head) => return Ok((exchange, head)),
                Err(Some(failure)) => return Err(failure),
                Err(None) => match exchange.request.into_unsent() {
                    // A connection that had idled was closed at the other end: the next one may live.
                    Some(unsent) if !free.fresh => body = unsent,
                    Some(unsent) => return Err(AttemptError::Unsent(unsent)),
                    // The app may have closed it at the moment when the request was sent.
                    None if !free.fresh && *again && backend.spend() => {
                        (*again, idle, body) = (false, false, RequestBody::none());
                    }
                    None => return Err(AttemptError::Closed),
                },
            }
        }
    }

    /// The head of the response, after the interim ones; `None` as the failure where the connection was closed.
    async fn head_of(&mut self, exchange: &mut Exchange) -> Result<Head, Option<AttemptError>> {
        let mut passed = 0;
        loop {
            let head = match self.next_head(exchange).await? {
                Ok(head) => head,
                Err(ReadError::Closed) => return Err(None),
                Err(ReadError::Malformed(malformed)) => return Err(Some(malformed.into())),
                Err(ReadError::RequestBody) => {
                    let why = "the request's body is not valid or broke off\n".to_owned();
                    return Err(Some(AttemptError::Final(StatusCode::BAD_REQUEST, why)));
                }
            };
            if head.status == StatusCode::SWITCHING_PROTOCOLS || !head.status.is_informational() {
                return Ok(head);
            }
            self.continued |= head.status == StatusCode::CONTINUE;
            passed += 1;
            // RFC 9110, 10.1.1: a 100 that no client waits for goes no further.
            let wanted = head.status != StatusCode::CONTINUE || self.expects;
            if let (true, true, Some((interim, mark))) = (wanted, passed <= INTERIM, &self.interim) {
                interim.send(*mark, &response::encode_interim(&head)).await;
            }
        }
    }

    /// The next head, unless it takes too long.
    async fn next_head(
        &self,
        exchange: &mut Exchange,
    ) -> Result<Result<Head, ReadError>, Option<AttemptError>> {
        loop {
            let timeout = self.router.clock.sleep(RESPONSE_TIMEOUT);
            tokio::select! {
                biased;
                head = poll_fn(|cx| exchange.poll_head(cx)) => return Ok(head),
                () = timeout => {
                    // A long upload is not a late response.
                    if !exchange.request.take_moved() {
                        let why = "the app did not answer in time\n".to_owned();
                        return Err(Some(AttemptError::Final(StatusCode::GATEWAY_TIMEOUT, why)));
                    }
                }
            }
        }
    }

    async fn answer(
        self,
        lease: Lease,
        exchange: Exchange,
        head: Head,
        in_flight: InFlight,
    ) -> Result<ClientResponse, Failed> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = self.upgrade else {
                return Err((StatusCode::BAD_GATEWAY, format!("{}\n", Malformed::Upgrade)));
            };
            let mut answer = Response::new(Either::Right(Full::default()));
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.headers_mut() = head.headers;
            tunnel(self.router, upgrade, exchange, in_flight);
            return Ok(answer);
        }
        // A client that still waits for a 100 may send its body or the next request now, and nobody can tell which: so
        // both connections end with this response.
        let abandon = self.expects && !self.continued && !exchange.request.is_sent();
        let tasks = &self.router.tasks;
        let mut body =
            ResponseBody::new(exchange, head.framing, head.reusable, lease, in_flight, tasks, abandon);
        let first = poll_fn(|cx| Poll::Ready(body.poll_first(cx))).await;
        first.map_err(|error| (StatusCode::BAD_GATEWAY, format!("{error}\n")))?;
        let mut answer = Response::new(Either::Left(body));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
            answer.extensions_mut().insert(reason);
        }
        if abandon {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }
}

const CLOSED: &str = "the app closed the connection without an answer\n";

/// The endpoints of a backend in the order in which to try them: those that have just refused a connection last.
fn candidates(backend: &Backend, now: Duration) -> impl Iterator<Item = &Arc<Upstream>> {
    let (well, ejected): (Vec<_>, Vec<_>) = backend.in_turn().partition(|u| !u.is_ejected(now));
    well.into_iter().chain(ejected)
}

/// Carries the bytes of the new protocol. A tunnel has no end of its own to wait for, so it ends with the router, and keeps
/// no endpoint from leaving: the app hears of its end by a signal and closes what it has open.
fn tunnel(router: &Arc<Router>, upgrade: OnUpgrade, exchange: Exchange, in_flight: InFlight) {
    let (mut app, first) = (exchange.stream, exchange.received.buffer);
    router.tasks.spawn("upgraded", async move {
        if let Ok(client) = upgrade.await {
            let mut client = TokioIo::new(client);
            // The first bytes of the new protocol may have come along with the response.
            if client.write_all(&first).await.is_ok() {
                // It ends when either side does; which one, and how, is theirs to know.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut app).await;
            }
        }
        drop(in_flight);
    });
}

fn sentence(code: StatusCode, text: impl Into<Bytes>) -> ClientResponse {
    let mut answer = Response::new(Either::Right(Full::from(text.into())));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// After a request that was not read to its end, what follows on the connection has no meaning. HTTP/2 tells requests
/// apart by itself.
fn closing(mut answer: ClientResponse, request: &Parts) -> ClientResponse {
    if request.version != Version::HTTP_2 {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

//! One request from a client to an endpoint and back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Router;
use super::request::{self, Client, Refusal};
use super::routes::Backend;
use super::upstream::{RequestBody, ResponseBody, Upstream};

/// What goes to the client: an endpoint's answer or our own sentence.
type Answer = Response<Either<ResponseBody, Full<Bytes>>>;

/// How long an endpoint may take until the headers of its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// Endpoints tried for one request: enough to get past a few that have just gone, few enough not to multiply the
/// load of a backend that is down.
const TRIES: usize = 4;

/// Serves one request.
pub async fn serve(
    router: Arc<Router>,
    request: Request<Incoming>,
    client: Client,
) -> Result<Answer, Infallible> {
    let (mut parts, body) = request.into_parts();
    let host = match request::host(&parts) {
        Ok(host) => host,
        Err(Refusal(code, why)) => return Ok(closing(sentence(code, why))),
    };
    let Some(backend) = router.routes().find(&host, parts.uri.path()).cloned() else {
        // What load balancers ask of a router without a route, as the classic default backend answers it.
        return Ok(match parts.uri.path() {
            "/healthz" => sentence(StatusCode::OK, "ok\n"),
            _ => sentence(StatusCode::NOT_FOUND, "default backend - 404\n"),
        });
    };
    let upgrade = request::upgrade(&parts.headers).and_then(|_| parts.extensions.remove::<OnUpgrade>());
    request::prepare(&mut parts, client);
    Ok(pass_on(&router, &backend, parts, body, upgrade).await)
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
    backend: &Backend,
    parts: Parts,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
) -> Answer {
    // A request that changes nothing and has no body can be sent once more even where it may have been received.
    let again =
        (parts.method.is_idempotent() && body.is_end_stream() && upgrade.is_none()).then(|| parts.clone());
    let mut again = again.map(|parts| Request::from_parts(parts, Either::Right(Empty::new())));
    let mut request = Request::from_parts(parts, Either::Left(body));
    let now = router.clock.monotonic();
    let (well, ejected): (Vec<_>, Vec<_>) = backend.in_turn().partition(|u| !u.is_ejected(now));
    let mut failure = None;
    for upstream in well.into_iter().chain(ejected).take(TRIES) {
        match send(router, upstream, request).await {
            Ok((response, sender)) => return answer(router, upstream, response, sender, upgrade),
            Err(Failure::Unsent(unsent)) => {
                request = *unsent;
                failure = Some(StatusCode::BAD_GATEWAY);
            }
            Err(Failure::Sent) => match again.take() {
                Some(copy) => {
                    request = copy;
                    failure = Some(StatusCode::BAD_GATEWAY);
                }
                None => return closing(sentence(StatusCode::BAD_GATEWAY, "the app closed the connection\n")),
            },
            Err(Failure::TooLate) => {
                return closing(sentence(StatusCode::GATEWAY_TIMEOUT, "the app did not answer in time\n"));
            }
        }
    }
    tracing::debug!(backend = backend.name, "no endpoint answered");
    match failure {
        Some(code) => closing(sentence(code, "no endpoint of the app took the request\n")),
        None => closing(sentence(StatusCode::SERVICE_UNAVAILABLE, "the app has no endpoint that is ready\n")),
    }
}

type Sent = (Response<Incoming>, hyper::client::conn::http1::SendRequest<RequestBody>);

async fn send(
    router: &Arc<Router>,
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
) -> Result<Sent, Failure> {
    loop {
        let Ok(mut free) = upstream.connection(&router.tasks).await else {
            upstream.eject(router.clock.monotonic());
            return Err(Failure::Unsent(Box::new(request)));
        };
        let sent = tokio::time::timeout(ANSWER_PATIENCE, free.sender.try_send_request(request)).await;
        match sent {
            Ok(Ok(response)) => return Ok((response, free.sender)),
            Err(_) => return Err(Failure::TooLate),
            Ok(Err(mut error)) => match error.take_message() {
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
    upstream: &Arc<Upstream>,
    mut response: Response<Incoming>,
    sender: hyper::client::conn::http1::SendRequest<RequestBody>,
    client: Option<OnUpgrade>,
) -> Answer {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return closing(sentence(StatusCode::BAD_GATEWAY, "the app changed the protocol unasked\n"));
        };
        let app = hyper::upgrade::on(&mut response);
        router.tasks.spawn("upgraded", async move {
            if let (Ok(client), Ok(app)) = tokio::join!(client, app) {
                // It ends when either side does; which one, and how, is theirs to know.
                let _ =
                    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(app)).await;
            }
        });
        let mut answer = Response::new(Either::Right(Full::default()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        return answer;
    }
    let (mut parts, body) = response.into_parts();
    request::remove_hop_by_hop(&mut parts.headers);
    Response::from_parts(parts, Either::Left(ResponseBody::new(body, upstream.clone(), sender)))
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

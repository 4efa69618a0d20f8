//! The node's HTTP API, which the API server hands clients on to.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | `ok` |
//! | `/pods` | the Pods bound here, as a PodList |
//! | `/stats/summary` | what the node and its Pods use, as the kubelet's Summary API has it |
//! | `/metrics/resource`, `/metrics/cadvisor` | the same for Prometheus |
//! | `/containerLogs/NAMESPACE/POD/CONTAINER` | logs |
//! | `/exec/…`, `/attach/…` | a process's streams, over a WebSocket or SPDY |
//! | `/portForward/NAMESPACE/POD` | connections to ports, over a WebSocket or SPDY |

mod query;

use std::convert::Infallible;
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yado_oci::spec::ExecSpec;

use crate::handle::PodHandle;
use crate::lifecycle::{ContainerRecord, Run, is_final};
use crate::logs;
use crate::sampling;
use crate::shared::Shared;
use crate::spec::find_container;
use crate::streams::process::{self, Process, RequestedStreams};
use crate::streams::{self, Client, SessionKind, forward};
use crate::usage::{exposition, summary};
use query::Query;

/// Pieces of log that wait for a slow reader.
const LOG_PIECES: usize = 4;
/// A client that does not say what it wants in this time is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

type Body = BoxBody<Bytes, io::Error>;

/// A refusal: status and one sentence.
struct Refusal(StatusCode, String);

type Answer = Result<Response<Body>, Refusal>;

fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, message.into())
}

fn not_found(message: impl Into<String>) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, message.into())
}

fn internal(message: impl ToString) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, message.to_string())
}

/// Serves one connection.
pub(crate) async fn serve(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A client that goes away in the middle is how streams end.
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    match route(shared, request).await {
        Ok(response) => response,
        Err(Refusal(status, message)) => {
            let mut response = text(message);
            *response.status_mut() = status;
            response
        }
    }
}

async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(query::decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if request.method() != Method::GET && request.method() != Method::POST {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST".into()));
    }
    match parts.as_slice() {
        ["healthz"] => Ok(text("ok")),
        ["pods"] => Ok(pods(shared)),
        ["stats", "summary"] => {
            let document =
                summary::document(&*sampling::last(shared).await, query.is_true("only_cpu_and_memory"));
            Ok(typed("application/json", document.to_string()))
        }
        ["metrics", "resource"] => {
            Ok(typed(exposition::MEDIA_TYPE, exposition::resource(&*sampling::last(shared).await)))
        }
        ["metrics", "cadvisor"] => {
            Ok(typed(exposition::MEDIA_TYPE, exposition::cadvisor(&*sampling::last(shared).await)))
        }
        ["containerLogs", namespace, pod, container] => {
            let found = find(shared, namespace, pod, container)?;
            container_logs(shared, found, container, &query)
        }
        ["exec", namespace, pod, container] => {
            let (handle, _) = find(shared, namespace, pod, container)?;
            exec(shared, &handle, container, &query, request).await
        }
        ["attach", namespace, pod, container] => {
            let (handle, pod) = find(shared, namespace, pod, container)?;
            attach(shared, &handle, &pod, container, &query, request).await
        }
        ["portForward", namespace, pod] => port_forward(shared, namespace, pod, &query, request),
        _ => Err(not_found(format!("there is no {path} on a node"))),
    }
}

fn typed(media: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn text(body: impl Into<Bytes>) -> Response<Body> {
    typed("text/plain", body)
}

fn pods(shared: &Shared) -> Response<Body> {
    let items: Vec<Arc<Pod>> = shared.pods.list();
    let items: Vec<&Pod> = items.iter().map(Arc::as_ref).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    typed("application/json", list.to_string())
}

type Found = (Arc<PodHandle>, Arc<Pod>);

fn find(shared: &Shared, namespace: &str, name: &str, container: &str) -> Result<Found, Refusal> {
    let found = shared.find(namespace, name);
    let (handle, pod) = found.ok_or_else(|| not_found(format!("pod \"{name}\" not found on this node")))?;
    let known = pod.spec.as_ref().and_then(|s| find_container(s, container)).is_some();
    if known {
        return Ok((handle, pod));
    }
    Err(bad_request(format!("container {container} is not valid for pod {name}")))
}

fn container_logs(shared: &Arc<Shared>, (handle, pod): Found, container: &str, query: &Query) -> Answer {
    let options = query.log_options(shared.clock.now()).map_err(bad_request)?;
    let (attempt, running) = which_run(&handle, &pod, container, options.previous)?;
    let ended = CancellationToken::new();
    let (sink, pieces) = mpsc::channel(LOG_PIECES);
    let path = handle.dir.log(container, attempt);
    let sandbox = handle.state().sandbox.clone().filter(|_| running);
    let id = ContainerRecord::id(container, attempt);
    if !options.follow {
        ended.cancel();
    }
    shared.tasks.spawn("logs", async move {
        let over = async {
            if let Some(sandbox) = sandbox {
                sandbox.wait(&id).await;
            }
        };
        logs::stream(path, options, over, sink).await;
    });
    let pieces = tokio_stream(pieces).map(|piece| piece.map(Frame::data));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn tokio_stream(pieces: mpsc::Receiver<io::Result<Bytes>>) -> impl futures::Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) })
}

/// The run whose log is meant, and whether it goes on.
fn which_run(handle: &PodHandle, pod: &Pod, container: &str, previous: bool) -> Result<(u32, bool), Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let known = handle.state();
    let state = known.record.container(container);
    let last = state.last.as_ref().map(|l| l.attempt);
    if previous {
        // While it waits for its next run, the run that has ended is the previous one: describe says the same.
        if let (Run::Exited(ended), Some(spec)) = (&state.run, &pod.spec)
            && spec.containers.iter().any(|c| c.name == container)
            && !is_final(pod, container, ended)
        {
            return Ok((state.attempt, false));
        }
        let missing = || {
            bad_request(format!("previous terminated container \"{container}\" in pod \"{name}\" not found"))
        };
        return last.map(|attempt| (attempt, false)).ok_or_else(missing);
    }
    match (&state.run, last) {
        (Run::Running { .. }, _) => Ok((state.attempt, true)),
        (Run::Exited(_), _) => Ok((state.attempt, false)),
        (_, Some(attempt)) => Ok((attempt, false)),
        // Nothing is known of it, but a Pod that ended before this process was there has its logs.
        _ if handle.dir.log(container, state.attempt).exists() => Ok((state.attempt, false)),
        _ => {
            let statuses = pod.status.iter().flat_map(|s| {
                s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten())
            });
            let said =
                statuses.filter(|s| s.name == container).find_map(|s| s.state.clone()?.waiting?.reason);
            let why = said.unwrap_or_else(|| "ContainerCreating".into());
            let why = match why.as_str() {
                "ErrImagePull" | "ImagePullBackOff" => format!("trying and failing to pull image ({why})"),
                _ => why,
            };
            Err(bad_request(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {why}"
            )))
        }
    }
}

/// Agrees on a protocol; `then` goes on with the client as a task.
fn upgrade<F, W>(shared: &Arc<Shared>, mut request: Request<Incoming>, kind: SessionKind, then: F) -> Answer
where
    F: FnOnce(Client) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let (response, agreement) = streams::accept(request.headers(), kind).map_err(bad_request)?;
    let upgraded = hyper::upgrade::on(&mut request);
    shared.tasks.spawn("stream", async move {
        if let Ok(upgraded) = upgraded.await {
            then(Client::new(upgraded, agreement).await).await;
        }
    });
    Ok(response.map(|()| Empty::new().map_err(|never| match never {}).boxed()))
}

/// The streams that a request names.
fn wanted(query: &Query) -> RequestedStreams {
    RequestedStreams {
        stdin: query.is_true("input"),
        stdout: query.is_true("output"),
        stderr: query.is_true("error"),
        terminal: query.is_true("tty"),
    }
}

async fn exec(
    shared: &Arc<Shared>,
    handle: &PodHandle,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let args: Vec<String> = query.all("command").map(str::to_owned).collect();
    if args.is_empty() {
        return Err(bad_request("say what to run with at least one command parameter"));
    }
    let Some((sandbox, id)) = handle.state().running(container) else {
        let message = format!("container not found (\"{container}\"): it does not run");
        return refuse(shared, request, query, message);
    };
    let wanted = wanted(query);
    let spec = ExecSpec { args, env: Vec::new(), terminal: wanted.terminal, stdin: wanted.stdin };
    upgrade(shared, request, SessionKind::Process, move |client| async move {
        let mut session = match sandbox.exec(&id, spec).await {
            Ok(session) => session,
            Err(error) => {
                let message = format!("error executing command in container: {error}");
                return process::fail(client, wanted, message).await;
            }
        };
        let resizer = session.resizer();
        let process = Process {
            stdin: session.stdin.take().map(|s| Box::new(s) as _),
            stdout: session
                .stdout
                .take()
                .filter(|_| wanted.stdout || wanted.terminal)
                .map(|s| Box::new(s) as _),
            stderr: session.stderr.take().filter(|_| wanted.stderr).map(|s| Box::new(s) as _),
            resize: match resizer {
                // A terminal that is gone has no size: the client sees its end soon enough.
                Ok(resize) => Box::new(move |columns, rows| drop(resize(columns, rows))),
                Err(_) => Box::new(|_, _| {}),
            },
        };
        let end = async move {
            match session.wait().await {
                Ok(code) => process::exit_status(code),
                Err(error) => process::failure_status(&error.to_string()),
            }
        };
        process::join(client, wanted, process, end).await;
    })
}

async fn attach(
    shared: &Arc<Shared>,
    handle: &PodHandle,
    pod: &Pod,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let Some((sandbox, id)) = handle.state().running(container) else {
        return refuse(shared, request, query, format!("container {container} is not running"));
    };
    let session = match sandbox.attach(&id).await {
        Ok(session) => session,
        Err(error) => return refuse(shared, request, query, error.to_string()),
    };
    let spec = pod.spec.as_ref().and_then(|s| find_container(s, container));
    let mut wanted = wanted(query);
    // A client that names no stream at all wants to see the output.
    wanted.stdout |= !wanted.stdin && !wanted.stderr;
    let once = spec.is_some_and(|c| c.stdin == Some(true) && c.stdin_once == Some(true)) && wanted.stdin;
    upgrade(shared, request, SessionKind::Process, move |client| async move {
        let resizer = session.resizer();
        let (input_open, input_ended) = oneshot::channel();
        let process = Process {
            stdin: session
                .stdin
                .filter(|_| wanted.stdin)
                .map(|s| Box::new(process::DropNotifier::new(s, input_open)) as _),
            stdout: Some(session.stdout).filter(|_| wanted.stdout).map(|s| Box::new(s) as _),
            stderr: session.stderr.filter(|_| wanted.stderr).map(|s| Box::new(s) as _),
            resize: match resizer {
                Ok(resize) => Box::new(move |columns, rows| drop(resize(columns, rows))),
                Err(_) => Box::new(|_, _| {}),
            },
        };
        let closing = async {
            // Ready once the client has said all: the sender goes with the stream.
            let _ = input_ended.await;
            if once {
                // Fails where the container has ended, which is as good.
                let _ = sandbox.close_stdin(&id).await;
            }
        };
        // Attaching has no exit code of its own: it ends well when the container's output does.
        let joined = process::join(client, wanted, process, async { process::exit_status(0) });
        tokio::join!(joined, closing);
    })
}

/// Tells a client on its status channel why nothing was begun: kubectl shows that, but not a refused upgrade.
fn refuse(shared: &Arc<Shared>, request: Request<Incoming>, query: &Query, message: String) -> Answer {
    let wanted = wanted(query);
    upgrade(shared, request, SessionKind::Process, move |client| process::fail(client, wanted, message))
}

fn port_forward(
    shared: &Arc<Shared>,
    namespace: &str,
    name: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let ports = query.all("port").flat_map(|v| v.split(',')).map(str::parse::<NonZeroU16>);
    let ports: Vec<u16> = ports
        .map(|port| port.map(NonZeroU16::get))
        .collect::<Result<_, _>>()
        .map_err(|_| bad_request("ports must be numbers from 1 to 65535"))?;
    let (handle, pod) = shared
        .find(namespace, name)
        .ok_or_else(|| not_found(format!("pod \"{name}\" not found on this node")))?;
    let state = handle.state();
    let sandbox = state.sandbox.as_ref().ok_or_else(|| internal(format!("pod \"{name}\" is not running")))?;
    let address = shared.ports_address(&pod, state.record.address);
    let place = forward::ForwardTarget {
        netns: sandbox.spec().netns.clone(),
        address: address.ok_or_else(|| internal(format!("pod \"{name}\" has no address yet")))?,
        pod: format!("{namespace}/{name}"),
    };
    upgrade(shared, request, SessionKind::PortForward, move |client| forward::serve(client, place, ports))
}

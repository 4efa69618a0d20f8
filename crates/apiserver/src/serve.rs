//! HTTPS: connections, who they belong to, and their end.

mod timeouts;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::audit::ClientAddress;
use crate::auth::Identity;
use crate::content::Body;
use crate::server::{ApiServer, SameMachine};
use crate::status::{Failure, Result};
use timeouts::{Activity, Answer, HEAD_TIMEOUT, IDLE_TIMEOUT, Noted, Overdue};

/// Open connections. Each may cost some hundred KiB while it is busy; a cluster of a thousand nodes has a few thousand.
const MAX_CONNECTIONS: usize = 4096;
/// Requests at once on one HTTP/2 connection. As in Kubernetes' later versions.
const MAX_STREAMS: u32 = 250;
/// A client has to say who it is, and what it wants, within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// An HTTP/2 connection is asked for a sign of life this often, and has this long to give it: one that stops in the
/// middle of a request's head cannot. As kube-apiserver does.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests that run when the server stops get so long to end.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// After a failure to accept (as when file descriptors run out) the next attempt waits, so as not to spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Buffer of a connection within the process.
const IN_PROCESS_BUFFER: usize = 64 << 10;

/// The protocol of a connection, as the TLS handshake agreed.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    Http2,
}

/// Ends the watches of a listener's connections.
#[derive(Clone, Debug)]
pub(crate) struct EndWatches(pub(crate) CancellationToken);

/// Runs hyper's tasks under an owner.
#[derive(Clone)]
struct Owned(TaskTracker);

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl ApiServer {
    /// Serves HTTPS on `listener` until `shutdown` is ready; then no more connections are taken, watches end, running
    /// requests get a moment, and what is left is cut off.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let end = self.inner.stop.child_token();
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = end.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &places) => accepted,
            };
            match accepted {
                Ok((place, stream)) => {
                    let (server, acceptor, end) = (self.clone(), acceptor.clone(), end.clone());
                    connections.spawn(async move {
                        let _place = place;
                        server.connection(stream, acceptor, end).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.inner.clock.sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        drop(listener);
        end.cancel();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all_ended).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn connection(&self, stream: TcpStream, acceptor: TlsAcceptor, end: CancellationToken) {
        let address = stream.peer_addr().ok().map(|address| address.ip().to_canonical());
        // Answers are written whole; waiting to fill a packet only delays the last part. Without it they come later.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let session = stream.get_ref().1;
        let identity = session.peer_certificates().and_then(|c| Identity::of_certificate(c.first()?));
        let protocol = match session.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        self.serve_stream(stream, protocol, identity, address, end).await;
    }

    /// Serves one connection until it ends, is overdue, or `end` comes. Without an address, it is one from within the
    /// process.
    async fn serve_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        protocol: Protocol,
        identity: Option<Identity>,
        address: Option<IpAddr>,
        end: CancellationToken,
    ) {
        let activity = Activity::new();
        let (ends, requests) = (end.clone(), activity.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(EndWatches(ends.clone()));
            if let Some(identity) = &identity {
                extensions.insert(identity.clone());
            }
            // Only the audit log asks for it.
            if let Some(address) = address.filter(|_| self.inner.config.audit.is_some()) {
                extensions.insert(ClientAddress(address));
            }
            if address.is_none_or(|address| address.is_loopback()) {
                extensions.insert(SameMachine);
            }
            let (mut server, request_ends) = (self.clone(), requests.request());
            async move {
                let answer = server.call(request).await;
                answer.map(|answer| answer.map(|body| Answer { body, _request: request_ends }))
            }
        });
        let mut builder = auto::Builder::new(Owned(self.inner.tasks.clone()));
        builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS);
        let (builder, noted) = match protocol {
            Protocol::Http1 => (builder.http1_only(), Some(activity.clone())),
            Protocol::Http2 => (builder.http2_only(), None),
        };
        let stream = TokioIo::new(Noted { stream, activity: noted });
        let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            overdue = timeouts::overdue(&activity, &*self.inner.clock) => match overdue {
                Overdue::Head => return tracing::debug!("a request's head took longer than {HEAD_TIMEOUT:?}"),
                Overdue::Idle => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            },
            () = end.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// A request that changes its connection's protocol, from within the process: it gets a connection of its own.
    pub(crate) async fn upgrade_in_process(
        self,
        request: Request<kube::client::Body>,
        identity: Identity,
    ) -> Result<Response<Body>, Infallible> {
        let (ours, theirs) = tokio::io::duplex(IN_PROCESS_BUFFER);
        let end = self.inner.stop.child_token();
        let server = self.clone();
        self.inner.tasks.spawn(async move {
            server.serve_stream(theirs, Protocol::Http1, Some(identity), None, end).await;
        });
        let answer = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await?;
            let stop = self.inner.stop.clone().cancelled_owned();
            self.inner.tasks.spawn(async move {
                tokio::select! {
                    () = stop => {}
                    // Its errors reach whoever reads the answer.
                    _ = connection.with_upgrades() => {}
                }
            });
            sender.send_request(request).await
        };
        Ok(match answer.await {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => answer.map(|_| Body::empty()),
            Ok(answer) => answer.map(Body::from_incoming),
            Err(error) => crate::content::failure(&Failure::internal(error)),
        })
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, TcpStream)> {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((place, stream))
}

#[cfg(test)]
mod tests {

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use yado_store::{Embedded, Store};
    use yado_types::clock::{Clock, ManualClock};

    use super::*;
    use crate::node_proxy::NoNodes;
    use crate::server::Config;

    #[tokio::test]
    async fn a_head_without_end_closes_its_connection() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().expect("a time"));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let server = ApiServer::new(Config::default(), store.clone(), shared, Arc::new(NoNodes)).await;
        let server = server.expect("a server");
        for (protocol, first) in [
            (Protocol::Http1, "GET /healthz HTTP/1.1\r\nHost: x\r\n"),
            (Protocol::Http1, ""),
            (Protocol::Http2, "PRI * HTTP/2.0\r\n"),
        ] {
            let (mut ours, theirs) = tokio::io::duplex(4096);
            let (served, end) = (server.clone(), CancellationToken::new());
            let serving =
                tokio::spawn(async move { served.serve_stream(theirs, protocol, None, None, end).await });
            ours.write_all(first.as_bytes()).await.expect("it is open");
            while !serving.is_finished() {
                clock.advance(Duration::from_secs(1));
                if matches!(protocol, Protocol::Http1) && !first.is_empty() {
                    // It may be closed by now.
                    let _ = ours.write_all(b"X: y\r\n").await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut answer = Vec::new();
            ours.read_to_end(&mut answer).await.expect("it is closed");
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{protocol:?} {first:?}");
        }
        server.shutdown().await;
        store.close().await;
    }
}

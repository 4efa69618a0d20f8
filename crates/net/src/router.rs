//! The ingress router: HTTP requests by Host and path to ready endpoints, past the packet filter.
//!
//! - [`routes`]: which backend a request belongs to, pure; [`path`]: the form of a path that it is chosen by, pure.
//! - [`request`], [`forwarded`]: what a request must look like, and the head that the app is sent, pure.
//! - [`response`], [`chunked`]: where a response ends, pure.
//! - [`upstream`]: connections to one endpoint, kept for the next request; [`exchange`] and [`body`]: a request and its
//!   response over one of them.
//! - [`clients`]: how much each client may hold; [`client_io`]: interim responses to clients.
//! - [`proxy`]: one request from a client to an endpoint and back.
//!
//! Clients speak HTTP/1 or HTTP/2 by prior knowledge, which hyper serves; apps are spoken to in HTTP/1.1. That side is
//! our own, since hyper's client passes no interim responses and no reasons on, and wakes a task of its own for each
//! part of a message.

pub mod body;
pub mod chunked;
pub mod client_io;
pub mod clients;
pub mod exchange;
pub mod forwarded;
pub mod path;
pub mod proxy;
pub mod request;
pub mod response;
pub mod routes;
pub mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::RwLock;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use yado_reconcile::{Clock, Tasks};

use crate::index::Snapshot;
use client_io::{ClientIo, Interim};
use clients::{Clients, Connection, Limits};
use forwarded::{Peer, TrustedProxies};
use routes::Routes;
use upstream::Upstream;

/// Bytes read ahead on one connection, and roughly the most that headers may take: with every connection at its limit
/// the router needs half a GiB.
const BUFFER: usize = 64 << 10;
/// A client that has not sent its headers by then is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent connection is asked after this whether its other end still lives.
const KEEPALIVE_SECONDS: u32 = 60;
/// How long an endpoint that is leaving may finish the requests it has before it is told to stop. Longer ones are
/// between it and its grace period.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections may finish when the router itself stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at once on one connection of HTTP/2: what RFC 9113 recommends at least.
const STREAMS: u32 = 100;
/// What a client of HTTP/2 may send of one request, and of all on a connection, before an app has taken it.
const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the router is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Proxies in front of it whose forwarding headers are kept.
    pub trusted_proxies: TrustedProxies,
    /// What clients may hold of it at once.
    pub limits: Limits,
}

/// The router of one node.
pub struct Router {
    routes: RwLock<Arc<Routes>>,
    trusted: TrustedProxies,
    clients: Arc<Clients>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
}

/// Binds the addresses, so that a port in use is told before anything else is set up.
pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 is served over IPv4.
            Err(error) if address.is_ipv6() && !listeners.is_empty() && is_absent(&error) => {}
            Err(error) => return Err((*address, error)),
        }
    }
    Ok(listeners)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

impl Router {
    /// Serves `listeners` with the routes of each snapshot, until the tasks are stopped.
    pub fn start(
        listeners: Vec<TcpListener>,
        options: Options,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        applied: watch::Sender<u64>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) {
        let router = Arc::new(Self {
            routes: RwLock::default(),
            trusted: options.trusted_proxies,
            clients: Clients::new(options.limits),
            tasks: tasks.clone(),
            clock,
        });
        tasks.spawn("routes", router.clone().follow(snapshots, applied));
        for listener in listeners {
            tasks.spawn("router", router.clone().accept(listener));
        }
    }

    fn routes(&self) -> Arc<Routes> {
        self.routes.read().clone()
    }

    /// Swaps the table at every change, and acknowledges it once the endpoints that left have finished their
    /// requests.
    async fn follow(
        self: Arc<Self>,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        applied: watch::Sender<u64>,
    ) {
        let mut upstreams = Upstreams::default();
        let mut finishing = FuturesUnordered::new();
        let (mut latest, mut outstanding) = (0, BTreeMap::<u64, usize>::new());
        // The state it starts with is one to apply, too.
        snapshots.mark_changed();
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    latest = snapshot.generation;
                    let (routes, left) = upstreams.compile(&snapshot);
                    *self.routes.write() = Arc::new(routes);
                    if !left.is_empty() {
                        outstanding.insert(latest, left.len());
                    }
                    for (upstream, mut in_use) in left {
                        // Not before the table without it is in place, where requests that it turns away look again.
                        upstream.leave();
                        let timeout = self.clock.sleep(DRAIN_TIMEOUT);
                        finishing.push(async move {
                            tokio::select! {
                                _ = in_use.recv() => {}
                                () = timeout => {}
                            }
                            latest
                        });
                    }
                }
                Some(generation) = finishing.next() => {
                    if let Some(count) = outstanding.get_mut(&generation) {
                        *count -= 1;
                        if *count == 0 {
                            outstanding.remove(&generation);
                        }
                    }
                }
            }
            let done = outstanding.keys().next().map_or(latest, |first| first - 1);
            applied.send_if_modified(|known| std::mem::replace(known, done) != done);
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    let Some(place) = self.clients.place().await else { return };
                    let local = stream.local_addr().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
                    let address = client.ip().to_canonical();
                    let trusted = self.trusted.contains(address);
                    let peer = Peer { address, port: local.port(), trusted };
                    let Some(connection) = self.clients.admit(peer, place) else {
                        refuse(&stream);
                        continue;
                    };
                    let router = self.clone();
                    self.tasks.spawn_until_stopped("client", async move {
                        router.serve(stream, connection).await;
                    });
                }
                // The client went away, or descriptors ran out: then waiting is all that helps.
                Err(_) => self.clock.sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream, connection: Arc<Connection>) {
        // Without it small answers wait for the client's acknowledgement; a socket that refuses it still works.
        let _ = stream.set_nodelay(true);
        // A client that lost its power says no farewell; its tunnel would stay for ever.
        let _ = setsockopt(&stream, sockopt::KeepAlive, &true);
        let _ = setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS);
        let stop = self.tasks.stop();
        let began = tokio::select! {
            began = tokio::time::timeout(HEADER_TIMEOUT, first_bytes(&mut stream)) => began,
            () = stop.cancelled() => return,
            () = connection.evicted() => return,
        };
        match began {
            Ok(Ok(began)) if began.starts_with(PREFACE) => self.serve_http2(stream, began, connection).await,
            Ok(Ok(began)) => self.serve_http1(stream, began, connection).await,
            // It sent nothing, or went away.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn serve_http1(self: Arc<Self>, stream: TcpStream, began: BytesMut, connection: Arc<Connection>) {
        let interim = Arc::<Interim>::default();
        let io = TokioIo::new(ClientIo::new(stream, began.freeze(), interim.clone()));
        let (router, of) = (self.clone(), connection.clone());
        let service = service_fn(move |request| {
            let to_client = Some((interim.clone(), interim.mark()));
            proxy::serve(router.clone(), of.clone(), to_client, request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(BUFFER);
        // A client that has sent its request may end its side, and waits for the response all the same.
        builder.half_close(true);
        let mut served = pin!(builder.serve_connection(io, service).with_upgrades());
        tokio::select! {
            // A client's broken connection is its own affair.
            _ = served.as_mut() => return,
            () = self.asked_to_end(&connection) => {}
        }
        served.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(STOP_TIMEOUT, served).await;
    }

    async fn serve_http2(self: Arc<Self>, stream: TcpStream, began: BytesMut, connection: Arc<Connection>) {
        let io = TokioIo::new(ClientIo::new(stream, began.freeze(), Arc::default()));
        let (router, of) = (self.clone(), connection.clone());
        let service = service_fn(move |request| proxy::serve(router.clone(), of.clone(), None, request));
        let mut builder = http2::Builder::new(Streams(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buf_size(BUFFER)
            .max_header_list_size(BUFFER as u32);
        let mut served = pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = served.as_mut() => return,
            () = self.asked_to_end(&connection) => {}
        }
        served.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(STOP_TIMEOUT, served).await;
    }

    /// Ready when the router stops, or the connection has to make way for another.
    async fn asked_to_end(&self, connection: &Connection) {
        tokio::select! {
            () = self.tasks.stop().cancelled_owned() => {}
            () = connection.evicted() => {}
        }
    }
}

/// Runs the requests of HTTP/2 connections, each as a task of the router.
#[derive(Clone)]
struct Streams(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn_until_stopped("stream", stream);
    }
}

/// Reads until it is certain whether a client speaks HTTP/2.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<BytesMut> {
    // Most of the connections that never say anything hold no buffer.
    stream.readable().await?;
    let mut began = BytesMut::with_capacity(BUFFER / 8);
    loop {
        if stream.read_buf(&mut began).await? == 0 {
            return Ok(began);
        }
        if began.len() >= PREFACE.len() || !PREFACE.starts_with(&began) {
            return Ok(began);
        }
    }
}

/// Says why a connection is not served, without waiting for the client.
fn refuse(stream: &TcpStream) {
    let text = clients::TOO_MANY;
    let response = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len()
    );
    // A client that cannot even take this is not owed it.
    let _ = stream.try_write(response.as_bytes());
}

/// Every endpoint that some route leads to, kept from table to table with its connections.
#[derive(Default)]
struct Upstreams {
    known: HashMap<SocketAddr, TrackedUpstream>,
}

/// An upstream, and a receiver that is closed once the upstream has left and its last request has ended.
type TrackedUpstream = (Arc<Upstream>, mpsc::Receiver<()>);

impl Upstreams {
    /// The routes of a snapshot, and what it no longer leads to: that is to leave, and its receiver ends when the last
    /// request there has.
    fn compile(&mut self, snapshot: &Snapshot) -> (Routes, Vec<TrackedUpstream>) {
        let mut used: HashMap<SocketAddr, Arc<Upstream>> = HashMap::new();
        let routes = Routes::of(snapshot, |address| {
            let known = self.known.entry(address).or_insert_with(|| Upstream::new(address));
            used.entry(address).or_insert_with(|| known.0.clone()).clone()
        });
        let gone: Vec<_> = self.known.keys().filter(|a| !used.contains_key(a)).copied().collect();
        let left = gone.iter().filter_map(|address| self.known.remove(address)).collect();
        (routes, left)
    }
}

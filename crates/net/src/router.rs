//! The ingress router: HTTP requests by Host and path to ready endpoints, past the packet filter.
//!
//! - [`routes`]: which backend a request belongs to, pure.
//! - [`request`]: what a request must look like, and what is changed before it goes on, pure.
//! - [`upstream`]: connections to one endpoint, kept for the next request.
//! - [`proxy`]: one request from a client to an endpoint and back.

pub mod proxy;
pub mod request;
pub mod routes;
pub mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use yado_reconcile::{Clock, Tasks};

use crate::index::Snapshot;
use proxy::Connection;
use routes::Routes;
use upstream::Upstream;

/// Client connections at once; further ones wait in the kernel's queue. Each costs some 20 KiB.
const CONNECTIONS: usize = 8192;
/// Bytes read ahead on one connection, and roughly the most that headers may take: with every connection at its limit
/// the router needs half a GiB.
const BUFFER: usize = 64 << 10;
/// A client that has not sent its headers by then is let go.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);
/// A silent connection is asked after this whether its other end still lives.
const KEEPALIVE_SECONDS: u32 = 60;
/// How long an endpoint that is leaving may finish the requests it has before it is told to stop. Longer ones are
/// between it and its grace period.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);
/// How long connections may finish when the router itself stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The router of one node.
pub struct Router {
    routes: RwLock<Arc<Routes>>,
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
        snapshots: watch::Receiver<Arc<Snapshot>>,
        applied: watch::Sender<u64>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) {
        let router = Arc::new(Self { routes: RwLock::default(), tasks: tasks.clone(), clock });
        tasks.spawn("routes", router.clone().follow(snapshots, applied));
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        for listener in listeners {
            tasks.spawn("router", router.clone().accept(listener, slots.clone()));
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
                        let patience = self.clock.sleep(FINISH_PATIENCE);
                        finishing.push(async move {
                            tokio::select! {
                                _ = in_use.recv() => {}
                                () = patience => {}
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

    async fn accept(self: Arc<Self>, listener: TcpListener, slots: Arc<Semaphore>) {
        loop {
            // The semaphore is never closed.
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let router = self.clone();
                    self.tasks.spawn_until_stopped("client", async move {
                        router.serve(stream, client, slot).await;
                    });
                }
                // The client went away, or descriptors ran out: then waiting is all that helps.
                Err(_) => self.clock.sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr, place: OwnedSemaphorePermit) {
        // Without it small answers wait for the client's acknowledgement; a socket that refuses it still works.
        let _ = stream.set_nodelay(true);
        // A client that lost its power says no farewell; its tunnel would stay for ever.
        let _ = setsockopt(&stream, sockopt::KeepAlive, &true);
        let _ = setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS);
        let local = stream.local_addr().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
        let from = request::Client { address: client.ip().to_canonical(), port: local.port() };
        let (router, connection) = (self.clone(), Arc::new(Connection { client: from, place }));
        let service = service_fn(move |request| proxy::serve(router.clone(), connection.clone(), request));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE).max_buf_size(BUFFER);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = pin!(connection);
        let stop = self.tasks.stop();
        tokio::select! {
            // A client's broken connection is its own affair.
            _ = connection.as_mut() => return,
            () = stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(STOP_PATIENCE, connection).await;
    }
}

/// Every endpoint that some route leads to, kept from table to table with its connections.
#[derive(Default)]
struct Upstreams {
    known: HashMap<SocketAddr, Known>,
}

/// An endpoint, and what ends when it has left and its last request has ended.
type Known = (Arc<Upstream>, mpsc::Receiver<()>);

impl Upstreams {
    /// The routes of a snapshot, and what it no longer leads to: that is to leave, and its receiver ends when the last
    /// request there has.
    fn compile(&mut self, snapshot: &Snapshot) -> (Routes, Vec<Known>) {
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

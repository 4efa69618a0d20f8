//! The DNS server over UDP and TCP, and forwarding of queries outside the cluster's zone to the machine's resolvers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, watch};
use yado_reconcile::{Clock, Index, Tasks};

use super::message::{self, Answer, Code, Name, Query, Record};
use super::zone::{Decision, Zone};
use crate::index::Snapshot;

/// Queries that wait for an upstream resolver at once, and TCP connections at once; further ones are dropped, and
/// their clients ask again. A Pod that floods the server does not take the node's memory, and never keeps another
/// one's query for our own names from its answer.
const UNDER_WAY: usize = 512;
/// How many of those queries one client may have: as many as a busy resolver of its own would send at once.
const WAITING_OF_CLIENT: usize = 128;
/// How many of those connections one client may have; for one more, the one that idled longest is closed. A client needs
/// one for all its queries (RFC 7766, 6.2.2).
const CONNECTIONS_OF_CLIENT: usize = 32;
/// Resolvers of the machine that are asked, as many as the C library asks.
const RESOLVERS: usize = 3;
/// Timeout of a query to one upstream resolver, after which the next is asked: half the timeout of common clients.
const UPSTREAM_TIMEOUT: Duration = Duration::from_millis(2500);
/// Timeout of a TCP connection for the next query and for writing a response.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// The DNS server for Pods.
pub struct Server {
    /// The zone for which the server is authoritative.
    pub zone: Zone,
    /// Snapshots of the routing index.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Pods by address, which give the client's namespace.
    pub pods: Arc<Index<IpAddr, Pod>>,
    /// Resolvers for names outside the zone, in the order in which they are asked.
    pub upstream: Vec<SocketAddr>,
    /// The clock for timeouts.
    pub clock: Arc<dyn Clock>,
}

/// The server's bound sockets.
pub struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds a UDP and a TCP socket to the address.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { udp: Arc::new(UdpSocket::bind(address).await?), tcp: TcpListener::bind(address).await? })
    }
}

impl Server {
    /// Starts the tasks that answer queries, which belong to `tasks`.
    pub fn start(self, sockets: Sockets, tasks: &Tasks) {
        let server = Arc::new(self);
        let waiting = ClientPermits::new(UNDER_WAY, WAITING_OF_CLIENT);
        let connections = Connections::new(UNDER_WAY, CONNECTIONS_OF_CLIENT);
        let Sockets { udp, tcp } = sockets;
        let (own, owner) = (server.clone(), tasks.clone());
        tasks.spawn("dns over udp", async move {
            let mut packet = [0u8; 4096];
            loop {
                // An error here is one of an earlier answer that could not be delivered: it concerns nobody else.
                let Ok((length, from)) = udp.recv_from(&mut packet).await else { continue };
                // Most names are ours: they are answered here and now. Only what must wait gets a task.
                match own.at_once(&packet[..length], from.ip()) {
                    QueryOutcome::Reply(answer) => _ = udp.send_to(&answer, from).await,
                    QueryOutcome::Ignore => {}
                    QueryOutcome::Forward(query) => {
                        let Some(place) = waiting.take(from.ip()) else { continue };
                        let (own, udp, asked) = (own.clone(), udp.clone(), packet[..length].to_vec());
                        owner.spawn("dns query", async move {
                            let answer = own.ask_upstream(&asked, &query, true).await;
                            let _ = udp.send_to(&answer, from).await;
                            drop(place);
                        });
                    }
                }
            }
        });
        let owner = tasks.clone();
        tasks.spawn("dns over tcp", async move {
            loop {
                let Ok((stream, from)) = tcp.accept().await else {
                    // Out of descriptors: waiting is all that helps.
                    server.clock.sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let Some(connection) = connections.open(from.ip()) else { continue };
                let server = server.clone();
                owner.spawn("dns connection", async move {
                    let _ = server.serve(stream, from.ip(), &connection).await;
                });
            }
        });
    }

    /// One TCP connection: packets with their length before them.
    async fn serve(&self, mut stream: TcpStream, from: IpAddr, connection: &Connection) -> io::Result<()> {
        loop {
            connection.idles(true);
            let read = async {
                let length = stream.read_u16().await?;
                let mut packet = vec![0; length.into()];
                stream.read_exact(&mut packet).await?;
                io::Result::Ok(packet)
            };
            let packet = tokio::select! {
                packet = read => packet?,
                () = connection.close.notified() => return Ok(()),
                () = self.clock.sleep(TCP_TIMEOUT) => return Ok(()),
            };
            connection.idles(false);
            let answer = match self.decide(&packet, from, usize::from(u16::MAX)) {
                QueryOutcome::Reply(answer) => answer,
                QueryOutcome::Ignore => return Ok(()),
                QueryOutcome::Forward(query) => self.ask_upstream(&packet, &query, false).await,
            };
            let write = async {
                stream.write_u16(answer.len() as u16).await?;
                stream.write_all(&answer).await
            };
            tokio::select! {
                written = write => written?,
                // It asks, but does not read.
                () = self.clock.sleep(TCP_TIMEOUT) => return Ok(()),
            }
        }
    }

    fn at_once(&self, packet: &[u8], from: IpAddr) -> QueryOutcome {
        self.decide(packet, from, 0)
    }

    /// `limit` is the transport's; 0 takes the one that the query names.
    fn decide(&self, packet: &[u8], from: IpAddr, limit: usize) -> QueryOutcome {
        let query = match message::parse(packet) {
            Ok(query) => query,
            Err(Some((id, code))) => return QueryOutcome::Reply(message::refusal(id, code)),
            Err(None) => return QueryOutcome::Ignore,
        };
        let limit = if limit == 0 { query.udp_size } else { limit };
        if let Some(code) = query.objection {
            let answer = Answer { authoritative: false, ..Answer::of(code, Vec::new()) };
            return QueryOutcome::Reply(message::encode(&query, &answer, limit));
        }
        match self.decision(&query, from) {
            Decision::Answer(answer) => QueryOutcome::Reply(message::encode(&query, &answer, limit)),
            Decision::Follow(answer, target) => {
                QueryOutcome::Forward(Pending { query, follow: Some((answer, target)) })
            }
            Decision::Forward => QueryOutcome::Forward(Pending { query, follow: None }),
        }
    }

    fn decision(&self, query: &Query, from: IpAddr) -> Decision {
        let pods = self.pods.get(&from);
        let namespace = pods.first().and_then(|pod| pod.metadata.namespace.as_deref());
        self.zone.decide(&self.snapshots.borrow(), query, namespace)
    }

    async fn ask_upstream(&self, packet: &[u8], pending: &Pending, udp: bool) -> Vec<u8> {
        let limit = if udp { pending.query.udp_size } else { usize::from(u16::MAX) };
        let failure = || {
            let failure = Answer { authoritative: false, ..Answer::of(Code::ServerFailure, Vec::new()) };
            message::encode(&pending.query, &failure, limit)
        };
        let Some((answer, target)) = &pending.follow else {
            return self.ask(packet, udp).await.unwrap_or_else(failure);
        };
        let question = message::query(pending.query.id, target, pending.query.kind);
        let mut found = self.ask(&question, udp).await;
        if found.as_deref().is_some_and(message::is_truncated) {
            found = self.ask(&question, false).await;
        }
        let Some(found) = found else { return failure() };
        let records = message::addresses(&found).into_iter();
        let records = records.map(|(ttl, data)| Record { name: target.clone(), ttl, data });
        let answers = answer.answers.iter().cloned().chain(records).collect();
        let whole = Answer { code: message::code(&found), answers, ..answer.clone() };
        message::encode(&pending.query, &whole, limit)
    }

    /// Asks the upstream resolvers in turn, until one knows: a name, or that there is none.
    async fn ask(&self, packet: &[u8], udp: bool) -> Option<Vec<u8>> {
        let mut last = None;
        for resolver in &self.upstream {
            let asked = async {
                if udp { ask_udp(*resolver, packet).await } else { ask_tcp(*resolver, packet).await }
            };
            let answer = tokio::select! {
                answer = asked => answer.ok(),
                () = self.clock.sleep(UPSTREAM_TIMEOUT) => None,
            };
            match answer {
                Some(answer) if message::code(&answer) != Code::ServerFailure => return Some(answer),
                Some(answer) => last = Some(answer),
                None => {}
            }
        }
        last
    }
}

/// Permits for concurrent queries, limited in total and per client, so that no client holds all of them.
struct ClientPermits {
    limit: usize,
    limit_of_client: usize,
    /// Number of permits in use by client; clients without any are absent.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A permit of a client, which is returned when it is dropped.
struct ClientPermit {
    permits: Arc<ClientPermits>,
    client: IpAddr,
}

impl ClientPermits {
    fn new(limit: usize, limit_of_client: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_of_client, taken: Mutex::default() })
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Option<ClientPermit> {
        let mut taken = self.taken.lock();
        let own = taken.get(&client).copied().unwrap_or_default();
        if own == self.limit_of_client || taken.values().sum::<usize>() == self.limit {
            return None;
        }
        taken.insert(client, own + 1);
        Some(ClientPermit { permits: self.clone(), client })
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.lock();
        match taken.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = taken.remove(&self.client),
        }
    }
}

/// TCP connections. Where there are too many, one that idles gives way to a new one.
struct Connections {
    limit: usize,
    limit_of_client: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Grows with each change.
    time: u64,
    all: HashMap<u64, State>,
}

struct State {
    client: IpAddr,
    /// Since when it waits for a query; `None` while one is answered.
    idle_since: Option<u64>,
    close: Arc<Notify>,
}

/// A connection that is open; it counts until this is dropped or it is told to close.
struct Connection {
    id: u64,
    connections: Arc<Connections>,
    /// Told to close.
    close: Arc<Notify>,
}

impl Connections {
    fn new(limit: usize, limit_of_client: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_of_client, open: Mutex::default() })
    }

    fn open(self: &Arc<Self>, client: IpAddr) -> Option<Connection> {
        let mut open = self.open.lock();
        let count = |of: IpAddr| open.all.values().filter(|state| state.client == of).count();
        let crowded = match () {
            () if count(client) >= self.limit_of_client => Some(client),
            // The client that has the most gives one.
            () if open.all.len() >= self.limit => {
                open.all.values().map(|state| state.client).max_by_key(|client| (count(*client), *client))
            }
            () => None,
        };
        if let Some(of) = crowded {
            let idle = open.all.iter().filter(|(_, state)| state.client == of);
            let idle = idle.filter_map(|(id, state)| Some((state.idle_since?, *id)));
            let (_, longest) = idle.min()?;
            open.all.remove(&longest)?.close.notify_one();
        }
        open.time += 1;
        let (id, close) = (open.time, Arc::<Notify>::default());
        open.all.insert(id, State { client, idle_since: Some(id), close: close.clone() });
        Some(Connection { id, connections: self.clone(), close })
    }
}

impl Connection {
    fn idles(&self, idles: bool) {
        let mut open = self.connections.open.lock();
        open.time += 1;
        let now = open.time;
        if let Some(state) = open.all.get_mut(&self.id) {
            state.idle_since = idles.then_some(now);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open.lock().all.remove(&self.id);
    }
}

/// What a query leads to.
enum QueryOutcome {
    /// This encoded response.
    Reply(Vec<u8>),
    /// No response: the packet is not a query.
    Ignore,
    /// The upstream resolvers are asked.
    Forward(Pending),
}

struct Pending {
    query: Query,
    follow: Option<(Answer, Name)>,
}

/// A socket of its own for each query: its random port is what makes an answer hard to forge.
async fn ask_udp(resolver: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(packet).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Shorter than a header is no answer.
        if length >= 12 && answer[..2] == packet[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    stream.write_u16(packet.len() as u16).await?;
    stream.write_all(packet).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The resolvers of this machine, from the text of its `resolv.conf`; `own` are left out, so that no query goes in a
/// circle.
pub fn upstream(resolv_conf: &str, own: IpAddr) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.filter(|a| *a != own).take(RESOLVERS).map(|a| SocketAddr::new(a, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_never_has_all_places() {
        let places = ClientPermits::new(3, 2);
        let client = |last: u8| IpAddr::from([10, 192, 0, last]);
        let first = places.take(client(1)).expect("a place");
        let _second = places.take(client(1)).expect("a place");
        assert!(places.take(client(1)).is_none(), "it has its share");
        let third = places.take(client(2)).expect("a place for another");
        assert!(places.take(client(3)).is_none(), "all are taken");
        drop(first);
        drop(third);
        assert!(places.take(client(1)).is_some());
        assert_eq!(places.taken.lock().len(), 1, "who has none is forgotten");
    }

    #[test]
    fn a_connection_that_idles_gives_way_to_a_new_one() {
        let client = |last: u8| IpAddr::from([10, 192, 0, last]);
        let told =
            |connection: &Connection| !connection.connections.open.lock().all.contains_key(&connection.id);
        let connections = Connections::new(3, 2);
        let first = connections.open(client(1)).expect("a connection");
        let second = connections.open(client(1)).expect("a connection");
        first.idles(true);
        let third = connections.open(client(1)).expect("in place of one that idled longer");
        assert_eq!([&first, &second, &third].map(told), [false, true, false]);
        first.idles(false);
        third.idles(false);
        assert!(connections.open(client(1)).is_none(), "both are being answered");
        let other = connections.open(client(2)).expect("another's connection");
        third.idles(true);
        let _late = connections.open(client(3)).expect("of the client that has the most");
        assert_eq!([&first, &third, &other].map(told), [false, true, false]);
        drop(first);
        assert_eq!(connections.open.lock().all.len(), 2);
    }
}

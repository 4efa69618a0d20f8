//! Limits of connections and requests, in total and for each client.
//!
//! A connection takes one place of all and one of its client, which is an IPv4 address or an IPv6 network of 64 bits.
//! So does each request over HTTP/2, where one connection carries many. Behind a trusted proxy the connections are the
//! proxy's and unlimited, and each request takes a place of the client that the proxy names. At a limit, connections
//! without a request make way for new ones: whoever holds them only loses what a client must be ready to lose.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::forwarded::Peer;
use super::request::RequestError;

/// Limits of concurrent connections and requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of connections of all clients plus requests over HTTP/2. Each costs some 20 KiB.
    pub total: usize,
    /// Maximum of the same for one client.
    pub per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 8192, per_client: 1024 }
    }
}

/// The connections and requests of all clients.
pub struct Clients {
    limits: Limits,
    places: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    clients: HashMap<IpAddr, Client>,
    next: u64,
}

#[derive(Default)]
struct Client {
    requests: usize,
    /// By a number that increases, so that the oldest is first.
    connections: BTreeMap<u64, Arc<Seat>>,
}

impl Client {
    fn held(&self) -> usize {
        self.requests + self.connections.len()
    }

    /// Closes the oldest connection without a request. Returns false if there is none.
    fn evict(&mut self) -> bool {
        let idle = |seat: &&Arc<Seat>| seat.requests.load(Ordering::Relaxed) == 0;
        let Some(number) = self.connections.iter().find(|(_, seat)| idle(seat)).map(|(number, _)| *number)
        else {
            return false;
        };
        if let Some(seat) = self.connections.remove(&number) {
            seat.evicted.store(true, Ordering::Relaxed);
            seat.close.notify_one();
        }
        true
    }
}

/// The state of an open connection.
#[derive(Default)]
struct Seat {
    requests: AtomicUsize,
    evicted: AtomicBool,
    close: Notify,
}

/// A client's connection, counted until it is dropped.
pub struct Connection {
    /// The client, or a proxy in front of the router.
    pub peer: Peer,
    number: u64,
    seat: Arc<Seat>,
    clients: Arc<Clients>,
    _place: OwnedSemaphorePermit,
}

/// A request in progress, counted until it is dropped.
pub struct InFlight {
    connection: Arc<Connection>,
    /// The client that it is counted for in addition to its connection.
    client: Option<IpAddr>,
    _place: Option<OwnedSemaphorePermit>,
}

/// The key of a client: its IPv4 address, or its IPv6 network of 64 bits, all of whose addresses one client may have.
fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl Clients {
    /// Creates a table without connections.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, places: Arc::new(Semaphore::new(limits.total)), table: Mutex::default() })
    }

    /// A place for a connection that came. Where there is none, the oldest idle connection of the client that holds most
    /// makes way, or else this waits. `None` once the router is gone.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        {
            let mut table = self.table.lock();
            let mut clients: Vec<_> = table.clients.values_mut().collect();
            let oldest = |client: &Client| client.connections.keys().next().copied();
            clients.sort_by_key(|client| (std::cmp::Reverse(client.held()), oldest(client)));
            let _ = clients.into_iter().any(Client::evict);
        }
        self.places.clone().acquire_owned().await.ok()
    }

    /// Counts a connection that came; `None` where its client is at the limit with requests on all of its connections.
    pub fn admit(self: &Arc<Self>, peer: Peer, place: OwnedSemaphorePermit) -> Option<Arc<Connection>> {
        let mut table = self.table.lock();
        table.next += 1;
        let number = table.next;
        let client = table.clients.entry(client_of(peer.address)).or_default();
        if !peer.trusted && client.held() >= self.limits.per_client && !client.evict() {
            return None;
        }
        let seat = Arc::<Seat>::default();
        client.connections.insert(number, seat.clone());
        Some(Arc::new(Connection { peer, number, seat, clients: self.clone(), _place: place }))
    }

    fn begin(&self, origin: IpAddr) -> bool {
        let mut table = self.table.lock();
        let client = table.clients.entry(origin).or_default();
        let fits = client.held() < self.limits.per_client || client.evict();
        client.requests += usize::from(fits);
        fits
    }

    fn release(&self, client: IpAddr, release: impl FnOnce(&mut Client)) {
        let mut table = self.table.lock();
        if let Some(known) = table.clients.get_mut(&client) {
            release(known);
            if known.held() == 0 {
                table.clients.remove(&client);
            }
        }
    }
}

impl Connection {
    /// Waits until the connection must be closed in favour of another.
    pub async fn evicted(&self) {
        self.seat.close.notified().await;
    }

    /// Counts a request of the client at `origin`. `multiplexed` says that its connection carries concurrent requests.
    pub fn begin(self: &Arc<Self>, origin: IpAddr, multiplexed: bool) -> Result<InFlight, RequestError> {
        let place = match multiplexed {
            true => match self.clients.places.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    let why = "the router has as many requests as it takes at once; try again later\n";
                    return Err(RequestError(StatusCode::SERVICE_UNAVAILABLE, why));
                }
            },
            false => None,
        };
        // Counted first, so that the request's own connection does not make way for it.
        self.seat.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = InFlight { connection: self.clone(), client: None, _place: place };
        if multiplexed || self.peer.trusted {
            let client = client_of(origin);
            if !self.clients.begin(client) {
                return Err(RequestError(StatusCode::TOO_MANY_REQUESTS, TOO_MANY));
            }
            request.client = Some(client);
        }
        Ok(request)
    }
}

/// Body of the response to a client that has reached its limit.
pub const TOO_MANY: &str =
    "your address has as many connections and requests as the router takes from one client; end some first\n";

impl InFlight {
    /// The address of the connection's peer, to which network policies apply.
    pub fn peer(&self) -> IpAddr {
        self.connection.peer.address
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.seat.requests.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.connection.clients.release(client, |client| client.requests -= 1);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One that made way is not counted any more.
        if !self.seat.evicted.load(Ordering::Relaxed) {
            let number = self.number;
            self.clients
                .release(client_of(self.peer.address), |client| _ = client.connections.remove(&number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, trusted: bool) -> Peer {
        Peer { address: address.parse().expect("an address"), port: 80, trusted }
    }

    async fn admit(clients: &Arc<Clients>, peer: Peer) -> Option<Arc<Connection>> {
        let place = clients.place().await.expect("a place");
        clients.admit(peer, place)
    }

    fn is_evicted(connection: &Connection) -> bool {
        connection.seat.evicted.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn at_its_limit_a_client_gives_up_idle_connections_first() {
        let clients = Clients::new(Limits { total: 100, per_client: 2 });
        let a = peer("192.0.2.1", false);
        let first = admit(&clients, a).await.expect("the first");
        let busy = first.begin(a.address, false).expect("a request");
        let second = admit(&clients, a).await.expect("the second");
        let third = admit(&clients, a).await.expect("the third");
        assert_eq!((is_evicted(&first), is_evicted(&second), is_evicted(&third)), (false, true, false));
        second.evicted().await;
        let also_busy = third.begin(a.address, false).expect("a request");
        assert!(admit(&clients, a).await.is_none(), "nothing of it is idle");
        assert!(admit(&clients, peer("192.0.2.2", false)).await.is_some(), "another client is served");
        drop((busy, also_busy));
        assert!(admit(&clients, a).await.is_some());
        drop((first, second, third));
        assert!(clients.table.lock().clients.is_empty(), "nothing is left of clients that are gone");
        assert_eq!(clients.places.available_permits(), 100);
    }

    #[tokio::test]
    async fn an_ipv6_network_is_one_client() {
        let clients = Clients::new(Limits { total: 100, per_client: 1 });
        let first = admit(&clients, peer("2001:db8::1", false)).await.expect("the first");
        let _second = admit(&clients, peer("2001:db8::2:0:0:1", false)).await.expect("the second");
        assert!(is_evicted(&first));
        let _other = admit(&clients, peer("2001:db8:0:1::1", false)).await.expect("another network");
        assert_eq!(clients.table.lock().clients.len(), 2);
    }

    #[tokio::test]
    async fn behind_a_trusted_proxy_requests_are_counted_by_client() {
        let clients = Clients::new(Limits { total: 100, per_client: 2 });
        let proxy = peer("10.0.0.1", true);
        let mut connections = Vec::new();
        for _ in 0..5 {
            connections.push(admit(&clients, proxy).await.expect("the proxy's connections are not limited"));
        }
        let (x, y) = ("192.0.2.1".parse().expect("an address"), "192.0.2.2".parse().expect("an address"));
        let held = [connections[0].begin(x, false), connections[1].begin(x, false)];
        assert!(held.iter().all(Result::is_ok));
        let refused = connections[2].begin(x, false).err().map(|refusal| refusal.0);
        assert_eq!(refused, Some(StatusCode::TOO_MANY_REQUESTS));
        assert!(connections[2].begin(y, false).is_ok());
        drop(held);
        assert!(connections[2].begin(x, false).is_ok());
    }

    #[tokio::test]
    async fn requests_over_http_2_take_places_too() {
        let clients = Clients::new(Limits { total: 4, per_client: 3 });
        let (a, b) = (peer("192.0.2.1", false), peer("192.0.2.2", false));
        let connection = admit(&clients, a).await.expect("a connection");
        let held = [connection.begin(a.address, true), connection.begin(a.address, true)];
        assert!(held.iter().all(Result::is_ok));
        let code = |begun: Result<InFlight, RequestError>| begun.err().map(|refusal| refusal.0.as_u16());
        assert_eq!(code(connection.begin(a.address, true)), Some(429));
        let other = admit(&clients, b).await.expect("the last place");
        assert_eq!(code(other.begin(b.address, true)), Some(503));
        drop(held);
        assert_eq!(code(other.begin(b.address, true)), None);
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_largest_holder_makes_way() {
        let clients = Clients::new(Limits { total: 3, per_client: 3 });
        let (a, b) = (peer("192.0.2.1", false), peer("192.0.2.2", false));
        let mut held = vec![admit(&clients, a).await, admit(&clients, a).await];
        let other = admit(&clients, b).await.expect("a connection");
        let (place, ()) = tokio::join!(clients.place(), async {
            tokio::task::yield_now().await;
            // What was told to make way ends its task.
            held.retain(|connection| connection.as_ref().is_some_and(|c| !is_evicted(c)));
        });
        assert!(place.is_some() && !is_evicted(&other));
        assert_eq!(held.len(), 1);
    }
}

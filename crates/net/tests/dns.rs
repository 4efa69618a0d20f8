//! The name server over loopback, with resolvers of the test's own behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use yado_net::dns::message::{self, Answer, Code, Data, Name, Record, record_type};
use yado_net::dns::server::{Server, Sockets};
use yado_net::dns::zone::Zone;
use yado_net::index::{Endpoint, PortEntry, Protocol, ServiceEntry, Snapshot};
use yado_reconcile::{Index, ManualClock, Tasks};
use yado_types::key::ObjectKey;

fn name(text: &str) -> Name {
    text.split('.').map(str::to_owned).collect()
}

/// A test that waits for ever says nothing.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future).await.expect("something to happen")
}

/// Sockets over UDP and TCP on one port of the loopback address.
async fn sockets() -> (UdpSocket, TcpListener, SocketAddr) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        // Another test may have the same port over UDP.
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (udp, tcp, address);
        }
    }
}

/// What the resolvers of the test know.
fn known(packet: &[u8], limit: usize) -> Vec<u8> {
    let query = message::parse(packet).expect("a query");
    let record =
        |last| Record { name: query.name.clone(), ttl: 60, data: Data::A(Ipv4Addr::new(192, 0, 2, last)) };
    let answer = match query.name.join(".").as_str() {
        "example.com" => Answer::of(Code::NoError, vec![record(7)]),
        "large.example.com" => Answer::of(Code::NoError, (0..60).map(record).collect()),
        _ => Answer::of(Code::NoSuchName, Vec::new()),
    };
    message::encode(&query, &answer, limit)
}

/// A resolver that knows [`known`].
async fn resolver(tasks: &Tasks) -> SocketAddr {
    let (udp, tcp, address) = sockets().await;
    tasks.spawn("resolver over udp", async move {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = udp.recv_from(&mut packet).await {
            udp.send_to(&known(&packet[..length], 512), from).await.expect("to answer");
        }
    });
    tasks.spawn("resolver over tcp", async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.expect("a length");
            let mut packet = vec![0; length.into()];
            stream.read_exact(&mut packet).await.expect("a packet");
            let answer = known(&packet, 65_535);
            stream.write_u16(answer.len() as u16).await.expect("to answer");
            stream.write_all(&answer).await.expect("to answer");
        }
    });
    address
}

/// A resolver that answers nothing, or always with a failure. A permit stands for each query it got.
async fn useless(tasks: &Tasks, fails: bool) -> (SocketAddr, Arc<Semaphore>) {
    let (udp, _, address) = sockets().await;
    let asked = Arc::new(Semaphore::new(0));
    let count = asked.clone();
    tasks.spawn("useless resolver", async move {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = udp.recv_from(&mut packet).await {
            count.add_permits(1);
            if fails {
                let query = message::parse(&packet[..length]).expect("a query");
                let answer = message::encode(&query, &Answer::of(Code::ServerFailure, Vec::new()), 512);
                udp.send_to(&answer, from).await.expect("to answer");
            }
        }
    });
    (address, asked)
}

fn snapshot() -> Snapshot {
    let endpoints = (1..=60).map(|last| Endpoint {
        address: Ipv4Addr::new(10, 192, 0, last).into(),
        port: 5432,
        hostname: None,
    });
    let port = PortEntry {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 5432,
        node_port: None,
        endpoints: endpoints.collect(),
    };
    let to = |name: &str| ServiceEntry { external_name: Some(name.into()), ..Default::default() };
    let services = [
        ("web", ServiceEntry { cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 5).into()], ..Default::default() }),
        ("many", ServiceEntry { headless: true, ports: vec![port], ..Default::default() }),
        ("out", to("example.com")),
        ("large", to("large.example.com")),
        ("nowhere", to("gone.example.com")),
    ];
    let services = services.into_iter().map(|(n, s)| (ObjectKey::new("shop", n), Arc::new(s))).collect();
    Snapshot { services, ..Default::default() }
}

struct Stage {
    address: SocketAddr,
    clock: ManualClock,
    _snapshots: watch::Sender<Arc<Snapshot>>,
    _tasks: Tasks,
}

impl Stage {
    async fn with(tasks: &Tasks, upstream: &[SocketAddr]) -> Self {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let (snapshots, seen) = watch::channel(Arc::new(snapshot()));
        let server = Server {
            zone: Zone {
                domain: name("cluster.local"),
                ranges: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 192, 0, 0), 16)],
                host: Ipv4Addr::new(10, 192, 0, 1),
            },
            snapshots: seen,
            pods: Arc::<Index<IpAddr, _>>::default(),
            upstream: upstream.to_vec(),
            clock: Arc::new(clock.clone()),
        };
        let (sockets, address) = loop {
            let (udp, tcp, address) = sockets().await;
            drop((udp, tcp));
            // Another test may take the port that was just free.
            if let Ok(sockets) = Sockets::bind(address).await {
                break (sockets, address);
            }
        };
        server.start(sockets, tasks);
        Self { address, clock, _snapshots: snapshots, _tasks: tasks.clone() }
    }

    async fn udp(&self, asked: &str, kind: u16) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.send_to(&message::query(77, &name(asked), kind), self.address).await.expect("to ask");
        let mut answer = vec![0; 4096];
        let (length, from) = soon(socket.recv_from(&mut answer)).await.expect("an answer");
        assert_eq!(from, self.address);
        answer.truncate(length);
        answer
    }

    async fn tcp(&self, asked: &str, kind: u16) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.expect("to connect");
        // Two queries on one connection; the first is of no interest.
        for asked in ["web.shop.svc.cluster.local", asked] {
            let query = message::query(77, &name(asked), kind);
            stream.write_u16(query.len() as u16).await.expect("to ask");
            stream.write_all(&query).await.expect("to ask");
        }
        let mut answer = Vec::new();
        for _ in 0..2 {
            answer = vec![0; soon(stream.read_u16()).await.expect("a length").into()];
            soon(stream.read_exact(&mut answer)).await.expect("an answer");
        }
        answer
    }
}

/// Code, number of addresses, whether it is cut short.
fn gist(answer: &[u8]) -> (Code, usize, bool) {
    assert_eq!(answer[..2], [0, 77]);
    assert!(answer[2] & 0x80 != 0);
    (message::code(answer), message::addresses(answer).len(), message::is_truncated(answer))
}

#[tokio::test]
async fn names_are_answered_over_both_transports() {
    use record_type::{A, AAAA};
    let tasks = Tasks::new();
    let upstream = resolver(&tasks).await;
    let stage = Stage::with(&tasks, &[upstream]).await;
    for (asked, kind, over_udp, over_tcp) in [
        ("web.shop.svc.cluster.local", A, (Code::NoError, 1, false), (Code::NoError, 1, false)),
        ("web.shop.svc.cluster.local", AAAA, (Code::NoError, 0, false), (Code::NoError, 0, false)),
        ("gone.shop.svc.cluster.local", A, (Code::NoSuchName, 0, false), (Code::NoSuchName, 0, false)),
        // What is too large for UDP is asked again over TCP.
        ("many.shop.svc.cluster.local", A, (Code::NoError, 0, true), (Code::NoError, 60, false)),
        ("example.com", A, (Code::NoError, 1, false), (Code::NoError, 1, false)),
        ("large.example.com", A, (Code::NoError, 0, true), (Code::NoError, 60, false)),
        ("gone.example.com", A, (Code::NoSuchName, 0, false), (Code::NoSuchName, 0, false)),
        // Names that lead outside.
        ("out.shop.svc.cluster.local", A, (Code::NoError, 1, false), (Code::NoError, 1, false)),
        ("large.shop.svc.cluster.local", A, (Code::NoError, 0, true), (Code::NoError, 60, false)),
        ("nowhere.shop.svc.cluster.local", A, (Code::NoSuchName, 0, false), (Code::NoSuchName, 0, false)),
    ] {
        assert_eq!(gist(&stage.udp(asked, kind).await), over_udp, "{asked} over UDP");
        assert_eq!(gist(&stage.tcp(asked, kind).await), over_tcp, "{asked} over TCP");
    }
}

#[tokio::test]
async fn a_resolver_that_is_of_no_use_is_passed_over() {
    let tasks = Tasks::new();
    let (silent, asked) = useless(&tasks, false).await;
    let (failing, failed) = useless(&tasks, true).await;
    let good = resolver(&tasks).await;
    let stage = Stage::with(&tasks, &[silent, failing, good]).await;
    let (answer, ()) = tokio::join!(stage.udp("example.com", record_type::A), async {
        soon(asked.acquire()).await.expect("a query").forget();
        stage.clock.advance(Duration::from_secs(3));
        soon(failed.acquire()).await.expect("a query").forget();
    });
    assert_eq!(gist(&answer), (Code::NoError, 1, false));
    // While one query waits, our own names are answered.
    let (answer, ()) = tokio::join!(stage.udp("example.com", record_type::A), async {
        soon(asked.acquire()).await.expect("a query").forget();
        let own = stage.udp("web.shop.svc.cluster.local", record_type::A).await;
        assert_eq!(gist(&own), (Code::NoError, 1, false));
        stage.clock.advance(Duration::from_secs(3));
    });
    assert_eq!(gist(&answer), (Code::NoError, 1, false));
}

#[tokio::test]
async fn without_a_resolver_only_our_own_names_are_known() {
    let tasks = Tasks::new();
    let stage = Stage::with(&tasks, &[]).await;
    for (asked, expect) in [
        ("web.shop.svc.cluster.local", (Code::NoError, 1, false)),
        ("example.com", (Code::ServerFailure, 0, false)),
        ("out.shop.svc.cluster.local", (Code::ServerFailure, 0, false)),
    ] {
        assert_eq!(gist(&stage.udp(asked, record_type::A).await), expect, "{asked}");
    }
    // What is no query gets no answer or an error, and does no harm.
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for packet in [&[][..], &[1, 2, 3], &[0; 600], &[0xff; 600]] {
        socket.send_to(packet, stage.address).await.expect("to send");
    }
    assert_eq!(gist(&stage.udp("web.shop.svc.cluster.local", record_type::A).await).1, 1);
}

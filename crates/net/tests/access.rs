//! Whom the router and the name server let in, over loopback, where every address of 127.0.0.0/8 is a client of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use yado_net::dns::message::{self, record_type};
use yado_net::dns::server::{Server, Sockets};
use yado_net::dns::zone::Zone;
use yado_net::index::{Callers, Endpoint, PortEntry, Protocol, ServiceEntry, Snapshot};
use yado_net::policy::{AllowedTraffic, Isolation, Peers};
use yado_net::router::{Options, Router, bind};
use yado_reconcile::{Index, ManualClock, Tasks};
use yado_types::key::ObjectKey;

/// A test that waits for ever says nothing.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future).await.expect("something to happen")
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address");
    soon(socket.connect(to)).await.expect("to connect")
}

/// An app that says `hello` to everybody.
async fn app(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn("app", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                .await;
        }
    });
    address
}

/// One app for every host.
fn snapshot(app: SocketAddr, callers: Callers, isolation: Isolation) -> Snapshot {
    let port = PortEntry {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        endpoints: [Endpoint { address: app.ip(), port: app.port(), hostname: None }].into(),
    };
    let service = ServiceEntry { ports: vec![port], callers, ..Default::default() };
    let backend = json!({"service": {"name": "app", "port": {"number": 80}}});
    let ingress = serde_json::from_value(json!({"spec": {"defaultBackend": backend}})).expect("an Ingress");
    let key = ObjectKey::new("n", "app");
    Snapshot {
        generation: 1,
        services: [(key.clone(), Arc::new(service))].into(),
        ingresses: [(key, Arc::new(ingress))].into(),
        isolation: Arc::new(isolation),
        pod_range: Some("127.0.1.0/24".parse().expect("a range")),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_router_lets_in_whom_the_service_and_the_policies_let_in() {
    let tasks = Tasks::new();
    let app = app(&tasks).await;
    let pod = |last| Ipv4Addr::new(127, 0, 1, last);
    let outside = Ipv4Addr::new(127, 0, 0, 9);
    // The app takes what the first Pod sends to its port.
    let allowed = AllowedTraffic {
        peers: Peers::Set("peers".into()),
        ports: Some((Protocol::Tcp.number(), Some((app.port(), app.port())))),
    };
    let isolation = || Isolation {
        sets: [("peers".into(), [pod(1)].into())].into(),
        chains: [("chain".into(), vec![allowed.clone()])].into(),
        ingress: [(Ipv4Addr::LOCALHOST, "chain".into())].into(),
        egress: BTreeMap::new(),
    };
    let only_pods = || Callers::Of(vec!["127.0.1.0/24".parse().expect("a range")]);
    for (callers, isolation, expect) in [
        (Callers::All, Isolation::default(), [200, 200, 200]),
        (Callers::All, isolation(), [200, 403, 200]),
        (only_pods(), Isolation::default(), [200, 200, 403]),
        (only_pods(), isolation(), [200, 403, 403]),
    ] {
        let (_snapshots, seen) = watch::channel(Arc::new(snapshot(app, callers, isolation)));
        let (acknowledge, mut applied) = watch::channel(0);
        let listeners = bind(&["127.0.0.1:0".parse().expect("an address")]).await.expect("a port");
        let router = listeners[0].local_addr().expect("an address");
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        Router::start(listeners, Options::default(), seen, acknowledge, clock, &tasks);
        soon(applied.wait_for(|generation| *generation == 1)).await.expect("the router");
        let mut codes = Vec::new();
        for client in [pod(1), pod(2), outside] {
            let mut stream = connect(client, router).await;
            // What a client says of itself does not count.
            let request =
                "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 127.0.1.1\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.expect("to ask");
            let mut answer = String::new();
            soon(stream.read_to_string(&mut answer)).await.expect("an answer");
            codes
                .push(answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or_default());
        }
        assert_eq!(codes, expect);
    }
}

#[tokio::test]
async fn a_client_with_many_connections_leaves_the_name_server_to_others() {
    let tasks = Tasks::new();
    let address = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        // Another test may have the same port over UDP.
        if UdpSocket::bind(address).await.is_ok() {
            break address;
        }
    };
    let sockets = Sockets::bind(address).await.expect("the sockets");
    let service = ServiceEntry { cluster_ips: vec![[10, 96, 0, 5].into()], ..Default::default() };
    let services = [(ObjectKey::new("n", "web"), Arc::new(service))].into();
    let (_snapshots, seen) = watch::channel(Arc::new(Snapshot { services, ..Default::default() }));
    let zone = Zone {
        domain: vec!["cluster".into(), "local".into()],
        ranges: Vec::new(),
        host: Ipv4Addr::new(10, 192, 0, 1),
    };
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let pods = Arc::<Index<IpAddr, _>>::default();
    Server { zone, snapshots: seen, pods, upstream: Vec::new(), clock }.start(sockets, &tasks);
    let name = "web.n.svc.cluster.local".split('.').map(str::to_owned).collect();
    let query = message::query(7, &name, record_type::A);
    let answered = async |mut stream: TcpStream| {
        stream.write_u16(query.len() as u16).await.ok()?;
        stream.write_all(&query).await.ok()?;
        let mut answer = vec![0; soon(stream.read_u16()).await.ok()?.into()];
        stream.read_exact(&mut answer).await.ok()?;
        Some(message::addresses(&answer).len())
    };
    let (greedy, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(connect(greedy, address).await);
    }
    assert_eq!(answered(connect(greedy, address).await).await, Some(1), "in place of one that idles");
    assert_eq!(answered(connect(other, address).await).await, Some(1));
    assert_eq!(soon(idle[0].read(&mut [0; 2])).await.ok(), Some(0), "the oldest is closed");
}

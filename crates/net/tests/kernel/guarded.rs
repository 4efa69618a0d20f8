//! What a Pod cannot do, whom a port is open to, and what stays as Pods come and go.

use k8s_openapi::api::core::v1::Namespace;
use rtnetlink::RouteMessageBuilder;
use yado_net::drain;
use yado_net::index::HostPort;
use yado_net::slot::overlap;
use yado_types::clock::SystemClock;

use super::*;

/// A UDP packet from and to port 5000, of an address that the sender may not have.
fn packet(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let data = b"forged";
    let mut packet = vec![0x45, 0, 0, 28 + data.len() as u8, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(target.octets());
    [5000, 5000, 8 + data.len() as u16, 0].iter().for_each(|word: &u16| packet.extend(word.to_be_bytes()));
    packet.extend(data);
    packet
}

/// Sends a packet as it is.
fn send_raw(packet: &[u8], target: Ipv4Addr) {
    // SAFETY: a plain system call; the result is checked.
    let socket =
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    assert!(socket >= 0, "a raw socket");
    // SAFETY: all-zero is a valid address.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::AF_INET as libc::sa_family_t;
    to.sin_addr.s_addr = u32::from_ne_bytes(target.octets());
    let length = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the pointers and lengths are those of live values.
    let sent = unsafe {
        libc::sendto(socket, packet.as_ptr().cast(), packet.len(), 0, (&raw const to).cast(), length)
    };
    // SAFETY: the descriptor is open and nobody else's.
    unsafe { libc::close(socket) };
    assert_eq!(usize::try_from(sent), Ok(packet.len()), "{}", std::io::Error::last_os_error());
}

fn v4(pod: &Attachment) -> Ipv4Addr {
    match pod.address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("Pods have IPv4"),
    }
}

#[test]
fn a_pod_speaks_under_its_own_address_only() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let _table = Table::create(&slot).expect("the table");
        let liar = network.attach("liar").await.expect("a Pod");
        let victim = network.attach("victim").await.expect("a Pod");
        let target = network.attach("target").await.expect("a Pod");
        let socket = inside(&target.netns, || UdpSocket::bind("0.0.0.0:5000").expect("a socket"));
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let of_node = UdpSocket::bind((slot.gateway(), 5000)).expect("a socket");
        of_node.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let nobody = Ipv4Addr::from(u32::from(slot.pod_cidr().network()) + 9999);
        inside(&liar.netns, || {
            for to in [v4(&target), slot.gateway()] {
                for source in [v4(&victim), slot.gateway(), Ipv4Addr::LOCALHOST, nobody, OUTSIDE] {
                    send_raw(&packet(source, to), to);
                }
                send_raw(&packet(v4(&liar), to), to);
            }
        });
        // Packets of one sender arrive in order: what came before the honest one was dropped.
        for socket in [socket, of_node] {
            let (_, from) = socket.recv_from(&mut [0; 64]).expect("a packet");
            assert_eq!(from.ip(), liar.address);
        }
        let ipv6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        assert!(!ipv6.contains("yado0-"), "no device of a Pod speaks IPv6: {ipv6}");
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn addresses_without_a_pod_are_unreachable() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b) = (network.attach("a").await.expect("a Pod"), network.attach("b").await.expect("a Pod"));
        let outside = run.path().join("outside");
        neighbour(&outside).await;
        let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
        let mut connections = tokio::task::JoinSet::new();
        connections.spawn(connection);
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(OUTSIDE).build();
        handle.route().add(default).execute().await.expect("a default route");

        let nobody = SocketAddr::from((Ipv4Addr::from(u32::from(slot.pod_cidr().network()) + 9999), 8080));
        let unreachable = "host unreachable";
        assert_eq!(ask(nobody), unreachable);
        assert_eq!(inside(&a.netns, || ask(nobody)), unreachable);
        // A Service still leads to a Pod that is just gone.
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        table.apply(Rules::of(&snapshot(vip, &[&b], false))).expect("to apply");
        network.detach("b").await.expect("to detach");
        for to in [SocketAddr::from((vip, PORT)), (v4(&b), 8080).into()] {
            assert_eq!(inside(&a.netns, || ask(to)), unreachable, "{to}");
        }
        assert_eq!(ask((v4(&b), 8080).into()), unreachable);
        let without_service = SocketAddr::from((Ipv4Addr::new(o1, o2, 9, 9), 80));
        assert_eq!(inside(&a.netns, || ask(without_service)), "connection refused");
        // Another yado of this machine may come, and this one is not taken for a foreign network.
        let routed = yado_net::pods::routed().await.expect("routes");
        assert!(!routed.iter().any(|range| overlap(*range, slot.pod_cidr())), "{routed:?}");
        network.tear_down().await.expect("to tear down");
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").expect("routes");
        assert!(!routes.contains("C00A") && !routes.contains("0000C00A"), "{routes}");
    });
}

#[test]
fn a_client_keeps_its_endpoint_while_others_come_and_go() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let mut pods = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            pods.push(network.attach(name).await.expect("a Pod"));
        }
        let (servers, clients) = pods.split_at(3);
        servers.iter().for_each(serve);
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        let with = |servers: &[&Attachment], seconds| {
            let mut all = snapshot(vip, servers, true);
            let (key, entry) = all.services.pop_first().expect("one");
            let entry = ServiceEntry { affinity_seconds: Some(seconds), ..(*entry).clone() };
            all.services.insert(key, Arc::new(entry));
            Rules::of(&all)
        };
        let answered = |client: &Attachment| {
            let answer = inside(&client.netns, || ask((vip, PORT).into()));
            answer.split(' ').next().unwrap_or_default().to_owned()
        };
        let all = || clients.iter().map(answered).collect::<Vec<_>>();
        let [a, b, c] = servers else { unreachable!("three servers") };

        table.apply(with(&[a, b], 3600)).expect("to apply");
        let first = all();
        assert_eq!(all(), first, "they come back");
        table.apply(with(&[a, b, c], 3600)).expect("to apply");
        assert_eq!(all(), first, "one more endpoint moves nobody");
        table.apply(with(&[b, c], 3600)).expect("to apply");
        let second = all();
        for (before, after) in first.iter().zip(&second) {
            assert!(
                before == after || *before == a.address.to_string(),
                "{before} lives and is left for {after}"
            );
        }
        assert_eq!(all(), second);
        // A restart makes the table anew.
        let mut table = Table::create(&slot).expect("the table again");
        table.apply(with(&[b, c], 3600)).expect("to apply");
        assert_eq!(all(), second, "a restart moves nobody");
        // After the timeout a client gets any: so it meets both, sooner or later.
        table.apply(with(&[b, c], 1)).expect("to apply");
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..30 {
            met.insert(answered(&clients[0]));
            if met.len() == 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1200));
        }
        assert_eq!(met.len(), 2);
        table.apply(Rules::default()).expect("to apply");
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn udp_senders_to_a_node_port_follow_its_endpoints() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b) = (network.attach("a").await.expect("a Pod"), network.attach("b").await.expect("a Pod"));
        let outside = run.path().join("outside");
        neighbour(&outside).await;
        [&a, &b].iter().for_each(|pod| serve_udp(pod));
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        let socket = inside(&outside, || UdpSocket::bind("0.0.0.0:0").expect("a socket"));
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        socket.connect((NODE, NODE_PORT)).expect("a route");
        let asked = || {
            let mut answer = [0; 64];
            match socket.send(b"?").and_then(|_| socket.recv(&mut answer)) {
                Ok(length) => String::from_utf8_lossy(&answer[..length]).split(' ').next().map(str::to_owned),
                Err(_) => None,
            }
        };
        // One socket all the time, so that the kernel remembers it.
        table.apply(Rules::of(&snapshot(vip, &[], false))).expect("to apply");
        assert_eq!(asked(), None);
        for (endpoints, answers) in [(&a, Some(a.address)), (&b, Some(b.address)), (&a, Some(a.address))] {
            table.apply(Rules::of(&snapshot(vip, &[endpoints], false))).expect("to apply");
            assert_eq!(asked(), answers.map(|address| address.to_string()));
        }
        table.apply(Rules::of(&snapshot(vip, &[], false))).expect("to apply");
        assert_eq!(asked(), None);
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn policies_for_what_goes_out_cover_the_node() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (pod, other) =
            (network.attach("pod").await.expect("a Pod"), network.attach("o").await.expect("a Pod"));
        let outside = run.path().join("outside");
        neighbour(&outside).await;
        serve(&pod);
        let node = TcpListener::bind("0.0.0.0:7000").expect("to listen");
        let names = UdpSocket::bind((slot.gateway(), 53)).expect("to listen");
        std::thread::spawn(move || {
            for mut stream in node.incoming().flatten() {
                let _ = write!(stream, "node");
            }
        });
        std::thread::spawn(move || {
            while let Ok((_, from)) = names.recv_from(&mut [0; 16]) {
                let _ = names.send_to(b"names", from);
            }
        });
        let object = json!({"metadata": {"namespace": "n", "name": "pod"}, "status": {"podIP": pod.address.to_string()}});
        let pods = [Arc::new(serde_json::from_value(object).expect("a Pod"))];
        let namespaces: [Arc<Namespace>; 1] = [Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "kube-system"}})).expect("a Namespace"),
        )];
        let mut apply = |egress: serde_json::Value| {
            let object = json!({"metadata": {"namespace": "n", "name": "p"},
                "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}});
            let policy = Arc::new(serde_json::from_value(object).expect("a NetworkPolicy"));
            let isolation = isolate(&[policy], &pods, &namespaces, NameServer { address: slot.gateway() });
            let all = Snapshot { isolation: Arc::new(isolation), ..Default::default() };
            table.apply(Rules::of(&all)).expect("to apply");
        };
        let doors = [(slot.gateway(), 7000), (NODE, 7000)].map(SocketAddr::from);
        let names = SocketAddr::from((slot.gateway(), 53));
        let tried = || inside(&pod.netns, || (doors.map(ask), ask_udp(names)));
        let refused = || "connection refused".to_owned();
        let node = || "node".to_owned();

        apply(json!([]));
        assert_eq!(tried(), ([refused(), refused()], refused()));
        // It still answers the node, and other Pods are not concerned.
        assert!(ask((pod.address, 8080).into()).starts_with(&pod.address.to_string()));
        assert_eq!(inside(&other.netns, || doors.map(ask)), [node(), node()]);
        apply(
            json!([{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
            "ports": [{"port": 53, "protocol": "UDP"}]}]),
        );
        assert_eq!(tried(), ([refused(), refused()], "names".to_owned()));
        apply(json!([{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]));
        assert_eq!(tried(), ([refused(), node()], refused()));
        apply(json!([{}]));
        assert_eq!(tried(), ([node(), node()], "names".to_owned()));
        table.apply(Rules::default()).expect("to apply");
        assert_eq!(tried(), ([node(), node()], "names".to_owned()));
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn a_host_port_answers_on_its_address() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b) = (network.attach("a").await.expect("a Pod"), network.attach("b").await.expect("a Pod"));
        let outside = run.path().join("outside");
        neighbour(&outside).await;
        serve(&a);
        let port = |address, port| HostPort { address, protocol: Protocol::Tcp, port };
        let to = Endpoint { address: a.address, port: 8080, hostname: None };
        let loopback = Some(Ipv4Addr::LOCALHOST);
        let host_ports =
            [(port(None, 81), to.clone()), (port(loopback, 82), to.clone()), (port(Some(NODE), 83), to)];
        let all = Snapshot { host_ports: host_ports.into(), ..Default::default() };
        table.apply(Rules::of(&all)).expect("to apply");
        let at = |address: Ipv4Addr, port: u16| SocketAddr::from((address, port));
        let open = |answer: String| answer.starts_with(&a.address.to_string());
        let from_here =
            [(Ipv4Addr::LOCALHOST, 81), (NODE, 81), (Ipv4Addr::LOCALHOST, 82), (NODE, 82), (NODE, 83)];
        assert_eq!(from_here.map(|(to, port)| open(ask(at(to, port)))), [true, true, true, false, true]);
        for netns in [&outside, &b.netns, &a.netns] {
            let asked = inside(netns, || [81, 82, 83].map(|port| ask(at(NODE, port))));
            assert_eq!(asked.map(open), [true, false, true], "{}", netns.display());
        }
        table.apply(Rules::default()).expect("to apply");
        assert_eq!(ask(at(NODE, 81)), "connection refused");
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn a_pod_is_quiet_once_nobody_waits_for_an_answer() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let pod = network.attach("a").await.expect("a Pod");
        let clock = SystemClock::shared();
        drain::quiet(pod.netns.clone(), TIMEOUT, &*clock).await;
        let listener = inside(&pod.netns, || TcpListener::bind("[::]:8080").expect("to listen"));
        drain::quiet(pod.netns.clone(), TIMEOUT, &*clock).await;
        let mut client = TcpStream::connect((pod.address, 8080)).expect("to connect");
        let (mut server, _) = listener.accept().expect("a connection");
        client.write_all(b"request").expect("to ask");
        server.read_exact(&mut [0; 7]).expect("the request");
        // Longer than any time after which a connection counts as left alone.
        let netns = pod.netns.clone();
        tokio::select! {
            () = drain::quiet(netns, TIMEOUT, &*clock) => panic!("the client still waits"),
            () = tokio::time::sleep(Duration::from_millis(1500)) => {}
        }
        server.write_all(b"answer").expect("to answer");
        client.read_exact(&mut [0; 6]).expect("the answer");
        drain::quiet(pod.netns.clone(), TIMEOUT, &*clock).await;
        drain::quiet(run.path().join("gone"), TIMEOUT, &*clock).await;
        network.tear_down().await.expect("to tear down");
    });
}

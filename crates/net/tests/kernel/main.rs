//! Pods and Services on a real kernel, in a network namespace of the test's own.
#![allow(unsafe_code)]

mod guarded;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use serde_json::json;
use yado_net::index::{Callers, Endpoint, PortEntry, Protocol, ServiceEntry, Snapshot};
use yado_net::nft::{Rules, Table};
use yado_net::pods::{Attachment, PodNetwork};
use yado_net::policy::{NameServer, isolate};
use yado_net::slot::Slot;
use yado_types::key::ObjectKey;

/// Runs `test` on a thread with network and mount namespaces of its own, which end with it.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        yado_testkit::skip!("network namespaces need root");
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("mounts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    });
    thread.join().expect("the test");
}

/// Runs `work` in a Pod's namespace.
fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(netns).expect("the namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("to enter");
            work()
        });
        thread.join().expect("the work")
    })
}

/// The kernel answers at once; a busy machine's programs do not.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers every packet to a Pod's port 8080 as [`serve`] does.
fn serve_udp(pod: &Attachment) {
    let address = pod.address;
    let socket = inside(&pod.netns, || UdpSocket::bind("0.0.0.0:8080").expect("to listen"));
    std::thread::spawn(move || {
        let mut packet = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(format!("{address} {}", from.ip()).as_bytes(), from);
        }
    });
}

fn ask_udp(to: SocketAddr) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    socket.connect(to).expect("a route");
    let mut answer = [0; 64];
    match socket.send(b"?").and_then(|_| socket.recv(&mut answer)) {
        Ok(length) => String::from_utf8_lossy(&answer[..length]).into_owned(),
        Err(e) => e.kind().to_string(),
    }
}

/// Where the node is on the way outside, and where the outside is.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A machine beside the node, which knows nothing of Pods: a namespace, kept at `path`.
async fn neighbour(path: &Path) {
    let kept = path.to_owned();
    let made = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        File::create(&kept).expect("a file");
        mount(Some("/proc/thread-self/ns/net"), &kept, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("a mount");
    });
    made.join().expect("a namespace");
    let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(connection);
    let file = File::open(path).expect("the namespace");
    let inner = LinkMessageBuilder::<LinkUnspec>::new().name("wire").setns_by_fd(file.as_raw_fd()).build();
    let pair = LinkVeth::new("wire", "wire").set_info_data(InfoData::Veth(InfoVeth::Peer(inner))).build();
    handle.link().add(pair).execute().await.expect("a wire");
    bring_up(&handle, NODE).await;
    inside(path, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
            let mut connections = tokio::task::JoinSet::new();
            connections.spawn(connection);
            bring_up(&handle, OUTSIDE).await;
        });
    });
}

async fn bring_up(handle: &Handle, address: Ipv4Addr) {
    let name = std::ffi::CString::new("wire").expect("a name");
    // SAFETY: the pointer is that of a live string with its end.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    handle.address().add(index, address.into(), 24).execute().await.expect("an address");
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.expect("to bring it up");
}

/// Answers every connection to a Pod's port 8080 with the Pod's address and the caller's.
fn serve(pod: &Attachment) {
    let address = pod.address;
    let listener = inside(&pod.netns, || TcpListener::bind("0.0.0.0:8080").expect("to listen"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let caller = stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default();
            let mut stream = stream;
            let _ = write!(stream, "{address} {caller}");
        }
    });
}

/// `SERVER CALLER` as the answering Pod saw it, or the kind of error.
fn ask(to: SocketAddr) -> String {
    match TcpStream::connect_timeout(&to, TIMEOUT) {
        Ok(mut stream) => {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer).unwrap_or_else(|e| e.kind().to_string())
        }
        Err(e) => e.kind().to_string(),
    }
}

fn answers(to: SocketAddr, times: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..times {
        let answer = ask(to);
        *seen.entry(answer.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    seen
}

const PORT: u16 = 80;
const NODE_PORT: u16 = 30080;

fn snapshot(vip: Ipv4Addr, pods: &[&Attachment], affinity: bool) -> Snapshot {
    let port = |protocol| PortEntry {
        name: String::new(),
        protocol,
        port: PORT,
        node_port: Some(NODE_PORT),
        endpoints: pods.iter().map(|p| Endpoint { address: p.address, port: 8080, hostname: None }).collect(),
    };
    let entry = ServiceEntry {
        cluster_ips: vec![vip.into()],
        affinity_seconds: affinity.then_some(10_800),
        ports: vec![port(Protocol::Tcp), port(Protocol::Udp)],
        ..Default::default()
    };
    Snapshot {
        generation: 1,
        services: [(ObjectKey::new("default", "web"), Arc::new(entry))].into(),
        ..Default::default()
    }
}

#[test]
fn services_reach_ready_pods_from_everywhere_and_nothing_stays() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b, c) = (
            network.attach("a").await.expect("a Pod"),
            network.attach("b").await.expect("a Pod"),
            network.attach("c").await.expect("a Pod"),
        );
        [&a, &b, &c].iter().for_each(|pod| serve(pod));
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        let service = SocketAddr::from((vip, PORT));
        let node_port = SocketAddr::from((Ipv4Addr::LOCALHOST, NODE_PORT));
        let gateway: IpAddr = slot.gateway().into();

        // Pod to Pod, with their own addresses; the node to a Pod, as the gateway.
        let direct = SocketAddr::from((b.address, 8080));
        assert_eq!(inside(&a.netns, || ask(direct)), format!("{} {}", b.address, a.address));
        assert_eq!(ask(direct), format!("{} {gateway}", b.address));

        // No Service yet: refused at once, not silent.
        assert_eq!(ask(service), "connection refused");
        assert_eq!(inside(&a.netns, || ask(service)), "connection refused");

        // Every endpoint answers, to a Pod, to the node, on the node's port, and to the endpoints themselves.
        table.apply(Rules::of(&snapshot(vip, &[&a, &b], false))).expect("to apply");
        for seen in [
            inside(&c.netns, || answers(service, 40)),
            inside(&a.netns, || answers(service, 40)),
            answers(service, 40),
            answers(node_port, 40),
            answers(SocketAddr::from((slot.gateway(), NODE_PORT)), 40),
        ] {
            let expected: Vec<_> = [&a, &b].map(|p| p.address.to_string()).into();
            assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), expected);
        }
        // A caller is seen with its own address wherever that can work.
        assert!(inside(&c.netns, || ask(service)).ends_with(&format!(" {}", c.address)));

        // With affinity one caller has one endpoint.
        table.apply(Rules::of(&snapshot(vip, &[&a, &b, &c], true))).expect("to apply");
        assert_eq!(inside(&c.netns, || answers(service, 20)).len(), 1);

        // An endpoint that went gets nothing more; without any, callers are refused.
        table.apply(Rules::of(&snapshot(vip, &[&b], false))).expect("to apply");
        assert_eq!(answers(node_port, 10), [(b.address.to_string(), 10)].into());
        table.apply(Rules::of(&snapshot(vip, &[], false))).expect("to apply");
        assert_eq!(inside(&a.netns, || ask(service)), "connection refused");
        assert_eq!(ask(node_port), "connection refused");

        // A restart finds the same Pods; a second attach gives the same address.
        drop(network);
        let network = PodNetwork::start(&slot).await.expect("the Pod network again");
        assert_eq!(network.attached().len(), 3);
        assert_eq!(network.attach("b").await.expect("the same Pod"), b);

        network.detach("c").await.expect("to detach");
        assert!(!c.netns.exists());
        network.tear_down().await.expect("to tear down");
        Table::remove(&slot).expect("to remove");
        let devices = std::fs::read_to_string("/proc/thread-self/net/dev").expect("devices");
        assert!(!devices.contains("yado"), "{devices}");
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
        assert!(!mounts.contains(&*run.path().to_string_lossy()), "{mounts}");
    });
}

#[test]
fn many_pods_attach_at_once() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let names: Vec<String> = (0..30).map(|i| format!("pod-{i}")).collect();
        let attached = futures::future::join_all(names.iter().map(|n| network.attach(n))).await;
        let mut addresses: Vec<_> = attached.into_iter().map(|a| a.expect("a Pod").address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 30);
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn packets_find_their_way_outside_and_in() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b) = (network.attach("a").await.expect("a Pod"), network.attach("b").await.expect("a Pod"));
        let outside = Attachment { netns: run.path().join("outside"), address: OUTSIDE.into() };
        neighbour(&outside.netns).await;
        [&a, &outside].iter().for_each(|machine| serve(machine));
        [&a, &b].iter().for_each(|pod| serve_udp(pod));
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        table.apply(Rules::of(&snapshot(vip, &[&a], false))).expect("to apply");

        // Pods go outside with the node's address, and see what is there.
        let there = SocketAddr::from((OUTSIDE, 8080));
        assert_eq!(inside(&b.netns, || ask(there)), format!("{OUTSIDE} {NODE}"));
        // From outside a Service is reached on the node's port, and the Pod sees who asks.
        let node_port = SocketAddr::from((NODE, NODE_PORT));
        assert_eq!(inside(&outside.netns, || ask(node_port)), format!("{} {OUTSIDE}", a.address));
        assert_eq!(inside(&outside.netns, || ask_udp(node_port)), format!("{} {OUTSIDE}", a.address));
        // UDP from everywhere, and from a Pod to itself.
        let service = SocketAddr::from((vip, PORT));
        assert_eq!(inside(&b.netns, || ask_udp(service)), format!("{} {}", a.address, b.address));
        assert_eq!(inside(&a.netns, || ask_udp(service)), format!("{} {}", a.address, slot.gateway()));
        assert_eq!(ask_udp(service), format!("{} {}", a.address, slot.gateway()));
        // One that goes on asking from the same port gets its answers from who is there.
        let ask_again = inside(&outside.netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            socket.connect(node_port).expect("a route");
            move || {
                let mut answer = [0; 64];
                let length = socket.send(b"?").and_then(|_| socket.recv(&mut answer)).expect("an answer");
                let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
                answer.split(' ').next().map(str::to_owned)
            }
        });
        assert_eq!(ask_again(), Some(a.address.to_string()));
        table.apply(Rules::of(&snapshot(vip, &[&b], false))).expect("to apply");
        assert_eq!(ask_again(), Some(b.address.to_string()));
        // Without an endpoint it is refused.
        table.apply(Rules::of(&snapshot(vip, &[], false))).expect("to apply");
        assert_eq!(inside(&b.netns, || ask_udp(service)), "connection refused");
        // A Pod cannot reach what the node keeps to its loopback address.
        let own = TcpListener::bind("127.0.0.1:7000").expect("to listen");
        let loopback = own.local_addr().expect("an address");
        assert_eq!(inside(&b.netns, || ask(loopback)), "connection refused");
        table.apply(Rules::of(&snapshot(vip, &[&b], false))).expect("to apply");
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn published_services_answer_on_every_address_to_whom_they_may() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b) = (network.attach("a").await.expect("a Pod"), network.attach("b").await.expect("a Pod"));
        let outside = Attachment { netns: run.path().join("outside"), address: OUTSIDE.into() };
        neighbour(&outside.netns).await;
        [&a, &b].iter().for_each(|pod| serve(pod));
        [&a, &b].iter().for_each(|pod| serve_udp(pod));
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        let published = |pods: &[&Attachment], sources: Option<&[&str]>, affinity| {
            let mut all = snapshot(vip, pods, affinity);
            let mut entry = (*all.services.pop_first().expect("one").1).clone();
            entry.published = sources.is_some();
            if let Some(sources) = sources.filter(|sources| !sources.is_empty()) {
                entry.callers = Callers::Of(sources.iter().map(|s| s.parse().expect("a range")).collect());
            }
            all.services.insert(ObjectKey::new("default", "web"), Arc::new(entry));
            Rules::of(&all)
        };
        let at = |address: Ipv4Addr| SocketAddr::from((address, PORT));
        let (here, near) = (at(Ipv4Addr::LOCALHOST), at(NODE));
        let from_outside = || inside(&outside.netns, || [ask(near), ask_udp(near)]);
        let from_here = || [ask(here), ask_udp(here)];
        let refused = ["connection refused", "connection refused"];

        // Not published: the port is nobody's.
        table.apply(published(&[&a], None, false)).expect("to apply");
        assert_eq!(from_outside(), refused);
        assert_eq!(from_here(), refused);

        // On every address, from everywhere; a caller from outside and another Pod are seen with their addresses.
        table.apply(published(&[&a], Some(&[]), false)).expect("to apply");
        let says = |caller: &dyn std::fmt::Display| [(); 2].map(|()| format!("{} {caller}", a.address));
        assert_eq!(from_outside(), says(&OUTSIDE));
        assert_eq!(from_here(), says(&slot.gateway()));
        assert_eq!(
            [ask(near), ask_udp(near)].map(|s| s.split(' ').next() == Some(&a.address.to_string())),
            [true; 2]
        );
        for to in [near, at(slot.gateway())] {
            assert_eq!(inside(&b.netns, || [ask(to), ask_udp(to)]), says(&b.address));
            assert_eq!(inside(&a.netns, || [ask(to), ask_udp(to)]), says(&slot.gateway()), "to itself");
        }
        // Its other ways stay.
        assert_eq!(inside(&b.netns, || ask(at(vip))), says(&b.address)[0]);
        assert_eq!(inside(&outside.netns, || ask((NODE, NODE_PORT).into())), says(&OUTSIDE)[0]);

        // Only from this machine; then from a range; then from this machine again: a gate changes whole.
        for _ in 0..2 {
            table.apply(published(&[&a], Some(&["127.0.0.0/8"]), false)).expect("to apply");
            assert_eq!(from_outside(), refused);
            assert_eq!(from_here(), says(&slot.gateway()));
            assert_eq!([ask(near), ask_udp(near)], refused, "its other addresses are not loopback");
            let node_port = |address: Ipv4Addr| SocketAddr::from((address, NODE_PORT));
            assert_eq!(inside(&outside.netns, || ask(node_port(NODE))), refused[0], "no other door either");
            assert_eq!(inside(&b.netns, || ask(node_port(NODE))), refused[0]);
            assert_eq!(ask(node_port(Ipv4Addr::LOCALHOST)), says(&slot.gateway())[0]);
            assert_eq!(inside(&b.netns, || ask(at(vip))), says(&b.address)[0], "inside it is open");
            table.apply(published(&[&a], Some(&["10.9.0.0/16", "192.0.2.77/24"]), false)).expect("to apply");
            assert_eq!(from_outside(), says(&OUTSIDE));
            assert_eq!(from_here(), refused);
        }

        // Endpoints share the callers, unless a caller stays with one; without any, callers are refused.
        table.apply(published(&[&a, &b], Some(&[]), false)).expect("to apply");
        assert_eq!(inside(&outside.netns, || answers(near, 40)).len(), 2);
        table.apply(published(&[&a, &b], Some(&[]), true)).expect("to apply");
        assert_eq!(inside(&outside.netns, || answers(near, 20)).len(), 1);
        table.apply(published(&[], Some(&["0.0.0.0/0"]), false)).expect("to apply");
        assert_eq!(from_outside(), refused);
        table.apply(Rules::default()).expect("to apply");
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn a_thousand_services_change_one_by_one_and_a_flushed_table_comes_back() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let (a, b) = (network.attach("a").await.expect("a Pod"), network.attach("b").await.expect("a Pod"));
        [&a, &b].iter().for_each(|pod| serve(pod));
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = |i: u16| Ipv4Addr::new(o1, o2, 1 + (i >> 8) as u8, i as u8);
        let mut all = Snapshot::default();
        let set = |all: &mut Snapshot, i: u16, pods: &[&Attachment]| {
            let mut entry =
                (*snapshot(vip(i), pods, false).services.into_values().next().expect("one")).clone();
            entry.ports.iter_mut().for_each(|p| p.node_port = Some(30_000 + i));
            all.services.insert(ObjectKey::new("default", format!("service-{i}")), Arc::new(entry));
        };
        (0..1000).for_each(|i| set(&mut all, i, &[&a, &b]));
        table.apply(Rules::of(&all)).expect("to apply");
        let mut change = |table: &mut Table, i, pods: &[&Attachment]| {
            set(&mut all, i, pods);
            table.apply(Rules::of(&all)).expect("to apply");
        };
        let expect = |i: u16, expect: &str| {
            let answer = ask(SocketAddr::from((vip(i), PORT)));
            assert!(answer.starts_with(expect), "service {i}: {answer}");
        };
        let (a_says, b_says) = (a.address.to_string(), b.address.to_string());
        for (i, pod, says) in [(0, &a, &a_says), (500, &b, &b_says), (999, &a, &a_says)] {
            change(&mut table, i, &[pod]);
            expect(i, says);
        }
        change(&mut table, 7, &[]);
        expect(7, "connection refused");

        // A firewall that loads its own rules may flush everybody's; the next change brings all back.
        Table::remove(&slot).expect("to remove");
        change(&mut table, 7, &[&b]);
        expect(7, &b_says);
        expect(0, &a_says);
        expect(500, &b_says);
        // Without a change it is seen at the next look.
        assert!(!table.heal().expect("to look"));
        Table::remove(&slot).expect("to remove");
        assert!(table.heal().expect("to heal"));
        expect(0, &a_says);
        expect(7, &b_says);
        assert!(!table.heal().expect("to look"));
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn what_broke_off_in_the_middle_is_cleared_away_and_the_rest_kept() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let whole = network.attach("whole").await.expect("a Pod");
        let half = network.attach("half").await.expect("a Pod");
        let unmounted = network.attach("unmounted").await.expect("a Pod");
        let next = network.attach("last").await.expect("a Pod");
        drop(network);
        let record = |uid: &str| slot.run_dir().join("pods").join(uid);
        let netns = |uid: &str| slot.run_dir().join("netns").join(uid);
        // Ended before its network was complete; lost its namespace; has only a record; has an empty file besides.
        std::fs::write(record("half"), half.address.to_string()).expect("to write");
        nix::mount::umount2(&unmounted.netns, nix::mount::MntFlags::MNT_DETACH).expect("to unmount");
        std::fs::write(record("no-device"), "10.192.0.77 attached\n").expect("to write");
        std::fs::write(record("empty"), "").expect("to write");
        std::fs::write(netns("empty"), "").expect("to write");

        let network = PodNetwork::start(&slot).await.expect("the Pod network again");
        let attached: Vec<_> = network.attached().into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(attached, ["last", "whole"]);
        for uid in ["half", "unmounted", "no-device", "empty"] {
            assert!(!record(uid).exists() && !netns(uid).exists(), "{uid}");
        }
        // It works again under the same name, and addresses in use are not given out twice.
        let again = network.attach("half").await.expect("a Pod");
        assert!(![whole.address, next.address].contains(&again.address));
        serve(&again);
        let to = SocketAddr::from((again.address, 8080));
        assert_eq!(inside(&whole.netns, || ask(to)), format!("{} {}", again.address, whole.address));
        network.tear_down().await.expect("to tear down");
    });
}

#[test]
fn policies_keep_pods_apart() {
    isolated(|| async {
        let (data, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let slot = Slot::claim(data.path(), run.path(), &[]).expect("a slot");
        let network = PodNetwork::start(&slot).await.expect("the Pod network");
        let mut table = Table::create(&slot).expect("the table");
        let mut pods = Vec::new();
        for name in ["web", "db", "other"] {
            pods.push(network.attach(name).await.expect("a Pod"));
        }
        let outside = Attachment { netns: run.path().join("outside"), address: OUTSIDE.into() };
        neighbour(&outside.netns).await;
        pods.iter().chain([&outside]).for_each(serve);
        pods.iter().for_each(serve_udp);
        let [web, db, other] = &pods[..] else { unreachable!("three Pods") };
        let [o1, o2, ..] = slot.service_cidr().network().octets();
        let vip = Ipv4Addr::new(o1, o2, 0, 50);
        let objects: Vec<Arc<Pod>> = [("web", web), ("db", db), ("other", other)]
            .map(|(name, pod)| {
                let object = json!({"metadata": {"namespace": "n", "name": name, "labels": {"app": name}},
                    "status": {"podIP": pod.address.to_string()}});
                Arc::new(serde_json::from_value(object).expect("a Pod"))
            })
            .into();
        let name_server = NameServer { address: slot.gateway() };
        let mut apply = |specs: &[serde_json::Value]| {
            let policies = specs.iter().map(|spec| {
                let object = json!({"metadata": {"namespace": "n", "name": "p"}, "spec": spec});
                Arc::new(serde_json::from_value(object).expect("a NetworkPolicy"))
            });
            let mut all = snapshot(vip, &[db], false);
            all.isolation = Arc::new(isolate(&policies.collect::<Vec<_>>(), &objects, &[], name_server));
            table.apply(Rules::of(&all)).expect("to apply");
        };
        let direct = SocketAddr::from((db.address, 8080));
        let service = SocketAddr::from((vip, PORT));
        let node_port = SocketAddr::from((NODE, NODE_PORT));
        let reaches =
            |from: &Attachment, to: SocketAddr| inside(&from.netns, || ask(to) != "connection refused");
        let may = |from: &Attachment| [reaches(from, direct), reaches(from, service)];
        let to_db =
            |from: serde_json::Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": from});
        let from_web = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "ports": [{"port": 8000, "endPort": 8080}]}]);

        apply(&[]);
        assert_eq!([may(web), may(other)], [[true; 2]; 2]);
        // The database is there for the web and for the node, by TCP and at these ports; others are untouched.
        apply(&[to_db(from_web.clone())]);
        assert_eq!([may(web), may(other)], [[true; 2], [false; 2]]);
        assert!(!inside(&outside.netns, || ask(node_port)).starts_with(&db.address.to_string()));
        assert!(ask(direct).starts_with(&db.address.to_string()), "the node itself");
        assert_eq!(inside(&web.netns, || ask_udp(direct)), "connection refused");
        assert_eq!(may(db), [true; 2], "itself");
        assert!(reaches(db, (other.address, 8080).into()) && reaches(other, (web.address, 8080).into()));
        // An answer passes even where nothing may come; a second policy adds to the first; ranges have holes.
        let range = json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.64/26"]}}]}]);
        apply(&[to_db(from_web), to_db(range), json!({"podSelector": {"matchLabels": {"app": "web"}}})]);
        assert_eq!([may(web), may(other)], [[true; 2], [false; 2]]);
        assert!(!reaches(db, (web.address, 8080).into()));
        assert!(inside(&outside.netns, || ask(node_port)).starts_with(&db.address.to_string()));
        let hole = json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/30"]}}]}]);
        apply(&[to_db(hole)]);
        assert!(!inside(&outside.netns, || ask(node_port)).starts_with(&db.address.to_string()));
        // What goes out: to the database only.
        let out = json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]);
        apply(&[
            json!({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Egress"], "egress": out}),
        ]);
        assert_eq!(may(other), [true; 2]);
        assert!(!reaches(other, (web.address, 8080).into()) && !reaches(other, (OUTSIDE, 8080).into()));
        assert!(reaches(web, (other.address, 8080).into()) && reaches(web, (OUTSIDE, 8080).into()));
        apply(&[]);
        assert_eq!([may(web), may(other)], [[true; 2]; 2]);
        network.tear_down().await.expect("to tear down");
    });
}

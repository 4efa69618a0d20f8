//! Pods and Services on a real kernel, in a network namespace of the test's own.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use yado_net::index::{Endpoint, PortEntry, Protocol, ServiceEntry, Snapshot};
use yado_net::nft::{Rules, Table};
use yado_net::pods::{Attachment, PodNetwork};
use yado_net::slot::Slot;
use yado_types::key::ObjectKey;

/// Runs `test` on a thread with network and mount namespaces of its own, which end with it.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
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
    match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
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
    let endpoints: Arc<[Endpoint]> =
        pods.iter().map(|p| Endpoint { address: p.address, port: 8080, hostname: None }).collect();
    let port = PortEntry {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: PORT,
        node_port: Some(NODE_PORT),
        endpoints,
    };
    let entry = ServiceEntry {
        cluster_ips: vec![vip.into()],
        affinity_seconds: affinity.then_some(10_800),
        ports: vec![port],
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
        let [o1, o2, ..] = slot.service_cidr().address.octets();
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

//! One client does not keep the others out.

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use yado_net::router::Options;
use yado_net::router::clients::Limits;

use super::{App, Client, Stage, soon};

async fn connect_from(stage: &Stage, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(address.parse().expect("an address")).expect("an address of this machine");
    socket.connect(stage.address).await.expect("to connect")
}

#[tokio::test]
async fn idle_connections_make_way_and_busy_ones_stay() {
    let app = App::new("app").await;
    let limits = Limits { total: 6, per_client: 3 };
    let stage =
        Stage::with_options(&[("a.test", "/", &[app.address])], Options { limits, ..Default::default() })
            .await;
    // One says nothing, one begins a request and never ends it, one has had an answer, one waits for one.
    let mut silent = connect_from(&stage, "127.0.0.1:0").await;
    let mut slow = stage.client().await;
    slow.send("GET /name HTTP/1.1\n").await;
    let mut kept = stage.client().await;
    assert_eq!(kept.get("/name").await, (200, "app".into()));
    let mut busy = stage.client().await;
    busy.send("GET /gate HTTP/1.1\nHost: a.test\n\n").await;
    app.arrived().await;
    assert_eq!(soon(silent.read(&mut [0])).await.expect("an end"), 0, "the oldest idle one is closed first");
    let mut next = stage.client().await;
    assert_eq!(next.get("/name").await, (200, "app".into()));
    assert_eq!(slow.line().await, "");
    // With requests on all of its connections, a client gets no further one; another client does.
    let mut gates = Vec::new();
    for _ in 0..2 {
        let mut gate = stage.client().await;
        gate.send("GET /gate HTTP/1.1\nHost: a.test\n\n").await;
        app.arrived().await;
        gates.push(gate);
    }
    let mut refused = stage.client().await;
    assert_eq!(refused.answer().await.0, 429);
    let mut other = Client { stream: BufReader::new(connect_from(&stage, "127.0.0.2:0").await) };
    assert_eq!(other.get("/name").await, (200, "app".into()));
    app.open.add_permits(3);
    for client in gates.iter_mut().chain([&mut busy]) {
        assert_eq!(client.answer().await, (200, "app".into()));
    }
}

#[tokio::test]
async fn many_silent_connections_leave_room_for_a_request() {
    let app = App::new("app").await;
    let limits = Limits { total: 8, per_client: 4 };
    let stage =
        Stage::with_options(&[("a.test", "/", &[app.address])], Options { limits, ..Default::default() })
            .await;
    let mut silent = Vec::new();
    for i in 0..40 {
        silent.push(connect_from(&stage, &format!("127.0.0.{}:0", 10 + i % 10)).await);
    }
    let mut client = stage.client().await;
    assert_eq!(client.get("/name").await, (200, "app".into()));
}

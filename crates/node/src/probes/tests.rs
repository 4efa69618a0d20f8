use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn probe(value: Value) -> Probe {
    serde_json::from_value(value).expect("a probe")
}

#[test]
fn thresholds_count_results_in_a_row() {
    let check = |value: Value, results: &str, expect: &str| {
        let mut counter = ResultCounter::new(&probe(value));
        let verdicts: String = results
            .chars()
            .map(|c| match counter.observe(c == '+') {
                Some(true) => 'Y',
                Some(false) => 'N',
                None => '.',
            })
            .collect();
        assert_eq!(verdicts, expect, "{results}");
    };
    check(json!({}), "+--+---+", "Y..Y..NY");
    check(json!({"successThreshold": 2, "failureThreshold": 1}), "+-++-", ".N.YN");
}

#[test]
fn a_probe_is_eager_only_at_first() {
    let delays = |eager: bool, tries: usize| -> Vec<(u128, bool)> {
        let mut schedule = Schedule::new(&probe(json!({"periodSeconds": 1})), eager.then_some(EAGER_FIRST));
        (0..tries).map(|_| schedule.next()).map(|(delay, counts)| (delay.as_millis(), counts)).collect()
    };
    assert_eq!(delays(false, 2), [(1000, true), (1000, true)]);
    let eager = delays(true, 9);
    assert_eq!(eager[..4], [(5, false), (10, false), (20, false), (40, false)]);
    // One try in each period counts, whatever came in between.
    let mut since = 0;
    for (delay, counts) in &eager {
        since += delay;
        assert_eq!(*counts, since % 1000 == 0, "{eager:?}");
    }
    // However long it takes, the beat goes on.
    assert_eq!(delays(true, 1000)[900..], [(1000, true); 100]);
    let mut calm = Schedule::new(&probe(json!({"periodSeconds": 1})), Some(EAGER_FIRST));
    calm.calm();
    assert_eq!(calm.next(), (Duration::from_secs(1), true));
}

/// Answers one request with `answer` and gives back what was asked.
async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut asked = vec![0; 4096];
        let count = stream.read(&mut asked).await.expect("a request");
        stream.write_all(answer.as_bytes()).await.expect("written");
        String::from_utf8_lossy(&asked[..count]).into_owned()
    });
    (port, serving)
}

#[tokio::test]
async fn http_probes_judge_by_status() {
    let rows = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
        ("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", Ok(())),
        ("HTTP/1.0 200 OK\r\n\r\nto the end", Ok(())),
        (
            "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
            Err("HTTP probe failed with statuscode: 503".to_owned()),
        ),
    ];
    for (answer, expect) in rows {
        let (port, serving) = server(answer).await;
        let headers = vec![("X-A".to_owned(), "b".to_owned()), ("Host".to_owned(), "me".to_owned())];
        let request = http::Request { tls: false, host: None, port, path: "/ready?x=1".into(), headers };
        assert_eq!(http::get(&request, [127, 0, 0, 1].into()).await, expect, "{answer}");
        let asked = serving.await.expect("served").to_lowercase();
        assert!(asked.starts_with("get /ready?x=1 http/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("x-a: b\r\n") && asked.contains("host: me\r\n") && !asked.contains("host: 127"),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_is_said_in_kubelets_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let request = http::Request { tls: false, host: None, port, path: "/".into(), headers: Vec::new() };
    let expect =
        format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(http::get(&request, [127, 0, 0, 1].into()).await, Err(expect));
}

#[test]
fn handlers_are_read() {
    let container: Container =
        serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 80}]}))
            .expect("a container");
    let check = |value: Value, expect: Result<Handler, &str>| {
        assert_eq!(
            Handler::of_probe(&probe(value.clone()), &container),
            expect.map_err(str::to_owned),
            "{value}"
        );
    };
    let request = |tls, port, path: &str| {
        Handler::Http(http::Request { tls, host: None, port, path: path.into(), headers: Vec::new() })
    };
    check(json!({"httpGet": {"port": "web"}}), Ok(request(false, 80, "/")));
    check(json!({"httpGet": {"port": 8443, "path": "/h", "scheme": "HTTPS"}}), Ok(request(true, 8443, "/h")));
    check(json!({"tcpSocket": {"port": 6379}}), Ok(Handler::Tcp { host: None, port: 6379 }));
    check(json!({"exec": {"command": ["true"]}}), Ok(Handler::Command(vec!["true".into()])));
    check(json!({"tcpSocket": {"port": "nope"}}), Err("couldn't find port: \"nope\" in container \"c\""));
    check(json!({"tcpSocket": {"port": 0}}), Err("invalid port number: 0"));
    let grpc = |service: &str| Handler::Grpc { port: 50051, service: service.into() };
    check(json!({"grpc": {"port": 50051}}), Ok(grpc("")));
    check(json!({"grpc": {"port": 50051, "service": "shop"}}), Ok(grpc("shop")));
    check(json!({"grpc": {"port": 70000}}), Err("invalid port number: 70000"));
    check(json!({}), Err("a probe must have exec, httpGet, tcpSocket or grpc"));
}

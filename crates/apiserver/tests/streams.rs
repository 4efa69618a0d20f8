//! Streams to Pods, through the server to something that speaks as a node does, by a client in process and by kubectl.

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{LogParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use yado_apiserver::{ApiServer, Config, Identity, NodeDialer, NodeStream};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

/// Answers with the path it was asked for; after an upgrade, sends back what it gets, byte for byte.
struct Echo;

#[async_trait]
impl NodeDialer for Echo {
    async fn dial(&self, node_name: &str) -> std::io::Result<Box<dyn NodeStream>> {
        if node_name == "gone" {
            return Err(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused"));
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service_fn(echo))
                .with_upgrades(),
        );
        Ok(Box::new(ours))
    }
}

async fn echo(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    if path.contains("tailLines=0") {
        let refused =
            Response::builder().status(StatusCode::BAD_REQUEST).body(Full::from("nothing was logged"));
        return Ok(refused.expect("a response"));
    }
    let Some(upgrade) = request.headers().get(UPGRADE).cloned() else {
        return Ok(Response::new(Full::from(path)));
    };
    let protocol = request.headers()["sec-websocket-protocol"].clone();
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.expect("an upgrade"));
        stream.write_all(path.as_bytes()).await.expect("the path");
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..n]).await.expect("an echo");
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, upgrade)
        .header("sec-websocket-protocol", protocol);
    Ok(response.body(Full::default()).expect("a response"))
}

#[tokio::test]
async fn logs_and_upgrades_reach_the_node() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
    let server = ApiServer::new(Config::default(), store.clone(), SystemClock::shared(), Arc::new(Echo))
        .await
        .expect("a server");
    let client = server.client(Identity::new("test", ["system:masters"]));
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for (name, node) in [("p", "n"), ("q", "gone"), ("r", "")] {
        let mut pod =
            json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        pods.create(&PostParams::default(), &pod).await.expect("created");
    }
    let tail = |lines| LogParams { tail_lines: Some(lines), ..LogParams::default() };
    for (pod, parameters, expect) in [
        ("p", tail(5), "/containerLogs/default/p/c?tailLines=5"),
        ("p", tail(0), "nothing was logged"),
        ("q", tail(5), "error dialing node \"gone\": connection refused"),
        ("r", tail(5), "container \"c\" in pod \"r\" is waiting to start"),
        ("s", tail(5), "pods \"s\" not found"),
    ] {
        let found = pods.logs(pod, &parameters).await.unwrap_or_else(|e| e.to_string());
        assert!(found.contains(expect), "{pod}: {found}");
    }

    // A policy may change what is connected to.
    let mutation = "[JSONPatch{op: 'add', path: '/command/-', value: request.userInfo.username}, JSONPatch{op: 'add', path: '/tty', value: true}]";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation}}], "reinvocationPolicy": "Never"}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "p"}, "spec": {"policyName": "p"}});
    for (plural, object) in [("policies", policy), ("policybindings", binding)] {
        let line = format!("/apis/admissionregistration.k8s.io/v1/mutatingadmission{plural}");
        let request = Request::post(line).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).expect("a request");
        client.request::<serde_json::Value>(request).await.expect("created");
    }
    let request = Request::get("/api/v1/namespaces/default/pods/p/exec?command=cat&stdin=true&stdout=true")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v5.channel.k8s.io");
    let response =
        client.send(request.body(kube::client::Body::empty()).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"));
    let path = b"/exec/default/p/c?input=1&output=1&tty=1&command=cat&command=test";
    let mut read = vec![0; path.len()];
    stream.read_exact(&mut read).await.expect("the path");
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(path));
    // Larger than every buffer on the way, in both directions at once.
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = vec![0; sent.len()];
    let (wrote, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
    wrote.expect("written");
    read.expect("read");
    assert!(sent == received);
    server.shutdown().await;
    store.close().await;
}

//! Groups that another API server serves: whether it is available, and what it is told of who asks.

mod tls;

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use yado_apiserver::pki::FrontProxy;
use yado_apiserver::{ApiServer, Config, Identity, NoNodes};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

/// The answers of an API server with one resource.
fn respond(asked: &Parts, _body: &Value) -> Value {
    let header = |name: &str| asked.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match asked.uri.path() {
        "/apis/metrics.k8s.io/v1beta1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
            "resources": [{"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]}],
        }),
        "/openapi/v3" => json!({"paths": {"apis/metrics.k8s.io/v1beta1": {
            "serverRelativeURL": "/openapi/v3/apis/metrics.k8s.io/v1beta1?hash=1"}}}),
        path => json!({"path": path, "user": header("x-remote-user"), "token": header("authorization")}),
    }
}

/// An address of this machine that a Pod could have; `None` where it has no network.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

struct Fixture(ApiServer);

impl Fixture {
    async fn send(&self, line: &str, headers: &[(&str, &str)], user: &str, body: &Value) -> (u16, Value) {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(target).header("content-type", kind);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let groups = if user == "admin" { vec!["system:masters"] } else { Vec::new() };
        request.extensions_mut().insert(Identity::new(user, groups));
        let Ok(response) = self.0.clone().oneshot(request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
    }

    async fn admin(&self, line: &str, body: Value) -> Value {
        let (code, answer) = self.send(line, &[], "admin", &body).await;
        assert!(code < 300, "{line}: {answer:#}");
        answer
    }

    /// Waits until the condition of the APIService has this reason.
    async fn wait(&self, reason: &str) {
        let mut found = Value::Null;
        for _ in 0..1500 {
            let service = self.admin(&format!("GET {SERVICES}/v1beta1.metrics.k8s.io"), Value::Null).await;
            found = service["status"]["conditions"][0].clone();
            if found["reason"] == reason {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{found:#}");
    }
}

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

#[rustfmt::skip]
#[tokio::test(flavor = "multi_thread")]
async fn requests_for_other_servers_are_handed_on() {
    let Some(address) = own_address() else {
        yado_testkit::skip!("this machine has no address but its own loopback");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path().join("store"))).expect("a store"));
    let clock = SystemClock::shared();
    let front_proxy = FrontProxy::load_or_create(&directory.path().join("pki"), clock.now()).expect("certificates");
    let config = Config { front_proxy: Some(front_proxy), ..Config::default() };
    let server = ApiServer::new(config, store.clone(), clock, Arc::new(NoNodes)).await.expect("a server");
    let f = Fixture(server);
    let (port, bundle) = tls::serve((address, "metrics-server.kube-system.svc"), respond).await;

    // What this server has itself is registered too.
    for _ in 0..1000 {
        if f.send(&format!("GET {SERVICES}/v1.apps"), &[], "admin", &Value::Null).await.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let own = f.admin(&format!("GET {SERVICES}/v1.apps"), Value::Null).await;
    assert_eq!((&own["spec"]["groupPriorityMinimum"], &own["status"]["conditions"][0]["reason"]), (&json!(17800), &json!("Local")));
    let map = f.admin("GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", Value::Null).await;
    assert!(map["data"]["requestheader-client-ca-file"].as_str().is_some_and(|pem| pem.starts_with("-----BEGIN CERTIFICATE")));
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");

    for (spec, expect) in [
        (json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}), "metadata.name"),
        (json!({"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 0, "versionPriority": 1}), "spec.groupPriorityMinimum"),
        (json!({"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 1, "versionPriority": 1, "insecureSkipTLSVerify": true}), "spec.insecureSkipTLSVerify"),
    ] {
        let object = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": spec});
        let (code, answer) = f.send(&format!("POST {SERVICES}"), &[], "admin", &object).await;
        assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &json!(expect)), "{answer:#}");
    }
    f.admin(&format!("POST {SERVICES}"), json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {
        "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": {"namespace": "kube-system", "name": "metrics-server"}, "caBundle": bundle}})).await;
    f.wait("ServiceNotFound").await;
    let (code, answer) = f.send(&format!("GET {METRICS}/nodes"), &[], "admin", &Value::Null).await;
    assert_eq!((code, &answer["reason"]), (503, &json!("ServiceUnavailable")));
    f.admin("POST /api/v1/namespaces/kube-system/services", json!({"metadata": {"name": "metrics-server"},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}})).await;
    f.wait("EndpointsNotFound").await;
    f.admin("POST /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", json!({
        "metadata": {"name": "m", "labels": {"kubernetes.io/service-name": "metrics-server"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}], "ports": [{"name": "https", "port": port}]})).await;
    f.wait("Passed").await;

    // The client's own claims of who it is do not count.
    let claim = [("x-remote-user", "system:admin"), ("authorization", "Bearer x")];
    let (code, answer) = f.send(&format!("GET {METRICS}/nodes/n?a=b"), &claim, "admin", &Value::Null).await;
    assert_eq!(code, 200, "{answer:#}");
    assert_eq!(answer, json!({"path": "/apis/metrics.k8s.io/v1beta1/nodes/n", "user": "admin", "token": ""}));
    let (code, answer) = f.send(&format!("GET {METRICS}/nodes"), &[], "jane", &Value::Null).await;
    assert_eq!(code, 403, "{answer:#}");
    assert_eq!(answer["message"], "nodes.metrics.k8s.io is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"metrics.k8s.io\" at the cluster scope");

    // Discovery has it, in its place.
    let groups = f.admin("GET /apis", Value::Null).await;
    let names: Vec<&str> = groups["groups"].as_array().into_iter().flatten().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!((names.first(), names.iter().rev().take(2).collect::<Vec<_>>()), (Some(&"apiregistration.k8s.io"), vec![&"extensions", &"metrics.k8s.io"]));
    let list = f.admin(&format!("GET {METRICS}"), Value::Null).await;
    assert_eq!(list["resources"][0]["kind"], "NodeMetrics");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let (_, all) = f.send("GET /apis", &accept, "admin", &Value::Null).await;
    let found = all["items"].as_array().into_iter().flatten().find(|g| g["metadata"]["name"] == "metrics.k8s.io");
    assert_eq!(found.map(|g| &g["versions"][0]["resources"][0]["responseKind"]["kind"]), Some(&json!("NodeMetrics")));
    let index = f.admin("GET /openapi/v3", Value::Null).await;
    assert_eq!(index["paths"]["apis/metrics.k8s.io/v1beta1"]["serverRelativeURL"], "/openapi/v3/apis/metrics.k8s.io/v1beta1?hash=1");
    let document = f.admin("GET /openapi/v3/apis/metrics.k8s.io/v1beta1?hash=1", Value::Null).await;
    assert_eq!(document["path"], "/openapi/v3/apis/metrics.k8s.io/v1beta1");

    // Whom no certificate of the bundle identifies gets no request.
    let (_, other) = tls::serve((address, "metrics-server.kube-system.svc"), respond).await;
    f.admin(&format!("PATCH {SERVICES}/v1beta1.metrics.k8s.io"), json!({"spec": {"caBundle": other}})).await;
    let mut code = 0;
    for _ in 0..1000 {
        code = f.send(&format!("GET {METRICS}/nodes"), &[], "admin", &Value::Null).await.0;
        if code == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code, 503);
    f.admin(&format!("DELETE {SERVICES}/v1beta1.metrics.k8s.io"), Value::Null).await;
    // The server's own figures are back: those of no node here.
    let mut own = Value::Null;
    for _ in 0..1000 {
        (code, own) = f.send(&format!("GET {METRICS}/nodes"), &[], "admin", &Value::Null).await;
        if code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((code, &own["kind"], &own["items"]), (200, &json!("NodeMetricsList"), &json!([])));
    f.0.shutdown().await;
    store.close().await;
}

//! The API over raw requests in process: one row for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Body, Config, Identity, NoNodes, audit};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

struct Fixture {
    server: ApiServer,
    store: Arc<Embedded>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
        let server = Self::server(&store).await;
        Self { server, store, _directory: directory }
    }

    async fn server(store: &Arc<Embedded>) -> ApiServer {
        let clock = SystemClock::shared();
        ApiServer::new(Config::default(), store.clone(), clock, Arc::new(NoNodes)).await.expect("a server")
    }

    async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", kind);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        request.extensions_mut().insert(Identity::new("test", ["system:masters"]));
        let Ok(response) = self.server.clone().oneshot(request).await;
        response
    }

    async fn json(&self, line: &str, body: &str) -> (u16, Value) {
        let response = self.send(line, &[], body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
    }

    /// Sends each row's request and compares the code, and `POINTER=TEXT` for each of the expectations.
    async fn check(&self, rows: &[(&str, &str, u16, &[&str])]) {
        for (line, body, code, expectations) in rows {
            let (found, value) = self.json(line, body).await;
            assert_eq!(found, *code, "{line} {body}: {value:#}");
            for expectation in *expectations {
                let (pointer, text) = expectation.split_once('=').expect("POINTER=TEXT");
                let shown = match value.pointer(pointer) {
                    None => "-".to_owned(),
                    Some(Value::String(s)) => s.clone(),
                    Some(other) => other.to_string(),
                };
                assert_eq!(shown, text, "{pointer} of {line} {body}: {value:#}");
            }
        }
    }

    /// The lines of a watch until `count` were told; kind, name and resourceVersion or code of each.
    async fn events(&self, line: &str, count: usize) -> Vec<String> {
        let mut body = self.send(line, &[], "").await.into_body();
        let mut told = Vec::new();
        let mut buffer = Vec::new();
        while told.len() < count {
            // A guard against hanging for ever, far above what any event takes.
            let frame = tokio::time::timeout(Duration::from_secs(120), body.frame()).await;
            let Some(frame) = frame.unwrap_or_else(|_| panic!("nothing more comes after {told:?} of {line}"))
            else {
                break;
            };
            buffer.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event");
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
                let extra = match &event["object"]["code"] {
                    Value::Null => event["object"]["metadata"]["annotations"].to_string(),
                    code => code.to_string(),
                };
                told.push(format!("{} {name} {extra}", event["type"].as_str().unwrap_or("?")));
            }
        }
        told
    }

    async fn close(self) {
        self.server.shutdown().await;
        self.store.close().await;
    }
}

const CMS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn config_map(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","labels":{{"n":"{name}"}}}},"data":{{"a":"1"}}}}"#)
}

fn pod(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}"#)
}

#[rustfmt::skip]
#[tokio::test]
async fn create_read_update_delete() {
    let f = Fixture::new().await;
    let a = config_map("a");
    f.check(&[
        (&format!("POST {CMS}"), &a, 201, &["/kind=ConfigMap", "/apiVersion=v1", "/metadata/namespace=default", "/data/a=1"]),
        (&format!("POST {CMS}"), &a, 409, &["/reason=AlreadyExists", "/details/name=a", "/details/kind=configmaps"]),
        (&format!("POST {CMS}"), r#"{"metadata":{"generateName":"g-"}}"#, 201, &["/metadata/generateName=g-"]),
        (&format!("POST {CMS}"), r#"{"metadata":{}}"#, 422, &["/reason=Invalid"]),
        (&format!("POST {CMS}"), r#"{"metadata":{"name":"b","namespace":"other"}}"#, 400, &["/reason=BadRequest"]),
        (&format!("POST {CMS}"), r#"{"metadata":{"name":"b","resourceVersion":"1"}}"#, 400, &[]),
        (&format!("POST {CMS}"), r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"b"}}"#, 400, &[]),
        (&format!("POST {CMS}"), "{", 400, &["/reason=BadRequest"]),
        (&format!("POST {CMS}?dryRun=All"), &config_map("dry"), 201, &["/metadata/name=dry"]),
        (&format!("GET {CMS}/dry"), "", 404, &["/message=configmaps \"dry\" not found"]),
        ("POST /api/v1/namespaces/nope/configmaps", &a, 404, &["/message=namespaces \"nope\" not found"]),
        (&format!("GET {CMS}/a"), "", 200, &["/kind=ConfigMap"]),
        (&format!("PUT {CMS}/a"), r#"{"metadata":{"name":"a"},"data":{"a":"2"}}"#, 200, &["/data/a=2", "/metadata/labels=-"]),
        (&format!("PUT {CMS}/a"), r#"{"metadata":{"name":"a","resourceVersion":"1"}}"#, 409, &[
            "/reason=Conflict",
            "/message=Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"]),
        (&format!("PUT {CMS}/a"), r#"{"metadata":{"name":"b"}}"#, 400, &[]),
        (&format!("PUT {CMS}/zz"), r#"{"metadata":{"name":"zz"}}"#, 404, &[]),
        (&format!("PATCH {CMS}/a"), r#"{"data":{"b":"3"}}"#, 200, &["/data/a=2", "/data/b=3"]),
        (&format!("PATCH {CMS}/a"), r#"{"metadata":{"resourceVersion":"1"}}"#, 409, &["/reason=Conflict"]),
        (&format!("DELETE {CMS}/a"), r#"{"preconditions":{"uid":"x"}}"#, 409, &[]),
        (&format!("DELETE {CMS}/a?dryRun=All"), "", 200, &["/status=Success"]),
        (&format!("DELETE {CMS}/a"), "", 200, &["/kind=Status", "/status=Success", "/details/name=a", "/details/kind=configmaps"]),
        (&format!("DELETE {CMS}/a"), "", 404, &[]),
        (&format!("DELETE {CMS}"), "", 200, &["/kind=ConfigMapList"]),
        (&format!("GET {CMS}"), "", 200, &["/items=[]"]),
        ("GET /nowhere", "", 404, &["/message=the server could not find the requested resource"]),
        ("GET /api/v1/pods/x", "", 404, &[]),
        ("PUT /api/v1/configmaps", "", 405, &["/reason=MethodNotAllowed"]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn events_are_selected_under_the_names_of_their_group() {
    let f = Fixture::new().await;
    let event = r#"{"metadata":{"name":"e"},"eventTime":"2026-01-01T00:00:00.000000Z","reportingController":"a/b","reportingInstance":"i","action":"A","reason":"R","type":"Normal","regarding":{"kind":"Pod","name":"x","namespace":"default"}}"#;
    let (core, new) = ("GET /api/v1/namespaces/default/events", "GET /apis/events.k8s.io/v1/namespaces/default/events");
    f.check(&[
        ("POST /apis/events.k8s.io/v1/namespaces/default/events", event, 201, &[]),
        (&format!("{new}?fieldSelector=reportingController%3Da/b,type%3DNormal"), "", 200, &["/items/0/metadata/name=e"]),
        (&format!("{new}?fieldSelector=reportingController%3Dc"), "", 200, &["/items/0=-"]),
        (&format!("{new}?fieldSelector=regarding.name%3Dx"), "", 200, &["/items/0/metadata/name=e"]),
        (&format!("{new}?fieldSelector=involvedObject.name%3Dx"), "", 400, &[]),
        (&format!("{core}?fieldSelector=involvedObject.name%3Dx,source%3Da/b"), "", 200, &["/items/0/metadata/name=e"]),
        (&format!("{core}?fieldSelector=reportingComponent%3Da/b"), "", 200, &["/items/0/metadata/name=e"]),
        (&format!("{core}?fieldSelector=reportingController%3Da/b"), "", 400, &[]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn namespaces_hold_their_content() {
    let f = Fixture::new().await;
    f.check(&[
        ("GET /api/v1/namespaces/kube-system", "", 200, &["/status/phase=Active", "/spec/finalizers/0=kubernetes"]),
        ("POST /api/v1/namespaces", r#"{"metadata":{"name":"team"}}"#, 201, &["/status/phase=Active", "/metadata/labels/kubernetes.io~1metadata.name=team"]),
        ("GET /api/v1/namespaces/team/serviceaccounts/default", "", 200, &["/metadata/namespace=team"]),
        ("DELETE /api/v1/namespaces/kube-system", "", 403, &["/reason=Forbidden"]),
        ("DELETE /api/v1/namespaces/team", "", 200, &["/status/phase=Terminating"]),
        ("POST /api/v1/namespaces/team/configmaps", &config_map("x"), 403, &["/details/causes/0/reason=NamespaceTerminating", "/details/name=x"]),
        ("PUT /api/v1/namespaces/team", r#"{"metadata":{"name":"team"},"spec":{}}"#, 200, &["/spec/finalizers/0=kubernetes"]),
        ("PUT /api/v1/namespaces/team/finalize", r#"{"metadata":{"name":"team"},"spec":{}}"#, 200, &[]),
        ("GET /api/v1/namespaces/team", "", 404, &[]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn pods_are_bound_run_and_end() {
    let f = Fixture::new().await;
    let binding = r#"{"target":{"kind":"Node","name":"n"},"metadata":{"name":"p"}}"#;
    // A merge patch replaces the containers with their mounts, so that the Pod of this test gets none by itself.
    let account = r#"{"metadata":{"name":"default"},"automountServiceAccountToken":false}"#;
    f.check(&[
        ("PUT /api/v1/namespaces/default/serviceaccounts/default", account, 200, &[]),
        (&format!("POST {PODS}"), &pod("p"), 201, &[
            "/status/phase=Pending", "/status/qosClass=BestEffort", "/spec/serviceAccountName=default",
            "/spec/restartPolicy=Always", "/metadata/generation=1", "/spec/priority=0"]),
        (&format!("POST {PODS}"), r#"{"metadata":{"name":"q"},"spec":{"serviceAccountName":"nobody","containers":[{"name":"c","image":"i"}]}}"#, 403, &[]),
        (&format!("PUT {PODS}/p"), &pod("p").replace("}]", "}],\"nodeName\":\"m\""), 422, &[]),
        (&format!("PATCH {PODS}/p"), r#"{"spec":{"containers":[{"name":"c","image":"j"}]}}"#, 200, &["/metadata/generation=2", "/status/phase=Pending"]),
        (&format!("POST {PODS}/p/binding"), binding, 201, &["/status=Success"]),
        (&format!("POST {PODS}/p/binding"), binding, 409, &["/reason=Conflict"]),
        (&format!("GET {PODS}/p"), "", 200, &["/spec/nodeName=n", "/status/conditions/0/type=PodScheduled"]),
        (&format!("PATCH {PODS}/p/status"), r#"{"status":{"phase":"Running"},"spec":{"nodeName":"m"}}"#, 200, &["/status/phase=Running", "/spec/nodeName=n"]),
        (&format!("GET {PODS}?fieldSelector=spec.nodeName%3Dn,status.phase%3DRunning"), "", 200, &["/items/0/metadata/name=p"]),
        (&format!("GET {PODS}?fieldSelector=spec.nodeName%3Dm"), "", 200, &["/items=[]"]),
        (&format!("GET {PODS}?fieldSelector=spec.image%3Dm"), "", 400, &[]),
        (&format!("DELETE {PODS}/p"), "", 200, &["/metadata/deletionGracePeriodSeconds=30", "/kind=Pod"]),
        (&format!("PATCH {PODS}/p/status"), r#"{"status":{"phase":"Failed"}}"#, 200, &["/status/phase=Failed"]),
        (&format!("DELETE {PODS}/p"), r#"{"gracePeriodSeconds":0}"#, 200, &["/kind=Pod"]),
        (&format!("GET {PODS}/p"), "", 404, &[]),
        (&format!("POST {PODS}"), &pod("e"), 201, &[]),
        (&format!("POST {PODS}/e/eviction"), r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"e"}}"#, 201, &["/status=Success"]),
        (&format!("GET {PODS}/e"), "", 404, &[]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn services_hold_addresses_and_ports() {
    let f = Fixture::new().await;
    let service = |name: &str, spec: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}],{spec}}}}}"#);
    let taken = service("b", r#""clusterIP":"10.96.5.5""#);
    f.check(&[
        (&format!("GET {SERVICES}/kubernetes"), "", 200, &["/spec/clusterIP=10.96.0.1"]),
        (&format!("POST {SERVICES}"), &service("a", r#""clusterIP":"10.96.5.5","selector":{"a":"b"}"#), 201, &["/spec/clusterIPs/0=10.96.5.5", "/spec/type=ClusterIP"]),
        (&format!("POST {SERVICES}"), &taken, 422, &["/details/causes/0/field=spec.clusterIPs"]),
        (&format!("POST {SERVICES}"), &service("x", r#""clusterIP":"10.0.0.1""#), 422, &[]),
        (&format!("POST {SERVICES}"), &service("h", r#""clusterIP":"None""#), 201, &["/spec/clusterIP=None"]),
        (&format!("PATCH {SERVICES}/a"), r#"{"spec":{"type":"NodePort","ports":[{"port":80,"nodePort":30333}]}}"#, 200, &["/spec/clusterIP=10.96.5.5", "/spec/ports/0/nodePort=30333"]),
        (&format!("PATCH {SERVICES}/h"), r#"{"metadata":{"labels":{"x":"y"}}}"#, 200, &["/spec/clusterIP=None"]),
        (&format!("POST {SERVICES}"), &service("c", r#""type":"NodePort""#).replace("\"port\":80", "\"port\":80,\"nodePort\":30333"), 422, &["/details/causes/0/field=spec.ports[0].nodePort"]),
        (&format!("PATCH {SERVICES}/a"), r#"{"spec":{"type":"ClusterIP"}}"#, 200, &["/spec/ports/0/nodePort=-"]),
        (&format!("POST {SERVICES}"), &service("c", r#""type":"NodePort""#).replace("\"port\":80", "\"port\":80,\"nodePort\":30333"), 201, &[]),
        (&format!("DELETE {SERVICES}/a"), "", 200, &[]),
        (&format!("POST {SERVICES}"), &taken, 201, &["/spec/clusterIP=10.96.5.5"]),
    ]).await;
    // What is applied a second time changes nothing, with ports or without.
    for spec in [r#"{"clusterIP":"None","selector":{"a":"b"}}"#,
        r#"{"type":"NodePort","ports":[{"port":80}]}"#, r#"{"type":"ExternalName","externalName":"a.test"}"#] {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"applied"}},"spec":{spec}}}"#);
        let apply = async || {
            let line = format!("PATCH {SERVICES}/applied?fieldManager=me&force=true");
            let answer = f.send(&line, &[("content-type", "application/apply-patch+yaml")], &body).await;
            assert!(answer.status().is_success(), "{spec}");
            answer.into_body().collect().await.expect("a body").to_bytes()
        };
        let (first, second) = (apply().await, apply().await);
        assert_eq!(first, second);
        f.check(&[
            (&format!("PATCH {SERVICES}/applied"), "{}", 200, &["/spec/clusterIP=None"][..usize::from(spec.contains("None"))]),
            (&format!("DELETE {SERVICES}/applied"), "", 200, &[]),
        ]).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    let f = Arc::new(f);
    for i in 0..40 {
        let (f, body) = (f.clone(), service(&format!("s{i}"), r#""type":"NodePort""#));
        tasks.spawn(async move { f.json(&format!("POST {SERVICES}"), &body).await });
    }
    let mut held = std::collections::BTreeSet::new();
    while let Some(made) = tasks.join_next().await {
        let (code, value) = made.expect("a task");
        assert_eq!(code, 201, "{value:#}");
        held.insert(value["spec"]["clusterIP"].to_string());
        held.insert(value["spec"]["ports"][0]["nodePort"].to_string());
    }
    assert_eq!(held.len(), 80);
}

#[rustfmt::skip]
#[tokio::test]
async fn lists_come_in_parts_of_one_state() {
    let f = Fixture::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        f.check(&[(&format!("POST {CMS}"), &config_map(name), 201, &[])]).await;
    }
    let (_, first) = f.json(&format!("GET {CMS}?limit=2"), "").await;
    let names = |list: &Value| list["items"].as_array().expect("items").iter().map(|i| i["metadata"]["name"].as_str().expect("name").to_owned()).collect::<Vec<_>>().join(" ");
    assert_eq!((names(&first).as_str(), &first["metadata"]["remainingItemCount"]), ("a b", &3.into()));
    f.check(&[(&format!("DELETE {CMS}/d"), "", 200, &[]), (&format!("PATCH {CMS}/c"), r#"{"data":{"a":"9"}}"#, 200, &[])]).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (_, second) = f.json(&format!("GET {CMS}?limit=2&continue={token}"), "").await;
    assert_eq!((names(&second).as_str(), &second["items"][0]["data"]["a"]), ("c d", &"1".into()));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 1);
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let (_, third) = f.json(&format!("GET {CMS}?limit=2&continue={token}"), "").await;
    assert_eq!((names(&third).as_str(), &third["metadata"]["continue"]), ("e", &Value::Null));
    let revision = first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let (_, exact) = f.json(&format!("GET {CMS}?resourceVersion={revision}&resourceVersionMatch=Exact"), "").await;
    assert_eq!(names(&exact), "a b c d e");
    f.store.compact(f.store.revision()).await.expect("compaction");
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (_, expired) = f.json(&format!("GET {CMS}?limit=2&continue={token}"), "").await;
    let now = expired["metadata"]["continue"].as_str().expect("a token for the rest as it is now");
    f.check(&[
        (&format!("GET {CMS}?resourceVersion={revision}&resourceVersionMatch=Exact"), "", 410, &["/reason=Expired"]),
        (&format!("GET {CMS}?limit=2&continue={token}"), "", 410, &["/reason=Expired"]),
        (&format!("GET {CMS}?continue=x"), "", 400, &[]),
        (&format!("GET {CMS}?limit=1&continue={now}"), "", 200, &["/items/0/metadata/name=c", "/metadata/remainingItemCount=1"]),
        (&format!("GET {CMS}?resourceVersion=999999"), "", 504, &["/reason=Timeout"]),
        (&format!("GET {CMS}?labelSelector=n+in+(a,b)"), "", 200, &["/items/1/metadata/name=b", "/items/2=-"]),
        (&format!("GET {CMS}?labelSelector=n+like+b"), "", 400, &[]),
        ("GET /api/v1/configmaps?fieldSelector=metadata.name%3Da", "", 200, &["/items/0/metadata/name=a"]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn watches_tell_every_change_once() {
    let f = Fixture::new().await;
    let (_, made) = f.json(&format!("POST {CMS}"), &config_map("a")).await;
    let revision = made["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    f.check(&[
        (&format!("POST {CMS}"), &config_map("b"), 201, &[]),
        (&format!("PATCH {CMS}/a"), r#"{"metadata":{"labels":{"n":"z"}}}"#, 200, &[]),
        (&format!("PATCH {CMS}/a"), r#"{"metadata":{"labels":{"n":"z"}}}"#, 200, &[]),
        (&format!("DELETE {CMS}/b"), "", 200, &[]),
    ]).await;
    for (query, count, expect) in [
        (format!("resourceVersion={revision}"), 3, "ADDED b null|MODIFIED a null|DELETED b null"),
        (format!("resourceVersion={revision}&labelSelector=n%3Da"), 1, "DELETED a null"),
        (format!("resourceVersion={revision}&labelSelector=n%3Dz"), 1, "ADDED a null"),
        (format!("resourceVersion={revision}&fieldSelector=metadata.name%3Db"), 2, "ADDED b null|DELETED b null"),
        (String::new(), 1, "ADDED a null"),
        ("resourceVersion=0".to_owned(), 1, "ADDED a null"),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true".to_owned(), 2,
            "ADDED a null|BOOKMARK - {\"k8s.io/initial-events-end\":\"true\"}"),
        ("timeoutSeconds=1&allowWatchBookmarks=true".to_owned(), 9, "ADDED a null|BOOKMARK - null"),
    ] {
        let line = format!("GET {CMS}?watch=1&{query}");
        assert_eq!(f.events(&line, count).await.join("|"), expect, "{line}");
    }
    f.check(&[(&format!("GET {CMS}?watch=1&sendInitialEvents=true"), "", 400, &[])]).await;
    // A stop ends watches, after what they have told.
    let mut watch = f.send("GET /api/v1/configmaps?watch=1&resourceVersion=0", &[], "").await.into_body();
    let told = watch.frame().await.expect("an event").expect("a frame").into_data().expect("data");
    assert!(told.starts_with(b"{\"type\":\"ADDED\""), "{told:?}");
    let (rest, ()) = tokio::join!(watch.collect(), f.server.shutdown());
    assert_eq!(rest.expect("an end").to_bytes(), "");
}

#[rustfmt::skip]
#[tokio::test]
async fn forms_and_media_types() {
    let f = Fixture::new().await;
    f.check(&[(&format!("POST {CMS}"), &config_map("a"), 201, &[])]).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";
    let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let large = format!(r#"{{"metadata":{{"name":"large"}},"data":{{"a":"{}"}}}}"#, "x".repeat(200_000));
    let too_large = "x".repeat(4 << 20);
    let yaml = "metadata: {name: yaml}\ndata: {a: b}\n";
    let list = format!("GET {CMS}");
    let post = format!("POST {CMS}");
    for (line, headers, body, code, expect) in [
        (&list, vec![("accept", table)], "", 200, "\"kind\":\"Table\""),
        (&list, vec![("accept", metadata)], "", 200, "\"kind\":\"PartialObjectMetadataList\""),
        (&list, vec![("accept", "application/vnd.kubernetes.protobuf")], "", 406, "NotAcceptable"),
        (&"GET /apis".to_owned(), vec![("accept", discovery)], "", 200, "\"resource\":\"deployments\""),
        (&"GET /apis".to_owned(), vec![], "", 200, "\"kind\":\"APIGroupList\""),
        (&post, vec![("content-type", "application/yaml")], yaml, 201, "\"a\":\"b\""),
        (&list, vec![("accept", "application/yaml")], "", 200, "apiVersion: v1\nitems:\n- apiVersion: v1\n  data:\n    a: '1'\n  kind: ConfigMap\n"),
        (&list, vec![("accept", "application/yaml;as=Table;v=v1;g=meta.k8s.io")], "", 200, "kind: Table\n"),
        (&format!("GET {CMS}/none"), vec![("accept", "application/yaml")], "", 404, "kind: Status\nmessage: configmaps \"none\" not found\n"),
        (&format!("GET {CMS}?watch=1"), vec![("accept", "application/yaml")], "", 406, "kind: Status\n"),
        (&"GET /apis/apps".to_owned(), vec![("accept", "application/yaml")], "", 200, "kind: APIGroup\n"),
        (&format!("PUT {CMS}/yaml"), vec![("content-type", "application/yaml"), ("accept", "application/yaml, application/json")], "metadata: {name: yaml}\ndata: {a: c}\n", 200, "data:\n  a: c\n"),
        (&format!("PATCH {CMS}/yaml?fieldManager=m&force=true"), vec![("content-type", "application/apply-patch+yaml"), ("accept", "application/yaml")], "metadata: {name: yaml}\ndata: {a: d}\n", 200, "data:\n  a: d\n"),
        (&post, vec![("content-type", "text/plain")], yaml, 415, "UnsupportedMediaType"),
        (&post, vec![], &large, 201, "large"),
        (&post, vec![], &too_large, 413, "RequestEntityTooLarge"),
        (&format!("PATCH {CMS}/a"), vec![("content-type", "application/json")], "{}", 415, "UnsupportedMediaType"),
    ] {
        let response = f.send(line, &headers, body).await;
        let found = response.status().as_u16();
        let text = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(found == code && text.contains(expect), "{line} {headers:?}: {found} {}", &text[..text.len().min(500)]);
    }
    let packed = f.send(&list, &[("accept-encoding", "deflate, gzip")], "").await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let bytes = packed.into_body().collect().await.expect("a body").to_bytes();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).expect("gzip");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["items"].as_array().map(Vec::len), Some(3));
    f.close().await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let f = Fixture::new().await;
    f.check(&[(&format!("POST {CMS}"), &config_map("a"), 201, &[])]).await;
    let (_, before) = f.json(&format!("GET {CMS}/a"), "").await;
    f.server.shutdown().await;
    let server = Fixture::server(&f.store).await;
    let f = Fixture { server, ..f };
    let (_, after) = f.json(&format!("GET {CMS}/a"), "").await;
    assert_eq!(before, after);
    f.check(&[("GET /api/v1/namespaces", "", 200, &["/items/3/metadata/name=kube-system", "/items/4=-"])])
        .await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn bodies_of_subresources_and_reviews_are_decoded_by_their_schema() {
    let f = Fixture::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = r#"{"metadata":{"name":"d"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{
        "metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    let scale = format!("{deployments}/d/scale");
    let of = |spec: &str| format!(r#"{{"metadata":{{"name":"d"}},"spec":{spec}}}"#);
    let (put, patch) = (format!("PUT {scale}"), format!("PATCH {scale}"));
    f.check(&[(&format!("POST {deployments}"), deployment, 201, &[])]).await;
    for wrong in [r#"{"replicas":"5"}"#, r#"{"replicas":2.5}"#, r#"{"replicas":3000000000}"#, r#"{"replicas":[1]}"#, r#""5""#] {
        f.check(&[
            (&put, &of(wrong), 400, &["/reason=BadRequest"]),
            (&patch, &format!(r#"{{"spec":{wrong}}}"#), 400, &["/reason=BadRequest"]),
        ]).await;
    }
    f.check(&[
        (&put, &of(r#"{"replicas":-1}"#), 422, &["/details/causes/0/field=spec.replicas"]),
        (&put, &of(r#"{"replicas":1}"#).replace("\"d\"", "\"other\""), 400, &[]),
        (&put, r#"{"kind":"Pod","apiVersion":"v1","spec":{"replicas":1}}"#, 400, &[]),
        (&format!("{put}?fieldValidation=Strict"), &of(r#"{"replicas":1,"x":1}"#), 400, &[]),
        (&format!("GET {scale}"), "", 200, &["/spec/replicas=1"]),
        (&put, &of(r#"{"replicas":4}"#), 200, &["/spec/replicas=4"]),
        (&patch, r#"{"spec":{"replicas":null}}"#, 200, &["/spec/replicas=-"]),
    ]).await;

    let bind = format!("POST {PODS}/p/binding");
    f.check(&[
        (&format!("POST {PODS}"), &pod("p"), 201, &[]),
        (&bind, r#"{"metadata":{"name":"p","labels":{"a":1}},"target":{"kind":"Node","name":"n"}}"#, 400, &[]),
        (&bind, r#"{"metadata":{"name":"p","labels":"x"},"target":{"kind":"Node","name":"n"}}"#, 400, &[]),
        (&bind, r#"{"metadata":{"name":"p","annotations":{"a b":"c"}},"target":{"kind":"Node","name":"n"}}"#, 422, &["/details/causes/0/field=metadata.annotations"]),
        (&bind, r#"{"metadata":{"name":"p"},"target":"n"}"#, 400, &[]),
        (&bind, r#"{"metadata":{"name":"p","namespace":"other"},"target":{"kind":"Node","name":"n"}}"#, 400, &[]),
        (&format!("GET {PODS}/p"), "", 200, &["/spec/nodeName=-", "/metadata/labels=-"]),
        (&bind, r#"{"metadata":{"name":"p","labels":{"zone":"z"}},"target":{"kind":"Node","name":"n"}}"#, 201, &[]),
        (&format!("GET {PODS}/p"), "", 200, &["/spec/nodeName=n", "/metadata/labels/zone=z"]),
    ]).await;

    // Deletions that cannot be understood delete nothing.
    let evict = format!("POST {PODS}/p/eviction");
    for wrong in [r#"{"gracePeriodSeconds":"0"}"#, r#"{"gracePeriodSeconds":0.5}"#, r#"{"propagationPolicy":1}"#, r#"{"preconditions":[]}"#] {
        f.check(&[
            (&format!("DELETE {PODS}/p"), wrong, 400, &[]),
            (&evict, &format!(r#"{{"metadata":{{"name":"p"}},"deleteOptions":{wrong}}}"#), 400, &[]),
        ]).await;
    }
    f.check(&[
        (&format!("DELETE {PODS}/p"), r#"{"kind":"Pod"}"#, 400, &[]),
        (&format!("DELETE {PODS}/p"), r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#, 422, &[]),
        (&evict, r#"{"metadata":{"name":"other"}}"#, 400, &[]),
        (&format!("GET {PODS}/p"), "", 200, &["/metadata/deletionTimestamp=-"]),
        (&format!("DELETE {PODS}/p"), r#"{"apiVersion":"policy/v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#, 200, &[]),
        (&format!("GET {PODS}/p"), "", 404, &[]),
    ]).await;

    let review = |kind: &str| format!("POST /apis/authorization.k8s.io/v1/{kind}");
    f.check(&[
        (&review("selfsubjectaccessreviews"), r#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}"#, 201, &["/status/allowed=true"]),
        (&review("selfsubjectaccessreviews"), r#"{"spec":{"nonResourceAttributes":{"path":"/not/served","verb":"get"}}}"#, 201, &["/status/allowed=true"]),
        (&review("selfsubjectaccessreviews"), r#"{"spec":{}}"#, 422, &[]),
        (&review("selfsubjectaccessreviews"), r#"{"spec":{"resourceAttributes":[]}}"#, 400, &[]),
        (&review("selfsubjectaccessreviews"), r#"{"spec":"x"}"#, 400, &[]),
        (&review("subjectaccessreviews"), r#"{"spec":{"resourceAttributes":{"verb":"get"},"user":"jane","groups":["dev"]}}"#, 201, &["/status/allowed=false"]),
        (&review("subjectaccessreviews"), r#"{"spec":{"resourceAttributes":{"verb":"get"},"groups":["system:masters"]}}"#, 201, &["/status/allowed=true"]),
        (&review("subjectaccessreviews"), r#"{"spec":{"resourceAttributes":{"verb":"get"},"user":1}}"#, 400, &[]),
        (&review("subjectaccessreviews"), r#"{"spec":{"resourceAttributes":{"verb":"get"},"user":"jane","groups":"system:masters"}}"#, 400, &[]),
        (&review("subjectaccessreviews"), r#"{"spec":{"resourceAttributes":{"verb":"get"}}}"#, 422, &["/details/causes/0/field=spec.user"]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn names_may_be_long_and_generated_ones_are_cut() {
    let f = Fixture::new().await;
    let long = |length: usize| "a".repeat(length);
    let named = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
    let generated = |prefix: &str| format!(r#"{{"metadata":{{"generateName":"{prefix}"}}}}"#);
    let service = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}]}}}}"#);
    let secrets = "POST /api/v1/namespaces/default/secrets";
    f.check(&[
        (&format!("POST {CMS}"), &named(&long(64)), 201, &[]),
        (&format!("POST {CMS}"), &named(&long(253)), 201, &[]),
        (&format!("POST {CMS}"), &named(&long(254)), 422, &["/details/causes/0/field=metadata.name"]),
        (&format!("POST {PODS}"), &pod(&long(253)), 201, &[]),
        (&format!("POST {SERVICES}"), &service(&long(63)), 201, &[]),
        (&format!("POST {SERVICES}"), &service(&long(64)), 422, &[]),
        ("POST /api/v1/namespaces", &named(&long(64)), 422, &[]),
        (secrets, &generated("a-prefix-of-more-than-sixty-three-characters-that-the-server-shortens-"), 201, &[]),
        (secrets, &generated(&long(253)), 201, &[]),
        (secrets, &generated(&long(254)), 422, &["/details/causes/0/field=metadata.generateName"]),
        (secrets, &generated("UPPER-"), 422, &[]),
        ("POST /api/v1/namespaces", &generated(&long(64)), 422, &[]),
    ]).await;
    let (_, made) = f.json("GET /api/v1/namespaces/default/secrets", "").await;
    for secret in made["items"].as_array().expect("a list") {
        assert_eq!(secret["metadata"]["name"].as_str().map(str::len), Some(63), "{secret:#}");
    }
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn scheduling_gates_are_taken_away_and_never_added() {
    let f = Fixture::new().await;
    let gated = |gates: &str, more: &str| format!(
        r#"{{"metadata":{{"name":"g"}},"spec":{{"schedulingGates":{gates},"containers":[{{"name":"c","image":"i"}}]{more}}}}}"#);
    let (two, pod) = (r#"[{"name":"a.test/x"},{"name":"a.test/y"}]"#, format!("PATCH {PODS}/g"));
    let node = |terms: &str| format!(
        r#"{{"spec":{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{terms}}}}}}}}}}}"#);
    let zone = r#"{"key":"zone","operator":"In","values":["a"]}"#;
    f.check(&[
        (&format!("POST {PODS}"), &gated(r#"[{"name":"not valid"}]"#, ""), 422, &["/details/causes/0/field=spec.schedulingGates[0].name"]),
        (&format!("POST {PODS}"), &gated(r#"[{"name":"x"},{"name":"x"}]"#, ""), 422, &[]),
        (&format!("POST {PODS}"), &gated(two, r#","nodeName":"n""#), 422, &["/details/causes/0/field=spec.nodeName"]),
        (&format!("POST {PODS}"), &gated(two, ""), 201, &[
            "/status/conditions/0/type=PodScheduled", "/status/conditions/0/status=False", "/status/conditions/0/reason=SchedulingGated"]),
        (&format!("POST {PODS}/g/binding"), r#"{"target":{"kind":"Node","name":"n"}}"#, 409, &[]),
        (&pod, r#"{"spec":{"schedulingGates":[{"name":"a.test/x"},{"name":"a.test/z"}]}}"#, 422, &["/details/causes/0/field=spec.schedulingGates"]),
        (&pod, r#"{"spec":{"nodeSelector":{"disk":"ssd"}}}"#, 200, &["/spec/nodeSelector/disk=ssd"]),
        (&pod, r#"{"spec":{"nodeSelector":{"disk":"hdd"}}}"#, 422, &[]),
        (&pod, &node(&format!(r#"[{{"matchExpressions":[{zone}]}}]"#)), 200, &[]),
        (&pod, &node(&format!(r#"[{{"matchExpressions":[{zone},{zone}]}}]"#)), 200, &[]),
        (&pod, &node(&format!(r#"[{{"matchExpressions":[{zone}]}}]"#)), 422, &[]),
        (&pod, &node(&format!(r#"[{{"matchExpressions":[{zone},{zone}]}},{{"matchExpressions":[{zone}]}}]"#)), 422, &[]),
        (&pod, r#"{"spec":{"hostNetwork":true}}"#, 422, &[]),
        (&pod, r#"{"spec":{"schedulingGates":[{"name":"a.test/y"}]}}"#, 200, &["/spec/schedulingGates/0/name=a.test/y"]),
        (&pod, r#"{"spec":{"schedulingGates":null}}"#, 200, &["/spec/schedulingGates=-"]),
        (&pod, r#"{"spec":{"schedulingGates":[{"name":"a.test/y"}]}}"#, 422, &[]),
        (&pod, r#"{"spec":{"nodeSelector":{"disk":"ssd","x":"y"}}}"#, 422, &[]),
        (&format!("POST {PODS}/g/binding"), r#"{"target":{"kind":"Node","name":"n"}}"#, 201, &[]),
        (&format!("GET {PODS}/g"), "", 200, &["/status/conditions/0/status=True", "/status/conditions/0/reason=-"]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn finalizers_are_only_taken_away_while_an_object_is_being_deleted() {
    let f = Fixture::new().await;
    let (patch, apply) = (format!("PATCH {CMS}/a"), format!("PATCH {CMS}/a?fieldManager=me"));
    let finalizers = |list: &str| format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
    f.check(&[
        (&format!("POST {CMS}"), &config_map("a"), 201, &[]),
        (&patch, &finalizers(r#"["a.test/x","a.test/y"]"#), 200, &[]),
        (&format!("DELETE {CMS}/a"), "", 200, &[]),
        (&patch, &finalizers(r#"["a.test/x","a.test/y","a.test/new"]"#), 422, &["/details/causes/0/field=metadata.finalizers"]),
        (&patch, &finalizers(r#"["a.test/new"]"#), 422, &[]),
        (&patch, r#"{"data":{"b":"2"}}"#, 200, &["/data/b=2"]),
        (&patch, &finalizers(r#"["a.test/y"]"#), 200, &["/metadata/finalizers/0=a.test/y"]),
    ]).await;
    let config = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","finalizers":["a.test/new"]}}"#;
    let response = f.send(&apply, &[("content-type", "application/apply-patch+yaml")], config).await;
    assert_eq!(response.status(), 422);
    f.check(&[(&patch, &finalizers("null"), 200, &[]), (&format!("GET {CMS}/a"), "", 404, &[])]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn small_requests_cannot_become_large() {
    let f = Fixture::new().await;
    f.check(&[(&format!("POST {CMS}"), &config_map("a"), 201, &[])]).await;
    let copies: Vec<Value> = [serde_json::json!({"op": "add", "path": "/data/b", "value": "x".repeat(1000)})]
        .into_iter()
        .chain((0..40).map(|i| serde_json::json!({"op": "copy", "from": "/data", "path": format!("/data/c{i}")})))
        .collect();
    let copies = Value::Array(copies).to_string();
    let deep = |open: &str| "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: deep}\ndata: ".to_owned() + &open.repeat(100_000);
    let bracket = format!(r#"{{"metadata":{{"name":"deep"}},"data":{}"#, "[".repeat(100_000));
    let ports = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i",
        "ports":[{"containerPort":80},{"containerPort":80,"protocol":"TCP"}]}]}}"#;
    let (json, yaml) = ("application/json-patch+json", "application/yaml");
    for (line, media, body, code, expect) in [
        (format!("PATCH {CMS}/a"), json, copies.as_str(), 422, "copies of this patch exceed 3145728 bytes in all"),
        (format!("PATCH {CMS}/a"), json, r#"[{"op":"test","path":"/data/a","value":"2"}]"#, 422, r#""field":"patch[0]""#),
        (format!("PATCH {CMS}/a"), json, r#"[{"op":"remove","path":"/data/-1"}]"#, 422, "/data/-1 does not exist"),
        (format!("PATCH {CMS}/a"), json, r#"[{"op":"jump","path":"/data"}]"#, 400, "patch[0]"),
        (format!("POST {CMS}"), yaml, &deep("["), 400, "nested more than 100 levels deep"),
        (format!("POST {CMS}"), yaml, &deep("{a: "), 400, "nested more than 100 levels deep"),
        (format!("POST {CMS}"), "application/json", &bracket, 400, "nested more than 100 levels deep"),
        (format!("PATCH {CMS}/a?fieldManager=me"), "application/apply-patch+yaml", &deep("["), 400, "nested more than 100"),
        (format!("PATCH {PODS}/p?fieldManager=me"), "application/apply-patch+yaml", ports, 400,
            "duplicate entries for key [containerPort=80,protocol=\\\"TCP\\\"]"),
    ] {
        let response = f.send(&line, &[("content-type", media)], body).await;
        let found = response.status().as_u16();
        let text = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(found == code && text.contains(expect), "{line}: {found} {}", &text[..text.len().min(500)]);
    }
    f.check(&[(&format!("GET {CMS}/a"), "", 200, &["/data={\"a\":\"1\"}"])]).await;
    f.close().await;
}

/// Bodies of refused requests in parts of 64 KiB: how many are read before the answer.
#[tokio::test]
async fn bodies_of_refused_requests_are_read_within_bounds() {
    let f = Fixture::new().await;
    let post = format!("POST {CMS}");
    for (line, who, headers, parts, code, expect) in [
        ("POST /bogus", "test", &[][..], 2, 404, 2),
        ("POST /bogus", "test", &[("accept", "text/html")], 2, 404, 2),
        (&post, "test", &[("accept", "text/html")], 2, 406, 2),
        (&post, "somebody", &[], 2, 403, 2),
        (&post, "somebody", &[], 100, 403, 5),
        // Reading would ask its sender to go on.
        (&post, "somebody", &[("expect", "100-continue")], 2, 403, 0),
    ] {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = read.clone();
        let frames = futures::stream::iter(0..parts).map(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b' '; 64 << 10])))
        });
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let mut request =
            Request::builder().method(method).uri(target).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(StreamBody::new(frames)).expect("a request");
        let groups = if who == "test" { &["system:masters"][..] } else { &[] };
        request.extensions_mut().insert(Identity::new(who, groups.iter().copied()));
        let Ok(response) = f.server.clone().oneshot(request).await;
        assert_eq!(
            (response.status().as_u16(), read.load(Ordering::Relaxed)),
            (code, expect),
            "{line} {headers:?}"
        );
    }
    f.close().await;
}

#[tokio::test]
async fn metrics_count_what_was_asked_and_what_is_stored() {
    let f = Fixture::new().await;
    f.check(&[
        (&format!("POST {CMS}"), &config_map("a"), 201, &[]),
        (&format!("POST {CMS}"), &config_map("a"), 409, &[]),
    ])
    .await;
    let response = f.send("GET /metrics", &[("accept", "text/plain")], "").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&text);
    let labels = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"resource\",\
                  subresource=\"\",verb=\"POST\",version=\"v1\"";
    for expect in [
        format!("apiserver_request_total{{code=\"201\",{labels}}} 1\n"),
        format!("apiserver_request_total{{code=\"409\",{labels}}} 1\n"),
        "apiserver_storage_objects{resource=\"configmaps\"} 1\n".to_owned(),
        "# TYPE process_resident_memory_bytes gauge\n".to_owned(),
    ] {
        assert!(text.contains(&expect), "{expect} is not in\n{text}");
    }
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn the_status_changes_metadata_and_no_desired_state() {
    let f = Fixture::new().await;
    let selected = r#""selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    let job = r#"{"metadata":{"name":"x","labels":{"l":"1"}},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}"#;
    let ingress = r#"{"metadata":{"name":"x","labels":{"l":"1"}},"spec":{"defaultBackend":{"service":{"name":"s","port":{"number":80}}}}}"#;
    let deployment = format!(r#"{{"metadata":{{"name":"x","labels":{{"l":"1"}}}},"spec":{{{selected}}}}}"#);
    let change = r#"{"metadata":{"labels":{"l":"2"},"annotations":{"note":"n"}},"spec":{"replicas":7,"type":"NodePort","parallelism":7,"ingressClassName":"c","finalizers":["z"],"unschedulable":true}}"#;
    for (collection, object, label, kept) in [
        (SERVICES, r#"{"metadata":{"name":"x","labels":{"l":"1"}},"spec":{"ports":[{"port":80}]}}"#, "2", "/spec/type=ClusterIP"),
        ("/api/v1/namespaces", r#"{"metadata":{"name":"x","labels":{"l":"1"}}}"#, "2", "/spec/finalizers=[\"kubernetes\"]"),
        ("/api/v1/nodes", r#"{"metadata":{"name":"x","labels":{"l":"1"}}}"#, "2", "/spec=-"),
        ("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress, "2", "/spec/ingressClassName=-"),
        ("/apis/batch/v1/namespaces/default/jobs", job, "2", "/spec/parallelism=1"),
        ("/apis/apps/v1/namespaces/default/replicasets", &deployment, "2", "/spec/replicas=1"),
        ("/apis/apps/v1/namespaces/default/deployments", &deployment, "1", "/spec/replicas=1"),
    ] {
        f.check(&[
            (&format!("POST {collection}"), object, 201, &[]),
            (&format!("PATCH {collection}/x/status"), change, 200, &[
                &format!("/metadata/labels/l={label}"), "/metadata/annotations/note=n", kept]),
        ]).await;
    }
    let owners = r#"[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]"#;
    f.check(&[
        (&format!("POST {PODS}"), &pod("x"), 201, &[]),
        (&format!("PATCH {PODS}/x/status"), &format!(r#"{{"metadata":{{"labels":{{"l":"2"}},"ownerReferences":{owners}}}}}"#), 200, &[
            "/metadata/labels/l=2", "/metadata/ownerReferences=-", "/status/phase=Pending"]),
    ]).await;
    f.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn pods_ask_for_runtimes_and_kernel_parameters_that_there_are() {
    let f = Fixture::new().await;
    let with = |more: &str| format!(r#"{{"metadata":{{"name":"p"}},"spec":{{{more},"containers":[{{"name":"c","image":"i"}}]}}}}"#);
    f.check(&[
        (&format!("POST {PODS}"), &with(r#""runtimeClassName":"kata""#), 403, &[
            "/reason=Forbidden", "/message=pods \"p\" is forbidden: pod rejected: RuntimeClass \"kata\" not found"]),
        (&format!("POST {PODS}"), &with(r#""securityContext":{"sysctls":[{"name":"Net.x","value":"1"}]}"#), 422, &[
            "/details/causes/0/field=spec.securityContext.sysctls[0].name"]),
        (&format!("POST {PODS}"), &with(r#""runtimeClassName":"""#), 201, &[]),
    ]).await;
    f.close().await;
}

/// A store whose watches end after a few events, as a remote one's do when a connection breaks.
struct Flaky(Arc<Embedded>);

struct EndsEarly {
    watch: yado_store::Watch,
    left: usize,
}

impl futures::Stream for EndsEarly {
    type Item = yado_store::Result<Arc<[yado_store::WatchEvent]>>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        if self.left == 0 {
            let reason = "the connection broke".to_owned();
            return std::task::Poll::Ready(Some(Err(yado_store::Error::Unavailable { reason })));
        }
        let item = std::task::ready!(std::pin::Pin::new(&mut self.watch).poll_next(cx));
        self.left -= 1;
        std::task::Poll::Ready(item)
    }
}

impl yado_store::WatchSource for EndsEarly {
    fn progress(&self) -> yado_store::Revision {
        self.watch.progress()
    }
}

#[async_trait]
impl Store for Flaky {
    async fn txn(&self, txn: yado_store::Txn) -> yado_store::Result<yado_store::TxnOutcome> {
        self.0.txn(txn).await
    }

    async fn get(&self, key: &str) -> yado_store::Result<Option<yado_store::KeyValue>> {
        self.0.get(key).await
    }

    async fn range(&self, range: yado_store::Range) -> yado_store::Result<yado_store::RangeResult> {
        self.0.range(range).await
    }

    async fn watch(&self, start: String, end: String, after: u64) -> yado_store::Result<yado_store::Watch> {
        let watch = self.0.watch(start, end, after).await?;
        Ok(yado_store::Watch::new(EndsEarly { watch, left: 9 }))
    }

    async fn compact(&self, before: u64) -> yado_store::Result<()> {
        self.0.compact(before).await
    }

    fn revision(&self) -> u64 {
        self.0.revision()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_to_the_store_loses_no_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
    let clock = SystemClock::shared();
    let flaky = Arc::new(Flaky(store.clone()));
    let server = ApiServer::new(Config::default(), flaky, clock, Arc::new(NoNodes)).await.expect("a server");
    let fixture = Fixture { server, store, _directory: directory };
    let names: Vec<String> = (0..30).map(|n| format!("c{n:02}")).collect();
    for name in &names {
        let body = format!(r#"{{"metadata": {{"name": "{name}"}}}}"#);
        let (code, answer) = fixture.json("POST /api/v1/namespaces/default/configmaps", &body).await;
        assert_eq!(code, 201, "{answer:#}");
    }
    let (_, list) = fixture.json("GET /api/v1/namespaces/default/configmaps", "").await;
    let found: Vec<_> =
        list["items"].as_array().expect("a list").iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(found, names.iter().collect::<Vec<_>>());
    fixture.server.shutdown().await;
    fixture.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_and_ranges_decide_what_pods_get() {
    let fixture = Fixture::new().await;
    let class = |name: &str, value: i64, default: bool| {
        format!(r#"{{"metadata": {{"name": "{name}"}}, "value": {value}, "globalDefault": {default}}}"#)
    };
    let pod = |name: &str, more: &str| {
        format!(
            r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"containers": [{{"name": "c", "image": "i"}}]{more}}}}}"#
        )
    };
    let range = r#"{"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"},
        "defaultRequest": {"cpu": "100m"}}]}}"#;
    let greedy =
        pod("d", "").replace("\"image\"", "\"resources\": {\"limits\": {\"cpu\": \"2\"}}, \"image\"");
    let (classes, pods) =
        ("POST /apis/scheduling.k8s.io/v1/priorityclasses", "POST /api/v1/namespaces/default/pods");
    fixture
        .check(&[
            (pods, &pod("a", ""), 201, &["/spec/priority=0", "/spec/preemptionPolicy=PreemptLowerPriority"]),
            (classes, &class("system-mine", 5, false), 422, &[]),
            (classes, &class("high", 2_000_000_000, false), 422, &[]),
            (classes, &class("high", 1000, true), 201, &["/preemptionPolicy=PreemptLowerPriority"]),
            (classes, &class("other", 1000, true), 403, &[]),
            (pods, &pod("b", ""), 201, &["/spec/priority=1000", "/spec/priorityClassName=high"]),
            (
                pods,
                &pod("c", r#", "priorityClassName": "system-node-critical""#),
                201,
                &["/spec/priority=2000001000"],
            ),
            (
                pods,
                &pod("d", r#", "priorityClassName": "none""#),
                403,
                &["/message=pods \"d\" is forbidden: no PriorityClass with name none was found"],
            ),
            (pods, &pod("d", r#", "priority": 7"#), 403, &[]),
            ("POST /api/v1/namespaces/default/limitranges", range, 201, &["/spec/limits/0/default/cpu=1"]),
            (
                pods,
                &pod("e", ""),
                201,
                &[
                    "/spec/containers/0/resources/limits/cpu=1",
                    "/spec/containers/0/resources/requests/cpu=100m",
                    "/status/qosClass=Burstable",
                ],
            ),
            (
                pods,
                &greedy,
                403,
                &["/message=pods \"d\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"],
            ),
        ])
        .await;
    fixture.server.shutdown().await;
    fixture.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_whoever_races() {
    let fixture = Arc::new(Fixture::new().await);
    let quota = r#"{"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "10", "pods": "2", "limits.cpu": "1"}}}"#;
    let (quotas, maps) =
        ("/api/v1/namespaces/default/resourcequotas", "/api/v1/namespaces/default/configmaps");
    fixture.json(&format!("POST {maps}"), r#"{"metadata": {"name": "before"}}"#).await;
    fixture.check(&[(&format!("POST {quotas}"), quota, 201, &[])]).await;
    let used = async |pointer: &str| {
        let (_, quota) = fixture.json(&format!("GET {quotas}/q"), "").await;
        quota.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    // What was there before is counted soon.
    for _ in 0..500 {
        if used("/status/used/configmaps").await == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(used("/status/used/configmaps").await, "1");
    let writers: Vec<_> = (0..100)
        .map(|n| {
            let fixture = fixture.clone();
            tokio::spawn(async move {
                let body = format!(r#"{{"metadata": {{"name": "c{n}"}}}}"#);
                fixture.json("POST /api/v1/namespaces/default/configmaps", &body).await.0
            })
        })
        .collect();
    let mut codes = Vec::new();
    for writer in writers {
        codes.push(writer.await.expect("an answer"));
    }
    let created = codes.iter().filter(|code| **code == 201).count();
    assert_eq!((created, codes.iter().filter(|code| **code == 403).count()), (9, 91), "{codes:?}");
    assert_eq!(used("/status/used/configmaps").await, "10");
    fixture
        .check(&[(
            &format!("POST {maps}"),
            r#"{"metadata": {"name": "late"}}"#,
            403,
            &["/message=configmaps \"late\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=10, limited: configmaps=10"],
        )])
        .await;
    fixture.check(&[(&format!("DELETE {maps}/before"), "", 200, &[])]).await;
    assert_eq!(used("/status/used/configmaps").await, "9");
    let pod = |cpu: &str| {
        let limits = if cpu.is_empty() {
            String::new()
        } else {
            format!(r#", "resources": {{"limits": {{"cpu": "{cpu}"}}}}"#)
        };
        format!(
            r#"{{"metadata": {{"name": "p"}}, "spec": {{"containers": [{{"name": "c", "image": "i"{limits}}}]}}}}"#
        )
    };
    let pods = "POST /api/v1/namespaces/default/pods";
    fixture
        .check(&[
            (pods, &pod(""), 403, &["/message=pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: c"]),
            (pods, &pod("2"), 403, &["/message=pods \"p\" is forbidden: exceeded quota: q, requested: limits.cpu=2, used: limits.cpu=0, limited: limits.cpu=1"]),
            (pods, &pod("500m"), 201, &[]),
            (
                "PATCH /api/v1/namespaces/default/pods/p/status",
                r#"{"status": {"phase": "Succeeded"}}"#,
                200,
                &[],
            ),
        ])
        .await;
    // One that has ended uses nothing any more.
    assert_eq!(
        (used("/status/used/pods").await, used("/status/used/limits.cpu").await),
        ("0".into(), "0".into())
    );
    fixture.server.shutdown().await;
    fixture.store.close().await;
}

#[rustfmt::skip]
#[tokio::test]
async fn flow_control_keeps_its_objects_and_rejects_what_is_too_much() {
    let f = Fixture::new().await;
    let (schemas, levels) =
        ("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations");
    let dangling = "/status/conditions/0/status";
    let until = async |line: &str, pointer: &str, text: &str| {
        for _ in 0..2000 {
            if f.json(line, "").await.1.pointer(pointer).is_some_and(|found| found == text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{pointer} of {line} never becomes {text}");
    };
    f.check(&[
        (&format!("GET {levels}/system"), "", 200, &["/spec/limited/nominalConcurrencyShares=30", "/spec/limited/limitResponse/queuing/queues=64"]),
        (&format!("GET {schemas}/exempt"), "", 200, &["/spec/matchingPrecedence=1", "/metadata/annotations/apf.kubernetes.io~1autoupdate-spec=true"]),
        (&format!("PATCH {schemas}/exempt"), r#"{"spec":{"matchingPrecedence":7}}"#, 422, &["/details/causes/0/field=spec"]),
        // A level without a seat, and a schema that comes before it.
        (&format!("POST {schemas}"), r#"{"metadata":{"name":"jail"},"spec":{"priorityLevelConfiguration":{"name":"jail"},"rules":[{
            "subjects":[{"kind":"User","user":{"name":"jane"}}],
            "nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}}"#, 201, &["/spec/matchingPrecedence=1000"]),
    ]).await;
    until(&format!("GET {schemas}/jail"), dangling, "True").await;
    f.check(&[
        (&format!("POST {levels}"), r#"{"metadata":{"name":"jail"},"spec":{"type":"Limited","limited":{
            "nominalConcurrencyShares":0,"borrowingLimitPercent":0,"limitResponse":{"type":"Reject"}}}}"#, 201, &["/spec/limited/lendablePercent=0"]),
        (&format!("DELETE {levels}/system"), "", 200, &[]),
        (&format!("PATCH {levels}/node-high"), r#"{"spec":{"limited":{"nominalConcurrencyShares":41}}}"#, 200, &[]),
    ]).await;
    until(&format!("GET {schemas}/jail"), dangling, "False").await;
    until(&format!("GET {levels}/system"), "/metadata/name", "system").await;
    f.check(&[
        (&format!("PATCH {levels}/workload-low"), r#"{"metadata":{"annotations":{"apf.kubernetes.io/autoupdate-spec":"false"}},"spec":{"limited":{"nominalConcurrencyShares":1}}}"#, 200, &[]),
    ]).await;
    let level = f.json(&format!("GET {levels}/jail"), "").await.1;
    let (refused, allowed) = (ask(&f.server, "jane").await, ask(&f.server, "eve").await);
    assert_eq!((refused.status().as_u16(), allowed.status().as_u16()), (429, 200));
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(level["metadata"]["uid"], *refused.headers()["x-kubernetes-pf-prioritylevel-uid"].to_str().expect("text"));
    assert!(allowed.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let metrics = f.send("GET /metrics", &[], "").await.into_body().collect().await.expect("a body").to_bytes();
    let metrics = String::from_utf8_lossy(&metrics);
    let rejected = r#"apiserver_flowcontrol_rejected_requests_total{flow_schema="jail",priority_level="jail",reason="concurrency-limit"} 1"#;
    assert!(metrics.contains(rejected), "{metrics}");
    // After a restart the administrators' changes are there, and the server's own objects as they should be.
    f.server.shutdown().await;
    let server = Fixture::server(&f.store).await;
    let f = Fixture { server, ..f };
    f.check(&[
        (&format!("GET {levels}/workload-low"), "", 200, &["/spec/limited/nominalConcurrencyShares=1"]),
        (&format!("GET {levels}/node-high"), "", 200, &["/spec/limited/nominalConcurrencyShares=40"]),
    ]).await;
    assert_eq!(ask(&f.server, "jane").await.status(), 429);
    f.close().await;
}

/// Asks for the version as a user without rights.
async fn ask(server: &ApiServer, user: &str) -> Response<Body> {
    let mut request = Request::get("/version").body(Full::new(Bytes::new())).expect("a request");
    request.extensions_mut().insert(Identity::new(user, ["x"]));
    let Ok(response) = server.clone().oneshot(request).await;
    response
}

#[rustfmt::skip]
#[tokio::test]
async fn the_audit_log_tells_who_asked_for_what() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let policy = audit::Policy::parse("
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, users: [quiet]}
- {level: Metadata, resources: [{group: '', resources: [secrets]}], omitStages: [RequestReceived]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], omitStages: [RequestReceived]}
- {level: Request, verbs: [watch], omitStages: [RequestReceived]}
- {level: Metadata, nonResourceURLs: ['/version']}
").expect("a policy");
    let log = audit::LogConfig { path: Some(path.clone()), max_size: 0, max_backups: 0, max_age: Duration::ZERO };
    let clock = SystemClock::shared();
    let audit = Some(audit::Audit::open(policy, log, clock.clone()).expect("a log"));
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path().join("store"))).expect("a store"));
    let server = ApiServer::new(Config { audit, ..Config::default() }, store.clone(), clock, Arc::new(NoNodes)).await.expect("a server");
    let f = Fixture { server, store, _directory: directory };
    let headers = [("user-agent", "t/1"), ("x-forwarded-for", "192.0.2.1, 192.0.2.2"), ("audit-id", "given")];
    let answered = f.send(&format!("POST {CMS}"), &headers, &config_map("a")).await;
    assert_eq!(answered.headers()["audit-id"], "given");
    f.send("POST /api/v1/namespaces/default/secrets", &[("impersonate-user", "jane")], r#"{"metadata":{"name":"s"},"stringData":{"a":"hidden"}}"#).await;
    f.send(&format!("GET {CMS}/none"), &[], "").await;
    drop(f.send(&format!("GET {CMS}?watch=1&timeoutSeconds=1"), &[], "").await);
    f.send("GET /version", &[], "").await;
    f.send("GET /api/v1/nodes", &[], "").await;
    assert_eq!(ask(&f.server, "quiet").await.status(), 200);
    f.server.shutdown().await;
    let text = std::fs::read_to_string(&path).expect("a log");
    f.store.close().await;
    assert!(!text.contains("hidden") && !text.contains("managedFields"), "{text}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<String> = events.iter().map(|event| {
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
        format!("{} {} {} {} {}/{} {}", text(&event["level"]), text(&event["stage"]), text(&event["user"]["username"]), text(&event["verb"]),
            text(&object["resource"]), text(&object["name"]), event["responseStatus"]["code"])
    }).collect();
    assert_eq!(told, [
        "RequestResponse ResponseComplete test create configmaps/a 201",
        "Metadata ResponseComplete test create secrets/ 403",
        "RequestResponse ResponseComplete test get configmaps/none 404",
        "RequestResponse ResponseStarted test watch configmaps/ 200",
        "RequestResponse ResponseComplete test watch configmaps/ 200",
        "Metadata RequestReceived test get / null",
        "Metadata ResponseComplete test get / 200",
    ]);
    for (event, pointer, expect) in [
        (0, "/auditID", "given"),
        (0, "/requestURI", CMS),
        (0, "/sourceIPs/1", "192.0.2.2"),
        (0, "/sourceIPs/2", "127.0.0.1"),
        (0, "/userAgent", "t/1"),
        (0, "/objectRef/namespace", "default"),
        (0, "/objectRef/apiVersion", "v1"),
        (0, "/requestObject/data/a", "1"),
        (0, "/responseObject/data/a", "1"),
        (0, "/annotations/authorization.k8s.io~1decision", "allow"),
        (1, "/impersonatedUser/username", "jane"),
        (1, "/annotations/authorization.k8s.io~1decision", "forbid"),
        (1, "/responseStatus/reason", "Forbidden"),
        (2, "/responseStatus/message", "configmaps \"none\" not found"),
    ] {
        let found = events[event].pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(expect), "{pointer} of {}", events[event]);
    }
}

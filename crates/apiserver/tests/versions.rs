//! Custom kinds with several served versions: one row for each request.

mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Body, Config, Identity, NoNodes};
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
        let server =
            ApiServer::new(Config::default(), store.clone(), SystemClock::shared(), Arc::new(NoNodes)).await;
        Self { server: server.expect("a server"), store, _directory: directory }
    }

    async fn send(&self, line: &str, body: &Value) -> Response<Body> {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            "APPLY" => "application/apply-patch+yaml",
            _ => "application/json",
        };
        let method = if method == "APPLY" { "PATCH" } else { method };
        let request = Request::builder().method(method).uri(target).header("content-type", kind);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        request.extensions_mut().insert(Identity::new("test", ["system:masters"]));
        let Ok(response) = self.server.clone().oneshot(request).await;
        response
    }

    async fn json(&self, line: &str, body: &Value) -> (u16, Value) {
        let response = self.send(line, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
    }

    /// Sends each row's request and compares the code, and `POINTER=TEXT` for each of the expectations.
    async fn check(&self, rows: &[(&str, Value, u16, &[&str])]) {
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

    /// Writes a definition and waits until it is served.
    async fn define(&self, definition: &Value) {
        let (code, answer) = self.json(&format!("POST {DEFINITIONS}"), definition).await;
        assert_eq!(code, 201, "{answer:#}");
        for _ in 0..1000 {
            if self.json(&format!("GET {V1}"), &Value::Null).await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the kind is not served");
    }

    /// The first events of a watch: type, apiVersion, name and spec of each.
    async fn events(&self, line: &str, count: usize) -> Vec<String> {
        let mut body = self.send(line, &Value::Null).await.into_body();
        let (mut told, mut buffer) = (Vec::new(), Vec::new());
        while told.len() < count {
            // A guard against hanging for ever, far above what any event takes.
            let frame = tokio::time::timeout(Duration::from_secs(120), body.frame()).await;
            let Ok(Some(frame)) = frame else { break };
            buffer.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event");
                let (kind, object) = (event["type"].as_str().unwrap_or("?"), &event["object"]);
                let version = object["apiVersion"].as_str().unwrap_or("?");
                let name = object["metadata"]["name"].as_str().unwrap_or("?");
                told.push(format!("{kind} {version} {name} {}", object["spec"]));
            }
        }
        told
    }

    async fn close(self) {
        self.server.shutdown().await;
        self.store.close().await;
    }
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tabs.example.com";
const V1: &str = "/apis/example.com/v1/namespaces/default/tabs";
const V2: &str = "/apis/example.com/v2/namespaces/default/tabs";

/// A definition whose version `stored` is the one in the store. Version 1 has `spec.at`, version 2 `spec.when` and
/// `spec.zone`.
fn definition(stored: &str, conversion: Value) -> Value {
    let version = |name: &str, more: Value| {
        let mut version =
            json!({"name": name, "served": true, "storage": name == stored, "subresources": {"status": {}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            version[key] = value.clone();
        }
        version
    };
    let schema = |fields: Value| {
        json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": fields},
            "status": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}})
    };
    let first = version(
        "v1",
        json!({
            "schema": schema(json!({"at": {"type": "string"}, "size": {"type": "integer", "default": 1}})),
            "selectableFields": [{"jsonPath": ".spec.at"}], "deprecated": true,
            "additionalPrinterColumns": [{"name": "At", "type": "string", "jsonPath": ".spec.at"}],
        }),
    );
    let second = version(
        "v2",
        json!({
            "schema": schema(json!({
                "when": {"type": "string", "maxLength": 5}, "zone": {"type": "string", "default": "UTC"},
                "at": {"type": "string"}, "size": {"type": "integer"}, "count": {"type": "integer"},
            })),
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.ok"}},
            "selectableFields": [{"jsonPath": ".spec.when"}],
            "additionalPrinterColumns": [{"name": "When", "type": "string", "jsonPath": ".spec.when"}],
        }),
    );
    let beta = version("v1beta1", json!({"schema": schema(json!({})), "served": false}));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "tabs", "kind": "Tab"},
            "versions": [beta, first, second], "conversion": conversion,
        },
    })
}

fn tab(name: &str, version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Tab", "metadata": {"name": name}, "spec": spec})
}

#[rustfmt::skip]
#[tokio::test(flavor = "multi_thread")]
async fn versions_that_differ_in_name_only() {
    let f = Fixture::new().await;
    f.define(&definition("v1", json!({"strategy": "None"}))).await;
    f.check(&[
        // The highest version first; what is not served is not shown.
        ("GET /apis/example.com", Value::Null, 200, &["/preferredVersion/version=v2", "/versions/1/version=v1", "/versions/2=-"]),
        ("GET /apis/example.com/v2", Value::Null, 200, &["/resources/0/name=tabs", "/resources/1/name=tabs/scale"]),
        ("GET /apis/example.com/v1beta1", Value::Null, 404, &[]),
        ("GET /openapi/v3/apis/example.com/v2", Value::Null, 200, &["/components/schemas/com.example.v2.Tab/properties/spec/properties/zone/default=UTC"]),
        ("GET /openapi/v3/apis/example.com/v1", Value::Null, 200, &["/components/schemas/com.example.v1.Tab/properties/spec/properties/zone=-"]),
        // Each version's own schema prunes and defaults the request, that of the stored version what is stored.
        (&format!("POST {V2}"), tab("a", "v2", json!({"when": "noon", "count": 3})), 201, &["/apiVersion=example.com/v2", "/spec={\"size\":1}", "/metadata/managedFields/0/apiVersion=example.com/v2"]),
        (&format!("GET {V1}/a"), Value::Null, 200, &["/apiVersion=example.com/v1", "/spec={\"size\":1}"]),
        (&format!("POST {V1}"), tab("b", "v1", json!({"at": "noon", "when": "never"})), 201, &["/spec={\"at\":\"noon\",\"size\":1}"]),
        (&format!("GET {V2}/b"), Value::Null, 200, &["/apiVersion=example.com/v2", "/spec={\"at\":\"noon\",\"size\":1}"]),
        (&format!("POST {V2}"), tab("c", "v2", json!({"when": "too long"})), 422, &["/details/causes/0/field=spec.when"]),
        (&format!("POST {V2}"), tab("c", "v1", json!({})), 400, &[]),
        // Fields by which objects are selected, columns and subresources are each version's own.
        (&format!("GET {V1}?fieldSelector=spec.at%3Dnoon"), Value::Null, 200, &["/items/0/metadata/name=b", "/items/1=-", "/items/0/apiVersion=example.com/v1", "/kind=TabList", "/apiVersion=example.com/v1"]),
        (&format!("GET {V2}?fieldSelector=spec.at%3Dnoon"), Value::Null, 400, &[]),
        (&format!("GET {V2}?fieldSelector=spec.when%3D&limit=1"), Value::Null, 200, &["/items/0/metadata/name=a", "/items/1=-", "/items/0/apiVersion=example.com/v2"]),
        (&format!("GET {V2}/b/scale"), Value::Null, 200, &["/spec/replicas=1"]),
        (&format!("GET {V1}/b/scale"), Value::Null, 404, &[]),
        (&format!("PATCH {V2}/b/scale"), json!({"spec": {"replicas": 4}}), 200, &["/spec/replicas=4"]),
        (&format!("PATCH {V1}/b/status"), json!({"status": {"ok": true}, "spec": {"at": "no"}}), 200, &["/status/ok=true", "/spec={\"at\":\"noon\",\"size\":4}", "/metadata/generation=2"]),
        // Patches see the version of the request.
        (&format!("PATCH {V2}/b"), json!({"spec": {"when": "dawn"}}), 200, &["/apiVersion=example.com/v2", "/spec={\"at\":\"noon\",\"size\":4}"]),
        (&format!("APPLY {V2}/b?fieldManager=m"), tab("b", "v2", json!({"size": 5})), 409, &["/details/causes/0/field=.spec.size"]),
        (&format!("APPLY {V2}/b?fieldManager=m&force=true"), tab("b", "v2", json!({"size": 5})), 200, &["/spec/size=5", "/metadata/managedFields/0/apiVersion=example.com/v2"]),
        (&format!("DELETE {V1}/a"), Value::Null, 200, &["/status=Success"]),
        (&format!("GET {DEFINITION}"), Value::Null, 200, &["/status/storedVersions=[\"v1\"]"]),
    ]).await;
    // Another version is stored from now on: what is written moves, what is not is converted still.
    let mut next = definition("v2", json!({"strategy": "None"}));
    next["metadata"]["resourceVersion"] = f.json(&format!("GET {DEFINITION}"), &Value::Null).await.1["metadata"]["resourceVersion"].clone();
    let (code, _) = f.json(&format!("PUT {DEFINITION}"), &next).await;
    assert_eq!(code, 200);
    for _ in 0..1000 {
        let (_, now) = f.json(&format!("GET {DEFINITION}"), &Value::Null).await;
        if now["status"]["storedVersions"] == json!(["v1", "v2"]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = "/registry/example.com/tabs/default/b";
    let stored = || async { String::from_utf8_lossy(&f.store.get(key).await.expect("the store").expect("b").value).into_owned() };
    assert!(stored().await.starts_with(r#"{"apiVersion":"example.com/v1""#));
    let (_, b) = f.json(&format!("GET {V2}/b"), &Value::Null).await;
    f.check(&[(&format!("PUT {V2}/b"), b, 200, &["/apiVersion=example.com/v2"])]).await;
    assert!(stored().await.starts_with(r#"{"apiVersion":"example.com/v2""#));
    f.check(&[
        (&format!("GET {V1}/b"), Value::Null, 200, &["/apiVersion=example.com/v1", "/spec/at=noon"]),
        (&format!("DELETE {DEFINITION}"), Value::Null, 200, &[]),
    ]).await;
    for _ in 0..1000 {
        if f.store.get(key).await.expect("the store").is_none() {
            return f.close().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("objects stay without their definition");
}

/// The answer of a webhook that moves `spec.at` to `spec.when` and back.
fn convert(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let (from, to) = if wanted == "example.com/v2" { ("at", "when") } else { ("when", "at") };
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        if let Some(moved) = object["spec"].as_object_mut().and_then(|spec| spec.shift_remove(from)) {
            object["spec"][to] = moved;
        }
        object["metadata"]["generation"] = 77.into();
        object["metadata"]["annotations"] = json!({"converted": wanted});
        object
    };
    let mut objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(convert).collect();
    let mut result = json!({"status": "Success"});
    match path {
        "/fails" => result = json!({"status": "Failed", "message": "cannot do that"}),
        "/drops" => objects.clear(),
        "/renames" => objects.iter_mut().for_each(|object| object["metadata"]["name"] = "other".into()),
        _ => {}
    }
    json!({
        "apiVersion": review["apiVersion"], "kind": review["kind"],
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects},
    })
}

#[rustfmt::skip]
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_converts() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let f = Fixture::new().await;
    let (port, bundle) = tls::serve(([127, 0, 0, 1].into(), "127.0.0.1"), |asked, review| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        convert(asked.uri.path(), review)
    })
    .await;
    let url = format!("https://127.0.0.1:{port}");
    let by = |path: &str, versions: Value| json!({"strategy": "Webhook", "webhook": {
        "clientConfig": {"url": format!("{url}{path}"), "caBundle": bundle}, "conversionReviewVersions": versions}});
    f.check(&[
        (&format!("POST {DEFINITIONS}"), definition("v1", by("/", json!(["v9"]))), 422, &["/details/causes/0/message=Invalid value: [\"v9\"]: must include at least one of v1, v1beta1"]),
        (&format!("POST {DEFINITIONS}"), definition("v1", json!({"strategy": "Webhook"})), 422, &["/details/causes/0/field=spec.conversion.webhook"]),
    ]).await;
    f.define(&definition("v1", by("/", json!(["v2", "v1"])))).await;
    f.check(&[
        (&format!("POST {V2}"), tab("a", "v2", json!({"when": "noon"})), 201, &["/apiVersion=example.com/v2", "/spec={\"size\":1,\"when\":\"noon\"}", "/metadata/generation=1"]),
        (&format!("GET {V1}/a"), Value::Null, 200, &["/apiVersion=example.com/v1", "/spec={\"at\":\"noon\",\"size\":1}", "/metadata/annotations={\"converted\":\"example.com/v1\"}"]),
        (&format!("POST {V1}"), tab("b", "v1", json!({"at": "dawn"})), 201, &["/spec={\"at\":\"dawn\",\"size\":1}"]),
        (&format!("GET {V2}?fieldSelector=spec.when%3Ddawn"), Value::Null, 200, &["/items/0/metadata/name=b", "/items/1=-"]),
        (&format!("PATCH {V2}/b"), json!({"spec": {"when": "dusk"}}), 200, &["/spec/when=dusk", "/metadata/generation=2"]),
        (&format!("PATCH {V2}/b"), json!({"spec": {"when": "too long"}}), 422, &[]),
        (&format!("GET {V1}/b"), Value::Null, 200, &["/spec/at=dusk"]),
        (&format!("APPLY {V2}/b?fieldManager=m&force=true"), tab("b", "v2", json!({"when": "noon"})), 200, &["/spec/when=noon"]),
        (&format!("GET {V2}/a/scale"), Value::Null, 200, &["/spec/replicas=1"]),
    ]).await;
    // Who owns a field owns it in other versions too.
    f.check(&[
        (&format!("APPLY {V1}/o?fieldManager=first"), tab("o", "v1", json!({"at": "noon"})), 201, &[]),
        (&format!("APPLY {V2}/o?fieldManager=second"), tab("o", "v2", json!({"when": "dusk"})), 409, &["/details/causes/0/field=.spec.at", "/details/causes/0/message=conflict with \"first\""]),
        (&format!("APPLY {V2}/o?fieldManager=second"), tab("o", "v2", json!({"when": "noon"})), 200, &["/metadata/managedFields/0/manager=first", "/metadata/managedFields/1/manager=second"]),
        (&format!("PATCH {V2}/o?fieldManager=third"), json!({"spec": {"when": "dusk"}}), 200, &["/metadata/managedFields/0/manager=third", "/metadata/managedFields/1=-"]),
        (&format!("DELETE {V1}/o"), Value::Null, 200, &[]),
    ]).await;
    // A policy about one version sees what is sent in another one, converted.
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
    let rule = |policy: &str| json!({"metadata": {"name": "noon"}, "spec": {
        "matchConstraints": {"matchPolicy": policy, "resourceRules": [
            {"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["tabs"]}]},
        "validations": [{"expression": "object.spec.at != 'noon'", "messageExpression":
            "request.kind.version + request.requestKind.version + object.apiVersion + (oldObject == null ? '' : oldObject.spec.at)"}]}});
    let binding = json!({"metadata": {"name": "noon"}, "spec": {"policyName": "noon", "validationActions": ["Deny"]}});
    let denied = "/message=tabs.example.com \"a\" is forbidden: ValidatingAdmissionPolicy 'noon' with binding 'noon' denied request: v1v2example.com/v1noon";
    f.check(&[
        (&format!("POST {policies}ies"), rule("Equivalent"), 201, &[]),
        (&format!("POST {policies}ybindings"), binding, 201, &[]),
        (&format!("PATCH {V2}/a"), json!({"spec": {"size": 2}}), 422, &[denied]),
        (&format!("POST {V2}?dryRun=All"), tab("n", "v2", json!({"when": "dusk"})), 201, &[]),
        (&format!("PATCH {policies}ies/noon"), json!({"spec": {"matchConstraints": {"matchPolicy": "Exact"}}}), 200, &[]),
        (&format!("POST {V2}?dryRun=All"), tab("n", "v2", json!({"when": "noon"})), 201, &[]),
        (&format!("POST {V1}?dryRun=All"), tab("n", "v1", json!({"at": "noon"})), 422, &[]),
        (&format!("DELETE {policies}ybindings/noon"), Value::Null, 200, &[]),
    ]).await;
    // One that changes objects does so in its version, whichever that of the request is.
    let policies = policies.replace("validating", "mutating");
    let mutation = |expression: &str| json!({"metadata": {"name": "late"}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["tabs"]}]},
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        "reinvocationPolicy": "Never"}});
    let binding = json!({"metadata": {"name": "late"}, "spec": {"policyName": "late"}});
    f.check(&[
        (&format!("POST {policies}ies"), mutation("Object{spec: Object.spec{at: object.spec.at + '!'}}"), 201, &[]),
        (&format!("POST {policies}ybindings"), binding, 201, &[]),
        (&format!("POST {V2}?dryRun=All"), tab("n", "v2", json!({"when": "dusk"})), 201, &["/apiVersion=example.com/v2", "/spec/when=dusk!", "/spec/at=-"]),
        (&format!("POST {V1}?dryRun=All"), tab("n", "v1", json!({"at": "dusk"})), 201, &["/spec/at=dusk!"]),
        (&format!("POST {V2}?dryRun=All"), tab("n", "v2", json!({"when": "dawn!"})), 422, &["/details/causes/0/field=spec.when"]),
        (&format!("PATCH {policies}ies/late"), mutation("Object{spec: Object.spec{when: 'dusk'}}"), 200, &[]),
        (&format!("POST {V2}?dryRun=All"), tab("n", "v2", json!({"when": "dusk"})), 403,
            &["/message=policy 'late' with binding 'late' denied request: error applying patch: failed to convert patch object to typed object: .spec.when: field not declared in schema"]),
        (&format!("DELETE {policies}ybindings/late"), Value::Null, 200, &[]),
    ]).await;
    // A list is converted by one request, and by none in the stored version.
    for (line, calls) in [(format!("GET {V2}"), 1), (format!("GET {V1}"), 0), (format!("GET {V2}?limit=1"), 1)] {
        let before = CALLS.load(Ordering::Relaxed);
        assert_eq!(f.json(&line, &Value::Null).await.0, 200);
        assert_eq!(CALLS.load(Ordering::Relaxed) - before, calls, "{line}");
    }
    let (_, list) = f.json(&format!("GET {V2}"), &Value::Null).await;
    let since = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    f.check(&[
        (&format!("PATCH {V1}/a"), json!({"spec": {"at": "dusk"}}), 200, &[]),
        (&format!("DELETE {V1}/b"), Value::Null, 200, &[]),
    ]).await;
    let told = f.events(&format!("GET {V2}?watch=1&resourceVersion={since}"), 2).await;
    assert_eq!(told, [
        r#"MODIFIED example.com/v2 a {"size":1,"when":"dusk"}"#,
        r#"DELETED example.com/v2 b {"size":1,"when":"noon"}"#,
    ]);
    let told = f.events(&format!("GET {V2}?watch=1&resourceVersion={since}&fieldSelector=spec.when%3Dnoon"), 2).await;
    assert_eq!(told, [
        r#"DELETED example.com/v2 a {"size":1,"when":"noon"}"#,
        r#"DELETED example.com/v2 b {"size":1,"when":"noon"}"#,
    ]);
    // What a webhook does wrong is said in Kubernetes' words.
    for (path, versions, expect) in [
        ("/fails", json!(["v1"]), "conversion webhook for example.com/v1, Kind=Tab failed: cannot do that"),
        ("/", json!(["v1beta1"]), "-"),
        ("/drops", json!(["v1"]), "conversion webhook for example.com/v1, Kind=Tab returned 0 objects, expected 1"),
        ("/renames", json!(["v1"]), "conversion webhook for example.com/v1, Kind=Tab returned invalid object: must have the same name: a != other"),
    ] {
        let patch = json!({"spec": {"conversion": by(path, versions)}});
        let (code, answer) = f.json(&format!("PATCH {DEFINITION}"), &patch).await;
        assert_eq!(code, 200, "{answer:#}");
        let mut shown = String::new();
        for _ in 0..200 {
            let (_, answer) = f.json(&format!("GET {V2}/a"), &Value::Null).await;
            shown = answer["message"].as_str().unwrap_or("-").to_owned();
            if shown == expect {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(shown, expect, "{path}");
    }
    // A definition goes with its objects, whatever its webhook does.
    f.check(&[(&format!("DELETE {DEFINITION}"), Value::Null, 200, &[])]).await;
    for _ in 0..1000 {
        if f.json(&format!("GET {DEFINITION}"), &Value::Null).await.0 == 404 {
            return f.close().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the definition stays");
}

//! Admission webhooks, asked over HTTPS: one row for each configuration and what becomes of a write.

mod tls;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Config, Identity, NoNodes};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

/// The answer of the webhook at a path to a request.
fn respond(path: &str, request: &Value) -> Value {
    let patch = |patch: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())});
    let label = |name: &str| {
        let there = request["object"]["metadata"]["labels"].is_object();
        let operations = match there {
            true => json!([{"op": "add", "path": format!("/metadata/labels/{name}"), "value": "yes"}]),
            false => json!([{"op": "add", "path": "/metadata/labels", "value": {name: "yes"}}]),
        };
        patch(operations)
    };
    let mut response = match path {
        "/allow" => json!({"allowed": true, "warnings": ["look out"]}),
        "/deny" => json!({"allowed": false, "status": {"message": "not here", "code": 403}}),
        "/label" => label("first"),
        "/second" => label("second"),
        "/break" => patch(json!([{"op": "add", "path": "/data", "value": [1]}])),
        "/bad-patch" => patch(json!([{"op": "remove", "path": "/nothing"}])),
        "/needs-label" => {
            let labels = &request["object"]["metadata"]["labels"];
            json!({"allowed": labels["first"] == "yes", "status": {"message": "no label"}})
        }
        "/lies" => return json!({"response": {"uid": "other", "allowed": true}}),
        _ => return json!({"not": "a review"}),
    };
    response["uid"] = request["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

struct Fixture {
    server: ApiServer,
    url: String,
    bundle: String,
}

impl Fixture {
    async fn send(&self, line: &str, body: &Value) -> (u16, Value, Vec<String>) {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let request =
            Request::builder().method(method).uri(target).header("content-type", "application/json");
        let mut request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        request.extensions_mut().insert(Identity::new("jane", ["system:masters"]));
        let Ok(response) = self.server.clone().oneshot(request).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|w| w.to_str().expect("text").to_owned()).collect();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default(), warnings)
    }

    fn webhook(&self, name: &str, path: &str, more: &Value) -> Value {
        let mut webhook = json!({
            "name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("{}{path}", self.url), "caBundle": self.bundle}, "timeoutSeconds": 1,
            "rules": [{"operations": ["CREATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            webhook[key] = value.clone();
        }
        webhook
    }

    async fn configure(&self, kind: &str, webhooks: Vec<Value>) {
        let plural = format!("{}s", kind.to_lowercase());
        let line = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        self.send(&format!("DELETE {line}/x"), &json!({})).await;
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "x"}, "webhooks": webhooks,
        });
        let (code, answer, _) = self.send(&format!("POST {line}"), &object).await;
        assert_eq!(code, 201, "{answer:#}");
    }
}

const CREATE: &str = "POST /api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_and_their_answers_count() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
    let server =
        ApiServer::new(Config::default(), store.clone(), SystemClock::shared(), Arc::new(NoNodes)).await;
    let at = ([127, 0, 0, 1].into(), "127.0.0.1");
    let (port, bundle) = tls::serve(at, |asked, review| respond(asked.uri.path(), &review["request"])).await;
    let url = format!("https://127.0.0.1:{port}");
    let fixture = Fixture { server: server.expect("a server"), url, bundle };
    let (none, some) = (json!({}), json!({"data": {"a": "b"}}));
    let ignore = json!({"failurePolicy": "Ignore"});
    let other = json!({"objectSelector": {"matchLabels": {"watch": "me"}}});
    let elsewhere =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}});
    let by_name =
        json!({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'nobody'"}]});
    let side = json!({"sideEffects": "NoneOnDryRun"});
    type Webhooks<'a> = &'a [(&'a str, &'a Value)];
    let rows: &[(Webhooks<'_>, Webhooks<'_>, &str)] = &[
        (&[], &[("/deny", &none)], "403 admission webhook \"v0.example.com\" denied the request: not here"),
        (&[], &[("/deny", &other)], "201 {}"),
        (&[], &[("/deny", &elsewhere)], "201 {}"),
        (&[], &[("/deny", &by_name)], "201 {}"),
        (&[("/label", &none)], &[("/needs-label", &none)], "201 {\"first\":\"yes\"}"),
        (
            &[],
            &[("/needs-label", &none)],
            "403 admission webhook \"v0.example.com\" denied the request: no label",
        ),
        (&[("/label", &none), ("/second", &side)], &[], "201 {\"first\":\"yes\",\"second\":\"yes\"}"),
        (
            &[("/break", &none)],
            &[],
            "500 Internal error occurred: admission webhook \"m0.example.com\" broke the object:",
        ),
        (
            &[("/bad-patch", &none)],
            &[],
            "500 Internal error occurred: admission webhook \"m0.example.com\": its patch cannot",
        ),
        (
            &[("/lies", &none)],
            &[],
            "500 Internal error occurred: failed calling webhook \"m0.example.com\": expected response.uid",
        ),
        (&[("/lies", &ignore)], &[], "201 {}"),
        (
            &[],
            &[("/hang", &none)],
            "500 Internal error occurred: failed calling webhook \"v0.example.com\": failed to call webhook:",
        ),
        (&[], &[("/hang", &ignore)], "201 {}"),
        (
            &[],
            &[("/nonsense", &none)],
            "500 Internal error occurred: failed calling webhook \"v0.example.com\": webhook response is absent",
        ),
        (&[], &[("/allow", &none)], "201 {} 299 - \"look out\""),
    ];
    for (number, (mutating, validating, expect)) in rows.iter().enumerate() {
        let webhooks = |letter: &str, all: &[(&str, &Value)]| {
            let all = all.iter().enumerate();
            all.map(|(i, (path, more))| fixture.webhook(&format!("{letter}{i}"), path, more))
                .collect::<Vec<_>>()
        };
        fixture.configure("MutatingWebhookConfiguration", webhooks("m", mutating)).await;
        fixture.configure("ValidatingWebhookConfiguration", webhooks("v", validating)).await;
        let mut object = some.clone();
        object["metadata"] = json!({"name": format!("c{number}")});
        let (code, answer, warnings) = fixture.send(CREATE, &object).await;
        let shown = match code {
            201 => format!("{code} {}", answer["metadata"].get("labels").unwrap_or(&none)),
            _ => format!("{code} {}", answer["message"].as_str().unwrap_or_default()),
        };
        let shown = [&[shown], warnings.as_slice()].concat().join(" ");
        assert!(shown.starts_with(expect), "{mutating:?} {validating:?}: {shown}");
    }
    // What is refused at its deletion stays.
    fixture.configure("ValidatingWebhookConfiguration", vec![fixture.webhook("v", "/deny", &none)]).await;
    let (code, _, _) = fixture.send("DELETE /api/v1/namespaces/default/configmaps/c1", &none).await;
    assert_eq!(code, 403);
    let (code, _, _) = fixture.send("GET /api/v1/namespaces/default/configmaps/c1", &none).await;
    assert_eq!(code, 200);
    // A configuration is never under a webhook: this one can be removed.
    let connects = json!({"rules": [
        {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]});
    let line = "POST /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let object = json!({"metadata": {"name": "y"}, "webhooks": [fixture.webhook("v", "/allow", &connects)]});
    let (code, _, warnings) = fixture.send(line, &object).await;
    assert_eq!((code, warnings.len()), (201, 1), "{warnings:?}");
    let everything = json!({"rules": [
        {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    fixture
        .configure("ValidatingWebhookConfiguration", vec![fixture.webhook("v", "/deny", &everything)])
        .await;
    let line = "DELETE /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/x";
    assert_eq!(fixture.send(line, &none).await.0, 200);
    fixture.server.shutdown().await;
    store.close().await;
}

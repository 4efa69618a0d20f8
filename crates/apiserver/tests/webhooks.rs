//! Admission webhooks, asked over HTTPS: one row for each configuration and what becomes of a write.

mod tls;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Config, Identity, NoNodes, audit};
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
        // What it was asked about, as its refusal.
        "/say" => {
            let kind = |kind: &Value| {
                format!("{}/{} {}", kind["group"], kind["version"], kind["kind"]).replace('"', "")
            };
            let message = format!(
                "{} {} for {}: {} of {}",
                request["operation"].as_str().unwrap_or_default(),
                kind(&request["kind"]),
                kind(&request["requestKind"]),
                request["object"]["apiVersion"].as_str().unwrap_or("nothing"),
                request["oldObject"]["apiVersion"].as_str().unwrap_or("nothing"),
            );
            json!({"allowed": false, "status": {"message": message}})
        }
        "/retarget" => {
            patch(json!([{"op": "replace", "path": "/spec/backend/serviceName", "value": "other"}]))
        }
        "/scale" => patch(json!([{"op": "add", "path": "/spec/replicas", "value": 7}])),
        "/touch" => patch(json!([{"op": "add", "path": "/metadata/uid", "value": "mine"}])),
        "/rename" => patch(json!([{"op": "add", "path": "/metadata/name", "value": "other"}])),
        "/count" => {
            let count = request["object"]["metadata"]["labels"]["count"].as_str().unwrap_or("0").to_owned();
            let next = (count.parse::<u32>().unwrap_or_default() + 1).to_string();
            patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"count": next}}]))
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

async fn fixture() -> (Fixture, Arc<Embedded>, tempfile::TempDir) {
    fixture_with(Config::default()).await
}

async fn fixture_with(config: Config) -> (Fixture, Arc<Embedded>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
    let server = ApiServer::new(config, store.clone(), SystemClock::shared(), Arc::new(NoNodes)).await;
    let at = ([127, 0, 0, 1].into(), "127.0.0.1");
    let (port, bundle) = tls::serve(at, |asked, review| respond(asked.uri.path(), &review["request"])).await;
    let url = format!("https://127.0.0.1:{port}");
    (Fixture { server: server.expect("a server"), url, bundle }, store, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_name_a_version_and_webhooks_see_it() {
    let (fixture, store, _directory) = fixture().await;
    let rules = |group: &str, version: &str, resources: Value, operations: Value, policy: &str| {
        json!({"matchPolicy": policy, "rules": [
            {"apiGroups": [group], "apiVersions": [version], "resources": resources, "operations": operations}]})
    };
    let old = |policy: &str| rules("extensions", "v1beta1", json!(["ingresses"]), json!(["*"]), policy);
    let new = |policy: &str| rules("networking.k8s.io", "v1", json!(["ingresses"]), json!(["*"]), policy);
    let scale = rules("extensions", "v1beta1", json!(["deployments/scale"]), json!(["UPDATE"]), "Equivalent");
    let maps = |operation: &str| rules("", "v1", json!(["configmaps"]), json!([operation]), "Exact");
    let today = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
    let past =
        json!({"metadata": {"name": "i"}, "spec": {"backend": {"serviceName": "web", "servicePort": 80}}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let map = json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    let apis = "/namespaces/default";
    let create_today = format!("POST /apis/networking.k8s.io/v1{apis}/ingresses?dryRun=All");
    let create_past = format!("POST /apis/extensions/v1beta1{apis}/ingresses?dryRun=All");
    let (make, make_map) = (format!("POST /apis/apps/v1{apis}/deployments"), CREATE.to_owned());
    let rescale = format!("PUT /apis/apps/v1{apis}/deployments/d/scale");
    let wanted = json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 2}});
    let (dry_map, delete_map) =
        (format!("{CREATE}?dryRun=All"), format!("DELETE /api/v1{apis}/configmaps/c?dryRun=All"));
    let exec = format!("GET /api/v1{apis}/pods/p/exec?command=sh");
    let connect = rules("", "v1", json!(["pods/exec"]), json!(["CONNECT"]), "Equivalent");
    let nothing = json!({});
    // Which kind of webhook at which path with which rules, the request, and its code with what is said.
    let rows: &[(&str, &str, &Value, &str, &Value, &str)] = &[
        ("v", "/say", &old("Exact"), &create_today, &today, "201 web"),
        (
            "v",
            "/say",
            &old("Equivalent"),
            &create_today,
            &today,
            "CREATE extensions/v1beta1 Ingress for networking.k8s.io/v1 Ingress: extensions/v1beta1 of nothing",
        ),
        (
            "v",
            "/say",
            &new("Equivalent"),
            &create_past,
            &past,
            "CREATE networking.k8s.io/v1 Ingress for extensions/v1beta1 Ingress: networking.k8s.io/v1 of nothing",
        ),
        (
            "v",
            "/say",
            &old("Exact"),
            &create_past,
            &past,
            "CREATE extensions/v1beta1 Ingress for extensions/v1beta1 Ingress: extensions/v1beta1 of nothing",
        ),
        // A patch of one version reaches the other.
        ("m", "/retarget", &old("Equivalent"), &create_today, &today, "201 other"),
        ("m", "/retarget", &old("Exact"), &create_past, &past, "201 other"),
        (
            "m",
            "/retarget",
            &new("Equivalent"),
            &create_past,
            &past,
            "500 Internal error occurred: admission webhook \"m0.example.com\": its patch cannot be applied",
        ),
        // The scale is an object of its own.
        ("m", "/scale", &scale, &make, &deployment, "201 1"),
        ("m", "/scale", &scale, &rescale, &wanted, "200 7"),
        // What only the server writes stays as it is, and names cannot be changed.
        ("m", "/touch", &maps("*"), &dry_map, &map, "201 -"),
        (
            "m",
            "/rename",
            &maps("*"),
            &dry_map,
            &map,
            "422 ConfigMap \"c\" is invalid: metadata.name: Invalid value: \"other\": field is immutable",
        ),
        ("m", "/scale", &maps("UPDATE"), &make_map, &map, "201 -"),
        // Deletions can be refused by mutating webhooks, not changed.
        (
            "m",
            "/say",
            &maps("DELETE"),
            &delete_map,
            &nothing,
            "DELETE /v1 ConfigMap for /v1 ConfigMap: nothing of v1",
        ),
        (
            "m",
            "/label",
            &maps("DELETE"),
            &delete_map,
            &nothing,
            "500 Internal error occurred: admission webhook \"m0.example.com\" attempted to modify the object",
        ),
        ("m", "/allow", &maps("DELETE"), &delete_map, &nothing, "200 -"),
        (
            "m",
            "/say",
            &connect,
            &exec,
            &nothing,
            "CONNECT /v1 PodExecOptions for /v1 PodExecOptions: v1 of nothing",
        ),
        (
            "v",
            "/say",
            &connect,
            &exec,
            &nothing,
            "CONNECT /v1 PodExecOptions for /v1 PodExecOptions: v1 of nothing",
        ),
        ("v", "/allow", &connect, &exec, &nothing, "404 pods \"p\" not found"),
    ];
    for (kind, path, rules, line, body, expect) in rows {
        let webhooks = |of: &str| match of == *kind {
            true => vec![fixture.webhook(&format!("{of}0"), path, rules)],
            false => Vec::new(),
        };
        fixture.configure("MutatingWebhookConfiguration", webhooks("m")).await;
        fixture.configure("ValidatingWebhookConfiguration", webhooks("v")).await;
        let (code, answer, _) = fixture.send(line, body).await;
        let spec = &answer["spec"];
        let name =
            [&spec["defaultBackend"]["service"]["name"], &spec["backend"]["serviceName"], &spec["replicas"]];
        let shown = match name.into_iter().find(|value| !value.is_null()) {
            _ if code >= 300 => answer["message"].as_str().unwrap_or_default().to_owned(),
            Some(Value::String(name)) => name.clone(),
            Some(other) => other.to_string(),
            None => "-".to_owned(),
        };
        let shown = shown
            .split_once("denied the request: ")
            .map_or(format!("{code} {shown}"), |(_, said)| said.to_owned());
        assert!(shown.starts_with(expect), "{path} {rules} {line}: {shown}");
    }
    fixture.server.shutdown().await;
    store.close().await;
}

/// Webhooks that want it are asked again after others changed the object, once.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_again() {
    let (fixture, store, _directory) = fixture().await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let never = json!({});
    let rows: &[(&[(&str, &Value)], &str)] = &[
        (&[("/count", &never)], "1"),
        (&[("/count", &again)], "1"),
        (&[("/count", &again), ("/count", &never)], "3"),
        (&[("/count", &never), ("/count", &never)], "2"),
        (&[("/count", &again), ("/count", &again)], "4"),
        (&[("/count", &never), ("/count", &again)], "2"),
        (&[("/count", &again), ("/allow", &never)], "1"),
    ];
    for (webhooks, expect) in rows {
        let webhooks = webhooks.iter().enumerate();
        let webhooks =
            webhooks.map(|(i, (path, more))| fixture.webhook(&format!("m{i}"), path, more)).collect();
        fixture.configure("MutatingWebhookConfiguration", webhooks).await;
        let object = json!({"metadata": {"name": "c"}});
        let (_, answer, _) = fixture.send(&format!("{CREATE}?dryRun=All"), &object).await;
        assert_eq!(answer["metadata"]["labels"]["count"], *expect, "{answer:#}");
    }
    fixture.server.shutdown().await;
    store.close().await;
}

/// Policies come before webhooks, and again after one that changed the object where they want that.
#[tokio::test(flavor = "multi_thread")]
async fn policies_and_webhooks_follow_each_other() {
    let (fixture, store, _directory) = fixture().await;
    fixture.configure("MutatingWebhookConfiguration", vec![fixture.webhook("m", "/label", &json!({}))]).await;
    let group = "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolic";
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p"}});
    assert_eq!(fixture.send(&format!("POST {group}ybindings"), &binding).await.0, 201);
    for (reinvocation, expect) in [("Never", "no"), ("IfNeeded", "yes")] {
        fixture.send(&format!("DELETE {group}ies/p"), &json!({})).await;
        let expression = "Object{metadata: Object.metadata{annotations: {'labelled': object.metadata.?labels.first.orValue('no')}}}";
        let policy = json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
            "reinvocationPolicy": reinvocation}});
        assert_eq!(fixture.send(&format!("POST {group}ies"), &policy).await.0, 201);
        let (_, answer, _) =
            fixture.send(&format!("{CREATE}?dryRun=All"), &json!({"metadata": {"name": "c"}})).await;
        assert_eq!(answer["metadata"]["annotations"]["labelled"], expect, "{answer:#}");
    }
    fixture.server.shutdown().await;
    store.close().await;
}

/// Audit events say which webhooks were asked, and what they changed where they hold the object too.
#[tokio::test(flavor = "multi_thread")]
async fn audit_events_tell_of_webhooks() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let log =
        audit::LogConfig { path: Some(path.clone()), max_size: 0, max_backups: 0, max_age: Duration::ZERO };
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [
        {level: Metadata, namespaces: [kube-system]}, {level: Request, resources: [{resources: [configmaps]}]}]}";
    let policy = audit::Policy::parse(policy).expect("a policy");
    let audit = audit::Audit::open(policy, log, SystemClock::shared()).expect("a log");
    let (fixture, store, _directory) = fixture_with(Config { audit: Some(audit), ..Config::default() }).await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let webhooks = vec![
        fixture.webhook("m0", "/allow", &again),
        fixture.webhook("m1", "/label", &json!({})),
        fixture.webhook("m2", "/lies", &json!({"failurePolicy": "Ignore"})),
    ];
    fixture.configure("MutatingWebhookConfiguration", webhooks).await;
    let ignored = fixture.webhook("v0", "/lies", &json!({"failurePolicy": "Ignore"}));
    fixture.configure("ValidatingWebhookConfiguration", vec![ignored]).await;
    for namespace in ["default", "kube-system"] {
        let line = format!("POST /api/v1/namespaces/{namespace}/configmaps");
        assert_eq!(fixture.send(&line, &json!({"metadata": {"name": "c"}})).await.0, 201);
    }
    fixture.server.shutdown().await;
    store.close().await;
    let text = std::fs::read_to_string(&path).expect("a log");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (namespace, has_patch) in [("default", true), ("kube-system", false)] {
        let event =
            events.iter().find(|event| event["objectRef"]["namespace"] == namespace).expect("an event");
        let mutation = |name: &str, mutated: bool| {
            format!(r#"{{"configuration":"x","webhook":"{name}.example.com","mutated":{mutated}}}"#)
        };
        let annotation = |key: &str| event["annotations"][key].as_str().unwrap_or("-").to_owned();
        for (key, expect) in [
            ("mutation.webhook.admission.k8s.io/round_0_index_0", mutation("m0", false)),
            ("mutation.webhook.admission.k8s.io/round_0_index_1", mutation("m1", true)),
            ("mutation.webhook.admission.k8s.io/round_0_index_2", mutation("m2", false)),
            ("mutation.webhook.admission.k8s.io/round_1_index_0", mutation("m0", false)),
            ("mutation.webhook.admission.k8s.io/round_1_index_1", "-".to_owned()),
            ("failed-open.mutation.webhook.admission.k8s.io/round_0_index_2", "m2.example.com".to_owned()),
            ("failed-open.validating.webhook.admission.k8s.io/round_0_index_0", "v0.example.com".to_owned()),
        ] {
            assert_eq!(annotation(key), expect, "{key} in {namespace}");
        }
        let patch = annotation("patch.webhook.admission.k8s.io/round_0_index_1");
        let expect = r#"{"configuration":"x","webhook":"m1.example.com","patch":[{"op":"add","path":"/metadata/labels","value":{"first":"yes"}}],"patchType":"JSONPatch"}"#;
        assert_eq!(patch, if has_patch { expect } else { "-" });
    }
}

/// An update that changes nothing passes admission: policies may be newer than the object.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_nothing_is_admitted() {
    let (fixture, store, _directory) = fixture().await;
    let object = json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    assert_eq!(fixture.send(CREATE, &object).await.0, 201);
    let rules = json!({"rules": [
        {"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    let line = "PUT /api/v1/namespaces/default/configmaps/c";
    let (code, before, _) = fixture.send(line, &object).await;
    assert_eq!(code, 200);
    fixture.configure("MutatingWebhookConfiguration", vec![fixture.webhook("m", "/label", &rules)]).await;
    let (code, after, _) = fixture.send(line, &object).await;
    assert_eq!((code, &after["metadata"]["labels"]["first"]), (200, &json!("yes")));
    assert_ne!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    fixture.configure("MutatingWebhookConfiguration", Vec::new()).await;
    fixture.configure("ValidatingWebhookConfiguration", vec![fixture.webhook("v", "/deny", &rules)]).await;
    assert_eq!(fixture.send(line, &after).await.0, 403);
    fixture.server.shutdown().await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_and_their_answers_count() {
    let (fixture, store, _directory) = fixture().await;
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

//! Tokens of ServiceAccounts over raw requests in process: how they are asked for, and whom they are accepted from.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use yado_apiserver::tokens::{Issuer, Keys};
use yado_apiserver::{ApiServer, Config, Identity, NoNodes, Tokens};
use yado_store::{Embedded, Store};
use yado_types::clock::{Clock, ManualClock};

const NOW: &str = "2026-01-01T00:00:00Z";
const NOW_SECONDS: i64 = 1_767_225_600;
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/app/token";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

struct Fixture {
    server: ApiServer,
    clock: ManualClock,
    store: Arc<Embedded>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    /// A server with a ServiceAccount `app`, a Pod `p` of it on the node `n`, and a Secret `s`.
    async fn new(keys: Keys) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
        let clock = ManualClock::new(NOW.parse().expect("a time"));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let tokens = Tokens::new([("static".to_owned(), Identity::new("bot", ["ci"]))]);
        let config = Config { issuer: Some(Issuer::new(keys)), tokens, ..Config::default() };
        let server = ApiServer::new(config, store.clone(), shared, Arc::new(NoNodes)).await;
        let fixture = Self { server: server.expect("a server"), clock, store, _directory: directory };
        fixture
            .ok("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "app"}}))
            .await;
        fixture.ok("POST /api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
        fixture.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
        fixture.pod("app").await;
        fixture
    }

    async fn pod(&self, account: &str) -> Value {
        let spec = json!({"serviceAccountName": account, "nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
        self.ok(&format!("POST {PODS}"), json!({"metadata": {"name": "p"}, "spec": spec})).await
    }

    /// Sends a request with a bearer token, or else as the administrator.
    async fn send(&self, line: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let mut request =
            Request::builder().method(method).uri(target).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request
            .body(Full::new(Bytes::from(if body.is_null() { String::new() } else { body.to_string() })))
            .expect("a request");
        if token.is_none() {
            request.extensions_mut().insert(Identity::new("admin", ["system:masters"]));
        }
        let Ok(response) = self.server.clone().oneshot(request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn ok(&self, line: &str, body: Value) -> Value {
        let (code, value) = self.send(line, None, &body).await;
        assert!(code < 300, "{line}: {value:#}");
        value
    }

    async fn issue(&self, spec: Value) -> String {
        let answer = self.ok(&format!("POST {TOKEN}"), json!({"spec": spec})).await;
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// What a TokenReview says: the user, or why not.
    async fn review(&self, token: &str, audiences: &[&str]) -> String {
        let spec = json!({"token": token, "audiences": audiences});
        let status = self.ok(&format!("POST {REVIEWS}"), json!({"spec": spec})).await["status"].take();
        match status["authenticated"] == true {
            true => {
                format!("{} {}", status["user"]["username"].as_str().expect("a name"), status["audiences"])
            }
            false => status["error"].as_str().expect("a reason").to_owned(),
        }
    }

    async fn close(self) {
        self.server.shutdown().await;
        self.store.close().await;
    }
}

fn keys() -> Keys {
    Keys::ephemeral().expect("keys")
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("claims");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

/// What a token is bound to.
fn bound(kind: &str, name: &str) -> Value {
    json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}})
}

#[tokio::test]
async fn requests_for_tokens() {
    let fixture = Fixture::new(keys()).await;
    let with = |key: &str, value: Value| {
        let mut spec = bound("Pod", "p");
        spec["boundObjectRef"][key] = value;
        spec
    };
    let of_metadata = "TokenRequest.authentication.k8s.io \"app\" is invalid: metadata.name: Invalid value: \"other\": \
                       must match the service account name if specified";
    for (body, code, message) in [
        (json!({"spec": {}}), 201, ""),
        (json!({"spec": {"expirationSeconds": 600}}), 201, ""),
        (json!({"spec": bound("Pod", "p")}), 201, ""),
        (json!({"metadata": {"name": "other"}, "spec": {}}), 422, of_metadata),
        (
            json!({"spec": {"expirationSeconds": 599}}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not \
             specify a duration less than 10 minutes",
        ),
        (
            json!({"spec": {"expirationSeconds": 4_294_967_297_i64}}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may \
             not specify a duration larger than 2^32 seconds",
        ),
        (json!({"spec": bound("Pod", "q")}), 404, "pods \"q\" not found"),
        (
            json!({"spec": with("uid", json!("u"))}),
            409,
            "Operation cannot be fulfilled on pods \"p\": the UID in the bound object reference (u) does not match the \
             UID in record. The object might have been deleted and then recreated",
        ),
        (
            json!({"spec": with("kind", json!("ConfigMap"))}),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
    ] {
        let (found, answer) = fixture.send(&format!("POST {TOKEN}"), None, &body).await;
        let said = answer["message"].as_str().unwrap_or_default();
        assert_eq!((found, said), (code, message), "{body}");
    }
    let other = TOKEN.replace("app", "default");
    let (code, answer) =
        fixture.send(&format!("POST {other}"), None, &json!({"spec": bound("Pod", "p")})).await;
    let why =
        "cannot bind token for serviceaccount \"default\" to pod running with different serviceaccount name.";
    assert_eq!((code, answer["message"].as_str()), (400, Some(why)));
    let absent = TOKEN.replace("app", "absent");
    assert_eq!(fixture.send(&format!("POST {absent}"), None, &json!({"spec": {}})).await.0, 404);
    assert_eq!(fixture.send(&format!("GET {TOKEN}"), None, &Value::Null).await.0, 405);
    fixture.close().await;
}

#[tokio::test]
async fn what_a_token_and_its_answer_say() {
    let fixture = Fixture::new(keys()).await;
    let uid = |value: &Value| value["metadata"]["uid"].clone();
    let pod = fixture.ok(&format!("GET {PODS}/p"), Value::Null).await;
    let account = fixture.ok("GET /api/v1/namespaces/default/serviceaccounts/app", Value::Null).await;
    let node = fixture.ok("GET /api/v1/nodes/n", Value::Null).await;
    let mut spec = bound("Pod", "p");
    spec["expirationSeconds"] = 3607.into();
    let answer = fixture.ok(&format!("POST {TOKEN}"), json!({"spec": spec})).await;
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T01:00:07Z");
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    assert_eq!(answer["metadata"]["name"], "app");
    let token = answer["status"]["token"].as_str().expect("a token");
    let mut said = claims(token);
    let id = said["jti"].take();
    let expect = json!({
        "aud": [ISSUER], "iss": ISSUER, "sub": "system:serviceaccount:default:app", "jti": null,
        "iat": NOW_SECONDS, "nbf": NOW_SECONDS, "exp": NOW_SECONDS + 365 * 24 * 3600,
        "kubernetes.io": {
            "namespace": "default", "warnafter": NOW_SECONDS + 3607,
            "serviceaccount": {"name": "app", "uid": uid(&account)},
            "pod": {"name": "p", "uid": uid(&pod)}, "node": {"name": "n", "uid": uid(&node)},
        },
    });
    assert_eq!(said, expect);

    let review = fixture
        .send("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", Some(token), &json!({}))
        .await
        .1;
    let key = |key: &str| format!("authentication.kubernetes.io/{key}");
    let expect = json!({
        "username": "system:serviceaccount:default:app", "uid": uid(&account),
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "extra": {
            key("credential-id"): [format!("JTI={}", id.as_str().expect("an id"))],
            key("pod-name"): ["p"], key("pod-uid"): [uid(&pod)],
            key("node-name"): ["n"], key("node-uid"): [uid(&node)],
        },
    });
    assert_eq!(review["status"]["userInfo"], expect);
    let plain = claims(&fixture.issue(json!({"expirationSeconds": 3607})).await);
    assert_eq!(plain["exp"], NOW_SECONDS + 3607, "only a Pod's token is extended");
    fixture.close().await;
}

/// A token, what happens to the objects after it is issued, how many seconds pass, and what a TokenReview says then.
struct Row {
    spec: fn() -> Value,
    changes: &'static [&'static str],
    seconds: u64,
    expect: &'static str,
}

const ACCEPTED: &str = "system:serviceaccount:default:app [\"https://kubernetes.default.svc.cluster.local\"]";
const DELETE_POD: &str = "DELETE /api/v1/namespaces/default/pods/p?gracePeriodSeconds=0";
const DELETE_ACCOUNT: &str = "DELETE /api/v1/namespaces/default/serviceaccounts/app";

const ROWS: &[Row] = &[
    Row { spec: || json!({}), changes: &[], seconds: 0, expect: ACCEPTED },
    Row { spec: || json!({}), changes: &[], seconds: 3660, expect: ACCEPTED },
    Row {
        spec: || json!({}),
        changes: &[],
        seconds: 3661,
        expect: "[invalid bearer token, token has expired]",
    },
    Row {
        spec: || json!({"expirationSeconds": 600}),
        changes: &[],
        seconds: 661,
        expect: "[invalid bearer token, token has expired]",
    },
    Row { spec: || bound("Pod", "p"), changes: &[], seconds: 0, expect: ACCEPTED },
    Row {
        spec: || bound("Pod", "p"),
        changes: &[DELETE_POD],
        seconds: 0,
        expect: "[invalid bearer token, pod \"p\" not found]",
    },
    Row {
        spec: || bound("Pod", "p"),
        changes: &[DELETE_POD, "POD"],
        seconds: 0,
        expect: "[invalid bearer token, pod UID (NEW) does not match claim (OLD)]",
    },
    // A Pod that is ending, within its grace period of 30 s and the leeway; then beyond both.
    Row {
        spec: || bound("Pod", "p"),
        changes: &["DELETE /api/v1/namespaces/default/pods/p"],
        seconds: 89,
        expect: ACCEPTED,
    },
    Row {
        spec: || bound("Pod", "p"),
        changes: &["DELETE /api/v1/namespaces/default/pods/p"],
        seconds: 91,
        expect: "[invalid bearer token, pod \"p\" has been deleted]",
    },
    Row { spec: || bound("Pod", "p"), changes: &["DELETE /api/v1/nodes/n"], seconds: 0, expect: ACCEPTED },
    Row { spec: || bound("Secret", "s"), changes: &[], seconds: 0, expect: ACCEPTED },
    Row {
        spec: || bound("Secret", "s"),
        changes: &["DELETE /api/v1/namespaces/default/secrets/s"],
        seconds: 0,
        expect: "[invalid bearer token, secret \"s\" not found]",
    },
    Row { spec: || bound("Node", "n"), changes: &[], seconds: 0, expect: ACCEPTED },
    Row {
        spec: || bound("Node", "n"),
        changes: &["DELETE /api/v1/nodes/n"],
        seconds: 0,
        expect: "[invalid bearer token, node \"n\" not found]",
    },
    Row { spec: || json!({}), changes: &[DELETE_POD], seconds: 0, expect: ACCEPTED },
    Row {
        spec: || json!({}),
        changes: &[DELETE_ACCOUNT],
        seconds: 0,
        expect: "[invalid bearer token, serviceaccount \"app\" not found]",
    },
    Row {
        spec: || json!({}),
        changes: &[DELETE_ACCOUNT, "ACCOUNT"],
        seconds: 0,
        expect: "[invalid bearer token, serviceaccount UID (NEW) does not match claim (OLD)]",
    },
    Row {
        spec: || json!({"audiences": ["vault"]}),
        changes: &[],
        seconds: 0,
        expect: "[invalid bearer token, token audiences [\"vault\"] is invalid for the target audiences [\"https://kubernetes.default.svc.cluster.local\"]]",
    },
    Row {
        spec: || json!({"audiences": ["vault", "https://kubernetes.default.svc.cluster.local"]}),
        changes: &[],
        seconds: 0,
        expect: ACCEPTED,
    },
];

#[tokio::test]
async fn tokens_are_valid_as_long_as_their_times_and_objects() {
    for row in ROWS {
        let fixture = Fixture::new(keys()).await;
        let token = fixture.issue((row.spec)()).await;
        for change in row.changes {
            match *change {
                "POD" => _ = fixture.pod("app").await,
                "ACCOUNT" => {
                    let account = json!({"metadata": {"name": "app"}});
                    fixture.ok("POST /api/v1/namespaces/default/serviceaccounts", account).await;
                }
                line => _ = fixture.ok(line, Value::Null).await,
            }
        }
        fixture.clock.advance(Duration::from_secs(row.seconds));
        let said = fixture.review(&token, &[]).await;
        // Uids are random: which is which is told by its parentheses.
        let said = match said.split_once(" UID (") {
            Some((before, _)) if said.contains(") does not match claim (") => {
                format!("{before} UID (NEW) does not match claim (OLD)]")
            }
            _ => said,
        };
        let what = format!("{} {:?} {}", (row.spec)(), row.changes, row.seconds);
        assert_eq!(said, row.expect, "{what}");
        // An account without roles is known and may list no Pods.
        let expect = if row.expect == ACCEPTED { 403 } else { 401 };
        assert_eq!(
            fixture.send(&format!("GET {PODS}"), Some(&token), &Value::Null).await.0,
            expect,
            "{what}"
        );
        fixture.close().await;
    }
}

#[tokio::test]
async fn tokens_of_others_are_refused() {
    let fixture = Fixture::new(keys()).await;
    let foreign = Fixture::new(keys()).await;
    let token = fixture.issue(json!({"audiences": ["vault"]})).await;
    assert_eq!(
        fixture.review(&token, &["x", "vault"]).await,
        "system:serviceaccount:default:app [\"vault\"]"
    );
    let of_others = foreign.issue(json!({})).await;
    assert_eq!(fixture.review(&of_others, &[]).await, "[invalid bearer token, invalid signature]");
    assert_eq!(fixture.review("static", &[]).await, format!("bot [\"{ISSUER}\"]"));
    let audience = format!(
        "[invalid bearer token, token audiences [{ISSUER:?}] is invalid for the target audiences [\"vault\"]]"
    );
    assert_eq!(fixture.review("static", &["vault"]).await, audience);
    for unknown in ["x", "a.b.c", "abcdef.0123456789abcdef"] {
        assert_eq!(fixture.review(unknown, &[]).await, "invalid bearer token", "{unknown}");
    }
    let (code, answer) = fixture.send(&format!("POST {REVIEWS}"), None, &json!({"spec": {}})).await;
    assert_eq!(
        (code, answer["message"].as_str()),
        (400, Some("token is required for TokenReview in authentication"))
    );
    foreign.close().await;
    fixture.close().await;
}

#[tokio::test]
async fn bootstrap_tokens_are_secrets_of_the_system() {
    let fixture = Fixture::new(keys()).await;
    let token = "abcdef.0123456789abcdef";
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "expiration": "2026-01-01T01:00:00Z",
        },
    });
    fixture.ok("POST /api/v1/namespaces/default/secrets", secret.clone()).await;
    assert_eq!(fixture.review(token, &[]).await, "invalid bearer token", "it is in another namespace");
    fixture.ok("POST /api/v1/namespaces/kube-system/secrets", secret).await;
    assert_eq!(fixture.review(token, &[]).await, format!("system:bootstrap:abcdef [{ISSUER:?}]"));
    fixture.clock.advance(Duration::from_secs(3600));
    assert_eq!(fixture.review(token, &[]).await, "[invalid bearer token, token has expired]");
    fixture.close().await;
}

#[tokio::test]
async fn others_can_verify_tokens() {
    let fixture = Fixture::new(keys()).await;
    let token = fixture.issue(json!({})).await;
    let found = fixture.ok("GET /.well-known/openid-configuration", Value::Null).await;
    assert_eq!(
        (&found["issuer"], &found["jwks_uri"]),
        (&json!(ISSUER), &json!(format!("{ISSUER}/openid/v1/jwks")))
    );
    let header = token.split('.').next().expect("a header");
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64")).expect("JSON");
    let keys = fixture.ok("GET /openid/v1/jwks", Value::Null).await;
    assert_eq!(keys["keys"][0]["kid"], header["kid"]);
    let (code, _) = fixture.send("GET /openid/v1/jwks", Some(&token), &Value::Null).await;
    assert_eq!(code, 200);
    fixture.close().await;
}

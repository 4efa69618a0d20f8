//! The API server, in this process, over a store in memory: bodies in each media type, patches of each kind, server-side
//! apply, schemas and rules of custom kinds, selectors and field paths. Whatever comes, the server answers, soon and without
//! an error of its own, and what it took can be read back.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Config, Identity, NoNodes};
use yado_store::Embedded;
use yado_types::clock::SystemClock;

/// A request: method, target, media type of its body. In a target, `*` is replaced by the input, percent-encoded.
type Row = (&'static str, &'static str, &'static str);

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const STEPS: &str = "application/json-patch+json";

const ROWS: &[Row] = &[
    ("POST", "/api/v1/namespaces/default/pods?dryRun=All", JSON),
    ("POST", "/api/v1/namespaces/default/pods?dryRun=All", YAML),
    ("POST", "/api/v1/namespaces/default/pods?dryRun=All", PROTOBUF),
    ("POST", "/apis/apps/v1/namespaces/default/deployments?dryRun=All", PROTOBUF),
    ("POST", "/apis/apps/v1/namespaces/default/deployments?dryRun=All&fieldValidation=Strict", YAML),
    ("PATCH", "/api/v1/namespaces/default/services/s?dryRun=All", MERGE),
    ("PATCH", "/api/v1/namespaces/default/services/s?dryRun=All", STRATEGIC),
    ("PATCH", "/api/v1/namespaces/default/services/s?dryRun=All", STEPS),
    ("PATCH", "/api/v1/namespaces/default/services/s?dryRun=All&fieldManager=f&force=true", APPLY),
    ("PATCH", "/api/v1/namespaces/default/services/new?dryRun=All&fieldManager=f", APPLY),
    ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", JSON),
    ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", YAML),
    ("POST", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?dryRun=All", JSON),
    ("POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses?dryRun=All", YAML),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", JSON),
    ("DELETE", "/api/v1/namespaces/default/services/nothing?dryRun=All", JSON),
    ("GET", "/api/v1/services?labelSelector=*", JSON),
    ("GET", "/api/v1/services?fieldSelector=*", JSON),
    ("GET", "/api/v1/services?limit=1&continue=*", JSON),
    ("GET", "/*", JSON),
];

/// The object of the patches.
const SERVICE: &str = r#"{"metadata": {"name": "s", "labels": {"a": "b"}}, "spec": {"selector": {"a": "b"},
    "ports": [{"name": "one", "port": 80, "protocol": "TCP"}, {"name": "two", "port": 81, "protocol": "UDP"}]}}"#;
/// No input of a fuzzer's size takes so long.
const LIMIT: Duration = Duration::from_secs(5);

struct Server {
    runtime: Runtime,
    server: ApiServer,
}

impl Server {
    fn start() -> Self {
        let directory = Path::new("/dev/shm").join(format!("yado-fuzz-api-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("/dev/shm can be written to");
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(async {
            let store = Arc::new(Embedded::open(yado_store::Config::new(&directory)).expect("a store"));
            ApiServer::new(Config::default(), store, SystemClock::shared(), Arc::new(NoNodes)).await.expect("a server")
        });
        let started = Self { runtime, server };
        let (code, made) = started.ask(("POST", "/api/v1/namespaces/default/services", JSON), SERVICE.as_bytes());
        assert_eq!(code, 201, "{made}");
        started
    }

    /// Sends a request; its code and its body.
    fn ask(&self, (method, target, media): Row, body: &[u8]) -> (u16, Value) {
        let target = target.replace('*', &encode(body));
        let Ok(mut request) = Request::builder()
            .method(method)
            .uri(target)
            .header("content-type", media)
            .body(Full::new(bytes::Bytes::copy_from_slice(if method == "GET" { &[] } else { body })))
        else {
            return (400, Value::Null);
        };
        request.extensions_mut().insert(Identity::new("fuzz", ["system:masters"]));
        self.runtime.block_on(async {
            let answer = async {
                let Ok(response) = self.server.clone().oneshot(request).await;
                let code = response.status().as_u16();
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
            };
            tokio::time::timeout(LIMIT, answer).await.expect("an answer in time")
        })
    }
}

/// All bytes but letters and digits, percent-encoded.
fn encode(bytes: &[u8]) -> String {
    let one = |b: &u8| if b.is_ascii_alphanumeric() { char::from(*b).to_string() } else { format!("%{b:02X}") };
    bytes.iter().map(one).collect()
}

/// The first byte says which request, the others are its input.
pub fn check(data: &[u8]) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let Some((first, input)) = data.split_first() else { return };
    let row = ROWS[usize::from(*first) % ROWS.len()];
    // A watch of everything lasts as long as its client likes.
    if row.1 == "/*" && input.windows(5).any(|w| w == b"watch") {
        return;
    }
    let (code, answer) = SERVER.get_or_init(Server::start).ask(row, input);
    assert!(code < 500, "{row:?} answers {code}: {answer}");
    if code >= 400 && row.1 != "/*" {
        assert_eq!(answer["kind"], "Status", "{row:?}: {answer}");
    }
    if code < 300 && row.0 == "POST" && answer["kind"] == "Pod" {
        // What the server has taken, it takes again, whole.
        let again = SERVER.get_or_init(Server::start).ask(row_again(), answer_without_identity(&answer).as_bytes());
        assert_eq!(again.0, 201, "{row:?}: {answer} is refused: {}", again.1);
        assert_eq!(again.1["spec"], answer["spec"], "{row:?}: defaults are stable");
    }
}

fn row_again() -> Row {
    ("POST", "/api/v1/namespaces/default/pods?dryRun=All&fieldValidation=Strict", JSON)
}

fn answer_without_identity(answer: &Value) -> String {
    let mut object = answer.clone();
    for server_made in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove(server_made);
        }
    }
    object.to_string()
}

//! Admission over raw requests in process: one row for each configuration and what becomes of a write.

#[path = "admission/audited.rs"]
mod audited;
#[path = "admission/mutating.rs"]
mod mutating;
#[path = "admission/nodes.rs"]
mod nodes;
#[path = "admission/pod_security.rs"]
mod pod_security;
#[path = "admission/pods.rs"]
mod pods;
#[path = "admission/policies.rs"]
mod policies;
#[path = "admission/versions.rs"]
mod versions;

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;
use yado_apiserver::{ApiServer, Config, Identity, NoNodes};
use yado_store::{Embedded, Store};
use yado_types::clock::SystemClock;

struct Fixture {
    server: ApiServer,
    store: Arc<Embedded>,
    _directory: tempfile::TempDir,
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

impl Fixture {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
        let clock = SystemClock::shared();
        let server = ApiServer::new(config, store.clone(), clock, Arc::new(NoNodes)).await;
        Self { server: server.expect("a server"), store, _directory: directory }
    }

    /// The code, the answer and the warnings of a request as a user: the administrator is `root`, nodes have their names.
    async fn send_as(&self, user: &str, line: &str, body: &Value) -> (u16, Value, Vec<String>) {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(target).header("content-type", kind);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let groups: &[&str] = match user {
            "root" => &["system:masters"],
            user if user.starts_with("system:node:") => &["system:nodes"],
            _ => &[],
        };
        request.extensions_mut().insert(Identity::new(user, groups.iter().copied()));
        let Ok(response) = self.server.clone().oneshot(request).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|w| w.to_str().expect("text").to_owned()).collect();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default(), warnings)
    }

    async fn send(&self, line: &str, body: &Value) -> (u16, Value, Vec<String>) {
        self.send_as("root", line, body).await
    }

    async fn close(self) {
        self.server.shutdown().await;
        self.store.close().await;
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

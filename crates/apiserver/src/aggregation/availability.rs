//! Whether an aggregated API server answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use yado_types::address::forbidden_destination;
use yado_types::labels::SERVICE_NAME;
use yado_types::selector::LabelSelector;

use super::{CHECK_EVERY, RETRY_EVERY};
use crate::edit::{list, text};
use crate::object::Selection;
use crate::request::ListOptions;
use crate::resource;
use crate::schema::parse_json;
use crate::server::Inner;
use crate::tls::{self, Trust};

/// How long the answer to a check may take. As in Kubernetes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a discovery document.
const MAX_ANSWER: usize = 4 << 20;
/// The user of checks, who may see discovery everywhere.
const USER: [(&str, &str); 2] =
    [("x-remote-user", "system:kube-aggregator"), ("x-remote-group", "system:masters")];

/// What a check found: the reason and message of the condition `Available`, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Finding {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }

    /// This server serves it itself.
    pub(super) fn local() -> Self {
        Self::new("Local", "Local APIServices are always available".into())
    }

    pub(super) fn is_available(&self) -> bool {
        matches!(self.reason, "Local" | "Passed")
    }
}

/// A check with what it rested on.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) finding: Finding,
    /// The resources that it has.
    pub(super) resources: Vec<Value>,
    /// `serverRelativeURL` of its OpenAPI document.
    pub(super) openapi: Option<String>,
    spec: Value,
    address: Option<SocketAddr>,
    /// When it was asked, by the monotonic clock.
    at: Duration,
}

/// Checks the server of an APIService, given by its `spec`. It is asked again when what the last check rested on has changed
/// or is too old.
pub(super) async fn check(server: &Inner, spec: &Value, last: Option<Checked>) -> Checked {
    let now = server.clock.monotonic();
    let endpoints = endpoints(server, spec);
    let holds = |last: &Checked| {
        let lasts = if last.finding.is_available() { CHECK_EVERY } else { RETRY_EVERY };
        let addresses = endpoints.as_ref().map(Vec::as_slice).unwrap_or_default();
        let is_there = last.address.is_some_and(|address| addresses.contains(&address));
        is_there && last.spec == *spec && now.saturating_sub(last.at) < lasts
    };
    let last = match last {
        Some(last) if holds(&last) => return last,
        last => last,
    };
    // What it had is shown as outdated while it does not answer.
    let (resources, openapi) = last.map(|last| (last.resources, last.openapi)).unwrap_or_default();
    let mut checked = Checked {
        finding: Finding::new("Passed", "all checks passed".into()),
        resources,
        openapi,
        spec: spec.clone(),
        address: None,
        at: now,
    };
    let addresses = match endpoints {
        Ok(addresses) => addresses,
        Err(finding) => return Checked { finding, ..checked },
    };
    let (group, version) = (text(&spec["group"]), text(&spec["version"]));
    let path = format!("/apis/{group}/{version}");
    for address in addresses {
        checked.address = Some(address);
        match fetch(server, spec, address, &path).await {
            Ok(found) => {
                checked.finding = Finding::new("Passed", "all checks passed".into());
                checked.resources = list(&found["resources"]).to_vec();
                let index = fetch(server, spec, address, "/openapi/v3").await.unwrap_or_default();
                let document = &index["paths"][path.trim_start_matches('/')]["serverRelativeURL"];
                checked.openapi = document.as_str().map(str::to_owned);
                return checked;
            }
            Err(why) => {
                let why = format!("failing or missing response from https://{address}{path}: {why}");
                checked.finding = Finding::new("FailedDiscoveryCheck", why);
            }
        }
    }
    checked
}

/// The addresses of a Service's endpoints that an APIService can be reached at.
pub(super) fn endpoints(server: &Inner, spec: &Value) -> Result<Vec<SocketAddr>, Finding> {
    let service = &spec["service"];
    let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
    let port = service["port"].as_u64().unwrap_or(443);
    let missing = || {
        let message = format!("service/{name} in {namespace:?} is not present");
        Finding::new("ServiceNotFound", message)
    };
    let services = resource::find("", "v1", "services").ok_or_else(missing)?;
    let found = server.find(services, namespace, name).map_err(|_| missing())?.value();
    let Some(of_service) = list(&found["spec"]["ports"]).iter().find(|p| p["port"] == port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Finding::new("ServicePortError", message));
    };
    let port_name = text(&of_service["name"]);
    let none = || {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        Finding::new("EndpointsNotFound", message)
    };
    let slices = resource::find("discovery.k8s.io", "v1", "endpointslices").ok_or_else(none)?;
    let labels = LabelSelector::parse(&format!("{SERVICE_NAME}={name}")).map_err(|_| none())?;
    let selection = Selection::new(slices, &ListOptions { labels, ..ListOptions::default() });
    let selection = selection.map_err(|_| none())?;
    let collection = server.collection(slices).map_err(|_| none())?;
    let slices = collection.select(namespace, 0, &selection).objects;
    if slices.is_empty() {
        return Err(none());
    }
    let mut addresses = Vec::new();
    for slice in slices.iter().map(|slice| slice.value()) {
        let mut ports = list(&slice["ports"]).iter().filter(|p| text(&p["name"]) == port_name);
        let Some(port) = ports.find_map(|p| u16::try_from(p["port"].as_u64()?).ok()) else { continue };
        for endpoint in list(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false) {
            let given = list(&endpoint["addresses"]).iter().filter_map(|a| text(a).parse().ok());
            addresses.extend(given.map(|address| SocketAddr::new(address, port)));
        }
    }
    addresses.retain(|address| forbidden_destination(address.ip()).is_none());
    if addresses.is_empty() {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return Err(Finding::new("MissingEndpoints", message));
    }
    Ok(addresses)
}

/// A JSON document of an aggregated server. Whoever can answer in its place can do no more than be taken for available, so
/// that the check verifies nothing; requests do.
async fn fetch(server: &Inner, spec: &Value, address: SocketAddr, path: &str) -> Result<Value, String> {
    tokio::select! {
        answer = exchange(server, spec, address, path) => answer,
        () = server.clock.sleep(TIMEOUT) => Err("context deadline exceeded".into()),
    }
}

async fn exchange(server: &Inner, spec: &Value, address: SocketAddr, path: &str) -> Result<Value, String> {
    let host = host(spec);
    let stream = tls::connect((&host, address.port()), Some(address), Trust::Anybody, server.front_proxy());
    let stream = stream.await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let stop = server.stop.clone().cancelled_owned();
    server.tasks.spawn(async move {
        tokio::select! {
            () = stop => {}
            // Its errors reach whoever reads the answer.
            _ = connection => {}
        }
    });
    let mut request = http::Request::get(path).header("host", host).header("accept", "application/json");
    for (name, value) in USER {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = answer.status();
    if !status.is_success() && !status.is_redirection() {
        return Err(format!("bad status from https://{address}{path}: {}", status.as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
    // A server that answers with something else is available all the same.
    Ok(parse_json(&body.to_bytes()).map(|parsed| parsed.value).unwrap_or_default())
}

/// The name that the certificate of an aggregated server has.
pub(super) fn host(spec: &Value) -> String {
    let service = &spec["service"];
    format!("{}.{}.svc", text(&service["name"]), text(&service["namespace"]))
}

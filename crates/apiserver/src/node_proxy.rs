//! Streams to Pods: logs, exec, attach and port-forward, handed on to the Pod's node.
//!
//! The node is spoken to in plain HTTP/1.1 over whatever stream the [`NodeDialer`] gives. Upgraded connections, to
//! WebSockets or to SPDY, are tunnelled byte by byte: the protocols inside are between client and node.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::auth::Identity;
use crate::content::{self, Body};
use crate::object::meta;
use crate::request::{ApiRequest, Query};
use crate::resource::Subresource;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::tunnel;

/// A connection to a node.
pub trait NodeStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> NodeStream for S {}

/// Opens connections to nodes.
#[async_trait]
pub trait NodeDialer: Send + Sync + 'static {
    /// A new connection to a node, on which it answers its API in HTTP/1.1.
    async fn dial(&self, node_name: &str) -> io::Result<Box<dyn NodeStream>>;
}

/// The dialer of a server whose cluster has no nodes.
#[derive(Clone, Copy, Debug)]
pub struct NoNodes;

#[async_trait]
impl NodeDialer for NoNodes {
    async fn dial(&self, node_name: &str) -> io::Result<Box<dyn NodeStream>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no node \"{node_name}\"")))
    }
}

/// Reads at most so much of a node's error.
const MAX_ERROR: usize = 64 << 10;
/// Protocols that connections can be upgraded to.
const UPGRADES: [&str; 2] = ["websocket", "SPDY/3.1"];
/// Headers by which a WebSocket, or the protocol of SPDY streams, is agreed on.
const HANDSHAKE: [&str; 6] = [
    "x-stream-protocol-version",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
];

impl Inner {
    pub(crate) async fn connect(
        &self,
        r: &ApiRequest,
        query: &Query,
        who: &Identity,
        parts: &mut Parts,
    ) -> Result<Response<Body>> {
        self.fresh().await?;
        let (query, warnings) = self.admit_connection(r, who, parts, query).await?;
        let pod = self.find(&r.resource, &r.namespace, &r.name)?;
        let pod = pod.value();
        let subresource = r.subresource.ok_or_else(Failure::method_not_allowed)?;
        let path = node_path(subresource, &pod, &query)?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Err(match subresource {
                // kubectl logs -f asks again until there is something.
                Subresource::Log => Failure::bad_request(format!(
                    "container \"{}\" in pod \"{}\" is waiting to start: no node has been assigned to it yet",
                    container(&pod, &query, "container").unwrap_or_default(),
                    r.name
                )),
                _ => Failure::bad_request(format!("pod {} does not have a host assigned", r.name)),
            });
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = if subresource == Subresource::Log { None } else { upgrade.zip(handshake(parts)) };
        if subresource != Subresource::Log && upgrade.is_none() {
            return Err(Failure::bad_request("Upgrade request required"));
        }
        let mut response = self.hand_on(node, &path, upgrade).await?;
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Has a node answer a request for a path of its API.
    pub(crate) async fn hand_on(
        &self,
        node: &str,
        path: &str,
        upgrade: Option<(OnUpgrade, http::HeaderMap)>,
    ) -> Result<Response<Body>> {
        let unreachable = |error: &dyn std::fmt::Display| {
            Failure::internal(format!("error dialing node \"{node}\": {error}"))
        };
        let stream = self.nodes.dial(node).await.map_err(|e| unreachable(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|e| unreachable(&e))?;
        let stop = self.stop.clone().cancelled_owned();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop => {}
                // Its errors reach whoever reads the answer.
                _ = connection.with_upgrades() => {}
            }
        });
        let mut request = http::Request::get(path).header(http::header::HOST, "node");
        if let (Some((_, headers)), Some(all)) = (&upgrade, request.headers_mut()) {
            all.extend(headers.clone());
        }
        let request = request.body(Empty::new()).map_err(Failure::internal)?;
        let mut answer = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return forward(answer).await;
        }
        let Some((client, _)) = upgrade else { return Err(unreachable(&"it switched protocols unasked")) };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for name in [UPGRADE, CONNECTION].into_iter().chain(HANDSHAKE.map(HeaderName::from_static)) {
            if let Some(value) = answer.headers().get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        self.tunnel(client, hyper::upgrade::on(&mut answer));
        Ok(response)
    }

    /// Passes bytes on between two connections once both have changed their protocol.
    pub(crate) fn tunnel(&self, client: OnUpgrade, server: OnUpgrade) {
        let stop = self.stop.clone().cancelled_owned();
        self.tasks.spawn(async move {
            let tunnel = async {
                let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
                tunnel::join(TokioIo::new(client), TokioIo::new(server)).await;
            };
            tokio::select! {
                () = stop => {}
                () = tunnel => {}
            }
        });
    }
}

/// A node's answer as ours: streams as they are, errors as a Status.
async fn forward(answer: Response<Incoming>) -> Result<Response<Body>> {
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        let text = match Limited::new(body, MAX_ERROR).collect().await {
            Ok(bytes) => String::from_utf8_lossy(&bytes.to_bytes()).trim().to_owned(),
            Err(_) => String::new(),
        };
        let code = parts.status.as_u16();
        return Err(match code {
            400 => Failure::bad_request(text),
            404 => Failure::new(404, "NotFound", text),
            _ => Failure::internal(text),
        });
    }
    let mut response = Response::new(Body::from_incoming(body));
    *response.status_mut() = parts.status;
    let kind = parts.headers.get(CONTENT_TYPE).cloned();
    response.headers_mut().insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("text/plain")));
    Ok(response)
}

/// The headers of a handshake, if the request is one.
fn handshake(parts: &Parts) -> Option<http::HeaderMap> {
    let upgrade = parts.headers.get(UPGRADE)?;
    let wanted = upgrade.to_str().ok()?;
    if !UPGRADES.iter().any(|known| wanted.eq_ignore_ascii_case(known)) {
        return None;
    }
    let mut headers = http::HeaderMap::new();
    headers.insert(UPGRADE, upgrade.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for name in HANDSHAKE {
        for value in parts.headers.get_all(name) {
            headers.append(HeaderName::from_static(name), value.clone());
        }
    }
    Some(headers)
}

/// The path and query of the node's API.
fn node_path(subresource: Subresource, pod: &Value, query: &Query) -> Result<String> {
    let (namespace, name) = (meta(pod, "namespace"), meta(pod, "name"));
    let path = |verb: &str| -> Result<String> {
        Ok(format!("/{verb}/{namespace}/{name}/{}", container(pod, query, "container")?))
    };
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut flags = |given: &[(&'static str, &'static str)]| {
        for (ours, theirs) in given {
            if query.is_true(ours) {
                pairs.push((*theirs, "1"));
            }
        }
    };
    let path = match subresource {
        Subresource::Log => {
            let names =
                ["follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "limitBytes", "previous"];
            pairs.extend(names.into_iter().filter_map(|n| Some((n, query.get(n)?))));
            path("containerLogs")?
        }
        Subresource::Exec => {
            flags(&[("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]);
            if query.all("command").next().is_none() {
                return Err(Failure::bad_request("you must specify at least one command for the container"));
            }
            pairs.extend(query.all("command").map(|c| ("command", c)));
            path("exec")?
        }
        Subresource::Attach => {
            flags(&[("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]);
            path("attach")?
        }
        Subresource::PortForward => {
            pairs.extend(query.all("ports").map(|p| ("port", p)));
            format!("/portForward/{namespace}/{name}")
        }
        _ => return Err(Failure::method_not_allowed()),
    };
    Ok(if pairs.is_empty() { path } else { format!("{path}?{}", Query::encode(pairs)) })
}

/// The container meant: the named one, the default by annotation, or the only one.
fn container(pod: &Value, query: &Query, parameter: &str) -> Result<String> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (own, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = meta(pod, "name");
    if let Some(wanted) = query.get(parameter) {
        if [&own, &init, &ephemeral].into_iter().flatten().any(|n| *n == wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(Failure::bad_request(format!("container {wanted} is not valid for pod {pod_name}")));
    }
    let default = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    match (own.as_slice(), default) {
        (_, Some(default)) if own.contains(&default) => Ok(default.to_owned()),
        ([only], _) => Ok((*only).to_owned()),
        _ => {
            let mut text = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                own.join(" ")
            );
            if !init.is_empty() {
                text += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            Err(Failure::bad_request(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_on_the_node() {
        let one =
            json!({"metadata": {"namespace": "d", "name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        let mut two = json!({
            "metadata": {"namespace": "d", "name": "p", "annotations": {}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
        });
        let check = |subresource, pod: &Value, query: &str, expect: &str| {
            let found = node_path(subresource, pod, &Query::parse(query)).unwrap_or_else(|f| f.to_string());
            assert_eq!(found, expect, "{query}");
        };
        check(
            Subresource::Log,
            &one,
            "follow=true&tailLines=5&x=y",
            "/containerLogs/d/p/c?follow=true&tailLines=5",
        );
        check(
            Subresource::Exec,
            &one,
            "command=sh&command=-c&stdout=true&tty=1&stdin=false",
            "/exec/d/p/c?output=1&tty=1&command=sh&command=-c",
        );
        check(
            Subresource::Exec,
            &one,
            "stdout=true",
            "you must specify at least one command for the container",
        );
        check(Subresource::PortForward, &one, "", "/portForward/d/p");
        check(
            Subresource::Log,
            &two,
            "",
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
        );
        check(Subresource::Log, &two, "container=i", "/containerLogs/d/p/i");
        check(Subresource::Log, &two, "container=z", "container z is not valid for pod p");
        two["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = "b".into();
        check(Subresource::Log, &two, "", "/containerLogs/d/p/b");
    }
}

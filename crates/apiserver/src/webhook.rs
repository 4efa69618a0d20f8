//! Calls of webhooks over HTTPS: where they are, and one request and its answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use yado_types::address::forbidden_destination;

use crate::edit::text;
use crate::resource;
use crate::schema;
use crate::server::Inner;
use crate::tls::{self, Trust};

/// Bytes that a response may always have: an object and its patch fit in them. One to a longer request, such as a list that is
/// to be converted, may have twice the bytes of the request.
const MAX_RESPONSE: usize = 4 << 20;

/// Why a webhook could not be asked, or answered with nothing that can be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CallError(pub(crate) String);

/// A webhook's address, as its configuration names it.
pub(crate) struct Endpoint {
    host: String,
    path: String,
    /// The address, where a Service leads to it; else the host is looked up.
    address: Option<SocketAddr>,
    port: u16,
    trust: Trust,
}

impl Endpoint {
    /// Reads a `WebhookClientConfig`; a Service is resolved to one of its endpoints.
    pub(crate) fn of(server: &Inner, config: &Value) -> Result<Self, CallError> {
        let fail = |why: String| CallError(why);
        let trust =
            Trust::bundle(text(&config["caBundle"])).map_err(|e| fail(format!("clientConfig.{e}")))?;
        let service = &config["service"];
        if service.is_object() {
            let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
            let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
            let services =
                resource::find("", "v1", "services").ok_or_else(|| fail("Services are not served".into()))?;
            let found = server.find(services, namespace, name).map_err(|e| fail(e.message))?;
            let address = services.strategy().proxy_address(server, &found.value(), &port.to_string());
            let address = address.map_err(|e| fail(e.message))?;
            if forbidden_destination(address.ip()).is_some() {
                return Err(fail(format!("address {address} is not that of a Pod and is not dialled")));
            }
            let path = match text(&service["path"]) {
                "" => "/".to_owned(),
                path => path.to_owned(),
            };
            return Ok(Self {
                host: format!("{name}.{namespace}.svc"),
                path,
                address: Some(address),
                port,
                trust,
            });
        }
        let url: http::Uri =
            text(&config["url"]).parse().map_err(|e| fail(format!("clientConfig.url: {e}")))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, path, address: None, port: url.port_u16().unwrap_or(443), trust })
    }

    /// Sends a review and reads the answer, within `timeout` in all.
    pub(crate) async fn call(
        self,
        server: &Inner,
        timeout: Duration,
        review: &Value,
    ) -> Result<Value, CallError> {
        let url = format!("https://{}:{}{}", self.host, self.port, self.path);
        tokio::select! {
            answer = self.exchange(server, review) => {
                answer.map_err(|e| CallError(format!("Post \"{url}?timeout={}s\": {e}", timeout.as_secs())))
            }
            () = server.clock.sleep(timeout) => Err(CallError(format!(
                "Post \"{url}?timeout={}s\": context deadline exceeded",
                timeout.as_secs()
            ))),
        }
    }

    async fn exchange(self, server: &Inner, review: &Value) -> Result<Value, CallError> {
        let fail = |e: &dyn std::fmt::Display| CallError(e.to_string());
        let Self { host, path, address, port, trust } = self;
        let stream = tls::connect((&host, port), address, trust, None);
        let stream = stream.await.map_err(|e| fail(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(&e))?;
        let stop = server.stop.clone().cancelled_owned();
        server.tasks.spawn(async move {
            tokio::select! {
                () = stop => {}
                // Its errors reach whoever reads the answer.
                _ = connection => {}
            }
        });
        let body = review.to_string();
        let limit = MAX_RESPONSE.max(2 * body.len());
        let request = http::Request::post(&path)
            .header("host", format!("{host}:{port}"))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| fail(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| fail(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map_err(|e| CallError(format!("its answer could not be read: {e}")))?.to_bytes();
        if !status.is_success() {
            let shown: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(CallError(format!("the server answered {status}: {shown}")));
        }
        schema::parse_json(&body)
            .map(|parsed| parsed.value)
            .map_err(|e| CallError(format!("its answer is no JSON: {e}")))
    }
}

//! Calls of webhooks over HTTPS: where they are, and one request and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use yado_types::address::forbidden_destination;

use crate::edit::text;
use crate::resource;
use crate::schema;
use crate::server::Inner;

/// Bytes of an answer. An object and its patch fit in it.
const MAX_ANSWER: usize = 4 << 20;

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
    roots: RootCertStore,
}

impl Endpoint {
    /// Reads a `WebhookClientConfig`; a Service is resolved to one of its endpoints.
    pub(crate) fn of(server: &Inner, config: &Value) -> Result<Self, CallError> {
        let fail = |why: String| CallError(why);
        let mut roots = RootCertStore::empty();
        let bundle = STANDARD.decode(text(&config["caBundle"])).unwrap_or_default();
        for certificate in CertificateDer::pem_slice_iter(&bundle) {
            let certificate = certificate.map_err(|e| fail(format!("caBundle: {e}")))?;
            roots.add(certificate).map_err(|e| fail(format!("caBundle: {e}")))?;
        }
        if roots.is_empty() {
            return Err(fail("clientConfig.caBundle has no certificate to verify the webhook with".into()));
        }
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
                roots,
            });
        }
        let url: http::Uri =
            text(&config["url"]).parse().map_err(|e| fail(format!("clientConfig.url: {e}")))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, path, address: None, port: url.port_u16().unwrap_or(443), roots })
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
        let stream = match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((self.host.as_str(), self.port)).await,
        };
        let stream = stream.map_err(|e| fail(&e))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| fail(&e))?
            .with_root_certificates(self.roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|e| fail(&e))?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| fail(&e))?;
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
        let request = http::Request::post(&self.path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(|e| fail(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| fail(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
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

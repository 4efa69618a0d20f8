//! A minimal client of the API: an HTTP/1.1 connection over TLS with the kubeconfig's client certificate. The benchmark
//! uses it rather than `kube`, whose own cost would limit the figures.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Timeout of everything that the benchmark waits for, which usually takes moments.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Address of the API server and the client's credentials.
#[derive(Clone)]
pub struct Access {
    address: String,
    connector: TlsConnector,
}

impl Access {
    /// Parses a kubeconfig as Yado writes it: one cluster and one user, with embedded certificates.
    pub fn read(kubeconfig: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
        let config: Value = serde_norway::from_str(&text)?;
        let at = |pointer: &str| {
            let found = config.pointer(pointer).and_then(Value::as_str);
            found.with_context(|| format!("{} has no {pointer}", kubeconfig.display()))
        };
        let pem = |pointer: &str| anyhow::Ok(STANDARD.decode(at(pointer)?)?);
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&pem("/clusters/0/cluster/certificate-authority-data")?)?)?;
        let certificate = CertificateDer::from_pem_slice(&pem("/users/0/user/client-certificate-data")?)?;
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")?)?;
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots);
        let tls = tls.with_client_auth_cert(vec![certificate], key)?;
        let address = at("/clusters/0/cluster/server")?.trim_start_matches("https://").to_owned();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(tls)) })
    }

    /// Opens a new connection.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = self.connector.connect(name, stream).await?;
        let connection = Connection::over(stream, &self.address).await?;
        Ok(Connection { access: Some(self.clone()), ..connection })
    }
}

/// A connection, over which requests are sent one after the other.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    /// Where a connection that was closed while it idled is made anew; the server may do that.
    access: Option<Access>,
    /// What moves the bytes; it ends with the connection.
    _driver: JoinSet<()>,
}

impl Connection {
    /// Starts HTTP/1.1 over an open stream.
    pub async fn over<S>(stream: S, host: &str) -> Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How a connection ends is told to whoever asks over it.
            let _ = connection.await;
        });
        Ok(Self { sender, host: host.to_owned(), access: None, _driver: driver })
    }

    /// Sends a request and returns the head of the response.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let request =
            Request::builder().method(method).uri(path).header(HOST, &self.host).header(CONTENT_TYPE, kind);
        if self.sender.ready().await.is_err()
            && let Some(access) = &self.access
        {
            *self = access.connect().await?;
        }
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request and returns the body of the response. Fails unless its status is a success.
    pub async fn bytes(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let response = self.send(method.clone(), path, body).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes)
    }

    pub async fn get(&mut self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.bytes(Method::GET, path, Bytes::new()).await?)?)
    }

    pub async fn post(&mut self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?.into();
        Ok(serde_json::from_slice(&self.bytes(Method::POST, path, body).await?)?)
    }

    pub async fn merge(&mut self, path: &str, patch: &Value) -> Result<Value> {
        let body = serde_json::to_vec(patch)?.into();
        Ok(serde_json::from_slice(&self.bytes(Method::PATCH, path, body).await?)?)
    }

    pub async fn delete(&mut self, path: &str) -> Result<()> {
        self.bytes(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    /// Watches a collection from now on, for which this connection is then reserved.
    pub async fn watch(mut self, collection: &str) -> Result<Watch> {
        let list = self.get(collection).await?;
        let revision =
            list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("0").to_owned();
        let joint = if collection.contains('?') { '&' } else { '?' };
        let path = format!("{collection}{joint}watch=true&resourceVersion={revision}");
        let response = self.send(Method::GET, &path, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        Ok(Watch { _connection: self, body: response.into_body(), read: Vec::new() })
    }
}

/// The watch of a collection.
pub struct Watch {
    _connection: Connection,
    body: Incoming,
    read: Vec<u8>,
}

impl Watch {
    /// Waits for an event for which `wanted` is true, given its type and object.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&str, &Value) -> bool) -> Result<Value> {
        let found = async {
            loop {
                let mut event = self.next().await?;
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                if kind == "ERROR" {
                    bail!("the watch ended: {event}");
                }
                if wanted(&kind, &event["object"]) {
                    return Ok(event["object"].take());
                }
            }
        };
        tokio::time::timeout(TIMEOUT, found).await.map_err(|_| anyhow!("{what}: not within {TIMEOUT:?}"))?
    }

    async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }
}

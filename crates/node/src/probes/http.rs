//! One HTTP request of a probe or a hook.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::handler::plain;

/// A body longer than this is not read to its end; Kubernetes' limit.
const BODY_LIMIT: usize = 10 << 10;

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub tls: bool,
    /// The Pod's address where absent.
    pub host: Option<String>,
    pub port: u16,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// Well where the answer's status is from 200 to 399.
pub(crate) async fn get(request: &Request, address: IpAddr) -> Result<(), String> {
    let host = request.host.clone().unwrap_or_else(|| address.to_string());
    let scheme = if request.tls { "https" } else { "http" };
    let literal = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let path =
        if request.path.starts_with('/') { request.path.clone() } else { format!("/{}", request.path) };
    let url = format!("{scheme}://{literal}:{}{path}", request.port);
    let failed = |what: String| format!("Get \"{url}\": {what}");
    let tcp = TcpStream::connect((host.as_str(), request.port)).await;
    let tcp =
        tcp.map_err(|e| failed(format!("dial tcp {literal}:{}: connect: {}", request.port, plain(&e))))?;
    let status = if request.tls {
        let name = ServerName::try_from(host.clone()).map_err(|e| failed(e.to_string()))?;
        let tls = TlsConnector::from(unverified()).connect(name, tcp).await.map_err(|e| failed(plain(&e)))?;
        exchange(request, &path, &format!("{literal}:{}", request.port), tls).await
    } else {
        exchange(request, &path, &format!("{literal}:{}", request.port), tcp).await
    };
    match status.map_err(failed)? {
        200..=399 => Ok(()),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}

async fn exchange(
    request: &Request,
    path: &str,
    authority: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<u16, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let mut builder = http::Request::get(path).header("connection", "close");
    let own = |name: &str| request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    for (name, value) in [("host", authority), ("user-agent", "kube-probe/1.36"), ("accept", "*/*")] {
        if !own(name) {
            builder = builder.header(name, value);
        }
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let message = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(message).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        // Read, so that the server does not see its answer cut off; too long a body is no failure.
        let _ = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        Ok(status)
    };
    // The connection ends with this future: nothing of it outlives the probe.
    tokio::pin!(answer);
    tokio::select! {
        status = &mut answer => status,
        closed = connection => match closed {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Probes check that a server answers, not who it is; Kubernetes' probes do not verify either.
fn unverified() -> Arc<ClientConfig> {
    static CONFIG: std::sync::OnceLock<Arc<ClientConfig>> = std::sync::OnceLock::new();
    let make = || {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        // Ring offers the suites of both protocol versions, which is the only thing that can fail here.
        let builder = builder.expect("ring supports the default TLS versions");
        let verifier = Arc::new(AnyServer(provider));
        Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    };
    CONFIG.get_or_init(make).clone()
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

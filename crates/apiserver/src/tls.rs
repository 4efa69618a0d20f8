//! TLS to other servers: webhooks and aggregated API servers.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TlsError(pub(crate) String);

impl TlsError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// How a server is told from others.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// By a certificate of one of these authorities.
    Roots(RootCertStore),
    /// Not at all.
    Anybody,
}

impl Trust {
    /// The authorities of a `caBundle`: PEM in base64.
    pub(crate) fn bundle(encoded: &str) -> Result<Self, TlsError> {
        let fail = |e: &dyn std::fmt::Display| TlsError(format!("caBundle: {e}"));
        let mut roots = RootCertStore::empty();
        let bundle = STANDARD.decode(encoded).unwrap_or_default();
        for certificate in CertificateDer::pem_slice_iter(&bundle) {
            roots.add(certificate.map_err(|e| fail(&e))?).map_err(|e| fail(&e))?;
        }
        if roots.is_empty() {
            return Err(TlsError("caBundle has no certificate to verify the server with".into()));
        }
        Ok(Self::Roots(roots))
    }
}

/// A certificate of this server, in PEM, with its key.
pub(crate) type Client<'a> = (&'a str, &'a str);

/// Connects to a server that has a certificate for `host`; its address is looked up unless it is given.
///
/// # Errors
/// Where it cannot be reached or is not trusted.
pub(crate) async fn connect(
    (host, port): (&str, u16),
    address: Option<SocketAddr>,
    trust: Trust,
    client: Option<Client<'_>>,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let stream = match address {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect((host, port)).await,
    };
    let stream = stream.map_err(TlsError::of)?;
    let name = ServerName::try_from(host.to_owned()).map_err(TlsError::of)?;
    let config = Arc::new(config(trust, client)?);
    TlsConnector::from(config).connect(name, stream).await.map_err(TlsError::of)
}

fn config(trust: Trust, client: Option<Client<'_>>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::of)?;
    let builder = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(roots),
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
        }
    };
    let Some((certificate, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(TlsError::of)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(TlsError::of)?;
    builder.with_client_auth_cert(vec![certificate], key).map_err(TlsError::of)
}

/// Takes any certificate of a server that has its key, as `insecureSkipTLSVerify` asks.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
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

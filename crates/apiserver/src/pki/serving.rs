//! The certificate that the server shows, which can be replaced while it serves.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Pair, PkiError, Result};

/// The certificate of connections that begin from now on.
pub(super) struct Serving(RwLock<Arc<CertifiedKey>>);

impl Serving {
    /// Shows this certificate.
    pub(super) fn new(pair: &Pair) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(RwLock::new(certified(pair)?))))
    }

    /// Shows another one on new connections.
    pub(super) fn replace(&self, pair: &Pair) -> Result<()> {
        *self.0.write() = certified(pair)?;
        Ok(())
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

fn certified(pair: &Pair) -> Result<Arc<CertifiedKey>> {
    let tls = |e: &dyn fmt::Display| PkiError::Tls(e.to_string());
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(|e| tls(&e))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|e| tls(&e))?;
    let key = any_supported_type(&key).map_err(|e| tls(&e))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::pki::{Pki, ServerNames};

    /// The certificate that a new connection is shown.
    async fn shown(pki: &Pki, config: Arc<rustls::ServerConfig>) -> Vec<u8> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(pki.authority().as_bytes()).expect("PEM");
        roots.add(authority).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(client));
        let (server, client) =
            tokio::join!(TlsAcceptor::from(config).accept(far), connector.connect(name, near));
        drop(server.expect("accepted"));
        let (_, session) = client.as_ref().expect("connected").get_ref();
        session.peer_certificates().expect("certificates")[0].to_vec()
    }

    #[tokio::test]
    async fn certificates_that_end_soon_are_replaced_while_the_server_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        // The client of the test looks at the machine's clock.
        let now = jiff::Timestamp::now();
        let start = now - jiff::SignedDuration::from_hours(24 * 640);
        let pki =
            Pki::load_or_create(directory.path(), &ServerNames::default(), start).expect("certificates");
        let config = pki.server_config().expect("TLS");
        assert!(pki.renew(start).expect("certificates").is_none(), "none is due");
        let first = shown(&pki, config.clone()).await;
        let renewed = pki.renew(now).expect("certificates").expect("new ones");
        let second = shown(&pki, config).await;
        assert!(first != second && pki.authority() == renewed.authority());
        assert!(pki.kubeconfig("https://a") != renewed.kubeconfig("https://a"));
        assert!(renewed.renew(now).expect("certificates").is_none());
    }
}

//! The cluster's certificate authority, as the certificate controller asks it.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use yado_apiserver::pki::{CertificateRequest, Pki, Signer};
use yado_controllers::certificate::Authority;
use yado_types::clock::Clock;

/// Issues certificates with the key of the data directory.
pub struct LocalAuthority {
    pki: Pki,
    clock: Arc<dyn Clock>,
}

impl LocalAuthority {
    /// The authority of these certificates.
    pub fn new(pki: Pki, clock: Arc<dyn Clock>) -> Self {
        Self { pki, clock }
    }
}

impl fmt::Debug for LocalAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAuthority").finish_non_exhaustive()
    }
}

impl Authority for LocalAuthority {
    fn node_of(&self, spec: &CertificateSigningRequestSpec) -> Option<String> {
        let signer = Signer::find(&spec.signer_name).filter(|signer| *signer == Signer::KubeletClient)?;
        let request = CertificateRequest::parse(&spec.request.0).ok()?;
        signer.check(&request, spec.usages.as_deref().unwrap_or_default()).ok()?;
        Some(request.common_name)
    }

    fn sign(&self, spec: &CertificateSigningRequestSpec) -> Option<Result<String, String>> {
        let signer = Signer::find(&spec.signer_name)?;
        let usages = spec.usages.as_deref().unwrap_or_default();
        let seconds = spec.expiration_seconds.map(i64::from);
        Some(CertificateRequest::parse(&spec.request.0).and_then(|request| {
            signer.check(&request, usages)?;
            self.pki.issue(&request, usages, seconds, self.clock.now())
        }))
    }
}

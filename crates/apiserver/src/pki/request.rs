//! Certificate signing requests (PKCS #10, RFC 2986): what they ask for, and what each signer issues.

use std::collections::BTreeSet;
use std::fmt;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, GeneralName};

use crate::auth::NODES;

/// Prefix of the names of nodes' users.
const NODE_USER: &str = "system:node:";

/// A request whose signature is valid: its sender has the private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject, as it was encoded.
    pub(super) subject: Vec<u8>,
    /// The alternative names of the subject, as the extension's value was encoded.
    pub(super) alternative_names: Option<Vec<u8>>,
    /// The public key: SubjectPublicKeyInfo.
    pub(super) public_key: Vec<u8>,
    /// The common name of the subject, which is the user of a client certificate; empty where it has none.
    pub common_name: String,
    /// The organisations of the subject, which are the groups of a client certificate.
    pub organizations: Vec<String>,
    /// The kinds of its alternative names.
    kinds: BTreeSet<NameKind>,
}

/// A kind of alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NameKind {
    Dns,
    Email,
    Ip,
    Uri,
    Other,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "DNS",
            Self::Email => "Email",
            Self::Ip => "IP",
            Self::Uri => "URI",
            Self::Other => "Other",
        })
    }
}

impl CertificateRequest {
    /// Reads a request in PEM.
    ///
    /// # Errors
    /// Where it is not one, or its signature is not that of its key.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| format!("the certificate request cannot be parsed: {error}"))?;
        if !rest.is_empty() {
            return Err("the certificate request has trailing data".into());
        }
        request.verify_signature().map_err(|error| format!("the signature is invalid: {error}"))?;
        let info = &request.certification_request_info;
        let text = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let names = info.subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        let organizations = info.subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        let mut parsed = Self {
            subject: info.subject.as_raw().to_vec(),
            alternative_names: None,
            public_key: info.subject_pki.raw.to_vec(),
            common_name: text(names).into_iter().next().unwrap_or_default(),
            organizations: text(organizations),
            kinds: BTreeSet::new(),
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else { continue };
            for extension in asked.extensions.iter().filter(|e| e.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    return Err("the subject alternative names cannot be parsed".into());
                };
                parsed.alternative_names = Some(extension.value.to_vec());
                parsed.kinds = names.general_names.iter().map(kind_of).collect();
            }
        }
        Ok(parsed)
    }

    /// Whether the subject is a node's, and what is wrong with it otherwise.
    fn check_node(&self) -> Result<(), String> {
        match () {
            () if self.organizations != [NODES] => Err("subject organization is not system:nodes".into()),
            () if !self.common_name.starts_with(NODE_USER) => {
                Err("subject common name does not begin with system:node:".into())
            }
            () => Ok(()),
        }
    }

    fn refuse_names(&self, refused: &[NameKind]) -> Result<(), String> {
        match self.kinds.iter().find(|kind| refused.contains(kind)) {
            Some(kind) => Err(format!("{kind} subjectAltNames are not allowed")),
            None => Ok(()),
        }
    }
}

fn kind_of(name: &GeneralName<'_>) -> NameKind {
    match name {
        GeneralName::DNSName(_) => NameKind::Dns,
        GeneralName::RFC822Name(_) => NameKind::Email,
        GeneralName::IPAddress(_) => NameKind::Ip,
        GeneralName::URI(_) => NameKind::Uri,
        _ => NameKind::Other,
    }
}

/// The signers of Kubernetes, which this cluster's authority is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Client certificates of users.
    Client,
    /// Client certificates of nodes.
    KubeletClient,
    /// Certificates by which nodes serve.
    KubeletServing,
}

impl Signer {
    /// Every signer.
    pub const ALL: [Self; 3] = [Self::Client, Self::KubeletClient, Self::KubeletServing];

    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client",
            Self::KubeletClient => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::KubeletServing => "kubernetes.io/kubelet-serving",
        }
    }

    /// The signer of this name; `None` for those of others.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signer| signer.name() == name)
    }

    /// Checks a request by the rules that Kubernetes documents for the signer.
    ///
    /// # Errors
    /// What the signer does not issue.
    pub fn check(self, request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
        use NameKind::{Dns, Email, Ip, Other, Uri};
        match self {
            Self::Client => {
                let optional = ["digital signature", "key encipherment"];
                let other = usages.iter().find(|u| *u != "client auth" && !optional.contains(&u.as_str()));
                match other {
                    Some(usage) => Err(format!("invalid usage for client certificate: {usage}")),
                    None if usages.iter().any(|usage| usage == "client auth") => Ok(()),
                    None => Err("missing required usage for client certificate: client auth".into()),
                }
            }
            Self::KubeletClient => {
                request.check_node()?;
                request.refuse_names(&[Dns, Email, Ip, Uri, Other])?;
                check_usages(usages, "client auth")
            }
            Self::KubeletServing => {
                request.check_node()?;
                if !request.kinds.contains(&Dns) && !request.kinds.contains(&Ip) {
                    return Err("DNS or IP subjectAltName is required".into());
                }
                request.refuse_names(&[Email, Uri, Other])?;
                check_usages(usages, "server auth")
            }
        }
    }
}

/// The usages of a node's certificate; keys other than RSA encipher nothing.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let required = BTreeSet::from(["digital signature", purpose]);
    let mut with_rsa = required.clone();
    with_rsa.insert("key encipherment");
    match given == required || given == with_rsa {
        true => Ok(()),
        false => {
            let all: Vec<&str> = with_rsa.into_iter().collect();
            Err(format!("usages did not match [{}]", all.join(" ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn request(common_name: &str, organization: &str, names: Vec<SanType>) -> CertificateRequest {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        parameters.distinguished_name.push(DnType::OrganizationName, organization);
        parameters.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        let pem = parameters.serialize_request(&key).expect("a request").pem().expect("PEM");
        CertificateRequest::parse(pem.as_bytes()).expect("a request")
    }

    #[test]
    fn each_signer_issues_what_kubernetes_documents() {
        let dns = || SanType::DnsName("a.example.com".try_into().expect("a name"));
        let uri = || SanType::URI("spiffe://x".try_into().expect("a URI"));
        let user = request("jane", "dev", vec![]);
        let node = request("system:node:n", "system:nodes", vec![]);
        let serving =
            request("system:node:n", "system:nodes", vec![dns(), SanType::IpAddress([10, 0, 0, 1].into())]);
        let with_uri = request("system:node:n", "system:nodes", vec![dns(), uri()]);
        let stranger = request("n", "system:nodes", vec![dns()]);
        for (signer, request, usages, expect) in [
            (Signer::Client, &user, "client auth", ""),
            (Signer::Client, &user, "client auth,digital signature,key encipherment", ""),
            (
                Signer::Client,
                &user,
                "digital signature",
                "missing required usage for client certificate: client auth",
            ),
            (
                Signer::Client,
                &user,
                "client auth,server auth",
                "invalid usage for client certificate: server auth",
            ),
            (Signer::KubeletClient, &node, "client auth,digital signature", ""),
            (Signer::KubeletClient, &node, "client auth,digital signature,key encipherment", ""),
            (
                Signer::KubeletClient,
                &user,
                "client auth,digital signature",
                "subject organization is not system:nodes",
            ),
            (
                Signer::KubeletClient,
                &serving,
                "client auth,digital signature",
                "DNS subjectAltNames are not allowed",
            ),
            (
                Signer::KubeletClient,
                &node,
                "client auth",
                "usages did not match [client auth digital signature key encipherment]",
            ),
            (Signer::KubeletServing, &serving, "server auth,digital signature", ""),
            (
                Signer::KubeletServing,
                &node,
                "server auth,digital signature",
                "DNS or IP subjectAltName is required",
            ),
            (
                Signer::KubeletServing,
                &with_uri,
                "server auth,digital signature",
                "URI subjectAltNames are not allowed",
            ),
            (
                Signer::KubeletServing,
                &stranger,
                "server auth,digital signature",
                "subject common name does not begin with system:node:",
            ),
        ] {
            let usages: Vec<String> = usages.split(',').map(str::to_owned).collect();
            let found = signer.check(request, &usages).err().unwrap_or_default();
            assert_eq!(found, expect, "{signer:?} {usages:?}");
        }
    }

    #[test]
    fn requests_are_read_whole_or_refused() {
        let key = KeyPair::generate().expect("a key");
        let signed = CertificateParams::default().serialize_request(&key).expect("a request");
        let mut forged = signed.der().to_vec();
        *forged.last_mut().expect("a signature") ^= 1;
        let pem = |der: &[u8]| pem_block("CERTIFICATE REQUEST", der);
        let whole = signed.der().to_vec();
        let trailing = [&whole[..], &[0]].concat();
        for (pem, expect) in [
            (pem(&whole), ""),
            (pem(&forged), "the signature is invalid"),
            (pem(&trailing), "the certificate request has trailing data"),
            (pem(&whole[..40]), "the certificate request cannot be parsed"),
            (pem_block("CERTIFICATE", &whole), "PEM block type must be CERTIFICATE REQUEST"),
            (String::new(), "PEM block type must be CERTIFICATE REQUEST"),
        ] {
            let error = CertificateRequest::parse(pem.as_bytes()).err().unwrap_or_default();
            assert!(
                error.starts_with(expect) && error.is_empty() == expect.is_empty(),
                "{error:?}: {expect}"
            );
        }
    }

    fn pem_block(label: &str, der: &[u8]) -> String {
        super::super::issue::pem_block(label, der)
    }
}

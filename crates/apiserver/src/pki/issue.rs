//! Issues certificates for signing requests.
//!
//! The subject and its alternative names are copied as the request has them, which rcgen cannot do: its names hold each
//! attribute once, and a user may be in several groups. So rcgen makes the certificate without a subject, and what is to be
//! signed is put together anew.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SigningKey, SubjectPublicKeyInfo,
};
use x509_parser::prelude::ASN1Time;

use super::request::CertificateRequest;

/// How long certificates last whose request asks for no less: the default of Kubernetes.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365);
/// The shortest lifetime.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);
/// Certificates are valid from so long ago, for clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// A certificate with a shorter lifetime gets all of it from now on.
const SHORT_LIVED: SignedDuration = SignedDuration::from_hours(8);
/// Object identifier of the alternative names of the subject.
const ALTERNATIVE_NAMES: [u64; 4] = [2, 5, 29, 17];
/// The place of the subject among the fields that are signed, after version, serial number, algorithm, issuer and validity.
const SUBJECT: usize = 5;
/// The tag of a sequence.
const SEQUENCE: u8 = 0x30;
/// The tag of a bit string.
const BIT_STRING: u8 = 0x03;
/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// What a certificate is issued for.
pub(super) struct Order<'a> {
    pub(super) request: &'a CertificateRequest,
    /// Key usages by Kubernetes' names.
    pub(super) usages: &'a [String],
    /// Seconds for which it is to be valid, where the request says.
    pub(super) seconds: Option<i64>,
    pub(super) now: Timestamp,
}

/// The use of a key, by Kubernetes' name for it.
enum Usage {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

/// Every key usage by its name in requests.
pub const USAGES: [&str; 23] = [
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];

fn usage(name: &str) -> Option<Usage> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Key;
    let other = |oid: &[u64]| Usage::Extended(Extended::Other(oid.to_vec()));
    Some(match name {
        "signing" | "digital signature" => Usage::Key(Key::DigitalSignature),
        "content commitment" => Usage::Key(Key::ContentCommitment),
        "key encipherment" => Usage::Key(Key::KeyEncipherment),
        "key agreement" => Usage::Key(Key::KeyAgreement),
        "data encipherment" => Usage::Key(Key::DataEncipherment),
        "cert sign" => Usage::Key(Key::KeyCertSign),
        "crl sign" => Usage::Key(Key::CrlSign),
        "encipher only" => Usage::Key(Key::EncipherOnly),
        "decipher only" => Usage::Key(Key::DecipherOnly),
        "any" => Usage::Extended(Extended::Any),
        "server auth" => Usage::Extended(Extended::ServerAuth),
        "client auth" => Usage::Extended(Extended::ClientAuth),
        "code signing" => Usage::Extended(Extended::CodeSigning),
        "email protection" | "s/mime" => Usage::Extended(Extended::EmailProtection),
        "ipsec end system" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 5]),
        "ipsec tunnel" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 6]),
        "ipsec user" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 7]),
        "timestamping" => Usage::Extended(Extended::TimeStamping),
        "ocsp signing" => Usage::Extended(Extended::OcspSigning),
        "microsoft sgc" => other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        "netscape sgc" => other(&[2, 16, 840, 1, 113_730, 4, 1]),
        _ => return None,
    })
}

/// Issues a certificate, in PEM, that ends no later than `authority_end`.
///
/// # Errors
/// Where a usage is unknown or the key is of a kind that cannot be certified.
pub(super) fn issue(
    issuer: &Issuer<'_, KeyPair>,
    authority_end: Timestamp,
    order: &Order<'_>,
) -> Result<String, String> {
    let failed = |error: rcgen::Error| format!("the certificate cannot be issued: {error}");
    let parameters = parameters(authority_end, order)?;
    let key = SubjectPublicKeyInfo::from_der(&order.request.public_key).map_err(failed)?;
    let certificate = parameters.signed_by(&key, issuer).map_err(failed)?;
    let der = with_subject(certificate.der(), &order.request.subject, issuer.key())?;
    Ok(pem_block("CERTIFICATE", &der))
}

fn parameters(authority_end: Timestamp, order: &Order<'_>) -> Result<CertificateParams, String> {
    let (start, end) = validity(order.seconds, order.now, authority_end);
    let at = |time: Timestamp| {
        let time = ASN1Time::from_timestamp(time.as_second());
        time.map(|time| time.to_datetime()).map_err(|error| format!("the validity is out of range: {error}"))
    };
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.not_before = at(start)?;
    parameters.not_after = at(end)?;
    parameters.use_authority_key_identifier_extension = true;
    for name in order.usages {
        match usage(name) {
            Some(Usage::Key(usage)) if !parameters.key_usages.contains(&usage) => {
                parameters.key_usages.push(usage);
            }
            Some(Usage::Extended(usage)) if !parameters.extended_key_usages.contains(&usage) => {
                parameters.extended_key_usages.push(usage);
            }
            Some(_) => {}
            None => return Err(format!("unrecognized key usage {name:?}")),
        }
    }
    if let Some(names) = &order.request.alternative_names {
        let extension = CustomExtension::from_oid_content(&ALTERNATIVE_NAMES, names.clone());
        parameters.custom_extensions.push(extension);
    }
    Ok(parameters)
}

/// The times between which a certificate is valid.
fn validity(seconds: Option<i64>, now: Timestamp, authority_end: Timestamp) -> (Timestamp, Timestamp) {
    let lifetime = seconds.map_or(LIFETIME, |s| SignedDuration::from_secs(s).clamp(SHORTEST, LIFETIME));
    let end = if lifetime < SHORT_LIVED { now + lifetime } else { now + lifetime - BACKDATE };
    (now - BACKDATE, end.min(authority_end))
}

/// A certificate with another subject, signed anew.
fn with_subject(certificate: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, String> {
    let damaged = || "the certificate cannot be issued: its encoding is damaged".to_owned();
    let parts = elements(certificate).ok_or_else(damaged)?;
    let [signed, algorithm, _] = parts[..] else { return Err(damaged()) };
    let mut fields = elements(signed).ok_or_else(damaged)?;
    *fields.get_mut(SUBJECT).ok_or_else(damaged)? = subject;
    let signed = sequence(&fields);
    let signature =
        key.sign(&signed).map_err(|error| format!("the certificate cannot be issued: {error}"))?;
    // The first byte of a bit string is the number of bits that the last one lacks.
    Ok(sequence(&[&signed, algorithm, &element(BIT_STRING, &[&[0], &signature])]))
}

/// The elements within an element of DER, each with its tag and length.
fn elements(der: &[u8]) -> Option<Vec<&[u8]>> {
    let (start, _) = header(der)?;
    let (mut rest, mut found) = (&der[start..], Vec::new());
    while !rest.is_empty() {
        let (start, length) = header(rest)?;
        let (element, after) = rest.split_at_checked(start + length)?;
        found.push(element);
        rest = after;
    }
    Some(found)
}

/// The bytes that tag and length of an element take, and the length of its content.
fn header(der: &[u8]) -> Option<(usize, usize)> {
    match *der.get(1)? {
        short if short < 0x80 => Some((2, usize::from(short))),
        long => {
            let bytes = der.get(2..2 + usize::from(long & 0x7f))?;
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            Some((2 + bytes.len(), length))
        }
    }
}

/// A SEQUENCE of encoded elements.
fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// An element of DER (X.690) with this tag and content.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skipped = bytes.iter().take_while(|byte| **byte == 0).count();
        der.push(0x80 | (bytes.len() - skipped) as u8);
        der.extend(&bytes[skipped..]);
    }
    parts.iter().for_each(|part| der.extend(*part));
    der
}

/// A block of PEM (RFC 7468).
pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(PEM_LINE) {
        block.extend(line.iter().map(|byte| char::from(*byte)));
        block.push('\n');
    }
    block.push_str(&format!("-----END {label}-----\n"));
    block
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::auth::Identity;
    use crate::pki::{Pki, ServerNames};

    #[test]
    fn validity_is_kubernetes_own() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let end = "2026-12-01T00:00:00Z".parse().expect("a time");
        for (seconds, expect) in [
            (Some(600), "2025-12-31T23:55:00Z 2026-01-01T00:10:00Z"),
            (Some(1), "2025-12-31T23:55:00Z 2026-01-01T00:10:00Z"),
            (Some(8 * 3600), "2025-12-31T23:55:00Z 2026-01-01T07:55:00Z"),
            (Some(i64::from(i32::MAX)), "2025-12-31T23:55:00Z 2026-12-01T00:00:00Z"),
            (None, "2025-12-31T23:55:00Z 2026-12-01T00:00:00Z"),
        ] {
            let (from, to) = validity(seconds, now, end);
            assert_eq!(format!("{from} {to}"), expect, "{seconds:?}");
        }
    }

    #[test]
    fn certificates_have_the_subject_and_the_names_of_their_request() {
        let directory = tempfile::tempdir().expect("a directory");
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let pki = Pki::load_or_create(directory.path(), &ServerNames::default(), now).expect("certificates");
        let mut parameters = CertificateParams::new(["n.example.com".to_owned()]).expect("a name");
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "jane");
        parameters.distinguished_name.push(DnType::OrganizationName, "dev");
        // A second organisation, which rcgen holds under its object identifier.
        parameters.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "ops");
        let key = KeyPair::generate().expect("a key");
        let request = parameters.serialize_request(&key).expect("a request").pem().expect("PEM");
        let request = CertificateRequest::parse(request.as_bytes()).expect("a request");
        let usages = ["client auth", "digital signature"].map(str::to_owned);
        let issued = pki.issue(&request, &usages, Some(3600), now).expect("a certificate");

        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&pem.contents).expect("a certificate");
        assert_eq!(Identity::of_certificate(&pem.contents), Some(Identity::new("jane", ["dev", "ops"])));
        let (_, authority) = x509_parser::pem::parse_x509_pem(pki.authority().as_bytes()).expect("PEM");
        let (_, authority) = X509Certificate::from_der(&authority.contents).expect("a certificate");
        certificate.verify_signature(Some(authority.public_key())).expect("a signature of the authority");
        assert_eq!(certificate.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
        let names = certificate.subject_alternative_name().expect("an extension").expect("names");
        assert_eq!(names.value.general_names.len(), 1);
        assert!(!certificate.is_ca());
        let unknown = pki.issue(&request, &["flying".to_owned()], None, now);
        assert_eq!(unknown, Err("unrecognized key usage \"flying\"".to_owned()));
    }

    #[test]
    fn every_usage_has_a_meaning() {
        assert!(USAGES.iter().all(|name| usage(name).is_some()));
    }
}

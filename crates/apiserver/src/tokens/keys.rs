//! The keys that sign and verify tokens: ECDSA on the curve P-256 (`ES256` of RFC 7518).
//!
//! ```text
//! PKI/sa.key      signs, and verifies what it signed
//! PKI/sa-*.key    verify what they signed before they were retired
//! ```
//!
//! A key is rotated by renaming `sa.key` to a name such as `sa-2026.key`: the next start makes a new one, and tokens of
//! the old one are accepted for as long as its file is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::pki::write_private;

/// The file of the key that signs.
const SIGNING: &str = "sa.key";
/// What names of retired keys' files begin with.
const RETIRED: &str = "sa-";
/// The signature algorithm, as headers name it.
pub(crate) const ALGORITHM: &str = "ES256";
/// Bytes of a coordinate of the curve.
const COORDINATE: usize = 32;

/// Why keys cannot be read or created.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or the directory cannot be read or written.
    #[error("cannot use {}: {source}; check that it may be read and written", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file holds something other than a private key in PEM (PKCS #8) on the curve P-256.
    #[error("{} is damaged: {reason}; remove it to make a new key (tokens that it signed become invalid)", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A new key cannot be made.
    #[error("cannot make a key to sign tokens with: {0}")]
    Make(String),
}

/// The key that signs tokens, and all keys whose tokens are accepted.
pub struct Keys {
    signing: EcdsaKeyPair,
    random: SystemRandom,
    /// The signing key's first.
    verifying: Vec<PublicKey>,
}

struct PublicKey {
    /// Names the key in headers of tokens: the digest of its SubjectPublicKeyInfo, as in Kubernetes.
    id: String,
    /// The point of the curve: 4, x, y.
    point: Vec<u8>,
}

/// The protected header of a signed token.
#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

impl Keys {
    /// Reads the keys in `directory`, and makes the one that signs where it is missing.
    ///
    /// # Errors
    /// Where files cannot be read or written, or hold something else.
    pub fn load_or_create(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(SIGNING);
        let pem = match fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = make()?.serialize_pem();
                write_private(&path, &pem).map_err(|source| KeyError::File { path: path.clone(), source })?;
                pem
            }
            Err(source) => return Err(KeyError::File { path, source }),
        };
        let mut keys = Self::of(&read(&pem, &path)?)?;
        for path in retired(directory)? {
            let pem =
                fs::read_to_string(&path).map_err(|source| KeyError::File { path: path.clone(), source })?;
            keys.verifying.push(public(&read(&pem, &path)?));
        }
        Ok(keys)
    }

    /// A new key that is kept in memory only.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn ephemeral() -> Result<Self, KeyError> {
        Self::of(&make()?)
    }

    fn of(pair: &KeyPair) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let signing =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
                .map_err(|e| KeyError::Make(e.to_string()))?;
        debug_assert_eq!(signing.public_key().as_ref().len(), 1 + 2 * COORDINATE);
        Ok(Self { signing, random, verifying: vec![public(pair)] })
    }

    /// A signed token with these claims: a JSON Web Signature in its compact form (RFC 7515).
    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let header = Header { alg: ALGORITHM.into(), kid: self.verifying.first().map(|key| key.id.clone()) };
        let part = |json: Result<Vec<u8>, serde_json::Error>| {
            json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|e| KeyError::Make(e.to_string()))
        };
        let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(claims))?);
        let signature =
            self.signing.sign(&self.random, signed.as_bytes()).map_err(|e| KeyError::Make(e.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whether the signature of a token is one of these keys'. The header's key id only says which key to begin with.
    pub(super) fn verify(&self, token: &str) -> bool {
        let check = || {
            let (signed, signature) = token.rsplit_once('.')?;
            let (header, _) = signed.split_once('.')?;
            let header: Header = decode(header)?;
            let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
            let is_valid = |key: &&PublicKey| {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
                key.verify(signed.as_bytes(), &signature).is_ok()
            };
            let named = |key: &&PublicKey| header.kid.as_ref().is_none_or(|id| *id == key.id);
            let found = self.verifying.iter().filter(named).find(is_valid);
            (header.alg == ALGORITHM && found.is_some()).then_some(())
        };
        check().is_some()
    }

    /// The public keys as a JSON Web Key Set (RFC 7517), for those who verify tokens by themselves.
    pub(crate) fn json_web_keys(&self) -> Value {
        let key = |key: &PublicKey| {
            let (x, y) = key.point[1..].split_at(COORDINATE);
            json!({
                "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": ALGORITHM,
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        };
        json!({"keys": self.verifying.iter().map(key).collect::<Vec<_>>()})
    }
}

/// The claims of a token, without a check of its signature.
pub(super) fn claims_of<T: for<'de> Deserialize<'de>>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() { None } else { decode(claims) }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn make() -> Result<KeyPair, KeyError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| KeyError::Make(e.to_string()))
}

fn read(pem: &str, path: &Path) -> Result<KeyPair, KeyError> {
    let damaged = |reason: String| KeyError::Damaged { path: path.to_owned(), reason };
    let pair = KeyPair::from_pem(pem).map_err(|e| damaged(e.to_string()))?;
    match pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
        true => Ok(pair),
        false => Err(damaged("it is not a key on the curve P-256".into())),
    }
}

fn public(pair: &KeyPair) -> PublicKey {
    let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
    PublicKey { id, point: pair.public_key_raw().to_vec() }
}

fn retired(directory: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let fail = |source| KeyError::File { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(RETIRED) && name.ends_with(".key") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(directory: &Path) -> Keys {
        Keys::load_or_create(directory).expect("keys")
    }

    #[test]
    fn a_key_is_made_once_and_its_file_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let token = load(directory.path()).sign(&json!({"a": 1})).expect("a token");
        let path = directory.path().join(SIGNING);
        assert!(load(directory.path()).verify(&token));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).expect("text").starts_with("-----BEGIN PRIVATE KEY-----"));
        for content in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, content).expect("to write");
            assert!(
                matches!(Keys::load_or_create(directory.path()), Err(KeyError::Damaged { .. })),
                "{content}"
            );
        }
    }

    #[test]
    fn tokens_of_a_retired_key_are_accepted_while_its_file_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let (current, retired) = (directory.path().join(SIGNING), directory.path().join("sa-2025.key"));
        let old = load(directory.path()).sign(&json!({})).expect("a token");
        fs::rename(&current, &retired).expect("to rename");
        let rotated = load(directory.path());
        let new = rotated.sign(&json!({})).expect("a token");
        assert!(rotated.verify(&old) && rotated.verify(&new));
        assert_eq!(rotated.json_web_keys()["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(load(directory.path()).verifying[0].id, rotated.verifying[0].id);
        fs::remove_file(&retired).expect("to remove");
        let later = load(directory.path());
        assert!(!later.verify(&old) && later.verify(&new));
    }

    #[test]
    fn what_was_changed_or_signed_by_others_is_not_verified() {
        let (ours, others) = (Keys::ephemeral().expect("keys"), Keys::ephemeral().expect("keys"));
        let token = ours.sign(&json!({"sub": "a"})).expect("a token");
        let [header, claims, signature] = *token.split('.').collect::<Vec<_>>() else {
            panic!("three parts")
        };
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let forged = encode(json!({"sub": "b"}));
        let none = encode(json!({"alg": "none"}));
        let symmetric = encode(json!({"alg": "HS256", "kid": ours.verifying[0].id}));
        let other_id = encode(json!({"alg": "ES256", "kid": "x"}));
        let of_others = others.sign(&json!({"sub": "a"})).expect("a token");
        for (token, is_valid) in [
            (token.clone(), true),
            (format!("{header}.{forged}.{signature}"), false),
            (format!("{none}.{claims}."), false),
            (format!("{none}.{claims}.{signature}"), false),
            (format!("{symmetric}.{claims}.{signature}"), false),
            (format!("{other_id}.{claims}.{signature}"), false),
            (format!("{header}.{claims}."), false),
            (format!("{header}.{claims}"), false),
            (format!("{header}.{claims}.{signature}="), false),
            (format!("{header}.{claims}.{signature}A"), false),
            (of_others, false),
            (String::new(), false),
            ("..".into(), false),
        ] {
            assert_eq!(ours.verify(&token), is_valid, "{token}");
        }
    }

    #[test]
    fn published_keys_verify_tokens() {
        let keys = Keys::ephemeral().expect("keys");
        let token = keys.sign(&json!({"sub": "a"})).expect("a token");
        let key = &keys.json_web_keys()["keys"][0];
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        let header: Value = decode(signed.split('.').next().expect("a header")).expect("JSON");
        assert_eq!(header, json!({"alg": "ES256", "kid": key["kid"]}));
        let coordinate =
            |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().expect("text")).expect("base64");
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &signature)
            .expect("valid");
    }
}

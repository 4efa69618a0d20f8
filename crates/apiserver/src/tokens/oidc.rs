//! Tokens of an OpenID Connect provider, by which people log in: ID tokens, verified with the provider's published keys.
//!
//! The names and the meaning of the settings are those of kube-apiserver's `--oidc-*` flags. Nothing is fetched here: whoever
//! runs the server hands the keys in ([`Provider::set_keys`]), and is told when a token names one that is not known
//! ([`Provider::wants_keys`]).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use parking_lot::RwLock;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use tokio::sync::Notify;

use super::Refusal;
use super::claims::LEEWAY;
use super::keys::claims_of;
use crate::edit::{list, text};
use crate::identity::Identity;

/// A provider and what its tokens mean here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The provider's URL: the claim `iss`.
    pub issuer: String,
    /// The client that tokens must be issued for: one of the claim `aud`.
    pub client_id: String,
    /// The claim with the user's name, such as `sub` or `email`.
    pub username_claim: String,
    /// What user names begin with. `None`: nothing for `email`, and else the issuer with `#`, so that no token names a user
    /// of another origin.
    pub username_prefix: Option<String>,
    /// The claim with the user's groups: a text or a list of them.
    pub groups_claim: Option<String>,
    /// What groups begin with.
    pub groups_prefix: String,
    /// Claims that a token must have, with their values.
    pub required_claims: BTreeMap<String, String>,
    /// Signature algorithms that are accepted, by their names in RFC 7518.
    pub algorithms: Vec<String>,
}

impl Settings {
    /// What user names begin with.
    fn prefix(&self) -> String {
        match &self.username_prefix {
            Some(prefix) => prefix.clone(),
            None if self.username_claim == "email" => String::new(),
            None => format!("{}#", self.issuer),
        }
    }
}

/// The names of the algorithms that can be verified.
pub const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"];

/// A public key of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: String,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
    /// The point of the curve P-256.
    P256(Vec<u8>),
    /// The point of the curve P-384.
    P384(Vec<u8>),
}

/// A provider with the keys that are known of it.
#[derive(Debug)]
pub struct Provider {
    settings: Settings,
    keys: RwLock<Vec<Key>>,
    missing: Notify,
}

impl Provider {
    /// A provider whose keys are not known yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, keys: RwLock::default(), missing: Notify::new() }
    }

    /// The provider's URL.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Replaces the keys by those of a JSON Web Key Set (RFC 7517). Returns how many of them can be used.
    pub fn set_keys(&self, set: &Value) -> usize {
        let keys: Vec<Key> = list(&set["keys"]).iter().filter_map(key).collect();
        let count = keys.len();
        *self.keys.write() = keys;
        count
    }

    /// Ready when a token names a key that is not known: the provider may have begun to use another one.
    pub async fn wants_keys(&self) {
        self.missing.notified().await;
    }

    /// The identity of a token's holder.
    ///
    /// # Errors
    /// Where the token is not one of this provider for this client, has ended, or lacks a claim.
    pub(super) fn identity(&self, token: &str, now: Timestamp) -> Result<Identity, Refusal> {
        let claims: Value = claims_of(token).ok_or(Refusal::Unknown)?;
        if claims["iss"] != self.settings.issuer.as_str() {
            return Err(Refusal::Unknown);
        }
        if !self.verify(token) {
            return Err(Refusal::Signature);
        }
        self.check(&claims, now)?;
        self.read(&claims)
    }

    fn verify(&self, token: &str) -> bool {
        let Some((signed, signature)) = token.rsplit_once('.') else { return false };
        let header = signed.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let header: Option<Value> = header.and_then(|header| serde_json::from_slice(&header).ok());
        let Some(header) = header else { return false };
        let (algorithm, id) = (text(&header["alg"]), text(&header["kid"]));
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        if !self.settings.algorithms.iter().any(|accepted| accepted == algorithm) {
            return false;
        }
        let keys = self.keys.read();
        let mut named = keys.iter().filter(|key| id.is_empty() || key.id == id).peekable();
        if named.peek().is_none() {
            self.missing.notify_one();
        }
        named.any(|key| key.material.verify(algorithm, signed.as_bytes(), &signature))
    }

    /// Refuses a token that is meant for another client, at another time, or lacks a required claim.
    fn check(&self, claims: &Value, now: Timestamp) -> Result<(), Refusal> {
        let meant = |audience: &Value| text(audience) == self.settings.client_id;
        if !meant(&claims["aud"]) && !list(&claims["aud"]).iter().any(meant) {
            let audiences = [&claims["aud"]].into_iter().chain(list(&claims["aud"]));
            let token = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
            return Err(Refusal::Audience { token, wanted: vec![self.settings.client_id.clone()] });
        }
        let at = |claim: &Value| claim.as_f64().and_then(|s| Timestamp::from_second(s as i64).ok());
        if now > at(&claims["exp"]).ok_or(Refusal::Malformed)? {
            return Err(Refusal::Expired);
        }
        if at(&claims["nbf"]).is_some_and(|from| from.duration_since(now) > LEEWAY) {
            return Err(Refusal::NotYetValid);
        }
        match self.settings.required_claims.iter().all(|(name, value)| text(&claims[name.as_str()]) == value)
        {
            true => Ok(()),
            false => Err(Refusal::Malformed),
        }
    }

    fn read(&self, claims: &Value) -> Result<Identity, Refusal> {
        let settings = &self.settings;
        let name = text(&claims[settings.username_claim.as_str()]);
        let is_unverified = settings.username_claim == "email"
            && !claims["email_verified"].is_null()
            && claims["email_verified"] != true;
        if name.is_empty() || is_unverified {
            return Err(Refusal::Malformed);
        }
        let groups = settings.groups_claim.as_ref().map_or(&Value::Null, |claim| &claims[claim.as_str()]);
        let groups = [groups].into_iter().chain(list(groups)).filter_map(Value::as_str);
        let groups = groups.map(|group| format!("{}{group}", settings.groups_prefix));
        Ok(Identity::new(format!("{}{name}", settings.prefix()), groups))
    }
}

impl Material {
    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(n, e) => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            Self::P256(point) if algorithm == "ES256" => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(signed, signature).is_ok()
            }
            Self::P384(point) if algorithm == "ES384" => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point);
                key.verify(signed, signature).is_ok()
            }
            Self::P256(_) | Self::P384(_) => false,
        }
    }
}

/// A key of a set; `None` for those of other kinds and uses.
fn key(key: &Value) -> Option<Key> {
    let number = |name: &str| URL_SAFE_NO_PAD.decode(text(&key[name])).ok().filter(|n| !n.is_empty());
    if matches!(text(&key["use"]), "enc") {
        return None;
    }
    let point = || Some([vec![4], number("x")?, number("y")?].concat());
    let material = match (text(&key["kty"]), text(&key["crv"])) {
        ("RSA", _) => Material::Rsa(number("n")?, number("e")?),
        ("EC", "P-256") => Material::P256(point()?),
        ("EC", "P-384") => Material::P384(point()?),
        _ => return None,
    };
    Some(Key { id: text(&key["kid"]).to_owned(), material })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokens::Keys;

    const ISSUER: &str = "https://login.example.com";

    fn settings() -> Settings {
        Settings {
            issuer: ISSUER.into(),
            client_id: "yado".into(),
            username_claim: "email".into(),
            groups_claim: Some("groups".into()),
            groups_prefix: "oidc:".into(),
            required_claims: BTreeMap::from([("hd".into(), "example.com".into())]),
            algorithms: vec!["RS256".into(), "ES256".into()],
            ..Settings::default()
        }
    }

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "aud": ["yado", "other"], "exp": 2_000, "sub": "7", "email": "jane@example.com",
            "groups": ["dev", "ops"], "hd": "example.com",
        })
    }

    #[test]
    fn claims_become_an_identity_or_a_refusal() {
        let keys = Keys::ephemeral().expect("keys");
        let now = Timestamp::from_second(1_000).expect("a time");
        let by_name = Settings { username_claim: "sub".into(), groups_claim: None, ..settings() };
        let rows: [(Settings, Value, &str); 13] = [
            (settings(), json!({}), "jane@example.com [oidc:dev oidc:ops system:authenticated]"),
            (settings(), json!({"groups": "dev"}), "jane@example.com [oidc:dev system:authenticated]"),
            (settings(), json!({"groups": null}), "jane@example.com [system:authenticated]"),
            (by_name.clone(), json!({}), "https://login.example.com#7 [system:authenticated]"),
            (
                Settings { username_prefix: Some("p:".into()), ..by_name.clone() },
                json!({"aud": "yado"}),
                "p:7 [system:authenticated]",
            ),
            (settings(), json!({"email_verified": false}), "Malformed"),
            (settings(), json!({"email": null}), "Malformed"),
            (settings(), json!({"hd": "other"}), "Malformed"),
            (settings(), json!({"exp": 999}), "Expired"),
            (settings(), json!({"exp": null}), "Malformed"),
            (settings(), json!({"nbf": 1_061}), "NotYetValid"),
            (settings(), json!({"aud": "other"}), r#"Audience { token: ["other"], wanted: ["yado"] }"#),
            (settings(), json!({"iss": "https://evil.example.com"}), "Unknown"),
        ];
        for (settings, change, expect) in rows {
            let provider = Provider::new(settings);
            assert_eq!(provider.set_keys(&keys.json_web_keys()), 1);
            let mut claims = claims();
            for (name, value) in change.as_object().expect("claims") {
                claims[name] = value.clone();
            }
            let found = provider.identity(&keys.sign(&claims).expect("a token"), now);
            let shown = match found {
                Ok(found) => format!("{} [{}]", found.user, found.groups.join(" ")),
                Err(refusal) => format!("{refusal:?}"),
            };
            assert_eq!(shown, expect, "{change}");
        }
    }

    #[tokio::test]
    async fn unknown_keys_are_refused_and_asked_for() {
        let (keys, others) = (Keys::ephemeral().expect("keys"), Keys::ephemeral().expect("keys"));
        let now = Timestamp::from_second(1_000).expect("a time");
        let token = keys.sign(&claims()).expect("a token");
        let provider = Provider::new(settings());
        for known in [json!({}), others.json_web_keys(), json!({"keys": [{"kty": "oct", "k": "AAAA"}]})] {
            provider.set_keys(&known);
            assert_eq!(provider.identity(&token, now), Err(Refusal::Signature), "{known}");
            provider.wants_keys().await;
        }
        provider.set_keys(&keys.json_web_keys());
        assert!(provider.identity(&token, now).is_ok());
        let only_rsa = Provider::new(Settings { algorithms: vec!["RS256".into()], ..settings() });
        only_rsa.set_keys(&keys.json_web_keys());
        assert_eq!(only_rsa.identity(&token, now), Err(Refusal::Signature));
    }

    /// The example of RFC 7515, appendix A.2: RSASSA-PKCS1-v1_5 with SHA-256.
    #[test]
    fn rsa_signatures_are_verified() {
        let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
        let signed = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let provider = Provider::new(settings());
        assert_eq!(provider.set_keys(&json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]})), 1);
        assert!(provider.verify(&format!("{signed}.{signature}")));
        assert!(!provider.verify(&format!("{signed}x.{signature}")));
    }
}

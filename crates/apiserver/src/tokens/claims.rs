//! The claims of a token: registered ones of RFC 7519, and those of Kubernetes under `kubernetes.io`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Refusal, keys};
use crate::identity::{Identity, service_account_groups, service_account_user};

/// Clocks of those who issue and those who verify differ by no more than this.
pub(super) const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The claims of a ServiceAccount's token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The audiences that it is meant for.
    #[serde(deserialize_with = "one_or_more")]
    pub(super) aud: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub(super) exp: i64,
    /// Seconds since 1970 at which it was issued.
    pub(super) iat: i64,
    /// The URL of the issuer.
    pub(super) iss: String,
    /// The token's own id.
    pub(super) jti: String,
    /// Seconds since 1970 before which it is not valid.
    pub(super) nbf: i64,
    /// The user's name.
    pub(super) sub: String,
    /// The objects that must exist for it to be valid.
    #[serde(rename = "kubernetes.io")]
    pub(super) objects: Objects,
}

/// The objects on which a token depends, all but the node in one namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Objects {
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Object>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Object>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Object>,
    pub(super) serviceaccount: Object,
    /// Seconds since 1970 from which the token should have been replaced, where it is valid for longer than its holder
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// An object; the uid tells it from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) name: String,
    /// Empty for a Pod's node that did not exist when the token was issued.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
}

/// A list, or the text that stands for a list of one.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// The issuer of a token.
#[derive(Deserialize)]
struct Issued {
    iss: String,
}

impl Claims {
    /// The claims of a token of this issuer, with the signature of one of its keys.
    ///
    /// # Errors
    /// Where another issuer signed it, or it was changed since.
    pub(super) fn read(token: &str, issuer: &super::Issuer) -> Result<Self, Refusal> {
        let issued: Issued = keys::claims_of(token).ok_or(Refusal::Unknown)?;
        if issued.iss != issuer.url {
            return Err(Refusal::Unknown);
        }
        if !issuer.keys.verify(token) {
            return Err(Refusal::Signature);
        }
        keys::claims_of(token).ok_or(Refusal::Malformed)
    }

    /// Refuses a token that is not valid at `now`.
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Refusal> {
        let at = |seconds: i64| Timestamp::from_second(seconds).map_err(|_| Refusal::Malformed);
        match () {
            () if now > at(self.exp)? + LEEWAY => Err(Refusal::Expired),
            () if now + LEEWAY < at(self.nbf)? || now + LEEWAY < at(self.iat)? => Err(Refusal::NotYetValid),
            () => Ok(()),
        }
    }

    /// Those of `wanted` that the token is meant for.
    ///
    /// # Errors
    /// Where it is meant for none of them.
    pub(super) fn check_audience(&self, wanted: &[String]) -> Result<Vec<String>, Refusal> {
        let meant: Vec<String> = self.aud.iter().filter(|a| wanted.contains(a)).cloned().collect();
        match meant.is_empty() {
            true => Err(Refusal::Audience { token: self.aud.clone(), wanted: wanted.to_vec() }),
            false => Ok(meant),
        }
    }

    /// The identity of the token's holder.
    pub(super) fn identity(&self) -> Identity {
        let Objects { namespace, node, pod, serviceaccount, .. } = &self.objects;
        let user = service_account_user(namespace, &serviceaccount.name);
        let mut extra = BTreeMap::from([("credential-id", format!("JTI={}", self.jti))]);
        for (object, name, uid) in [(pod, "pod-name", "pod-uid"), (node, "node-name", "node-uid")] {
            let Some(object) = object else { continue };
            extra.insert(name, object.name.clone());
            if !object.uid.is_empty() {
                extra.insert(uid, object.uid.clone());
            }
        }
        let key = |(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value]);
        Identity {
            uid: serviceaccount.uid.clone(),
            extra: extra.into_iter().map(key).collect(),
            ..Identity::new(user, service_account_groups(namespace))
        }
    }
}

//! Bearer tokens: those of ServiceAccounts, which this server issues and signs ([`keys`], [`claims`]); bootstrap tokens,
//! which are Secrets ([`bootstrap`]); those of an OpenID Connect provider ([`oidc`]); and fixed ones of the configuration ([`crate::Tokens`]).
//!
//! A ServiceAccount's token is a JSON Web Token. It is valid as long as its signature and times are, and as the objects it
//! names exist with the same uids: the account, and the Pod, Secret or Node that it is bound to. Nothing is stored of it.

mod bootstrap;
mod claims;
mod keys;
pub mod oidc;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

pub(crate) use keys::ALGORITHM;
pub use keys::{KeyError, Keys};

use crate::identity::{Identity, service_account_user};
use crate::object::meta;
use crate::resource;
use crate::server::Inner;
use crate::status::Failure;
use crate::write::create::uid;
use claims::{Claims, LEEWAY, Object, Objects};

/// The issuer of a cluster whose domain is `cluster.local`, as Kubernetes has it by default.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Seconds after which a token expires in the volume that every Pod gets. Programs of before tokens expired read theirs
/// only once, so that one of exactly this age which is bound to a Pod stays valid for [`EXTENDED_SECONDS`], as with
/// kube-apiserver's `--service-account-extend-token-expiration`.
pub(crate) const POD_TOKEN_SECONDS: i64 = 3607;
/// A year.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// The issuer of ServiceAccount tokens.
#[derive(Clone)]
pub struct Issuer {
    /// Its URL: the claim `iss`.
    pub url: String,
    /// The audiences of this server, and of tokens whose request names none.
    pub audiences: Vec<String>,
    /// The keys that sign and verify.
    pub keys: Arc<Keys>,
}

impl Issuer {
    /// The issuer of the default URL, whose tokens are meant for it.
    pub fn new(keys: Keys) -> Self {
        Self { url: DEFAULT_ISSUER.into(), audiences: vec![DEFAULT_ISSUER.into()], keys: Arc::new(keys) }
    }
}

/// Why a token is not accepted. The text is what a TokenReview says, without Kubernetes' frame around it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it is not a token of this cluster")]
    Unknown,
    #[error("invalid signature")]
    Signature,
    #[error("the claims cannot be read")]
    Malformed,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("token audiences {token:?} is invalid for the target audiences {wanted:?}")]
    Audience { token: Vec<String>, wanted: Vec<String> },
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("{kind} UID ({uid}) does not match claim ({claim})")]
    Replaced { kind: &'static str, uid: String, claim: String },
    #[error("{kind} \"{name}\" has been deleted")]
    Deleted { kind: &'static str, name: String },
}

/// The holder of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) identity: Identity,
    /// Those of the audiences asked for that the token is meant for.
    pub(crate) audiences: Vec<String>,
}

/// A request for a token.
pub(crate) struct Wanted<'a> {
    /// The ServiceAccount.
    pub(crate) account: &'a Value,
    /// What it is bound to: the kind and the object.
    pub(crate) bound: Option<(Bound, &'a Value)>,
    /// The node of the Pod that it is bound to: its name, and its uid where it exists.
    pub(crate) node: Option<(&'a str, String)>,
    pub(crate) audiences: &'a [String],
    /// Seconds for which it is to be valid.
    pub(crate) seconds: i64,
}

/// The kind of object that a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Pod,
    Secret,
    Node,
}

impl Inner {
    /// Signs a token for a ServiceAccount at `now`.
    pub(crate) fn issue(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<String, Failure> {
        let claims = claims_for(wanted, &self.issuer, uid(&mut rand::rng()), now.as_second());
        self.issuer.keys.sign(&claims).map_err(Failure::internal)
    }

    /// The holder of a bearer token, for one of these audiences.
    ///
    /// # Errors
    /// Where it is not valid for any of them.
    pub(crate) fn holder(&self, token: &str, audiences: &[String]) -> Result<Holder, Refusal> {
        // Only a ServiceAccount's tokens name their audience; others are meant for this server.
        let for_this_server = |identity: Identity| {
            let own = &self.issuer.audiences;
            let meant: Vec<String> = own.iter().filter(|a| audiences.contains(a)).cloned().collect();
            match meant.is_empty() {
                true => Err(Refusal::Audience { token: own.clone(), wanted: audiences.to_vec() }),
                false => Ok(Holder { identity, audiences: meant }),
            }
        };
        if let Some(identity) = self.config.tokens.find(token) {
            return for_this_server(identity);
        }
        let now = self.clock.now();
        if let Some(parsed) = bootstrap::parse(token) {
            let secret =
                self.bound("secrets", "secret", bootstrap::NAMESPACE, &bootstrap::secret_name(parsed.0));
            let secret = secret.map_err(|_| Refusal::Unknown)?;
            return for_this_server(bootstrap::identity(parsed, &secret, now)?);
        }
        let claims = match (Claims::read(token, &self.issuer), &self.config.oidc) {
            (Err(Refusal::Unknown), Some(provider)) => {
                return for_this_server(provider.identity(token, now)?);
            }
            (claims, _) => claims?,
        };
        claims.check_time(now)?;
        let audiences = claims.check_audience(audiences)?;
        self.check_objects(&claims.objects, now)?;
        let identity = claims.identity();
        // The claims agree with each other, as those that this server has signed do.
        if claims.sub != identity.user {
            return Err(Refusal::Malformed);
        }
        Ok(Holder { identity, audiences })
    }

    /// Refuses a token whose account or bound object is not there any more.
    fn check_objects(&self, objects: &Objects, now: Timestamp) -> Result<(), Refusal> {
        let Objects { namespace, node, pod, secret, serviceaccount, .. } = objects;
        // A Pod's node is only named: the Pod leaves with it.
        let node = node.as_ref().filter(|_| pod.is_none());
        for (plural, kind, namespace, named) in [
            ("serviceaccounts", "serviceaccount", namespace.as_str(), Some(serviceaccount)),
            ("secrets", "secret", namespace, secret.as_ref()),
            ("pods", "pod", namespace, pod.as_ref()),
            ("nodes", "node", "", node),
        ] {
            let Some(named) = named else { continue };
            let found = self.bound(plural, kind, namespace, &named.name)?;
            check_object(kind, named, &found, now)?;
        }
        Ok(())
    }

    fn bound(
        &self,
        plural: &str,
        kind: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Refusal> {
        let found = resource::find("", "v1", plural).and_then(|r| self.find(r, namespace, name).ok());
        found.map(|object| object.value()).ok_or_else(|| Refusal::Missing { kind, name: name.to_owned() })
    }
}

/// Whether an object is still the one that a token names. One whose deletion waits for something counts until a while after
/// the moment it was to be deleted at.
fn check_object(kind: &'static str, named: &Object, object: &Value, now: Timestamp) -> Result<(), Refusal> {
    let uid = meta(object, "uid");
    if uid != named.uid {
        return Err(Refusal::Replaced { kind, uid: uid.to_owned(), claim: named.uid.clone() });
    }
    let deletion = meta(object, "deletionTimestamp").parse::<Timestamp>().ok();
    match deletion.is_some_and(|at| at + LEEWAY < now) {
        true => Err(Refusal::Deleted { kind, name: named.name.clone() }),
        false => Ok(()),
    }
}

fn claims_for(wanted: &Wanted<'_>, issuer: &Issuer, id: String, now: i64) -> Claims {
    let object = |value: &Value| Object { name: meta(value, "name").into(), uid: meta(value, "uid").into() };
    let of_kind =
        |kind: Bound| wanted.bound.filter(|(bound, _)| *bound == kind).map(|(_, value)| object(value));
    let (namespace, name) = (meta(wanted.account, "namespace"), meta(wanted.account, "name"));
    let pod = of_kind(Bound::Pod);
    let of_pod = wanted.node.as_ref().map(|(name, uid)| Object { name: (*name).into(), uid: uid.clone() });
    let is_extended = pod.is_some()
        && wanted.seconds == POD_TOKEN_SECONDS
        && wanted.audiences.iter().all(|audience| issuer.audiences.contains(audience));
    Claims {
        aud: wanted.audiences.to_vec(),
        exp: now + if is_extended { EXTENDED_SECONDS } else { wanted.seconds },
        iat: now,
        iss: issuer.url.clone(),
        jti: id,
        nbf: now,
        sub: service_account_user(namespace, name),
        objects: Objects {
            namespace: namespace.into(),
            node: of_kind(Bound::Node).or(of_pod),
            pod,
            secret: of_kind(Bound::Secret),
            serviceaccount: object(wanted.account),
            warnafter: is_extended.then_some(now + wanted.seconds),
        },
    }
}

/// The sentence of a TokenReview about a token that is not accepted.
pub(crate) fn review_error(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Unknown => "invalid bearer token".into(),
        refusal => format!("[invalid bearer token, {refusal}]"),
    }
}

/// What is wrong with a requested lifetime in seconds, if anything.
pub(crate) fn lifetime_error(seconds: i64) -> Option<&'static str> {
    match seconds {
        ..600 => Some("may not specify a duration less than 10 minutes"),
        4_294_967_297.. => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    }
}

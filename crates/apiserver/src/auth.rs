//! Who asks, and whether they may.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::request::{ApiRequest, Request, ServerRequest, Verb};
use crate::status::{Failure, Result};

/// Whoever is in it may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of Yado's own components, which get their clients in process.
pub const COMPONENTS: &str = "system:yado:components";
/// The group of nodes.
pub const NODES: &str = "system:nodes";
/// The group of everyone who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The groups they are in.
    pub groups: Vec<String>,
}

impl Identity {
    /// A user in these groups, and in that of the authenticated.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { user: user.into(), groups }
    }

    /// One of Yado's own components, such as `scheduler`.
    pub fn component(name: &str) -> Self {
        Self::new(format!("system:yado:{name}"), [COMPONENTS])
    }

    /// Somebody who did not say.
    pub fn anonymous() -> Self {
        Self { user: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()] }
    }

    /// The subject of a client certificate: its common name is the user, its organisations are the groups. `None`
    /// where it names nobody. Whether it is valid is checked before, by the TLS handshake.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?;
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
        Some(Self::new(user, groups))
    }

    /// They did not say who they are.
    pub fn is_anonymous(&self) -> bool {
        self.is_in(&[UNAUTHENTICATED])
    }

    fn is_in(&self, groups: &[&str]) -> bool {
        self.groups.iter().any(|g| groups.contains(&g.as_str()))
    }
}

/// Bearer tokens and whose they are. Kept as digests, so that looking one up takes no time that depends on how much of
/// it was guessed, and none is left in memory.
#[derive(Clone, Default)]
pub struct Tokens {
    by_digest: Arc<HashMap<[u8; 32], Identity>>,
}

impl Tokens {
    /// Each token with its owner.
    pub fn new(tokens: impl IntoIterator<Item = (String, Identity)>) -> Self {
        let by_digest = tokens.into_iter().map(|(token, identity)| (digest(&token), identity)).collect();
        Self { by_digest: Arc::new(by_digest) }
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Who sent a request: by its bearer token if it has one, else who the connection belongs to. A wrong token is refused
/// rather than taken for anonymous.
pub fn authenticate(tokens: &Tokens, headers: &HeaderMap, connection: Option<&Identity>) -> Result<Identity> {
    let unauthorized = || Failure::new(401, "Unauthorized", "Unauthorized");
    if let Some(identity) = connection {
        return Ok(identity.clone());
    }
    match headers.get(AUTHORIZATION) {
        None => Ok(Identity::anonymous()),
        Some(value) => {
            let value = value.to_str().map_err(|_| unauthorized())?;
            let (scheme, token) = value.split_once(' ').ok_or_else(unauthorized)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(unauthorized());
            }
            tokens.by_digest.get(&digest(token.trim())).cloned().ok_or_else(unauthorized)
        }
    }
}

/// Who a request acts as, where its headers ask to act as somebody else (`kubectl --as`).
pub fn impersonate(identity: Identity, headers: &HeaderMap) -> Result<Identity> {
    let text = |v: &http::HeaderValue| v.to_str().map(str::to_owned).ok();
    let Some(user) = headers.get("impersonate-user").and_then(text) else {
        return Ok(identity);
    };
    if !identity.is_in(&[MASTERS]) {
        let message = format!(
            "users \"{user}\" is forbidden: User \"{}\" cannot impersonate resource \"users\" in API group \"\" at the \
             cluster scope",
            identity.user
        );
        return Err(Failure::denied(message));
    }
    Ok(Identity::new(user, headers.get_all("impersonate-group").iter().filter_map(text)))
}

/// The answer of authorisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Stop; the reason is for the user.
    Deny(String),
}

/// Whether `identity` may do what it asks. Rules of roles (RBAC) join here: between the groups that may do everything
/// and the denial.
pub fn authorize(identity: &Identity, request: &Request) -> Decision {
    if identity.is_in(&[MASTERS, COMPONENTS, NODES]) {
        return Decision::Allow;
    }
    match request {
        Request::Server(ServerRequest::Health | ServerRequest::Version) => Decision::Allow,
        Request::Server(_) if identity.is_in(&[AUTHENTICATED]) => Decision::Allow,
        // Everyone may ask who they are and what they may do.
        Request::Api(r)
            if r.resource.plural.starts_with("selfsubject")
                && matches!(r.verb, Verb::Create(_))
                && identity.is_in(&[AUTHENTICATED]) =>
        {
            Decision::Allow
        }
        Request::Server(_) => {
            Decision::Deny(format!("forbidden: User \"{}\" cannot get path", identity.user))
        }
        Request::Api(r) => Decision::Deny(denial(identity, r)),
    }
}

fn denial(identity: &Identity, r: &ApiRequest) -> String {
    let plural = match r.subresource {
        Some(subresource) => format!("{}/{}", r.resource.plural, subresource.name()),
        None => r.resource.plural.to_owned(),
    };
    let named = if r.name.is_empty() { String::new() } else { format!(" \"{}\"", r.name) };
    let place = if r.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", r.namespace)
    };
    format!(
        "{}{named} is forbidden: User \"{}\" cannot {} resource \"{plural}\" in API group \"{}\" {place}",
        r.resource.qualified(),
        identity.user,
        r.verb.name(),
        r.resource.group,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn who_may_do_what() {
        let master = Identity::new("admin", [MASTERS]);
        let user = Identity::new("jane", ["dev"]);
        for (identity, path, allowed) in [
            (&master, "/api/v1/namespaces/d/secrets", true),
            (&Identity::component("scheduler"), "/api/v1/pods", true),
            (&user, "/api/v1/namespaces/d/secrets", false),
            (&user, "/apis", true),
            (&Identity::anonymous(), "/apis", false),
            (&Identity::anonymous(), "/version", true),
            (&Identity::anonymous(), "/readyz", true),
        ] {
            let request = Request::parse(&Method::GET, path, None, &HeaderMap::new()).expect(path);
            let decision = authorize(identity, &request);
            assert_eq!(decision == Decision::Allow, allowed, "{} {path}: {decision:?}", identity.user);
        }
    }

    #[test]
    fn tokens_are_known_or_refused() {
        let tokens = Tokens::new([("secret".to_owned(), Identity::new("bot", ["ci"]))]);
        for (header, expect) in [
            (None, Some(ANONYMOUS)),
            (Some("Bearer secret"), Some("bot")),
            (Some("bearer secret"), Some("bot")),
            (Some("Bearer wrong"), None),
            (Some("Basic secret"), None),
            (Some("secret"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, header.parse().expect("header"));
            }
            let user = authenticate(&tokens, &headers, None).map(|i| i.user).ok();
            assert_eq!(user.as_deref(), expect, "{header:?}");
        }
    }
}

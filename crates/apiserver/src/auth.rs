//! Who asks, and whether they may.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
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

    /// The `UserInfo` of reviews.
    pub(crate) fn user_info(&self) -> Value {
        json!({"username": self.user, "groups": self.groups})
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

const IMPERSONATE: &str = "impersonate-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The identity that a request acts as, where its headers ask for another than its own (`kubectl --as`).
///
/// # Errors
/// 403 where `identity` may not act as others; 400 where the headers ask for what cannot be done, since a request that
/// asks for fewer rights must not run with all of the caller's: a group without a user, a name that is not UTF-8, two
/// users, a uid or extra values, which identities do not have here.
pub fn impersonate(identity: Identity, headers: &HeaderMap) -> Result<Identity> {
    if !headers.keys().any(|name| name.as_str().starts_with(IMPERSONATE)) {
        return Ok(identity);
    }
    let texts = |name: &str| -> Result<Vec<String>> {
        let values = headers.get_all(name).iter();
        let text = |v: &http::HeaderValue| String::from_utf8(v.as_bytes().to_vec()).ok();
        let malformed = || Failure::bad_request(format!("the header {name} is not valid UTF-8"));
        values.map(|v| text(v).filter(|t| !t.is_empty()).ok_or_else(malformed)).collect()
    };
    if !identity.is_in(&[MASTERS]) {
        let whom =
            texts("impersonate-user").ok().and_then(|users| users.into_iter().next()).unwrap_or_default();
        let message = format!(
            "users \"{whom}\" is forbidden: User \"{}\" cannot impersonate resource \"users\" in API group \"\" at the \
             cluster scope",
            identity.user
        );
        return Err(Failure::denied(message));
    }
    let known = ["impersonate-user", "impersonate-group"];
    let unknown = |name: &&str| name.starts_with(IMPERSONATE) && !known.contains(name);
    if let Some(name) = headers.keys().map(http::HeaderName::as_str).find(unknown) {
        return Err(Failure::bad_request(format!(
            "the header {name} cannot be honoured: identities have a user and groups only"
        )));
    }
    let (mut users, mut groups) = (texts("impersonate-user")?, texts("impersonate-group")?);
    let user = match (users.pop(), users.is_empty()) {
        (Some(user), true) => user,
        (Some(_), false) => return Err(Failure::bad_request("impersonate-user is there more than once")),
        (None, _) => return Err(Failure::bad_request("requested groups without impersonating a user")),
    };
    if user == ANONYMOUS {
        groups.push(UNAUTHENTICATED.into());
        return Ok(Identity { user, groups });
    }
    // As a service account's own credentials would have them.
    if let Some((namespace, _)) = user.strip_prefix(SERVICE_ACCOUNT).and_then(|a| a.split_once(':'))
        && groups.is_empty()
    {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    Ok(Identity::new(user, groups))
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
        // It says what others do.
        Request::Server(ServerRequest::Metrics) => {
            Decision::Deny(format!("forbidden: User \"{}\" cannot get path \"/metrics\"", identity.user))
        }
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
        None => r.resource.plural.to_string(),
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
    use crate::resource::BUILT_IN;
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
            (&user, "/metrics", false),
            (&master, "/metrics", true),
            (&Identity::anonymous(), "/apis", false),
            (&Identity::anonymous(), "/version", true),
            (&Identity::anonymous(), "/readyz", true),
        ] {
            let request = Request::parse(&BUILT_IN, &Method::GET, path, None, &HeaderMap::new()).expect(path);
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

    #[test]
    fn impersonation_is_honoured_or_refused() {
        let (master, user) = (Identity::new("admin", [MASTERS]), Identity::new("jane", ["dev"]));
        type Header<'a> = (&'a str, &'a [u8]);
        let rows: &[(&Identity, &[Header<'_>], &str)] = &[
            (&master, &[], "admin [system:masters system:authenticated]"),
            (&master, &[("impersonate-user", b"bob")], "bob [system:authenticated]"),
            (&master, &[("impersonate-user", "j\u{f6}rg".as_bytes())], "j\u{f6}rg [system:authenticated]"),
            (
                &master,
                &[("impersonate-user", b"bob"), ("impersonate-group", b"a"), ("impersonate-group", b"b")],
                "bob [a b system:authenticated]",
            ),
            (
                &master,
                &[("impersonate-user", b"system:anonymous")],
                "system:anonymous [system:unauthenticated]",
            ),
            (
                &master,
                &[("impersonate-user", b"system:serviceaccount:d:x")],
                "system:serviceaccount:d:x [system:serviceaccounts system:serviceaccounts:d system:authenticated]",
            ),
            (&master, &[("impersonate-user", b"j\xf6rg")], "400"),
            (&master, &[("impersonate-user", b"")], "400"),
            (&master, &[("impersonate-group", b"dev")], "400"),
            (&master, &[("impersonate-user", b"bob"), ("impersonate-group", b"\xff")], "400"),
            (&master, &[("impersonate-user", b"bob"), ("impersonate-user", b"eve")], "400"),
            (&master, &[("impersonate-user", b"bob"), ("impersonate-uid", b"7")], "400"),
            (&master, &[("impersonate-user", b"bob"), ("impersonate-extra-scopes", b"view")], "400"),
            (&master, &[("impersonate-extra-scopes", b"view")], "400"),
            (&user, &[("impersonate-user", b"admin")], "403"),
            (&user, &[("impersonate-user", b"\xff")], "403"),
            (&user, &[("impersonate-group", b"system:masters")], "403"),
        ];
        for (identity, given, expect) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in *given {
                let name = http::HeaderName::from_static(name);
                headers.append(name, http::HeaderValue::from_bytes(value).expect("a header"));
            }
            let shown = match impersonate((*identity).clone(), &headers) {
                Ok(found) => format!("{} [{}]", found.user, found.groups.join(" ")),
                Err(failure) => failure.code.to_string(),
            };
            assert_eq!(shown, *expect, "{headers:?}");
        }
    }
}

//! Authentication, impersonation and authorisation of requests.

mod authorization;
mod impersonation;

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

pub use crate::identity::{AUTHENTICATED, COMPONENTS, Identity, MASTERS, NODES};
use crate::status::{Failure, Result};
pub(crate) use authorization::{attributes, authorize};
pub(crate) use impersonation::impersonate;

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

    /// The owner of this token.
    pub(crate) fn find(&self, token: &str) -> Option<Identity> {
        self.by_digest.get(&digest(token)).cloned()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The identity that sent a request: of its connection, or else of its bearer token, by `bearer`. A wrong token is
/// refused rather than taken for anonymous.
pub fn authenticate(
    headers: &HeaderMap,
    connection: Option<&Identity>,
    bearer: impl FnOnce(&str) -> Option<Identity>,
) -> Result<Identity> {
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
            bearer(token.trim()).ok_or_else(unauthorized)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ANONYMOUS;

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
            let user = authenticate(&headers, None, |token| tokens.find(token)).map(|i| i.user).ok();
            assert_eq!(user.as_deref(), expect, "{header:?}");
        }
    }
}

//! Bootstrap tokens, with which machines join a cluster: Secrets of type `bootstrap.kubernetes.io/token` in `kube-system`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Refusal;
use crate::edit::text;
use crate::identity::Identity;

/// The namespace of the Secrets.
pub(super) const NAMESPACE: &str = "kube-system";
/// The type of the Secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group of all who have a bootstrap token; further ones are named after it.
const GROUP: &str = "system:bootstrappers";

/// The id and the secret of a bootstrap token, if it has the form of one: `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_plain = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && is_plain(id) && is_plain(secret)).then_some((id, secret))
}

/// The name of the Secret of the token with this id.
pub(super) fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The identity of the holder of a bootstrap token, according to its Secret.
///
/// # Errors
/// Where the Secret says that the token has expired, is another one, or is not meant for this.
pub(super) fn identity(
    (id, secret): (&str, &str),
    object: &Value,
    now: Timestamp,
) -> Result<Identity, Refusal> {
    let data = |key: &str| {
        let decoded = STANDARD.decode(text(&object["data"][key])).ok();
        decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    // Digests are compared, so that the time it takes says nothing of how much was guessed.
    let known = Sha256::digest(data("token-secret")) == Sha256::digest(secret);
    let is_deleted = !text(&object["metadata"]["deletionTimestamp"]).is_empty();
    if text(&object["type"]) != TYPE || is_deleted || data("token-id") != id || !known {
        return Err(Refusal::Unknown);
    }
    let expiration = data("expiration");
    let is_expired = || expiration.parse::<Timestamp>().map_or(true, |at| now >= at);
    if !expiration.is_empty() && is_expired() {
        return Err(Refusal::Expired);
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err(Refusal::Unknown);
    }
    let extra = data("auth-extra-groups");
    let extra: Vec<&str> = extra.split(',').filter(|group| !group.is_empty()).collect();
    if !extra.iter().all(|group| is_group(group)) {
        return Err(Refusal::Unknown);
    }
    Ok(Identity::new(format!("system:bootstrap:{id}"), [GROUP].into_iter().chain(extra)))
}

/// Whether a Secret may put the holder of its token into this group: `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| is_word(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_say_who_has_a_bootstrap_token() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let whole = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        let token = "abcdef.0123456789abcdef";
        let groups = "system:bootstrappers,system:authenticated";
        for (token, change, expect) in [
            (token, &[][..], groups),
            ("abcdef.0123456789abcdex", &[], "Unknown"),
            ("abcdef.0123456789ABCDEF", &[], "-"),
            ("abcde.0123456789abcdef", &[], "-"),
            (token, &[("token-id", "other1")], "Unknown"),
            (token, &[("usage-bootstrap-authentication", "false")], "Unknown"),
            (token, &[("expiration", "2026-01-01T00:00:01Z")], groups),
            (token, &[("expiration", "2026-01-01T00:00:00Z")], "Expired"),
            (token, &[("expiration", "tomorrow")], "Expired"),
            (token, &[("auth-extra-groups", "system:masters")], "Unknown"),
            (
                token,
                &[("auth-extra-groups", "system:bootstrappers:kubeadm:x")],
                "system:bootstrappers,system:bootstrappers:kubeadm:x,system:authenticated",
            ),
        ] {
            let mut object = json!({"type": TYPE, "data": {}});
            for (key, value) in whole.iter().chain(change) {
                object["data"][*key] = STANDARD.encode(value).into();
            }
            let found = parse(token).map(|parsed| identity(parsed, &object, now));
            object["metadata"] = json!({"deletionTimestamp": "2025-12-31T00:00:00Z"});
            let deleted = parse(token).map(|parsed| identity(parsed, &object, now));
            assert!(!matches!(deleted, Some(Ok(_))), "{token} of a Secret that is being deleted");
            let shown = match found {
                None => "-".to_owned(),
                Some(Ok(found)) => found.groups.join(","),
                Some(Err(refusal)) => format!("{refusal:?}"),
            };
            assert_eq!(shown, expect, "{token} {change:?}");
        }
    }
}

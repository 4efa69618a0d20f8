//! Who one is to a registry.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{ImageError, Reference, Result};

/// How to answer a registry that asks who is there.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    /// As nobody; registries that hand out tokens give one to anybody for public images.
    #[default]
    Anonymous,
    /// A user name and a password, sent to the registry or to the token service it names.
    Basic {
        /// The user.
        username: String,
        /// The password or personal token.
        password: String,
    },
    /// A token that the registry takes as it is.
    Bearer(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secret values are never written to a log.
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Credentials by registry, as Docker's `config.json` and Kubernetes' `kubernetes.io/dockerconfigjson` Secrets hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAuths {
    by_prefix: BTreeMap<String, RegistryAuth>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

impl RegistryAuths {
    /// Reads `{"auths":{"HOST":{"auth":"base64 of user:password"}}}`.
    ///
    /// # Errors
    /// Where it is not such a JSON document. The text of the error never holds a secret.
    pub fn from_docker_config(json: &[u8]) -> Result<Self> {
        let bad = |reason: &str| ImageError::Registry {
            reference: "a private image".to_owned(),
            reason: format!("the registry credentials are not a Docker config.json: {reason}"),
        };
        let config: DockerConfig =
            serde_json::from_slice(json).map_err(|_| bad("it is not the expected JSON"))?;
        let mut by_prefix = BTreeMap::new();
        for (host, entry) in config.auths {
            let auth = if !entry.registry_token.is_empty() {
                RegistryAuth::Bearer(entry.registry_token)
            } else if !entry.username.is_empty() {
                RegistryAuth::Basic { username: entry.username, password: entry.password }
            } else if !entry.auth.is_empty() {
                let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
                let decoded = decoded.ok_or_else(|| bad("an `auth` entry is not base64 of user:password"))?;
                let (username, password) =
                    decoded.split_once(':').ok_or_else(|| bad("an `auth` entry has no password"))?;
                RegistryAuth::Basic {
                    username: username.to_owned(),
                    password: password.trim_end_matches('\0').to_owned(),
                }
            } else {
                continue;
            };
            by_prefix.insert(normalise_host(&host), auth);
        }
        Ok(Self { by_prefix })
    }

    /// What is known for this reference, each with how much its entry says, the most specific first: entries that are its registry
    /// or a path above its repository. In the registry's host an entry may have `*` within a label, as Kubernetes allows.
    pub fn matching(&self, reference: &Reference) -> Vec<(usize, RegistryAuth)> {
        let (host, path) = (reference.registry(), reference.repository());
        let covers = |entry: &str| {
            let (host_pattern, above) = entry.split_once('/').unwrap_or((entry, ""));
            let below = path.strip_prefix(above);
            host_matches(host_pattern, host)
                && below.is_some_and(|rest| above.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let covering = self.by_prefix.iter().filter(|(entry, _)| covers(entry));
        let said = |entry: &str| entry.len() - entry.matches('*').count();
        let mut found: Vec<_> = covering.map(|(entry, auth)| (said(entry), auth.clone())).collect();
        found.sort_by_key(|(said, _)| std::cmp::Reverse(*said));
        found
    }
}

/// Whether a host with its port is meant by a pattern: label by label, so that `*` never stands for a dot.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.split('.'), host.split('.'));
    pattern.clone().count() == host.clone().count() && pattern.zip(host).all(|(p, h)| label_matches(p, h))
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(mut left) = label.strip_prefix(before) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    true
}

/// `https://index.docker.io/v1/` and `docker.io` mean the same; other entries are a host and perhaps a path.
fn normalise_host(entry: &str) -> String {
    let entry = entry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let entry = entry.trim_end_matches("/v1").trim_end_matches("/v2");
    match entry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => entry.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let auths = RegistryAuths::from_docker_config(
            br#"{"auths":{"https://index.docker.io/v1/":{"auth":"ZG9jOnB3OjE="},
                "r.example.org:5000":{"username":"u","password":"p"},
                "r.example.org:5000/team":{"registrytoken":"tok"},"empty.example.org":{}},"credsStore":"x"}"#,
        )
        .unwrap();
        let basic = |u: &str, p: &str| RegistryAuth::Basic { username: u.to_owned(), password: p.to_owned() };
        let check = |reference: &str, expect: RegistryAuth| {
            let found = auths.matching(&reference.parse().unwrap()).into_iter().next();
            assert_eq!(found.map(|(_, auth)| auth).unwrap_or_default(), expect, "{reference}");
        };
        check("busybox", basic("doc", "pw:1"));
        check("r.example.org:5000/app", basic("u", "p"));
        check("r.example.org:5000/team/app", RegistryAuth::Bearer("tok".to_owned()));
        check("r.example.org:5000/teamwork", basic("u", "p"));
        check("empty.example.org/x", RegistryAuth::Anonymous);
        check("ghcr.io/x", RegistryAuth::Anonymous);
        for (pattern, host, expect) in [
            ("r.example.org:5000", "r.example.org:5000", true),
            ("r.example.org", "r.example.org:5000", false),
            ("*.example.org", "r.example.org", true),
            ("*.example.org", "a.r.example.org", false),
            ("*.dkr.*.example.org", "1.dkr.eu.example.org", true),
            ("r*-x.example.org", "re-xx-x.example.org", true),
            ("r*-x*.example.org", "r.example.org", false),
        ] {
            assert_eq!(host_matches(pattern, host), expect, "{pattern} {host}");
        }
        assert_eq!(format!("{:?}", basic("u", "secret")), "Basic(…)");
    }

    #[test]
    fn bad_credentials_are_refused_without_being_shown() {
        for bad in [
            &b"hunter2"[..],
            br#"{"auths":{"a":{"auth":"aHVudGVyMg=="}}}"#,
            br#"{"auths":{"a":{"auth":"*"}}}"#,
        ] {
            let error = RegistryAuths::from_docker_config(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

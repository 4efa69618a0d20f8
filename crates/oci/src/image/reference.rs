//! Names of images, read as Docker reads them: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use super::{ImageError, Result};

/// Longest `registry/repository`, as in Docker.
const MAX_NAME: usize = 255;
/// Longest tag, as in Docker.
const MAX_TAG: usize = 128;

/// A parsed, normalised name: registry and repository always, and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `latest` where nothing was written; `None` only beside a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The same repository at a digest, without a tag: how a store remembers where content came from.
    pub fn at_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }

    /// The registry is this machine: its address is a loopback address, so it is spoken to without TLS.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(v6),
            None => self.registry.split(':').next().unwrap_or(&self.registry),
        };
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|reason| ImageError::Reference { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    // A colon after the last slash starts a tag; one before it belongs to a port.
    let name_end = rest.rfind(':').filter(|&at| !rest[at..].contains('/'));
    let (name, tag) = match name_end {
        Some(at) => (&rest[..at], Some(check_tag(&rest[at + 1..])?)),
        None => (rest, None),
    };
    if name.is_empty() {
        return Err("the name is missing");
    }
    if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits would be taken for an image id");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (check_registry(first)?, path),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    check_repository(repository)?;
    let repository = match registry == "docker.io" && !repository.contains('/') {
        true => format!("library/{repository}"),
        false => repository.to_owned(),
    };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err("it is longer than 255 characters");
    }
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// Docker's rule: the first part is a host if it has a dot, a port, a capital, or is `localhost`.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<&str, &'static str> {
    const REASON: &str = "the registry is not a host name with an optional port";
    let (host, port) = if registry.starts_with('[') {
        let end = registry.find(']').ok_or(REASON)?;
        registry[1..end].parse::<std::net::Ipv6Addr>().map_err(|_| REASON)?;
        ("ipv6", registry[end + 1..].strip_prefix(':').or((end + 1 == registry.len()).then_some("0")))
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, Some("0")),
        }
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_ok = port.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
    if host.split('.').all(label) && port_ok { Ok(registry) } else { Err(REASON) }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    for part in repository.split('/') {
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("the repository must be in lower case");
        }
        let mut rest = part;
        loop {
            let word = rest.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
            if word == 0 {
                return Err(
                    "each part of the repository is letters and digits joined by `.`, `_`, `__` or `-`",
                );
            }
            rest = &rest[word..];
            let dashes = rest.bytes().take_while(|&b| b == b'-').count();
            rest = match rest {
                "" => break,
                _ if dashes > 0 => &rest[dashes..],
                _ if rest.starts_with("__") => &rest[2..],
                _ if rest.starts_with(['.', '_']) => &rest[1..],
                _ => return Err("the repository has a character that is not allowed"),
            };
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<String, &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = !tag.is_empty()
        && tag.len() <= MAX_TAG
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    ok.then(|| tag.to_owned()).ok_or("the tag must be up to 128 letters, digits, `_`, `.` or `-`")
}

/// Only sha256 is written by any registry in use, and one algorithm cannot be confused with another.
pub(crate) fn check_digest(digest: &str) -> Result<String, &'static str> {
    let hex =
        digest.strip_prefix("sha256:").ok_or("the digest must be `sha256:` and 64 hexadecimal digits")?;
    let ok = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ok.then(|| digest.to_owned()).ok_or("the digest must be `sha256:` and 64 hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised_as_docker_does() {
        let d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let at = |s: &str| s.replace("@D", &format!("@{d}"));
        let check = |input: &str, expect: Option<&str>| {
            let got = at(input).parse::<Reference>().ok().map(|r| r.to_string());
            assert_eq!(got, expect.map(at), "{input}");
        };
        check("busybox", Some("docker.io/library/busybox:latest"));
        check("busybox:1.36", Some("docker.io/library/busybox:1.36"));
        check("docker.io/busybox", Some("docker.io/library/busybox:latest"));
        check("index.docker.io/team/app", Some("docker.io/team/app:latest"));
        check("team/app:v1", Some("docker.io/team/app:v1"));
        check("localhost/x", Some("localhost/x:latest"));
        check("localhost:5000/x", Some("localhost:5000/x:latest"));
        check("localhost:5000/x/y__z/a--b:t", Some("localhost:5000/x/y__z/a--b:t"));
        check("127.0.0.1:5055/a", Some("127.0.0.1:5055/a:latest"));
        check("[::1]:5000/a", Some("[::1]:5000/a:latest"));
        check("[::1]/a", Some("[::1]/a:latest"));
        check("registry.k8s.io/redis:e2e", Some("registry.k8s.io/redis:e2e"));
        check("gcr.io/google_samples/gb-redisslave:v1", Some("gcr.io/google_samples/gb-redisslave:v1"));
        check("yado.local/guestbook:0f1e", Some("yado.local/guestbook:0f1e"));
        check("busybox@D", Some("docker.io/library/busybox@D"));
        check("busybox:1@D", Some("docker.io/library/busybox:1@D"));
        for bad in
            ["", ":latest", "Busybox", "a//b", "/a", "a/", "a_-b", "a:", "a:-x", "a@sha256:12", "a@D@D"]
        {
            check(bad, None);
        }
        for bad in
            ["a b", "é", "a.b:99999/x", "a.b:x/y", "-a.b/x", "[::g]/x", "[::1]x/y", "a___b", "..", "a/../b"]
        {
            check(bad, None);
        }
        check(&"f".repeat(64), None);
        check(&format!("a:{}", "t".repeat(129)), None);
        check(&"a".repeat(256), None);
    }

    #[test]
    fn loopback_registries() {
        let check = |input: &str, expect: bool| {
            assert_eq!(input.parse::<Reference>().unwrap().is_loopback(), expect, "{input}");
        };
        check("localhost:5000/x", true);
        check("127.3.2.1/x", true);
        check("[::1]:80/x", true);
        check("registry.localhost/x", true);
        check("busybox", false);
        check("10.0.0.1:5000/x", false);
        check("localhost.example.org/x", false);
    }

    proptest::proptest! {
        #[test]
        fn what_parses_is_a_fixed_point(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,40}") {
            if let Ok(first) = text.parse::<Reference>() {
                let again: Reference = first.to_string().parse().unwrap();
                proptest::prop_assert_eq!(&again, &first);
                proptest::prop_assert!(first.tag().is_some() || first.digest().is_some());
            }
        }

        #[test]
        fn what_is_well_formed_parses(
            registry in proptest::option::of("[a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?"),
            path in "[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?(/[a-z0-9]{1,6}){0,2}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        ) {
            // Without a registry, a first part with a dot would be one.
            let first = path.split_once('/').map_or("", |(first, _)| first);
            proptest::prop_assume!(registry.is_some() || !is_registry(first));
            let mut text = registry.iter().map(|r| format!("{r}/")).collect::<String>() + &path;
            text.extend(tag.iter().map(|t| format!(":{t}")));
            let parsed: Reference = text.parse().unwrap();
            proptest::prop_assert_eq!(parsed.registry(), registry.as_deref().unwrap_or("docker.io"));
            proptest::prop_assert!(parsed.repository().ends_with(&path));
            proptest::prop_assert_eq!(parsed.tag(), Some(tag.as_deref().unwrap_or("latest")));
        }
    }
}

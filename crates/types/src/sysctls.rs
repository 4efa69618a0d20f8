//! Kernel parameters of Pods (`securityContext.sysctls`): which of them belong to a Pod's own namespaces, which are safe
//! for its neighbours, and which a node allows besides. The lists are Kubernetes' own.

use std::fmt;
use std::str::FromStr;

/// Parameters that any Pod may set: they affect its own namespaces and nothing that others share.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The longest name.
const LONGEST_NAME: usize = 253;

/// The namespace that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// System V and POSIX inter-process communication.
    Ipc,
    /// The network.
    Net,
}

impl Namespace {
    /// The namespace of a parameter, by its name with dots; `None` where it is the whole machine's.
    pub fn of(name: &str) -> Option<Self> {
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
        if name == "kernel.sem" || ipc.iter().any(|prefix| name.starts_with(prefix)) {
            return Some(Self::Ipc);
        }
        name.starts_with("net.").then_some(Self::Net)
    }
}

/// The name with dots between its parts. It may be written with slashes, and a dot within a part (the name of a network
/// interface may have one) is then written as a slash.
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => swapped(name),
        _ => name.to_owned(),
    }
}

fn swapped(name: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// Whether a text can be a parameter's name, written either way.
pub fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    name.len() <= LONGEST_NAME && name.split(['.', '/']).all(part)
}

/// Whether any Pod may set this parameter; the name is one with dots.
pub fn is_safe(name: &str) -> bool {
    SAFE.contains(&name)
}

/// Parameters that a node allows beyond the safe ones: names, or beginnings of names that end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSysctls(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    /// What stands before `*`.
    prefix: bool,
}

/// A pattern that no node can allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is no name.
    #[error(
        "{0:?} is not the name of a kernel parameter, such as net.core.somaxconn, nor the beginning of one and *"
    )]
    Name(String),
    /// It is the machine's.
    #[error("{0} does not belong to a namespace of a Pod: setting it would change the whole machine")]
    NotNamespaced(String),
}

impl AllowedSysctls {
    /// These names, which may be written with slashes. They are taken as they are.
    pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| Pattern { text: dotted(name), prefix: false }).collect())
    }

    fn includes(&self, name: &str) -> bool {
        self.0.iter().any(|p| if p.prefix { name.starts_with(&p.text) } else { name == p.text })
    }

    /// Why a Pod may not set these parameters, of which some may be written with slashes; `None` where it may set all.
    /// A parameter of a namespace that the Pod shares with its machine is never allowed.
    pub fn refusal<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        host_network: bool,
        host_ipc: bool,
    ) -> Option<String> {
        names.into_iter().find_map(|name| {
            let name = dotted(name);
            match Namespace::of(&name) {
                _ if !is_safe(&name) && !self.includes(&name) => {
                    Some(format!("forbidden sysctl: {name:?} not allowlisted"))
                }
                Some(Namespace::Net) if host_network => {
                    Some(format!("forbidden sysctl: {name:?} not allowed with host net enabled"))
                }
                Some(Namespace::Ipc) if host_ipc => {
                    Some(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"))
                }
                Some(_) => None,
                None => Some(format!("forbidden sysctl: {name:?} not allowlisted")),
            }
        })
    }
}

impl FromStr for AllowedSysctls {
    type Err = BadPattern;

    /// Reads patterns with commas between them.
    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let patterns = words.map(|word| {
            let prefix = word.strip_suffix('*');
            let text = dotted(prefix.unwrap_or(word));
            let name = text.strip_suffix('.').filter(|_| prefix.is_some()).unwrap_or(&text);
            if !is_name(name) {
                return Err(BadPattern::Name(word.to_owned()));
            }
            // `net.*` is all of the network's.
            if Namespace::of(&text).is_none() {
                return Err(BadPattern::NotNamespaced(word.to_owned()));
            }
            Ok(Pattern { text, prefix: prefix.is_some() })
        });
        patterns.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AllowedSysctls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.0.iter().map(|p| format!("{}{}", p.text, if p.prefix { "*" } else { "" })).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_in_two_ways() {
        for (name, dots) in [
            ("net.core.somaxconn", "net.core.somaxconn"),
            ("net/core/somaxconn", "net.core.somaxconn"),
            ("net/ipv4/conf/eth0.1/rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("net.ipv4.conf.eth0/1.rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
        ] {
            assert_eq!(dotted(name), dots, "{name}");
        }
        for (name, expect) in [
            ("kernel.shm_rmid_forced", true),
            ("net/ipv4/ip_forward", true),
            ("net..x", false),
            ("Net.x", false),
            ("net.x_", false),
            ("", false),
        ] {
            assert_eq!(is_name(name), expect, "{name}");
        }
    }

    #[test]
    fn what_is_not_safe_needs_permission() {
        let check = |allowed: &str, names: &[&str], network: bool, ipc: bool, expect: Option<&str>| {
            let allowed: AllowedSysctls = allowed.parse().expect("patterns");
            let found = allowed.refusal(names.iter().copied(), network, ipc);
            assert_eq!(found.as_deref(), expect, "{allowed} {names:?}");
        };
        let safe = ["kernel.shm_rmid_forced", "net.ipv4.tcp_syncookies", "net/ipv4/ping_group_range"];
        let refused = Some("forbidden sysctl: \"net.core.somaxconn\" not allowlisted");
        check("", &safe, false, false, None);
        check("", &["net.core.somaxconn"], false, false, refused);
        check("kernel.msg*", &["kernel.msgmax", "net.core.somaxconn"], false, false, refused);
        check(
            "kernel.msg*, net.core.somaxconn",
            &["kernel.msgmax", "net/core/somaxconn"],
            false,
            false,
            None,
        );
        check("net.*", &["net.ipv4.ip_forward"], false, false, None);
        check(
            "net.*",
            &["vm.swappiness"],
            false,
            false,
            Some("forbidden sysctl: \"vm.swappiness\" not allowlisted"),
        );
        check(
            "",
            &["net.ipv4.tcp_syncookies"],
            true,
            false,
            Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"),
        );
        check(
            "kernel.sem",
            &["kernel.sem"],
            true,
            true,
            Some("forbidden sysctl: \"kernel.sem\" not allowed with host ipc enabled"),
        );
        let named = AllowedSysctls::names(["vm.swappiness"]);
        assert!(named.refusal(["vm.swappiness"], false, false).is_some(), "the machine's is never a Pod's");
    }

    #[test]
    fn patterns_are_read() {
        let wrong = |text: &str| text.parse::<AllowedSysctls>().map(|a| a.to_string());
        assert_eq!(wrong("kernel.msg*,net/core/somaxconn"), Ok("kernel.msg*,net.core.somaxconn".into()));
        assert_eq!(wrong("*"), Err(BadPattern::Name("*".into())));
        assert_eq!(wrong("net core"), Err(BadPattern::Name("net core".into())));
        assert_eq!(wrong("vm.*"), Err(BadPattern::NotNamespaced("vm.*".into())));
        assert_eq!(wrong("kernel.*"), Err(BadPattern::NotNamespaced("kernel.*".into())));
    }
}

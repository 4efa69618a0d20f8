//! Parsers of the values of `-p` and `--expose`.

use std::ops::RangeInclusive;

use crate::workload::PublishedPort;

/// Largest range of published ports. A Service lists each port, and a larger range is most likely a typing error.
const MAX_PORT_RANGE: u16 = 200;

/// Parses `[[IP:]OUTSIDE:]INSIDE[/PROTOCOL]`, where each port may be a range. The second value is the address, unless it
/// stands for all addresses or is a loopback address.
pub(super) fn published(value: &str) -> Option<(Vec<PublishedPort>, Option<String>)> {
    let (ports, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let protocol = protocol.to_uppercase();
    if !["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) {
        return None;
    }
    let (address, ports) = match ports.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((address, ports)) => (Some(address), ports),
        None if ports.matches(':').count() >= 2 => {
            let (rest, inside) = ports.rsplit_once(':')?;
            let place = rest.rfind(':')?;
            (Some(&rest[..place]), &ports[place + 1..ports.len() - inside.len() + inside.len()])
        }
        None => (None, ports),
    };
    let (outside, inside) = match ports.rsplit_once(':') {
        Some((outside, inside)) => (Some(outside).filter(|o| !o.is_empty()), inside),
        None => (None, ports),
    };
    let inside = range(inside)?;
    let outside = match outside.map(range) {
        Some(None) => return None,
        Some(Some(outside)) => Some(outside),
        None => None,
    };
    let local = address.is_some_and(|a| a.starts_with("127.") || a == "::1" || a == "localhost");
    let port = |port, target| PublishedPort { port, target, protocol: protocol.clone(), local };
    let all = match outside {
        None => inside.map(|i| port(None, i)).collect(),
        // A range of external ports for one container port: the first one is taken.
        Some(outside) if inside.len() == 1 => vec![port(Some(*outside.start()), *inside.start())],
        Some(outside) if outside.len() == inside.len() => {
            outside.zip(inside).map(|(o, i)| port(Some(o), i)).collect()
        }
        Some(_) => return None,
    };
    let other = address.filter(|a| !local && !["0.0.0.0", "::", "", "*"].contains(a)).map(Into::into);
    Some((all, other))
}

/// Parses `80`, `80/udp` or `8000-8010`.
pub(super) fn exposed(value: &str) -> Option<(RangeInclusive<u16>, String)> {
    let (ports, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let protocol = protocol.to_uppercase();
    ["TCP", "UDP", "SCTP"].contains(&protocol.as_str()).then(|| Some((range(ports)?, protocol)))?
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last && last - first < MAX_PORT_RANGE).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_docker_writes_them() {
        for (value, expect) in [
            ("80", "any->80/TCP"),
            ("8080:80", "8080->80/TCP"),
            ("53:53/udp", "53->53/UDP"),
            ("127.0.0.1:8080:80", "local 8080->80/TCP"),
            ("127.0.0.1::80", "any local ->80/TCP"),
            ("0.0.0.0:80:80", "80->80/TCP"),
            ("[::1]:80:80", "local 80->80/TCP"),
            ("[::]:80:80", "80->80/TCP"),
            ("::1:80:81", "local 80->81/TCP"),
            ("10.0.0.1:80:80", "80->80/TCP at 10.0.0.1"),
            ("8000-8001:9000-9001", "8000->9000/TCP 8001->9001/TCP"),
            ("8000-8010:80", "8000->80/TCP"),
            ("3000-3001", "any->3000/TCP any->3001/TCP"),
            ("0:80", "none"),
            ("80:", "none"),
            ("a:b", "none"),
            ("1-9000:1-9000", "none"),
            ("80/icmp", "none"),
        ] {
            let shown = published(value).map_or("none".to_string(), |(ports, other)| {
                let mut words: Vec<String> = ports
                    .iter()
                    .map(|p| {
                        let local = if p.local { "local " } else { "" };
                        match p.port {
                            Some(port) => format!("{local}{port}->{}/{}", p.target, p.protocol),
                            None => format!(
                                "any{}{local}->{}/{}",
                                if p.local { " " } else { "" },
                                p.target,
                                p.protocol
                            ),
                        }
                    })
                    .collect();
                words.extend(other.map(|o| format!("at {o}")));
                words.join(" ")
            });
            assert_eq!(shown, expect, "{value}");
        }
    }
}

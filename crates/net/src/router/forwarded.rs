//! Who sent a request, through which proxies: the `Forwarded` and `X-Forwarded-*` headers. Pure.
//!
//! What a client says of itself is worth nothing, so these headers are replaced, unless they come from a proxy in front
//! of the router that the operator named as trusted: then they are kept, and that proxy's own address is appended.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

/// Networks whose proxies are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Believes the proxies of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Whether an address lies in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The peer of a client connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The port of ours that it connected to.
    pub port: u16,
    /// Whether it is a proxy whose forwarding headers are kept.
    pub trusted: bool,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether a header says through whom a request came. `name` is in lower case.
pub fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// The client's address as far as it is known: that of the peer, or the last address in `X-Forwarded-For` that is not a
/// trusted proxy where the peer is one.
pub fn origin(headers: &HeaderMap, peer: Peer, trusted: &TrustedProxies) -> IpAddr {
    if !peer.trusted {
        return peer.address;
    }
    let mut origin = peer.address;
    let lines = headers.get_all(&X_FORWARDED_FOR).iter().rev();
    for hop in lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(',')) {
        let Some(address) = parse_hop(hop.trim()) else { break };
        origin = address;
        if !trusted.contains(address) {
            break;
        }
    }
    origin
}

/// An address, with or without a port, as proxies write it.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// Writes the forwarding headers of a request for `host`, each as a line of HTTP/1. Of those that the request has only a
/// trusted proxy's are kept.
pub fn write(out: &mut BytesMut, headers: &HeaderMap, host: &[u8], peer: Peer, origin: IpAddr) {
    let address = peer.address.to_string();
    if !peer.trusted {
        line(out, "x-forwarded-for", &[address.as_bytes()]);
        line(out, "x-real-ip", &[address.as_bytes()]);
        line(out, "x-forwarded-proto", &[b"http"]);
        line(out, "x-forwarded-port", &[peer.port.to_string().as_bytes()]);
        if !host.is_empty() {
            line(out, "x-forwarded-host", &[host]);
        }
        return;
    }
    let kept = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes()).filter(|v| !v.is_empty());
    out.put_slice(b"x-forwarded-for: ");
    joined(out, headers, &X_FORWARDED_FOR);
    out.put_slice(address.as_bytes());
    out.put_slice(b"\r\n");
    match kept(&X_REAL_IP) {
        Some(real) => line(out, "x-real-ip", &[real]),
        None => line(out, "x-real-ip", &[origin.to_string().as_bytes()]),
    }
    let proto = kept(&X_FORWARDED_PROTO).unwrap_or(b"http");
    line(out, "x-forwarded-proto", &[proto]);
    let outer = kept(&X_FORWARDED_HOST).unwrap_or(host);
    match kept(&X_FORWARDED_PORT) {
        Some(port) => line(out, "x-forwarded-port", &[port]),
        None => line(out, "x-forwarded-port", &[port_of(outer, proto, peer.port).to_string().as_bytes()]),
    }
    if !outer.is_empty() {
        line(out, "x-forwarded-host", &[outer]);
    }
    for (name, value) in headers {
        let known = [X_FORWARDED_FOR, X_REAL_IP, X_FORWARDED_PROTO, X_FORWARDED_PORT, X_FORWARDED_HOST];
        if is_forwarding(name.as_str()) && name != header::FORWARDED && !known.contains(name) {
            line(out, name.as_str(), &[value.as_bytes()]);
        }
    }
    if headers.contains_key(header::FORWARDED) {
        out.put_slice(b"forwarded: ");
        joined(out, headers, &header::FORWARDED);
        match peer.address {
            IpAddr::V4(address) => out.put_slice(format!("for={address}\r\n").as_bytes()),
            IpAddr::V6(address) => out.put_slice(format!("for=\"[{address}]\"\r\n").as_bytes()),
        }
    }
}

/// The port at which the outermost proxy was asked, where it does not say: that of the host, or the scheme's own.
fn port_of(host: &[u8], proto: &[u8], ours: u16) -> u16 {
    let host = std::str::from_utf8(host).unwrap_or_default();
    let named = host.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
    match named.and_then(|(_, port)| port.parse().ok()) {
        Some(port) => port,
        None if proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss") => 443,
        None => ours,
    }
}

/// All values of a header, each followed by a comma.
fn joined(out: &mut BytesMut, headers: &HeaderMap, name: &HeaderName) {
    for value in headers.get_all(name).iter().filter(|value| !value.is_empty()) {
        out.put_slice(value.as_bytes());
        out.put_slice(b", ");
    }
}

/// One header line.
pub fn line(out: &mut BytesMut, name: &str, value: &[&[u8]]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    value.iter().for_each(|part| out.put_slice(part));
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PROXY: &str = "10.0.0.9";

    fn check(trusted: bool, sent: &[(&'static str, &'static str)], expect: &[&str]) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let proxies = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
        let peer = Peer { address: PROXY.parse().expect("an address"), port: 8080, trusted };
        let mut out = BytesMut::new();
        write(&mut out, &headers, b"a.test", peer, origin(&headers, peer, &proxies));
        let text = String::from_utf8(out.to_vec()).expect("text");
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, expect, "{sent:?}");
    }

    #[test]
    fn what_a_client_says_of_itself_is_replaced() {
        let plain = [
            "x-forwarded-for: 10.0.0.9",
            "x-forwarded-host: a.test",
            "x-forwarded-port: 8080",
            "x-forwarded-proto: http",
            "x-real-ip: 10.0.0.9",
        ];
        check(false, &[], &plain);
        let claims = [
            ("x-forwarded-for", "203.0.113.66"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.test"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "203.0.113.66"),
            ("forwarded", "for=203.0.113.88"),
        ];
        check(false, &claims, &plain);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_appended_to() {
        check(
            true,
            &[
                ("x-forwarded-for", "192.0.2.1, 198.51.100.7"),
                ("x-forwarded-for", "10.1.1.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-prefix", "/x"),
                ("forwarded", "for=198.51.100.7;proto=https"),
            ],
            &[
                "forwarded: for=198.51.100.7;proto=https, for=10.0.0.9",
                "x-forwarded-for: 192.0.2.1, 198.51.100.7, 10.1.1.1, 10.0.0.9",
                "x-forwarded-host: a.test",
                "x-forwarded-port: 443",
                "x-forwarded-prefix: /x",
                "x-forwarded-proto: https",
                "x-real-ip: 198.51.100.7",
            ],
        );
        check(
            true,
            &[("x-forwarded-host", "shop.test:8443"), ("x-real-ip", "192.0.2.5")],
            &[
                "x-forwarded-for: 10.0.0.9",
                "x-forwarded-host: shop.test:8443",
                "x-forwarded-port: 8443",
                "x-forwarded-proto: http",
                "x-real-ip: 192.0.2.5",
            ],
        );
    }

    #[test]
    fn the_origin_is_the_last_address_that_is_not_a_proxy() {
        for (chain, expect) in [
            ("192.0.2.1, 198.51.100.7", "198.51.100.7"),
            ("192.0.2.1, 10.1.1.1", "192.0.2.1"),
            ("10.1.1.1", "10.1.1.1"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("unknown", PROXY),
            ("192.0.2.1, unknown", PROXY),
            ("", PROXY),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_static(chain));
            let proxies = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
            let peer = Peer { address: PROXY.parse().expect("an address"), port: 80, trusted: true };
            assert_eq!(origin(&headers, peer, &proxies).to_string(), expect, "{chain}");
        }
    }
}

//! Address ranges in objects.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Parses an IPv4 range of an object, such as `10.0.0.0/8`. Bits beyond the prefix are cleared; an address without a prefix
/// length is a range of one address.
pub fn parse_range(text: &str) -> Option<Ipv4Net> {
    let range = text.parse::<Ipv4Net>().ok().or_else(|| Some(text.parse::<Ipv4Addr>().ok()?.into()));
    range.map(|range| range.trunc())
}

//! Validation of IP addresses that objects specify as destinations of traffic.

use std::net::{IpAddr, Ipv4Addr};

/// Why objects may not direct traffic to `address`, in the wording of Kubernetes' validation; `None` if they may.
///
/// Unspecified, loopback, link-local and multicast addresses have a different meaning on each machine: routing to them
/// would expose services that a node keeps private (CVE-2021-25737, CVE-2020-8554). An IPv6 address that embeds an IPv4
/// address (`::ffff:a.b.c.d`, `::a.b.c.d`) is judged as the IPv4 address, since sockets treat it so.
pub fn forbidden_destination(address: IpAddr) -> Option<&'static str> {
    const UNSPECIFIED: &str = "may not be unspecified (0.0.0.0/8, ::)";
    const LOOPBACK: &str = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
    const LINK_LOCAL: &str = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
    const MULTICAST: &str = "may not be in the multicast range (224.0.0.0/4, ff00::/8)";
    const BROADCAST: &str = "may not be the broadcast address (255.255.255.255)";
    let v4 = |address: Ipv4Addr| match address {
        a if a.octets()[0] == 0 => Some(UNSPECIFIED),
        a if a.is_loopback() => Some(LOOPBACK),
        a if a.is_link_local() => Some(LINK_LOCAL),
        a if a.is_multicast() => Some(MULTICAST),
        a if a.is_broadcast() => Some(BROADCAST),
        _ => None,
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) if address.is_unspecified() => Some(UNSPECIFIED),
        IpAddr::V6(address) if address.is_loopback() => Some(LOOPBACK),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(LINK_LOCAL),
        IpAddr::V6(address) if address.is_multicast() => Some(MULTICAST),
        IpAddr::V6(address) => address.to_ipv4().and_then(v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_a_machine_keeps_to_itself_are_no_destinations() {
        for (address, why) in [
            ("0.0.0.0", "unspecified"),
            ("0.0.0.1", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("ff02::1", "multicast"),
            ("ff0e::1", "multicast"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:a9fe:a9fe", "link-local"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("::ffff:224.0.0.1", "multicast"),
            ("::127.0.0.1", "loopback"),
        ] {
            let said = forbidden_destination(address.parse().expect("an address"));
            assert!(said.is_some_and(|said| said.contains(why)), "{address}: {said:?}");
        }
        for address in
            ["10.0.0.1", "192.0.2.7", "128.0.0.1", "169.253.0.1", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert_eq!(forbidden_destination(address.parse().expect("an address")), None, "{address}");
        }
    }
}

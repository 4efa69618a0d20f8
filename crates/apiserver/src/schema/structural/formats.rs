//! Formats of texts that Kubernetes checks in custom objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::Date;

/// Whether a text has a format. Formats that Kubernetes does not know are not checked.
pub fn fits(format: &str, text: &str) -> bool {
    // Kubernetes' names are without dashes; those of OpenAPI with them mean the same.
    match format.replace('-', "").as_str() {
        "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "uri" => is_uri(text),
        "hostname" => is_hostname(text),
        "email" => is_email(text),
        "duration" => is_duration(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => is_hex_color(text),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|n| n <= most)
}

/// 6, 8 or 20 bytes, as Go's `net.ParseMAC` reads them.
fn is_mac(text: &str) -> bool {
    let is_hex =
        |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let pairs = |separator: char| {
        let parts: Vec<&str> = text.split(separator).collect();
        matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| is_hex(part, 2))
    };
    let groups: Vec<&str> = text.split('.').collect();
    pairs(':')
        || pairs('-')
        || (matches!(groups.len(), 3 | 4 | 10) && groups.iter().all(|part| is_hex(part, 4)))
}

/// With or without dashes.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let dashes_fit = text.len() == 32 || {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        lengths == [8, 4, 4, 4, 12]
    };
    let variant =
        digits.chars().nth(16).is_some_and(|c| matches!(c.to_ascii_lowercase(), '8' | '9' | 'a' | 'b'));
    digits.len() == 32
        && dashes_fit
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
        && version.is_none_or(|v| digits.chars().nth(12) == Some(v) && (v == '3' || variant))
}

/// An absolute URI or an absolute path, as Go's `url.ParseRequestURI` takes them.
fn is_uri(text: &str) -> bool {
    let is_absolute = text.split_once(':').is_some_and(|(scheme, rest)| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(inner) && !rest.is_empty()
    });
    (is_absolute || text.starts_with('/')) && !text.chars().any(|c| c.is_control() || c == ' ')
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

fn is_email(text: &str) -> bool {
    let Some((local, host)) = text.rsplit_once('@') else { return false };
    let inner = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '<' | '>' | '@' | ',');
    !local.is_empty() && local.chars().all(inner) && is_hostname(host)
}

/// A duration as Go reads it (`1h30m`, `-1.5s`), or with a space and a longer unit, as Scala writes it (`3 days`).
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 7] = ["ns", "us", "µs", "ms", "s", "m", "h"];
    const WORDS: [&str; 18] = [
        "d", "day", "days", "hour", "hours", "minute", "minutes", "min", "mins", "second", "seconds", "sec",
        "secs", "milli", "millis", "w", "week", "weeks",
    ];
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return true;
    }
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if rest[..number].parse::<f64>().is_err() {
            return false;
        }
        let unit = rest[number..].trim_start();
        let length = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let (unit, next) = unit.split_at(length);
        let spaced = WORDS.contains(&unit.trim()) && next.is_empty();
        if !UNITS.contains(&unit.trim()) && !spaced {
            return false;
        }
        rest = next;
    }
    !unsigned.is_empty()
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_checked() {
        for (format, good, bad) in [
            (
                "date-time",
                &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+01:00"][..],
                &["2026-01-02", "x"][..],
            ),
            ("date", &["2026-01-02"], &["2026-1-2", "20260102"]),
            ("ipv4", &["10.0.0.1"], &["10.0.0.256", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0/33", "10.0.0.0", "x/8"]),
            ("mac", &["00:11:22:33:44:55", "0011.2233.4455"], &["00:11:22:33:44", "gg:11:22:33:44:55"]),
            ("byte", &["aGk=", ""], &["a", "%%"]),
            (
                "uuid",
                &["6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
                &["6ba7b810", "6ba7b8109dad-11d1-80b4-00c04fd430c8"],
            ),
            ("uuid4", &["9b2d3b1e-6a5a-4c0e-9c3e-0f8f7a3f1b2c"], &["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
            ("uri", &["http://a/b?c=d", "/a", "urn:x"], &["a b", "a/b"]),
            ("hostname", &["a.b-c", "a."], &["-a", "a_b", ""]),
            ("email", &["a.b@c.de"], &["a", "a b@c", "@c"]),
            ("duration", &["1h30m", "-1.5s", "0", "3 days", "22 ns"], &["", "1", "1x", "h"]),
            ("hexcolor", &["#FFFFFF", "abc"], &["#FF", "#GGGGGG"]),
            ("of-nobody", &["anything"], &[]),
        ] {
            for text in good {
                assert!(fits(format, text), "{format} {text:?}");
            }
            for text in bad {
                assert!(!fits(format, text), "{format} {text:?}");
            }
        }
    }
}

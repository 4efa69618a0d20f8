//! IP addresses and ranges of them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::strings::text;
use crate::cel::value::{OpaqueValue, Outcome, Value};

const ONE: Price = Price::Fixed(1);
const PARSE: Price = Price::Walk { argument: 0, times: 1 };
const IP: &str = "ip.() bool";

pub const FUNCTIONS: &[Row] = &[
    Row("ip", "(string) ip; cidr.() ip", PARSE, Grows::Type, |_, args| match &args[0] {
        Value::String(text) => Ok(address(parse_ip(text)?)),
        _ => Ok(address(cidr(args, 0)?.addr())),
    }),
    Row("isIP", "(string) bool", PARSE, Grows::Type, |_, args| {
        Ok(Value::Bool(parse_ip(text(args, 0)?).is_ok()))
    }),
    Row("ip.isCanonical", "(string) bool", Price::Walk { argument: 0, times: 2 }, Grows::Type, |_, args| {
        let text = text(args, 0)?;
        Ok(Value::Bool(parse_ip(text)?.to_string() == text))
    }),
    Row("family", "ip.() int", ONE, Grows::Type, |_, args| {
        Ok(Value::Int(if ip(args, 0)?.is_ipv4() { 4 } else { 6 }))
    }),
    Row("isUnspecified", IP, ONE, Grows::Type, |_, args| Ok(Value::Bool(ip(args, 0)?.is_unspecified()))),
    Row("isLoopback", IP, ONE, Grows::Type, |_, args| Ok(Value::Bool(ip(args, 0)?.is_loopback()))),
    Row("isLinkLocalMulticast", IP, ONE, Grows::Type, |_, args| {
        Ok(Value::Bool(is_link_local_multicast(ip(args, 0)?)))
    }),
    Row("isLinkLocalUnicast", IP, ONE, Grows::Type, |_, args| Ok(Value::Bool(is_link_local(ip(args, 0)?)))),
    Row("isGlobalUnicast", IP, ONE, Grows::Type, |_, args| Ok(Value::Bool(is_global_unicast(ip(args, 0)?)))),
    Row("cidr", "(string) cidr", PARSE, Grows::Type, |_, args| {
        Ok(Value::opaque(OpaqueValue::Cidr(parse_cidr(text(args, 0)?)?)))
    }),
    Row("isCIDR", "(string) bool", PARSE, Grows::Type, |_, args| {
        Ok(Value::Bool(parse_cidr(text(args, 0)?).is_ok()))
    }),
    Row(
        "containsIP",
        "cidr.(string) bool; cidr.(ip) bool",
        Price::Walk { argument: 1, times: 1 },
        Grows::Type,
        |_, args| {
            let other = match &args[1] {
                Value::String(text) => parse_ip(text)?,
                _ => ip(args, 1)?,
            };
            Ok(Value::Bool(cidr(args, 0)?.contains(&other)))
        },
    ),
    Row(
        "containsCIDR",
        "cidr.(string) bool; cidr.(cidr) bool",
        Price::Walk { argument: 1, times: 1 },
        Grows::Type,
        contains_cidr,
    ),
    Row("prefixLength", "cidr.() int", ONE, Grows::Type, |_, args| {
        Ok(Value::Int(cidr(args, 0)?.prefix_len().into()))
    }),
    Row("masked", "cidr.() cidr", ONE, Grows::Type, |_, args| {
        Ok(Value::opaque(OpaqueValue::Cidr(cidr(args, 0)?.trunc())))
    }),
];

fn address<'a>(ip: IpAddr) -> Value<'a> {
    Value::opaque(OpaqueValue::Ip(ip))
}

fn ip(args: &[Value], index: usize) -> Result<IpAddr, EvalError> {
    match args.get(index) {
        Some(Value::Opaque(opaque)) => match **opaque {
            OpaqueValue::Ip(ip) => Ok(ip),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn cidr(args: &[Value], index: usize) -> Result<IpNet, EvalError> {
    match args.get(index) {
        Some(Value::Opaque(opaque)) => match **opaque {
            OpaqueValue::Cidr(cidr) => Ok(cidr),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn contains_cidr<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let other = match &args[1] {
        Value::String(text) => parse_cidr(text)?,
        _ => cidr(args, 1)?,
    };
    let range = cidr(args, 0)?;
    Ok(Value::Bool(range.contains(&other.network()) && range.prefix_len() <= other.prefix_len()))
}

fn is_mapped(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    let failed = |why: &str| {
        EvalError::Failed(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    };
    if text.contains('%') {
        return Err(EvalError::Failed(format!("IP address {text:?} with zone value is not allowed")));
    }
    let ip = text.parse().map_err(|_| failed(&format!("ParseAddr({text:?}): unable to parse IP")))?;
    if is_mapped(&ip) {
        return Err(EvalError::Failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(ip)
}

fn parse_cidr(text: &str) -> Result<IpNet, EvalError> {
    let failed = |why: &str| {
        let text = format!("network address parse error during conversion from string: {why}");
        EvalError::Failed(format!("network address parse error during conversion from string: {text}"))
    };
    let bad = || failed(&format!("netip.ParsePrefix({text:?}): no valid prefix"));
    let (_, length) = text.split_once('/').ok_or_else(bad)?;
    let is_plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    if !is_plain || (length.len() > 1 && length.starts_with('0')) {
        return Err(bad());
    }
    let cidr: IpNet = text.parse().map_err(|_| bad())?;
    if is_mapped(&cidr.addr()) {
        return Err(EvalError::Failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(cidr)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.octets()[0] == 0xff && v6.octets()[1] & 0x0f == 0x02,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !is_broadcast && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local(ip)
}

//! Rules for addresses and ports that several kinds share.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use yado_types::address::forbidden_destination;

use crate::edit::text;
use crate::schema::validate::{Errors, Path};

/// Transport protocols of ports.
pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Kubernetes' message for a text that is not an IP address.
pub const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// An IP address.
pub fn ip(address: &Value, at: &Path<'_>, errors: &mut Errors) {
    if text(address).parse::<IpAddr>().is_err() {
        errors.invalid(at, address, NO_ADDRESS);
    }
}

/// An address that traffic is led to.
pub fn destination(address: &Value, at: &Path<'_>, errors: &mut Errors) {
    match text(address).parse() {
        Err(_) => errors.invalid(at, address, NO_ADDRESS),
        Ok(parsed) => {
            if let Some(why) = forbidden_destination(parsed) {
                errors.invalid(at, address, why);
            }
        }
    }
}

/// Whether a text is an address and the length of a prefix, such as `10.9.8.0/24`.
pub fn is_range(text: &str) -> bool {
    text.parse::<IpNet>().is_ok()
}

/// An IANA service name.
pub fn port_name(name: &str) -> Result<(), String> {
    let problem = if name.len() > 15 {
        "must be no more than 15 characters"
    } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    } else if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        "must contain at least one letter (a-z)"
    } else if name.contains("--") {
        "must not contain consecutive hyphens"
    } else if name.starts_with('-') || name.ends_with('-') {
        "must not begin or end with a hyphen"
    } else {
        return Ok(());
    };
    Err(problem.into())
}

/// A port by number or by the name that a container gives it.
pub fn number_or_name(port: &Value, at: &Path<'_>, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.check_text(at, name, port_name(name)),
        Value::Null => errors.invalid(at, &Value::from(0), "must be between 1 and 65535, inclusive"),
        number => errors.port(at, number),
    }
}

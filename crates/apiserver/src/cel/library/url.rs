//! URLs, as Go's `url.ParseRequestURI` reads them: absolute, or an absolute path.

use std::collections::BTreeMap;

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::strings::text;
use crate::cel::value::{Key, OpaqueValue, Outcome, Text, Value};

const ONE: Price = Price::Fixed(1);
const PARSE: Price = Price::Walk { argument: 0, times: 1 };
const PART: &str = "url.() string";

pub const FUNCTIONS: &[Row] = &[
    Row("url", "(string) url", PARSE, Grows::Same, |_, args| match Url::parse(text(args, 0)?) {
        Ok(url) => Ok(Value::opaque(OpaqueValue::Url(url))),
        Err(e) => Err(EvalError::Failed(format!("URL parse error during conversion from string: {e}"))),
    }),
    Row("isURL", "(string) bool", PARSE, Grows::Type, |_, args| {
        Ok(Value::Bool(Url::parse(text(args, 0)?).is_ok()))
    }),
    Row("getScheme", PART, ONE, Grows::Same, |_, args| Ok(Value::made(&*url(args)?.scheme))),
    Row("getHost", PART, ONE, Grows::Same, |_, args| Ok(Value::made(&*url(args)?.host))),
    Row("getHostname", PART, ONE, Grows::Same, |_, args| Ok(Value::made(url(args)?.host_and_port().0))),
    Row("getPort", PART, ONE, Grows::Same, |_, args| Ok(Value::made(url(args)?.host_and_port().1))),
    Row("getEscapedPath", PART, ONE, Grows::Same, |_, args| Ok(Value::made(&*url(args)?.path))),
    Row("getQuery", "url.() map<string, list<string>>", PARSE, Grows::Same, query),
];

/// A URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: String,
    /// Name and port.
    host: String,
    /// Escaped.
    path: String,
    query: String,
    fragment: String,
}

impl Url {
    /// Reads a URL; the error is that of Go's parser.
    pub fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: String| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return failed("empty url".to_owned());
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return failed("net/url: invalid control character in URL".to_owned());
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, rest) = match scheme(rest) {
            Some(parts) => parts,
            None if text.starts_with(':') => return failed("missing protocol scheme".to_owned()),
            None => ("", rest),
        };
        if !rest.starts_with('/') && scheme.is_empty() {
            return failed("invalid URI for request".to_owned());
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
                rest.split_at(rest.find('/').unwrap_or(rest.len()))
            }
            _ => ("", rest),
        };
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if let Err(why) = check_host(host).and_then(|()| check_escapes(path)) {
            return failed(why);
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user: user.to_owned(),
            host: host.to_owned(),
            path: if rest.starts_with('/') { escape(path) } else { String::new() },
            query: query.to_owned(),
            fragment: fragment.to_owned(),
        })
    }

    fn host_and_port(&self) -> (&str, &str) {
        let name_end = self.host.rfind(']').map_or(0, |end| end + 1);
        let (name, port) = match self.host[name_end..].rfind(':') {
            Some(colon) => (&self.host[..name_end + colon], &self.host[name_end + colon + 1..]),
            None => (&*self.host, ""),
        };
        (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
    }
}

fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(inner))
        .then_some((scheme, rest))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("missing ']' in host")?.1,
        None => host.find(':').map_or("", |colon| &host[colon..]),
    };
    let is_port = port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    if !port.is_empty() && !is_port {
        return Err(format!("invalid port {port:?} after host"));
    }
    match host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => check_escapes(host),
    }
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let code = text.as_bytes().get(at + 1..at + 3);
        if !code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)) {
            let shown: String = text[at..].chars().take(3).collect();
            return Err(format!("invalid URL escape {shown:?}"));
        }
    }
    Ok(())
}

/// Escapes characters that a path must not contain literally.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                escaped.push_str(&format!("%{byte:02X}"));
            }
            byte => escaped.push(byte.into()),
        }
    }
    escaped
}

fn url<'v>(args: &'v [Value]) -> Result<&'v Url, EvalError> {
    match args.first() {
        Some(Value::Opaque(opaque)) => match &**opaque {
            OpaqueValue::Url(url) => Ok(url),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn query<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let url = url(args)?;
    meter.charge_bytes(url.query.len() * 4)?;
    let mut parameters: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.entry(unescape(name)).or_default().push(Value::made(unescape(value)));
    }
    let entries = parameters.into_iter();
    Ok(Value::map(entries.map(|(k, v)| (Key::String(Text::Shared(k.into())), Value::list(v))).collect()))
}

fn unescape(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_go_reads_them() {
        let rows = [
            (
                "https://example.com:80/path?k1=a&k2=b#f",
                Some(("https", "example.com:80", "example.com", "80", "/path")),
            ),
            ("https://[::1]:80/", Some(("https", "[::1]:80", "::1", "80", "/"))),
            ("https://[::1]", Some(("https", "[::1]", "::1", "", ""))),
            ("/path/a b", Some(("", "", "", "", "/path/a%20b"))),
            ("HTTP://u:p@h/é", Some(("http", "h", "h", "", "/%C3%A9"))),
            ("urn:isbn:1", Some(("urn", "", "", "", ""))),
            ("../relative", None),
            ("example.com", None),
            ("https://a:b/", None),
            ("https://a b/", None),
            ("https://[::1/", None),
            ("/%zz", None),
            ("", None),
            (":foo", None),
        ];
        for (text, expect) in rows {
            let url = Url::parse(text).ok();
            let parts = url.as_ref().map(|url| {
                let (name, port) = url.host_and_port();
                (&*url.scheme, &*url.host, name, port, &*url.path)
            });
            assert_eq!(parts, expect, "{text}");
        }
    }
}

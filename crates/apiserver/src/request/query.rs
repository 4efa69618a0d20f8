//! The query of a URL.

use crate::status::{Failure, Result};

/// Parameters in their order; a name may come more than once.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads `a=b&c=d`. What cannot be decoded is dropped, as Go's reader does.
    pub fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|p| !p.is_empty())
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((percent_decode(name, true)?, percent_decode(value, true)?))
            })
            .collect();
        Self { pairs }
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `true`, `1` and a bare name are true.
    pub fn is_true(&self, name: &str) -> bool {
        self.pairs.iter().any(|(n, v)| n == name && matches!(v.as_str(), "true" | "1" | "True" | "t" | ""))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name)
            .map(|v| {
                v.parse().map_err(|_| Failure::bad_request(format!("{name}: \"{v}\" is not a whole number")))
            })
            .transpose()
    }

    /// A `resourceVersion`.
    pub fn revision(&self, name: &str) -> Result<Option<u64>> {
        self.get(name)
            .map(|v| {
                v.parse().map_err(|_| {
                    Failure::bad_request(format!(
                        "{name}: Invalid value: \"{v}\": strconv.ParseUint: invalid syntax"
                    ))
                })
            })
            .transpose()
    }

    /// The text of a query with these parameters.
    pub fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let mut text = String::new();
        for (name, value) in pairs {
            if !text.is_empty() {
                text.push('&');
            }
            percent_encode(name, &mut text);
            text.push('=');
            percent_encode(value, &mut text);
        }
        text
    }
}

/// Undoes percent-encoding; `plus` reads `+` as a space, as queries do. `None` where the result is no UTF-8.
pub fn percent_decode(text: &str, plus: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'%' => {
                let digit = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
                out.push((digit(i + 1)? * 16 + digit(i + 2)?) as u8);
                i += 2;
            }
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8(out).ok()
}

/// Appends with everything but unreserved characters encoded.
pub fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_encoded() {
        let query = Query::parse("a=1&b=x%3Dy+z&c&a=2&bad=%zz&e=");
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.get("b"), Some("x=y z"));
        assert!(query.is_true("c") && !query.is_true("b"));
        assert_eq!(query.get("bad"), None);
        assert_eq!(query.get("e"), None);
        assert!(query.number("b").is_err());
        assert_eq!(Query::encode([("b", "x=y z"), ("é", "1")]), "b=x%3Dy%20z&%C3%A9=1");
    }
}

//! The query of a URL.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::status::{Failure, Result};

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

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

    /// Appends a parameter.
    pub fn push(&mut self, name: &str, value: &str) {
        self.pairs.push((name.to_owned(), value.to_owned()));
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Any value but `0` and `false`, and a bare name, are true; the first counts, as in Kubernetes
    /// (`Convert_Slice_string_To_bool`).
    pub fn is_true(&self, name: &str) -> bool {
        let first = self.pairs.iter().find(|(n, _)| n == name);
        first.is_some_and(|(_, value)| value != "0" && !value.eq_ignore_ascii_case("false"))
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
        let encoded = |text| utf8_percent_encode(text, RESERVED);
        let pairs = pairs.into_iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// Undoes percent-encoding; `plus` reads `+` as a space, as queries do. `None` where an encoded byte is malformed or the
/// result is not UTF-8.
pub fn percent_decode(text: &str, plus: bool) -> Option<String> {
    let text = if plus { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let is_byte = |code: &str| code.len() >= 2 && code.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if !text.split('%').skip(1).all(is_byte) {
        return None;
    }
    percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned)
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
        for (text, expect) in [
            ("a", true),
            ("a=", true),
            ("a=True", true),
            ("a=yes", true),
            ("a=False", false),
            ("a=0", false),
            ("b=1", false),
            ("a=0&a=1", false),
        ] {
            assert_eq!(Query::parse(text).is_true("a"), expect, "{text}");
        }
        assert_eq!(query.get("bad"), None);
        assert_eq!(query.get("e"), None);
        assert!(query.number("b").is_err());
        assert_eq!(Query::encode([("b", "x=y z"), ("é", "1")]), "b=x%3Dy%20z&%C3%A9=1");
    }
}

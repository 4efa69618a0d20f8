//! A request's parameters; pure.

use jiff::{SignedDuration, Timestamp};

use crate::logs::Options;

/// `a=1&a=2&b`, decoded.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty());
        Self(pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(n, v)| (form(n), form(v))).collect())
    }

    /// Every value of a parameter, in order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|v| !v.is_empty())
    }

    /// `1` or `true`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.all(name).any(|v| v == "1" || v == "true")
    }

    /// What a reader of logs asks for.
    pub(super) fn log_options(&self, now: Timestamp) -> Result<Options, String> {
        let number = |name: &str| match self.get(name).map(|v| (v, v.parse::<u64>())) {
            None => Ok(None),
            Some((_, Ok(number))) => Ok(Some(number)),
            Some((text, Err(_))) => {
                Err(format!("{name} must be a whole number that is not negative, not \"{text}\""))
            }
        };
        let since_time = match self.get("sinceTime") {
            None => None,
            Some(text) => {
                let time = text.parse::<Timestamp>();
                Some(time.map_err(|_| {
                    format!("sinceTime must be a time like 2026-01-02T03:04:05Z, not \"{text}\"")
                })?)
            }
        };
        let since_seconds = number("sinceSeconds")?.map(|s| i64::try_from(s).unwrap_or(i64::MAX));
        let since = match (since_time, since_seconds) {
            (Some(_), Some(_)) => return Err("at most one of sinceTime or sinceSeconds may be given".into()),
            (Some(time), None) => Some(time),
            (None, Some(seconds)) => {
                Some(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN))
            }
            (None, None) => None,
        };
        Ok(Options {
            follow: self.is_true("follow"),
            previous: self.is_true("previous"),
            tail_lines: number("tailLines")?,
            since,
            timestamps: self.is_true("timestamps"),
            limit_bytes: number("limitBytes")?,
        })
    }
}

fn form(text: &str) -> String {
    decode(&text.replace('+', " "))
}

/// Turns `%41` into `A`; what is no such code stays as it is.
pub(super) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expect: Result<Options, &str>) {
        let now = Timestamp::from_second(100).expect("a time");
        assert_eq!(Query::parse(query).log_options(now), expect.map_err(str::to_owned), "{query}");
    }

    #[test]
    fn log_options_are_read() {
        let at = |s| Timestamp::from_second(s).ok();
        check("", Ok(Options::default()));
        check(
            "follow=true&tailLines=5&timestamps=1&limitBytes=9&previous=false",
            Ok(Options {
                follow: true,
                tail_lines: Some(5),
                timestamps: true,
                limit_bytes: Some(9),
                ..Default::default()
            }),
        );
        check("sinceSeconds=40", Ok(Options { since: at(60), ..Default::default() }));
        check("sinceTime=1970-01-01T00%3A00%3A07Z", Ok(Options { since: at(7), ..Default::default() }));
        check(
            "sinceSeconds=1&sinceTime=1970-01-01T00:00:07Z",
            Err("at most one of sinceTime or sinceSeconds may be given"),
        );
        check("tailLines=-1", Err("tailLines must be a whole number that is not negative, not \"-1\""));
        check("sinceTime=x", Err("sinceTime must be a time like 2026-01-02T03:04:05Z, not \"x\""));
    }

    #[test]
    fn words_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo+%22a%26b%22%zz%e2%82%ac");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo \"a&b\"%zz€"]);
    }
}

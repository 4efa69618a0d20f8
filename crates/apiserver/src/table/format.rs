//! How times, lists and selectors look in a cell.

use jiff::Timestamp;
use serde_json::Value;

use crate::edit::list;

pub const NONE: &str = "<none>";
pub const UNKNOWN: &str = "<unknown>";

/// An age with about two significant parts: `42s`, `3m12s`, `5h`, `2d3h`, `4y100d`.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |big: i64, small: i64, units: [&str; 2]| match small {
        0 => format!("{big}{}", units[0]),
        _ => format!("{big}{}{small}{}", units[0], units[1]),
    };
    match () {
        // Clocks of two machines differ a little; more than a second is an error that should show.
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, seconds % 60, ["m", "s"]),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, minutes % 60, ["h", "m"]),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, hours % 24, ["d", "h"]),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => two(days / 365, days % 365, ["y", "d"]),
        () => format!("{}y", days / 365),
    }
}

/// The time since the RFC 3339 text in `value`.
pub fn since(value: &Value, now: Timestamp) -> String {
    match value.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(then) => duration((now - then).total(jiff::Unit::Second).map_or(0, |s| s.floor() as i64)),
        None => UNKNOWN.into(),
    }
}

/// The object's age.
pub fn age(object: &Value, now: Timestamp) -> String {
    since(&object["metadata"]["creationTimestamp"], now)
}

/// The text in `value`, else `otherwise`.
pub fn text_or<'a>(value: &'a Value, otherwise: &'a str) -> &'a str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(otherwise)
}

/// The number in `value`, else 0.
pub fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// How many entries a list or map has.
pub fn count(value: &Value) -> usize {
    value.as_object().map_or_else(|| list(value).len(), serde_json::Map::len)
}

/// `a,b,c + 2 more...`: no cell shows more than three items.
pub fn at_most_three(items: &[String], otherwise: &str) -> String {
    match items.len() {
        0 => otherwise.into(),
        1..=3 => items.join(","),
        all => format!("{} + {} more...", items[..3].join(","), all - 3),
    }
}

/// All items joined by commas.
pub fn joined(items: impl IntoIterator<Item = String>, otherwise: &str) -> String {
    let all: Vec<String> = items.into_iter().collect();
    if all.is_empty() { otherwise.into() } else { all.join(",") }
}

/// A map of labels as `a=b,c=d`, sorted.
pub fn labels(value: &Value) -> String {
    let mut pairs: Vec<String> =
        value.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", text_or(v, ""))).collect();
    pairs.sort();
    joined(pairs, NONE)
}

/// A label selector as `a=b,c in (d,e),!f`, sorted by key.
pub fn selector(value: &Value) -> String {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, v) in value["matchLabels"].as_object().into_iter().flatten() {
        terms.push((key.clone(), format!("{key}={}", text_or(v, ""))));
    }
    for expression in list(&value["matchExpressions"]) {
        let key = text_or(&expression["key"], "");
        let mut values: Vec<&str> = list(&expression["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match text_or(&expression["operator"], "") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort();
    joined(terms.into_iter().map(|(_, term)| term), NONE)
}

/// The addresses in the status of what a load balancer leads to.
pub fn balancer_addresses(status: &Value) -> String {
    let ingress = list(&status["loadBalancer"]["ingress"]).iter();
    joined(ingress.map(|i| text_or(&i["ip"], text_or(&i["hostname"], "")).to_owned()), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_what_matters() {
        let rows = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600 + 60, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (51 * 3600, "2d3h"),
            (8 * 86_400 + 3600, "8d"),
            (729 * 86_400, "729d"),
            (731 * 86_400, "2y1d"),
            (365 * 8 * 86_400 + 86_400, "8y"),
        ];
        for (seconds, expect) in rows {
            assert_eq!(duration(seconds), expect, "{seconds}");
        }
    }
}

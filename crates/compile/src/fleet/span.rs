//! Parsers of systemd's notations of time spans, memory sizes and resource limits.

/// Parses a time span such as `5min 20s`, `90` or `500ms` to seconds. `None` means unlimited: `0`, `infinity` or empty.
///
/// # Errors
///
/// A message that starts with the text, to follow `Key=`.
pub fn seconds(text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() || text == "infinity" {
        return Ok(None);
    }
    let wrong = || format!("{text} is not a valid time span, such as 90 or 1min 30s");
    let mut sum = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = rest[end..].trim_start();
        let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            "M" | "month" | "months" => 2_629_800.0,
            "y" | "year" | "years" => 31_557_600.0,
            "ms" | "msec" => 0.001,
            "us" | "usec" | "µs" => 0.000_001,
            _ => return Err(wrong()),
        };
        sum += number * unit;
        rest = rest[end..].trim_start();
    }
    Ok(Some(sum).filter(|s| *s > 0.0))
}

/// Converts a size such as `512M` to a quantity. `Some(None)` means unlimited; `None` is an invalid size.
pub fn bytes(text: &str) -> Option<Option<String>> {
    if text.is_empty() || text == "infinity" {
        return Some(None);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    digits.parse::<u64>().ok()?;
    let unit = match &text[digits.len()..] {
        "" | "B" => "",
        "K" => "Ki",
        "M" => "Mi",
        "G" => "Gi",
        "T" => "Ti",
        _ => return None,
    };
    Some(Some(format!("{digits}{unit}")))
}

/// Parses a resource limit `soft:hard`, or one number for both; -1 is unlimited.
pub fn limit(name: &str, text: &str) -> Option<(i64, i64)> {
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let one = |text: &str| -> Option<i64> {
        if text == "infinity" {
            return Some(-1);
        }
        match name {
            "CPU" => seconds(text).ok().map(|s| s.map_or(-1, |s| s.ceil() as i64)),
            "RTTIME" => seconds(text).ok().map(|s| s.map_or(-1, |s| (s * 1e6) as i64)),
            _ => {
                let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let shift = ["", "K", "M", "G", "T", "P"].iter().position(|u| *u == &text[digits.len()..])?;
                digits.parse::<i64>().ok()?.checked_mul(1 << (10 * shift))
            }
        }
    };
    Some((one(soft)?, one(hard)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_amounts_and_limits() {
        for (text, expect) in [
            ("0", Ok(None)),
            ("", Ok(None)),
            ("infinity", Ok(None)),
            ("90", Ok(Some(90.0))),
            ("5min 20s", Ok(Some(320.0))),
            ("2m", Ok(Some(120.0))),
            ("1h30min", Ok(Some(5400.0))),
            ("500ms", Ok(Some(0.5))),
            ("soon", Err(())),
            ("5 lightyears", Err(())),
            ("-5", Err(())),
        ] {
            assert_eq!(seconds(text).map_err(|_| ()), expect, "{text}");
        }
        assert_eq!(bytes("512M"), Some(Some("512Mi".into())));
        assert_eq!(bytes("infinity"), Some(None));
        assert_eq!(bytes("much"), None);
        for (name, text, expect) in [
            ("NOFILE", "1024:infinity", Some((1024, -1))),
            ("NOFILE", "65536", Some((65536, 65536))),
            ("AS", "4G", Some((4 << 30, 4 << 30))),
            ("CPU", "1min", Some((60, 60))),
            ("NOFILE", "", None),
            ("NOFILE", "1:2:3", None),
            ("NOFILE", "9223372036854775807P", None),
        ] {
            assert_eq!(limit(name, text), expect, "{name} {text}");
        }
    }
}

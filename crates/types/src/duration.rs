//! Durations as Go writes them.

const SECOND: i128 = 1_000_000_000;

/// Reads a duration as Go's `time.ParseDuration` does, like `1h30m` or `-1.5s`, in nanoseconds.
///
/// # Errors
/// Go's own message.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let (mut rest, mut sum) = (unsigned, 0i128);
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        sum = amount(whole, fraction, unit).and_then(|part| sum.checked_add(part)).ok_or_else(invalid)?;
        rest = after;
    }
    i64::try_from(if text.starts_with('-') { -sum } else { sum }).map_err(|_| invalid())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The number with these digits before and after its point, times `unit`.
fn amount(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
    // Digits beyond these are less than a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(15)];
    let part = digits(fraction)? * unit / 10i128.pow(fraction.len() as u32);
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let rows = [
            ("0", Ok(0)),
            ("1h30m", Ok(5_400_000_000_000)),
            ("-1.5s", Ok(-1_500_000_000)),
            ("+.5ms", Ok(500_000)),
            ("", Err("time: invalid duration \"\"")),
            ("-", Err("time: invalid duration \"-\"")),
            ("1", Err("time: missing unit in duration \"1\"")),
            ("1h5", Err("time: missing unit in duration \"1h5\"")),
            ("1d", Err("time: unknown unit \"d\" in duration \"1d\"")),
            ("1.2.3s", Err("time: missing unit in duration \"1.2.3s\"")),
            ("foo", Err("time: invalid duration \"foo\"")),
            ("3000000h", Err("time: invalid duration \"3000000h\"")),
        ];
        for (text, expect) in rows {
            assert_eq!(parse(text), expect.map_err(str::to_owned), "{text}");
        }
    }
}

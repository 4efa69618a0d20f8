//! Conversion of Docker's notations of memory, processors and durations to Kubernetes quantities.

/// Converts an amount of memory in Docker's notation (`512m`, `1.5g`, `64MiB`, `1073741824`) to a quantity: `512Mi`,
/// `1536Mi`. `None` if `written` is not a valid amount.
pub fn memory(written: &str) -> Option<String> {
    let bytes = bytes(written)?;
    if bytes == 0 {
        return Some("0".into());
    }
    let (amount, unit) = [(1u64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")]
        .into_iter()
        .find(|(size, _)| bytes.is_multiple_of(*size))
        .map_or((bytes, ""), |(size, unit)| (bytes / size, unit));
    Some(format!("{amount}{unit}"))
}

/// Parses an amount of memory in Docker's notation to bytes. Every unit is a power of 1024.
pub fn bytes(written: &str) -> Option<u64> {
    let text = written.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let power = match text[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << (10 * power));
    }
    let amount: f64 = digits.parse().ok()?;
    let bytes = amount * (1u64 << (10 * power)) as f64;
    (bytes.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Converts a number of processors (`0.5`, `2`) to a quantity: `500m`, `2`. `None` if it is not a number above zero.
pub fn cpus(written: &str) -> Option<String> {
    let cpus: f64 = written.trim().parse().ok()?;
    (cpus.is_finite() && cpus > 0.0 && cpus < 1e6).then(|| milli_cpus((cpus * 1000.0).round() as u64))
}

/// Thousandths of a processor as a quantity, at least `1m`, since a limit of 0 means unlimited.
pub fn milli_cpus(milli: u64) -> String {
    let milli = milli.max(1);
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// Parses a duration in Go's notation (`1m30s`, `500ms`, `1.5h`) to milliseconds.
pub fn milliseconds(written: &str) -> Option<u64> {
    let mut rest = written.trim();
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    let mut any = false;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit =
            rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| n + number);
        let amount: f64 = rest[..number].parse().ok()?;
        let scale = match &rest[number..unit] {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            "d" => 86_400e3,
            "w" => 604_800e3,
            _ => return None,
        };
        total += amount * scale;
        any = true;
        rest = &rest[unit..];
    }
    (any && total < 1e15).then(|| total.ceil() as u64)
}

/// Rounds milliseconds to whole seconds, the unit of Kubernetes, with the minimum `least`.
pub fn seconds(milliseconds: u64, least: i32) -> i32 {
    i32::try_from(milliseconds.div_ceil(1000)).unwrap_or(i32::MAX).max(least)
}

/// Counts the processors in a set such as `0-2,4`.
pub fn processors(value: &str) -> Option<u32> {
    let mut count = 0u32;
    for range in value.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // More processors than any machine has are a typing error.
        count = count.checked_add(last.checked_sub(first)? + 1).filter(|n| *n <= 4096)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_as_docker_writes_them() {
        for (written, expect) in [
            ("512m", Some("512Mi")),
            ("1.5g", Some("1536Mi")),
            ("64MiB", Some("64Mi")),
            ("1 gb", Some("1Gi")),
            ("2048k", Some("2Mi")),
            ("1073741824", Some("1Gi")),
            ("1000", Some("1000")),
            ("0", Some("0")),
            ("x", None),
            ("-1m", None),
            ("99999999999999999999g", None),
        ] {
            assert_eq!(memory(written).as_deref(), expect, "{written}");
        }
        for (written, expect) in [
            ("0.5", Some("500m")),
            ("2", Some("2")),
            ("1.25", Some("1250m")),
            ("0.0001", Some("1m")),
            ("0", None),
        ] {
            assert_eq!(cpus(written).as_deref(), expect, "{written}");
        }
        for (written, expect) in [
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("5x", None),
        ] {
            assert_eq!(milliseconds(written), expect, "{written}");
        }
    }
}

//! The canonical text of quantities: `1024Mi` is `1Gi`, `0.5` is `500m`, `1000m` is `1`.

/// Larger amounts are kept as written: they exceed what any resource has.
const MAX_NANO: i128 = (1 << 63) * NANO;
const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: [(&str, i32); 10] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0), ("m", -3), ("u", -6), ("n", -9)];

/// Nothing finer than nano is kept: it is rounded up.
fn nano(number: &str, scale_up: i128, scale_down: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.len() > 9 {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let divisor = scale_down * 10i128.pow(fraction.len() as u32);
    let scaled = digits.checked_mul(scale_up)?.checked_mul(NANO)?;
    Some(scaled / divisor + i128::from(scaled % divisor != 0))
}

/// The largest suffix that leaves a whole number.
fn decimal(nano: i128, exponent_form: bool) -> String {
    for (suffix, exponent) in DECIMAL {
        let unit = 10i128.pow((exponent + 9) as u32);
        if nano % unit == 0 {
            let mantissa = nano / unit;
            return match exponent_form && exponent != 0 {
                true => format!("{mantissa}e{exponent}"),
                false => format!("{mantissa}{suffix}"),
            };
        }
    }
    nano.to_string()
}

/// The canonical form, or `None` where the text is no quantity.
pub fn canonical(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { "-" } else { "" };
    let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    let (mut is_binary, mut is_exponent) = (false, false);
    let nano = if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        is_binary = true;
        nano(number, 1 << bits, 1)?
    } else {
        let exponent = match DECIMAL.iter().find(|(s, _)| *s == suffix) {
            Some((_, exponent)) => *exponent,
            None => {
                is_exponent = true;
                suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|e| (-9..=18).contains(e))?
            }
        };
        let power = 10i128.pow(exponent.unsigned_abs());
        if exponent < 0 { nano(number, 1, power)? } else { nano(number, power, 1)? }
    };
    if nano > MAX_NANO {
        return Some(text.to_owned());
    }
    if nano == 0 {
        return Some("0".to_owned());
    }
    // Below one Ki and for fractions of a unit a binary suffix says nothing.
    if is_binary && nano >= 1024 * NANO && nano % NANO == 0 {
        let units = nano / NANO;
        if let Some((suffix, bits)) = BINARY.iter().find(|(_, bits)| units % (1 << bits) == 0) {
            return Some(format!("{sign}{}{suffix}", units >> bits));
        }
        return Some(format!("{sign}{units}"));
    }
    Some(format!("{sign}{}", decimal(nano, is_exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_get_their_canonical_form() {
        let rows = [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("2000", "2k"),
            ("1500", "1500"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1.5Ki", "1536"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12E", "12E"),
            ("1E3", "1e3"),
            ("-1.5", "-1500m"),
            ("+1", "1"),
            ("0.1m", "100u"),
            ("64M", "64M"),
        ];
        for (text, expect) in rows {
            assert_eq!(canonical(text).as_deref(), Some(expect), "{text}");
        }
        for bad in ["", "x", "1x", "1 Gi", "1GiB", "--1", "1.2.3"] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
    }
}

//! Amounts of a resource: `100m`, `1.5`, `128Mi`, `2e3`.

use std::fmt;
use std::str::FromStr;

/// A resource quantity in billionths of a unit. Parsing rounds smaller fractions up, as Kubernetes does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nano: i128,
}

/// The text is not a valid quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', \"{0}\" does not"
)]
pub struct InvalidQuantity(String);

const NANO: i128 = 1_000_000_000;
const NANO_PER_MILLI: i128 = 1_000_000;
/// Maximum magnitude in units. No machine has more, and sums stay far from an overflow.
const MAX_UNITS: i128 = 1 << 80;
/// Amounts beyond this many units have no canonical form: they are kept as they are written.
const MAX_CANONICAL: i128 = 1 << 63;
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: [(&str, i32); 10] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0), ("m", -3), ("u", -6), ("n", -9)];

impl Quantity {
    /// The quantity of this many whole units.
    pub const fn from_units(units: i64) -> Self {
        Self { nano: units as i128 * NANO }
    }

    /// The quantity of this many thousandths of a unit.
    pub const fn from_milli(milli: i64) -> Self {
        Self { nano: milli as i128 * NANO_PER_MILLI }
    }

    /// Thousandths, rounded up, saturating.
    pub fn milli(self) -> i64 {
        rounded_up(self.nano, NANO_PER_MILLI)
    }

    /// Whole units, rounded up, saturating.
    pub fn units(self) -> i64 {
        rounded_up(self.nano, NANO)
    }

    /// Whole units; `None` where there is a fraction, or more of them than 64 bits hold.
    pub fn whole(self) -> Option<i64> {
        (self.nano % NANO == 0).then(|| i64::try_from(self.nano / NANO).ok()).flatten()
    }

    /// Units, as exactly as a floating-point number can say.
    pub fn approximately(self) -> f64 {
        self.nano as f64 / NANO as f64
    }
}

fn rounded_up(nano: i128, unit: i128) -> i64 {
    let up = nano.div_euclid(unit) + i128::from(nano.rem_euclid(unit) != 0);
    up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_add(other.nano) }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_sub(other.nano) }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |a, b| a + b)
    }
}

/// How an amount is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `Mi`.
    Binary,
    /// `m`, `M` or nothing.
    Decimal,
    /// `e6`.
    Exponent,
}

/// Billionths of a unit, without the sign, and the form that they are written in.
fn read(unsigned: &str) -> Option<(i128, Form)> {
    let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some((scaled(number, 1 << bits, 1)?, Form::Binary));
    }
    let (exponent, form) = match DECIMAL.iter().find(|(s, _)| *s == suffix) {
        Some((_, exponent)) => (*exponent, Form::Decimal),
        None => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (Some(exponent).filter(|e| (-9..=18).contains(e))?, Form::Exponent)
        }
    };
    let power = 10i128.pow(exponent.unsigned_abs());
    let nano = if exponent < 0 { scaled(number, 1, power) } else { scaled(number, power, 1) };
    Some((nano?, form))
}

fn scaled(number: &str, up: i128, down: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine places are the finest suffix. The whole part is far above every bound, and still fits.
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 24 || fraction.len() > 9 {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let divisor = down * 10i128.pow(fraction.len() as u32);
    let scaled = digits.checked_mul(up)?.checked_mul(NANO)?;
    Some(scaled / divisor + i128::from(scaled % divisor != 0))
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let read = read(unsigned).map(|(nano, _)| nano).filter(|nano| *nano <= MAX_UNITS * NANO);
        let nano = read.ok_or_else(|| InvalidQuantity(text.to_owned()))?;
        Ok(Self { nano: if text.starts_with('-') { -nano } else { nano } })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milli = self.milli();
        if milli % 1000 == 0 { write!(f, "{}", milli / 1000) } else { write!(f, "{milli}m") }
    }
}

/// The canonical text of a quantity, as Kubernetes stores it: `1024Mi` is `1Gi`, `0.5` is `500m`, `1000m` is `1`.
/// `None` where the text is not a quantity.
pub fn canonical(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { "-" } else { "" };
    let (nano, form) = read(unsigned)?;
    if nano > MAX_CANONICAL * NANO {
        return Some(text.to_owned());
    }
    if nano == 0 {
        return Some("0".to_owned());
    }
    // Below one Ki and for fractions of a unit a binary suffix says nothing.
    if form == Form::Binary && nano >= 1024 * NANO && nano % NANO == 0 {
        let units = nano / NANO;
        if let Some((suffix, bits)) = BINARY.iter().find(|(_, bits)| units % (1 << bits) == 0) {
            return Some(format!("{sign}{}{suffix}", units >> bits));
        }
        return Some(format!("{sign}{units}"));
    }
    Some(format!("{sign}{}", decimal(nano, form)))
}

/// The number with the largest suffix that leaves a whole one.
fn decimal(nano: i128, form: Form) -> String {
    for (suffix, exponent) in DECIMAL {
        let unit = 10i128.pow((exponent + 9) as u32);
        if nano % unit == 0 {
            let mantissa = nano / unit;
            return match form == Form::Exponent && exponent != 0 {
                true => format!("{mantissa}e{exponent}"),
                false => format!("{mantissa}{suffix}"),
            };
        }
    }
    nano.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly_and_rounded_up() {
        let rows = [
            ("0", 0),
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            (".5", 500),
            ("1.", 1000),
            ("128Mi", 134_217_728_000),
            ("1k", 1_000_000),
            ("2e3", 2_000_000),
            ("2E", 2_000_000_000_000_000_000_000),
            ("1e-3", 1),
            ("1n", 1),
            ("-1", -1000),
            ("+0.001", 1),
        ];
        for (text, milli) in rows {
            let read = text.parse::<Quantity>().map(|q| {
                q.nano.div_euclid(NANO_PER_MILLI) + i128::from(q.nano.rem_euclid(NANO_PER_MILLI) != 0)
            });
            assert_eq!(read, Ok(milli), "{text}");
        }
        for text in ["", "-", ".", "1x", "1 ", "m", "1ee3", "1.2.3", "99999999999999999999999999", "9999999E"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!("1.5".parse::<Quantity>().map(Quantity::units), Ok(2));
        assert_eq!("2500m".parse::<Quantity>().map(|q| q.to_string()), Ok("2500m".into()));
    }

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

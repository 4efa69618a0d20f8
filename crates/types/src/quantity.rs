//! Amounts of a resource: `100m`, `1.5`, `128Mi`, `2e3`.

use std::fmt;
use std::str::FromStr;

/// An exact amount, counted in thousandths of a unit and rounded up to one, as Kubernetes does for what is smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: i128,
}

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', \"{0}\" does not"
)]
pub struct InvalidQuantity(String);

/// Larger magnitudes are refused: no machine has them, and sums stay far from overflow.
const MAX_UNITS: i128 = 1 << 80;

impl Quantity {
    /// Whole units.
    pub const fn from_units(units: i64) -> Self {
        Self { milli: units as i128 * 1000 }
    }

    /// Thousandths of a unit.
    pub const fn from_milli(milli: i64) -> Self {
        Self { milli: milli as i128 }
    }

    /// Thousandths, saturating.
    pub fn milli(self) -> i64 {
        self.milli.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Whole units, rounded up, saturating.
    pub fn units(self) -> i64 {
        let up = self.milli.div_euclid(1000) + i128::from(self.milli.rem_euclid(1000) != 0);
        up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { milli: self.milli.saturating_add(other.milli) }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { milli: self.milli.saturating_sub(other.milli) }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |a, b| a + b)
    }
}

/// `(numerator, denominator)` of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => (10i128.pow(exponent as u32), 1),
                -9..0 => (1, 10i128.pow(exponent.unsigned_abs())),
                _ => return None,
            }
        }
    })
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(s: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity(s.to_owned());
        let (negative, unsigned) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Nine places are the finest suffix; finer digits cannot change a thousandth but by rounding up.
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 24 || fraction.len() > 9 {
            return Err(invalid());
        }
        let all: i128 = format!("0{whole}{fraction}").parse().map_err(|_| invalid())?;
        let (numerator, denominator) = scale(suffix).ok_or_else(invalid)?;
        let denominator = denominator * 10i128.pow(fraction.len() as u32);
        let scaled = all.checked_mul(numerator).and_then(|v| v.checked_mul(1000)).ok_or_else(invalid)?;
        let milli = scaled / denominator + i128::from(scaled % denominator != 0);
        if milli > MAX_UNITS * 1000 {
            return Err(invalid());
        }
        Ok(Self { milli: if negative { -milli } else { milli } })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milli % 1000 == 0 { write!(f, "{}", self.milli / 1000) } else { write!(f, "{}m", self.milli) }
    }
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
            assert_eq!(text.parse(), Ok(Quantity { milli }), "{text}");
        }
        for text in ["", "-", ".", "1x", "1 ", "m", "1ee3", "1.2.3", "99999999999999999999999999", "9999999E"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!("1.5".parse::<Quantity>().map(Quantity::units), Ok(2));
        assert_eq!("2500m".parse::<Quantity>().map(|q| q.to_string()), Ok("2500m".into()));
    }
}

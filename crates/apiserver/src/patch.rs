//! The three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch.

use serde_json::Value;

use crate::schema::Kind;

/// `Content-Type` of a JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";
/// `Content-Type` of a JSON merge patch.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// `Content-Type` of a strategic merge patch.
pub const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed but does not fit the object: 422 `Invalid`.
    #[error("{0}")]
    DoesNotApply(String),
}

/// Applies a JSON merge patch.
pub fn json_merge(_target: &mut Value, _patch: &Value) {}

/// Applies a JSON patch; on an error `target` is as it was.
pub fn json_patch(_target: &mut Value, _patch: &Value) -> Result<(), PatchError> {
    Ok(())
}

/// Applies a strategic merge patch to an object of `kind`.
pub fn strategic_merge(_kind: &Kind, _target: &mut Value, _patch: &Value) -> Result<(), PatchError> {
    Ok(())
}

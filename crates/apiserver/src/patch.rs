//! The three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch.
//!
//! All of them change a plain `Value`; the result is decoded, defaulted and validated like any object that was sent.

mod json;
mod strategic;

use serde_json::{Map, Value};

pub use json::json_patch;
pub use strategic::strategic_merge;

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
    /// An operation of a JSON patch does not fit the object, or exceeds a bound: 422 `Invalid`.
    #[error("patch[{index}]: {operation} {path:?}: {reason}")]
    Operation {
        /// Its place in the patch, from 0.
        index: usize,
        /// Its name, like `add`.
        operation: &'static str,
        /// Its path.
        path: String,
        /// Why it does not apply.
        reason: String,
        /// It is a test of a place that there may be, which found another value there or none.
        is_failed_test: bool,
    },
}

/// Applies a JSON merge patch.
pub fn json_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.shift_remove(key);
        } else {
            json_merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches_follow_the_rfc() {
        let rows = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [2, 3]})),
            (json!({"a": "x"}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
            (json!({}), json!([1]), json!([1])),
        ];
        for (mut target, patch, expect) in rows {
            json_merge(&mut target, &patch);
            assert_eq!(target, expect, "{patch}");
        }
    }
}

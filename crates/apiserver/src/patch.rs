//! The three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch.
//!
//! All of them change a plain `Value`; the result is decoded, defaulted and validated like any object that was sent.

mod strategic;

use serde_json::{Map, Value};

pub use strategic::strategic_merge;

/// `Content-Type` of a JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";
/// `Content-Type` of a JSON merge patch.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// `Content-Type` of a strategic merge patch.
pub const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";

/// A JSON patch of more steps is refused, as Kubernetes does: each may copy the whole object.
const MAX_JSON_PATCH_STEPS: usize = 10_000;

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

/// Applies a JSON patch; on an error `target` is as it was.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let steps: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    if steps.0.len() > MAX_JSON_PATCH_STEPS {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_STEPS}, got {}",
            steps.0.len()
        )));
    }
    json_patch::patch(target, &steps.0).map_err(|e| PatchError::DoesNotApply(e.to_string()))
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

    #[test]
    fn json_patches_apply_whole_or_not_at_all() {
        let object = json!({"metadata": {"labels": {"a": "b"}}, "list": [1, 2]});
        let rows = [
            (
                json!([{"op": "add", "path": "/list/-", "value": 3}, {"op": "remove", "path": "/metadata"}]),
                Ok(json!({"list": [1, 2, 3]})),
            ),
            (
                json!([{"op": "replace", "path": "/metadata/labels/a", "value": "c"}]),
                Ok(json!({"metadata": {"labels": {"a": "c"}}, "list": [1, 2]})),
            ),
            (
                json!([{"op": "remove", "path": "/list"}, {"op": "test", "path": "/metadata/labels/a", "value": "x"}]),
                Err(false),
            ),
            (json!([{"op": "remove", "path": "/none"}]), Err(false)),
            (json!([{"op": "jump"}]), Err(true)),
            (json!({"a": 1}), Err(true)),
        ];
        for (patch, expect) in rows {
            let mut target = object.clone();
            match (json_patch(&mut target, &patch), expect) {
                (Ok(()), Ok(expect)) => assert_eq!(target, expect),
                (Err(error), Err(malformed)) => {
                    assert_eq!(matches!(error, PatchError::Malformed(_)), malformed, "{patch}: {error}");
                    assert_eq!(target, object);
                }
                (got, expect) => panic!("{patch}: {got:?} for {expect:?}"),
            }
        }
    }
}

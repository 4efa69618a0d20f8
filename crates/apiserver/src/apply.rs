//! Server-side apply: who owns which field, and what an apply of a few fields makes of an object.

use jiff::Timestamp;
use serde_json::Value;

use crate::schema::Kind;

/// `Content-Type` of an apply in YAML (or JSON, which is YAML).
pub const APPLY_YAML: &str = "application/apply-patch+yaml";

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager: the `fieldManager` parameter, else the user agent up to its first `/`.
    pub manager: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// Now.
    pub time: Timestamp,
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it, as in `"kubectl" using apps/v1`.
    pub owner: String,
    /// The field, like `.spec.replicas`.
    pub field: String,
}

/// Why an apply fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that it would change: 409 `Conflict`, with one cause `FieldManagerConflict` per conflict.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration cannot be applied: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
}

fn conflict_text(_conflicts: &[Conflict]) -> String {
    String::new()
}

/// The `details.causes` of the Status for these conflicts.
pub fn conflict_causes(_conflicts: &[Conflict]) -> Value {
    Value::Null
}

/// What `config`, applied by `writer`, makes of `live` (`None`: it does not exist yet). The result carries new
/// `managedFields`; with `force` the writer takes over what others own. Where nothing changes, the result equals `live`
/// (times of managers too), so that the caller can skip the write. Defaults are not filled in: pass `config` decoded but
/// not defaulted, and default the result.
pub fn apply(
    _kind: &Kind,
    _live: Option<&Value>,
    config: &Value,
    _writer: Writer<'_>,
    _force: bool,
) -> Result<Value, ApplyError> {
    Ok(config.clone())
}

/// Brings `managedFields` of `new` up to date after any write that is no apply: what changed since `old` is owned by
/// `writer` from now on. `new` should be defaulted already. A `new` whose `managedFields` is `[{}]` or `[]` where `old`
/// had some resets ownership, as Kubernetes does.
pub fn track_update(_kind: &Kind, _old: Option<&Value>, _new: &mut Value, _writer: Writer<'_>) {}

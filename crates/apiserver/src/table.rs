//! `meta.k8s.io/v1` Tables: the columns that kubectl prints.

use jiff::Timestamp;
use serde_json::Value;

use crate::schema::Kind;

/// What each row carries of its object; the `includeObject` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; empty is `Metadata`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Metadata" => Self::Metadata,
            "None" => Self::None,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

/// `columnDefinitions` of the kind's Tables.
pub fn columns(_kind: &Kind) -> Value {
    Value::Null
}

/// One entry of `rows`.
pub fn row(_kind: &Kind, _object: &Value, _include: IncludeObject, _now: Timestamp) -> Value {
    Value::Null
}

/// A whole Table. `metadata` is the list's (or, for a single object, its `resourceVersion`); `with_columns` is false for
/// every watch event but the first.
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: IncludeObject,
    now: Timestamp,
    with_columns: bool,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|o| row(kind, o, include, now)).collect();
    let columns = if with_columns { columns(kind) } else { Value::Array(Vec::new()) };
    serde_json::json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    })
}

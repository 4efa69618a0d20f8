//! OpenAPI v3, per group and version, as kubectl reads it for `explain`, `apply` and `--validate`.

use serde_json::Value;

/// `/openapi/v3`: where the documents are.
pub fn index() -> Value {
    Value::Null
}

/// `/openapi/v3/api/v1` for `("", "v1")`, `/openapi/v3/apis/apps/v1` for `("apps", "v1")`: the JSON text. It takes
/// milliseconds and up to a MiB; keep it compressed if at all.
pub fn document(_group: &str, _version: &str) -> Option<Vec<u8>> {
    None
}

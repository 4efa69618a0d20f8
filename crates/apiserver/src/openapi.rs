//! OpenAPI v3, per group and version, as kubectl reads it for `explain`, `apply` and `--validate`.
//!
//! Shapes and descriptions come from `k8s-openapi`; list types and merge keys are added from the table of fields. A
//! document is made when asked for and not kept here: it is large and seldom read.

mod paths;
mod schemas;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::schema::KINDS;

/// Changes whenever a document may have: with the table of fields and with the version.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    (include_str!("schema/fields.txt"), env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    for kind in KINDS {
        (kind.group, kind.version, kind.kind, kind.subresources).hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
});

/// A text for `ETag` and for the `hash` parameter of the index: equal as long as the documents are.
pub fn hash() -> &'static str {
    &HASH
}

/// `/openapi/v3`: where the documents are.
pub fn index() -> Value {
    let mut paths = Map::new();
    for kind in KINDS.iter().filter(|k| k.is_stored()) {
        let path = paths::root(kind.group, kind.version);
        let url = format!("/openapi/v3{path}?hash={}", *HASH);
        paths.insert(path.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` for `("", "v1")`, `/openapi/v3/apis/apps/v1` for `("apps", "v1")`: the JSON text. It takes
/// milliseconds and up to a MiB; keep it compressed if at all.
pub fn document(group: &str, version: &str) -> Option<Vec<u8>> {
    let kinds: Vec<_> =
        KINDS.iter().filter(|k| k.is_stored() && k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return None;
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths::paths(&kinds),
        "components": {"schemas": schemas::schemas(&kinds)},
    });
    // A Value whose keys are text always has a JSON text.
    serde_json::to_vec(&document).ok()
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;

//! OpenAPI v3, per group and version, as kubectl reads it for `explain`, `apply` and `--validate`. Version 2, which
//! older clients read, is made of it in [`v2`].
//!
//! Shapes and descriptions come from `k8s-openapi`; list types and merge keys are added from the table of fields. A
//! document is made when asked for and not kept here: it is large and seldom read.

mod paths;
mod schemas;
pub mod v2;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::resource::Resources;
use crate::schema::Kind;

/// The version of the API, as the documents give it.
const VERSION: &str = "v1.36.0";

/// A text for the `hash` parameter of the index, equal as long as the document of these kinds is: it changes with the
/// kinds, with the table of fields, with the code that makes documents and with the version.
fn hash<'a>(kinds: impl Iterator<Item = &'a Kind>) -> String {
    static TABLE: LazyLock<u64> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        let code = [
            include_str!("openapi/paths.rs"),
            include_str!("openapi/schemas.rs"),
            include_str!("openapi/v2.rs"),
            include_str!("openapi/v2/protobuf.rs"),
            include_str!("convert/removed.rs"),
        ];
        (include_str!("schema/fields.txt"), code, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        hasher.finish()
    });
    let mut hasher = DefaultHasher::new();
    TABLE.hash(&mut hasher);
    for kind in kinds {
        (&kind.group, &kind.version, &kind.kind, &kind.subresources).hash(&mut hasher);
        kind.custom.as_ref().map(|custom| custom.written()).hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

/// The groups and versions that have kinds of their own, in the order of the registry.
fn versions(served: &Resources) -> Vec<(&str, &str)> {
    let mut versions: Vec<(&str, &str)> = Vec::new();
    for r in served.iter().filter(|r| r.is_stored()) {
        if !versions.contains(&(&r.group, &r.version)) {
            versions.push((&r.group, &r.version));
        }
    }
    versions
}

/// `/openapi/v3`: where the documents are.
pub fn index(served: &Resources) -> Value {
    let mut paths = Map::new();
    for (group, version) in versions(served) {
        let path = paths::root(group, version);
        let hash = tag(served, group, version).unwrap_or_default();
        let url = format!("/openapi/v3{path}?hash={hash}");
        paths.insert(path.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}));
    }
    for service in served.all_aggregated() {
        let path = paths::root(&service.group, &service.version);
        if let Some(url) = &service.openapi {
            paths.insert(path.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// A text that is equal as long as the document of this group and version is; `None` where there is none.
pub fn tag(served: &Resources, group: &str, version: &str) -> Option<String> {
    let mut kinds =
        served.of_version(group, version).filter(|r| r.is_stored()).map(|r| &*r.schema).peekable();
    kinds.peek()?;
    Some(hash(kinds))
}

/// `/openapi/v3/api/v1` for `("", "v1")`, `/openapi/v3/apis/apps/v1` for `("apps", "v1")`: the JSON text. It takes
/// milliseconds and up to a MiB; keep it compressed if at all.
pub fn document(served: &Resources, group: &str, version: &str) -> Option<Vec<u8>> {
    let kinds: Vec<&Kind> =
        served.of_version(group, version).filter(|r| r.is_stored()).map(|r| &*r.schema).collect();
    if kinds.is_empty() {
        return None;
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths::paths(&kinds),
        "components": {"schemas": schemas::schemas(&kinds)},
    });
    // A Value whose keys are text always has a JSON text.
    serde_json::to_vec(&document).ok()
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;

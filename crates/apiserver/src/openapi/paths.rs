//! Paths and their operations.

use serde_json::{Map, Value, json};

use super::schemas::{META, PREFIX, definition_name, list_name};
use crate::schema::{Kind, find};

/// `/api/v1` or `/apis/apps/v1`.
pub fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// The paths of these kinds, all of one group and version.
pub fn paths(kinds: &[&Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let root = root(&kind.group, &kind.version);
        let collection = match kind.namespaced {
            true => format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
            false => format!("{root}/{}", kind.plural),
        };
        if kind.namespaced {
            let everywhere = json!({"get": operation(kind, kind, "list", "ForAllNamespaces")});
            paths.insert(format!("{root}/{}", kind.plural), everywhere);
        }
        let mut item = json!({
            "get": operation(kind, kind, "list", ""),
            "post": operation(kind, kind, "post", ""),
            "delete": operation(kind, kind, "deletecollection", ""),
        });
        item["parameters"] = path_parameters(kind, false);
        paths.insert(collection.clone(), item);
        let item_path = format!("{collection}/{{name}}");
        paths.insert(item_path.clone(), one(kind, kind, "", true));
        for subresource in &kind.subresources {
            let of: &Kind = match &**subresource {
                "status" => kind,
                "scale" => find("autoscaling", "v1", "Scale").map_or(kind, |kind| &**kind),
                // What connects to a node or takes a body of its own kind is not described.
                _ => continue,
            };
            let mut suffix = subresource.to_string();
            suffix[..1].make_ascii_uppercase();
            paths.insert(format!("{item_path}/{subresource}"), one(kind, of, &suffix, false));
        }
    }
    paths
}

fn one(kind: &Kind, body: &Kind, suffix: &str, whole: bool) -> Value {
    let mut item = Map::new();
    for action in ["get", "put", "patch"] {
        item.insert(action.into(), operation(kind, body, action, suffix));
    }
    if whole {
        item.insert("delete".into(), operation(kind, body, "delete", suffix));
    }
    item.insert("parameters".into(), path_parameters(kind, true));
    Value::Object(item)
}

fn path_parameters(kind: &Kind, named: bool) -> Value {
    let parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let names = [(kind.namespaced, "namespace"), (named, "name")];
    names.iter().filter(|(there, _)| *there).map(|(_, name)| parameter(name)).collect()
}

fn operation(kind: &Kind, body: &Kind, action: &str, suffix: &str) -> Value {
    let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    let verb = match action {
        "get" => "read",
        "post" => "create",
        "put" => "replace",
        other => other,
    };
    let mut id = [group, &*kind.version].concat();
    id[..1].make_ascii_uppercase();
    let scope = if kind.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    let reference = |name: &str| json!({"$ref": format!("{PREFIX}{name}")});
    let schema = reference(&definition_name(body));
    let answer = match action {
        "list" => reference(&list_name(kind)),
        "delete" | "deletecollection" => reference(&format!("{META}Status")),
        _ => schema.clone(),
    };
    let query: Value = query_names(action).iter().map(|name| query_parameter(name)).collect();
    let mut operation = json!({
        "operationId": format!("{verb}{id}{scope}{}{suffix}", kind.kind),
        "tags": [format!("{group}_{}", kind.version)],
        "parameters": query,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": body.group, "version": body.version, "kind": body.kind},
    });
    match action {
        "post" | "put" => {
            operation["requestBody"] = json!({"content": {"*/*": {"schema": schema}}, "required": true});
        }
        "patch" => {
            let patch = json!({"schema": reference(&format!("{META}Patch"))});
            // kubectl sends a strategic merge patch wherever one is offered, and custom kinds have none.
            let strategic = kind.custom.is_none().then_some("strategic-merge-patch+json");
            let types = ["json-patch+json", "merge-patch+json"].into_iter().chain(strategic);
            let content: Map<String, Value> = types
                .chain(["apply-patch+yaml"])
                .map(|kind| (format!("application/{kind}"), patch.clone()))
                .collect();
            operation["requestBody"] = json!({"content": content, "required": true});
        }
        "delete" | "deletecollection" => {
            let options = json!({"schema": reference(&format!("{META}DeleteOptions"))});
            operation["requestBody"] = json!({"content": {"*/*": options}});
        }
        _ => {}
    }
    operation
}

/// The query parameters of an action.
fn query_names(action: &str) -> &'static [&'static str] {
    match action {
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
        "list" | "deletecollection" => &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        _ => &[],
    }
}

fn query_parameter(name: &str) -> Value {
    let kind = match name {
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

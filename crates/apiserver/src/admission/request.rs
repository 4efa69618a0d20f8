//! The description of a write under review, as webhooks and expressions see it.

use serde_json::{Map, Value, json};

use super::Review;
use crate::write::context::Operation;

/// The name of an operation in rules and reviews.
pub(super) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}

/// Whether the write is one of a Namespace itself.
pub(super) fn is_namespace(review: &Review<'_>) -> bool {
    review.ctx.resource.group.is_empty() && review.ctx.resource.plural == "namespaces"
}

/// The namespace of the request. A Namespace that is there already lies in itself.
pub(super) fn namespace<'a>(review: &Review<'a>) -> &'a str {
    let is_own = is_namespace(review) && review.ctx.operation != Operation::Create;
    if is_own { review.name } else { review.namespace }
}

/// An `AdmissionRequest` without its UID and its objects.
pub(super) fn request(review: &Review<'_>) -> Map<String, Value> {
    let (ctx, resource) = (review.ctx, review.ctx.resource);
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let place = json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let subresource = ctx.subresource.map(|s| s.name()).unwrap_or_default();
    let options = match ctx.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut options = Map::from_iter([
        ("apiVersion".to_owned(), json!("meta.k8s.io/v1")),
        ("kind".to_owned(), json!(options)),
    ]);
    if ctx.dry_run {
        options.insert("dryRun".into(), json!(["All"]));
    }
    let mut request = Map::new();
    let mut set = |key: &str, value: Value| _ = request.insert(key.to_owned(), value);
    set("kind", kind.clone());
    set("resource", place.clone());
    set("requestKind", kind);
    set("requestResource", place);
    if !subresource.is_empty() {
        set("subResource", subresource.into());
        set("requestSubResource", subresource.into());
    }
    set("name", review.name.into());
    if !namespace(review).is_empty() {
        set("namespace", namespace(review).into());
    }
    set("operation", operation(ctx.operation).into());
    set("userInfo", ctx.user.user_info());
    set("dryRun", ctx.dry_run.into());
    set("options", Value::Object(options));
    request
}

//! The description of a write under review, as webhooks and expressions see it.

use serde_json::{Map, Value, json};

use super::Review;
use super::subject::kind_of;
use crate::resource::Resource;
use crate::write::context::Operation;

/// The name of an operation in rules and reviews.
pub(super) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
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

/// An `AdmissionRequest` without its UID and its objects, for a rule that names the write as one of `matched`.
pub(super) fn request(review: &Review<'_>, matched: &Resource) -> Map<String, Value> {
    let ctx = review.ctx;
    let kind = |resource: &Resource| {
        let (group, version, kind) = kind_of(ctx, resource);
        json!({"group": group, "version": version, "kind": kind})
    };
    let place = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let subresource = ctx.subresource.map(|s| s.name()).unwrap_or_default();
    let mut request = Map::new();
    let mut set = |key: &str, value: Value| _ = request.insert(key.to_owned(), value);
    set("kind", kind(matched));
    set("resource", place(matched));
    set("requestKind", kind(ctx.requested));
    set("requestResource", place(ctx.requested));
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
    set("options", options(ctx.operation, ctx.dry_run));
    request
}

/// The options of the request; null for a connection, which has them as its object.
fn options(operation: Operation, dry_run: bool) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

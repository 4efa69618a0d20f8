//! The eviction of a Pod: a deletion that may be refused.

use http::Response;

use super::binding::created;
use crate::content::{self, Body};
use crate::kinds::strategy::Posted;
use crate::object::meta;
use crate::request::DeleteOptions;
use crate::schema;
use crate::status::{Failure, Result};
use crate::write::context::{Operation, WriteContext};

/// Deletes a Pod; disruption budgets, which could refuse it, do not exist here.
pub async fn evict(ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
    let kind = schema::find("policy", "v1", "Eviction").ok_or_else(Failure::no_such_resource)?;
    let (eviction, warnings) = posted.decode(kind)?;
    let (r, named) = (posted.request, meta(&eviction, "name"));
    if !named.is_empty() && named != r.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let eviction = ctx.server.admit_body(ctx, (&r.namespace, &r.name), eviction).await?;
    let mut options = DeleteOptions { dry_run: ctx.dry_run, ..Default::default() };
    if eviction["deleteOptions"].is_object() {
        options.merge_body(&eviction["deleteOptions"])?;
    }
    let ctx = ctx.with_operation(Operation::Delete);
    ctx.server.delete_object(&ctx, &r.namespace, &r.name, &options).await?;
    let mut response = created();
    content::warn(&mut response, &warnings);
    Ok(response)
}

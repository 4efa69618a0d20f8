//! The subject of a rule: the objects of a write in the version of the resource that the rule names, and the way back from what
//! was made of them.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

use super::Review;
use crate::content;
use crate::kinds::scale;
use crate::resource::{Resource, Subresource};
use crate::schema::{self, FieldValidation, Kind, Parsed};
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

/// The resource by which a rule names a write.
#[derive(Clone)]
pub(super) enum Matched<'r> {
    /// The one of the request.
    Requested(&'r Resource),
    /// Another version of it.
    Equivalent(Arc<Resource>),
}

impl Deref for Matched<'_> {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        match self {
            Self::Requested(resource) => resource,
            Self::Equivalent(resource) => resource,
        }
    }
}

/// Group, version and kind of the objects that a rule for this resource is about.
pub(super) fn kind_of<'r>(ctx: &WriteContext<'_>, resource: &'r Resource) -> (&'r str, &'r str, &'r str) {
    let own = (&*resource.group, &*resource.version, &*resource.kind);
    ctx.subresource.and_then(|part| part.kind(&resource.plural)).unwrap_or(own)
}

/// The kind of what is sent to a subresource, where it is not the object's own.
pub(super) fn body_kind(ctx: &WriteContext<'_>) -> Result<Option<&'static Kind>> {
    let kind = ctx.subresource.and_then(|part| part.kind(&ctx.resource.plural));
    let Some((group, version, kind)) = kind else { return Ok(None) };
    schema::find(group, version, kind).map(|kind| Some(&**kind)).ok_or_else(Failure::no_such_resource)
}

/// The objects of a write.
pub(super) struct Subject<'v> {
    object: Option<Cow<'v, Value>>,
    old: Option<Cow<'v, Value>>,
}

impl<'v> Subject<'v> {
    /// Those after (`object`) and before a write, as a rule for the resource `matched` names them.
    ///
    /// # Errors
    /// Where a conversion webhook fails.
    pub(super) async fn of(
        review: &Review<'v>,
        matched: &Resource,
        object: Option<&'v Value>,
    ) -> Result<Self> {
        let mut shown = [None, None];
        for (given, shown) in [object, review.old].into_iter().zip(&mut shown) {
            let Some(given) = given else { continue };
            *shown = Some(show(review.ctx, matched, given).await?);
        }
        let [object, old] = shown;
        Ok(Self { object, old })
    }

    /// The object after the write; `None` for a deletion.
    pub(super) fn object(&self) -> Option<&Value> {
        self.object.as_deref()
    }

    /// The object before the write; `None` for a creation.
    pub(super) fn old(&self) -> Option<&Value> {
        self.old.as_deref()
    }
}

async fn show<'v>(ctx: &WriteContext<'_>, matched: &Resource, value: &'v Value) -> Result<Cow<'v, Value>> {
    match ctx.subresource {
        Some(Subresource::Scale) => Ok(Cow::Owned(scale::of(ctx.resource, value)?)),
        Some(part) if part.kind(&ctx.resource.plural).is_some() => Ok(Cow::Borrowed(value)),
        _ => ctx.server.shown_as(matched, value).await,
    }
}

/// The object of a write after `changed` was made of its form for a rule: decoded, with its defaults. `current` is the one before
/// that change.
///
/// # Errors
/// Where it is no object of its kind any more, or a conversion webhook fails.
pub(super) async fn accept(
    ctx: &WriteContext<'_>,
    matched: &Resource,
    changed: Value,
    current: &Value,
    validation: FieldValidation,
) -> Result<Value> {
    if let Some(kind) = body_kind(ctx)? {
        let parsed = Parsed { value: changed, duplicates: Vec::new() };
        let (mut body, _) = content::decode(kind, parsed, validation)?;
        if ctx.subresource != Some(Subresource::Scale) {
            schema::default_object(kind, &mut body);
            return Ok(body);
        }
        let mut object = current.clone();
        scale::set_replicas(ctx.resource, &mut object, scale::replicas(&body));
        return Ok(object);
    }
    let resources = (matched, ctx.resource);
    let mut object = ctx.server.decided_from(resources, changed, validation).await?;
    schema::default_object(&ctx.resource.schema, &mut object);
    Ok(object)
}

//! Update: what a whole new object makes of the one there is.

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::Value;

use super::{Decision, Outcome, refuse_invalid};
use crate::apply::{self, Writer};
use crate::content::{self, Body};
use crate::convert;
use crate::edit::copy;
use crate::kinds::scale;
use crate::object::{Object, has_finalizers, is_terminating, meta, remove_meta, set_meta};
use crate::request::{ApiRequest, WriteOptions};
use crate::resource::{Resource, Subresource};
use crate::schema::{self, Parsed};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

impl Inner {
    pub(super) async fn update(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        options: &WriteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let parsed = content::parse(headers, body)?;
        if r.subresource == Some(Subresource::Scale) {
            return self.update_scale(ctx, r, options, parsed).await;
        }
        let (mut object, warnings) = off_worker(body.len(), || self.decode(&r.resource, parsed, options))?;
        if meta(&object, "name") != r.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta(&object, "name"),
                r.name
            )));
        }
        convert::default_deciding(&r.resource, &mut object);
        let writer = Some(self.writer(ctx, options, r.subresource));
        let outcome = self
            .modify(ctx, (&r.namespace, &r.name), body.len(), |current| {
                self.replace(ctx, current, object.clone(), writer)
            })
            .await?;
        let mut response = self.answer(r, 200, outcome.object().clone());
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Decides the update of `current` to `new`.
    pub(crate) fn replace(
        &self,
        ctx: &WriteContext<'_>,
        current: &Object,
        mut new: Value,
        writer: Option<Writer<'_>>,
    ) -> Result<Decision> {
        let resource = ctx.resource;
        let old = current.value();
        let old = &*old;
        check_version(resource, current, &new)?;
        if resource.namespaced {
            match meta(&new, "namespace") {
                "" => set_meta(&mut new, "namespace", old["metadata"]["namespace"].clone()),
                given if given == meta(old, "namespace") => {}
                _ => {
                    return Err(Failure::bad_request(
                        "the namespace of the provided object does not match the namespace sent on the request",
                    ));
                }
            }
        }
        self.complete_update(ctx, &mut new, old)?;
        if let Some(writer) = writer {
            apply::track_update(&resource.schema, Some(old), &mut new, writer);
        }
        if may_go(resource, &new) {
            return Ok(Decision::Delete);
        }
        if new == *old {
            return Ok(Decision::Keep);
        }
        Ok(Decision::Put(new))
    }

    /// Makes the new state of `old` complete, and checks it.
    pub(crate) fn complete_update(&self, ctx: &WriteContext<'_>, new: &mut Value, old: &Value) -> Result<()> {
        let (resource, strategy) = (ctx.resource, ctx.resource.strategy());
        keep_system_fields(old, new);
        match ctx.subresource {
            Some(part @ (Subresource::Status | Subresource::Finalize | Subresource::Approval)) => {
                strategy.prepare_for_subresource(part, new, old);
            }
            _ if resource.has(Subresource::Status) => {
                _ = new.as_object_mut().map(|new| copy(old, new, "status"));
            }
            _ => {}
        }
        if ctx.subresource != Some(Subresource::Finalize) {
            strategy.prepare_for_update(ctx, new, old)?;
            schema::default_object(&resource.schema, new);
        }
        if ctx.subresource.is_none() {
            strategy.after_defaults(ctx, new, Some(old))?;
        }
        if strategy.counts_generations() && differs(old, new) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            set_meta(new, "generation", generation.into());
        }
        let errors = schema::validate_object(&resource.schema, new, Some(old));
        refuse_invalid(resource, meta(old, "name"), errors)?;
        set_meta(new, "resourceVersion", old["metadata"]["resourceVersion"].clone());
        Ok(())
    }

    async fn update_scale(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        options: &WriteOptions,
        parsed: Parsed,
    ) -> Result<Response<Body>> {
        let (wanted, warnings) = content::decode(scale::kind()?, parsed, options.field_validation)?;
        let outcome = self.rescale(ctx, r, options, |_| Ok(wanted.clone())).await?;
        let mut response = content::value(200, &scale::of(ctx.resource, &outcome.object().value())?);
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Sets the replicas that `wanted` makes of the present Scale; what it returns has been decoded.
    pub(super) async fn rescale(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        options: &WriteOptions,
        mut wanted: impl FnMut(Value) -> Result<Value>,
    ) -> Result<Outcome> {
        let writer = Some(self.writer(ctx, options, r.subresource));
        self.modify(ctx, (&r.namespace, &r.name), 0, |current| {
            let old = current.value();
            let scale = wanted(scale::of(ctx.resource, &old)?)?;
            check_version(ctx.resource, current, &scale)?;
            check_place(r, &scale)?;
            let kind = scale::kind()?;
            content::refuse_invalid(kind, &r.name, &schema::validate_object(kind, &scale, None))?;
            let mut new = Value::clone(&old);
            scale::set_replicas(ctx.resource, &mut new, scale::replicas(&scale));
            self.replace(ctx, current, new, writer)
        })
        .await
    }
}

/// Refuses a Scale that names another object than the URL.
fn check_place(r: &ApiRequest, scale: &Value) -> Result<()> {
    for (field, wanted) in [("name", &r.name), ("namespace", &r.namespace)] {
        let given = meta(scale, field);
        if !given.is_empty() && given != wanted {
            return Err(Failure::bad_request(format!(
                "the {field} of the object ({given}) does not match the {field} on the URL ({wanted})"
            )));
        }
    }
    Ok(())
}

/// Refuses an update that was computed from another version of the object, or from another object.
fn check_version(resource: &Resource, current: &Object, new: &Value) -> Result<()> {
    let current = current.value();
    let name = meta(&current, "name");
    let version = meta(new, "resourceVersion");
    if !version.is_empty() && version != "0" && version != meta(&current, "resourceVersion") {
        return Err(Failure::modified(resource, name));
    }
    let (uid, given) = (meta(&current, "uid"), meta(new, "uid"));
    if !given.is_empty() && given != uid {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(Failure::conflict(resource, name, &why));
    }
    Ok(())
}

/// Restores the fields that only the server writes.
pub(crate) fn keep_system_fields(old: &Value, new: &mut Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match &old["metadata"][field] {
            Value::Null => _ = remove_meta(new, field),
            value => set_meta(new, field, value.clone()),
        }
    }
    remove_meta(new, "selfLink");
    if new["metadata"]["managedFields"].is_null()
        && let Some(managed) = old["metadata"].get("managedFields")
    {
        set_meta(new, "managedFields", managed.clone());
    }
}

/// Whether anything but metadata and status differs.
fn differs(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let counts = |name: &&String| !matches!(name.as_str(), "metadata" | "status");
    old.keys().chain(new.keys()).filter(counts).any(|name| old.get(name) != new.get(name))
}

/// Its deletion was asked for, and nothing holds it any more.
pub(crate) fn may_go(resource: &Resource, object: &Value) -> bool {
    let graceful = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    is_terminating(object) && !has_finalizers(object) && !resource.strategy().is_held(object) && !graceful
}

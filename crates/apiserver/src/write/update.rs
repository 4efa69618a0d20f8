//! Update: what a whole new object makes of the one there is.

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::{Map, Value};

use super::{Outcome, Step, refuse_invalid, stored_form};
use crate::admission;
use crate::apply::{self, Writer};
use crate::content::{self, Body};
use crate::object::{Object, has_finalizers, is_terminating, meta, remove_meta, set_meta};
use crate::read::shown;
use crate::request::{ApiRequest, WriteOptions};
use crate::resource::{Resource, Subresource};
use crate::scale;
use crate::schema::{self, Parsed};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};

impl Inner {
    pub(super) async fn update(
        &self,
        r: &ApiRequest,
        options: &WriteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let parsed = content::parse(headers, body)?;
        if r.subresource == Some(Subresource::Scale) {
            return self.update_scale(r, options, parsed).await;
        }
        let (object, warnings) = off_worker(body.len(), || self.decode(&r.resource, parsed, options))?;
        if meta(&object, "name") != r.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta(&object, "name"),
                r.name
            )));
        }
        let writer = Some(self.writer(options, r.subresource));
        let outcome = self
            .modify(&r.resource, (&r.namespace, &r.name), options.dry_run, body.len(), |current| {
                self.replace(&r.resource, r.subresource, current, object.clone(), writer)
            })
            .await?;
        let mut response = self.answer(r, 200, outcome.object());
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// What `new`, written over `current` by way of `subresource`, makes of the object.
    pub(crate) fn replace(
        &self,
        resource: &Resource,
        subresource: Option<Subresource>,
        current: &Object,
        mut new: Value,
        writer: Option<Writer<'_>>,
    ) -> Result<Step> {
        let old = current.value();
        let old = shown(resource, &old);
        let old = &*old;
        let name = meta(old, "name");
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
        keep_system_fields(old, &mut new);
        match subresource {
            Some(Subresource::Status) => new = with_status(resource, old, new),
            Some(Subresource::Finalize) => new = with_finalizers_of_spec(old, &new),
            _ if resource.has(Subresource::Status) => keep_field(old, &mut new, "status"),
            _ => {}
        }
        if subresource != Some(Subresource::Finalize) {
            admission::before_update(resource, &mut new, old);
            schema::default_object(&resource.schema, &mut new);
        }
        if subresource.is_none() {
            admission::after_defaults(self, resource, &mut new, Some(old))?;
        }
        if resource.counts_generations() && differs(old, &new) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            set_meta(&mut new, "generation", generation.into());
        }
        refuse_invalid(resource, name, schema::validate_object(&resource.schema, &new, Some(old)))?;
        set_meta(&mut new, "resourceVersion", old["metadata"]["resourceVersion"].clone());
        if let Some(writer) = writer {
            apply::track_update(&resource.schema, Some(old), &mut new, writer);
        }
        if may_go(resource, &new) {
            return Ok(Step::Delete);
        }
        if new == *old {
            return Ok(Step::Keep);
        }
        Ok(Step::Put(stored_form(resource, new)))
    }

    async fn update_scale(
        &self,
        r: &ApiRequest,
        options: &WriteOptions,
        parsed: Parsed,
    ) -> Result<Response<Body>> {
        let (wanted, warnings) = content::decode(scale::kind()?, parsed, options.field_validation)?;
        let outcome = self.rescale(r, options, |_| Ok(wanted.clone())).await?;
        let mut response = content::value(200, &scale::of(&outcome.object().value()));
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Sets the replicas that `wanted` makes of the present Scale; what it returns has been decoded.
    pub(super) async fn rescale(
        &self,
        r: &ApiRequest,
        options: &WriteOptions,
        mut wanted: impl FnMut(Value) -> Result<Value>,
    ) -> Result<Outcome> {
        let writer = Some(self.writer(options, r.subresource));
        self.modify(&r.resource, (&r.namespace, &r.name), options.dry_run, 0, |current| {
            let old = current.value();
            let scale = wanted(scale::of(&old))?;
            check_version(&r.resource, current, &scale)?;
            check_place(r, &scale)?;
            let kind = scale::kind()?;
            content::refuse_invalid(kind, &r.name, &schema::validate_object(kind, &scale, None))?;
            let replicas = scale::replicas(&scale);
            let mut new = Value::clone(&old);
            new["spec"]["replicas"] = replicas.into();
            self.replace(&r.resource, r.subresource, current, new, writer)
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

/// What the server alone writes stays.
fn keep_system_fields(old: &Value, new: &mut Value) {
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

fn keep_field(old: &Value, new: &mut Value, field: &str) {
    let Some(new) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => _ = new.insert(field.into(), value.clone()),
        None => _ = new.shift_remove(field),
    }
}

/// The old object with the new one's status. Nodes and Pods also take labels and annotations by that way, as their
/// agents write them.
fn with_status(resource: &Resource, old: &Value, mut new: Value) -> Value {
    let mut next = old.clone();
    let take = |value: &mut Value, field: &str, from: &mut Value| match from.get_mut(field).map(Value::take) {
        Some(taken) if !taken.is_null() => value[field] = taken,
        _ => _ = value.as_object_mut().map(|map| map.shift_remove(field)),
    };
    take(&mut next, "status", &mut new);
    if let Some(meta) = new.get_mut("metadata") {
        let fields: &[&str] = match &*resource.kind {
            "Pod" | "Node" => &["labels", "annotations", "managedFields"],
            _ => &["managedFields"],
        };
        for field in fields {
            take(&mut next["metadata"], field, meta);
        }
    }
    next
}

/// A Namespace's finalize: only the finalizers of its spec are taken.
fn with_finalizers_of_spec(old: &Value, new: &Value) -> Value {
    let mut next = old.clone();
    if !next["spec"].is_object() {
        next["spec"] = Value::Object(Map::new());
    }
    match &new["spec"]["finalizers"] {
        Value::Array(finalizers) if !finalizers.is_empty() => {
            next["spec"]["finalizers"] = finalizers.clone().into()
        }
        _ => _ = next["spec"].as_object_mut().map(|spec| spec.shift_remove("finalizers")),
    }
    next
}

/// Whether anything but metadata and status differs.
fn differs(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let counts = |name: &&String| !matches!(name.as_str(), "metadata" | "status");
    old.keys().chain(new.keys()).filter(counts).any(|name| old.get(name) != new.get(name))
}

/// Its deletion was asked for, and nothing holds it any more.
pub(super) fn may_go(resource: &Resource, object: &Value) -> bool {
    let held_by_spec = resource.kind == "Namespace"
        && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    let graceful = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    is_terminating(object) && !has_finalizers(object) && !held_by_spec && !graceful
}

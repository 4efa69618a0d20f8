//! Conversion of objects between versions.
//!
//! ```text
//! store: each object in one version -> [present] -> version of the request: selection, decision, admission, answer
//!   ^-----------------------------------[stored_form]------------------------------'
//! ```
//!
//! The cache and the store know no versions: an object lies there in the version in which it was written last. Reads and
//! watches show it in the version that the request names; a write is decided in that version and converted back before its
//! commit. Versions of a custom kind differ in `apiVersion` only, or a webhook converts ([`review`]). A built-in kind that is
//! another form of a stored one ([`Form`]) has no rules of its own: writes are decided in the stored form.

mod events;
mod previews;
mod removed;
mod review;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use events::EventForm;
pub(crate) use previews::preview_kinds;
pub(crate) use removed::removed_kinds;
pub(crate) use review::REVIEW_VERSIONS;

use crate::content;
use crate::object::{Object, meta};
use crate::resource::Resource;
use crate::schema::{Custom, FieldValidation, Parsed, structural};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};

/// A built-in kind whose objects are stored as those of another kind.
pub(crate) trait Form: Debug + Send + Sync {
    /// Group and version of the stored kind.
    fn stored_as(&self) -> (&'static str, &'static str);

    /// The object in the stored form. It need not have been decoded. The caller sets `apiVersion`.
    fn to_stored(&self, object: Value) -> Stored;

    /// A stored object in this form. The caller sets `apiVersion`.
    fn show(&self, object: Value) -> Value;

    /// Fills in what this form has other defaults for than the stored one, in an object that is in the stored form already.
    fn default_stored(&self, _object: &mut Value) {}

    /// The releases that the warning of each request names, where Kubernetes no longer serves this version.
    fn deprecation(&self) -> Option<Deprecation> {
        None
    }

    /// Whether it is another version of the stored kind, with the same fields in the table. Otherwise it has fields of its own.
    fn is_other_version(&self) -> bool {
        self.deprecation().is_some()
    }

    /// The OpenAPI schema of objects; `None` where it is that of the stored form.
    fn schema(&self) -> Option<Value> {
        None
    }
}

/// An object in the stored form, and what there is to say about it.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
    /// Fields and what is wrong with them.
    pub(crate) errors: Vec<(String, String)>,
}

/// Releases of Kubernetes in the life of a version that it has removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deprecation {
    /// The first in which it is deprecated.
    pub(crate) deprecated: &'static str,
    /// The first without it.
    pub(crate) removed: &'static str,
}

/// The body of a request for `resource` in the version in which its write is decided ([`Resource::deciding`]), and warnings.
///
/// # Errors
/// Where something has no meaning in that version.
pub(crate) fn to_deciding(resource: &Resource, mut value: Value) -> Result<(Value, Vec<String>)> {
    let Some(form) = resource.form else { return Ok((value, Vec::new())) };
    content::expect_kind(&resource.schema, &mut value)?;
    let name = meta(&value, "name").to_owned();
    let stored = form.to_stored(value);
    if !stored.errors.is_empty() {
        let cause = |(field, message)| (field, "FieldValueInvalid".to_owned(), message);
        let causes = stored.errors.into_iter().map(cause);
        return Err(Failure::invalid(&resource.group, &resource.kind, &name, causes));
    }
    Ok((under_version(stored.object, resource.deciding().api_version()), stored.warnings))
}

/// The defaults of the version of `resource` for an object in the version in which its write is decided.
pub(crate) fn default_deciding(resource: &Resource, value: &mut Value) {
    if let Some(form) = resource.form {
        form.default_stored(value);
    }
}

/// The reverse of [`to_deciding`] for an object that was decoded.
pub(crate) fn from_deciding<'a>(resource: &Resource, value: &'a Value) -> Cow<'a, Value> {
    match resource.form {
        Some(form) => Cow::Owned(under_version(form.show(value.clone()), resource.api_version())),
        None => Cow::Borrowed(value),
    }
}

/// An object that is in the version of `resource`, or in the one in which its writes are decided, in the former.
pub(crate) fn in_form(resource: &Resource, object: Arc<Object>) -> Arc<Object> {
    if resource.form.is_none() || object.api_version() == resource.api_version() {
        return object;
    }
    let value = from_deciding(resource, &object.value()).into_owned();
    Arc::new(Object::converted(value, object.revision))
}

fn under_version(mut value: Value, api_version: String) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
    }
    value
}

impl Inner {
    /// Objects of the store in the version of `resource`. Those that are in it already are returned as they are; a webhook is asked once
    /// for all others.
    ///
    /// # Errors
    /// Where a conversion webhook cannot be asked, or its answer is refused.
    pub(crate) async fn present(
        &self,
        resource: &Resource,
        objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>> {
        if resource.has_one_form() {
            return Ok(objects);
        }
        let wanted = resource.api_version();
        let Some(custom) = &resource.custom else {
            return Ok(objects.into_iter().map(|object| in_form(resource, object)).collect());
        };
        let (mut shown, mut others) = (Vec::with_capacity(objects.len()), Vec::new());
        for (at, object) in objects.into_iter().enumerate() {
            let is_there = object.api_version() == wanted;
            match filled(custom, &object, is_there) {
                Some(value) if is_there => shown.push(Arc::new(Object::converted(value, object.revision))),
                Some(value) => {
                    others.push((at, value));
                    shown.push(object);
                }
                None => shown.push(object),
            }
        }
        let (places, values): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        for (at, value) in places.into_iter().zip(self.convert(custom, &wanted, values).await?) {
            shown[at] = Arc::new(Object::converted(value, shown[at].revision));
        }
        Ok(shown)
    }

    /// [`Inner::present`] for one object.
    pub(crate) async fn present_one(&self, resource: &Resource, object: Arc<Object>) -> Result<Arc<Object>> {
        if resource.has_one_form() {
            return Ok(object);
        }
        let mut shown = self.present(resource, vec![object.clone()]).await?;
        // As many as were given.
        Ok(shown.pop().unwrap_or(object))
    }

    /// An object of a custom kind, given in any version, in another version of it, which need not be served.
    ///
    /// # Errors
    /// As [`Inner::present`].
    pub(crate) async fn to_version(&self, resource: &Resource, wanted: &str, value: &Value) -> Result<Value> {
        let Some(custom) = resource.custom.as_ref().filter(|_| value["apiVersion"] != *wanted) else {
            return Ok(value.clone());
        };
        let mut converted = self.convert(custom, wanted, vec![value.clone()]).await?;
        Ok(converted.pop().unwrap_or_default())
    }

    /// An object of the version in which a write is decided, in the version of another resource of the same objects.
    ///
    /// # Errors
    /// As [`Inner::present`].
    pub(crate) async fn shown_as<'v>(&self, shown: &Resource, value: &'v Value) -> Result<Cow<'v, Value>> {
        let wanted = shown.api_version();
        match &shown.custom {
            _ if value["apiVersion"] == *wanted => Ok(Cow::Borrowed(value)),
            Some(_) => Ok(Cow::Owned(self.to_version(shown, &wanted, value).await?)),
            None => Ok(from_deciding(shown, value)),
        }
    }

    /// The reverse of [`Inner::shown_as`] for an object that was changed meanwhile: decoded, with the defaults that the version of
    /// `shown` has of its own, and in the version of `decided`.
    ///
    /// # Errors
    /// Where the object is not one of the kind any more, or as [`Inner::present`].
    pub(crate) async fn decided_from(
        &self,
        (shown, decided): (&Resource, &Resource),
        changed: Value,
        validation: FieldValidation,
    ) -> Result<Value> {
        let (value, _) = to_deciding(shown, changed)?;
        let kind = if shown.form.is_some() { &decided.schema } else { &shown.schema };
        let parsed = Parsed { value, duplicates: Vec::new() };
        let (mut value, _) = content::decode(kind, parsed, validation)?;
        default_deciding(shown, &mut value);
        match shown.api_version() == decided.api_version() || decided.custom.is_none() {
            true => Ok(value),
            false => self.to_version(decided, &decided.api_version(), &value).await,
        }
    }

    /// An object of the version of `resource` in the version in which its kind is stored.
    ///
    /// # Errors
    /// As [`Inner::present`].
    pub(crate) async fn stored_form(&self, resource: &Resource, value: Value) -> Result<Value> {
        let Some(custom) = &resource.custom else { return Ok(value) };
        let wanted = &custom.versions.stored_as;
        if !custom.versions.are_several() || value["apiVersion"] == **wanted {
            return Ok(value);
        }
        let mut converted = self.convert(custom, wanted, vec![value.clone()]).await?;
        Ok(converted.pop().unwrap_or(value))
    }

    /// Objects of a custom kind, each in another version than `wanted`, in that version: in it, they have the fields that its
    /// schema describes.
    async fn convert(&self, custom: &Custom, wanted: &str, values: Vec<Value>) -> Result<Vec<Value>> {
        if values.is_empty() {
            return Ok(values);
        }
        let converted = match &custom.versions.webhook {
            Some(webhook) => Box::pin(self.review_conversion(webhook, wanted, values)).await?,
            None => values.into_iter().map(|value| under_version(value, wanted.to_owned())).collect(),
        };
        let Some(schema) = custom.versions.schema(wanted) else { return Ok(converted) };
        let prune = |mut value: Value| {
            structural::prune_object(schema, &mut value);
            value
        };
        Ok(converted.into_iter().map(prune).collect())
    }

    /// Whether an object lies in the store in another version than its kind is written in today.
    pub(crate) fn is_outdated(resource: &Resource, stored: &Object) -> bool {
        resource.custom.as_ref().is_some_and(|custom| {
            custom.versions.are_several() && stored.api_version() != custom.versions.stored_as
        })
    }
}

/// A stored object with the defaults of its own version, as Kubernetes fills them in when it reads: other versions need not
/// know them. `None` where `unless_same` holds and nothing was missing.
fn filled(custom: &Custom, object: &Object, unless_same: bool) -> Option<Value> {
    let stored = object.value();
    let mut value = Value::clone(&stored);
    if let Some(schema) = custom.versions.schema(object.api_version()) {
        off_worker(object.stored_len(), || structural::fill(schema, &mut value));
    }
    (!unless_same || value != *stored).then_some(value)
}

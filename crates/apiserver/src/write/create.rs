//! Create.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use rand::Rng;
use serde_json::{Value, json};
use yado_store::Compare;

use super::{Attempt, Committed, Decision, MAX_ROUNDS, refuse_invalid};
use crate::apply::{self, Writer};
use crate::cache::place;
use crate::content::{self, Body};
use crate::convert;
use crate::object::{self, Object, meta, set_meta};
use crate::request::{ApiRequest, WriteOptions};
use crate::resource::{self, Resource, Subresource};
use crate::schema;
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};
use crate::write::context::{Operation, WriteContext};

/// Characters of generated names: no vowels, so that no words come about, and none that look alike.
const NAME_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters of a generated name.
const SUFFIX: usize = 5;
/// Longest prefix of a generated name; a longer one is cut, so that the whole stays a DNS label.
const MAX_PREFIX: usize = 63 - SUFFIX;

impl Inner {
    pub(super) async fn create(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        options: &WriteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let parsed = content::parse(headers, body)?;
        let (mut object, warnings) = off_worker(body.len(), || self.decode(&r.resource, parsed, options))?;
        convert::default_deciding(&r.resource, &mut object);
        let (object, writer) = ((object, body.len()), Some(self.writer(ctx, options, None)));
        let created = self.create_object(ctx, &r.namespace, object, writer).await?;
        let mut response = self.answer(r, 201, created);
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Creates a decoded object, given with the size of its body in bytes. Without a writer its managedFields are left as
    /// they are.
    pub(crate) async fn create_object(
        &self,
        ctx: &WriteContext<'_>,
        namespace: &str,
        (object, size): (Value, usize),
        writer: Option<Writer<'_>>,
    ) -> Result<Arc<Object>> {
        let ctx = &ctx.with_operation(Operation::Create);
        let resource = ctx.resource;
        for _ in 0..MAX_ROUNDS {
            let mut next = object.clone();
            off_worker(size, || self.prepare(ctx, namespace, &mut next, writer))?;
            let name = meta(&next, "name").to_owned();
            let generated = meta(&object, "name").is_empty();
            let key = format!("{}{}", resource.prefix, place(resource, namespace, &name));
            let mut attempt = Attempt {
                resource,
                key,
                current: None,
                next: None,
                compares: self.namespace_holds(resource, namespace, &name)?.into_iter().collect(),
                ops: resource.strategy().companions(ctx, &name),
            };
            let decision = self.pass_admission(ctx, namespace, None, Decision::Put(next)).await?;
            let Decision::Put(next) = decision else {
                return Err(Failure::internal("a create cannot delete"));
            };
            if ctx.dry_run {
                if self.find(resource, namespace, &name).is_ok() {
                    return Err(Failure::already_exists(resource, &name));
                }
                return Ok(Arc::new(Object::unwritten(next, 0)));
            }
            attempt.next = Some(self.stored_form(resource, next).await?);
            match self.commit(attempt).await? {
                Committed::Object(object) => return self.present_one(resource, object).await,
                Committed::Gone => return Err(Failure::internal("a create cannot delete")),
                Committed::Conflict { itself: true } if !generated => {
                    return Err(Failure::already_exists(resource, &name));
                }
                // The name was taken, the Namespace changed, or an address was: look again.
                Committed::Conflict { .. } => {}
            }
        }
        Err(Failure::new(
            503,
            "ServiceUnavailable",
            format!(
                "{} could not be created: too many others are being created at once",
                resource.qualified()
            ),
        ))
    }

    /// Makes an object complete and checks it.
    fn prepare(
        &self,
        ctx: &WriteContext<'_>,
        namespace: &str,
        object: &mut Value,
        writer: Option<Writer<'_>>,
    ) -> Result<()> {
        let (resource, strategy) = (ctx.resource, ctx.resource.strategy());
        if !meta(object, "resourceVersion").is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        match meta(object, "namespace") {
            _ if !resource.namespaced => _ = object::remove_meta(object, "namespace"),
            "" => set_meta(object, "namespace", namespace.into()),
            given if given != namespace => {
                return Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            _ => {}
        }
        if meta(object, "name").is_empty() && !meta(object, "generateName").is_empty() {
            let name = generate_name(meta(object, "generateName"), &mut rand::rng());
            set_meta(object, "name", name.into());
        }
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            object::remove_meta(object, field);
        }
        set_meta(object, "uid", uid(&mut rand::rng()).into());
        set_meta(object, "creationTimestamp", object::time(self.clock.now()).into());
        if strategy.counts_generations() {
            set_meta(object, "generation", 1.into());
        }
        drop_status(resource, object);
        strategy.prepare_for_create(ctx, object)?;
        schema::default_object(&resource.schema, object);
        strategy.after_defaults(ctx, object, None)?;
        refuse_invalid(
            resource,
            meta(object, "name"),
            schema::validate_object(&resource.schema, object, None),
        )?;
        if let Some(writer) = writer {
            apply::track_update(&resource.schema, None, object, writer);
        }
        Ok(())
    }

    /// The comparison that makes the creation of an object of this name fail when its Namespace goes meanwhile.
    fn namespace_holds(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Compare>> {
        if !resource.namespaced {
            return Ok(None);
        }
        let namespaces = resource::find("", "v1", "namespaces").ok_or_else(Failure::no_such_resource)?;
        let object = self.find(namespaces, "", namespace)?;
        if object::is_terminating(&object.value()) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut failure = Failure::forbidden(resource, name, &why);
            let cause = json!({
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            });
            if let Some(details) = &mut failure.details {
                details.insert("causes".into(), json!([cause]));
            }
            return Err(failure);
        }
        let key = format!("{}{namespace}", namespaces.prefix);
        Ok(Some(Compare::ModRevision { key, equals: object.revision }))
    }
}

/// Takes the status from a new object, which begins without one where it has a subresource of its own.
pub(crate) fn drop_status(resource: &Resource, object: &mut Value) {
    if resource.has(Subresource::Status) && resource.strategy().drops_status() {
        _ = object.as_object_mut().map(|object| object.shift_remove("status"));
    }
}

/// A name that starts with a prefix and ends at random.
pub(crate) fn generate_name(prefix: &str, random: &mut impl Rng) -> String {
    let mut end = prefix.len().min(MAX_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    for _ in 0..SUFFIX {
        name.push(char::from(NAME_CHARACTERS[random.random_range(0..NAME_CHARACTERS.len())]));
    }
    name
}

/// A random (version 4) UUID.
pub(crate) fn uid(random: &mut impl Rng) -> String {
    let bits: u128 = random.random();
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_and_uids_have_their_forms() {
        let mut random = rand::rng();
        let name = generate_name(&"x".repeat(80), &mut random);
        assert_eq!((name.len(), yado_types::names::dns_label(&name)), (63, Ok(())));
        for _ in 0..100 {
            let uid = uid(&mut random);
            assert_eq!((uid.len(), &uid[14..15]), (36, "4"));
            assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"), "{uid}");
        }
    }
}

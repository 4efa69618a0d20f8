//! The admission chain: what every write passes between its decision and its commit.
//!
//! ```text
//! [decision] -> mutating members -> mutating members, where a policy or webhook changed the object
//!      ^            -> defaults and rules, where one changed the object -> validating members -> [commit]
//!      |______________________________________________________________________________________________| conflict
//! ```
//!
//! A plugin sees who writes, what, the object before and after, and whether it is a dry run. The chain runs again with each
//! new decision: nothing is written that was not admitted in exactly this form. What a kind asks of its own objects is no
//! admission and stands in its strategy ([`crate::kinds`]).
//!
//! Rules of webhooks and policies name resources in a version; what they see of a write is in that version ([`subject`]).

pub(crate) mod conditions;
mod connection;
pub(crate) mod expressions;
mod limit_ranger;
mod matching;
pub(crate) mod mutating_policies;
pub(crate) mod node_restriction;
pub(crate) mod params;
mod pod_security;
mod policy;
mod reinvocation;
mod request;
mod subject;
pub(crate) mod validating_policies;
mod webhooks;

use async_trait::async_trait;
use serde_json::Value;

use crate::object::{Object, meta, remove_meta};
use crate::resource::Subresource;
use crate::schema;
use crate::schema::validate::{Errors, Path};
use crate::server::Inner;
use crate::status::Result;
use crate::write::context::{Operation, WriteContext};
use crate::write::create::drop_status;
use crate::write::update::{keep_system_fields, may_go};
use crate::write::{Decision, refuse_invalid};
use reinvocation::Reinvocation;

/// The API group of what configures this chain.
pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

/// Whether webhooks and policies may be asked about a write.
///
/// They are not about the chain's own configuration: a broken one could not be removed. Of a binding or an eviction they see
/// what was sent ([`Inner::admit_body`]), and not once more what the Pod becomes.
fn is_configurable(ctx: &WriteContext<'_>) -> bool {
    let is_own_kind = ctx.resource.group == GROUP;
    let is_body = matches!(ctx.subresource, Some(Subresource::Binding | Subresource::Eviction));
    !is_own_kind && (!is_body || ctx.operation == Operation::Create)
}

/// A write under review.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    /// The write: its user, operation and options.
    pub(crate) ctx: &'a WriteContext<'a>,
    /// The namespace of the object; empty where its kind has none.
    pub(crate) namespace: &'a str,
    /// The name of the object.
    pub(crate) name: &'a str,
    /// The object before; `None` for a create.
    pub(crate) old: Option<&'a Value>,
}

/// A member of the chain.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Whether it has anything to say about such a write in a namespace: where none has, the chain costs nothing.
    fn handles(&self, ctx: &WriteContext<'_>, namespace: &str) -> bool;

    /// Whether [`mutate`](Self::mutate) may change an object.
    fn mutates(&self) -> bool {
        false
    }

    /// Changes the object that is about to be written, or refuses the write.
    async fn mutate(
        &self,
        _review: &Review<'_>,
        _object: &mut Value,
        _reinvocation: &mut Reinvocation,
    ) -> Result<()> {
        Ok(())
    }

    /// Refuses a deletion before it is validated.
    async fn mutate_deletion(&self, _review: &Review<'_>) -> Result<()> {
        Ok(())
    }

    /// Refuses the write. `object` is its outcome; `None` for a deletion.
    async fn validate(&self, _review: &Review<'_>, _object: Option<&Value>) -> Result<()> {
        Ok(())
    }
}

type Members = [&'static dyn Plugin];

/// All members, in their order.
static CHAIN: [&dyn Plugin; 6] = [
    &limit_ranger::LimitRanger,
    &node_restriction::NodeRestriction,
    &pod_security::PodSecurity,
    &mutating_policies::MutatingPolicies,
    &validating_policies::ValidatingPolicies,
    &webhooks::Webhooks,
];

/// Members from here on are configured by users. As in Kubernetes they come last.
const CONFIGURED: usize = 3;

fn concerned(members: &Members, ctx: &WriteContext<'_>, namespace: &str) -> Vec<&'static dyn Plugin> {
    members.iter().copied().filter(|plugin| plugin.handles(ctx, namespace)).collect()
}

/// Lets the mutating members change an object.
async fn mutate(members: &Members, review: &Review<'_>, object: &mut Value) -> Result<()> {
    let mut reinvocation = Reinvocation::default();
    for plugin in members {
        plugin.mutate(review, object, &mut reinvocation).await?;
    }
    if reinvocation.is_due() {
        reinvocation.begin_second();
        for plugin in members {
            plugin.mutate(review, object, &mut reinvocation).await?;
        }
    }
    Ok(())
}

async fn validate(members: &Members, review: &Review<'_>, object: Option<&Value>) -> Result<()> {
    for plugin in members {
        plugin.validate(review, object).await?;
    }
    Ok(())
}

/// The decision for an admitted object: it may be that nothing holds it back any more.
fn put(ctx: &WriteContext<'_>, old: Option<&Value>, object: Value) -> Decision {
    match old.is_some() && may_go(ctx.resource, &object) {
        true => Decision::Delete,
        false => Decision::Put(object),
    }
}

impl Inner {
    /// The decision on a new object (`current` is `None`) or on a present one, as the chain admits it.
    ///
    /// # Errors
    /// The refusal of a plugin.
    pub(crate) async fn pass_admission(
        &self,
        ctx: &WriteContext<'_>,
        namespace: &str,
        current: Option<&Object>,
        decision: Decision,
    ) -> Result<Decision> {
        let members = concerned(&CHAIN, ctx, namespace);
        if members.is_empty() {
            return Ok(decision);
        }
        let old = current.map(Object::value);
        let old = old.as_deref();
        match decision {
            decision if ctx.operation == Operation::Delete => {
                if matches!(decision, Decision::Keep) {
                    return Ok(decision);
                }
                let name = old.map(|old| meta(old, "name")).unwrap_or_default();
                let review = Review { ctx, namespace, name, old };
                for plugin in &members {
                    plugin.mutate_deletion(&review).await?;
                }
                validate(&members, &review, None).await?;
                Ok(decision)
            }
            // An update takes away what held the object back: that it goes was asked for and admitted before.
            Decision::Delete => Ok(Decision::Delete),
            // An update that changes nothing is one: policies that are newer than the object may change or refuse it.
            Decision::Keep => match old.filter(|_| !ctx.is_internal()) {
                None => Ok(Decision::Keep),
                Some(old) => {
                    let object = self.admit_object(ctx, namespace, Some(old), old.clone(), &members).await?;
                    Ok(if object == *old { Decision::Keep } else { put(ctx, Some(old), object) })
                }
            },
            Decision::Put(object) => {
                Ok(put(ctx, old, self.admit_object(ctx, namespace, old, object, &members).await?))
            }
        }
    }

    /// The new state of an object as the chain admits it.
    async fn admit_object(
        &self,
        ctx: &WriteContext<'_>,
        namespace: &str,
        old: Option<&Value>,
        mut object: Value,
        members: &Members,
    ) -> Result<Value> {
        let before = members.iter().any(|plugin| plugin.mutates()).then(|| object.clone());
        let name = meta(&object, "name").to_owned();
        let review = Review { ctx, namespace, name: &name, old };
        mutate(members, &review, &mut object).await?;
        if let Some(before) = before.filter(|before| *before != object) {
            self.complete_mutated(ctx, old, &before, &mut object)?;
        }
        validate(members, &review, Some(&object)).await?;
        Ok(object)
    }

    /// Completes and checks an object after mutating members changed it from `before`.
    fn complete_mutated(
        &self,
        ctx: &WriteContext<'_>,
        old: Option<&Value>,
        before: &Value,
        object: &mut Value,
    ) -> Result<()> {
        let name = meta(before, "name");
        for field in ["name", "namespace"] {
            if object["metadata"][field] != before["metadata"][field] {
                let mut errors = Errors::default();
                let root = Path::root();
                let at = root.field("metadata");
                errors.invalid(&at.field(field), &object["metadata"][field], "field is immutable");
                refuse_invalid(ctx.resource, name, errors.list)?;
            }
        }
        if let Some(old) = old.filter(|_| !ctx.is_internal()) {
            return self.complete_update(ctx, object, old);
        }
        if old.is_none() {
            keep_system_fields(before, object);
            remove_meta(object, "resourceVersion");
            // A status that follows from the object, as a Pod's class of service does, is made anew.
            drop_status(ctx.resource, object);
        }
        schema::default_object(&ctx.resource.schema, object);
        ctx.resource.strategy().after_defaults(ctx, object, old)?;
        refuse_invalid(ctx.resource, name, schema::validate_object(&ctx.resource.schema, object, old))
    }

    /// What the configurable members make of an object that is not stored: the options of a connection, or what is sent to a
    /// subresource that has a kind of its own.
    ///
    /// # Errors
    /// The refusal of a plugin.
    pub(crate) async fn admit_body(
        &self,
        ctx: &WriteContext<'_>,
        (namespace, name): (&str, &str),
        mut body: Value,
    ) -> Result<Value> {
        let members = concerned(&CHAIN[CONFIGURED..], ctx, namespace);
        if members.is_empty() {
            return Ok(body);
        }
        let review = Review { ctx, namespace, name, old: None };
        mutate(&members, &review, &mut body).await?;
        validate(&members, &review, Some(&body)).await?;
        Ok(body)
    }
}

//! The admission chain: what every write passes between its decision and its commit.
//!
//! ```text
//! [decision] -> mutating plugins -> defaults and rules, where one changed the object -> validating plugins -> [commit]
//!      ^______________________________________________________________________________________________| conflict
//! ```
//!
//! A plugin sees who writes, what, the object before and after, and whether it is a dry run. The chain runs again with each
//! new decision: nothing is written that was not admitted in exactly this form. What a kind asks of its own objects is no
//! admission and stands in its strategy ([`crate::kinds`]).

pub(crate) mod conditions;
pub(crate) mod expressions;
mod limit_ranger;
mod matching;
pub(crate) mod node_restriction;
mod pod_security;
mod request;
pub(crate) mod validating_policies;
mod webhooks;

use async_trait::async_trait;
use serde_json::Value;

use crate::object::{Object, meta};
use crate::schema;
use crate::server::Inner;
use crate::status::Result;
use crate::write::context::{Operation, WriteContext};
use crate::write::create::drop_status;
use crate::write::{Decision, refuse_invalid};

/// The API group of what configures this chain.
pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

/// Whether the write is one of the chain's own configuration. No webhook and no policy is asked about it: a broken one
/// could not be removed.
fn is_own_kind(ctx: &WriteContext<'_>) -> bool {
    ctx.resource.group == GROUP
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
    async fn mutate(&self, _review: &Review<'_>, _object: &mut Value) -> Result<()> {
        Ok(())
    }

    /// Refuses the write. `object` is its outcome; `None` for a deletion.
    async fn validate(&self, _review: &Review<'_>, _object: Option<&Value>) -> Result<()> {
        Ok(())
    }
}

/// All members, in their order. As in Kubernetes, what users configure comes last.
const CHAIN: [&dyn Plugin; 5] = [
    &limit_ranger::LimitRanger,
    &node_restriction::NodeRestriction,
    &pod_security::PodSecurity,
    &validating_policies::ValidatingPolicies,
    &webhooks::Webhooks,
];

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
        let plugins: Vec<_> = CHAIN.into_iter().filter(|plugin| plugin.handles(ctx, namespace)).collect();
        if plugins.is_empty() {
            return Ok(decision);
        }
        let old = current.map(Object::value);
        let old = old.as_deref();
        match decision {
            Decision::Keep => Ok(Decision::Keep),
            // An update takes away what held the object back: that it goes was asked for and admitted before.
            Decision::Delete if ctx.operation != Operation::Delete => Ok(Decision::Delete),
            decision if ctx.operation == Operation::Delete => {
                let name = old.map(|old| meta(old, "name")).unwrap_or_default();
                let review = Review { ctx, namespace, name, old };
                for plugin in plugins {
                    plugin.validate(&review, None).await?;
                }
                Ok(decision)
            }
            Decision::Put(mut object) => {
                let before = plugins.iter().any(|plugin| plugin.mutates()).then(|| object.clone());
                let name = meta(&object, "name").to_owned();
                let review = Review { ctx, namespace, name: &name, old };
                for plugin in &plugins {
                    plugin.mutate(&review, &mut object).await?;
                }
                if before.is_some_and(|before| before != object) {
                    if old.is_none() {
                        // A status that follows from the object, as a Pod's class of service does, is made anew.
                        drop_status(ctx.resource, &mut object);
                    }
                    schema::default_object(&ctx.resource.schema, &mut object);
                    ctx.resource.strategy().after_defaults(ctx, &mut object, old)?;
                    let errors = schema::validate_object(&ctx.resource.schema, &object, old);
                    refuse_invalid(ctx.resource, &name, errors)?;
                }
                for plugin in &plugins {
                    plugin.validate(&review, Some(&object)).await?;
                }
                Ok(Decision::Put(object))
            }
            Decision::Delete => Ok(Decision::Delete),
        }
    }
}

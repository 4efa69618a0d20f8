//! Writing: each verb decides purely what an object becomes; one loop here carries it out against the store.
//!
//! ```text
//! [create | update | patch | apply | delete] -> Decision -> commit -> store -> feed -> answer
//!          ^______________________________________________| conflict: decide again on the new state
//! ```

pub(crate) mod context;
pub(crate) mod create;
mod delete;
mod patch;
pub(crate) mod update;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use serde_json::Value;
use yado_store::{Compare, Op, Txn, TxnOutcome};

use crate::apply::{Conversions, Writer};
use crate::audit::Record;
use crate::auth::Identity;
use crate::cache::place;
use crate::content::{self, Body};
use crate::convert;
use crate::kinds::strategy::Posted;
use crate::object::{Object, encode_for_store};
use crate::request::{ApiRequest, Verb, WriteOptions};
use crate::resource::{Resource, Subresource};
use crate::schema::{self, Parsed, Storage};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};
use context::{Operation, Warnings, WriteContext};

/// How often a write is decided anew because somebody else wrote meanwhile. Each round means that another writer got
/// through, so running out of so many takes a crowd on one object; its clients then hear 409 and come back.
const MAX_ROUNDS: usize = 256;
/// How often a decision on one object is made anew because it misses conversions: what it needs follows from the object.
const MAX_DECISIONS: usize = 4;

/// The outcome of a write decision.
pub(crate) enum Decision {
    /// Store this as the new version of the object.
    Put(Value),
    /// Delete the object.
    Delete,
    /// Leave the object unchanged.
    Keep,
}

/// The object after a decision was carried out.
pub(crate) enum Outcome {
    /// It was written, or would have been.
    Written(Arc<Object>),
    /// It was as it should be.
    Kept(Arc<Object>),
    /// It went; this was its last state.
    Deleted(Arc<Object>),
}

impl Outcome {
    /// The object after (or, where it went, before).
    pub(crate) fn object(&self) -> &Arc<Object> {
        let (Self::Written(object) | Self::Kept(object) | Self::Deleted(object)) = self;
        object
    }
}

/// One attempt at a transaction.
pub(crate) struct Attempt<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) key: String,
    /// The version that the decision was made on.
    pub(crate) current: Option<Arc<Object>>,
    /// The new state in the stored form; `None` deletes.
    pub(crate) next: Option<Value>,
    /// Further comparisons.
    pub(crate) compares: Vec<Compare>,
    /// Further operations.
    pub(crate) ops: Vec<Op>,
}

/// How an attempt ended.
pub(crate) enum Committed {
    /// The object was written.
    Object(Arc<Object>),
    /// The object was deleted.
    Gone,
    /// Somebody else wrote meanwhile: the object `itself`, or something else that was compared. What they wrote is
    /// visible by now.
    Conflict {
        /// The object is not the version that the decision was made on.
        itself: bool,
    },
}

impl Inner {
    /// The requests that change something.
    pub(crate) async fn write(
        self: &Arc<Self>,
        r: &ApiRequest,
        who: &Identity,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let headers = &parts.headers;
        self.fresh().await?;
        let (operation, dry_run) = match &r.verb {
            Verb::Create(options) => (Operation::Create, options.dry_run),
            Verb::Update(options) | Verb::Patch(_, options) => (Operation::Update, options.dry_run),
            Verb::Delete(options) | Verb::DeleteCollection(_, options) => {
                (Operation::Delete, options.dry_run)
            }
            _ => return Err(Failure::method_not_allowed()),
        };
        let (resource, subresource) = (r.resource.deciding(), r.subresource);
        let (warnings, conversions) = (Warnings::default(), Conversions::default());
        let ctx = &WriteContext {
            server: self,
            resource,
            requested: &r.resource,
            user: who,
            operation,
            subresource,
            dry_run,
            warnings: Some(&warnings),
            conversions: Some(&conversions),
            audit: parts.extensions.get::<Arc<Record>>().map(AsRef::as_ref),
        };
        let mut response = match &r.verb {
            Verb::Create(options) if subresource.is_some() || resource.storage == Storage::Answered => {
                let posted = Posted { request: r, options, headers, body };
                resource.strategy().post(ctx, posted).await
            }
            Verb::Create(options) => self.create(ctx, r, options, headers, body).await,
            Verb::Update(options) => self.update(ctx, r, options, headers, body).await,
            Verb::Patch(kind, options) => self.patch(ctx, r, *kind, options, body).await,
            Verb::Delete(options) => self.delete(ctx, r, options.clone(), headers, body).await,
            Verb::DeleteCollection(which, options) => {
                self.delete_collection(ctx, r, which, options.clone(), headers, body).await
            }
            _ => Err(Failure::method_not_allowed()),
        }?;
        content::warn(&mut response, &warnings.take());
        Ok(response)
    }

    /// Decides and writes until no other writer comes between. `size` is that of the request's body in bytes. The decision
    /// is made on the object in the version of the context's resource, which is also that of the outcome.
    pub(crate) async fn modify(
        &self,
        ctx: &WriteContext<'_>,
        (namespace, name): (&str, &str),
        size: usize,
        mut decide: impl FnMut(&Object) -> Result<Decision>,
    ) -> Result<Outcome> {
        let resource = ctx.resource;
        let key = format!("{}{}", resource.prefix, place(resource, namespace, name));
        for _ in 0..MAX_ROUNDS {
            let stored = self.find(resource, namespace, name)?;
            let current = self.present_one(resource, stored.clone()).await?;
            let decision = self.decide(ctx, size, &current, &mut decide).await?;
            let next = match self.pass_admission(ctx, namespace, Some(&current), decision).await? {
                // An update that changes nothing moves an object into the version that is stored today.
                Decision::Keep
                    if ctx.operation == Operation::Update && Self::is_outdated(resource, &stored) =>
                {
                    Some(Value::clone(&current.value()))
                }
                Decision::Keep => return Ok(Outcome::Kept(current)),
                Decision::Put(value) => Some(value),
                Decision::Delete => None,
            };
            if ctx.dry_run {
                return Ok(match next {
                    Some(value) => Outcome::Written(Arc::new(Object::unwritten(value, current.revision))),
                    None => Outcome::Deleted(current),
                });
            }
            let attempt = Attempt {
                resource,
                key: key.clone(),
                current: Some(stored),
                next: match next {
                    Some(value) => Some(self.stored_form(resource, value).await?),
                    None => None,
                },
                compares: Vec::new(),
                ops: Vec::new(),
            };
            match self.commit(attempt).await? {
                Committed::Object(object) => {
                    return Ok(Outcome::Written(self.present_one(resource, object).await?));
                }
                Committed::Gone => return Ok(Outcome::Deleted(current)),
                Committed::Conflict { .. } => {}
            }
        }
        Err(Failure::modified(resource, name))
    }

    /// Makes a decision, anew once what it missed of other versions has been converted.
    async fn decide(
        &self,
        ctx: &WriteContext<'_>,
        size: usize,
        current: &Object,
        decide: &mut impl FnMut(&Object) -> Result<Decision>,
    ) -> Result<Decision> {
        // A failure may rest on what is not converted yet, as a conflict with another manager's fields does.
        let mut decision = off_worker(size + current.json_len(), || decide(current));
        let Some(conversions) = ctx.conversions else { return decision };
        for _ in 0..MAX_DECISIONS {
            let wanted = conversions.take_wanted();
            if wanted.is_empty() {
                return decision;
            }
            for (version, object) in wanted {
                let converted = self.to_version(ctx.resource, &version, &object).await?;
                conversions.learn(version, object, converted);
            }
            decision = off_worker(size + current.json_len(), || decide(current));
        }
        Err(Failure::internal("a decision does not end: each time it needs other objects converted"))
    }

    /// Writes once, with what the object holds ([`holdings`](crate::kinds::strategy::Strategy::holdings)) in the same
    /// transaction, so that nothing is held twice or by nobody, whatever happens in between.
    pub(crate) async fn commit(&self, attempt: Attempt<'_>) -> Result<Committed> {
        let Attempt { resource, key, current, next, compares: more, mut ops } = attempt;
        let expected = current.as_ref().map_or(0, |c| c.revision);
        let mut compares = vec![Compare::ModRevision { key: key.clone(), equals: expected }];
        compares.extend(more);
        let charge = self.charge(resource, current.as_deref(), next.as_ref())?;
        compares.extend(charge.compares);
        ops.extend(charge.ops);
        if let Some(holdings) = resource.strategy().holdings() {
            let before = current.as_ref().map(|c| c.derive(holdings)).unwrap_or_default();
            let after = next.as_ref().map(holdings).unwrap_or_default();
            for held in after.difference(&before) {
                compares.push(Compare::ModRevision { key: held.clone(), equals: 0 });
                ops.push(Op::Put { key: held.clone(), value: Bytes::from(key.clone()) });
            }
            ops.extend(before.difference(&after).map(|held| Op::Delete { key: held.clone() }));
        }
        let claim = match next {
            Some(mut value) => {
                let stored = encode_for_store(&mut value);
                ops.insert(0, Op::Put { key, value: stored.clone() });
                Some(self.cache.claim(value, stored))
            }
            None => {
                ops.insert(0, Op::Delete { key });
                None
            }
        };
        match self.store.txn(Txn { compares, ops }).await? {
            TxnOutcome::Committed { revision } => match claim {
                Some(claim) => Ok(Committed::Object(claim.written(revision).await?)),
                None => {
                    self.cache.wait(revision).await?;
                    Ok(Committed::Gone)
                }
            },
            TxnOutcome::Conflict { current: found, revision: at } => {
                self.cache.wait(at).await?;
                let found = found.first().and_then(Option::as_ref).map_or(0, |kv| kv.mod_revision);
                Ok(Committed::Conflict { itself: found != expected })
            }
        }
    }

    /// Makes a parsed body of a request for `resource` an object in the version in which its write is decided.
    pub(crate) fn decode(
        &self,
        resource: &Resource,
        parsed: Parsed,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>)> {
        let Parsed { value, duplicates } = parsed;
        let (value, told) = convert::to_deciding(resource, value)?;
        let resource = resource.deciding();
        let parsed = Parsed { value, duplicates };
        let (object, mut warnings) = content::decode(&resource.schema, parsed, options.field_validation)?;
        warnings.extend(told);
        warnings.extend(resource.strategy().warnings(&object));
        Ok((object, warnings))
    }

    /// The field manager of a request.
    pub(crate) fn writer<'a>(
        &self,
        ctx: &WriteContext<'a>,
        options: &'a WriteOptions,
        subresource: Option<Subresource>,
    ) -> Writer<'a> {
        Writer {
            manager: &options.field_manager,
            subresource: subresource.map_or("", Subresource::name),
            time: self.clock.now(),
            conversions: ctx.conversions,
        }
    }
}

/// A failure for the fields of an object that break rules.
pub(crate) fn refuse_invalid(resource: &Resource, name: &str, errors: Vec<schema::FieldError>) -> Result<()> {
    content::refuse_invalid(&resource.schema, name, &errors)
}

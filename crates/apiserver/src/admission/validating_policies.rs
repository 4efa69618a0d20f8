//! ValidatingAdmissionPolicies: rules in CEL about writes, which bindings put into force.
//!
//! ```text
//! [ValidatingAdmissionPolicy] <- [ValidatingAdmissionPolicyBinding] -> [parameters]
//!        `-> decisions, each for one validation -> actions of the binding: deny, warn, audit
//! ```
//!
//! What expressions may use is in [`super::expressions`]; the types of their objects are checked, for the status of
//! policies only, in [`type_check`].

mod compiled;
pub(crate) mod type_check;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::expressions::Environment;
use super::matching::resources_match;
use super::params;
use super::policy::all;
use super::subject::{Matched, Subject};
use super::{GROUP, Plugin, Review, is_configurable};
use crate::resource::{self, Resource};
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;
use compiled::{Action, Bound, Compiled, Outcome};

/// Validation failures that are written to the log for one write; more are left out.
const MAX_AUDITED: usize = 50;

/// The policies with their bindings.
pub(super) struct ValidatingPolicies;

/// The resource of the policies.
pub(crate) fn policies() -> Option<&'static Arc<Resource>> {
    resource::find(GROUP, "v1", "validatingadmissionpolicies")
}

fn bindings() -> Option<&'static Arc<Resource>> {
    resource::find(GROUP, "v1", "validatingadmissionpolicybindings")
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn handles(&self, ctx: &WriteContext<'_>, _namespace: &str) -> bool {
        if !is_configurable(ctx) {
            return false;
        }
        let collection = bindings().and_then(|resource| ctx.server.collection(resource).ok());
        collection.is_some_and(|collection| !collection.is_empty())
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<()> {
        let server = review.ctx.server;
        let bindings: Vec<Arc<Bound>> = all(server, bindings())
            .iter()
            .map(|binding| binding.derive(|value| Arc::new(Bound::read(value))))
            .collect();
        let mut pass = Pass { review, object, denied: None, audited: Vec::new() };
        for policy in all(server, policies()) {
            let compiled = policy.derive(|value| Arc::new(Compiled::read(value)));
            let own: Vec<&Bound> = bindings
                .iter()
                .map(|bound| &**bound)
                .filter(|bound| bound.head.policy == compiled.head.name)
                .collect();
            if !own.is_empty() {
                pass.policy(&compiled, &own).await;
            }
        }
        pass.finish()
    }
}

/// A refusal: its reason and the sentence that tells it.
struct Refusal {
    reason: Option<String>,
    message: String,
}

/// A write as the expressions of a policy see it.
struct Seen<'p> {
    environment: Environment,
    subject: Subject<'p>,
}

impl<'p> Seen<'p> {
    async fn of(review: &Review<'p>, matched: &Matched<'_>, object: Option<&'p Value>) -> Result<Self> {
        let subject = Subject::of(review, matched, object).await?;
        Ok(Self { environment: Environment::of(review, matched), subject })
    }
}

/// One pass over all policies for a write.
struct Pass<'p> {
    review: &'p Review<'p>,
    object: Option<&'p Value>,
    /// The first refusal; policies after it are evaluated for their warnings.
    denied: Option<Refusal>,
    /// Failures that a binding wants in the log.
    audited: Vec<Value>,
}

impl Pass<'_> {
    fn deny(&mut self, policy: &Compiled, binding: Option<&Bound>, reason: Option<&str>, message: &str) {
        let name = &policy.head.name;
        let message = match binding {
            Some(Bound { head, .. }) => format!(
                "ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: {message}",
                head.name
            ),
            None => format!("ValidatingAdmissionPolicy '{name}' denied request: {message}"),
        };
        let reason = reason.map(str::to_owned);
        self.denied.get_or_insert(Refusal { reason, message });
    }

    /// A policy or binding that cannot be applied refuses the write, unless its failures are to be ignored.
    fn misconfigured(&mut self, policy: &Compiled, binding: Option<&Bound>, why: &str) {
        if policy.head.ignores_failures {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.deny(policy, binding, None, &format!("failed to configure {what}: {why}"));
    }

    async fn policy(&mut self, policy: &Compiled, bound: &[&Bound]) {
        let matched = match resources_match(self.review, &policy.head.constraints, self.object) {
            Ok(Some(matched)) => matched,
            Ok(None) => return,
            Err(failure) => return self.misconfigured(policy, None, &failure.message),
        };
        let params = match policy.head.param_resource(self.review) {
            Ok(params) => params,
            Err(why) => return self.misconfigured(policy, None, &why),
        };
        // Most writes that a policy is about are none that a binding is about.
        let mut seen: Option<Seen<'_>> = None;
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in bound {
            match resources_match(self.review, &binding.head.resources, self.object) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(failure) => {
                    self.misconfigured(policy, Some(binding), &failure.message);
                    continue;
                }
            }
            let seen = match &mut seen {
                Some(seen) => &*seen,
                none => match Seen::of(self.review, &matched, self.object).await {
                    Ok(first) => &*none.insert(first),
                    Err(failure) => return self.misconfigured(policy, None, &failure.message),
                },
            };
            match params::collect(self.review, params.as_deref(), &binding.head.params).await {
                Ok(found) => {
                    for params in found {
                        let outcomes = policy.evaluate(&seen.environment, &seen.subject, &params);
                        self.take(policy, binding, outcomes, &mut annotations);
                    }
                }
                Err(why) => self.misconfigured(policy, Some(binding), &why),
            }
        }
        for (key, values) in annotations {
            self.review.ctx.annotate(&format!("{}/{key}", policy.head.name), &values.join(", "));
        }
    }

    /// Does what a binding says of validations that failed.
    fn take(
        &mut self,
        policy: &Compiled,
        binding: &Bound,
        outcomes: Vec<Outcome>,
        annotations: &mut BTreeMap<String, Vec<String>>,
    ) {
        for outcome in outcomes {
            match outcome {
                Outcome::Annotation(key, value) => {
                    let values = annotations.entry(key).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                Outcome::AnnotationFailed(why) => self.deny(policy, Some(binding), None, &why),
                Outcome::Failed { index, reason, message } => {
                    for action in &binding.actions {
                        match action {
                            Action::Deny => self.deny(policy, Some(binding), reason.as_deref(), &message),
                            Action::Warn => self.review.ctx.warn(vec![format!(
                                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                                policy.head.name, binding.head.name
                            )]),
                            Action::Audit => self.audited.push(json!({
                                "message": message, "policy": policy.head.name, "binding": binding.head.name,
                                "expressionIndex": index, "validationActions": binding.action_names,
                            })),
                        }
                    }
                }
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        if !self.audited.is_empty() {
            self.audited.truncate(MAX_AUDITED);
            let failures = Value::from(std::mem::take(&mut self.audited)).to_string();
            self.review.ctx.annotate("validation.policy.admission.k8s.io/validation_failure", &failures);
        }
        let Some(Refusal { reason, message }) = self.denied else { return Ok(()) };
        let mut failure = Failure::forbidden(self.review.ctx.requested, self.review.name, &message);
        (failure.code, failure.reason) = match reason.as_deref() {
            Some("Forbidden") => (403, "Forbidden"),
            Some("Unauthorized") => (401, "Unauthorized"),
            Some("RequestEntityTooLarge") => (413, "RequestEntityTooLarge"),
            _ => (422, "Invalid"),
        };
        if let Some(details) = &mut failure.details {
            details.insert("causes".into(), json!([{"message": message}]));
        }
        Err(failure)
    }
}

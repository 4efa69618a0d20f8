//! MutatingAdmissionPolicies: patches in CEL, which bindings put into force.
//!
//! ```text
//! [MutatingAdmissionPolicy] <- [MutatingAdmissionPolicyBinding] -> [parameters]
//!        `-> mutations, in their order, once for each binding and each of its parameters -> [object]
//! ```
//!
//! Which policies are invoked is decided on the object as it comes; their conditions and mutations see what those before
//! them made of it. They come before webhooks, and once more with them where something changed the object ([`super::reinvocation`]).

mod mutation;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::conditions;
use super::expressions::{Environment, NOTHING};
use super::matching::resources_match;
use super::params;
use super::policy::{BindingHead, all, is_empty};
use super::reinvocation::{Invocations, Reinvocation};
use super::subject::{Matched, Subject};
use super::{GROUP, Plugin, Review, is_configurable};
use crate::object::meta;
use crate::resource::{self, Resource};
use crate::status::{Failure, Result};
use crate::write::context::{Operation, WriteContext};
use mutation::{Compiled, Problem};

/// The policies with their bindings.
pub(super) struct MutatingPolicies;

/// The resource of the policies.
pub(crate) fn policies() -> Option<&'static Arc<Resource>> {
    resource::find(GROUP, "v1", "mutatingadmissionpolicies")
}

fn bindings() -> Option<&'static Arc<Resource>> {
    resource::find(GROUP, "v1", "mutatingadmissionpolicybindings")
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn handles(&self, ctx: &WriteContext<'_>, _namespace: &str) -> bool {
        // A deletion has no object to change.
        is_configurable(ctx) && ctx.operation != Operation::Delete && !is_empty(ctx.server, bindings())
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn mutate(
        &self,
        review: &Review<'_>,
        object: &mut Value,
        reinvocation: &mut Reinvocation,
    ) -> Result<()> {
        let again = &mut reinvocation.policies;
        again.begin(object);
        let mut pass = Pass { review, refusals: Vec::new() };
        for invocations in pass.collect(object).await {
            pass.invoke(&invocations, object, again).await?;
        }
        again.end(object);
        pass.finish()
    }
}

/// The invocations of one policy for a write.
struct PolicyInvocations<'r> {
    policy: Arc<Compiled>,
    matched: Matched<'r>,
    /// Bindings, each once for each of its parameters, which are null for none.
    bound: Vec<(Arc<BindingHead>, Arc<Value>)>,
}

/// A failure of a policy that refuses the write.
struct Refusal {
    message: String,
    reason: &'static str,
}

/// One pass over all policies for a write.
struct Pass<'p, 'r> {
    review: &'p Review<'r>,
    refusals: Vec<Refusal>,
}

impl<'r> Pass<'_, 'r> {
    /// Notes a failure, unless the policy ignores its failures.
    fn refuse(&mut self, policy: &Compiled, binding: Option<&BindingHead>, reason: &'static str, why: &str) {
        if policy.head.ignores_failures {
            return;
        }
        let name = &policy.head.name;
        let message = match binding {
            Some(BindingHead { name: binding, .. }) => {
                format!("policy '{name}' with binding '{binding}' denied request: {why}")
            }
            None => format!("policy {name:?} denied request: {why}"),
        };
        self.refusals.push(Refusal { message, reason });
    }

    fn misconfigured(&mut self, policy: &Compiled, binding: Option<&BindingHead>, why: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.refuse(policy, binding, "Forbidden", &format!("failed to configure {what}: {why}"));
    }

    /// The invocations that a write asks for, by what its object is now.
    async fn collect(&mut self, object: &Value) -> Vec<PolicyInvocations<'r>> {
        let server = self.review.ctx.server;
        let bindings: Vec<Arc<BindingHead>> = all(server, bindings())
            .iter()
            .map(|binding| binding.derive(|value| Arc::new(BindingHead::read(value))))
            .collect();
        let mut collected = Vec::new();
        for policy in all(server, policies()) {
            let name = meta(&policy.value(), "name").to_owned();
            let own: Vec<&Arc<BindingHead>> = bindings.iter().filter(|b| b.policy == name).collect();
            if own.is_empty() {
                continue;
            }
            let policy = policy.derive(|value| Arc::new(Compiled::read(value)));
            collected.extend(self.of_policy(policy, &own, object).await);
        }
        collected
    }

    async fn of_policy(
        &mut self,
        policy: Arc<Compiled>,
        bindings: &[&Arc<BindingHead>],
        object: &Value,
    ) -> Option<PolicyInvocations<'r>> {
        let matched = match resources_match(self.review, &policy.head.constraints, Some(object)) {
            Ok(matched) => matched?,
            Err(failure) => {
                self.misconfigured(&policy, None, &failure.message);
                return None;
            }
        };
        let kind = match policy.head.param_resource(self.review) {
            Ok(kind) => kind,
            Err(why) => {
                self.misconfigured(&policy, None, &why);
                return None;
            }
        };
        let mut bound = Vec::new();
        for binding in bindings {
            match resources_match(self.review, &binding.resources, Some(object)) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(failure) => {
                    self.misconfigured(&policy, Some(binding), &failure.message);
                    continue;
                }
            }
            match params::collect(self.review, kind.as_deref(), &binding.params).await {
                Ok(found) => bound.extend(found.into_iter().map(|params| (Arc::clone(binding), params))),
                Err(why) => self.misconfigured(&policy, Some(binding), &why),
            }
        }
        Some(PolicyInvocations { policy, matched, bound })
    }

    /// Carries out the invocations of a policy on the object.
    async fn invoke(
        &mut self,
        invocations: &PolicyInvocations<'_>,
        object: &mut Value,
        again: &mut Invocations,
    ) -> Result<()> {
        let PolicyInvocations { policy, matched, bound } = invocations;
        if bound.is_empty() {
            return Ok(());
        }
        let environment = Environment::of(self.review, matched);
        for (binding, params) in bound {
            match self.conditions_hold(policy, matched, &environment, params, object).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    self.refuse(policy, Some(binding), "Invalid", &why);
                    continue;
                }
            }
            let of_params = [meta(params, "namespace"), meta(params, "name")];
            let name = [&*policy.head.name, &*binding.name, of_params[0], of_params[1]].join("/");
            if !again.is_wanted(&name) {
                continue;
            }
            let before = object.clone();
            for mutation in &policy.mutations {
                let values = (&**params, &policy.head.variables);
                match mutation.apply(self.review, matched, &environment, values, object).await {
                    Ok(changed) => *object = changed,
                    Err(Problem::Policy(why)) => self.refuse(policy, Some(binding), "Invalid", &why),
                    Err(Problem::Request(failure)) => return Err(failure),
                }
            }
            again.done(name, before != *object, policy.is_repeated);
        }
        Ok(())
    }

    /// Whether the conditions of a policy hold for the object.
    async fn conditions_hold(
        &self,
        policy: &Compiled,
        matched: &Resource,
        environment: &Environment,
        params: &Value,
        object: &Value,
    ) -> Result<bool, String> {
        if policy.head.conditions.is_empty() {
            return Ok(true);
        }
        let subject = Subject::of(self.review, matched, Some(object)).await;
        let subject = subject.map_err(|failure| failure.message)?;
        let scope = environment.scope(&subject, params, &NOTHING).map_err(|error| error.to_string())?;
        conditions::hold(&policy.head.conditions, &scope)
    }

    fn finish(self) -> Result<()> {
        let Some(first) = self.refusals.first() else { return Ok(()) };
        let mut failure = Failure::forbidden(self.review.ctx.requested, self.review.name, "");
        failure.message.clone_from(&first.message);
        failure.reason = first.reason;
        if let Some(details) = &mut failure.details {
            let causes = self.refusals.iter().map(|refusal| json!({"message": refusal.message}));
            details.insert("causes".into(), causes.collect());
        }
        Err(failure)
    }
}

//! What policies that validate and policies that change objects have in common, each read once from each version.

use std::sync::Arc;

use serde_json::Value;

use super::Review;
use super::conditions::{self, Condition};
use super::expressions;
use super::params::{resource_of, shown};
use crate::cel::Composition;
use crate::edit::text;
use crate::object::{Object, meta};
use crate::resource::Resource;
use crate::server::Inner;

/// The objects of a kind of policies or bindings, in the order of their names.
pub(super) fn all(server: &Inner, resource: Option<&Arc<Resource>>) -> Vec<Arc<Object>> {
    let collection = resource.and_then(|resource| server.collection(resource).ok());
    collection.map(|collection| collection.list("", None, 0, |_| true).objects).unwrap_or_default()
}

/// Whether there are none.
pub(super) fn is_empty(server: &Inner, resource: Option<&Arc<Resource>>) -> bool {
    let collection = resource.and_then(|resource| server.collection(resource).ok());
    collection.is_none_or(|collection| collection.is_empty())
}

/// A policy up to what it does.
pub(super) struct PolicyHead {
    pub(super) name: String,
    /// Expressions that cannot be evaluated refuse nothing.
    pub(super) ignores_failures: bool,
    /// Its `ParamKind`, if it has parameters.
    param_kind: Option<Value>,
    /// Its `MatchResources`.
    pub(super) constraints: Value,
    pub(super) conditions: Vec<Condition>,
    /// Its variables, as its expressions use them.
    pub(super) variables: Composition,
}

impl PolicyHead {
    /// Reads a policy and compiles its conditions and variables.
    pub(super) fn compile(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let has_params = spec["paramKind"].is_object();
        let known = expressions::variables(has_params, true);
        Self {
            name: meta(policy, "name").to_owned(),
            ignores_failures: text(&spec["failurePolicy"]) == "Ignore",
            param_kind: has_params.then(|| spec["paramKind"].clone()),
            constraints: spec["matchConstraints"].clone(),
            conditions: conditions::read(&spec["matchConditions"], &known),
            variables: expressions::compose(&spec["variables"], &known),
        }
    }

    /// Whether its expressions may use `params`.
    pub(super) fn has_params(&self) -> bool {
        self.param_kind.is_some()
    }

    /// The resource of its parameters, if it has any.
    ///
    /// # Errors
    /// That there is none of its kind.
    pub(super) fn param_resource(&self, review: &Review<'_>) -> Result<Option<Arc<Resource>>, String> {
        let Some(kind) = &self.param_kind else { return Ok(None) };
        let resources = review.ctx.server.registry.current();
        match resource_of(&resources, kind) {
            Some(resource) => Ok(Some(resource.clone())),
            None => Err(format!("failed to find resource referenced by paramKind: '{}'", shown(kind))),
        }
    }
}

/// A binding up to what it says about failures.
pub(super) struct BindingHead {
    pub(super) name: String,
    /// The name of its policy.
    pub(super) policy: String,
    /// Its `MatchResources`.
    pub(super) resources: Value,
    /// Its `ParamRef`; null for none.
    pub(super) params: Value,
}

impl BindingHead {
    pub(super) fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        Self {
            name: meta(binding, "name").to_owned(),
            policy: text(&spec["policyName"]).to_owned(),
            resources: spec["matchResources"].clone(),
            params: spec["paramRef"].clone(),
        }
    }
}

//! Which writes a webhook or a policy is about: rules for resources, and selectors of namespaces and objects.

use std::sync::Arc;

use serde_json::Value;
use yado_types::selector::LabelSelector;

use super::Review;
use super::request::{is_namespace, operation};
use super::subject::Matched;
use crate::edit::{list, text};
use crate::resource::{self, Resource, Subresource};
use crate::status::{Failure, Result};

/// The resource by which the `MatchResources` of a policy or of its binding name a write; `None` where they do not.
pub(super) fn resources_match<'r>(
    review: &Review<'r>,
    criteria: &Value,
    object: Option<&Value>,
) -> Result<Option<Matched<'r>>> {
    if !selectors_match(review, criteria, object)? {
        return Ok(None);
    }
    let is_exact = text(&criteria["matchPolicy"]) == "Exact";
    let (wanted, excluded) = (list(&criteria["resourceRules"]), list(&criteria["excludeResourceRules"]));
    Ok(match wanted {
        _ if rules_match(review, excluded, is_exact).is_some() => None,
        [] => Some(Matched::Requested(review.ctx.requested)),
        wanted => rules_match(review, wanted, is_exact),
    })
}

/// The resource by which rules name a write: that of the request or, unless they are taken exactly, the first other version of it
/// that one of them names.
pub(super) fn rules_match<'r>(review: &Review<'r>, rules: &[Value], is_exact: bool) -> Option<Matched<'r>> {
    let ctx = review.ctx;
    if rules.iter().any(|rule| rule_matches(review, ctx.requested, rule)) {
        return Some(Matched::Requested(ctx.requested));
    }
    if is_exact || rules.is_empty() {
        return None;
    }
    let served = ctx.server.registry.current();
    let mut others = served.equivalents(ctx.requested, ctx.subresource).peekable();
    others.peek()?;
    let others: Vec<_> = others.collect();
    let named = |rule| others.iter().find(|other| rule_matches(review, other, rule));
    rules.iter().find_map(named).map(|other| Matched::Equivalent(Arc::clone(other)))
}

/// Whether the `namespaceSelector` and the `objectSelector` hold for a write; the latter for the object before it or
/// after it.
pub(super) fn selectors_match(review: &Review<'_>, criteria: &Value, object: Option<&Value>) -> Result<bool> {
    let (of_namespace, of_object) = (&criteria["namespaceSelector"], &criteria["objectSelector"]);
    if !is_everything(of_namespace)
        && let Some(labels) = namespace_labels(review, object)
        && !selects(of_namespace, &labels)?
    {
        return Ok(false);
    }
    if is_everything(of_object) {
        return Ok(true);
    }
    // What is no object, as the options of a connection, is selected by nothing else.
    for metadata in [object, review.old].into_iter().flatten().filter_map(|object| object.get("metadata")) {
        // A Scale has no labels.
        let is_scale = review.ctx.subresource == Some(Subresource::Scale);
        let labels = if is_scale { &Value::Null } else { &metadata["labels"] };
        if selects(of_object, labels)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The labels that a namespace selector is held against; `None` for objects that are in no Namespace and none
/// themselves, which every selector takes.
fn namespace_labels(review: &Review<'_>, object: Option<&Value>) -> Option<Value> {
    let ctx = review.ctx;
    if is_namespace(review) {
        return object.or(review.old).map(|object| object["metadata"]["labels"].clone());
    }
    if !ctx.resource.namespaced {
        return None;
    }
    let namespaces = resource::find("", "v1", "namespaces")?;
    let namespace = ctx.server.find(namespaces, "", review.namespace).ok();
    Some(namespace.map(|namespace| namespace.value()["metadata"]["labels"].clone()).unwrap_or_default())
}

fn is_everything(selector: &Value) -> bool {
    list(&selector["matchExpressions"]).is_empty()
        && selector["matchLabels"].as_object().is_none_or(serde_json::Map::is_empty)
}

/// Whether a selector takes an object with these labels.
pub(super) fn selects(selector: &Value, labels: &Value) -> Result<bool> {
    if is_everything(selector) {
        return Ok(true);
    }
    let selector = serde_json::from_value(selector.clone()).map_err(Failure::internal)?;
    let selector = LabelSelector::from_api(&selector).map_err(Failure::internal)?;
    Ok(selector.matches_with(|key| labels[key].as_str()))
}

/// Whether a rule names a write, taken as one of this resource.
fn rule_matches(review: &Review<'_>, resource: &Resource, rule: &Value) -> bool {
    let has =
        |field: &str, wanted: &str| list(&rule[field]).iter().any(|given| given == "*" || given == wanted);
    let scope = match text(&rule["scope"]) {
        "Namespaced" => resource.namespaced,
        "Cluster" => !resource.namespaced,
        _ => true,
    };
    let subresource = review.ctx.subresource.map(|s| s.name()).unwrap_or_default();
    let resources = list(&rule["resources"]).iter().map(text).any(|given| {
        let (plural, part) = given.split_once('/').unwrap_or((given, ""));
        (plural == "*" || plural == resource.plural) && (part == "*" || part == subresource)
    });
    let names = list(&rule["resourceNames"]);
    has("operations", operation(review.ctx.operation))
        && has("apiGroups", &resource.group)
        && has("apiVersions", &resource.version)
        && scope
        && resources
        && (names.is_empty() || names.iter().any(|name| name == review.name))
}

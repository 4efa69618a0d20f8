//! Which writes a webhook or a policy is about: rules for resources, and selectors of namespaces and objects.

use serde_json::Value;
use yado_types::selector::LabelSelector;

use super::Review;
use super::request::{is_namespace, operation};
use crate::edit::{list, text};
use crate::resource;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

/// Whether a write is one of those that the `MatchResources` of a policy or of its binding names.
pub(super) fn resources_match(review: &Review<'_>, criteria: &Value, object: Option<&Value>) -> Result<bool> {
    if !selectors_match(review, criteria, object)? {
        return Ok(false);
    }
    let is_exact = text(&criteria["matchPolicy"]) == "Exact";
    let any = |rules: &Value| {
        list(rules).iter().any(|rule| {
            let names = list(&rule["resourceNames"]);
            let is_named = names.is_empty() || names.iter().any(|name| name == review.name);
            is_named && rule_matches(review.ctx, rule, is_exact)
        })
    };
    let (wanted, excluded) = (&criteria["resourceRules"], &criteria["excludeResourceRules"]);
    Ok(!any(excluded) && (list(wanted).is_empty() || any(wanted)))
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
    let mut matches = is_everything(of_object);
    for object in [object, review.old].into_iter().flatten() {
        matches = matches || selects(of_object, &object["metadata"]["labels"])?;
    }
    Ok(matches)
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

/// Whether a rule names such a write. Unless it is taken exactly, versions of a custom kind are equal to each other.
pub(super) fn rule_matches(ctx: &WriteContext<'_>, rule: &Value, is_exact: bool) -> bool {
    let has =
        |field: &str, wanted: &str| list(&rule[field]).iter().any(|given| given == "*" || given == wanted);
    let resource = &ctx.resource;
    let scope = match text(&rule["scope"]) {
        "Namespaced" => resource.namespaced,
        "Cluster" => !resource.namespaced,
        _ => true,
    };
    let subresource = ctx.subresource.map(|s| s.name()).unwrap_or_default();
    let resources = list(&rule["resources"]).iter().map(text).any(|given| {
        let (plural, part) = given.split_once('/').unwrap_or((given, ""));
        let part_matches = match given {
            "*" => subresource.is_empty(),
            "*/*" => true,
            _ => part == "*" || part == subresource,
        };
        (plural == "*" || plural == resource.plural) && part_matches
    });
    let has_others =
        !is_exact && resource.custom.as_ref().is_some_and(|custom| custom.versions.are_several());
    let version = has_others || has("apiVersions", &resource.version);
    has("operations", operation(ctx.operation))
        && has("apiGroups", &resource.group)
        && version
        && scope
        && resources
}

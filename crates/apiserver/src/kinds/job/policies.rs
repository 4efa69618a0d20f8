//! Rules of the policies that say what a failed Pod means for its Job, and when it has succeeded.

use std::collections::BTreeSet;

use serde_json::Value;
use yado_types::names;

use super::indexes;
use crate::edit::{list, text};
use crate::schema::validate::{Errors, Path};

/// Rules of a policy, and patterns of one rule.
const MOST_RULES: usize = 20;
const MOST_EXIT_CODES: usize = 255;
/// Bytes of the indexes of a rule.
const MOST_INDEXES: usize = 64 * 1024;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// Checks `podFailurePolicy`, if there is one.
pub fn failure_policy(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    if spec["podFailurePolicy"].is_null() {
        return;
    }
    let policy_at = at.field("podFailurePolicy");
    let (rules, rules_at) = (list(&spec["podFailurePolicy"]["rules"]), policy_at.field("rules"));
    at_most(rules.len(), MOST_RULES, &rules_at, errors);
    for (i, rule) in rules.iter().enumerate() {
        let at = rules_at.index(i);
        let action_at = at.field("action");
        match text(&rule["action"]) {
            "FailIndex" if spec["backoffLimitPerIndex"].is_null() => {
                let detail = "requires the backoffLimitPerIndex to be set";
                errors.invalid_text(&action_at, "FailIndex", detail);
            }
            action => one_of(action, &ACTIONS, &action_at, errors),
        }
        let (codes, conditions) = (&rule["onExitCodes"], list(&rule["onPodConditions"]));
        if !codes.is_null() {
            exit_codes(codes, &spec["template"]["spec"], &at.field("onExitCodes"), errors);
        }
        pod_conditions(conditions, &at.field("onPodConditions"), errors);
        match (codes.is_null(), conditions.is_empty()) {
            (true, true) => {
                errors.invalid_object(&at, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (false, false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.invalid_object(&at, detail);
            }
            _ => {}
        }
    }
}

fn at_most(count: usize, most: usize, at: &Path<'_>, errors: &mut Errors) {
    if count > most {
        errors.too_many(at, count, most);
    }
}

fn one_of(given: &str, values: &[&str], at: &Path<'_>, errors: &mut Errors) {
    if given.is_empty() {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        errors.required(at, &format!("valid values: [{}]", quoted.join(" ")));
    } else {
        errors.supported(at, given, values);
    }
}

fn exit_codes(codes: &Value, pod: &Value, at: &Path<'_>, errors: &mut Errors) {
    one_of(text(&codes["operator"]), &OPERATORS, &at.field("operator"), errors);
    let mut containers = list(&pod["containers"]).iter().chain(list(&pod["initContainers"]));
    let name = &codes["containerName"];
    if !name.is_null() && !containers.any(|container| container["name"] == *name) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&at.field("containerName"), name, detail);
    }
    let (values, values_at) = (list(&codes["values"]), at.field("values"));
    if values.is_empty() {
        errors.invalid(&values_at, &codes["values"], "at least one value is required");
    }
    at_most(values.len(), MOST_EXIT_CODES, &values_at, errors);
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        let at = values_at.index(i);
        if codes["operator"] == "In" && *value == 0 {
            errors.invalid(&at, value, "must not be 0 for the In operator");
        }
        if !seen.insert(value.as_i64()) {
            errors.duplicate(&at, value);
        }
    }
    if !values.is_sorted_by_key(Value::as_i64) {
        errors.invalid(&values_at, &codes["values"], "must be ordered");
    }
}

fn pod_conditions(patterns: &[Value], at: &Path<'_>, errors: &mut Errors) {
    at_most(patterns.len(), MOST_RULES, at, errors);
    for (i, pattern) in patterns.iter().enumerate() {
        let (at, kind) = (at.index(i), text(&pattern["type"]));
        errors.check_text(&at.field("type"), kind, names::qualified_name(kind));
        one_of(text(&pattern["status"]), &STATUSES, &at.field("status"), errors);
    }
}

/// Checks `successPolicy` of an Indexed Job, if there is one.
pub fn success_policy(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    if spec["successPolicy"].is_null() {
        return;
    }
    let policy_at = at.field("successPolicy");
    let (rules, rules_at) = (list(&spec["successPolicy"]["rules"]), policy_at.field("rules"));
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(&rules_at, detail);
    }
    at_most(rules.len(), MOST_RULES, &rules_at, errors);
    // Without completions there is another error.
    let completions = spec["completions"].as_i64().unwrap_or_default();
    for (i, rule) in rules.iter().enumerate() {
        let (at, count) = (rules_at.index(i), &rule["succeededCount"]);
        if count.is_null() && rule["succeededIndexes"].is_null() {
            errors.required(&at, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let named = rule["succeededIndexes"].as_str().map(|named| {
            let at = at.field("succeededIndexes");
            if named.len() > MOST_INDEXES {
                errors.too_long(&at, MOST_INDEXES);
            }
            indexes::count(named, completions).unwrap_or_else(|why| {
                errors.invalid_text(&at, named, &format!("error parsing succeededIndexes: {why}"));
                0
            })
        });
        let count_at = at.field("succeededCount");
        errors.at_least(&count_at, count, 0);
        let mut less_than = |limit: i64, of: &str| {
            if count.as_i64().is_some_and(|n| n > limit) {
                let detail = format!("must be less than or equal to {limit} (the number of {of})");
                errors.invalid(&count_at, count, &detail);
            }
        };
        less_than(completions, "specified completions");
        if let Some(named) = named {
            less_than(named, "indexes in the specified succeededIndexes field");
        }
    }
}

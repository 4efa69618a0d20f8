//! What keeps Pods running, and its scale.

use serde_json::{Value, json};

use super::meta;
use super::path::{Errors, Path, text};
use super::pod;

pub fn scale(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    errors.at_least(&root.field("spec").field("replicas"), &object["spec"]["replicas"], 0);
}

pub fn replica_set(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    errors.at_least(&at.field("replicas"), &spec["replicas"], 0);
    errors.at_least(&at.field("minReadySeconds"), &spec["minReadySeconds"], 0);
    selector_and_template(spec, "replica set", "ReplicaSet", &at, errors);
    immutable_selector(spec, old, &at, errors);
}

pub fn deployment(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    for key in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.at_least(&at.field(key), &spec[key], 0);
    }
    selector_and_template(spec, "deployment", "Deployment", &at, errors);
    strategy(&spec["strategy"], &at.field("strategy"), errors);
    let deadline = spec["progressDeadlineSeconds"].as_i64();
    if deadline.is_some_and(|d| d <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        let detail = "must be greater than minReadySeconds";
        errors.invalid(&at.field("progressDeadlineSeconds"), &spec["progressDeadlineSeconds"], detail);
    }
    immutable_selector(spec, old, &at, errors);
}

fn immutable_selector(spec: &Value, old: Option<&Value>, at: &Path<'_>, errors: &mut Errors) {
    if old.is_some_and(|old| old["spec"]["selector"] != spec["selector"]) {
        errors.invalid(&at.field("selector"), &spec["selector"], "field is immutable");
    }
}

fn selector_and_template(spec: &Value, words: &str, kind: &str, at: &Path<'_>, errors: &mut Errors) {
    let (selector, selector_at) = (&spec["selector"], at.field("selector"));
    if selector.is_null() {
        errors.required(&selector_at, "");
    } else {
        meta::label_selector(selector, &selector_at, errors);
        if meta::is_empty_selector(selector) {
            errors.invalid(&selector_at, selector, &format!("empty selector is invalid for {words}"));
        }
    }
    let template_at = at.field("template");
    matches_template(selector, &spec["template"], &template_at, errors);
    template(&spec["template"], &template_at, errors);
    always_restarts(&spec["template"], kind, &template_at, errors);
}

/// What is selected has to be what is made.
fn matches_template(selector: &Value, template: &Value, at: &Path<'_>, errors: &mut Errors) {
    let labels = &template["metadata"]["labels"];
    if !selector.is_null() && !meta::is_empty_selector(selector) && !meta::selects(selector, labels) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let metadata_at = at.field("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata_at.field("labels"), &shown, detail);
    }
}

/// A Pod template by itself.
pub fn template(template: &Value, at: &Path<'_>, errors: &mut Errors) {
    let metadata_at = at.field("metadata");
    meta::labels(&template["metadata"]["labels"], &metadata_at.field("labels"), errors);
    meta::annotations(&template["metadata"]["annotations"], &metadata_at.field("annotations"), errors);
    pod::spec(&template["spec"], &at.field("spec"), errors);
}

/// Pods that are kept running restart, and have no end.
fn always_restarts(template: &Value, kind: &str, at: &Path<'_>, errors: &mut Errors) {
    let spec_at = at.field("spec");
    errors.one_of(&spec_at.field("restartPolicy"), &template["spec"]["restartPolicy"], &["Always"]);
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&spec_at.field("activeDeadlineSeconds"), &detail);
    }
}

pub fn daemon_set(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        errors.at_least(&at.field(key), &spec[key], 0);
    }
    selector_and_template(spec, "daemonset", "DaemonSet", &at, errors);
    let (strategy, at_strategy) = (&spec["updateStrategy"], at.field("updateStrategy"));
    errors.one_of(&at_strategy.field("type"), &strategy["type"], &["RollingUpdate", "OnDelete"]);
    if strategy["type"] == "RollingUpdate" {
        let rolling_at = at_strategy.field("rollingUpdate");
        let (unavailable, surge) =
            (&strategy["rollingUpdate"]["maxUnavailable"], &strategy["rollingUpdate"]["maxSurge"]);
        let (unavailable_at, surge_at) = (rolling_at.field("maxUnavailable"), rolling_at.field("maxSurge"));
        count_or_percent(unavailable, &unavailable_at, errors);
        count_or_percent(surge, &surge_at, errors);
        match (is_zero(unavailable), is_zero(surge)) {
            (true, true) => errors.invalid(&unavailable_at, unavailable, "cannot be 0 when maxSurge is 0"),
            (false, false) => {
                errors.invalid(&surge_at, surge, "may not be set when maxUnavailable is non-zero");
            }
            _ => {}
        }
        for (value, at) in [(unavailable, &unavailable_at), (surge, &surge_at)] {
            if percent(value).is_some_and(|p| p > 100) {
                errors.invalid(at, value, "must not be greater than 100%");
            }
        }
    }
    immutable_selector(spec, old, &at, errors);
}

pub fn controller_revision(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    errors.at_least(&root.field("revision"), &object["revision"], 0);
    if old.is_some_and(|old| old["data"] != object["data"]) {
        errors.invalid(&root.field("data"), &object["data"], "field is immutable");
    }
}

/// The selector of a ReplicationController is a plain map, and may change.
pub fn replication_controller(object: &Value, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    errors.at_least(&at.field("replicas"), &spec["replicas"], 0);
    errors.at_least(&at.field("minReadySeconds"), &spec["minReadySeconds"], 0);
    let selector = json!({"matchLabels": spec["selector"]});
    if meta::is_empty_selector(&selector) {
        errors.required(&at.field("selector"), "");
    }
    meta::labels(&spec["selector"], &at.field("selector"), errors);
    let template_at = at.field("template");
    if spec["template"].is_null() {
        errors.required(&template_at, "");
        return;
    }
    matches_template(&selector, &spec["template"], &template_at, errors);
    template(&spec["template"], &template_at, errors);
    always_restarts(&spec["template"], "ReplicationController", &template_at, errors);
}

fn strategy(strategy: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (rolling, rolling_at) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&rolling_at, "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" if rolling.is_null() => {
            errors.required(&rolling_at, "this should be defaulted and never be nil")
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let unavailable_at = rolling_at.field("maxUnavailable");
            count_or_percent(unavailable, &unavailable_at, errors);
            count_or_percent(surge, &rolling_at.field("maxSurge"), errors);
            if percent(unavailable).is_some_and(|p| p > 100) {
                errors.invalid(&unavailable_at, unavailable, "must not be greater than 100%");
            }
            if is_zero(unavailable) && is_zero(surge) {
                errors.invalid(&unavailable_at, unavailable, "may not be 0 when `maxSurge` is 0");
            }
        }
        _ => errors.one_of(&at.field("type"), &strategy["type"], &["Recreate", "RollingUpdate"]),
    }
}

/// The number before `%`.
fn percent(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0) || percent(value) == Some(0)
}

fn count_or_percent(value: &Value, at: &Path<'_>, errors: &mut Errors) {
    errors.at_least(at, value, 0);
    if value.is_string() && percent(value).is_none() {
        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                      regex used for validation is '[0-9]+%')";
        errors.invalid(at, value, detail);
    }
}

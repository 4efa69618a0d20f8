//! Rules of Jobs.

use serde_json::{Value, json};
use yado_types::names;

use crate::edit::{existing_at, list, text};
use crate::kinds::pod_template::validate_template;
use crate::schema::validate::{Errors, Path, meta};

/// The label by which a Job's Pods are told from all others; its value is the Job's uid.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// An Indexed Job may have so many completions, so that its indexes fit into one object.
const MAX_INDEXED: i64 = 100_000;

/// Fields of the Pod template that may change until the Job has started.
const UNTIL_STARTED: [&str; 4] = ["affinity", "nodeSelector", "schedulingGates", "tolerations"];

/// Checks a Job.
pub fn validate_job(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    numbers(spec, &at, errors);
    errors.one_of(&at.field("completionMode"), &spec["completionMode"], &["NonIndexed", "Indexed"]);
    let replacements = ["Failed", "TerminatingOrFailed"];
    errors.one_of(&at.field("podReplacementPolicy"), &spec["podReplacementPolicy"], &replacements);
    if spec["completionMode"] == "Indexed" {
        match spec["completions"].as_i64() {
            None => errors.required(
                &at.field("completions"),
                "when completion mode is Indexed, completions must be set",
            ),
            Some(n) if n > MAX_INDEXED => {
                let detail = format!("must be less than or equal to {MAX_INDEXED}");
                errors.invalid(&at.field("completions"), &spec["completions"], &detail);
            }
            Some(n) if old.is_none() => host_names(object, n, errors),
            _ => {}
        }
    } else {
        for key in ["backoffLimitPerIndex", "successPolicy"] {
            if !spec[key].is_null() {
                errors.invalid(&at.field(key), &spec[key], "requires indexed completion mode");
            }
        }
    }
    selector(object, &at, errors);
    let template_at = at.field("template");
    validate_template(&spec["template"], &template_at, errors);
    let spec_at = template_at.field("spec");
    let (policy, policy_at) = (&spec["template"]["spec"]["restartPolicy"], spec_at.field("restartPolicy"));
    if policy == "Always" {
        errors.required(&policy_at, "valid values: \"OnFailure\", \"Never\"");
    }
    failure_policy(spec, &at, errors);
    if let Some(old) = old {
        update(spec, old, &at, errors);
    }
}

/// Each Pod of an Indexed Job has its Job's name and its index for a host name.
fn host_names(object: &Value, completions: i64, errors: &mut Errors) {
    let (root, name) = (Path::root(), text(&object["metadata"]["name"]));
    let last = format!("{name}-{}", (completions - 1).max(0));
    if let Err(rule) = names::dns_label(&last) {
        let detail = format!("the host name {last:?} of its last Pod would not be a DNS label: {rule}");
        let metadata = root.field("metadata");
        errors.invalid_text(&metadata.field("name"), name, &detail);
    }
}

fn numbers(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ] {
        errors.at_least(&at.field(key), &spec[key], 0);
    }
}

/// A Job's selector is made by the API server, unless its user takes care that it selects nothing else.
fn selector(object: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], at.field("selector"));
    let selector = &spec["selector"];
    if selector.is_null() {
        // What the API server has not seen yet has none.
        if spec["manualSelector"] == true || !object["metadata"]["uid"].is_null() {
            errors.required(&at, "");
        }
        return;
    }
    meta::label_selector(selector, &at, errors);
    let made = json!({"matchLabels": {CONTROLLER_UID: object["metadata"]["uid"]}});
    if spec["manualSelector"] != true && *selector != made {
        errors.invalid(&at, selector, "`selector` not auto-generated");
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !meta::selects(selector, labels) {
        let (root, shown) = (Path::root(), if labels.is_null() { json!({}) } else { labels.clone() });
        let (spec_at, detail) = (root.field("spec"), "`selector` does not match template `labels`");
        let template_at = spec_at.field("template");
        let metadata_at = template_at.field("metadata");
        errors.invalid(&metadata_at.field("labels"), &shown, detail);
    }
}

fn failure_policy(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let policy = &spec["podFailurePolicy"];
    if policy.is_null() {
        return;
    }
    let policy_at = at.field("podFailurePolicy");
    if spec["template"]["spec"]["restartPolicy"] != "Never" {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        let template_at = at.field("template");
        let spec_at = template_at.field("spec");
        let given = &spec["template"]["spec"]["restartPolicy"];
        errors.invalid(&spec_at.field("restartPolicy"), given, detail);
    }
    let rules_at = policy_at.field("rules");
    for (i, rule) in list(&policy["rules"]).iter().enumerate() {
        let at = rules_at.index(i);
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        errors.one_of(&at.field("action"), &rule["action"], &actions);
        let codes = &rule["onExitCodes"];
        match (codes.is_null(), list(&rule["onPodConditions"]).is_empty()) {
            (true, true) => {
                errors.invalid(&at, rule, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (false, false) => {
                errors.invalid(&at, rule, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                let at = at.field("onExitCodes");
                errors.one_of(&at.field("operator"), &codes["operator"], &["In", "NotIn"]);
                if list(&codes["values"]).is_empty() {
                    errors.invalid(&at.field("values"), &codes["values"], "at least one value is required");
                }
            }
            (true, false) => {}
        }
    }
}

fn update(spec: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    let old_spec = &old["spec"];
    // An Indexed Job may grow and shrink with its parallelism.
    let elastic = spec["completionMode"] == "Indexed" && spec["completions"] == spec["parallelism"];
    for key in [
        "completions",
        "selector",
        "template",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        let same = match key {
            "completions" => elastic || spec[key] == old_spec[key],
            "template" => same_template(spec, old),
            _ => spec[key] == old_spec[key],
        };
        if !same {
            errors.invalid(&at.field(key), &spec[key], "field is immutable");
        }
    }
}

/// The template stays, but for the fields that say where Pods go while a suspended Job has not started.
fn same_template(spec: &Value, old: &Value) -> bool {
    let (mut new, mut before) = (spec["template"].clone(), old["spec"]["template"].clone());
    let unstarted = old["spec"]["suspend"] == true && text(&old["status"]["startTime"]).is_empty();
    if unstarted {
        for template in [&mut new, &mut before] {
            if let Some(metadata) = existing_at(template, &["metadata"]) {
                metadata.shift_remove("labels");
                metadata.shift_remove("annotations");
            }
            if let Some(spec) = existing_at(template, &["spec"]) {
                UNTIL_STARTED.iter().for_each(|key| _ = spec.shift_remove(*key));
            }
        }
    }
    new == before
}

//! Rules of a Job's specification, which CronJobs have in their templates too.

use serde_json::Value;
use yado_types::names;

use super::policies::{failure_policy, success_policy};
use crate::edit::text;
use crate::kinds::pod_template::validate_template;
use crate::schema::validate::{Errors, Path};

/// Pods of an Indexed Job that may run at a time, and indexes of it that may fail, so that the lists of its completed and failed
/// indexes fit into its status.
pub(super) const MOST_INDEXES: i64 = 100_000;
/// The same for a Job of more completions than [`MOST_INDEXES`] that counts failures by index.
pub(super) const MOST_OF_MANY: i64 = 10_000;
/// Bytes of `managedBy`.
const MOST_MANAGER: usize = 63;

/// Checks a Job's specification, but for its selector.
pub fn validate_spec(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.at_least(&at.field(field), &spec[field], 0);
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        errors.required(&at.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        managed_by(manager, &at.field("managedBy"), errors);
    }
    errors.one_of(&at.field("completionMode"), &spec["completionMode"], &["NonIndexed", "Indexed"]);
    let indexed = spec["completionMode"] == "Indexed";
    if indexed {
        numbers_of_indexed(spec, at, errors);
    } else if spec["completionMode"].is_null() || spec["completionMode"] == "NonIndexed" {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            needs_indexes(spec, field, at, errors);
        }
    }
    failure_policy(spec, at, errors);
    if indexed {
        success_policy(spec, at, errors);
    } else {
        needs_indexes(spec, "successPolicy", at, errors);
    }
    let replacements: &[&str] =
        if spec["podFailurePolicy"].is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    errors.one_of(&at.field("podReplacementPolicy"), &spec["podReplacementPolicy"], replacements);
    let template_at = at.field("template");
    validate_template(&spec["template"], &template_at, errors);
    restart_policy(spec, &template_at, errors);
}

fn needs_indexes(spec: &Value, field: &str, at: &Path<'_>, errors: &mut Errors) {
    if !spec[field].is_null() {
        errors.invalid(&at.field(field), &spec[field], "requires indexed completion mode");
    }
}

/// A domain and a path, like `example.com/controller`.
fn managed_by(manager: &str, at: &Path<'_>, errors: &mut Errors) {
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.required(at, ""),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            errors.check_text(at, domain, names::dns_subdomain(domain));
            if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
                let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
                errors.invalid_text(at, path, detail);
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid_text(at, manager, detail);
        }
    }
    if manager.len() > MOST_MANAGER {
        errors.too_long(at, MOST_MANAGER);
    }
}

fn numbers_of_indexed(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let number = |field: &str| spec[field].as_i64();
    let (completions, failed) = (number("completions"), number("maxFailedIndexes"));
    let failed_at = at.field("maxFailedIndexes");
    let parallelism_at = at.field("parallelism");
    if completions.is_none() {
        errors.required(&at.field("completions"), "when completion mode is Indexed");
    }
    if let (Some(completions), Some(failed)) = (completions, failed)
        && failed > completions
    {
        errors.invalid(&failed_at, &failed.into(), "must be less than or equal to completions");
    }
    let mut at_most = |at: &Path<'_>, value: Option<i64>, most: i64, when: &str| {
        if value.is_some_and(|n| n > most) {
            errors.invalid(at, &value.into(), &format!("must be less than or equal to {most}{when}"));
        }
    };
    let parallelism = number("parallelism");
    at_most(&parallelism_at, parallelism, MOST_INDEXES, " when completion mode is Indexed");
    at_most(&failed_at, failed, MOST_INDEXES, "");
    let many = completions.is_some_and(|n| n > MOST_INDEXES) && !spec["backoffLimitPerIndex"].is_null();
    if many {
        let when =
            format!(" when completions are above {MOST_INDEXES} and used with backoff limit per index");
        at_most(&parallelism_at, parallelism, MOST_OF_MANY, &when);
        at_most(&failed_at, failed, MOST_OF_MANY, &when);
    }
    if many && failed.is_none() {
        let detail = format!("must be specified when completions is above {MOST_INDEXES}");
        errors.required(&failed_at, &detail);
    }
}

/// Pods of Jobs end.
fn restart_policy(spec: &Value, template_at: &Path<'_>, errors: &mut Errors) {
    let spec_at = template_at.field("spec");
    let (policy, at) = (text(&spec["template"]["spec"]["restartPolicy"]), spec_at.field("restartPolicy"));
    match policy {
        "Always" | "" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if !spec["podFailurePolicy"].is_null() => {
            errors.invalid_text(
                &at,
                policy,
                "only \"Never\" is supported when podFailurePolicy is specified",
            );
        }
        _ => errors.supported(&at, policy, &["OnFailure", "Never"]),
    }
}

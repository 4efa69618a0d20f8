//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use super::admission_policy::{match_conditions, rule};
use crate::admission::expressions;
use crate::edit::{existing, fill, list, objects, text};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path, meta};
use crate::table::Column;
use crate::table::format::age;

/// Both kinds; only a mutating webhook may be asked again.
#[derive(Debug)]
pub struct WebhookConfiguration {
    /// It is a MutatingWebhookConfiguration.
    pub mutating: bool,
}

impl Strategy for WebhookConfiguration {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        for webhook in objects(object, "webhooks") {
            fill(webhook, "failurePolicy", "Fail");
            fill(webhook, "matchPolicy", "Equivalent");
            fill(webhook, "namespaceSelector", json!({}));
            fill(webhook, "objectSelector", json!({}));
            fill(webhook, "timeoutSeconds", 10);
            if self.mutating {
                fill(webhook, "reinvocationPolicy", "Never");
            }
            objects(webhook, "rules").for_each(|rule| fill(rule, "scope", "*"));
            if let Some(service) =
                existing(webhook, "clientConfig").and_then(|config| existing(config, "service"))
            {
                fill(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let webhooks = root.field("webhooks");
        let mut seen = BTreeSet::new();
        for (i, webhook) in list(&object["webhooks"]).iter().enumerate() {
            let at = webhooks.index(i);
            if !seen.insert(text(&webhook["name"])) {
                errors.duplicate(&at.field("name"), &webhook["name"]);
            }
            self.webhook(webhook, &at, errors);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, webhook) in list(&object["webhooks"]).iter().enumerate() {
            if text(&webhook["clientConfig"]["caBundle"]).is_empty() {
                let what = "without it no certificate of the webhook is trusted on this server";
                warnings.push(format!("webhooks[{i}].clientConfig.caBundle: {what}"));
            }
        }
        warnings
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::integer("Webhooks"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = list(&object["webhooks"]).len();
        vec![object["metadata"]["name"].clone(), json!(count), json!(age(object, now))]
    }
}

impl WebhookConfiguration {
    fn webhook(&self, webhook: &Value, at: &Path<'_>, errors: &mut Errors) {
        let name = text(&webhook["name"]);
        let is_qualified = name.split('.').count() >= 3;
        match names::dns_subdomain(name) {
            Ok(()) if !is_qualified => {
                let detail = "should be a domain with at least three segments separated by dots";
                errors.invalid_text(&at.field("name"), name, detail);
            }
            rule => errors.check_text(&at.field("name"), name, rule),
        }
        client_config(&webhook["clientConfig"], &at.field("clientConfig"), errors);
        let versions = at.field("admissionReviewVersions");
        match list(&webhook["admissionReviewVersions"]) {
            [] => errors.required(&versions, "must specify one of v1, v1beta1"),
            given if !given.iter().any(|version| version == "v1") => {
                let detail = "must include at least one of v1";
                errors.invalid(&versions, &webhook["admissionReviewVersions"], detail);
            }
            _ => {}
        }
        match text(&webhook["sideEffects"]) {
            "" => errors.required(&at.field("sideEffects"), "must specify one of None, NoneOnDryRun"),
            given => errors.supported(&at.field("sideEffects"), given, &["None", "NoneOnDryRun"]),
        }
        errors.one_of(&at.field("failurePolicy"), &webhook["failurePolicy"], &["Fail", "Ignore"]);
        errors.one_of(&at.field("matchPolicy"), &webhook["matchPolicy"], &["Equivalent", "Exact"]);
        if self.mutating {
            let policies = ["IfNeeded", "Never"];
            errors.one_of(&at.field("reinvocationPolicy"), &webhook["reinvocationPolicy"], &policies);
        }
        if webhook["timeoutSeconds"].as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.invalid(&at.field("timeoutSeconds"), &webhook["timeoutSeconds"], detail);
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            meta::label_selector(&webhook[selector], &at.field(selector), errors);
        }
        let variables = expressions::variables(false, true);
        match_conditions(&webhook["matchConditions"], &variables, &at.field("matchConditions"), errors);
        let rules = at.field("rules");
        for (i, given) in list(&webhook["rules"]).iter().enumerate() {
            rule(given, &rules.index(i), errors);
        }
    }
}

/// Checks a `WebhookClientConfig`.
pub fn client_config(config: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (url, service) = (&config["url"], &config["service"]);
    if url.is_null() == service.is_null() {
        return errors.required(at, "exactly one of url or service is required");
    }
    if let Some(url) = url.as_str() {
        let is_https = url.starts_with("https://");
        if !is_https || url.parse::<http::Uri>().is_err() {
            errors.invalid_text(&at.field("url"), url, "'https' is the only allowed URL scheme");
        }
        return;
    }
    let at = at.field("service");
    for field in ["namespace", "name"] {
        if text(&service[field]).is_empty() {
            errors.required(&at.field(field), &format!("service {field} is required"));
        }
    }
    if !matches!(text(&service["path"]).chars().next(), None | Some('/')) {
        errors.invalid(&at.field("path"), &service["path"], "must start with a '/'");
    }
    errors.port(&at.field("port"), &service["port"]);
}

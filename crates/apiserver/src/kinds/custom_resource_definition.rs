//! CustomResourceDefinitions.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use yado_types::names;

use crate::cel::rules::Rules;
use crate::convert::REVIEW_VERSIONS;
use crate::definitions::{self, is_true};
use crate::edit::{fill, list, text, within};
use crate::kinds::strategy::Strategy;
use crate::kinds::webhook_configuration::client_config;
use crate::schema::JsonPath;
use crate::schema::structural::{self, Structural};
use crate::schema::validate::{Errors, Path};

#[derive(Debug)]
pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let Some(spec) = within(object, "spec") else { return };
        if let Some(names) = within(spec, "names") {
            let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !kind.is_empty() {
                fill(names, "singular", kind.to_lowercase());
                fill(names, "listKind", format!("{kind}List"));
            }
        }
        if let Some(conversion) = within(spec, "conversion") {
            fill(conversion, "strategy", "None");
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let (root, spec) = (Path::root(), &object["spec"]);
        let at = root.field("spec");
        let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
        let name = text(&object["metadata"]["name"]);
        if name != expected {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.invalid_text(&root.field("metadata").field("name"), name, detail);
        }
        group(text(&spec["group"]), &at.field("group"), errors);
        if text(&spec["scope"]).is_empty() {
            errors.required(&at.field("scope"), "");
        } else {
            errors.supported(&at.field("scope"), text(&spec["scope"]), &["Cluster", "Namespaced"]);
        }
        names_of_kind(&spec["names"], &at.field("names"), errors);
        versions(spec, &at, errors);
        conversion(&spec["conversion"], &at.field("conversion"), errors);
        if spec["preserveUnknownFields"] == true {
            let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                          spec.versions[*].schema instead";
            errors.invalid(&at.field("preserveUnknownFields"), &true.into(), detail);
        }
        if let Some(old) = old {
            update(object, old, errors);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let conversion = &object["spec"]["conversion"];
        let is_trusted = !text(&conversion["webhook"]["clientConfig"]["caBundle"]).is_empty();
        let warning = "spec.conversion.webhook.clientConfig.caBundle: without it no certificate of the webhook is trusted \
                       on this server";
        if conversion["strategy"] == "Webhook" && !is_trusted { vec![warning.to_owned()] } else { Vec::new() }
    }

    fn begin_delete(&self, object: &mut Value) {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|f| f == definitions::FINALIZER)
        {
            finalizers.push(definitions::FINALIZER.into());
        }
    }
}

fn group(group: &str, at: &Path<'_>, errors: &mut Errors) {
    if group.is_empty() {
        return errors.required(at, "");
    }
    errors.check_text(at, group, names::dns_subdomain(group));
    if !group.contains('.') {
        errors.invalid_text(at, group, "should be a domain with at least one dot");
    }
}

fn names_of_kind(given: &Value, at: &Path<'_>, errors: &mut Errors) {
    for field in ["plural", "singular"] {
        let name = text(&given[field]);
        match name.is_empty() {
            true => errors.required(&at.field(field), ""),
            false => errors.check_text(&at.field(field), name, names::dns_1035_label(name)),
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(&given[field]);
        match name.is_empty() {
            true => errors.required(&at.field(field), ""),
            false => {
                let rule = names::dns_1035_label(&name.to_lowercase());
                let rule = rule
                    .map_err(|detail| format!("may have mixed case, but should otherwise match: {detail}"));
                errors.check_text(&at.field(field), name, rule);
            }
        }
    }
    if !text(&given["kind"]).is_empty() && given["kind"] == given["listKind"] {
        let detail = "kind and listKind may not be the same";
        errors.invalid_text(&at.field("listKind"), text(&given["listKind"]), detail);
    }
    for field in ["shortNames", "categories"] {
        let list = at.field(field);
        for (i, name) in given[field].as_array().into_iter().flatten().enumerate() {
            errors.check_text(&list.index(i), text(name), names::dns_1035_label(text(name)));
        }
    }
}

fn versions(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (list, at) =
        (spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default(), at.field("versions"));
    if list.is_empty() {
        return errors.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    for (i, version) in list.iter().enumerate() {
        let (at, name) = (at.index(i), text(&version["name"]));
        errors.check_text(&at.field("name"), name, names::dns_1035_label(name));
        if !seen.insert(name) {
            errors.duplicate(&at.field("name"), &version["name"]);
        }
        if version["deprecated"] != true && !text(&version["deprecationWarning"]).is_empty() {
            let detail = "can only be set for deprecated versions";
            errors.invalid(&at.field("deprecationWarning"), &version["deprecationWarning"], detail);
        }
        schema(version, &at, errors);
        columns(version, &at.field("additionalPrinterColumns"), errors);
        scale(&version["subresources"]["scale"], &at.field("subresources").field("scale"), errors);
        selectable(version, &at.field("selectableFields"), errors);
    }
    let stored = list.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        errors.invalid(
            &at,
            &Value::from(list.len()),
            "must have exactly one version marked as storage version",
        );
    }
}

fn schema(version: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (props, at) = (&version["schema"]["openAPIV3Schema"], at.field("schema"));
    let at = at.field("openAPIV3Schema");
    match props.is_object() {
        false => errors.required(&at, "schemas are required"),
        true => {
            let (schema, path) = (Structural::read(props), at.to_string());
            let found = structural::check(&schema, props, &path);
            let is_structural = found.is_empty();
            errors.extend(found);
            if is_structural {
                errors.extend(Rules::compile(&schema, &path).1);
            }
        }
    }
}

fn columns(version: &Value, at: &Path<'_>, errors: &mut Errors) {
    for (i, column) in version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate() {
        let at = at.index(i);
        if text(&column["name"]).is_empty() {
            errors.required(&at.field("name"), "");
        }
        let kinds = ["boolean", "date", "integer", "number", "string"];
        match text(&column["type"]).is_empty() {
            true => errors.required(&at.field("type"), &format!("must be one of {}", kinds.join(","))),
            false => errors.supported(&at.field("type"), text(&column["type"]), &kinds),
        }
        path(&column["jsonPath"], &at.field("jsonPath"), errors);
    }
}

/// A path that is there and can be read.
fn path(given: &Value, at: &Path<'_>, errors: &mut Errors) -> Option<JsonPath> {
    let given = text(given);
    if given.is_empty() {
        errors.required(at, "");
        return None;
    }
    let read = JsonPath::parse(given);
    if let Err(error) = &read {
        errors.invalid_text(at, given, &error.to_string());
    }
    read.ok()
}

fn scale(scale: &Value, at: &Path<'_>, errors: &mut Errors) {
    if !scale.is_object() {
        return;
    }
    for (field, roots, needed) in [
        ("specReplicasPath", &["spec"][..], true),
        ("statusReplicasPath", &["status"][..], true),
        ("labelSelectorPath", &["spec", "status"][..], false),
    ] {
        let at = at.field(field);
        if !needed && text(&scale[field]).is_empty() {
            continue;
        }
        let Some(found) = path(&scale[field], &at, errors) else { continue };
        let begins = found.fields().is_some_and(|fields| fields.len() > 1 && roots.contains(&fields[0]));
        if !begins {
            let shown: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
            let detail = format!("should be a json path under {}", shown.join(" or "));
            errors.invalid_text(&at, text(&scale[field]), &detail);
        }
    }
}

fn selectable(version: &Value, at: &Path<'_>, errors: &mut Errors) {
    let list = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() > 8 {
        errors.too_many(at, list.len(), 8);
    }
    for (i, field) in list.iter().enumerate() {
        let (at, given) = (at.index(i), &field["jsonPath"]);
        let at = at.field("jsonPath");
        let Some(found) = path(given, &at, errors) else { continue };
        if list[..i].contains(field) {
            errors.duplicate(&at, given);
        }
        if found.fields().is_none_or(|fields| fields.first() == Some(&"metadata")) {
            let detail = "must be a simple path of fields, which does not lead into metadata";
            errors.invalid(&at, given, detail);
        }
    }
}

fn conversion(given: &Value, at: &Path<'_>, errors: &mut Errors) {
    let strategy = text(&given["strategy"]);
    errors.supported(&at.field("strategy"), strategy, &["None", "Webhook"]);
    let webhook = at.field("webhook");
    match (strategy, given["webhook"].is_object()) {
        ("None", true) => errors.forbidden(&webhook, "should not be set when strategy is not set to Webhook"),
        ("Webhook", false) => errors.required(&webhook, "required when strategy is set to Webhook"),
        ("Webhook", true) => {
            let given = &given["webhook"];
            client_config(&given["clientConfig"], &webhook.field("clientConfig"), errors);
            let versions = webhook.field("conversionReviewVersions");
            match list(&given["conversionReviewVersions"]) {
                [] => errors.required(&versions, ""),
                named if !named.iter().any(|version| REVIEW_VERSIONS.contains(&text(version))) => {
                    let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
                    errors.invalid(&versions, &given["conversionReviewVersions"], &detail);
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn update(object: &Value, old: &Value, errors: &mut Errors) {
    let root = Path::root();
    let (spec, before, at) = (&object["spec"], &old["spec"], root.field("spec"));
    let mut fixed = vec![("group", &spec["group"], &before["group"])];
    if is_true(old, "Established") {
        fixed.push(("scope", &spec["scope"], &before["scope"]));
    }
    for (field, now, before) in fixed {
        if now != before {
            errors.invalid(&at.field(field), now, "field is immutable");
        }
    }
    let names = at.field("names");
    for field in ["plural", "kind"] {
        let (now, was) = (&spec["names"][field], &before["names"][field]);
        if now != was && (field == "plural" || is_true(old, "Established")) {
            errors.invalid(&names.field(field), now, "field is immutable");
        }
    }
    let stored = root.field("status");
    let stored = stored.field("storedVersions");
    for (i, version) in object["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        let known = spec["versions"].as_array().into_iter().flatten().any(|v| v["name"] == *version);
        if !known {
            let name = text(version);
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.invalid(&stored.index(i), version, &detail);
        }
    }
}

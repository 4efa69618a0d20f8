//! PodTemplates, and what all kinds share that make Pods of a template.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{existing, list, within};
use crate::kinds::pod_spec;
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path, meta};
use crate::table::Column;
use crate::table::format::{joined, labels, text_or};

#[derive(Debug)]
pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        default_template(object);
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        validate_template(&object["template"], &Path::root().field("template"), errors);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Containers"), Column::text("Images"), Column::text("Pod Labels")] }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let shown = json!(labels(&object["template"]["metadata"]["labels"]));
        let [containers, images] = containers(&object["template"]);
        vec![object["metadata"]["name"].clone(), containers, images, shown]
    }
}

/// Fills in the template in the field `template`.
pub fn default_template(spec: &mut Map<String, Value>) {
    if let Some(spec) = existing(spec, "template").and_then(|template| within(template, "spec")) {
        pod_spec::default_spec(spec);
    }
}

/// The labels of the template in `spec`, if it has any.
pub fn template_labels(object: &Map<String, Value>) -> Option<Value> {
    let labels = object.get("spec")?.get("template")?.get("metadata")?.get("labels")?;
    (!is_empty(Some(labels))).then(|| labels.clone())
}

/// Whether a map is absent or empty.
pub fn is_empty(map: Option<&Value>) -> bool {
    map.and_then(Value::as_object).is_none_or(Map::is_empty)
}

/// Gives an object without labels those of its template.
pub fn label_as(object: &mut Map<String, Value>, labels: Option<Value>) {
    let (Some(labels), Some(metadata)) = (labels, within(object, "metadata")) else { return };
    if is_empty(metadata.get("labels")) {
        metadata.insert("labels".into(), labels);
    }
}

/// Checks a template.
pub fn validate_template(template: &Value, at: &Path<'_>, errors: &mut Errors) {
    let metadata_at = at.field("metadata");
    meta::labels(&template["metadata"]["labels"], &metadata_at.field("labels"), errors);
    meta::annotations(&template["metadata"]["annotations"], &metadata_at.field("annotations"), errors);
    pod_spec::validate_spec(&template["spec"], &at.field("spec"), errors);
}

/// Checks a label selector and the template that it has to match. `words` and `kind` name the kind in messages.
pub fn selector_and_template(spec: &Value, words: &str, kind: &str, at: &Path<'_>, errors: &mut Errors) {
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
    validate_template(&spec["template"], &template_at, errors);
    always_restarts(&spec["template"], kind, &template_at, errors);
}

/// A selector has to match the labels of the template.
pub fn matches_template(selector: &Value, template: &Value, at: &Path<'_>, errors: &mut Errors) {
    let labels = &template["metadata"]["labels"];
    if !selector.is_null() && !meta::is_empty_selector(selector) && !meta::selects(selector, labels) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let metadata_at = at.field("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata_at.field("labels"), &shown, detail);
    }
}

/// Pods that are kept running always restart, and have no deadline.
pub fn always_restarts(template: &Value, kind: &str, at: &Path<'_>, errors: &mut Errors) {
    let spec_at = at.field("spec");
    errors.one_of(&spec_at.field("restartPolicy"), &template["spec"]["restartPolicy"], &["Always"]);
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&spec_at.field("activeDeadlineSeconds"), &detail);
    }
}

/// A selector may not change.
pub fn immutable_selector(spec: &Value, old: Option<&Value>, at: &Path<'_>, errors: &mut Errors) {
    if old.is_some_and(|old| old["spec"]["selector"] != spec["selector"]) {
        errors.invalid(&at.field("selector"), &spec["selector"], "field is immutable");
    }
}

pub const CONTAINERS: Column = Column::wide("Containers");
pub const IMAGES: Column = Column::wide("Images");
pub const SELECTOR: Column = Column::wide("Selector");

/// Cells with those of [`CONTAINERS`], [`IMAGES`] and [`SELECTOR`] after them.
pub fn with_template(cells: &[Value], template: &Value, selector: String) -> Vec<Value> {
    let [names, images] = containers(template);
    cells.iter().cloned().chain([names, images, json!(selector)]).collect()
}

/// Cells with the names and images of a template's containers.
pub fn containers(template: &Value) -> [Value; 2] {
    let containers = list(&template["spec"]["containers"]);
    ["name", "image"].map(|key| json!(joined(containers.iter().map(|c| text_or(&c[key], "").to_owned()), "")))
}

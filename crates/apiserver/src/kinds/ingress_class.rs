//! IngressClasses.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{existing, fill, text};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{NONE, age, text_or};

#[derive(Debug)]
pub struct IngressClass;

impl Strategy for IngressClass {
    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(parameters) = existing(object, "spec").and_then(|spec| existing(spec, "parameters")) {
            fill(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let spec = root.field("spec");
        let (controller, at) = (&object["spec"]["controller"], spec.field("controller"));
        if text(controller).is_empty() {
            errors.required(&at, "");
        }
        if old.is_some_and(|old| old["spec"]["controller"] != *controller) {
            errors.invalid(&at, controller, "field is immutable");
        }
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Controller"), Column::text("Parameters"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let parameters = &spec["parameters"];
        let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
        let shown = match parameters["kind"].as_str() {
            Some(kind) => format!("{kind}{group}/{}", text_or(&parameters["name"], "")),
            None => NONE.into(),
        };
        let name = object["metadata"]["name"].clone();
        vec![name, json!(text(&spec["controller"])), json!(shown), json!(age(object, now))]
    }
}

//! LimitRanges. What they ask of Pods and claims is in [`crate::admission`].

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use yado_types::quantity::Quantity;

use crate::edit::{list, objects, text, within};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};

#[derive(Debug)]
pub struct LimitRange;

impl Strategy for LimitRange {
    /// Limits of containers that are not named follow from those that are.
    fn default_object(&self, object: &mut Map<String, Value>) {
        let Some(spec) = within(object, "spec") else { return };
        for item in
            objects(spec, "limits").filter(|item| item.get("type").is_some_and(|kind| kind == "Container"))
        {
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                let Some(values) = item.get(from).and_then(Value::as_object).cloned() else { continue };
                let Some(filled) = within(item, to) else { continue };
                for (name, value) in values {
                    filled.entry(name).or_insert(value);
                }
            }
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let spec = root.field("spec");
        let limits = spec.field("limits");
        let mut seen = BTreeSet::new();
        for (i, item) in list(&object["spec"]["limits"]).iter().enumerate() {
            let at = limits.index(i);
            let kind = text(&item["type"]);
            if kind.is_empty() {
                errors.required(&at.field("type"), "");
            }
            if !seen.insert(kind) {
                errors.duplicate(&at.field("type"), &item["type"]);
            }
            if kind == "Pod" {
                for field in ["default", "defaultRequest"] {
                    if item[field].as_object().is_some_and(|map| !map.is_empty()) {
                        errors.forbidden(&at.field(field), "may not be specified when `type` is 'Pod'");
                    }
                }
            }
            if kind == "PersistentVolumeClaim" && item["min"].is_null() && item["max"].is_null() {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.required(&limits, detail);
            }
            bounds(item, &at, errors);
        }
    }
}

/// For each resource: min ≤ defaultRequest ≤ default ≤ max, as far as they are there.
fn bounds(item: &Value, at: &Path<'_>, errors: &mut Errors) {
    let order = ["min", "defaultRequest", "default", "max"];
    let amount =
        |field: &str, name: &str| item[field][name].as_str().and_then(|text| text.parse::<Quantity>().ok());
    let names: BTreeSet<&String> =
        order.iter().filter_map(|field| item[*field].as_object()).flat_map(|map| map.keys()).collect();
    for name in names {
        let given: Vec<(&str, Quantity)> =
            order.iter().filter_map(|field| Some((*field, amount(field, name)?))).collect();
        for (i, (lower, low)) in given.iter().enumerate() {
            for (upper, high) in given[i + 1..].iter().filter(|(_, high)| low > high) {
                let value = &item[*lower][name];
                let detail = format!("{lower} value {} is greater than {upper} value {high}", text(value));
                let field = at.field(lower);
                errors.invalid(&field.key(name), value, &detail);
            }
        }
    }
}

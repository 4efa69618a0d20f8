//! ResourceQuotas. How they are kept is in [`crate::quota`].

use jiff::Timestamp;
use serde_json::{Value, json};
use yado_types::names;
use yado_types::quantity::Quantity;

use crate::edit::{list, text};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::age;

const SCOPES: [&str; 6] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
];

#[derive(Debug)]
pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let (root, given) = (Path::root(), &object["spec"]);
        let spec = root.field("spec");
        let hard = spec.field("hard");
        for (name, amount) in given["hard"].as_object().into_iter().flatten() {
            let at = hard.key(name);
            errors.check_text(&at, name, names::qualified_name(name));
            let negative = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
            if negative.is_some_and(|amount| amount < Quantity::default()) {
                errors.invalid(&at, amount, "must be greater than or equal to 0");
            }
        }
        let scopes = spec.field("scopes");
        for (i, scope) in list(&given["scopes"]).iter().enumerate() {
            errors.supported(&scopes.index(i), text(scope), &SCOPES);
        }
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| list(&given["scopes"]).iter().any(|given| given == scope)) {
                errors.invalid(&scopes, &given["scopes"], "conflicting scopes");
            }
        }
        let selector = spec.field("scopeSelector");
        let expressions = selector.field("matchExpressions");
        for (i, expression) in list(&given["scopeSelector"]["matchExpressions"]).iter().enumerate() {
            let at = expressions.index(i);
            errors.supported(&at.field("scopeName"), text(&expression["scopeName"]), &SCOPES);
            let operators = ["DoesNotExist", "Exists", "In", "NotIn"];
            errors.supported(&at.field("operator"), text(&expression["operator"]), &operators);
            let needs_values = matches!(text(&expression["operator"]), "In" | "NotIn");
            if needs_values && list(&expression["values"]).is_empty() {
                errors.required(
                    &at.field("values"),
                    "must be at least one value when `operator` is 'In' or 'NotIn'",
                );
            }
        }
        let Some(old) = old else { return };
        for field in ["scopes", "scopeSelector"] {
            if given[field] != old["spec"][field] {
                errors.invalid(&spec.field(field), &given[field], "field is immutable");
            }
        }
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Request"), Column::text("Limit"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status["hard"].as_object().into_iter().flatten() {
            let used = status["used"][name].as_str().unwrap_or("0");
            let shown = format!("{name}: {used}/{}", text(hard));
            if name.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
        }
        vec![
            object["metadata"]["name"].clone(),
            json!(requests.join(", ")),
            json!(limits.join(", ")),
            json!(age(object, now)),
        ]
    }
}

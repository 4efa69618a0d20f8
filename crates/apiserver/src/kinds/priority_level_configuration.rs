//! PriorityLevelConfigurations: how many requests of a level are worked on at once, and how many may wait.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{existing, fill, text};
use crate::flow_control::defaults;
use crate::kinds::strategy::Strategy;
use crate::object::meta;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{NONE, age};

const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a flow's hash that shuffle sharding may use up.
const MAX_HASH_BITS: f64 = 60.0;

#[derive(Debug)]
pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let Some(spec) = existing(object, "spec") else { return };
        if let Some(exempt) = existing(spec, "exempt") {
            fill(exempt, "nominalConcurrencyShares", 0);
            fill(exempt, "lendablePercent", 0);
        }
        let Some(limited) = existing(spec, "limited") else { return };
        fill(limited, "nominalConcurrencyShares", 30);
        fill(limited, "lendablePercent", 0);
        let queuing = existing(limited, "limitResponse").and_then(|response| existing(response, "queuing"));
        let Some(queuing) = queuing else { return };
        for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            if queuing.get(field).is_none_or(|given| *given == 0) {
                queuing.insert(field.into(), value.into());
            }
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        let (name, kind) = (meta(object, "name"), text(&spec["type"]));
        if (name == defaults::EXEMPT) != (kind == "Exempt") {
            let detail = "type must be 'Exempt' if and only if name is 'exempt'";
            errors.invalid(&at.field("type"), &spec["type"], detail);
        }
        match kind {
            "Exempt" => {
                if !spec["limited"].is_null() {
                    errors.forbidden(&at.field("limited"), "must be nil if the type is not Limited");
                }
                shares(&spec["exempt"], &at.field("exempt"), errors);
            }
            "Limited" => {
                if !spec["exempt"].is_null() {
                    errors.forbidden(&at.field("exempt"), "must be nil if the type is Limited");
                }
                match spec["limited"].is_null() {
                    true => errors.required(&at.field("limited"), "must not be empty when type is Limited"),
                    false => limited(&spec["limited"], &at.field("limited"), errors),
                }
            }
            other => errors.supported(&at.field("type"), other, &["Exempt", "Limited"]),
        }
        fixed(name, spec, &at, errors);
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Type"),
                Column::integer("NominalConcurrencyShares"),
                Column::integer("Queues"),
                Column::integer("HandSize"),
                Column::integer("QueueLengthLimit"),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let limited = &object["spec"]["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let or_none = |value: &Value| if value.is_null() { json!(NONE) } else { value.clone() };
        vec![
            object["metadata"]["name"].clone(),
            object["spec"]["type"].clone(),
            or_none(&limited["nominalConcurrencyShares"]),
            or_none(&queuing["queues"]),
            or_none(&queuing["handSize"]),
            or_none(&queuing["queueLengthLimit"]),
            json!(age(object, now)),
        ]
    }
}

/// A mandatory level is what it is, but for the shares of an exempt one.
fn fixed(name: &str, spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let Some(mut fixed) = defaults::mandatory_spec("PriorityLevelConfiguration", name) else { return };
    let except = if fixed["exempt"].is_null() { "" } else { " except the 'spec.exempt' field" };
    if let (false, Some(exempt)) = (except.is_empty(), spec.get("exempt")) {
        fixed["exempt"] = exempt.clone();
    }
    if fixed != *spec {
        errors.invalid(at, spec, &format!("spec of '{name}'{except} must equal the fixed value"));
    }
}

fn shares(level: &Value, at: &Path<'_>, errors: &mut Errors) {
    let shares = &level["nominalConcurrencyShares"];
    if shares.as_i64().is_some_and(|n| n < 0) {
        errors.invalid(&at.field("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    let percent = &level["lendablePercent"];
    if percent.as_i64().is_some_and(|n| !(0..=100).contains(&n)) {
        errors.invalid(&at.field("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn limited(limited: &Value, at: &Path<'_>, errors: &mut Errors) {
    shares(limited, at, errors);
    let percent = &limited["borrowingLimitPercent"];
    if percent.as_i64().is_some_and(|n| n < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.invalid(&at.field("borrowingLimitPercent"), percent, detail);
    }
    let (response, at) = (&limited["limitResponse"], at.field("limitResponse"));
    let (queues, field) = (&response["queuing"], at.field("queuing"));
    match (text(&response["type"]), queues.is_null()) {
        ("Reject", true) => {}
        ("Reject", false) => {
            errors.forbidden(&field, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", true) => {
            errors.required(&field, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", false) => queuing(queues, &field, errors),
        (other, _) => errors.supported(&at.field("type"), other, &["Queue", "Reject"]),
    }
}

fn queuing(queuing: &Value, at: &Path<'_>, errors: &mut Errors) {
    let number = |field: &str| queuing[field].as_i64().unwrap_or_default();
    if number("queueLengthLimit") <= 0 {
        errors.invalid(&at.field("queueLengthLimit"), &queuing["queueLengthLimit"], "must be positive");
    }
    let (queues, size) = (number("queues"), number("handSize"));
    match queues {
        ..=0 => errors.invalid(&at.field("queues"), &queuing["queues"], "must be positive"),
        _ if queues > MAX_QUEUES => {
            let detail = format!("must not be greater than {MAX_QUEUES}");
            errors.invalid(&at.field("queues"), &queuing["queues"], &detail);
        }
        _ => {}
    }
    // Numbers of this size are exact.
    let bits = ((queues.max(1) as f64).log2() * size as f64).ceil();
    let detail = match size {
        ..=0 => "must be positive".to_owned(),
        _ if size > queues => format!("should not be greater than queues ({queues})"),
        _ if bits > MAX_HASH_BITS => format!(
            "required entropy bits of deckSize {queues} and handSize {size} should not be greater than {MAX_HASH_BITS}"
        ),
        _ => return,
    };
    errors.invalid(&at.field("handSize"), &queuing["handSize"], &detail);
}

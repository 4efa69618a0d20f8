//! RuntimeClasses: the handler that runs a Pod's containers on its node, what it costs besides them, and which nodes have
//! it.

use jiff::Timestamp;
use serde_json::{Value, json};
use yado_types::names;
use yado_types::quantity::Quantity;

use crate::edit::{list, map_at, text};
use crate::kinds::pod_spec::{self, amounts::amounts};
use crate::kinds::strategy::Strategy;
use crate::object::meta as meta_of;
use crate::resource::{self, Resource};
use crate::schema::validate::{Errors, Path, meta};
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::age;
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, class: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (handler, handler_at) = (text(&class["handler"]), root.field("handler"));
        errors.check_text(&handler_at, handler, names::dns_label(handler));
        if old.is_some_and(|old| old["handler"] != class["handler"]) {
            errors.invalid(&handler_at, &class["handler"], "field is immutable");
        }
        let overhead = root.field("overhead");
        let fixed = overhead.field("podFixed");
        for (name, amount) in class["overhead"]["podFixed"].as_object().into_iter().flatten() {
            errors.check_text(&fixed.key(name), name, names::qualified_name(name));
            if text(amount).parse::<Quantity>().is_ok_and(|amount| amount < Quantity::default()) {
                errors.invalid(&fixed.key(name), amount, "must be greater than or equal to 0");
            }
        }
        let (scheduling, at) = (&class["scheduling"], root.field("scheduling"));
        meta::labels(&scheduling["nodeSelector"], &at.field("nodeSelector"), errors);
        pod_spec::validate_tolerations(&scheduling["tolerations"], &at.field("tolerations"), errors);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Handler"), Column::AGE] }
    }

    fn cells(&self, class: &Value, now: Timestamp) -> Vec<Value> {
        vec![class["metadata"]["name"].clone(), class["handler"].clone(), json!(age(class, now))]
    }
}

/// Completes a new Pod by its class: its overhead, and the nodes that have the handler. A Pod that asks for a runtime that
/// nobody has described must not run in another one, which may isolate it less than it expects.
pub fn admit(ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
    let name = text(&pod["spec"]["runtimeClassName"]);
    let class = match name {
        "" if pod["spec"]["overhead"].is_null() => return Ok(()),
        "" => Value::Null,
        name => {
            let found = classes().and_then(|classes| ctx.server.find(classes, "", name).ok());
            let missing = || refuse(ctx, pod, &format!("pod rejected: RuntimeClass {name:?} not found"));
            Value::clone(&found.ok_or_else(missing)?.value())
        }
    };
    let (fixed, given) = (&class["overhead"]["podFixed"], &pod["spec"]["overhead"]);
    match (class["overhead"].is_object(), given.is_object()) {
        (true, true) if amounts(fixed) != amounts(given) => {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(refuse(ctx, pod, why));
        }
        (false, true) => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(refuse(ctx, pod, why));
        }
        _ => {}
    }
    let scheduling = &class["scheduling"];
    let selector = scheduling["nodeSelector"].as_object();
    for (key, value) in selector.into_iter().flatten() {
        let own = &pod["spec"]["nodeSelector"][key];
        if !own.is_null() && own != value {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            );
            return Err(refuse(ctx, pod, &why));
        }
    }
    let added = list(&scheduling["tolerations"]);
    let tolerations = (!added.is_empty()).then(|| merged(list(&pod["spec"]["tolerations"]), added));
    let (fixed, selector) = (fixed.clone(), selector.cloned());
    let Some(spec) = map_at(pod, &["spec"]) else { return Ok(()) };
    if fixed.is_object() {
        spec.insert("overhead".into(), fixed);
    }
    if let Some(tolerations) = tolerations {
        spec.insert("tolerations".into(), tolerations.into());
    }
    if let Some(selector) = selector
        && let Some(own) = map_at(pod, &["spec", "nodeSelector"])
    {
        own.extend(selector);
    }
    Ok(())
}

fn classes() -> Option<&'static std::sync::Arc<Resource>> {
    resource::find("node.k8s.io", "v1", "runtimeclasses")
}

fn refuse(ctx: &WriteContext<'_>, pod: &Value, why: &str) -> Failure {
    Failure::forbidden(ctx.resource, meta_of(pod, "name"), why)
}

/// Tolerations of both, without those that another one makes superfluous.
fn merged(own: &[Value], added: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = own.iter().chain(added).collect();
    let mut merged: Vec<&Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let is_covered = merged.iter().any(|known| covers(known, toleration));
        let will_be = all[i + 1..].iter().any(|later| later != toleration && covers(later, toleration));
        if !is_covered && !will_be {
            merged.push(toleration);
        }
    }
    merged.into_iter().cloned().collect()
}

/// Whether a toleration tolerates all that another one does, for as long.
fn covers(wide: &Value, narrow: &Value) -> bool {
    let same = |field: &str| text(&wide[field]) == text(&narrow[field]);
    let exists = wide["operator"] == "Exists";
    if wide == narrow {
        return true;
    }
    let is_any_key = exists && text(&wide["key"]).is_empty();
    let is_any_effect = text(&wide["effect"]).is_empty();
    if !(is_any_key || same("key")) || !(is_any_effect || same("effect")) {
        return false;
    }
    if wide["effect"] == "NoExecute"
        && let Some(seconds) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|needed| needed > seconds)
    {
        return false;
    }
    match text(&wide["operator"]) {
        "Exists" => true,
        "" | "Equal" => matches!(text(&narrow["operator"]), "" | "Equal") && same("value"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superfluous_tolerations_are_left_out() {
        let read = |text: &str| -> Vec<Value> { serde_norway::from_str(text).expect("YAML") };
        for (own, added, expect) in [
            ("[]", "[{key: a}]", "[{key: a}]"),
            ("[{key: a}]", "[{key: a}]", "[{key: a}]"),
            ("[{key: a, value: x}]", "[{key: a, operator: Exists}]", "[{key: a, operator: Exists}]"),
            ("[{operator: Exists}]", "[{key: a}, {key: b, effect: NoSchedule}]", "[{operator: Exists}]"),
            (
                "[{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]",
                "[{key: a, effect: NoExecute, tolerationSeconds: 9}]",
                "[{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {key: a, effect: NoExecute, tolerationSeconds: 9}]",
            ),
            ("[{key: a, value: x}]", "[{key: a, value: y}]", "[{key: a, value: x}, {key: a, value: y}]"),
        ] {
            assert_eq!(merged(&read(own), &read(added)), read(expect), "{own} {added}");
        }
    }
}

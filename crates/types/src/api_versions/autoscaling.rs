//! Converts HorizontalPodAutoscalers of versions before `autoscaling/v2`.

use serde_json::{Map, Value, json};

/// Moves the fields of metrics of beta versions into `metric` and `target`.
pub(super) fn modernise(autoscaler: &mut Value) {
    let Some(spec) = autoscaler.get_mut("spec").and_then(Value::as_object_mut) else { return };
    // `extensions/v1beta1` supported CPU utilization only.
    if let Some(target) = spec.shift_remove("scaleRef") {
        spec.insert("scaleTargetRef".into(), target);
    }
    if let Some(cpu) = spec.shift_remove("cpuUtilization") {
        let metric =
            resource("cpu", json!({"type": "Utilization", "averageUtilization": cpu["targetPercentage"]}));
        spec.insert("metrics".into(), json!([metric]));
    }
    if let Some(target) =
        spec.get_mut("scaleTargetRef").filter(|t| super::text(t, "apiVersion") == "extensions/v1beta1")
    {
        target["apiVersion"] = "apps/v1".into();
    }
    let metrics = spec.get_mut("metrics").and_then(Value::as_array_mut);
    for metric in metrics.into_iter().flatten() {
        let kind = super::text(metric, "type");
        let source =
            kind.chars().next().map(|c| c.to_lowercase().chain(kind.chars().skip(1)).collect::<String>());
        let Some(Value::Object(old)) = source.as_ref().and_then(|s| metric.get_mut(s)) else { continue };
        if !old.contains_key("target") || old.contains_key("metricName") {
            *old = source_of_today(std::mem::take(old), &kind);
        }
    }
}

fn resource(name: &str, target: Value) -> Value {
    json!({ "type": "Resource", "resource": { "name": name, "target": target } })
}

fn source_of_today(mut old: Map<String, Value>, kind: &str) -> Map<String, Value> {
    let mut new = Map::new();
    if let Some(name) = old.shift_remove("name") {
        new.insert("name".into(), name);
    }
    if let Some(name) = old.shift_remove("metricName") {
        let mut metric = json!({ "name": name });
        if let Some(selector) = old.shift_remove("selector").or_else(|| old.shift_remove("metricSelector")) {
            metric["selector"] = selector;
        }
        new.insert("metric".into(), metric);
    }
    if kind == "Object"
        && let Some(object) = old.shift_remove("target")
    {
        new.insert("describedObject".into(), object);
    }
    let target = [
        ("targetAverageUtilization", "Utilization", "averageUtilization"),
        ("targetAverageValue", "AverageValue", "averageValue"),
        ("averageValue", "AverageValue", "averageValue"),
        ("targetValue", "Value", "value"),
    ];
    for (field, target_type, amount) in target {
        if let Some(value) = old.shift_remove(field) {
            let mut target = Map::from_iter([("type".to_string(), target_type.into())]);
            target.insert(amount.into(), value);
            new.entry("target").or_insert(Value::Object(target));
        }
    }
    new.extend(old);
    new
}

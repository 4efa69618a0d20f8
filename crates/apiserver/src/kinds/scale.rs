//! Scales: the replicas of an object of any kind that has them, as a subresource.

use serde_json::{Value, json};
use yado_types::selector::LabelSelector;

use crate::edit::map_at;
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::schema::{self, JsonPath, Kind};
use crate::status::{Failure, Result};

#[derive(Debug)]
pub struct Scale;

impl Strategy for Scale {
    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        errors.at_least(&root.field("spec").field("replicas"), &object["spec"]["replicas"], 0);
    }
}

/// The kind of Scales.
pub fn kind() -> Result<&'static Kind> {
    schema::find("autoscaling", "v1", "Scale").map(|kind| &**kind).ok_or_else(Failure::no_such_resource)
}

/// The `autoscaling/v1` Scale of an object.
///
/// # Errors
/// 500 where an object of a custom kind has no value at the path of its wished replicas, as in Kubernetes.
pub fn of(kind: &Kind, object: &Value) -> Result<Value> {
    let paths = kind.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    let (wished, present, selector) = match paths {
        None => (
            object["spec"]["replicas"].as_i64(),
            object["status"]["replicas"].as_i64(),
            text(&object["spec"]["selector"]),
        ),
        Some(paths) => {
            let number = |path: &JsonPath| path.find(object).first().and_then(|value| value.as_i64());
            let missing = || format!("the spec replicas field {:?} does not exist", paths.spec_replicas.text);
            let wished = number(&paths.spec_replicas).ok_or_else(|| Failure::internal(missing()))?;
            let selector = paths.selector.as_ref().and_then(|path| path.find(object).first()?.as_str());
            (Some(wished), number(&paths.status_replicas), selector.unwrap_or_default().to_owned())
        }
    };
    let meta = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {},
        "status": {"replicas": present.unwrap_or(0)},
    });
    if let Some(replicas) = wished.filter(|r| *r != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    Ok(scale)
}

/// Sets the replicas that an object wishes for.
pub fn set_replicas(kind: &Kind, object: &mut Value, replicas: i64) {
    match kind.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(paths) => paths.spec_replicas.set(object, replicas.into()),
        None => {
            if let Some(spec) = map_at(object, &["spec"]) {
                spec.insert("replicas".into(), replicas.into());
            }
        }
    }
}

/// The replicas that a decoded Scale asks for; absent means none.
pub fn replicas(scale: &Value) -> i64 {
    scale["spec"]["replicas"].as_i64().unwrap_or(0)
}

/// A label selector in its text form.
fn text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    let labels = match selector["matchLabels"].is_null() && selector["matchExpressions"].is_null() {
        // A ReplicationController's selector is the map itself.
        true => selector,
        false => &selector["matchLabels"],
    };
    for (key, value) in labels.as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for e in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = e["key"].as_str().unwrap_or_default();
        let values: Vec<_> = e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match e["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("Exists") => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    let text = parts.join(",");
    debug_assert!(LabelSelector::parse(&text).is_ok(), "{text}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_scales() {
        let object = json!({
            "metadata": {"name": "a"},
            "spec": {"replicas": 3, "selector": {
                "matchLabels": {"app": "x"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]}]}},
            "status": {"replicas": 2},
        });
        let kind = schema::find("apps", "v1", "Deployment").expect("a kind");
        let scale = of(kind, &object).expect("a scale");
        assert_eq!((replicas(&scale), &scale["status"]["replicas"]), (3, &json!(2)));
        assert_eq!(scale["status"]["selector"], "app=x,t in (a,b)");
        assert_eq!(replicas(&of(kind, &json!({"metadata": {}, "spec": {}})).expect("a scale")), 0);
        let controller = json!({"metadata": {}, "spec": {"selector": {"a": "b", "c": "d"}}});
        assert_eq!(of(kind, &controller).expect("a scale")["status"]["selector"], "a=b,c=d");
    }
}

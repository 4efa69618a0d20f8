//! Fields that somebody else added to an object that Yado deploys, as `metadata.managedFields` tells. Pure.
//!
//! Server-side apply takes back what another manager changed, but leaves alone what it added: a deployment removes that,
//! so that what runs is what the description says.

use serde_json::{Map, Value};

use super::FIELD_MANAGER;

/// Kinds of which a description says everything.
const KINDS: [&str; 8] =
    ["Deployment", "DaemonSet", "StatefulSet", "Service", "Ingress", "ConfigMap", "Secret", "NetworkPolicy"];
/// What others may always write: labels and annotations of the object, and how it fares.
const OTHERS: [&str; 4] = ["f:apiVersion", "f:kind", "f:metadata", "f:status"];
/// The mark of `kubectl rollout restart`: to remove it would restart everything once more.
const RESTARTED: &str = "f:kubectl.kubernetes.io/restartedAt";

/// `live` without what others added; `None` where they added nothing.
pub(super) fn without_foreign(live: &Value) -> Option<Value> {
    if !KINDS.iter().any(|kind| live["kind"] == *kind) {
        return None;
    }
    let entries: Vec<&Value> = live["metadata"]["managedFields"].as_array()?.iter().collect();
    let ours = entries.iter().find(|e| e["manager"] == FIELD_MANAGER && e["operation"] == "Apply")?;
    let ours = ours["fieldsV1"].as_object()?;
    let mut cleaned = live.clone();
    for entry in entries.iter().filter(|entry| is_persons(entry)) {
        let Some(fields) = entry["fieldsV1"].as_object() else { continue };
        let fields: Map<String, Value> = fields
            .iter()
            .filter(|(k, _)| !OTHERS.contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        remove(&mut cleaned, &fields, ours);
    }
    (cleaned != *live).then_some(cleaned)
}

/// Whether a person or their tool wrote: controllers complete an object, and write by subresources.
fn is_persons(entry: &Value) -> bool {
    let manager = entry["manager"].as_str().unwrap_or_default();
    let subresource = entry["subresource"].as_str().unwrap_or_default();
    manager != FIELD_MANAGER && subresource.is_empty() && !manager.contains("controller")
}

/// Removes from `live` what `fields` names and `ours` does not.
fn remove(live: &mut Value, fields: &Map<String, Value>, ours: &Map<String, Value>) {
    for (key, below) in fields.iter().filter(|(key, _)| *key != "." && *key != RESTARTED) {
        let below = below.as_object().filter(|below| !below.is_empty());
        match (ours.get(key), below) {
            (None, Some(below)) if holds(below, RESTARTED) => {}
            (None, _) => take_out(live, key),
            // An object that is ours as a whole has no fields of others.
            (Some(own), Some(below)) => {
                if let (Some(own), Some(child)) =
                    (own.as_object().filter(|own| !own.is_empty()), child(live, key))
                {
                    remove(child, below, own);
                }
            }
            (Some(_), None) => {}
        }
    }
}

fn holds(fields: &Map<String, Value>, key: &str) -> bool {
    fields.contains_key(key) || fields.values().filter_map(Value::as_object).any(|below| holds(below, key))
}

fn take_out(live: &mut Value, key: &str) {
    match live {
        Value::Object(map) => drop(key.strip_prefix("f:").and_then(|name| map.shift_remove(name))),
        Value::Array(items) => items.retain(|item| !names(key, item)),
        _ => {}
    }
}

fn child<'a>(live: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match live {
        Value::Object(map) => map.get_mut(key.strip_prefix("f:")?),
        Value::Array(items) => items.iter_mut().find(|item| names(key, item)),
        _ => None,
    }
}

/// Whether `k:{"name":"web"}` or `v:"value"` names this item of a list.
fn names(key: &str, item: &Value) -> bool {
    if let Some(Ok(Value::Object(keys))) = key.strip_prefix("k:").map(serde_json::from_str) {
        return keys.iter().all(|(name, value)| item[name] == *value);
    }
    matches!(key.strip_prefix("v:").map(serde_json::from_str::<Value>), Some(Ok(value)) if value == *item)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn what_others_added_is_taken_out() {
        let container = |below: Value| json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": below}}}}});
        let ours = container(
            json!({".": {}, "f:name": {}, "f:image": {}, "f:env": {"k:{\"name\":\"LEVEL\"}": {".": {}, "f:name": {}, "f:value": {}}}}),
        );
        let live = |others: Vec<Value>| {
            let mut managed = vec![entry(FIELD_MANAGER, "Apply", ours.clone())];
            managed.extend(others);
            json!({"kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "b"}, "managedFields": managed},
                "spec": {"replicas": 1, "paused": true, "template": {
                    "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
                    "spec": {"containers": [
                    {"name": "web", "image": "i", "env": [{"name": "LEVEL", "value": "info"}, {"name": "ADDED", "value": "1"}]}]}}}})
        };
        let added =
            container(json!({"f:env": {"k:{\"name\":\"ADDED\"}": {".": {}, "f:name": {}, "f:value": {}}}}));
        let set = entry("kubectl-set", "Update", added.clone());
        let cleaned = without_foreign(&live(vec![set])).unwrap();
        let container = &cleaned["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"], json!([{"name": "LEVEL", "value": "info"}]));
        assert_eq!(cleaned["spec"]["paused"], true);

        let edit = entry(
            "kubectl-edit",
            "Update",
            json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:paused": {}}}),
        );
        let cleaned = without_foreign(&live(vec![edit])).unwrap();
        assert_eq!(
            (&cleaned["spec"]["paused"], &cleaned["metadata"]["labels"]["a"]),
            (&Value::Null, &json!("b"))
        );

        let mut scale = entry("kubectl-scale", "Update", json!({"f:spec": {"f:replicas": {}}}));
        scale["subresource"] = "scale".into();
        let restart = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}}});
        for others in [
            vec![],
            vec![scale],
            vec![entry("deployment-controller", "Update", added)],
            vec![entry("kubectl-edit", "Update", ours.clone())],
        ] {
            assert_eq!(without_foreign(&live(others.clone())), None, "{others:?}");
        }
        let cleaned = without_foreign(&live(vec![entry("kubectl-rollout", "Update", restart)]));
        assert_eq!(cleaned, None);
        assert_eq!(without_foreign(&json!({"kind": "PersistentVolumeClaim"})), None);
    }
}

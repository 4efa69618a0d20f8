//! The user's own edits of what is generated: `yado-overlay.yaml` beside the description. Yado reads it after each
//! generation and never writes it, so edits outlive every change of the description.
//!
//! ```yaml
//! kind: Deployment
//! metadata:
//!   name: guestbook-web
//! spec:
//!   template:
//!     spec:
//!       containers:
//!       - name: web                 # found by its name; what is not said here stays
//!         resources: {limits: {memory: 256Mi}}
//! ---
//! kind: Service
//! metadata: {name: guestbook-public, annotations: {example.com/idle-timeout: "60"}}
//! ```
//!
//! Each document is a part of an object, found by kind, name and, where they are written, namespace and apiVersion. It
//! is laid over the object as a strategic merge patch: mappings go into each other, `null` takes a field away, entries
//! of lists are found by what names them (`name`, `mountPath`, `port`, ...), `$patch: delete` takes an entry away and
//! `$patch: replace` puts it in the place of the whole. A document whose object is not there draws a warning.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    Compiled, Diagnostics, Object,
    diagnostic::{Diagnostic, Findings, Position},
    source::Source,
    yaml,
};

/// The file's name.
pub const FILE: &str = "yado-overlay.yaml";

/// Merge keys of lists, by the field of the list.
const LIST_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("env", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("ports", &["containerPort", "port"]),
    ("tolerations", &["key"]),
    ("topologySpreadConstraints", &["topologyKey"]),
    ("rules", &["host"]),
    ("tls", &["secretName"]),
    ("readinessGates", &["conditionType"]),
    ("sysctls", &["name"]),
];

/// Merges the overlay beside the description, if there is one, into the compiled objects.
///
/// # Errors
///
/// The overlay is not valid YAML, or one of its documents has no kind or name.
pub fn apply(compiled: &mut Compiled) -> Result<(), Diagnostics> {
    let path = compiled.directory.join(FILE);
    if compiled.directory.as_os_str().is_empty() || !path.is_file() {
        return Ok(());
    }
    apply_file(compiled, &path)
}

fn apply_file(compiled: &mut Compiled, path: &Path) -> Result<(), Diagnostics> {
    let source = Source::read(path)?;
    let mut found = Findings::default();
    for document in yaml::read(&source)? {
        let at = document.at.clone();
        let patch = match document.to_kubernetes_json() {
            Ok(Value::Null) => continue,
            Ok(patch) => patch,
            Err(mistake) => {
                found.errors.push(mistake);
                continue;
            }
        };
        lay(&mut compiled.objects, &patch, &at, &mut found);
    }
    compiled.warnings.extend(found.finish()?);
    Ok(())
}

fn lay(objects: &mut [Object], patch: &Value, at: &Position, found: &mut Findings) {
    let (kind, name) = (patch["kind"].as_str(), patch["metadata"]["name"].as_str());
    let (Some(kind), Some(name)) = (kind, name) else {
        return found.error(
            at,
            "a document of an overlay has a kind and a metadata.name: those of the object it changes",
        );
    };
    let wanted = |object: &&mut Object| {
        let version = patch["apiVersion"].as_str();
        let namespace = patch["metadata"]["namespace"].as_str();
        object.kind() == kind
            && object.name() == name
            && version.is_none_or(|v| v == object.api_version())
            && namespace.is_none_or(|n| object.namespace().is_none_or(|o| o == n))
    };
    let mut any = false;
    for object in objects.iter_mut().filter(wanted) {
        merge(&mut object.value, patch.clone(), "");
        any = true;
    }
    if !any {
        let known: Vec<&str> = objects.iter().filter(|o| o.kind() == kind).map(Object::name).collect();
        let known = if known.is_empty() {
            format!("there is no {kind}")
        } else {
            format!("there are {}", known.join(", "))
        };
        found.warnings.push(Diagnostic::new(
            at,
            format!("{kind} {name} is not there, so this changes nothing: {known}"),
        ));
    }
}

/// Merges `patch` into `value`, both values of the field `field`.
fn merge(value: &mut Value, patch: Value, field: &str) {
    match (value, patch) {
        (Value::Object(value), Value::Object(mut patch)) => {
            if patch.remove("$patch") == Some(Value::from("replace")) {
                *value = patch;
                return;
            }
            merge_map(value, patch);
        }
        (Value::Array(value), Value::Array(patch)) => merge_list(value, patch, field),
        (value, patch) => *value = without_words(patch),
    }
}

fn merge_map(value: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, patch) in patch {
        if patch.is_null() || patch["$patch"] == "delete" {
            value.shift_remove(&key);
        } else if let Some(known) = value.get_mut(&key) {
            merge(known, patch, &key);
        } else {
            value.insert(key, without_words(patch));
        }
    }
}

/// Merges entries with the same merge key. A list without a merge key is replaced as a whole.
fn merge_list(value: &mut Vec<Value>, patch: Vec<Value>, field: &str) {
    let named =
        |list: &[Value], key: &str| list.iter().all(|e| e.get(key).is_some() || e.get("$patch").is_some());
    let keys = LIST_KEYS.iter().find(|(known, _)| *known == field).map_or(&[][..], |(_, keys)| keys);
    let Some(key) = keys.iter().find(|key| named(value, key) && named(&patch, key)) else {
        *value = patch.into_iter().map(without_words).collect();
        return;
    };
    if patch.iter().any(|e| e["$patch"] == "replace" && e.get(key).is_none()) {
        *value = patch.into_iter().filter(|e| e.get(key).is_some()).map(without_words).collect();
        return;
    }
    for entry in patch {
        let place = value.iter().position(|v| v[key] == entry[key]);
        match place {
            Some(place) if entry["$patch"] == "delete" => drop(value.remove(place)),
            Some(place) => merge(&mut value[place], entry, ""),
            None if entry["$patch"] == "delete" => {}
            None => value.push(without_words(entry)),
        }
    }
}

/// Removes patch directives and nulls from a value that is inserted.
fn without_words(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, value)| key != "$patch" && !value.is_null())
            .map(|(key, value)| (key, without_words(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_words).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(value: Value, patch: Value, expect: Expect) {
        let mut value = value;
        merge(&mut value, patch, "");
        expect.assert_eq(&super::super::yaml(&value));
    }

    #[test]
    fn a_patch_changes_what_it_says_and_nothing_else() {
        let pod = json!({"containers": [
            {"name": "a", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"name": "b", "image": "y", "args": ["1", "2"]},
        ]});
        check(
            pod.clone(),
            json!({"containers": [{"name": "a", "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}]}], "hostname": "h"}),
            expect![[r#"
                containers:
                - name: a
                  image: x
                  env:
                  - name: B
                    value: '3'
                - name: b
                  image: 'y'
                  args:
                  - '1'
                  - '2'
                hostname: h
            "#]],
        );
        check(
            pod,
            json!({"containers": [{"name": "b", "args": ["3"], "image": null}, {"name": "a", "$patch": "delete"}, {"name": "c", "tty": null}]}),
            expect![[r#"
                containers:
                - name: b
                  args:
                  - '3'
                - name: c
            "#]],
        );
        check(
            json!({"ports": [{"port": 80, "name": "http"}], "selector": {"a": "1", "b": "2"}}),
            json!({"ports": [{"port": 80, "nodePort": 30080}], "selector": {"$patch": "replace", "c": "3"}}),
            expect![[r#"
                ports:
                - port: 80
                  name: http
                  nodePort: 30080
                selector:
                  c: '3'
            "#]],
        );
    }
}

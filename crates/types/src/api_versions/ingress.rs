//! Converts Ingresses of `extensions/v1beta1` and `networking.k8s.io/v1beta1`.

use serde_json::{Map, Value, json};

use super::{FieldDiagnostic, FieldDiagnostics};

/// Converts backends and adds path types. An Ingress of the current version has none of the old fields and is unchanged.
pub(super) fn modernise(ingress: &mut Value, remarks: &mut FieldDiagnostics) {
    let Some(spec) = ingress.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(Value::Object(old)) = spec.get("backend").cloned() {
        spec.shift_remove("backend");
        let new = backend(old, &["spec".into(), "backend".into()], remarks);
        spec.shift_insert(0, "defaultBackend".into(), new);
    }
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    for (r, rule) in rules.into_iter().flatten().enumerate() {
        let Some(paths) = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut) else { continue };
        for (p, path) in paths.iter_mut().enumerate().filter_map(|(p, v)| Some((p, v.as_object_mut()?))) {
            let place = ["spec", "rules", &r.to_string(), "http", "paths", &p.to_string()].map(String::from);
            http_path(path, &place, remarks);
        }
    }
}

fn http_path(path: &mut Map<String, Value>, place: &[String], remarks: &mut FieldDiagnostics) {
    if path.get("path").is_some_and(|p| p.is_null() || p == "") {
        path.shift_remove("path");
    }
    if let Some(Value::Object(old)) = path.get("backend").cloned()
        && !old.contains_key("service")
        && !old.contains_key("resource")
    {
        let place = [place, &["backend".to_string()]].concat();
        path.insert("backend".into(), backend(old, &place, remarks));
    }
    if !path.contains_key("pathType") {
        // Paths of old versions were regular expressions or prefixes, depending on the controller.
        let after = usize::from(path.contains_key("path"));
        path.shift_insert(after, "pathType".into(), "ImplementationSpecific".into());
    }
}

fn backend(mut old: Map<String, Value>, place: &[String], remarks: &mut FieldDiagnostics) -> Value {
    if old.contains_key("service") || old.contains_key("resource") {
        return Value::Object(old);
    }
    let name = old.shift_remove("serviceName");
    let port = match old.shift_remove("servicePort") {
        Some(Value::Number(n)) => json!({ "number": n }),
        // A port written as a numeric string never referred to a port name.
        Some(Value::String(s)) => match s.parse::<u16>() {
            Ok(number) => json!({ "number": number }),
            Err(_) => json!({ "name": s }),
        },
        _ => Value::Null,
    };
    for (missing, field) in [(name.is_none(), "serviceName"), (port.is_null(), "servicePort")] {
        if missing {
            let sentence = format!("this backend has no {field}");
            remarks.errors.push(FieldDiagnostic { path: place.to_vec(), sentence });
        }
    }
    let mut new = json!({ "service": { "name": name.unwrap_or_default(), "port": port } });
    if let Some(resource) = old.shift_remove("resource") {
        new["resource"] = resource;
    }
    new
}

use std::collections::BTreeSet;

use super::*;
use crate::resource::BUILT_IN;

fn read(group: &str, version: &str) -> Value {
    serde_json::from_slice(&document(&BUILT_IN, group, version).expect("a document")).expect("JSON")
}

/// All `$ref` targets.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => {
                        found.insert(target.trim_start_matches("#/components/schemas/").to_owned());
                    }
                    other => references(other, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_document_is_closed_and_every_kind_described() {
    let index = index(&BUILT_IN);
    for kind in BUILT_IN.iter().filter(|k| k.is_stored()) {
        let path = paths::root(&kind.group, &kind.version);
        let url = index["paths"][&path[1..]]["serverRelativeURL"].as_str().expect("a URL");
        assert_eq!(
            url,
            format!("/openapi/v3{path}?hash={}", tag(&BUILT_IN, &kind.group, &kind.version).expect("a tag"))
        );
        let document = read(&kind.group, &kind.version);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for target in found {
            assert!(document["components"]["schemas"].get(&target).is_some(), "{target}");
        }
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let own = |schema: &Value| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|l| l.contains(&gvk))
        };
        assert_eq!(schemas.values().filter(|s| own(s)).count(), 1, "{}", kind.kind);
    }
    assert_eq!(document(&BUILT_IN, "none", "v1"), None);
    assert_eq!(tag(&BUILT_IN, "none", "v1"), None);
}

#[test]
fn what_kubectl_looks_for_is_there() {
    let document = read("apps", "v1");
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["parameters"].as_array().expect("a list").iter().any(|p| p["name"] == "fieldValidation"));
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(containers["description"].as_str().is_some_and(|d| d.starts_with("List of containers")));
    let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert_eq!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
}

//! Real manifests: all of today's kinds in them are understood, filled in and found right.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::*;

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            manifests(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            found.push(path);
        }
    }
}

#[test]
fn real_manifests_are_accepted() {
    let corpus = std::env::var("YADO_CORPUS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus").to_owned());
    let mut paths = Vec::new();
    manifests(&Path::new(&corpus).join("kubernetes"), &mut paths);
    if paths.is_empty() {
        yado_testkit::not_proved!("no manifests in {corpus}");
        return;
    }
    let mut accepted = 0;
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a readable manifest");
        for document in serde_norway::Deserializer::from_str(&text) {
            // After what is no YAML (a template), nothing more of the file can be read.
            let Ok(object) = Value::deserialize(document) else { break };
            let version = object["apiVersion"].as_str().unwrap_or_default();
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let Some(kind) = find(group, version, object["kind"].as_str().unwrap_or_default()) else {
                continue;
            };
            // They are converted before they are decoded; real ones are in the compiler's tests.
            if kind.is_other_version() {
                continue;
            }
            let (mut object, _) = decode(kind, object.into(), FieldValidation::Warn)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            if kind.namespaced {
                object["metadata"]["namespace"] = "default".into();
            }
            default_object(kind, &mut object);
            assert_eq!(validate_object(kind, &object, None), [], "{}", path.display());
            accepted += 1;
        }
    }
    assert!(accepted > 0, "no manifest of a served kind in {corpus}");
}

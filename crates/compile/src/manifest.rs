//! The front end for Kubernetes manifests, including those for removed API versions: YAML or JSON from files, standard
//! input, a kustomization or a Helm chart. Each document has to be an object with `apiVersion`, `kind` and
//! `metadata.name`. Objects of current API versions are passed on unchanged; objects of removed versions are converted.

use std::path::{Path, PathBuf};

use serde_json::Value;
use yado_types::api_versions;

use crate::{
    Compiled, Object,
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    source::Source,
    yaml::{self, Mapping, Node, Value as Content, scalar::ScalarMeaning},
};

mod rendered;

pub use rendered::Renderer;

/// The manifests directly in `directory`, sorted by name.
///
/// # Errors
///
/// The directory cannot be read.
pub fn files_in(directory: &Path) -> Result<Vec<PathBuf>, Diagnostics> {
    let broken = |e: std::io::Error| Diagnostic::of_file(directory, format!("cannot be read: {e}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        let manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        // The overlay file is not a manifest.
        let overlay = path.file_name().is_some_and(|n| n == crate::output::overlay::FILE);
        if manifest && !hidden && !overlay && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Compiles the manifests in `files` as the app `name`.
///
/// # Errors
///
/// Documents that are not objects, and files without objects.
pub fn compile(files: &[PathBuf], name: &str) -> Result<Compiled, Diagnostics> {
    let mut found = Findings::default();
    let mut compiled = Compiled { app: name.into(), ..Compiled::default() };
    if let Some(first) = files.first() {
        compiled.directory = first.parent().map(Path::to_path_buf).unwrap_or_default();
    }
    for file in files {
        match Source::read(file) {
            Ok(source) => {
                let group = file.file_stem().unwrap_or_default().to_string_lossy();
                for value in objects(&source, &mut found) {
                    compiled.objects.push(Object { value, group: group.to_string(), source: file.clone() });
                }
            }
            Err(mistake) => found.errors.push(mistake),
        }
    }
    compiled.host = first_host(&compiled.objects);
    compiled.warnings = found.finish()?;
    Ok(compiled)
}

/// Renders a kustomization or chart and compiles the result as the app `name`.
///
/// # Errors
///
/// The tool is missing or fails, or as for [`compile`].
pub fn compile_rendered(renderer: &Renderer, name: &str) -> Result<Compiled, Diagnostics> {
    let mut found = Findings::default();
    let source = Source { path: renderer.file().into(), text: renderer.render(name)? };
    let values = objects(&source, &mut found);
    // Line numbers of rendered text do not refer to a file.
    for diagnostic in found.errors.iter_mut().chain(&mut found.warnings) {
        diagnostic.at = Position::of_file(renderer.file());
    }
    let object = |value| Object { value, group: name.into(), source: renderer.file().into() };
    let mut compiled = Compiled { app: name.into(), ..Compiled::default() };
    compiled.directory = renderer.file().parent().map(Path::to_path_buf).unwrap_or_default();
    compiled.objects = values.into_iter().map(object).collect();
    compiled.host = first_host(&compiled.objects);
    compiled.warnings = found.finish()?;
    Ok(compiled)
}

/// Parses objects from a text; `name` is its origin in messages, such as standard input.
///
/// # Errors
///
/// As for [`compile`].
pub fn parse(name: &Path, text: &str) -> Result<Vec<Value>, Diagnostics> {
    let source = Source { path: name.into(), text: text.into() };
    let mut found = Findings::default();
    let values = objects(&source, &mut found);
    found.finish()?;
    Ok(values)
}

fn first_host(objects: &[Object]) -> Option<String> {
    let ingresses = objects.iter().filter(|o| o.kind() == "Ingress");
    let mut rules = ingresses.flat_map(|i| i.value["spec"]["rules"].as_array().into_iter().flatten());
    rules.find_map(|rule| Some(rule["host"].as_str()?.to_string()))
}

fn objects(source: &Source, found: &mut Findings) -> Vec<Value> {
    let documents = match yaml::read_repeating(source, &mut found.warnings) {
        Ok(documents) => documents,
        Err(mistakes) => {
            found.errors.extend(mistakes.0);
            return Vec::new();
        }
    };
    let mut values = Vec::new();
    let mut empty = true;
    for document in documents.iter().filter(|d| !d.is_null()) {
        empty = false;
        object(document, found, &mut values);
    }
    if empty {
        found.errors.push(Diagnostic::of_file(&source.path, "holds no object"));
    }
    values
}

/// Adds the objects in `node` to `values`: itself, or the items of a `List`.
fn object(node: &Node, found: &mut Findings, values: &mut Vec<Value>) {
    let Content::Mapping(mapping) = &node.value else {
        return found.error(&node.at, "is not a valid Kubernetes object: it has to be a mapping");
    };
    for key in ["apiVersion", "kind"] {
        let Some(entry) = mapping.get(key) else {
            return found.error(&node.at, missing(key, mapping));
        };
        match text_of(mapping, key) {
            Some(text) if !text.is_empty() => {}
            _ => return found.error(&entry.at, format!("{key} has to be a string that is not empty")),
        }
    }
    let kind = text_of(mapping, "kind").unwrap_or_default();
    if let Some(items) =
        mapping.get("items").and_then(|e| e.value.as_sequence()).filter(|_| kind.ends_with("List"))
    {
        return items.iter().for_each(|item| object(item, found, values));
    }
    let metadata = mapping.get("metadata");
    let named = metadata.and_then(|m| m.value.as_mapping()).is_some_and(|m| {
        ["name", "generateName"].iter().any(|key| text_of(m, key).is_some_and(|name| !name.is_empty()))
    });
    if !named {
        let at = metadata.map_or(&node.at, |m| &m.at);
        return found.error(at, format!("this {kind} has no metadata.name"));
    }
    match node.to_kubernetes_json() {
        Ok(value) => values.extend(modernise(node, value, found)),
        Err(mistake) => found.errors.push(mistake),
    }
}

/// Converts the object at `node` to a current API version.
fn modernise(node: &Node, value: Value, found: &mut Findings) -> Option<Value> {
    let mut remarks = api_versions::FieldDiagnostics::default();
    let value = api_versions::modernise(value, &mut remarks);
    let place = |path: &[String]| node.place(path.iter().map(String::as_str));
    remarks.errors.iter().for_each(|r| found.error(place(&r.path), &*r.sentence));
    remarks.warnings.iter().for_each(|r| found.warn(place(&r.path), &*r.sentence));
    value
}

fn missing(key: &str, mapping: &Mapping) -> String {
    let kind = text_of(mapping, "kind").unwrap_or_default();
    match api_versions::version_of(kind).filter(|_| key == "apiVersion") {
        Some(version) => {
            format!(
                "is not a valid Kubernetes object: it has no apiVersion; for {kind} write apiVersion: {version}"
            )
        }
        None => format!("is not a valid Kubernetes object: it has no {key}"),
    }
}

/// The string under `key`; `None` if the value is a number, boolean or null.
fn text_of<'a>(mapping: &'a Mapping, key: &str) -> Option<&'a str> {
    match &mapping.get(key)?.value.value {
        Content::Scalar(scalar) if !scalar.plain || matches!(scalar.meaning(), ScalarMeaning::Text) => {
            Some(&scalar.text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod api_version_tests;

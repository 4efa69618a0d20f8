//! Variables and labels, which may be in files.

use std::path::PathBuf;

use crate::{
    compose::{
        dotenv,
        fields::{self, Fields},
        load::{Environment, Loader},
        model::Service,
    },
    diagnostic::Position,
    source::Source,
    yaml::Node,
};

/// A file of variables.
struct EnvFile {
    at: Position,
    path: PathBuf,
    required: bool,
    raw: bool,
}

/// Reads `env_file`, `environment`, `label_file` and `labels`.
pub(super) fn read(
    f: &mut Fields<'_>,
    service: &mut Service,
    environment: &Environment,
    loader: &mut Loader,
) {
    let files = f.node("env_file").map(|(node, path)| env_files(node, &path, loader)).unwrap_or_default();
    for file in files {
        if !file.path.is_file() {
            if file.required {
                let sentence =
                    format!("{}.env_file names {}, which is not a file", f.path, file.path.display());
                loader.found.error(&file.at, sentence);
            }
            continue;
        }
        let known = &service.environment;
        let lookup = |name: &str| environment.get(name).or_else(|| known.get(name)).cloned();
        let variables = match Source::read(&file.path) {
            Ok(source) if file.raw => dotenv::read_raw(&source),
            Ok(source) => dotenv::read(&source, &lookup, &mut loader.found),
            Err(mistake) => {
                loader.found.errors.push(mistake);
                continue;
            }
        };
        service.environment.extend(variables);
        service.env_files.push(file.path);
    }
    if let Some((node, path)) = f.node("environment") {
        for (name, value) in fields::pairs(node, &path, loader) {
            match value.or_else(|| environment.get(&name).cloned()) {
                Some(value) => drop(service.environment.insert(name, value)),
                None => drop(service.environment.shift_remove(&name)),
            }
        }
    }
    if let Some((node, path)) = f.node("label_file") {
        for file in fields::text_or_list(node, &path, loader) {
            let file = loader.resolve(&node.at, &file);
            if file.is_file() {
                let lookup = |name: &str| environment.get(name).cloned();
                let labels = dotenv::read_file(&file, &lookup, &mut loader.found);
                service.labels.extend(labels);
            } else {
                loader.found.error(&node.at, format!("{path} names {}, which is not a file", file.display()));
            }
        }
    }
    service.labels.extend(f.labels("labels", loader));
}

fn env_files(node: &Node, path: &str, loader: &mut Loader) -> Vec<EnvFile> {
    let items = node.as_sequence().unwrap_or(std::slice::from_ref(node));
    let mut all: Vec<EnvFile> = Vec::new();
    for item in items {
        let Some(file) = env_file(item, path, loader) else { continue };
        match all.iter_mut().find(|f| f.path == file.path) {
            Some(same) => *same = file,
            None => all.push(file),
        }
    }
    all
}

fn env_file(item: &Node, path: &str, loader: &mut Loader) -> Option<EnvFile> {
    let at = item.at.clone();
    if item.as_mapping().is_none() {
        let text = fields::text(item, path, loader)?;
        return Some(EnvFile { path: loader.resolve(&at, &text), at, required: true, raw: false });
    }
    let mut f = Fields::open(item, path.into(), loader)?;
    let file = f.path("path", loader);
    let required = f.bool("required", loader).unwrap_or(true);
    let raw = match f.text("format", loader).as_deref() {
        None | Some("" | ".env") => false,
        Some("raw") => true,
        Some(other) => {
            loader.found.error(&at, format!("{path}.format has to be raw, or not there, not {other:?}"));
            false
        }
    };
    f.close(loader);
    let Some(file) = file else {
        loader.found.error(&at, format!("{path} needs a path"));
        return None;
    };
    Some(EnvFile { at, path: file, required, raw })
}

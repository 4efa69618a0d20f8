//! Loads files into one tree: expands variables, includes files, resolves `extends` and merges override files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    dotenv, merge, old, remote,
    template::{self, VariableLookup},
};
use crate::{
    diagnostic::{Findings, Position},
    fetch::{Fetcher, source::without_password},
    source::{Source, clean},
    yaml::{self, Entry, Mapping, Node, Value},
};

/// Limit of files read for one project, repetitions included: their number could double with each level of includes. No
/// project has hundreds.
const MAX_FILES: usize = 500;

/// Limit of the length of a chain of `extends`.
const MAX_EXTENDS: usize = 100;

/// Environment variables: values by name.
pub(super) type Environment = BTreeMap<String, String>;

/// Reads files and records their origins.
#[derive(Default)]
pub(super) struct Loader {
    pub found: Findings,
    /// Every file read, in order, once.
    pub files: Vec<PathBuf>,
    /// Every env file read for the whole project or for an included one.
    pub env_files: Vec<PathBuf>,
    /// Variables of the project and of included projects.
    pub environment: Environment,
    /// Base directories of relative paths by file. A file that is read twice, as included and as extended, has two entries,
    /// distinguished by the identity of the path in its positions.
    bases: Vec<(Arc<Path>, PathBuf)>,
    reads: usize,
    /// Variables that are not set, with the positions of their use.
    missing: Vec<(String, Position)>,
    /// Whether a file or service could not be read, so that references to it cannot be checked.
    pub dropped: bool,
    /// Whether the project's own files are of version 1.
    pub version_1: bool,
    /// Positions of values whose variables could not be expanded.
    broken: Vec<Position>,
    /// Fetches remote files, if the project may refer to them.
    pub fetcher: Option<Fetcher>,
}

/// The services of a file while `extends` is resolved.
struct Scope<'a> {
    file: &'a Path,
    services: &'a Mapping,
    environment: &'a Environment,
}

impl Loader {
    /// Resolves a path in the file of `at` to an absolute path without `.` and `..`.
    pub fn resolve(&self, at: &Position, path: &str) -> PathBuf {
        let home = self.environment.get("HOME");
        if let (Some(rest), Some(home)) = (path.strip_prefix('~'), home)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return clean(&Path::new(home).join(rest.trim_start_matches('/')));
        }
        clean(&self.base(at).join(path))
    }

    /// Base directory of relative paths in the file of `at`.
    pub fn base(&self, at: &Position) -> PathBuf {
        let found = self.bases.iter().rev().find(|(file, _)| Arc::ptr_eq(file, &at.file));
        found.map(|(_, base)| base.clone()).unwrap_or_default()
    }

    /// Adds the variables that are not set to the errors that they may have caused.
    pub fn explain(&mut self) {
        let mut names: HashMap<&Position, Vec<&str>> = HashMap::new();
        for (name, at) in &self.missing {
            names.entry(at).or_default().push(name);
        }
        // A value that could not be expanded has been reported already.
        let broken: HashSet<Position> = self.broken.drain(..).collect();
        let mut first = broken.clone();
        self.found.errors.retain(|e| !broken.contains(&e.at) || first.remove(&e.at));
        for mistake in &mut self.found.errors {
            if let Some(names) = names.get(&mistake.at) {
                let are = if names.len() == 1 { "is" } else { "are" };
                mistake.message.push_str(&format!(" ({} {are} not set)", names.join(" and ")));
            }
        }
    }

    /// Loads `files` and merges later ones over earlier ones.
    pub fn model(
        &mut self,
        files: &[PathBuf],
        base: &Path,
        environment: &Environment,
        including: &[PathBuf],
    ) -> Option<Node> {
        let mut all: Option<Node> = None;
        let documents: Vec<(&PathBuf, Node)> = files
            .iter()
            .flat_map(|file| {
                let documents = self.documents(file, base, environment);
                documents.into_iter().map(move |document| (file, document))
            })
            .collect();
        // Merged files have the same version; an override alone may be ambiguous.
        let version_1 = documents.iter().any(|(_, document)| old::is_version_1(document))
            || documents.iter().all(|(_, document)| old::is_fragment(document));
        for (file, mut document) in documents {
            if version_1 && old::is_fragment(&document) {
                old::to_services(&mut document);
                self.version_1 |= including.is_empty();
            }
            let Some(document) = self.complete(document, file, base, environment, including) else {
                continue;
            };
            all = Some(match all {
                None => document,
                Some(earlier) => merge::merge(earlier, document, &mut Vec::new(), &mut self.found),
            });
        }
        if let Some(services) = all.as_mut().and_then(|a| a.as_mapping_mut()?.get_mut("services")) {
            name_environment(&mut services.value, environment);
        }
        all
    }

    /// The documents of a file, with variables expanded.
    fn documents(&mut self, file: &Path, base: &Path, environment: &Environment) -> Vec<Node> {
        self.reads += 1;
        if self.reads > MAX_FILES {
            self.found.errors.push(crate::Diagnostic::of_file(
                file,
                format!("is the {MAX_FILES}th file of one project: something includes itself"),
            ));
            return Vec::new();
        }
        let source = match Source::read(file) {
            Ok(source) => source,
            Err(mistake) => {
                self.found.errors.push(mistake);
                return Vec::new();
            }
        };
        if !self.files.iter().any(|f| f == file) {
            self.files.push(file.into());
        }
        self.bases.push((source.path.clone(), base.into()));
        let mut documents = match yaml::read(&source) {
            Ok(documents) => documents,
            Err(mistakes) => {
                self.found.errors.extend(mistakes.0);
                return Vec::new();
            }
        };
        documents.retain(|d| !d.is_null());
        let mut warned = HashSet::new();
        for document in &mut documents {
            let mut variables = Table { environment, missing: Vec::new() };
            let before = self.found.errors.len();
            interpolate(document, &mut variables, &mut self.found);
            self.broken.extend(self.found.errors[before..].iter().map(|e| e.at.clone()));
            for (name, at) in variables.missing {
                if warned.insert(name.clone()) && !self.missing.iter().any(|(n, _)| *n == name) {
                    self.found.warn(
                        &at,
                        format!("the variable {name} is not set, so it is replaced with an empty string"),
                    );
                }
                self.missing.push((name, at));
            }
        }
        documents
    }

    /// Resolves `include` and `extends` of a document.
    fn complete(
        &mut self,
        mut document: Node,
        file: &Path,
        base: &Path,
        environment: &Environment,
        including: &[PathBuf],
    ) -> Option<Node> {
        if document.as_mapping().is_none() {
            self.found
                .error(&document.at, "is not a valid compose file: it has to be a mapping with services");
            return None;
        }
        let include = document.as_mapping_mut().and_then(|m| m.shift_remove("include"));
        if let Some(include) = include {
            let mut chain = including.to_vec();
            chain.push(identity(file));
            document = self.include(document, &include.value, base, environment, &chain);
        }
        let services = match document.get("services").map(|s| (&s.value, s)) {
            Some((Value::Mapping(services), _))
                if services.values().any(|s| s.value.get("extends").is_some()) =>
            {
                services.clone()
            }
            _ => return Some(document),
        };
        let scope = Scope { file, services: &services, environment };
        for name in services.keys() {
            let Some(extended) = self.extend(&scope, name, &mut Vec::new()) else { continue };
            let all = document.as_mapping_mut()?.get_mut("services")?.value.as_mapping_mut()?;
            if let Some(entry) = all.get_mut(name) {
                entry.value = extended;
            }
        }
        Some(document)
    }

    /// Loads the files in `include` and merges the document over them.
    fn include(
        &mut self,
        mut document: Node,
        include: &Node,
        base: &Path,
        environment: &Environment,
        chain: &[PathBuf],
    ) -> Node {
        let Some(items) = include.as_sequence() else {
            self.found.error(&include.at, "include has to be a list of files");
            return document;
        };
        for item in items {
            let Some((files, directory, environment)) = self.included(item, base, environment) else {
                continue;
            };
            if let Some(again) = chain.iter().find(|c| **c == identity(&files[0])) {
                let sentence = format!("includes {}, which includes this file", again.display());
                self.found.error(&item.at, sentence);
                continue;
            }
            for (name, value) in &environment {
                self.environment.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let Some(mut imported) = self.model(&files, &directory, &environment, chain) else { continue };
            if let Some(mapping) = imported.as_mapping_mut() {
                const SHARED: [&str; 6] = ["services", "networks", "volumes", "configs", "secrets", "models"];
                mapping.retain(|key, _| SHARED.contains(&key.as_str()));
            }
            document = merge::merge(imported, document, &mut Vec::new(), &mut self.found);
        }
        document
    }

    /// The files, project directory and variables of one entry of `include`.
    fn included(
        &mut self,
        item: &Node,
        base: &Path,
        environment: &Environment,
    ) -> Option<(Vec<PathBuf>, PathBuf, Environment)> {
        if let Some(mapping) = item.as_mapping() {
            for (key, entry) in mapping {
                if !matches!(key.as_str(), "path" | "env_file" | "project_directory") {
                    self.found.error(
                        &entry.at,
                        format!(
                            "{key:?} is not a field of include: it has path, env_file and project_directory"
                        ),
                    );
                }
            }
        }
        let path = if item.as_mapping().is_some() { item.get("path") } else { Some(item) };
        let paths = path.map(texts).unwrap_or_default();
        if paths.is_empty() {
            self.found.error(&item.at, "include needs the path of a file");
            return None;
        }
        let files: Vec<PathBuf> =
            paths.iter().map(|(at, path)| self.named_file(at, base, path)).collect::<Option<_>>()?;
        let directory = match item.get("project_directory").and_then(Node::printed) {
            Some(directory) => clean(&base.join(directory)),
            None => files[0].parent().map(Path::to_path_buf).unwrap_or_default(),
        };
        let env_files = item.get("env_file").map(texts).unwrap_or_default();
        let mut all = environment.clone();
        let read: Vec<PathBuf> = if item.get("env_file").is_some() {
            env_files.iter().filter(|(_, f)| f != "/dev/null").map(|(_, f)| clean(&base.join(f))).collect()
        } else {
            Some(directory.join(".env")).filter(|f| f.is_file()).into_iter().collect()
        };
        for file in read {
            let lookup = |name: &str| environment.get(name).cloned();
            for (name, value) in dotenv::read_file(&file, &lookup, &mut self.found) {
                all.entry(name).or_insert(value);
            }
            self.env_files.push(file);
        }
        Some((files, directory, all))
    }

    /// The path of a file in `include` or `extends`, relative to `base`. A remote file is fetched.
    fn named_file(&mut self, at: &Position, base: &Path, path: &str) -> Option<PathBuf> {
        if !remote::is_remote(path) {
            return Some(shown(base, path));
        }
        let fetched = match &mut self.fetcher {
            Some(fetcher) => remote::file(path, fetcher),
            None => Err("is not on this machine: fetch it and name the file".into()),
        };
        match fetched {
            Ok(file) => Some(shown(base, &file.to_string_lossy())),
            Err(sentence) => {
                self.found.error(at, format!("{} {sentence}", without_password(path)));
                None
            }
        }
    }

    /// The service `name` merged over the services that it extends; `None` if it extends none or on an error.
    fn extend(&mut self, scope: &Scope<'_>, name: &str, chain: &mut Vec<(PathBuf, String)>) -> Option<Node> {
        let service = &scope.services.get(name)?.value;
        let extends = service.get("extends")?;
        let (file, of) = match &extends.value {
            Value::Mapping(m) => (m.get("file").map(|e| &e.value), m.get("service").map(|e| &e.value)),
            _ => (None, Some(extends)),
        };
        let Some(of) = of.and_then(Node::printed) else {
            self.found.error(&extends.at, format!("services.{name}.extends needs a service"));
            return None;
        };
        let here = (identity(scope.file), name.to_string());
        if chain.contains(&here) || chain.len() >= MAX_EXTENDS {
            let names: Vec<&str> = chain.iter().map(|(_, n)| n.as_str()).collect();
            self.found
                .error(&extends.at, format!("{} extend each other, which never ends", names.join(" and ")));
            return None;
        }
        chain.push(here);
        let base = match file {
            Some(file) => self.extend_from_file(scope, file, &of, chain),
            None => self.extended(scope, &of, &extends.at, chain),
        };
        chain.pop();
        let mut service = service.clone();
        service.as_mapping_mut()?.shift_remove("extends");
        let mut base = base?;
        base.as_mapping_mut()?.shift_remove("extends");
        let mut path = vec!["services".to_string(), name.to_string()];
        Some(merge::merge(base, service, &mut path, &mut self.found))
    }

    /// The extended service, merged over the services that it extends itself.
    fn extended(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        at: &Position,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let Some(entry) = scope.services.get(name) else {
            let sentence =
                format!("extends the service {name}, which {} does not have", scope.file.display());
            self.found.error(at, sentence);
            return None;
        };
        if entry.value.get("extends").is_some() {
            return self.extend(scope, name, chain);
        }
        Some(entry.value.clone())
    }

    fn extend_from_file(
        &mut self,
        scope: &Scope<'_>,
        file: &Node,
        of: &str,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let text = file.printed()?;
        let path = self.named_file(&file.at, &self.base(&file.at), &text)?;
        if !path.is_file() {
            self.found
                .error(&file.at, format!("extends a service of {}, which is not a file", path.display()));
            return None;
        }
        let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut services = Mapping::new();
        for mut document in self.documents(&path, &directory, scope.environment) {
            // The services of an extended file need no image.
            if old::is_fragment(&document) {
                old::to_services(&mut document);
            }
            let all = document.as_mapping_mut().and_then(|m| m.shift_remove("services"));
            if let Some(Entry { value: Node { value: Value::Mapping(all), .. }, .. }) = all {
                services.extend(all);
            }
        }
        let scope = Scope { file: &path, services: &services, environment: scope.environment };
        self.extended(&scope, of, &file.at, chain)
    }
}

/// Looks variables up in an environment and records missing ones.
struct Table<'a> {
    environment: &'a Environment,
    missing: Vec<(String, Position)>,
}

struct At<'a, 'b> {
    table: &'a mut Table<'b>,
    at: &'a Position,
}

impl VariableLookup for At<'_, '_> {
    fn value(&self, name: &str) -> Option<String> {
        self.table.environment.get(name).cloned()
    }

    fn missing(&mut self, name: &str) {
        self.table.missing.push((name.into(), self.at.clone()));
    }
}

/// Expands variables in values; keys are not expanded. An expanded scalar is a string, even if it looks like a number.
fn interpolate(node: &mut Node, table: &mut Table<'_>, found: &mut Findings) {
    match &mut node.value {
        Value::Scalar(scalar) => match template::substitute(&scalar.text, &mut At { table, at: &node.at }) {
            Ok(None) => {}
            Ok(Some(text)) => {
                scalar.text = text;
                scalar.plain = false;
            }
            Err(reason) => found.error(&node.at, format!("the value {reason}")),
        },
        Value::Sequence(items) => items.iter_mut().for_each(|item| interpolate(item, table, found)),
        Value::Mapping(mapping) => {
            mapping.values_mut().for_each(|entry| interpolate(&mut entry.value, table, found));
        }
    }
}

/// Sets the values of names without a value in `environment` from the environment of the project that contains the
/// service, which is not known after includes are merged.
fn name_environment(services: &mut Node, environment: &Environment) {
    let Some(services) = services.as_mapping_mut() else { return };
    for entry in services.values_mut() {
        let variables = entry.value.as_mapping_mut().and_then(|s| s.get_mut("environment"));
        match variables.map(|v| &mut v.value.value) {
            Some(Value::Sequence(items)) => {
                for item in items {
                    let name = item.printed().filter(|n| !n.contains('='));
                    if let Some((name, value)) = name.and_then(|n| environment.get(&n).map(|v| (n, v))) {
                        *item = Node::text(&item.at, format!("{name}={value}"));
                    }
                }
            }
            Some(Value::Mapping(mapping)) => {
                for (name, entry) in
                    mapping.iter_mut().filter(|(_, e)| e.value.is_null() && e.value.tag.is_none())
                {
                    if let Some(value) = environment.get(name) {
                        entry.value = Node::text(&entry.at, value);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A string or a list of strings, with positions.
fn texts(node: &Node) -> Vec<(Position, String)> {
    let items = node.as_sequence().unwrap_or(std::slice::from_ref(node));
    items.iter().filter_map(|n| Some((n.at.clone(), n.printed()?))).collect()
}

/// The path of a file in messages: relative to the current directory if that is shorter.
fn shown(base: &Path, path: &str) -> PathBuf {
    let path = clean(&base.join(path));
    match std::env::current_dir() {
        Ok(current) => path.strip_prefix(&current).map(Path::to_path_buf).unwrap_or(path),
        Err(_) => path,
    }
}

/// A canonical form of a path, to compare files.
fn identity(path: &Path) -> PathBuf {
    clean(&std::path::absolute(path).unwrap_or_else(|_| path.into()))
}

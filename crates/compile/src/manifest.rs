//! Kubernetes manifests of any age: YAML with any number of documents, or JSON; from files, from standard input, from
//! a kustomization or a Helm chart. Each document has to be an object with `apiVersion`, `kind` and `metadata.name`.
//! What the API serves today passes through as it is; what it served once becomes today's form of it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use serde_norway::Value as Yaml;

use crate::{
    Compiled, Object,
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    source::Source,
};

mod convert;
mod rendered;

pub use rendered::Renderer;

/// Brackets open at once, those in strings too. No object has more than some tens; scripts in a ConfigMap have some
/// that are never closed.
const MAX_NESTING: usize = 2000;

/// The manifests directly in `directory`, by name.
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
        if manifest && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the manifests in `files` as the app `name`.
///
/// # Errors
///
/// Every document that is no object, and files without any.
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

/// Renders what `renderer` describes as the app `name`.
///
/// # Errors
///
/// The tool is missing or refuses, or as [`compile`].
pub fn compile_rendered(renderer: &Renderer, name: &str) -> Result<Compiled, Diagnostics> {
    let mut found = Findings::default();
    let source = Source { path: renderer.file().into(), text: renderer.render(name)? };
    let values = objects(&source, &mut found);
    // Lines of what was rendered are lines of no file.
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

/// Reads objects from text that came from `name`, such as standard input.
///
/// # Errors
///
/// As [`compile`].
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
    let mut values = Vec::new();
    let mut documents = 0;
    for document in documents_of(&source.text) {
        if document.is_blank() {
            continue;
        }
        documents += 1;
        let checked = document.value(source).and_then(|value| document.check(source, value));
        match checked {
            Ok(more) => {
                values.extend(more.into_iter().filter_map(|value| document.modernise(source, value, found)))
            }
            Err(mistake) => found.errors.push(mistake),
        }
    }
    if documents == 0 {
        found.errors.push(Diagnostic::of_file(&source.path, "holds no object"));
    }
    values
}

/// One document and the number of lines before it.
struct Document<'a> {
    text: &'a str,
    lines_before: usize,
}

/// Splits at lines that start with `---`, which within a document no line of YAML may.
fn documents_of(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if separator {
            documents.push(Document { text: &text[start..offset], lines_before: start_line });
            start = offset + 3;
            start_line = number;
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before: start_line });
    documents
}

impl Document<'_> {
    fn is_blank(&self) -> bool {
        self.text.lines().all(|l| {
            let line = l.trim();
            line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "..."
        })
    }

    fn value(&self, source: &Source) -> Result<Value, Diagnostic> {
        self.check_nesting(source)?;
        let yaml = serde_norway::from_str::<Yaml>(self.text).and_then(|mut yaml| {
            yaml.apply_merge()?;
            Ok(yaml)
        });
        let yaml = yaml.map_err(|e| {
            let reason = e.to_string();
            if reason.contains("more than one document") {
                let sentence = "is not YAML: the indentation is less than the first line's";
                return Diagnostic::new(&self.outdented(source), sentence);
            }
            let at = match e.location() {
                Some(l) => source.at_line(self.lines_before + l.line(), l.column()),
                None => self.second_entry(source, &reason).unwrap_or_else(|| self.start(source)),
            };
            // The place is already in front, and counted from this document's start.
            let reason = reason.split(" at line ").next().unwrap_or_default();
            Diagnostic::new(&at, format!("is not YAML: {reason}"))
        })?;
        to_json(yaml).map_err(|reason| Diagnostic::new(&self.start(source), reason))
    }

    /// Refuses brackets nested so deeply that the reader of YAML, which takes time by the square of it, would not come
    /// to an end.
    fn check_nesting(&self, source: &Source) -> Result<(), Diagnostic> {
        let mut depth = 0_usize;
        for (number, line) in self.text.lines().enumerate() {
            for (column, byte) in line.bytes().enumerate() {
                match byte {
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > MAX_NESTING {
                    let at = source.at_line(self.lines_before + number + 1, column + 1);
                    return Err(Diagnostic::new(
                        &at,
                        format!("is nested more than {MAX_NESTING} levels deep"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The objects in the document: itself, or the items of a `List`.
    fn check(&self, source: &Source, value: Value) -> Result<Vec<Value>, Diagnostic> {
        let Value::Object(map) = &value else {
            return Err(Diagnostic::new(
                &self.start(source),
                "is no Kubernetes object: it has to be a mapping",
            ));
        };
        for key in ["apiVersion", "kind"] {
            let at = self.line_of(source, key);
            match map.get(key) {
                Some(Value::String(s)) if !s.is_empty() => {}
                Some(_) => {
                    return Err(Diagnostic::new(&at, format!("{key} has to be a string that is not empty")));
                }
                None if map.contains_key("services") => {
                    let sentence =
                        "is no Kubernetes object, but looks like a compose file: compile it by its own name";
                    return Err(Diagnostic::new(&at, sentence));
                }
                None => {
                    let sentence = format!("is no Kubernetes object: it has no {key}");
                    return Err(Diagnostic::new(&at, sentence));
                }
            }
        }
        let kind = map["kind"].as_str().unwrap_or_default();
        if let Some(items) = map.get("items").and_then(Value::as_array).filter(|_| kind.ends_with("List")) {
            let each = items.iter().map(|item| self.check(source, item.clone()));
            return Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
        }
        let at = self.line_of(source, "metadata");
        match value["metadata"].get("name").or(value["metadata"].get("generateName")) {
            Some(Value::String(s)) if !s.is_empty() => Ok(vec![value]),
            _ => Err(Diagnostic::new(&at, format!("this {kind} has no metadata.name"))),
        }
    }

    /// Today's form of one of its objects.
    fn modernise(&self, source: &Source, value: Value, found: &mut Findings) -> Option<Value> {
        let mut remarks = convert::Remarks::default();
        let value = convert::modernise(value, &mut remarks);
        remarks.errors.iter().for_each(|r| found.error(&self.place(source, &r.path), &*r.sentence));
        remarks.warnings.iter().for_each(|r| found.warn(&self.place(source, &r.path), &*r.sentence));
        value
    }

    /// Where the entry below `path` is, as far as its lines show: the keys are looked for one after another.
    fn place(&self, source: &Source, path: &[String]) -> Position {
        let mut place = None;
        let mut lines = self.text.lines().enumerate();
        for key in path.iter().filter(|k| k.parse::<usize>().is_err()) {
            let entry = |l: &str| {
                let l = l.trim_start_matches([' ', '-', '{', '"']);
                l.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with([':', '"']))
            };
            match lines.by_ref().find(|(_, l)| entry(l)) {
                Some((line, text)) => place = Some((line, text.find(key.as_str()).unwrap_or(0))),
                None => break,
            }
        }
        let at = |(line, column)| source.at_line(self.lines_before + line + 1, column + 1);
        place.map_or_else(|| self.start(source), at)
    }

    /// Where the first line with content is.
    fn start(&self, source: &Source) -> Position {
        let content = |l: &str| !l.trim().is_empty() && !l.trim().starts_with('#');
        let line = self.text.lines().position(content).unwrap_or(0);
        source.at_line(self.lines_before + line + 1, 1)
    }

    /// Where the indentation is less than that of the first line with content, which ends a document without `---`.
    fn outdented(&self, source: &Source) -> Position {
        let indent = |l: &str| l.len() - l.trim_start().len();
        let mut lines = self.text.lines().enumerate().skip(1);
        let content = |l: &str| !l.trim().is_empty() && !l.trim().starts_with('#');
        let first = lines.find(|(_, l)| content(l)).map_or(0, |(_, l)| indent(l));
        match lines.find(|(_, l)| content(l) && indent(l) < first) {
            Some((line, text)) => source.at_line(self.lines_before + line + 1, indent(text) + 1),
            None => self.start(source),
        }
    }

    /// Where a key is for the second time. The reader of YAML knows that it is there twice, but not where.
    fn second_entry(&self, source: &Source, reason: &str) -> Option<Position> {
        let key = reason.split_once("duplicate entry with key \"")?.1.split_once('"')?.0;
        let entry = |l: &str| {
            l.trim_start_matches([' ', '-']).strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
        };
        let (line, _) = self.text.lines().enumerate().filter(|(_, l)| entry(l)).nth(1)?;
        Some(source.at_line(self.lines_before + line + 1, 1))
    }

    /// Where a key of the document itself is, else where the document starts.
    fn line_of(&self, source: &Source, key: &str) -> Position {
        let is_key = |l: &str| l.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
        match self.text.lines().position(is_key) {
            Some(line) => source.at_line(self.lines_before + line + 1, 1),
            None => self.start(source),
        }
    }
}

/// YAML's values that JSON has too.
fn to_json(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::String(s) => Value::String(s),
        Yaml::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => i.into(),
            (None, Some(u), _) => u.into(),
            (.., Some(f)) if f.is_finite() => f.into(),
            _ => return Err(format!("{n} is a number that JSON, and so Kubernetes, has not")),
        },
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Mapping(mapping) => {
            let mut map = Map::new();
            for (key, value) in mapping {
                let key = match key {
                    Yaml::String(s) => s,
                    Yaml::Bool(b) => b.to_string(),
                    Yaml::Number(n) => n.to_string(),
                    _ => return Err("has a key that is no string".into()),
                };
                map.insert(key, to_json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => {
            return Err(format!("has the YAML tag {}, which Kubernetes has not", tagged.tag));
        }
    })
}

//! One Appfile's text to [`Appfile`]. Nothing is merged, defaulted or looked up here.

use hcl_edit::{
    Span,
    expr::{Expression, ObjectKey},
    structure::{Block, Body, Structure},
};
use serde_json::{Map, Number, Value};

use super::{Appfile, Application, Customization, Import, Infrastructure, Project, Setting, Text};
use crate::{
    diagnostic::{Diagnostic, Diagnostics, Findings, Position},
    source::Source,
};

/// Reads and parses the Appfile at `path`.
///
/// # Errors
///
/// The file cannot be read, is not HCL, or has blocks and fields that an Appfile has not.
pub fn parse_file(path: &std::path::Path) -> Result<Appfile, Diagnostics> {
    parse(&Source::read(path)?)
}

/// Parses an Appfile's text.
pub(crate) fn parse(source: &Source) -> Result<Appfile, Diagnostics> {
    let body = hcl_edit::parser::parse_body(&source.text).map_err(|e| {
        let at = source.at_line(e.location().line(), e.location().column());
        let hint = if e.message().contains("block body") {
            " (each field has a line of its own, each string a closing quote, each block a closing brace)"
        } else {
            ""
        };
        Diagnostic::new(&at, format!("is not HCL: {}{hint}", e.message()))
    })?;
    let mut reader = Reader { source, found: Findings::default() };
    let file = reader.file(&body);
    reader.found.finish()?;
    Ok(file)
}

struct Reader<'a> {
    source: &'a Source,
    found: Findings,
}

/// The blocks and fields a block may have, in the words of the error that lists them.
struct Shape {
    of: &'static str,
    fields: &'static [&'static str],
    blocks: &'static [&'static str],
}

const FILE: Shape = Shape {
    of: "an Appfile",
    fields: &[],
    blocks: &["application", "customization", "import", "infrastructure", "project"],
};
const APPLICATION: Shape =
    Shape { of: "application", fields: &["name", "type", "detect"], blocks: &["dependency"] };
const DEPENDENCY: Shape = Shape { of: "dependency", fields: &["source"], blocks: &[] };
const PROJECT: Shape = Shape { of: "project", fields: &["name", "infrastructure"], blocks: &[] };
const INFRASTRUCTURE: Shape =
    Shape { of: "infrastructure", fields: &["name", "type", "flavor"], blocks: &["foundation"] };
const IMPORT: Shape = Shape { of: "import", fields: &[], blocks: &[] };

impl Reader<'_> {
    fn at(&self, item: &impl Span) -> Position {
        self.source.at(item.span().map_or(0, |s| s.start))
    }

    fn file(&mut self, body: &Body) -> Appfile {
        self.keys(body, &FILE);
        let mut file = Appfile::default();
        for block in body.blocks() {
            match block.ident.as_str() {
                "application" => {
                    let application = self.application(block);
                    self.only_one(&mut file.application, application, block);
                }
                "project" => {
                    let project = self.project(block);
                    self.only_one(&mut file.project, project, block);
                }
                "infrastructure" => {
                    let Some(infrastructure) = self.infrastructure(block) else { continue };
                    let twice =
                        file.infrastructures.iter().any(|i| i.name.value == infrastructure.name.value);
                    self.once(twice, &infrastructure.name, "infrastructure");
                    file.infrastructures.push(infrastructure);
                }
                "customization" => {
                    let customization = self.customization(block);
                    file.customizations.push(customization);
                }
                "import" => {
                    self.keys(&block.body, &IMPORT);
                    let Some(source) = self.one_label(block, "the directory to import") else { continue };
                    let twice = file.imports.iter().any(|i| i.source.value == source.value);
                    self.once(twice, &source, "import");
                    file.imports.push(Import { source });
                }
                _ => {} // `keys` has reported it.
            }
        }
        file
    }

    fn application(&mut self, block: &Block) -> Application {
        self.no_label(block);
        self.keys(&block.body, &APPLICATION);
        let dependencies = block.body.get_blocks("dependency").filter_map(|b| self.dependency(b)).collect();
        Application {
            at: self.at(block),
            name: self.text(&block.body, "name"),
            app_type: self.text(&block.body, "type"),
            detect: self.flag(&block.body, "detect", true),
            dependencies,
        }
    }

    fn dependency(&mut self, block: &Block) -> Option<Text> {
        self.no_label(block);
        self.keys(&block.body, &DEPENDENCY);
        let source = self.text(&block.body, "source").filter(|s| !s.value.trim().is_empty());
        if source.is_none() {
            let at = self.at(block);
            self.found.error(&at, "dependency has no source: write source = \"./directory\"");
        }
        source
    }

    fn project(&mut self, block: &Block) -> Project {
        self.no_label(block);
        self.keys(&block.body, &PROJECT);
        Project {
            at: self.at(block),
            name: self.text(&block.body, "name"),
            infrastructure: self.text(&block.body, "infrastructure"),
        }
    }

    fn infrastructure(&mut self, block: &Block) -> Option<Infrastructure> {
        let name = self.one_label(block, "a name");
        self.keys(&block.body, &INFRASTRUCTURE);
        let mut foundations: Vec<Customization> = Vec::new();
        for inner in block.body.get_blocks("foundation") {
            let Some(foundation) = self.one_label(inner, "a name") else { continue };
            let twice = foundations.iter().any(|f| f.name == foundation.value);
            self.once(twice, &foundation, "foundation");
            let settings = self.settings(&inner.body);
            foundations.push(Customization { at: self.at(inner), name: foundation.value, settings });
        }
        let name = name?;
        let infra_type = self.text(&block.body, "type").map(|t| t.value).filter(|t| !t.is_empty());
        let flavor = self.text(&block.body, "flavor").map(|t| t.value).unwrap_or_default();
        Some(Infrastructure {
            infra_type: infra_type.unwrap_or_else(|| name.value.clone()),
            name,
            flavor,
            foundations,
        })
    }

    fn customization(&mut self, block: &Block) -> Customization {
        let name = match &block.labels[..] {
            [] => "app".into(),
            [label] if label.is_empty() => "app".into(),
            [label] => label.to_lowercase(),
            [_, second, ..] => {
                let at = self.at(second);
                self.found.error(&at, "customization has at most one name: remove this one");
                block.labels[0].to_lowercase()
            }
        };
        Customization { at: self.at(block), name, settings: self.settings(&block.body) }
    }

    /// Any fields and blocks at all, as the customization of an application type has them.
    fn settings(&mut self, body: &Body) -> Vec<Setting> {
        let mut settings = Vec::new();
        for structure in body {
            settings.push(match structure {
                Structure::Attribute(attribute) => Setting {
                    at: self.at(&attribute.key),
                    value_at: self.at(&attribute.value),
                    key: attribute.key.as_str().into(),
                    value: self.value(&attribute.value),
                },
                Structure::Block(block) => Setting {
                    at: self.at(block),
                    value_at: self.at(block),
                    key: block.ident.as_str().into(),
                    value: self.object(&block.body),
                },
            });
        }
        settings
    }

    fn object(&mut self, body: &Body) -> Value {
        let settings = self.settings(body);
        Value::Object(settings.into_iter().map(|s| (s.key, s.value)).collect())
    }

    /// Reports every field and block that `shape` has not.
    fn keys(&mut self, body: &Body, shape: &Shape) {
        for structure in body {
            let (at, key, known, other, what) = match structure {
                Structure::Attribute(a) => {
                    (self.at(&a.key), a.key.as_str(), shape.fields, shape.blocks, "field")
                }
                Structure::Block(b) => (self.at(b), b.ident.as_str(), shape.blocks, shape.fields, "block"),
            };
            if known.contains(&key) {
                continue;
            }
            let of = shape.of;
            let message = if other.contains(&key) && what == "field" {
                format!("{key} is a block of {of}: write {key} {{ ... }} without \"=\"")
            } else if other.contains(&key) {
                format!("{key} is a field of {of}: write {key} = \"...\"")
            } else {
                let all: Vec<&str> = shape.fields.iter().chain(shape.blocks).copied().collect();
                match &all[..] {
                    [] => format!("\"{key}\" is unknown: {of} takes no fields"),
                    all => format!("\"{key}\" is unknown: {of} takes {}", all.join(", ")),
                }
            };
            self.found.error(&at, message);
        }
    }

    fn only_one<T>(&mut self, slot: &mut Option<T>, value: T, block: &Block) {
        if slot.is_none() {
            *slot = Some(value);
            return;
        }
        let at = self.at(block);
        let name = block.ident.as_str();
        self.found.error(
            &at,
            format!("only one {name} block is allowed: remove this one or merge it into the first"),
        );
    }

    fn once(&mut self, twice: bool, name: &Text, what: &str) {
        if twice {
            self.found.error(&name.at, format!("{what} \"{}\" is defined more than once", name.value));
        }
    }

    fn no_label(&mut self, block: &Block) {
        if let Some(label) = block.labels.first() {
            let at = self.at(label);
            let name = block.ident.as_str();
            self.found.error(&at, format!("{name} takes no name here: write {name} {{ ... }}"));
        }
    }

    fn one_label(&mut self, block: &Block, what: &str) -> Option<Text> {
        if let [label] = &block.labels[..] {
            return Some(Text { at: self.at(label), value: label.as_str().into() });
        }
        let at = self.at(block);
        let name = block.ident.as_str();
        self.found
            .error(&at, format!("{name} takes {what} and nothing else: write {name} \"...\" {{ ... }}"));
        None
    }

    /// A field that is a string; numbers and booleans are taken as they are written, as Otto did.
    fn text(&mut self, body: &Body, key: &str) -> Option<Text> {
        let attribute = body.get_attribute(key)?;
        let at = self.at(&attribute.value);
        let value = match self.value(&attribute.value) {
            Value::String(s) => s,
            Value::Number(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            _ => {
                self.found.error(&at, format!("{key} is a string: write {key} = \"...\""));
                return None;
            }
        };
        Some(Text { at, value })
    }

    fn flag(&mut self, body: &Body, key: &str, default: bool) -> bool {
        let Some(attribute) = body.get_attribute(key) else { return default };
        match self.value(&attribute.value) {
            Value::Bool(b) => b,
            Value::String(s) if s == "true" || s == "false" => s == "true",
            _ => {
                let at = self.at(&attribute.value);
                self.found.error(&at, format!("{key} is true or false"));
                default
            }
        }
    }

    /// A literal. HCL 1 had no expressions; a string with `${...}` is kept as it is written.
    fn value(&mut self, expression: &Expression) -> Value {
        match expression {
            Expression::Null(_) => Value::Null,
            Expression::Bool(b) => Value::Bool(**b),
            Expression::String(s) => Value::String(s.as_str().into()),
            Expression::Number(n) => number(n.value()),
            Expression::Array(array) => Value::Array(array.iter().map(|e| self.value(e)).collect()),
            Expression::Object(object) => {
                let mut map = Map::new();
                for (key, value) in object {
                    let key = match key {
                        ObjectKey::Ident(ident) => ident.as_str().to_string(),
                        ObjectKey::Expression(e) => match self.value(e) {
                            Value::String(s) => s,
                            other => other.to_string(),
                        },
                    };
                    let value = self.value(value.expr());
                    map.insert(key, value);
                }
                Value::Object(map)
            }
            Expression::StringTemplate(_) => {
                let span = expression.span().unwrap_or(0..0);
                let written = self.source.text.get(span).unwrap_or_default();
                Value::String(written.trim_matches('"').into())
            }
            Expression::HeredocTemplate(heredoc) => Value::String(heredoc.template.to_string()),
            Expression::UnaryOp(op) => match (&*op.operator, self.value(&op.expr)) {
                (hcl_edit::expr::UnaryOperator::Neg, Value::Number(n)) => negated(&n),
                _ => self.no_literal(expression),
            },
            _ => self.no_literal(expression),
        }
    }

    fn no_literal(&mut self, expression: &Expression) -> Value {
        let at = self.at(expression);
        self.found.error(&at, "only a string, a number, true, false, a list or an object can stand here");
        Value::Null
    }
}

fn number(n: &hcl_edit::Number) -> Value {
    if let Some(i) = n.as_i64() {
        return i.into();
    }
    n.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

fn negated(n: &Number) -> Value {
    if let Some(i) = n.as_i64().and_then(i64::checked_neg) {
        return i.into();
    }
    n.as_f64().and_then(|f| Number::from_f64(-f)).map_or(Value::Null, Value::Number)
}

//! `x-kubernetes-validations`: the rules of a structural schema, compiled once for each definition and evaluated for
//! each object that is created or updated.

mod compile;
mod declare;
mod escape;
mod kind;
mod path;

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::cost::Budget;
use super::error::EvalError;
use super::types::Type;
use super::value::Value;
use super::{Program, source};
use crate::schema::structural::{Rule, Structural};
use crate::schema::validate::Path;
use crate::schema::{FieldError, Reason};
use path::below;

pub(crate) use escape::is_reserved;
pub(crate) use kind::declare_kind;

/// Errors that are reported of one object; the first ones show what is wrong.
const MAX_ERRORS: usize = 100;
/// Largest message that a `messageExpression` may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// The compiled rules of a schema.
#[derive(Default)]
pub struct Rules {
    root: Option<Level>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

/// The rules of one place of a schema and of all places below.
struct Level {
    /// The type of the value as rules see it; none where they do not.
    kind: Option<Type>,
    /// The type as the schema names it.
    type_name: &'static str,
    rules: Vec<CompiledRule>,
    properties: BTreeMap<String, Level>,
    /// Of items of a list, or of values of a map.
    items: Option<Box<Level>>,
    /// Keys by which items of a list are told apart; empty where they are not.
    keys: Vec<String>,
}

struct CompiledRule {
    rule: Rule,
    program: Program,
    message: Option<Program>,
    uses_old: bool,
    /// The field that is blamed, as it is appended to the path of the value.
    below: String,
}

/// A value and its old version. Where both are equal, errors of rules that do not compare them are not reported: the
/// object was stored before the rule was.
struct Pair<'o> {
    new: &'o Json,
    old: &'o Json,
    is_equal: OnceCell<bool>,
}

impl<'o> Pair<'o> {
    fn new(new: &'o Json, old: &'o Json) -> Self {
        Self { new, old, is_equal: OnceCell::new() }
    }

    fn is_equal(&self) -> bool {
        *self.is_equal.get_or_init(|| self.new == self.old)
    }
}

impl Rules {
    /// Compiles all rules of a schema, which is that of a whole object. `path` is the schema's own in its definition,
    /// like `spec.versions[0].schema.openAPIV3Schema`. Also says what is wrong with rules, in Kubernetes' words; rules
    /// with errors are left out.
    pub fn compile(schema: &Structural, path: &str) -> (Self, Vec<FieldError>) {
        if !schema.has_rules() {
            return (Self::default(), Vec::new());
        }
        let compiled = source::on_large_stack(|| compile::compile(schema, path));
        compiled.unwrap_or_else(|error| {
            let message = format!("Internal error: {error}");
            let error = FieldError { field: path.to_owned(), reason: Reason::Invalid, message };
            (Self::default(), vec![error])
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Evaluates the rules for an object and, where it is updated, its old version. Both have been pruned and
    /// defaulted, and fit their schema. Ends with an error when the budget is used up.
    pub fn check(&self, object: &Json, old: Option<&Json>, budget: &mut Budget) -> Vec<FieldError> {
        let mut walk = Walk { budget, errors: Vec::new(), is_over: false };
        if let Some(root) = &self.root {
            let pair = old.map(|old| Pair::new(object, old));
            walk.level(root, &Path::root(), object, old, pair.as_ref());
        }
        walk.errors
    }
}

struct Walk<'w> {
    budget: &'w mut Budget,
    errors: Vec<FieldError>,
    /// No other rule is evaluated.
    is_over: bool,
}

impl Walk<'_> {
    /// Rules of a value and of all below. `nearest` is the value or the nearest one around it that has an old version.
    fn level<'o>(
        &mut self,
        level: &Level,
        path: &Path,
        json: &'o Json,
        old: Option<&'o Json>,
        nearest: Option<&Pair<'o>>,
    ) {
        if json.is_null() || self.is_over {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        self.rules(level, path, json, old, nearest);
        match json {
            Json::Object(fields) => {
                for (name, value) in fields {
                    let property = level.properties.get(name).map(|below| (below, path.field(name)));
                    let value_level = level.items.as_deref().map(|below| (below, path.key(name)));
                    if let Some((below, path)) = property.or(value_level) {
                        self.below(below, &path, value, old.and_then(|old| old.get(name)), nearest);
                    }
                }
            }
            Json::Array(items) => {
                let Some(below) = &level.items else { return };
                let known = old.and_then(Json::as_array).map(|old| by_keys(&level.keys, old));
                for (index, item) in items.iter().enumerate() {
                    let old =
                        known.as_ref().and_then(|known| known.get(&identifier(&level.keys, item)?)).copied();
                    self.below(below, &path.index(index), item, old, nearest);
                }
            }
            _ => {}
        }
    }

    fn below<'o>(
        &mut self,
        level: &Level,
        path: &Path,
        json: &'o Json,
        old: Option<&'o Json>,
        nearest: Option<&Pair<'o>>,
    ) {
        let pair = old.map(|old| Pair::new(json, old));
        self.level(level, path, json, old, pair.as_ref().or(nearest));
    }

    fn rules(&mut self, level: &Level, path: &Path, json: &Json, old: Option<&Json>, nearest: Option<&Pair>) {
        let Some(kind) = level.kind.as_ref().filter(|_| !level.rules.is_empty()) else { return };
        let read = |json| Value::read(json, kind);
        let (value, old_value) = match (read(json), old.map(read).transpose()) {
            (Ok(value), Ok(old)) => (value, old),
            (Err(error), _) | (_, Err(error)) => {
                return self.invalid(below(path, ""), level, &error.to_string());
            }
        };
        for rule in &level.rules {
            if self.is_over {
                return;
            }
            let old_value = match (rule.rule.optional_old_self, &old_value) {
                (true, old) => Value::Optional(old.clone().map(Into::into)),
                (false, Some(old)) => old.clone(),
                // Rules of a transition need something to compare with.
                (false, None) if rule.uses_old => continue,
                (false, None) => Value::Null,
            };
            let bindings = [value.clone(), old_value];
            match rule.program.evaluate(&bindings, self.budget) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => self.failed(level, rule, path, json, &bindings, nearest),
                Err(error) => self.no_result(level, rule, path, &error),
            }
        }
    }

    fn add(&mut self, field: String, reason: Reason, message: String) {
        self.errors.push(FieldError { field, reason, message });
        self.is_over |= self.errors.len() >= MAX_ERRORS;
    }

    fn invalid(&mut self, field: String, level: &Level, detail: &str) {
        self.add(field, Reason::Invalid, format!("Invalid value: {:?}: {detail}", level.type_name));
    }

    /// A rule that could not be evaluated.
    fn no_result(&mut self, level: &Level, rule: &CompiledRule, path: &Path, error: &EvalError) {
        let name = shown(&rule.rule);
        let detail = match error {
            EvalError::NoSuchOverload => format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: \
                 {name}"
            ),
            EvalError::CostLimit => {
                format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                )
            }
            EvalError::BudgetExhausted => error.to_string(),
            error => format!("{error} evaluating rule: {name}"),
        };
        self.invalid(below(path, ""), level, &detail);
        self.end_at(error);
    }

    fn end_at(&mut self, error: &EvalError) {
        if error.is_limit() {
            self.budget.exhaust();
            self.is_over = true;
        }
    }

    /// A rule that does not hold.
    fn failed<'a>(
        &mut self,
        level: &Level,
        rule: &'a CompiledRule,
        path: &Path,
        json: &Json,
        bindings: &[Value<'a>],
        nearest: Option<&Pair>,
    ) {
        if !rule.uses_old && nearest.is_some_and(Pair::is_equal) {
            return;
        }
        let field = below(path, &rule.below);
        let message = match rule.message.as_ref().map(|program| self.message(program, bindings)) {
            Some(Ok(message)) => message,
            Some(Err(error)) if error.is_limit() => {
                let source = &rule.rule.message_expression;
                let detail = match error {
                    EvalError::CostLimit => format!(
                        "no further validation rules will be run due to call cost exceeds limit for \
                         messageExpression: {source:?}"
                    ),
                    _ => "messageExpression evaluation failed due to running out of cost budget, no further \
                          validation rules will be run"
                        .to_owned(),
                };
                self.invalid(field, level, &detail);
                return self.end_at(&error);
            }
            // A message that cannot be made must not hide that the rule does not hold.
            None | Some(Err(_)) => match rule.rule.message.is_empty() {
                true => format!("failed rule: {}", shown(&rule.rule)),
                false => rule.rule.message.trim().to_owned(),
            },
        };
        // Of objects and lists the path says enough.
        let value = match json {
            Json::Object(_) | Json::Array(_) => None,
            scalar => Some(scalar.to_string()),
        };
        let (reason, message) = match (rule.rule.reason.as_str(), value) {
            ("FieldValueRequired", _) => (Reason::Required, format!("Required value: {message}")),
            ("FieldValueForbidden", _) => (Reason::Forbidden, format!("Forbidden: {message}")),
            ("FieldValueDuplicate", None) => (Reason::Duplicate, "Duplicate value".to_owned()),
            ("FieldValueDuplicate", Some(value)) => (Reason::Duplicate, format!("Duplicate value: {value}")),
            (_, None) => (Reason::Invalid, format!("Invalid value: {message}")),
            (_, Some(value)) => (Reason::Invalid, format!("Invalid value: {value}: {message}")),
        };
        self.add(field, reason, message);
    }

    /// The message that an expression makes.
    fn message<'a>(&mut self, program: &'a Program, bindings: &[Value<'a>]) -> Result<String, EvalError> {
        let value = program.evaluate(bindings, self.budget)?;
        let text = value.as_str().unwrap_or_default().trim();
        if text.is_empty() || text.len() > MAX_MESSAGE || text.contains('\n') {
            return Err(EvalError::failed("messageExpression must evaluate to a non-empty line"));
        }
        Ok(text.to_owned())
    }
}

/// A rule in messages.
fn shown(rule: &Rule) -> &str {
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}

/// The identifying keys of a list item; `None` for lists without keys.
fn identifier(keys: &[String], item: &Json) -> Option<String> {
    if keys.is_empty() || !item.is_object() {
        return None;
    }
    let values: Vec<&Json> = keys.iter().map(|key| &item[key]).collect();
    serde_json::to_string(&values).ok()
}

fn by_keys<'o>(keys: &[String], items: &'o [Json]) -> BTreeMap<String, &'o Json> {
    items.iter().filter_map(|item| Some((identifier(keys, item)?, item))).collect()
}

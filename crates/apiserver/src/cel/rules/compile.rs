//! Compiling all rules of a schema, and what is wrong with them.

use std::collections::BTreeMap;

use super::declare::{Declared, MAX_REQUEST, Parts, declare};
use super::path::read_field_path;
use super::{CompiledRule, Level, Rules};
use crate::cel::Program;
use crate::cel::types::{Type, TypeKind};
use crate::schema::structural::{Additional, Items, Rule, Structural, Type as SchemaType};
use crate::schema::{FieldError, Reason};

/// Limit of the estimated cost of one rule, over all its evaluations for an object.
const RULE_LIMIT: u64 = 10_000_000;
/// Limit of the estimated cost of all rules of a schema together.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// Reasons that a rule may give.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Compiles the rules of a schema whose path is given.
pub fn compile(schema: &Structural, path: &str) -> (Rules, Vec<FieldError>) {
    let mut compiler = Compiler { errors: Vec::new(), total: 0, expensive: Vec::new() };
    let place = Place {
        path: path.to_owned(),
        name: "self".to_owned(),
        is_resource: true,
        is_seen: false,
        most: Some(1),
        uncorrelatable: None,
    };
    let (_, level) = compiler.level(schema, &place);
    if compiler.total > SCHEMA_LIMIT {
        compiler.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in std::mem::take(&mut compiler.expensive).into_iter().take(4) {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            compiler.forbid(path, detail.to_owned());
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        compiler.forbid(path.to_owned(), too_expensive(name, compiler.total, SCHEMA_LIMIT));
    }
    (Rules { root: level }, compiler.errors)
}

/// Where a schema stands.
struct Place {
    /// Its path in the definition.
    path: String,
    /// The name of its type.
    name: String,
    /// Whether values have `apiVersion`, `kind` and `metadata`.
    is_resource: bool,
    /// Whether rules of a place above see it.
    is_seen: bool,
    /// How often a value of it can be in an object; none where that is not bounded.
    most: Option<u64>,
    /// The path of the list whose items cannot be compared with old ones.
    uncorrelatable: Option<String>,
}

impl Place {
    fn below(&self, path: &str, name: &str, below: &Structural, is_seen: bool) -> Self {
        Self {
            path: format!("{}.{path}", self.path),
            name: format!("{}.{name}", self.name),
            is_resource: below.embedded,
            is_seen,
            most: self.most,
            uncorrelatable: self.uncorrelatable.clone(),
        }
    }
}

struct Compiler {
    errors: Vec<FieldError>,
    /// The estimated cost of all rules.
    total: u64,
    /// Rules that are a good part of it.
    expensive: Vec<(String, u64)>,
}

impl Compiler {
    /// The type of a schema, and the rules in it if there are any. Neither, where no rule is in it or sees it.
    fn level(&mut self, schema: &Structural, place: &Place) -> (Option<Declared>, Option<Level>) {
        if !place.is_seen && !schema.has_rules() {
            return (None, None);
        }
        let is_seen = place.is_seen || !schema.rules.is_empty();
        let mut parts = Parts::default();
        let mut properties = BTreeMap::new();
        for (name, property) in &schema.properties {
            let place = place.below(&format!("properties[{name}]"), name, property, is_seen);
            let (declared, level) = self.level(property, &place);
            parts.properties.extend(declared.map(|declared| (name.clone(), declared)));
            properties.extend(level.map(|level| (name.clone(), level)));
        }
        let (item, items) = self.items(schema, place, is_seen);
        parts.item = item;
        let declared = declare(schema, &parts, place.is_resource, &place.name);
        let rules = self.rules(schema, place, declared.as_ref());
        if rules.is_empty() && properties.is_empty() && items.is_none() {
            return (declared, None);
        }
        let keys = match &schema.list {
            Items::Map(keys) => keys.clone(),
            Items::Atomic | Items::Set => Vec::new(),
        };
        let kind = declared.as_ref().map(|declared| declared.kind.clone());
        let type_name = schema.kind.map_or("", SchemaType::name);
        (declared, Some(Level { kind, type_name, rules, properties, items: items.map(Box::new), keys }))
    }

    /// The items of a list, or the values of a map.
    fn items(
        &mut self,
        schema: &Structural,
        place: &Place,
        is_seen: bool,
    ) -> (Option<Declared>, Option<Level>) {
        if let Additional::Of(values) = &schema.additional {
            let mut below = place.below("additionalProperties", "@elem", values, is_seen);
            below.most = product(place.most, schema.limits.max_properties);
            return self.level(values, &below);
        }
        let Some(items) = &schema.items else { return (None, None) };
        let mut below = place.below("items", "@idx", items, is_seen);
        below.most = product(place.most, schema.limits.max_items);
        if !matches!(schema.list, Items::Map(_)) {
            below.uncorrelatable = Some(place.path.clone());
        }
        self.level(items, &below)
    }

    fn rules(
        &mut self,
        schema: &Structural,
        place: &Place,
        declared: Option<&Declared>,
    ) -> Vec<CompiledRule> {
        let mut compiled = Vec::new();
        for (index, rule) in schema.rules.iter().enumerate() {
            let path = format!("{}.x-kubernetes-validations[{index}]", place.path);
            if !self.is_well_formed(schema, rule, &path) {
                continue;
            }
            match declared {
                Some(declared) => compiled.extend(self.rule(schema, rule, place, declared, &path)),
                None => {
                    let message =
                        "Internal error: failed to convert to declType for CEL validation rules".to_owned();
                    let field = format!("{}.x-kubernetes-validations", place.path);
                    self.errors.push(FieldError { field, reason: Reason::Invalid, message });
                }
            }
        }
        compiled
    }

    fn invalid(&mut self, field: String, value: &str, detail: &str) {
        let message = format!("Invalid value: {value}: {detail}");
        self.errors.push(FieldError { field, reason: Reason::Invalid, message });
    }

    fn required(&mut self, field: String, detail: &str) {
        let message = format!("Required value: {detail}");
        self.errors.push(FieldError { field, reason: Reason::Required, message });
    }

    fn forbid(&mut self, field: String, detail: String) {
        let message = format!("Forbidden: {detail}");
        self.errors.push(FieldError { field, reason: Reason::Forbidden, message });
    }

    /// Whether the parts of a rule are as they have to be; says what is not.
    fn is_well_formed(&mut self, schema: &Structural, rule: &Rule, path: &str) -> bool {
        let before = self.errors.len();
        let has_line_breaks = |text: &str| text.contains(['\n', '\r']);
        let message = format!("{path}.message");
        if rule.rule.trim().is_empty() {
            self.required(format!("{path}.rule"), "rule is not specified");
        } else if !rule.message.is_empty() && rule.message.trim().is_empty() {
            self.invalid(message, &format!("{:?}", rule.message), "must be non-empty if specified");
        } else if has_line_breaks(rule.message.trim()) {
            self.invalid(message, &format!("{:?}", rule.message), "must not contain line breaks");
        } else if has_line_breaks(rule.rule.trim()) && rule.message.trim().is_empty() {
            self.required(message, "message must be specified if rule contains line breaks");
        }
        if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            self.required(format!("{path}.messageExpression"), detail);
        }
        if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
            let known: Vec<String> = REASONS.iter().map(|reason| format!("{reason:?}")).collect();
            let message =
                format!("Unsupported value: {:?}: supported values: {}", rule.reason, known.join(", "));
            let field = format!("{path}.reason");
            self.errors.push(FieldError { field, reason: Reason::NotSupported, message });
        }
        if !rule.field_path.is_empty() {
            let (field, value) = (format!("{path}.fieldPath"), format!("{:?}", rule.field_path));
            if rule.field_path.trim().is_empty() {
                self.invalid(field.clone(), &value, "must be non-empty if specified");
            }
            if has_line_breaks(&rule.field_path) {
                self.invalid(field.clone(), &value, "must not contain line breaks");
            }
            if read_field_path(&rule.field_path, schema).is_none() {
                self.invalid(field, &value, "must be a valid path");
            }
        }
        self.errors.len() == before
    }

    fn rule(
        &mut self,
        schema: &Structural,
        rule: &Rule,
        place: &Place,
        declared: &Declared,
        path: &str,
    ) -> Option<CompiledRule> {
        let old = match rule.optional_old_self {
            true => Type::optional(declared.kind.clone()),
            false => declared.kind.clone(),
        };
        let variables = [("self".to_owned(), declared.kind.clone()), ("oldSelf".to_owned(), old)];
        let field = format!("{path}.rule");
        let program = match program(&rule.rule, &variables, TypeKind::Bool) {
            Ok(program) => program,
            Err(error) => {
                let detail = error.unwrap_or_else(|| "cel expression must evaluate to a bool".to_owned());
                self.invalid(field, &go_syntax(rule), &detail);
                return None;
            }
        };
        self.estimate(&program, place, declared, &field);
        let message = self.message(rule, &variables, path);
        let uses_old = program.uses(1);
        if let Some(list) = place.uncorrelatable.as_ref().filter(|_| uses_old) {
            let detail =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
            self.invalid(field, &format!("{:?}", rule.rule), &detail);
        } else if rule.optional_old_self && !uses_old {
            let detail = "may not be set if oldSelf is not used in rule";
            self.invalid(format!("{path}.optionalOldSelf"), "true", detail);
        }
        let below = read_field_path(&rule.field_path, schema).unwrap_or_default();
        Some(CompiledRule { rule: rule.clone(), program, message, uses_old, below })
    }

    fn message(&mut self, rule: &Rule, variables: &[(String, Type)], path: &str) -> Option<Program> {
        if rule.message_expression.is_empty() {
            return None;
        }
        let field = format!("{path}.messageExpression");
        match program(&rule.message_expression, variables, TypeKind::String) {
            Ok(program) => {
                let cost = program.estimated_cost();
                if cost > RULE_LIMIT {
                    let detail = too_expensive("estimated messageExpression cost", cost, RULE_LIMIT);
                    self.forbid(field.clone(), detail);
                }
                self.observe(&field, cost);
                Some(program)
            }
            Err(error) => {
                let detail = error.map_or_else(
                    || "messageExpression must evaluate to a string".to_owned(),
                    |error| format!("messageExpression {error}"),
                );
                self.invalid(field, &go_syntax(rule), &detail);
                None
            }
        }
    }

    fn estimate(&mut self, program: &Program, place: &Place, declared: &Declared, field: &str) {
        // Where nothing else bounds them, a request holds so many values.
        let most = place.most.unwrap_or(MAX_REQUEST / (declared.min_size + 1));
        let cost = program.estimated_cost().saturating_mul(most);
        if cost > RULE_LIMIT {
            self.forbid(field.to_owned(), too_expensive("estimated rule cost", cost, RULE_LIMIT));
        }
        self.observe(field, cost);
    }

    fn observe(&mut self, field: &str, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((field.to_owned(), cost));
        }
    }
}

/// Compiles an expression that has to result in a type; the error is none where it results in another one.
fn program(
    expression: &str,
    variables: &[(String, Type)],
    kind: TypeKind,
) -> Result<Program, Option<String>> {
    let program = Program::compile(expression, variables);
    let program = program.map_err(|error| Some(format!("compilation failed: {error}")))?;
    let result = &program.result().kind;
    match (kind, result) {
        (TypeKind::Bool, TypeKind::Bool) | (TypeKind::String, TypeKind::String) => Ok(program),
        _ => Err(None),
    }
}

/// `None` is no bound.
fn product(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a?.saturating_mul(b?))
}

fn too_expensive(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as Kubernetes shows it in errors.
fn go_syntax(rule: &Rule) -> String {
    let reason = match rule.reason.as_str() {
        "" => "(*apiextensions.FieldValueErrorReason)(nil)".to_owned(),
        reason => format!("(*apiextensions.FieldValueErrorReason)({reason:?})"),
    };
    let optional = if rule.optional_old_self { "true" } else { "nil" };
    format!(
        "apiextensions.ValidationRule{{Rule:{:?}, Message:{:?}, MessageExpression:{:?}, Reason:{reason}, \
         FieldPath:{:?}, OptionalOldSelf:(*bool)({optional})}}",
        rule.rule, rule.message, rule.message_expression, rule.field_path
    )
}

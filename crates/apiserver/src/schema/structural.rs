//! Structural schemas: `openAPIV3Schema` of a CustomResourceDefinition, read once into a tree.
//!
//! A schema is *structural* when pruning, defaulting and server-side apply can follow it without evaluating its
//! conditions: every field that a condition (`allOf`, `anyOf`, `oneOf`, `not`) speaks of is also described outside of
//! it, with its type. Kubernetes serves structural schemas only; [`check`] says what is wrong with others.

mod check;
mod defaults;
mod formats;
mod prune;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub use check::check;
pub use defaults::{drop_nulls, fill};
pub use prune::prune_object;
pub use validate::validate;

/// The JSON type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// An object, of named properties or of any keys.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
}

impl Type {
    const ALL: [Self; 6] =
        [Self::Object, Self::Array, Self::String, Self::Integer, Self::Number, Self::Boolean];

    /// Its name in schemas.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a value is of this type. A number without a fraction is an integer, however it is written.
    pub fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Object, Value::Object(_))
            | (Self::Array, Value::Array(_))
            | (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_)) => true,
            (Self::Integer, Value::Number(n)) => {
                n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|n| n.fract() == 0.0)
            }
            _ => false,
        }
    }
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Items {
    /// They are not: the list is one value.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By the values of these keys.
    Map(Vec<String>),
}

/// Values that an object may have beyond its named properties.
#[derive(Debug, Default)]
pub enum Additional {
    /// None that are known.
    #[default]
    None,
    /// Any (`additionalProperties: true`).
    Any,
    /// Any key, with a value of this schema.
    Of(Box<Structural>),
}

/// A rule in CEL (`x-kubernetes-validations`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// The message where it does not hold.
    pub message: String,
    /// An expression that makes the message; it is preferred to `message`.
    pub message_expression: String,
    /// `FieldValueInvalid` unless another reason is named.
    pub reason: String,
    /// The field that is blamed, relative to where the rule stands; empty for that place itself.
    pub field_path: String,
    /// The rule is evaluated without an old value, too, which is optional in it.
    pub optional_old_self: bool,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub struct Structural {
    /// The type; none within conditions and where any type will do.
    pub kind: Option<Type>,
    /// The name given as type where it is none of the known ones.
    pub unknown_type: Option<String>,
    /// `null` is a value.
    pub nullable: bool,
    /// The value that is filled in where there is none.
    pub default: Option<Value>,
    /// Named properties.
    pub properties: BTreeMap<String, Structural>,
    /// Other properties.
    pub additional: Additional,
    /// Items of a list.
    pub items: Option<Box<Structural>>,
    /// Fields that are not described are kept.
    pub preserves_unknown: bool,
    /// The value is a Kubernetes object of its own.
    pub embedded: bool,
    /// The value is an integer or text.
    pub int_or_string: bool,
    /// How items of a list are told apart.
    pub list: Items,
    /// Server-side apply owns the object as a whole.
    pub atomic_map: bool,
    /// Rules in CEL.
    pub rules: Vec<Rule>,
    /// Bounds of the value.
    pub limits: Limits,
    /// All of these hold.
    pub all_of: Vec<Structural>,
    /// At least one of these holds.
    pub any_of: Vec<Structural>,
    /// Exactly one of these holds.
    pub one_of: Vec<Structural>,
    /// This does not hold.
    pub not: Option<Box<Structural>>,
    /// Fields of JSON Schema that Kubernetes does not serve, as the definition names them.
    pub forbidden: Vec<&'static str>,
}

/// Bounds of a value.
#[derive(Debug, Default)]
pub struct Limits {
    /// A format by name, like `date-time`; names that are not known are kept for documentation only.
    pub format: Option<String>,
    /// A regular expression that a part of the text matches.
    pub pattern: Option<Pattern>,
    /// The only values there are.
    pub values: Option<Vec<Value>>,
    /// The largest number, and whether it is excluded itself.
    pub maximum: Option<(f64, bool)>,
    /// The smallest number, and whether it is excluded itself.
    pub minimum: Option<(f64, bool)>,
    /// A number of which the value is a multiple.
    pub multiple_of: Option<f64>,
    /// Characters of a text.
    pub max_length: Option<u64>,
    /// Characters of a text.
    pub min_length: Option<u64>,
    /// Items of a list.
    pub max_items: Option<u64>,
    /// Items of a list.
    pub min_items: Option<u64>,
    /// No item is there twice.
    pub unique_items: bool,
    /// Keys of an object.
    pub max_properties: Option<u64>,
    /// Keys of an object.
    pub min_properties: Option<u64>,
    /// Properties that must be there.
    pub required: Vec<String>,
}

/// A regular expression with its text; `None` where the text is not one.
#[derive(Debug)]
pub struct Pattern {
    /// As it was written.
    pub text: String,
    /// Compiled. Its size is bounded by `regex`'s own default of 10 MiB, and it matches in linear time.
    pub regex: Option<Regex>,
}

/// Fields of JSON Schema that a structural schema must not have.
const FORBIDDEN: [&str; 9] = [
    "$ref",
    "$schema",
    "id",
    "definitions",
    "dependencies",
    "patternProperties",
    "additionalItems",
    "deprecated",
    "discriminator",
];

impl Structural {
    /// Reads a decoded `JSONSchemaProps`. What has a wrong form was refused when the definition was decoded and is
    /// passed over.
    pub fn read(props: &Value) -> Self {
        let named = |field: &str| match &props[field] {
            Value::Object(map) => {
                map.iter().map(|(name, schema)| (name.clone(), Self::read(schema))).collect()
            }
            _ => BTreeMap::new(),
        };
        let list = |field: &str| props[field].as_array().into_iter().flatten().map(Self::read).collect();
        let text = |field: &str| props[field].as_str().filter(|text| !text.is_empty());
        let is = |field: &str| props[field] == true;
        let kind = text("type");
        Self {
            kind: kind.and_then(Type::find),
            unknown_type: kind.filter(|name| Type::find(name).is_none()).map(str::to_owned),
            nullable: is("nullable"),
            default: props.get("default").cloned(),
            properties: named("properties"),
            additional: match props.get("additionalProperties") {
                Some(schema @ Value::Object(_)) => Additional::Of(Box::new(Self::read(schema))),
                Some(Value::Bool(true)) => Additional::Any,
                _ => Additional::None,
            },
            items: props
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| Box::new(Self::read(items))),
            preserves_unknown: is("x-kubernetes-preserve-unknown-fields"),
            embedded: is("x-kubernetes-embedded-resource"),
            int_or_string: is("x-kubernetes-int-or-string"),
            list: match text("x-kubernetes-list-type") {
                Some("set") => Items::Set,
                Some("map") => Items::Map(texts(&props["x-kubernetes-list-map-keys"])),
                _ => Items::Atomic,
            },
            atomic_map: text("x-kubernetes-map-type") == Some("atomic"),
            rules: props["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
                .map(Rule::read)
                .collect(),
            limits: Limits::read(props),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: props.get("not").filter(|not| not.is_object()).map(|not| Box::new(Self::read(not))),
            forbidden: FORBIDDEN.into_iter().filter(|field| props.get(field).is_some()).collect(),
        }
    }

    /// The schema of a property; `None` for one that is not described.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::None | Additional::Any => None,
        })
    }

    /// Whether any rule in CEL is in it.
    pub fn has_rules(&self) -> bool {
        let below = self.properties.values().chain(self.items.as_deref());
        let below = below.chain(match &self.additional {
            Additional::Of(schema) => Some(&**schema),
            Additional::None | Additional::Any => None,
        });
        !self.rules.is_empty() || below.into_iter().any(Self::has_rules)
    }
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule["optionalOldSelf"] == true,
        }
    }
}

impl Limits {
    fn read(props: &Value) -> Self {
        let count = |field: &str| props[field].as_i64().map(|n| u64::try_from(n).unwrap_or(0));
        let bound = |field: &str, excluded: &str| props[field].as_f64().map(|n| (n, props[excluded] == true));
        let text = |field: &str| props[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            format: text("format"),
            pattern: text("pattern").map(|text| Pattern { regex: Regex::new(&text).ok(), text }),
            values: props["enum"].as_array().cloned(),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: props["multipleOf"].as_f64(),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: props["uniqueItems"] == true,
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts(&props["required"]),
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

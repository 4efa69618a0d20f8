//! Whether a schema is structural, in Kubernetes' words.

use serde_json::Value;

use super::{Additional, Items, Structural, Type, defaults, prune, validate};
use crate::schema::{FieldError, Reason};

/// Errors that are reported of one schema; the first ones show what is wrong.
const MAX_ERRORS: usize = 50;

/// The errors of a schema that is not structural; `path` is its own, like `spec.validation.openAPIV3Schema`. `props` is
/// what it was read from.
pub fn check(schema: &Structural, props: &Value, path: &str) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new() };
    if schema.kind != Some(Type::Object) {
        let found = schema.kind.map_or("", Type::name);
        match found.is_empty() && schema.unknown_type.is_none() {
            true => check.required(format!("{path}.type"), "must not be empty at the root"),
            false => {
                check.invalid(format!("{path}.type"), &format!("{found:?}"), "must be object at the root");
            }
        }
    }
    if schema.nullable {
        check.forbidden(format!("{path}.nullable"), "nullable cannot be true at the root");
    }
    check.node(schema, props, path, Place::Root);
    check.metadata(schema, path);
    if check.errors.is_empty() {
        check.default_values(schema, path);
    }
    check.errors.truncate(MAX_ERRORS);
    check.errors
}

/// The position of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Items,
    Additional,
}

impl Place {
    fn untyped(self) -> &'static str {
        match self {
            Self::Root => "must not be empty at the root",
            Self::Property => "must not be empty for specified object fields",
            Self::Items => "must not be empty for specified array items",
            Self::Additional => "must not be empty for specified object fields",
        }
    }
}

struct Check {
    errors: Vec<FieldError>,
}

impl Check {
    fn add(&mut self, field: String, reason: Reason, message: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError { field, reason, message });
        }
    }

    fn required(&mut self, field: String, detail: &str) {
        self.add(field, Reason::Required, format!("Required value: {detail}"));
    }

    fn invalid(&mut self, field: String, value: &str, detail: &str) {
        self.add(field, Reason::Invalid, format!("Invalid value: {value}: {detail}"));
    }

    fn forbidden(&mut self, field: String, detail: &str) {
        self.add(field, Reason::Forbidden, format!("Forbidden: {detail}"));
    }

    /// The part of a schema outside of conditions.
    fn node(&mut self, schema: &Structural, props: &Value, path: &str, place: Place) {
        self.served_fields(schema, props, path);
        self.typed(schema, path, place);
        self.extensions(schema, path);
        let all_properties = !schema.properties.is_empty();
        if all_properties && !matches!(schema.additional, Additional::None) {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.forbidden(format!("{path}.additionalProperties"), detail);
        }
        for (name, property) in &schema.properties {
            let path = format!("{path}.properties[{name}]");
            self.node(property, &props["properties"][name], &path, Place::Property);
        }
        if let Additional::Of(values) = &schema.additional {
            let path = format!("{path}.additionalProperties");
            self.node(values, &props["additionalProperties"], &path, Place::Additional);
        }
        if let Some(items) = &schema.items {
            self.node(items, &props["items"], &format!("{path}.items"), Place::Items);
        }
        for (condition, at) in conditions(schema, path) {
            self.condition(condition, Some(schema), &at, path);
        }
    }

    /// Fields of JSON Schema that are not served in a schema.
    fn served_fields(&mut self, schema: &Structural, props: &Value, path: &str) {
        for field in &schema.forbidden {
            self.forbidden(format!("{path}.{field}"), &format!("{field} is not supported"));
        }
        if props["items"].is_array() {
            let detail = "items must be a schema object and not an array";
            self.forbidden(format!("{path}.items"), detail);
        }
        if props["additionalProperties"] == false {
            let detail = "additionalProperties cannot be set to false";
            self.forbidden(format!("{path}.additionalProperties"), detail);
        }
        if props["x-kubernetes-preserve-unknown-fields"] == false {
            let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.invalid(field, "false", "must be true or undefined");
        }
        self.limits(schema, path);
    }

    fn limits(&mut self, schema: &Structural, path: &str) {
        if schema.limits.unique_items {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(format!("{path}.uniqueItems"), detail);
        }
        if let Some(pattern) = schema.limits.pattern.as_ref().filter(|pattern| pattern.regex.is_none()) {
            let value = format!("{:?}", pattern.text);
            self.invalid(format!("{path}.pattern"), &value, "must be a valid regular expression");
        }
    }

    fn typed(&mut self, schema: &Structural, path: &str, place: Place) {
        if let Some(unknown) = &schema.unknown_type {
            let names = Type::ALL.map(|kind| format!("\"{}\"", kind.name())).join(", ");
            let message = format!("Unsupported value: {unknown:?}: supported values: {names}");
            return self.add(format!("{path}.type"), Reason::NotSupported, message);
        }
        match schema.kind {
            Some(_) if schema.int_or_string => {
                let detail = "must be empty if x-kubernetes-int-or-string is true";
                self.forbidden(format!("{path}.type"), detail);
            }
            None if place != Place::Root && !schema.int_or_string && !schema.preserves_unknown => {
                self.required(format!("{path}.type"), place.untyped());
            }
            _ => {}
        }
        let only_for = [
            (Type::Object, !schema.properties.is_empty(), "properties"),
            (Type::Array, schema.items.is_some(), "items"),
        ];
        for (kind, given, field) in only_for {
            if given && schema.kind.is_some_and(|found| found != kind) {
                let detail = format!("must be empty if type is not {}", kind.name());
                self.forbidden(format!("{path}.{field}"), &detail);
            }
        }
        if schema.kind == Some(Type::Array) && schema.items.is_none() && !schema.preserves_unknown {
            self.required(format!("{path}.items"), "must be specified");
        }
    }

    fn extensions(&mut self, schema: &Structural, path: &str) {
        if schema.embedded {
            if schema.kind != Some(Type::Object) {
                let found = format!("{:?}", schema.kind.map_or("", Type::name));
                let detail = "must be object if x-kubernetes-embedded-resource is true";
                self.invalid(format!("{path}.type"), &found, detail);
            }
            if schema.properties.is_empty() && !schema.preserves_unknown {
                let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.required(format!("{path}.properties"), detail);
            }
        }
        self.list_type(schema, path);
        if schema.atomic_map && schema.kind != Some(Type::Object) {
            let detail = "must be object if x-kubernetes-map-type is specified";
            self.invalid(
                format!("{path}.type"),
                &format!("{:?}", schema.kind.map_or("", Type::name)),
                detail,
            );
        }
    }

    fn list_type(&mut self, schema: &Structural, path: &str) {
        let is_list = schema.kind == Some(Type::Array);
        let Some(items) = schema.items.as_deref().filter(|_| is_list) else {
            if schema.list != Items::Atomic {
                let found = format!("{:?}", schema.kind.map_or("", Type::name));
                let detail = "must be array if x-kubernetes-list-type is specified";
                self.invalid(format!("{path}.type"), &found, detail);
            }
            return;
        };
        match &schema.list {
            Items::Atomic => {}
            Items::Set => {
                let granular = match items.kind {
                    Some(Type::Object) => !items.atomic_map,
                    Some(Type::Array) => items.list != Items::Atomic,
                    _ => false,
                };
                if granular {
                    let detail = "items of a set must be scalars, atomic maps or atomic lists";
                    self.invalid(format!("{path}.items"), "\"granular\"", detail);
                }
                if items.nullable {
                    let detail = "cannot be nullable when x-kubernetes-list-type is set";
                    self.forbidden(format!("{path}.items.nullable"), detail);
                }
            }
            Items::Map(keys) => self.list_keys(items, keys, path),
        }
    }

    fn list_keys(&mut self, items: &Structural, keys: &[String], path: &str) {
        let field = format!("{path}.x-kubernetes-list-map-keys");
        if keys.is_empty() {
            self.required(field, "must not be empty if x-kubernetes-list-type is map");
            return;
        }
        if items.kind != Some(Type::Object) {
            let found = format!("{:?}", items.kind.map_or("", Type::name));
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(format!("{path}.items.type"), &found, detail);
        }
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].contains(key) {
                let message = format!("Duplicate value: {key:?}");
                self.add(format!("{field}[{at}]"), Reason::Duplicate, message);
            }
            match items.properties.get(key) {
                None => {
                    let detail = "entries must all be names of item properties";
                    self.invalid(format!("{field}[{at}]"), &format!("{key:?}"), detail);
                }
                Some(property) => {
                    if matches!(property.kind, Some(Type::Object | Type::Array)) {
                        let kind = property.kind.map_or("", Type::name);
                        let field = format!("{path}.items.properties[{key}].type");
                        let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        self.invalid(field, &format!("{kind:?}"), detail);
                    }
                    if property.default.is_none() && !items.limits.required.contains(key) {
                        let field = format!("{path}.items.properties[{key}].default");
                        let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                                      required property";
                        self.required(field, detail);
                    }
                }
            }
        }
    }

    /// A condition speaks of values only, and of nothing that is not described outside of it (`structure`).
    fn condition(
        &mut self,
        condition: &Structural,
        structure: Option<&Structural>,
        path: &str,
        outside: &str,
    ) {
        let structure = match structure {
            Some(structure) => structure,
            None => return self.required(outside.to_owned(), &format!("because it is defined in {path}")),
        };
        let types_allowed = structure.int_or_string;
        if let Some(kind) = condition.kind.filter(|_| !types_allowed) {
            let detail = format!("must be empty to be structural, but is {:?}", kind.name());
            self.forbidden(format!("{path}.type"), &detail);
        }
        let structural = [
            (condition.nullable, "nullable"),
            (condition.default.is_some(), "default"),
            (!matches!(condition.additional, Additional::None), "additionalProperties"),
            (condition.preserves_unknown, "x-kubernetes-preserve-unknown-fields"),
            (condition.embedded, "x-kubernetes-embedded-resource"),
            (condition.int_or_string, "x-kubernetes-int-or-string"),
        ];
        for (_, field) in structural.into_iter().filter(|(given, _)| *given) {
            self.forbidden(format!("{path}.{field}"), "must be undefined to be structural");
        }
        for field in &condition.forbidden {
            self.forbidden(format!("{path}.{field}"), &format!("{field} is not supported"));
        }
        self.limits(condition, path);
        for (name, property) in &condition.properties {
            let outside = format!("{outside}.properties[{name}]");
            let known = structure.property(name);
            // Any field may be there, with any value.
            if known.is_none() && structure.preserves_unknown {
                continue;
            }
            self.condition(property, known, &format!("{path}.properties[{name}]"), &outside);
        }
        if let Some(items) = &condition.items {
            let outside = format!("{outside}.items");
            self.condition(items, structure.items.as_deref(), &format!("{path}.items"), &outside);
        }
        for (inner, at) in conditions(condition, path) {
            self.condition(inner, Some(structure), &at, outside);
        }
    }

    /// `metadata` is every object's own; a definition may only bound its names.
    fn metadata(&mut self, schema: &Structural, path: &str) {
        let Some(metadata) = schema.properties.get("metadata") else { return };
        let path = format!("{path}.properties[metadata]");
        if metadata.kind.is_some_and(|kind| kind != Type::Object) {
            let found = format!("{:?}", metadata.kind.map_or("", Type::name));
            self.invalid(format!("{path}.type"), &found, "must be object");
        }
        let only_names = metadata.properties.keys().all(|name| name == "name" || name == "generateName");
        if !only_names || metadata.default.is_some() || !matches!(metadata.additional, Additional::None) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(path, detail);
        }
    }

    /// Defaults are values of their schemas, without fields that would be pruned.
    fn default_values(&mut self, schema: &Structural, path: &str) {
        if let Some(default) = &schema.default {
            let field = format!("{path}.default");
            let mut value = default.clone();
            let unknown = prune::prune(schema, &mut value);
            if !unknown.is_empty() {
                let detail = format!("must not have unknown fields, but has {}", unknown.join(", "));
                self.invalid(field.clone(), &default.to_string(), &detail);
            }
            defaults::fill(schema, &mut value);
            let errors = validate::validate(schema, &value, &field);
            for error in errors {
                self.add(error.field, error.reason, error.message);
            }
        }
        for (name, property) in &schema.properties {
            self.default_values(property, &format!("{path}.properties[{name}]"));
        }
        if let Additional::Of(values) = &schema.additional {
            self.default_values(values, &format!("{path}.additionalProperties"));
        }
        if let Some(items) = &schema.items {
            self.default_values(items, &format!("{path}.items"));
        }
    }
}

/// The conditions that stand in a schema, each with its path.
fn conditions<'a>(schema: &'a Structural, path: &str) -> Vec<(&'a Structural, String)> {
    let lists = [("allOf", &schema.all_of), ("anyOf", &schema.any_of), ("oneOf", &schema.one_of)];
    let mut found = Vec::new();
    for (name, list) in lists {
        found.extend(list.iter().enumerate().map(|(at, schema)| (schema, format!("{path}.{name}[{at}]"))));
    }
    found.extend(schema.not.as_deref().map(|not| (not, format!("{path}.not"))));
    found
}

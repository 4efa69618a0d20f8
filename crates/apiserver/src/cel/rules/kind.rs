//! The type of the objects of a kind, of whatever origin its schema is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::declare::{Declared, Parts, declare};
use super::escape::escape;
use crate::cel::types::{DYN, Field, ObjectType, Type, TypeKind};
use crate::schema::structural::{Additional, Structural};
use crate::schema::{Inner, Kind, Message, Shape, message};

/// The type of a kind's objects; `None` where it has no schema.
pub fn declare_kind(kind: &Kind) -> Option<Type> {
    if kind.form.is_some_and(|form| form.schema().is_some()) {
        // The table has the fields of the stored version.
        return None;
    }
    let Some(custom) = &kind.custom else { return Some(of_message(message(kind.message)?, &mut Vec::new())) };
    if custom.written().is_empty() {
        return None;
    }
    let declared = of_schema(custom.schema(), true, &kind.kind)?;
    let TypeKind::Object(object) = &declared.kind.kind else { return Some(declared.kind) };
    // Of its metadata a schema says little or nothing, and it is that of all objects.
    let fields = object.fields.values().map(|field| (field.name.as_str(), field.kind.clone()));
    let meta = message("meta.v1.ObjectMeta").map(|meta| of_message(meta, &mut Vec::new()));
    let fields = fields.filter(|(name, _)| *name != "metadata").chain(meta.map(|meta| ("metadata", meta)));
    Some(object_type(&kind.kind, fields))
}

/// The type of a schema with all its parts. What may hold more than the schema says is of any type.
fn of_schema(schema: &Structural, is_resource: bool, name: &str) -> Option<Declared> {
    if schema.preserves_unknown && !is_resource {
        return Some(Declared { kind: DYN.clone(), min_size: 1 });
    }
    let mut parts = Parts::default();
    for (property, below) in &schema.properties {
        let declared = of_schema(below, below.embedded, &format!("{name}.{property}"));
        parts.properties.extend(declared.map(|declared| (property.clone(), declared)));
    }
    let values = match &schema.additional {
        Additional::Of(values) => Some(&**values),
        Additional::None | Additional::Any => schema.items.as_deref(),
    };
    parts.item = values.and_then(|values| of_schema(values, values.embedded, &format!("{name}.@idx")));
    declare(schema, &parts, is_resource, name)
}

/// The type of a built-in message; within itself it is of any type. `above` are the messages that this one is within.
fn of_message(of: &'static Message, above: &mut Vec<&'static str>) -> Type {
    if of.union || above.contains(&of.name) {
        return DYN.clone();
    }
    above.push(of.name);
    let mut fields: Vec<(&str, Type)> = Vec::new();
    for field in of.fields() {
        let value = of_value(field.inner, above);
        fields.push((
            field.name,
            match field.shape {
                Shape::Single => value,
                Shape::List => Type::list(value),
                Shape::Map => Type::map(Type::of(TypeKind::String), value),
            },
        ));
    }
    above.pop();
    if of.typed {
        fields.extend(["apiVersion", "kind"].map(|name| (name, Type::of(TypeKind::String))));
    }
    object_type(of.short_name(), fields.into_iter())
}

fn of_value(inner: Inner, above: &mut Vec<&'static str>) -> Type {
    match inner {
        Inner::Bool => Type::of(TypeKind::Bool),
        Inner::Int32 | Inner::Int64 => Type::of(TypeKind::Int),
        Inner::Double => Type::of(TypeKind::Double),
        Inner::String => Type::of(TypeKind::String),
        Inner::Strings => Type::list(Type::of(TypeKind::String)),
        Inner::Bytes => Type::of(TypeKind::Bytes),
        Inner::Time | Inner::MicroTime => Type::of(TypeKind::Timestamp),
        // Written as numbers or as text.
        Inner::Quantity | Inner::IntOrString | Inner::Any => DYN.clone(),
        Inner::Message(reference) => of_message(reference.get(), above),
    }
}

/// An object of fields by their names in JSON. Those that are words of the language are known under both names.
fn object_type<'f>(name: &str, fields: impl Iterator<Item = (&'f str, Type)>) -> Type {
    let mut by_name = BTreeMap::new();
    for (name, kind) in fields {
        if let Some(escaped) = escape(name).filter(|escaped| escaped != name) {
            by_name.insert(escaped, Field { name: name.to_owned(), kind: kind.clone() });
        }
        by_name.insert(name.to_owned(), Field { name: name.to_owned(), kind });
    }
    Type::of(TypeKind::Object(Arc::new(ObjectType::new(name.to_owned(), by_name))))
}

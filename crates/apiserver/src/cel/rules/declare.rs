//! Types of expressions from structural schemas.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::escape::escape;
use crate::cel::types::{DYN, Field, Identity, ListType, MapType, ObjectType, Size, Type, TypeKind};
use crate::schema::structural::{Additional, Items, Structural, Type as SchemaType};

/// Largest request, from which sizes are estimated that schemas do not bound. It is Kubernetes' own number, whatever
/// the server takes: the same rules are to be accepted.
pub const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// A schema as expressions see it.
#[derive(Clone)]
pub struct Declared {
    /// The type of values.
    pub kind: Type,
    /// Bytes of JSON that a value has at least.
    pub min_size: u64,
}

impl Declared {
    fn new(kind: TypeKind, min_size: u64) -> Self {
        Self { kind: Type::of(kind), min_size }
    }

    fn sized(kind: TypeKind, min_size: u64, max: u64) -> Self {
        Self { kind: Type::of(kind).sized(Size::at_most(max)), min_size }
    }

    fn text() -> Self {
        Self::sized(TypeKind::String, 2, MAX_REQUEST - 2)
    }
}

/// The declarations of a schema's parts, as far as expressions see them.
#[derive(Default)]
pub struct Parts {
    /// Properties by their name in JSON.
    pub properties: BTreeMap<String, Declared>,
    /// Items of a list, or values of a map.
    pub item: Option<Declared>,
}

/// Declares a schema of which the parts are declared. `None` where expressions do not see values of it.
pub fn declare(schema: &Structural, parts: &Parts, is_resource: bool, name: &str) -> Option<Declared> {
    if schema.int_or_string {
        let max = schema.limits.max_length.map_or(MAX_REQUEST - 2, |length| length.saturating_mul(4));
        return Some(Declared { kind: DYN.clone().sized(Size::at_most(max)), min_size: 1 });
    }
    match schema.kind? {
        SchemaType::Boolean => Some(Declared::new(TypeKind::Bool, 4)),
        SchemaType::Integer => Some(Declared::new(TypeKind::Int, 1)),
        SchemaType::Number => Some(Declared::new(TypeKind::Double, 1)),
        SchemaType::String => Some(text(schema)),
        SchemaType::Array => list(schema, parts.item.as_ref()?),
        SchemaType::Object if matches!(schema.additional, Additional::Of(_)) && !is_resource => {
            map(schema, parts.item.as_ref()?)
        }
        SchemaType::Object => Some(object(schema, parts, is_resource, name)),
    }
}

fn text(schema: &Structural) -> Declared {
    let unbounded = MAX_REQUEST - 2;
    let max_length = schema.limits.max_length;
    match schema.limits.format.as_deref() {
        Some("byte") => Declared::sized(TypeKind::Bytes, 2, max_length.unwrap_or(unbounded)),
        Some("duration") => Declared::new(TypeKind::Duration, 3),
        Some("date") => Declared::new(TypeKind::Timestamp, 12),
        Some("date-time") => Declared::new(TypeKind::Timestamp, 21),
        _ => {
            let longest = schema.limits.values.as_ref().map(|values| {
                values
                    .iter()
                    .filter_map(|value| value.as_str())
                    .map(|text| text.len() as u64)
                    .max()
                    .unwrap_or(0)
            });
            // A character is four bytes at most.
            let max = max_length.map(|length| length.saturating_mul(4)).or(longest).unwrap_or(unbounded);
            Declared::sized(TypeKind::String, 2, max)
        }
    }
}

fn list(schema: &Structural, item: &Declared) -> Option<Declared> {
    let identity = match &schema.list {
        Items::Atomic => Identity::Position,
        Items::Set => Identity::Value,
        Items::Map(keys) => {
            Identity::Keys(keys.iter().map(|key| escape(key).unwrap_or_else(|| key.clone())).collect())
        }
    };
    let max = schema.limits.max_items.unwrap_or((MAX_REQUEST - 2) / (item.min_size + 1));
    Some(Declared::sized(TypeKind::List(Arc::new(ListType { item: item.kind.clone(), identity })), 2, max))
}

fn map(schema: &Structural, value: &Declared) -> Option<Declared> {
    // A key takes six bytes at least, with its quotes, colon and comma.
    let max = schema.limits.max_properties.unwrap_or((MAX_REQUEST - 2) / (value.min_size + 6));
    // Kubernetes takes keys to be empty where it estimates.
    let key = Type::of(TypeKind::String).sized(Size::at_most(0));
    let kind = MapType { key, value: value.kind.clone() };
    Some(Declared::sized(TypeKind::Map(Arc::new(kind)), 2, max))
}

fn object(schema: &Structural, parts: &Parts, is_resource: bool, name: &str) -> Declared {
    let mut properties = parts.properties.clone();
    if is_resource {
        declare_meta(schema, &mut properties, name);
    }
    let mut min_size = 2;
    let mut fields = BTreeMap::new();
    for (name, declared) in properties {
        let has_default = schema.properties.get(&name).is_some_and(|property| property.default.is_some());
        if schema.limits.required.contains(&name) && !has_default {
            min_size += name.len() as u64 + declared.min_size + 4;
        }
        if let Some(escaped) = escape(&name) {
            fields.insert(escaped, Field { name, kind: declared.kind });
        }
    }
    let size = Size::at_most(fields.len() as u64);
    let kind = TypeKind::Object(Arc::new(ObjectType::new(name.to_owned(), fields)));
    Declared { kind: Type::of(kind).sized(size), min_size }
}

/// `apiVersion`, `kind`, `metadata.name` and `metadata.generateName` of a resource are always there for rules, and
/// nothing else of its metadata.
fn declare_meta(schema: &Structural, properties: &mut BTreeMap<String, Declared>, name: &str) {
    let is_text = |schema: Option<&Structural>| schema.is_some_and(|s| s.kind == Some(SchemaType::String));
    let meta = schema.properties.get("metadata");
    let is_declared = is_text(schema.properties.get("kind"))
        && is_text(schema.properties.get("apiVersion"))
        && meta.is_some_and(|meta| {
            is_text(meta.properties.get("name")) && is_text(meta.properties.get("generateName"))
        });
    if is_declared {
        return;
    }
    for field in ["kind", "apiVersion"] {
        properties.insert(field.to_owned(), Declared::text());
    }
    let texts = ["name", "generateName"].map(|name| (name.to_owned(), Declared::text().kind));
    let fields = texts.into_iter().map(|(name, kind)| (name.clone(), Field { name, kind })).collect();
    let meta = TypeKind::Object(Arc::new(ObjectType::new(format!("{name}.metadata"), fields)));
    let kind = Type::of(meta).sized(Size::at_most(2));
    properties.insert("metadata".to_owned(), Declared { kind, min_size: 2 });
}

//! `meta.k8s.io/v1` Tables: the columns that kubectl prints. Pure over objects as JSON and the time.

pub(crate) mod format;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::schema::{Kind, Name};

/// The part of its object that each row carries; the `includeObject` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; empty is `Metadata`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Metadata" => Self::Metadata,
            "None" => Self::None,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

/// A column of a Table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) name: Name,
    /// `integer`, `number`, `string`, `boolean` or `date`.
    pub(crate) kind: Name,
    /// `format`, like `int64` or `name`.
    pub(crate) format: Name,
    /// Description of the column.
    pub(crate) description: Name,
    /// 0: always shown; more: with `-o wide`.
    pub(crate) priority: i64,
}

impl Column {
    pub(crate) const NAME: Self =
        Self::new("Name", ["string", "name"], 0, "The name of the object, unique within its namespace.");
    pub(crate) const AGE: Self =
        Self::new("Age", ["string", ""], 0, "The time since the object was created.");

    /// A column of text.
    pub(crate) const fn text(name: &'static str) -> Self {
        Self::new(name, ["string", ""], 0, "")
    }

    /// A column of text for `-o wide`.
    pub(crate) const fn wide(name: &'static str) -> Self {
        Self::new(name, ["string", ""], 1, "")
    }

    /// A column of numbers.
    pub(crate) const fn integer(name: &'static str) -> Self {
        Self::new(name, ["integer", ""], 0, "")
    }

    const fn new(
        name: &'static str,
        [kind, format]: [&'static str; 2],
        priority: i64,
        description: &'static str,
    ) -> Self {
        Self {
            name: Name::Borrowed(name),
            kind: Name::Borrowed(kind),
            format: Name::Borrowed(format),
            description: Name::Borrowed(description),
            priority,
        }
    }
}

/// `columnDefinitions` of the kind's Tables.
pub fn columns(kind: &Kind) -> Value {
    let column = |c: &Column| {
        json!({
            "name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority,
        })
    };
    kind.strategy().columns().iter().map(column).collect()
}

/// One entry of `rows`.
pub fn row(kind: &Kind, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells = kind.strategy().cells(object, now);
    match include {
        IncludeObject::None => json!({"cells": cells}),
        IncludeObject::Metadata => json!({
            "cells": cells,
            "object": {
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            },
        }),
        IncludeObject::Object => json!({"cells": cells, "object": object}),
    }
}

/// A whole Table. `metadata` is the list's (or, for a single object, its `resourceVersion`); `with_columns` is false for
/// every watch event but the first.
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: IncludeObject,
    now: Timestamp,
    with_columns: bool,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|o| row(kind, o, include, now)).collect();
    let columns = if with_columns { columns(kind) } else { Value::Array(Vec::new()) };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns,
        "rows": rows,
    })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

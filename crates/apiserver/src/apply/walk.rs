//! Walking objects along the schema: which fields they have, what differs, merging and pruning.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, is_member, step_text};
use crate::schema::structural::{Additional, Items, Structural, Type};
use crate::schema::{Field, Kind, ListType, Message, Shape, message};

/// How a value is owned.
#[derive(Clone, Copy)]
pub enum View<'s> {
    /// Field by field.
    Object(Fields<'s>),
    /// Entry by entry.
    Map(Values<'s>),
    /// Item by item, told apart by keys.
    Keyed(Keys<'s>, Values<'s>),
    /// Value by value.
    Set,
    /// As a whole.
    Leaf,
}

/// Description of the fields of an object.
#[derive(Clone, Copy)]
pub enum Fields<'s> {
    /// The table of fields. Without a type every field is a leaf.
    Table(Option<&'static Message>),
    /// The schema of a custom kind. With `true` the object is one with metadata of its own.
    Structural(&'s Structural, bool),
    /// Nothing: objects are owned field by field as deep as they go, lists as a whole.
    Unknown,
}

/// Description of the values of a map or list.
#[derive(Clone, Copy)]
pub enum Values<'s> {
    Table(&'static Field),
    Structural(&'s Structural),
}

/// The keys that tell the items of a list apart.
#[derive(Clone, Copy)]
pub enum Keys<'s> {
    Table(&'static [&'static str]),
    Structural(&'s [String]),
}

impl<'s> Keys<'s> {
    fn sorted(self) -> Vec<&'s str> {
        let mut keys: Vec<&str> = match self {
            Self::Table(keys) => keys.to_vec(),
            Self::Structural(keys) => keys.iter().map(String::as_str).collect(),
        };
        keys.sort_unstable();
        keys
    }
}

impl<'s> View<'s> {
    /// The view of a kind's objects.
    pub fn of(kind: &'s Kind) -> Self {
        Self::Object(match &kind.custom {
            Some(custom) => Fields::Structural(custom.schema(), true),
            None => Fields::Table(message(kind.message)),
        })
    }

    /// The view of objects of which nothing is known but that they have metadata.
    pub fn untyped() -> Self {
        static NOTHING: LazyLock<Structural> = LazyLock::new(Structural::default);
        Self::of_object(&NOTHING)
    }

    /// The view of objects of a custom kind in a version with this schema.
    pub fn of_object(schema: &'s Structural) -> Self {
        Self::Object(Fields::Structural(schema, true))
    }

    fn of_field(field: &'static Field) -> Self {
        let values = Values::Table(field);
        match (field.shape, field.list_type) {
            (_, ListType::Atomic) => Self::Leaf,
            (Shape::Map, _) => Self::Map(values),
            (Shape::List, ListType::Map(keys)) => Self::Keyed(Keys::Table(keys), values),
            (Shape::List, ListType::Set) => Self::Set,
            (Shape::List, _) => Self::Leaf,
            (Shape::Single, _) => values.view(),
        }
    }

    fn of_schema(schema: &'s Structural) -> Self {
        let is_object = schema.kind == Some(Type::Object);
        match (&schema.list, &schema.additional) {
            _ if schema.atomic_map => Self::Leaf,
            (Items::Set, _) => Self::Set,
            (Items::Map(keys), _) => match &schema.items {
                Some(items) => Self::Keyed(Keys::Structural(keys), Values::Structural(items)),
                None => Self::Leaf,
            },
            (_, Additional::Of(values)) => Self::Map(Values::Structural(values)),
            _ if is_object && !schema.properties.is_empty() => {
                Self::Object(Fields::Structural(schema, schema.embedded))
            }
            _ if is_object || schema.preserves_unknown => Self::Object(Fields::Unknown),
            _ => Self::Leaf,
        }
    }

    /// The view of a field of this object or map, and whether it is a declared field that is always there in Go, so
    /// that only what it holds is owned.
    fn child(self, name: &str) -> (Self, bool) {
        match self {
            Self::Object(Fields::Table(message)) => match message.and_then(|m| m.field(name)) {
                Some(field) => {
                    let view = Self::of_field(field);
                    (view, matches!(view, View::Object(_)) && !field.keeps_zero)
                }
                None => (Self::Leaf, false),
            },
            Self::Object(Fields::Structural(_, true)) if name == "metadata" => {
                (Self::Object(Fields::Table(message("meta.v1.ObjectMeta"))), true)
            }
            Self::Object(Fields::Structural(_, true)) if matches!(name, "apiVersion" | "kind") => {
                (Self::Leaf, false)
            }
            Self::Object(Fields::Structural(schema, _)) => match schema.property(name) {
                Some(property) => (Self::of_schema(property), false),
                None => (Self::Object(Fields::Unknown), false),
            },
            Self::Object(Fields::Unknown) => (self, false),
            Self::Map(values) => (values.view(), false),
            _ => (Self::Leaf, false),
        }
    }
}

impl<'s> Values<'s> {
    /// The view of one value.
    fn view(self) -> View<'s> {
        match self {
            Self::Table(field) => match field.inner.message() {
                Some(message) if !message.atomic => View::Object(Fields::Table(Some(message))),
                _ => View::Leaf,
            },
            Self::Structural(schema) => View::of_schema(schema),
        }
    }

    /// The value that a key has where an item does not say.
    fn key_default(self, key: &str) -> Option<Value> {
        match self {
            Self::Table(_) => (key == "protocol").then(|| "TCP".into()),
            Self::Structural(schema) => schema.properties.get(key)?.default.clone(),
        }
    }
}

/// `k:{"containerPort":80,"protocol":"TCP"}`: keys in order, with the defaults that they have.
fn keyed_step(keys: Keys<'_>, of: Values<'_>, item: &Value) -> String {
    let mut found = Map::new();
    for key in keys.sorted() {
        if let Some(value) = item.get(key).cloned().or_else(|| of.key_default(key)) {
            found.insert(key.to_owned(), value);
        }
    }
    format!("k:{}", Value::Object(found))
}

/// Adds the fields of `value` to `set`. With `inner`, objects that are not always there, maps and lists own their own
/// path too, as after a plain write; an apply owns only what it mentions.
pub fn fields(view: View<'_>, value: &Value, set: &mut FieldSet, inner: bool) {
    match (view, value) {
        (View::Object(_) | View::Map(_), Value::Object(object)) => {
            for (key, value) in object {
                let (child, always_there) = view.child(key);
                let mut below = FieldSet::default();
                fields(child, value, &mut below, inner);
                let member = below.is_empty()
                    || matches!(view, View::Map(_))
                    || (inner && !always_there && !matches!(child, View::Leaf));
                set.insert(&format!("f:{key}"), below, member);
            }
        }
        (View::Keyed(keys, of), Value::Array(items)) => {
            for item in items {
                let mut below = FieldSet::default();
                fields(of.view(), item, &mut below, inner);
                set.insert(&keyed_step(keys, of, item), below, true);
            }
        }
        (View::Set, Value::Array(items)) => {
            for item in items {
                set.insert(&format!("v:{item}"), FieldSet::default(), true);
            }
        }
        _ => {}
    }
}

/// The differences between two objects.
#[derive(Default)]
pub struct Changes {
    pub added: FieldSet,
    pub changed: FieldSet,
    pub removed: FieldSet,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Adds what changed below a step.
    pub fn insert(&mut self, step: &str, below: Changes) {
        self.added.insert(step, below.added, false);
        self.changed.insert(step, below.changed, false);
        self.removed.insert(step, below.removed, false);
    }
}

/// The differences of `new` from `old`; metadata that the server keeps itself should have been taken out of both.
pub fn compare(view: View<'_>, old: &Value, new: &Value) -> Changes {
    let mut changes = Changes::default();
    compare_values(view, old, new, &mut changes);
    changes
}

/// The differences in those fields of an object that `counts` accepts.
pub fn compare_fields(
    view: View<'_>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    counts: impl Fn(&str) -> bool,
) -> Changes {
    let mut changes = Changes::default();
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    for key in keys.filter(|key| counts(key)) {
        let (child, always_there) = view.child(key);
        let step = || format!("f:{key}");
        compare_one(step, child, always_there, (old.get(key), new.get(key)), &mut changes);
    }
    changes
}

/// Whether the value itself, rather than something in it, is different.
fn compare_values(view: View<'_>, old: &Value, new: &Value, changes: &mut Changes) -> bool {
    match (view, old, new) {
        (View::Object(_) | View::Map(_), Value::Object(old), Value::Object(new)) => {
            *changes = compare_fields(view, old, new, |_| true);
            false
        }
        (View::Keyed(keys, of), Value::Array(old), Value::Array(new)) => {
            let steps = |items: &[Value]| items.iter().map(|i| keyed_step(keys, of, i)).collect();
            compare_items(of.view(), (old, steps(old)), (new, steps(new)), changes);
            false
        }
        (View::Set, Value::Array(old), Value::Array(new)) => {
            let steps = |items: &[Value]| items.iter().map(|i| format!("v:{i}")).collect();
            compare_items(View::Leaf, (old, steps(old)), (new, steps(new)), changes);
            false
        }
        _ => old != new,
    }
}

fn compare_items(
    view: View<'_>,
    (old, old_steps): (&[Value], Vec<String>),
    (new, new_steps): (&[Value], Vec<String>),
    changes: &mut Changes,
) {
    let (in_old, in_new) = (places(&old_steps), places(&new_steps));
    for (item, step) in old.iter().zip(&old_steps) {
        let now = in_new.get(step.as_str()).map(|at| &new[*at]);
        compare_one(|| step.clone(), view, false, (Some(item), now), changes);
    }
    for (item, step) in new.iter().zip(&new_steps) {
        if !in_old.contains_key(step.as_str()) {
            compare_one(|| step.clone(), view, false, (None, Some(item)), changes);
        }
    }
}

/// Where each step is first.
fn places(steps: &[String]) -> HashMap<&str, usize> {
    let mut places = HashMap::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        places.entry(step.as_str()).or_insert(at);
    }
    places
}

/// `step` is only written where something is different, which is rare.
fn compare_one(
    step: impl Fn() -> String,
    view: View<'_>,
    always_there: bool,
    values: (Option<&Value>, Option<&Value>),
    changes: &mut Changes,
) {
    let all = |value: &Value| {
        let mut below = FieldSet::default();
        fields(view, value, &mut below, true);
        let member = below.is_empty() || !always_there;
        (below, member)
    };
    match values {
        (Some(old), Some(new)) => {
            let mut below = Changes::default();
            let itself = compare_values(view, old, new, &mut below);
            if itself || !below.is_empty() {
                changes.added.insert(&step(), below.added, false);
                changes.removed.insert(&step(), below.removed, false);
                changes.changed.insert(&step(), below.changed, itself);
            }
        }
        (None, Some(new)) => {
            let (below, member) = all(new);
            changes.added.insert(&step(), below, member);
        }
        (Some(old), None) => {
            let (below, member) = all(old);
            changes.removed.insert(&step(), below, member);
        }
        (None, None) => {}
    }
}

/// Merges an applied configuration into the live object.
pub fn merge(view: View<'_>, live: &mut Value, config: &Value) {
    match (view, &mut *live, config) {
        (View::Object(_) | View::Map(_), Value::Object(live), Value::Object(config)) => {
            for (key, value) in config {
                match live.get_mut(key) {
                    Some(current) => merge(view.child(key).0, current, value),
                    None => {
                        live.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (View::Keyed(keys, of), Value::Array(live), Value::Array(config)) => {
            merge_items(live, config, of.view(), |item| keyed_step(keys, of, item));
        }
        (View::Set, Value::Array(live), Value::Array(config)) => {
            merge_items(live, config, View::Leaf, |item| format!("v:{item}"));
        }
        _ => live.clone_from(config),
    }
}

/// The items of both lists, told apart by their steps. As in Kubernetes, those of the configuration are in its order, and an
/// item that only the live list has comes as soon as what stands before it there has come.
fn merge_items(live: &mut Vec<Value>, config: &[Value], view: View<'_>, step: impl Fn(&Value) -> String) {
    let old = std::mem::take(live);
    let steps = |items: &[Value]| items.iter().map(&step).collect::<Vec<String>>();
    let (old_steps, new_steps) = (steps(&old), steps(config));
    let (in_old, in_new) = (places(&old_steps), places(&new_steps));
    let mut shared = new_steps.iter().filter(|step| in_old.contains_key(step.as_str())).peekable();
    let mut merged: HashSet<&str> = HashSet::new();
    let (mut from, mut next) = (0, 0);
    while from < old.len() || next < config.len() {
        if let Some(step) = old_steps.get(from) {
            let is_shared = in_new.contains_key(step.as_str());
            let is_due = new_steps.get(next) == Some(step);
            if !is_shared {
                live.push(old[from].clone());
                from += 1;
                continue;
            }
            // Another shared item comes first: this one waits for its place in the configuration.
            if !is_due && (merged.contains(step.as_str()) || shared.peek().is_some_and(|due| *due != step)) {
                from += 1;
                continue;
            }
        }
        let (Some(item), Some(step)) = (config.get(next), new_steps.get(next)) else {
            from += 1;
            continue;
        };
        let found = in_old.get(step.as_str()).map(|at| &old[*at]);
        live.push(found.map_or_else(
            || item.clone(),
            |found| {
                let mut found = found.clone();
                merge(view, &mut found, item);
                found
            },
        ));
        merged.insert(step);
        shared.next_if(|due| *due == step);
        next += 1;
    }
}

/// Removes what `gone` names, unless something that `kept` names is within. A field of a type goes with what was below
/// it: defaults that were filled in beside that belong to nobody, and make no sense without it.
pub fn prune(view: View<'_>, value: &mut Value, gone: &FieldSet, kept: &FieldSet) {
    prune_below(view, value, &gone.0, &kept.0);
}

fn prune_below(view: View<'_>, value: &mut Value, gone: &Map<String, Value>, kept: &Map<String, Value>) {
    let nothing = Map::new();
    let steps: Vec<String> = match (view, &*value) {
        (View::Keyed(keys, of), Value::Array(items)) => {
            items.iter().map(|i| keyed_step(keys, of, i)).collect()
        }
        (View::Set, Value::Array(items)) => items.iter().map(|i| format!("v:{i}")).collect(),
        _ => Vec::new(),
    };
    let places = places(&steps);
    // Items that go, by their steps.
    let mut leaving: HashSet<&str> = HashSet::new();
    for (step, below) in gone {
        let Value::Object(below) = below else { continue };
        let kept = kept.get(step).and_then(Value::as_object);
        // With `kept` below it, only what is gone within goes.
        let is_field = matches!(view, View::Object(_));
        let whole = (is_field || is_member(below)) && kept.is_none();
        let inside = |view: View<'_>, value: &mut Value| {
            let was_empty = is_empty(value);
            prune_below(view, value, below, kept.unwrap_or(&nothing));
            !was_empty && is_empty(value)
        };
        match (view, &mut *value) {
            (View::Object(_) | View::Map(_), Value::Object(object)) => {
                let Some(name) = step.strip_prefix("f:") else { continue };
                let child = view.child(name).0;
                let Some(current) = object.get_mut(name) else { continue };
                if whole || (inside(child, current) && kept.is_none()) {
                    object.shift_remove(name);
                }
            }
            (View::Keyed(_, of), Value::Array(items)) => {
                let Some(&at) = places.get(step.as_str()) else { continue };
                if whole {
                    leaving.insert(&steps[at]);
                } else {
                    inside(of.view(), &mut items[at]);
                }
            }
            (View::Set, Value::Array(_)) if whole => _ = leaving.insert(step),
            _ => {}
        }
    }
    if let (false, Value::Array(items)) = (leaving.is_empty(), value) {
        let mut steps = steps.iter();
        items.retain(|_| steps.next().is_none_or(|step| !leaving.contains(step.as_str())));
    }
}

/// The first item of a list that another item of it cannot be told from, with the list's path: such a list has no
/// meaning in a configuration that is applied, since it does not say which of them is owned.
pub fn duplicate(view: View<'_>, value: &Value, path: &str) -> Option<String> {
    let below = |step: &str, view: View<'_>, value: &Value| {
        duplicate(view, value, &format!("{path}{}", step_text(step)))
    };
    let twice = |step: &str| match step_text(step) {
        key if step.starts_with("k:") => format!("{path}: duplicate entries for key {key}"),
        key => format!("{path}: duplicate entry {key}"),
    };
    let mut seen = HashSet::new();
    match (view, value) {
        (View::Object(_) | View::Map(_), Value::Object(object)) => {
            object.iter().find_map(|(key, value)| below(&format!("f:{key}"), view.child(key).0, value))
        }
        (View::Keyed(keys, of), Value::Array(items)) => items.iter().find_map(|item| {
            let step = keyed_step(keys, of, item);
            let found = below(&step, of.view(), item);
            found.or_else(|| (!seen.insert(step.clone())).then(|| twice(&step)))
        }),
        (View::Set, Value::Array(items)) => items.iter().find_map(|item| {
            let step = format!("v:{item}");
            (!seen.insert(step.clone())).then(|| twice(&step))
        }),
        _ => None,
    }
}

/// The paths of all lists and objects in a configuration that are owned as a whole.
pub fn atomics(view: View<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let mut below = |step: &str, view: View<'_>, value: &Value| {
        let length = path.len();
        path.push_str(step);
        atomics(view, value, path, found);
        path.truncate(length);
    };
    match (view, value) {
        (View::Object(_) | View::Map(_), Value::Object(object)) => {
            for (key, value) in object {
                below(&format!(".{key}"), view.child(key).0, value);
            }
        }
        (View::Keyed(_, of), Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                below(&format!("[{at}]"), of.view(), item);
            }
        }
        (View::Leaf, Value::Object(_) | Value::Array(_)) => found.push(path.clone()),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

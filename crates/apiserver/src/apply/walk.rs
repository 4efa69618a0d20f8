//! Walking objects along the schema: which fields they have, what differs, merging and pruning.

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, is_member};
use crate::schema::{Field, ListType, Message, Shape};

/// How a value is owned.
#[derive(Clone, Copy)]
pub enum View {
    /// Field by field; without a type every field is a leaf.
    Object(Option<&'static Message>),
    /// Entry by entry.
    Map(&'static Field),
    /// Item by item, told apart by these keys.
    Keyed(&'static [&'static str], &'static Field),
    /// Value by value.
    Set,
    /// As a whole.
    Leaf,
}

fn view_of(field: &'static Field) -> View {
    match (field.shape, field.list_type) {
        (_, ListType::Atomic) => View::Leaf,
        (Shape::Map, _) => View::Map(field),
        (Shape::List, ListType::Map(keys)) => View::Keyed(keys, field),
        (Shape::List, ListType::Set) => View::Set,
        (Shape::List, _) => View::Leaf,
        (Shape::Single, _) => value_view(field),
    }
}

/// The view of one value: a field's only one, or an item of its list or map.
fn value_view(field: &'static Field) -> View {
    match field.inner.message() {
        Some(message) if !message.atomic => View::Object(Some(message)),
        _ => View::Leaf,
    }
}

impl View {
    /// The view of a field of this object or map, and whether it is a declared field that is always there in Go, so
    /// that only what it holds is owned.
    fn child(self, name: &str) -> (View, bool) {
        match self {
            Self::Object(message) => match message.and_then(|m| m.field(name)) {
                Some(field) => {
                    let view = view_of(field);
                    (view, matches!(view, View::Object(_)) && !field.keeps_zero)
                }
                None => (View::Leaf, false),
            },
            Self::Map(field) => (value_view(field), false),
            _ => (View::Leaf, false),
        }
    }
}

/// `k:{"containerPort":80,"protocol":"TCP"}`: keys in order, with the one default that a key has.
fn keyed_step(keys: &[&str], item: &Value) -> String {
    let mut sorted: Vec<&str> = keys.to_vec();
    sorted.sort_unstable();
    let mut found = Map::new();
    for key in sorted {
        match item.get(key) {
            Some(value) => {
                found.insert(key.to_owned(), value.clone());
            }
            None if key == "protocol" => {
                found.insert(key.to_owned(), "TCP".into());
            }
            None => {}
        }
    }
    format!("k:{}", Value::Object(found))
}

/// Adds the fields of `value` to `set`. With `inner`, objects that are not always there, maps and lists own their own
/// path too, as after a plain write; an apply owns only what it mentions.
pub fn fields(view: View, value: &Value, set: &mut FieldSet, inner: bool) {
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
        (View::Keyed(keys, field), Value::Array(items)) => {
            for item in items {
                let mut below = FieldSet::default();
                fields(value_view(field), item, &mut below, inner);
                set.insert(&keyed_step(keys, item), below, true);
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

/// What differs between two objects.
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

/// What is different in `new`; metadata that the server keeps itself should have been taken out of both.
pub fn compare(view: View, old: &Value, new: &Value) -> Changes {
    let mut changes = Changes::default();
    compare_values(view, old, new, &mut changes);
    changes
}

/// What is different in those fields of an object that `counts` accepts.
pub fn compare_fields(
    view: View,
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
fn compare_values(view: View, old: &Value, new: &Value, changes: &mut Changes) -> bool {
    match (view, old, new) {
        (View::Object(_) | View::Map(_), Value::Object(old), Value::Object(new)) => {
            *changes = compare_fields(view, old, new, |_| true);
            false
        }
        (View::Keyed(keys, field), Value::Array(old), Value::Array(new)) => {
            let steps = |items: &[Value]| items.iter().map(|i| keyed_step(keys, i)).collect();
            compare_items(value_view(field), (old, steps(old)), (new, steps(new)), changes);
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
    view: View,
    (old, old_steps): (&[Value], Vec<String>),
    (new, new_steps): (&[Value], Vec<String>),
    changes: &mut Changes,
) {
    for (item, step) in old.iter().zip(&old_steps) {
        let now = new_steps.iter().position(|s| s == step).map(|at| &new[at]);
        compare_one(|| step.clone(), view, false, (Some(item), now), changes);
    }
    for (item, step) in new.iter().zip(&new_steps) {
        if !old_steps.contains(step) {
            compare_one(|| step.clone(), view, false, (None, Some(item)), changes);
        }
    }
}

/// `step` is only written where something is different, which is rare.
fn compare_one(
    step: impl Fn() -> String,
    view: View,
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
pub fn merge(view: View, live: &mut Value, config: &Value) {
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
        (View::Keyed(keys, field), Value::Array(live), Value::Array(config)) => {
            let same = |a: &Value, b: &Value| keyed_step(keys, a) == keyed_step(keys, b);
            merge_items(live, config, value_view(field), same);
        }
        (View::Set, Value::Array(live), Value::Array(config)) => {
            merge_items(live, config, View::Leaf, |a, b| a == b);
        }
        _ => live.clone_from(config),
    }
}

/// The configuration's items in its order; those that only the live list has keep their place before the items that
/// stood behind them.
fn merge_items(live: &mut Vec<Value>, config: &[Value], view: View, same: impl Fn(&Value, &Value) -> bool) {
    let mut named: Vec<(Option<usize>, Value)> = Vec::with_capacity(config.len());
    for item in config {
        match live.iter().position(|l| same(l, item)) {
            Some(at) => {
                let mut merged = live[at].clone();
                merge(view, &mut merged, item);
                named.push((Some(at), merged));
            }
            None => named.push((None, item.clone())),
        }
    }
    let is_named = |at: usize| named.iter().any(|(from, _)| *from == Some(at));
    let others: Vec<(usize, Value)> =
        std::mem::take(live).into_iter().enumerate().filter(|(at, _)| !is_named(*at)).collect();
    let mut others = others.into_iter().peekable();
    for (from, item) in named {
        while let Some((_, other)) = others.next_if(|(at, _)| from.is_some_and(|from| *at < from)) {
            live.push(other);
        }
        live.push(item);
    }
    live.extend(others.map(|(_, other)| other));
}

/// Removes what `gone` names, unless something that `kept` names is within. A field of a type goes with what was below
/// it: defaults that were filled in beside that belong to nobody, and make no sense without it.
pub fn prune(view: View, value: &mut Value, gone: &FieldSet, kept: &FieldSet) {
    prune_below(view, value, &gone.0, &kept.0);
}

fn prune_below(view: View, value: &mut Value, gone: &Map<String, Value>, kept: &Map<String, Value>) {
    let nothing = Map::new();
    for (step, below) in gone {
        let Value::Object(below) = below else { continue };
        let kept = kept.get(step).and_then(Value::as_object);
        // With `kept` below it, only what is gone within goes.
        let is_field = matches!(view, View::Object(_));
        let whole = (is_field || is_member(below)) && kept.is_none();
        let inside = |view: View, value: &mut Value| {
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
            (View::Keyed(keys, field), Value::Array(items)) => {
                let Some(at) = items.iter().position(|item| keyed_step(keys, item) == *step) else {
                    continue;
                };
                if whole {
                    items.remove(at);
                } else {
                    inside(value_view(field), &mut items[at]);
                }
            }
            (View::Set, Value::Array(items)) if whole => {
                items.retain(|item| format!("v:{item}") != *step);
            }
            _ => {}
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

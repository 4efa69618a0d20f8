//! Walking objects along the schema: which fields they have, what differs, merging and pruning.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, is_member, step_text};
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
            merge_items(live, config, value_view(field), |item| keyed_step(keys, item));
        }
        (View::Set, Value::Array(live), Value::Array(config)) => {
            merge_items(live, config, View::Leaf, |item| format!("v:{item}"));
        }
        _ => live.clone_from(config),
    }
}

/// The configuration's items in its order; those that only the live list has keep their place before the items that
/// stood behind them.
fn merge_items(live: &mut Vec<Value>, config: &[Value], view: View, step: impl Fn(&Value) -> String) {
    let steps: Vec<String> = live.iter().map(&step).collect();
    let places = places(&steps);
    let mut named: Vec<(Option<usize>, Value)> = Vec::with_capacity(config.len());
    for item in config {
        match places.get(step(item).as_str()) {
            Some(&at) => {
                let mut merged = live[at].clone();
                merge(view, &mut merged, item);
                named.push((Some(at), merged));
            }
            None => named.push((None, item.clone())),
        }
    }
    let is_named: HashSet<usize> = named.iter().filter_map(|(from, _)| *from).collect();
    let others: Vec<(usize, Value)> =
        std::mem::take(live).into_iter().enumerate().filter(|(at, _)| !is_named.contains(at)).collect();
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
    let steps: Vec<String> = match (view, &*value) {
        (View::Keyed(keys, _), Value::Array(items)) => items.iter().map(|i| keyed_step(keys, i)).collect(),
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
            (View::Keyed(_, field), Value::Array(items)) => {
                let Some(&at) = places.get(step.as_str()) else { continue };
                if whole {
                    leaving.insert(&steps[at]);
                } else {
                    inside(value_view(field), &mut items[at]);
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
pub fn duplicate(view: View, value: &Value, path: &str) -> Option<String> {
    let below =
        |step: &str, view: View, value: &Value| duplicate(view, value, &format!("{path}{}", step_text(step)));
    let twice = |step: &str| match step_text(step) {
        key if step.starts_with("k:") => format!("{path}: duplicate entries for key {key}"),
        key => format!("{path}: duplicate entry {key}"),
    };
    let mut seen = HashSet::new();
    match (view, value) {
        (View::Object(_) | View::Map(_), Value::Object(object)) => {
            object.iter().find_map(|(key, value)| below(&format!("f:{key}"), view.child(key).0, value))
        }
        (View::Keyed(keys, field), Value::Array(items)) => items.iter().find_map(|item| {
            let step = keyed_step(keys, item);
            let found = below(&step, value_view(field), item);
            found.or_else(|| (!seen.insert(step.clone())).then(|| twice(&step)))
        }),
        (View::Set, Value::Array(items)) => items.iter().find_map(|item| {
            let step = format!("v:{item}");
            (!seen.insert(step.clone())).then(|| twice(&step))
        }),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

//! Server-side apply: who owns which field, and what an apply of a few fields makes of an object.
//!
//! An object's `metadata.managedFields` says for each manager which fields it set last. An apply merges its
//! configuration into the live object, removes what the same manager applied before and no longer mentions, and fails
//! where it would change what others own. Every other write takes over the fields that it changes.

mod fieldset;
mod managers;
mod versions;
mod walk;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::schema::{Kind, message};
use fieldset::FieldSet;
use managers::{Managers, Operation};
pub use versions::Conversions;
use versions::VersionedChanges;
use walk::{Changes, Fields, View};

/// `Content-Type` of an apply in YAML (or JSON, which is YAML).
pub const APPLY_YAML: &str = "application/apply-patch+yaml";

/// Field manager and timestamp recorded in managedFields.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager: the `fieldManager` parameter, else the user agent up to its first `/`.
    pub manager: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// Now.
    pub time: Timestamp,
    /// What is needed to compare objects in the versions of other managers.
    pub conversions: Option<&'a Conversions>,
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as in `"kubectl" using apps/v1`.
    pub owner: String,
    /// The field, like `.spec.replicas`.
    pub field: String,
}

/// Why an apply fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that it would change: 409 `Conflict`, with one cause `FieldManagerConflict` per conflict.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration cannot be applied: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.owner, only.field);
    }
    let mut lines = Vec::new();
    let mut last_owner = "";
    for conflict in conflicts {
        if conflict.owner != last_owner {
            lines.push(format!("conflicts with {}:", conflict.owner));
            last_owner = &conflict.owner;
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The `details.causes` of the Status for these conflicts.
pub fn conflict_causes(conflicts: &[Conflict]) -> Value {
    let cause = |c: &Conflict| {
        let message = format!("conflict with {}", c.owner);
        json!({"reason": "FieldManagerConflict", "message": message, "field": c.field})
    };
    conflicts.iter().map(cause).collect()
}

/// Applies `config` by `writer` to `live` (`None`: it does not exist yet) and returns the object. It carries new
/// `managedFields`; with `force` the writer takes over what others own. Where nothing changes, the result equals `live`
/// (times of managers too), so that the caller can skip the write. Defaults are not filled in: pass `config` decoded but
/// not defaulted, and default the result.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    if config["metadata"].get("managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(ApplyError::Malformed("metadata.managedFields must be nil".into()));
    }
    let view = View::of(kind);
    if let Some(twice) = walk::duplicate(view, config, "") {
        let text = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
        return Err(ApplyError::Malformed(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {twice}",
            text("namespace"),
            text("name"),
            kind.api_version(),
            kind.kind
        )));
    }
    let identity = |key: &str| (key.to_owned(), config[key].clone());
    let mut merged = live.cloned().unwrap_or_else(|| {
        Value::Object(["apiVersion", "kind", "metadata"].map(identity).into_iter().collect())
    });
    let config = writable(kind, config, writer.subresource);
    let set = owned_fields(view, &config);
    let mut managers = live.map(Managers::of).unwrap_or_default();
    if let Some(live) = live
        && managers.is_empty()
    {
        let all = owned_fields(view, &writable(kind, live, ""));
        managers.set("before-first-apply", Operation::Update, &kind.api_version(), "", all, writer.time);
    }
    let key = (writer.manager, Operation::Apply, writer.subresource);
    let last = managers.take(key);
    let others = managers.union();

    walk::merge(view, &mut merged, &config);
    // No manager owns the name, and still it stays where all else in the metadata goes.
    let name = FieldSet::read(&json!({"f:metadata": {"f:name": {}}}));
    let kept = others.union(&set).union(&name);
    if let Some(last) = &last {
        walk::prune(view, &mut merged, &last.fields.minus(&kept), &kept);
    }
    let empty = json!({});
    let changes = walk::compare(view, live.unwrap_or(&empty), &merged);
    let is_unchanged = changes.is_empty();
    if let Some(live) = live {
        let changes = VersionedChanges::of(kind, &managers, changes, (live, &merged), writer.conversions);
        let conflicts = managers.conflicts(&changes);
        if !conflicts.is_empty() && !force {
            return Err(ApplyError::Conflicts(conflicts));
        }
        managers.release(&changes);
    }
    let is_same = is_unchanged && last.as_ref().is_some_and(|last| last.fields == set);
    let time = last.filter(|_| is_same).map_or_else(|| managers::time_text(writer.time), |last| last.time);
    managers.put(writer.manager, Operation::Apply, &kind.api_version(), writer.subresource, set, time);
    if let Some(live) = live
        && is_same
        && managers.same_as(&Managers::of(live))
    {
        return Ok(live.clone());
    }
    managers.write_to(&mut merged);
    Ok(merged)
}

/// Merges a configuration into an object without an owner of what it sets, as admission policies do. Without a kind, lists are
/// taken to be owned as a whole.
///
/// # Errors
/// In Kubernetes' words, where a list says an item twice, or where something that is owned as a whole would be replaced: what the
/// configuration does not mention of it would be lost.
pub fn merge_configuration(kind: Option<&Kind>, object: &mut Value, config: &Value) -> Result<(), String> {
    let view = kind.map_or_else(View::untyped, View::of);
    if let Some(twice) = walk::duplicate(view, config, "") {
        return Err(format!("failed to convert patch object to typed object: {twice}"));
    }
    let mut atomics = Vec::new();
    walk::atomics(view, config, &mut String::new(), &mut atomics);
    if !atomics.is_empty() {
        let all = atomics.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {all}"
        ));
    }
    walk::merge(view, object, config);
    Ok(())
}

/// Brings `managedFields` of `new` up to date after any write that is no apply: what changed since `old` is owned by
/// `writer` from now on. `new` should be defaulted already. A `new` whose `managedFields` is `[{}]` resets ownership, as
/// Kubernetes does; one that lacks them keeps those of `old`.
pub fn track_update(kind: &Kind, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let given = new["metadata"].get("managedFields").and_then(Value::as_array);
    let is_reset =
        given.is_some_and(|entries| matches!(entries.as_slice(), [Value::Object(o)] if o.is_empty()));
    let mut managers = match (given, old) {
        _ if is_reset => Managers::default(),
        (Some(entries), _) if !entries.is_empty() => Managers::of(new),
        (_, Some(old)) => Managers::of(old),
        (_, None) => Managers::default(),
    };
    let nothing = Value::Null;
    let changes = writable_changes(kind, old.unwrap_or(&nothing), new, writer.subresource);
    if changes.is_empty()
        && !is_reset
        && given == old.and_then(|old| old["metadata"]["managedFields"].as_array())
    {
        return;
    }
    let taken = changes.added.union(&changes.changed);
    let version = kind.api_version();
    let key = (writer.manager, Operation::Update, writer.subresource);
    if !changes.is_empty() {
        let mine = managers.take_version(key, &version);
        let removed = changes.removed.clone();
        let objects = (old.unwrap_or(&nothing), &*new);
        let changes = VersionedChanges::of(kind, &managers, changes, objects, writer.conversions);
        managers.release(&changes);
        let before = mine.as_ref().map(|m| m.fields.clone()).unwrap_or_default();
        let fields = before.union(&taken).minus(&removed);
        if !fields.is_empty() {
            managers.set(
                writer.manager,
                Operation::Update,
                &version,
                writer.subresource,
                fields,
                writer.time,
            );
        }
    }
    managers.cap();
    managers.write_to(new);
}

/// The fields of a configuration, without those that no manager owns.
fn owned_fields(view: View<'_>, config: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    walk::fields(view, config, &mut set, false);
    set
}

/// Metadata that the server keeps itself.
const UNOWNED_METADATA: [&str; 11] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "clusterName",
];

/// Whether a write through this subresource can change and own the field.
fn is_writable(kind: &Kind, subresource: &str, field: &str) -> bool {
    match field {
        "apiVersion" | "kind" => false,
        "metadata" => true,
        "status" => subresource == "status" || !kind.subresources.iter().any(|s| s == "status"),
        _ => subresource != "status",
    }
}

/// The changes of such a write, computed without copying either object.
fn writable_changes(kind: &Kind, old: &Value, new: &Value, subresource: &str) -> Changes {
    static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    fn object(value: &Value) -> &Map<String, Value> {
        value.as_object().unwrap_or(&NOTHING)
    }
    let metadata = View::Object(Fields::Table(message("meta.v1.ObjectMeta")));
    let view = View::of(kind);
    let mut changes = walk::compare_fields(view, object(old), object(new), |field| {
        field != "metadata" && is_writable(kind, subresource, field)
    });
    let below = walk::compare_fields(metadata, object(&old["metadata"]), object(&new["metadata"]), |field| {
        !UNOWNED_METADATA.contains(&field)
    });
    changes.insert("f:metadata", below);
    changes
}

/// The part of an object that a write through this subresource can change and own.
fn writable(kind: &Kind, object: &Value, subresource: &str) -> Value {
    let mut part = Map::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        if !is_writable(kind, subresource, key) {
            continue;
        }
        let mut value = value.clone();
        if key == "metadata"
            && let Value::Object(metadata) = &mut value
        {
            metadata.retain(|key, _| !UNOWNED_METADATA.contains(&key.as_str()));
            if metadata.is_empty() {
                continue;
            }
        }
        part.insert(key.clone(), value);
    }
    Value::Object(part)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

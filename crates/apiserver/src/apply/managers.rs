//! The entries of `metadata.managedFields`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Conflict;
use super::fieldset::FieldSet;
use super::versions::VersionedChanges;

/// So many entries of plain writers are kept, as in Kubernetes; older ones are folded into one. Each write reads them
/// all, and a user agent that changes with every process would otherwise grow the object without end.
const MAX_UPDATERS: usize = 10;
/// The name of the entry that older ones are folded into.
const ANCIENT: &str = "ancient-changes";

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By apply: what it no longer mentions goes.
    Apply,
    /// By any other write.
    Update,
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    name: String,
    operation: Operation,
    version: String,
    subresource: String,
    /// RFC 3339, empty where it is not known.
    pub time: String,
    pub fields: FieldSet,
}

/// Key of a managedFields entry: name, operation, subresource.
type Key<'a> = (&'a str, Operation, &'a str);

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub struct Managers(Vec<Manager>);

/// A time as `managedFields` holds it.
pub fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Managers {
    /// Those of an object; entries that cannot be read are dropped.
    pub fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        Self(entries.into_iter().flatten().filter_map(read).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the manager's entry.
    pub fn take(&mut self, key: Key<'_>) -> Option<Manager> {
        let at = self.0.iter().position(|m| m.key() == key)?;
        Some(self.0.remove(at))
    }

    /// The same for plain writers, whose entries differ by version too.
    pub fn take_version(&mut self, key: Key<'_>, version: &str) -> Option<Manager> {
        let at = self.0.iter().position(|m| m.key() == key && m.version == version)?;
        Some(self.0.remove(at))
    }

    /// All fields that someone owns.
    pub fn union(&self) -> FieldSet {
        union(&self.0)
    }

    /// Adds an entry.
    pub fn put(
        &mut self,
        name: &str,
        operation: Operation,
        version: &str,
        subresource: &str,
        fields: FieldSet,
        time: String,
    ) {
        self.0.push(Manager {
            name: name.to_owned(),
            operation,
            version: version.to_owned(),
            subresource: subresource.to_owned(),
            time,
            fields,
        });
    }

    /// Adds an entry of now.
    pub fn set(
        &mut self,
        name: &str,
        operation: Operation,
        version: &str,
        subresource: &str,
        fields: FieldSet,
        time: Timestamp,
    ) {
        self.put(name, operation, version, subresource, fields, time_text(time));
    }

    /// The versions in which managers wrote, each once.
    pub fn versions(&self) -> BTreeSet<&str> {
        self.0.iter().map(|manager| &*manager.version).collect()
    }

    /// The managers that own some of the fields that were added or changed.
    pub fn conflicts(&self, changes: &VersionedChanges) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for manager in &self.0 {
            let owner = manager.describe();
            let changes = changes.in_version(&manager.version);
            let taken = changes.added.union(&changes.changed);
            let paths = manager.fields.intersection(&taken).paths();
            conflicts.extend(paths.into_iter().map(|field| Conflict { owner: owner.clone(), field }));
        }
        conflicts.sort_by(|a, b| (&a.owner, &a.field).cmp(&(&b.owner, &b.field)));
        conflicts
    }

    /// Takes the fields that were changed from all; managers that own nothing more go.
    pub fn release(&mut self, changes: &VersionedChanges) {
        let fields = |version: &str| {
            let changes = changes.in_version(version);
            changes.added.union(&changes.changed).union(&changes.removed)
        };
        let mut known: Option<(String, FieldSet)> = None;
        for manager in &mut self.0 {
            // Most managers of an object have one version.
            let (_, fields) = match known.take().filter(|(version, _)| *version == manager.version) {
                Some(same) => known.insert(same),
                None => known.insert((manager.version.clone(), fields(&manager.version))),
            };
            if manager.fields.meets(fields) {
                manager.fields = manager.fields.minus(fields);
            }
        }
        self.0.retain(|m| !m.fields.is_empty());
    }

    /// Folds the oldest plain writers into one entry where there are too many.
    pub fn cap(&mut self) {
        let updaters = self.0.iter().filter(|m| m.operation == Operation::Update).count();
        if updaters <= MAX_UPDATERS {
            return;
        }
        self.0.sort_by(|a, b| a.time.cmp(&b.time));
        let mut excess = updaters - MAX_UPDATERS + 1;
        let mut ancient: Vec<Manager> = Vec::new();
        self.0.retain(|manager| {
            let folded = excess > 0 && manager.operation == Operation::Update;
            if folded {
                excess -= 1;
                ancient.push(manager.clone());
            }
            !folded
        });
        if let Some(newest) = ancient.last().cloned() {
            let fields = union(&ancient);
            self.0.push(Manager { name: ANCIENT.into(), subresource: String::new(), fields, ..newest });
        }
    }

    /// Whether the entries are the same, in whatever order.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|m| other.0.contains(m))
    }

    /// Writes them into an object: appliers first, then by time.
    pub fn write_to(mut self, object: &mut Value) {
        self.0.sort_by(|a, b| {
            (a.operation, &a.time, &a.name, &a.subresource).cmp(&(
                b.operation,
                &b.time,
                &b.name,
                &b.subresource,
            ))
        });
        let Value::Object(object) = object else { return };
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(metadata) = metadata else { return };
        if self.0.is_empty() {
            metadata.shift_remove("managedFields");
        } else {
            let entries = self.0.into_iter().map(Manager::write).collect();
            metadata.insert("managedFields".into(), Value::Array(entries));
        }
    }
}

fn union(managers: &[Manager]) -> FieldSet {
    let mut all = FieldSet::default();
    for manager in managers {
        all.extend(&manager.fields);
    }
    all
}

impl Manager {
    fn key(&self) -> Key<'_> {
        (&self.name, self.operation, &self.subresource)
    }

    fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.version));
        }
        text
    }

    fn write(self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.operation == Operation::Apply { "Apply" } else { "Update" },
            "apiVersion": self.version,
        });
        if !self.time.is_empty() {
            entry["time"] = self.time.into();
        }
        entry["fieldsType"] = "FieldsV1".into();
        entry["fieldsV1"] = Value::Object(self.fields.0);
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.into();
        }
        entry
    }
}

fn read(entry: &Value) -> Option<Manager> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let operation = match entry["operation"].as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    Some(Manager {
        name: text("manager"),
        operation,
        version: text("apiVersion"),
        subresource: text("subresource"),
        time: text("time"),
        fields: FieldSet::read(&entry["fieldsV1"]),
    })
}

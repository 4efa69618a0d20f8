//! The versions of managers: each owns fields in the version in which it wrote, so that a change has to be seen in it.

use parking_lot::Mutex;
use serde_json::Value;

use super::managers::Managers;
use super::walk::{self, Changes, View};
use crate::schema::Kind;

/// Objects in other versions of their kind, as far as they are known. Only a webhook can tell them, which takes time that a
/// decision must not: what is missing is noted, converted, and the decision made anew.
#[derive(Debug, Default)]
pub struct Conversions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Version (`apiVersion`), object, and the object in that version.
    known: Vec<(String, Value, Value)>,
    wanted: Vec<(String, Value)>,
}

impl Conversions {
    /// The object in a version; `None` where that is not known yet.
    fn get(&self, version: &str, object: &Value) -> Option<Value> {
        let mut state = self.0.lock();
        let known = state.known.iter().find(|(of, from, _)| of == version && from == object);
        if let Some((_, _, converted)) = known {
            return Some(converted.clone());
        }
        state.wanted.push((version.to_owned(), object.clone()));
        None
    }

    /// What decisions missed since this was asked last: versions, and objects to convert to them.
    pub fn take_wanted(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.0.lock().wanted)
    }

    /// Adds an object in a version.
    pub fn learn(&self, version: String, object: Value, converted: Value) {
        self.0.lock().known.push((version, object, converted));
    }
}

/// The changes of a write in the versions of all managers.
pub(super) struct VersionedChanges {
    own: Changes,
    /// By version.
    others: Vec<(String, Changes)>,
}

impl VersionedChanges {
    /// `own` are the changes from `old` to `new` in the version of `kind`. Versions that differ in name only have the same.
    pub(super) fn of(
        kind: &Kind,
        managers: &Managers,
        own: Changes,
        (old, new): (&Value, &Value),
        conversions: Option<&Conversions>,
    ) -> Self {
        let versions = kind.custom.as_ref().map(|custom| &custom.versions);
        let (Some(versions), Some(conversions)) =
            (versions.filter(|versions| versions.webhook.is_some()), conversions)
        else {
            return Self { own, others: Vec::new() };
        };
        let mut others = Vec::new();
        for version in managers.versions().into_iter().filter(|version| *version != kind.api_version()) {
            let Some(schema) = versions.schema(version) else { continue };
            let in_version = |object: &Value| match object.is_object() {
                true => conversions.get(version, object),
                false => Some(object.clone()),
            };
            // Both are noted at once where they are missing.
            if let (Some(old), Some(new)) = (in_version(old), in_version(new)) {
                others.push((version.to_owned(), walk::compare(View::of_object(schema), &old, &new)));
            }
        }
        Self { own, others }
    }

    /// The changes in a version.
    pub(super) fn in_version(&self, version: &str) -> &Changes {
        self.others.iter().find(|(of, _)| of == version).map_or(&self.own, |(_, changes)| changes)
    }
}

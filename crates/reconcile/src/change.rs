//! The change of an object, which informers pass to indexes and queues.

use std::sync::Arc;

use yado_types::key::ObjectKey;

/// A change of an object: `old` is `None` if it was added, `new` is `None` if it was deleted.
#[derive(Clone, Debug)]
pub struct Change<K> {
    /// The object's namespace and name.
    pub key: ObjectKey,
    /// The last state that was known before.
    pub old: Option<Arc<K>>,
    /// The current state.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The current state, or the last known one of a deleted object.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

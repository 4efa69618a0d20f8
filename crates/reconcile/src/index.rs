//! Secondary indexes over the objects of an informer.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::RwLock;
use yado_types::key::ObjectKey;

use crate::change::Change;

/// A secondary index: objects by the values that a function computes from each, such as its owner, node or labels.
pub struct Index<I, K> {
    entries: RwLock<HashMap<I, BTreeMap<ObjectKey, Arc<K>>>>,
}

impl<I, K> Default for Index<I, K> {
    fn default() -> Self {
        Self { entries: RwLock::default() }
    }
}

impl<I: Clone + Eq + Hash, K> Index<I, K> {
    /// The objects with this index value, ordered by namespace and name.
    pub fn get(&self, value: &I) -> Vec<Arc<K>> {
        self.entries.read().get(value).map(|m| m.values().cloned().collect()).unwrap_or_default()
    }

    /// All index values that at least one object has, in no particular order.
    pub fn values(&self) -> Vec<I> {
        self.entries.read().keys().cloned().collect()
    }

    pub(crate) fn update(&self, change: &Change<K>, of: &impl Fn(&K) -> Vec<I>) {
        let mut entries = self.entries.write();
        for value in change.old.iter().flat_map(|old| of(old)) {
            if let Some(objects) = entries.get_mut(&value) {
                objects.remove(&change.key);
                if objects.is_empty() {
                    entries.remove(&value);
                }
            }
        }
        if let Some(new) = &change.new {
            for value in of(new) {
                entries.entry(value).or_default().insert(change.key.clone(), new.clone());
            }
        }
    }
}

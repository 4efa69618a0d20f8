//! Group commit: decides transactions one after the other, before the whole group is made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::state::{Entry, State};
use crate::transaction::within;
use crate::{Error, KeyValue, Op, Result, Revision, Txn, TxnOutcome, WatchEvent};

/// The changes of a group of transactions.
#[derive(Debug)]
pub(crate) struct Group {
    /// The store's revision before the group.
    pub(crate) base: Revision,
    /// An entry for each transaction that changes something, in order.
    pub(crate) entries: Vec<Entry>,
    /// The final state of each changed key; `None` if it is deleted.
    pub(crate) changes: BTreeMap<Arc<str>, Option<KeyValue>>,
}

impl Group {
    /// The store's revision after the group.
    pub(crate) fn revision(&self) -> Revision {
        self.base + self.entries.len() as Revision
    }
}

/// Decides transactions by the store's state and the changes of earlier transactions of the group.
pub(crate) struct Deciding<'a> {
    state: &'a State,
    group: Group,
    live_bytes: usize,
    max_bytes: usize,
}

impl<'a> Deciding<'a> {
    /// Starts an empty group. `max_bytes` limits the size of live keys and values.
    pub(crate) fn new(state: &'a State, max_bytes: usize) -> Deciding<'a> {
        let group = Group { base: state.revision(), entries: Vec::new(), changes: BTreeMap::new() };
        Deciding { state, group, live_bytes: state.live_bytes(), max_bytes }
    }

    /// The group of all transactions that were decided.
    pub(crate) fn finish(self) -> Group {
        self.group
    }

    /// The state of a key after the transactions decided so far.
    fn current(&self, key: &str) -> Option<&KeyValue> {
        match self.group.changes.get(key) {
            Some(change) => change.as_ref(),
            None => self.state.get(key),
        }
    }

    /// Decides a validated transaction and adds its changes to the group.
    pub(crate) fn decide(&mut self, txn: Txn) -> Result<TxnOutcome> {
        if !txn.compares.iter().all(|compare| compare.holds(self.current(compare.key()))) {
            let current = txn.compares.iter().map(|compare| self.current(compare.key()).cloned()).collect();
            return Ok(TxnOutcome::Conflict { current, revision: self.group.revision() });
        }
        let revision = self.group.revision() + 1;
        let events = self.events(txn.ops, revision);
        if events.is_empty() {
            return Ok(TxnOutcome::Committed { revision: self.group.revision() });
        }
        self.live_bytes = self.size_after(&events)?;
        for event in &events {
            let change = match event {
                WatchEvent::Put { kv, .. } => Some(kv.clone()),
                WatchEvent::Delete { .. } => None,
            };
            self.group.changes.insert(event.key().clone(), change);
        }
        self.group.entries.push(Entry::new(events));
        Ok(TxnOutcome::Committed { revision })
    }

    fn events(&self, ops: Vec<Op>, revision: Revision) -> Vec<WatchEvent> {
        let mut events = Vec::with_capacity(ops.len());
        let mut deleted = BTreeSet::new();
        let mut delete = |kv: &KeyValue, events: &mut Vec<WatchEvent>| {
            if deleted.insert(kv.key.clone()) {
                let key = kv.key.clone();
                events.push(WatchEvent::Delete { key, revision, previous: Some(kv.clone()) });
            }
        };
        for op in ops {
            match op {
                Op::Put { key, value } => events.push(self.put(&key, value, revision)),
                Op::Delete { key } => {
                    if let Some(kv) = self.current(&key) {
                        delete(kv, &mut events);
                    }
                }
                Op::DeleteRange { start, end } => {
                    for kv in self.current_range(&start, &end).into_values() {
                        delete(kv, &mut events);
                    }
                }
            }
        }
        events
    }

    fn put(&self, key: &str, value: bytes::Bytes, revision: Revision) -> WatchEvent {
        let previous = self.current(key).cloned();
        let kv = match &previous {
            Some(old) => KeyValue { value, mod_revision: revision, version: old.version + 1, ..old.clone() },
            None => KeyValue {
                key: key.into(),
                value,
                create_revision: revision,
                mod_revision: revision,
                version: 1,
            },
        };
        WatchEvent::Put { kv, previous }
    }

    fn current_range(&self, start: &str, end: &str) -> BTreeMap<&str, &KeyValue> {
        let mut keys: BTreeMap<&str, &KeyValue> =
            self.state.live(start, end).map(|kv| (&*kv.key, kv)).collect();
        for (key, change) in &self.group.changes {
            match change {
                Some(kv) if within(key, start, end) => keys.insert(key, kv),
                Some(_) => None,
                None => keys.remove(&**key),
            };
        }
        keys
    }

    /// The size of live keys and values after the events. Fails with [`Error::Full`] above the limit,
    /// unless the transaction does not increase the size: a full store must accept deletions.
    fn size_after(&self, events: &[WatchEvent]) -> Result<usize> {
        let added: usize = events
            .iter()
            .map(|event| match event {
                WatchEvent::Put { kv, .. } => kv.size(),
                WatchEvent::Delete { .. } => 0,
            })
            .sum();
        let removed: usize = events.iter().filter_map(WatchEvent::previous).map(KeyValue::size).sum();
        let after = self.live_bytes + added - removed;
        if added > removed && after > self.max_bytes {
            return Err(Error::Full { limit: self.max_bytes });
        }
        Ok(after)
    }
}

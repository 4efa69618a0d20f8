use std::collections::HashSet;

use bytes::Bytes;

use crate::{Error, KeyValue, Result, Revision};

/// Maximum number of operations, and of comparisons, in one transaction: etcd's default, so that both
/// stores accept the same transactions.
pub const MAX_OPS: usize = 128;

/// Maximum bytes of keys and values in one transaction: etcd's default of 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 3 << 19;

/// A condition for applying a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key exists and was last written at this revision; 0 means that it must not exist.
    ModRevision {
        /// The key to compare.
        key: String,
        /// The required [`KeyValue::mod_revision`].
        equals: Revision,
    },
}

impl Compare {
    /// The key whose revision is compared.
    pub fn key(&self) -> &str {
        let Compare::ModRevision { key, .. } = self;
        key
    }

    pub(crate) fn holds(&self, current: Option<&KeyValue>) -> bool {
        let Compare::ModRevision { equals, .. } = self;
        current.map_or(0, |kv| kv.mod_revision) == *equals
    }
}

/// A write operation. Two operations of a transaction must not touch the same key, except that deletions
/// may overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates the key or replaces its value.
    Put {
        /// The key to write.
        key: String,
        /// The value, which is stored unchanged.
        value: Bytes,
    },
    /// Deletes the key; without effect if it does not exist.
    Delete {
        /// The key to delete.
        key: String,
    },
    /// Deletes every key from `start` (inclusive) to `end` (exclusive).
    DeleteRange {
        /// Lower bound, inclusive.
        start: String,
        /// Upper bound, exclusive; empty means unbounded.
        end: String,
    },
}

/// A transaction: operations that are applied atomically if every comparison holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions, all of which must hold; without any, the operations are always applied.
    pub compares: Vec<Compare>,
    /// Operations, which cause events in this order.
    pub ops: Vec<Op>,
}

impl Txn {
    /// A transaction that creates a key, and fails with a conflict if it exists.
    pub fn create(key: impl Into<String>, value: impl Into<Bytes>) -> Txn {
        Txn::update(key, 0, value)
    }

    /// A transaction that writes a key, and fails with a conflict if it was not last written at `mod_revision` (0: if it
    /// exists).
    pub fn update(key: impl Into<String>, mod_revision: Revision, value: impl Into<Bytes>) -> Txn {
        let key = key.into();
        Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), equals: mod_revision }],
            ops: vec![Op::Put { key, value: value.into() }],
        }
    }

    /// A transaction that deletes a key, and fails with a conflict if it was not last written at `mod_revision`.
    pub fn delete(key: impl Into<String>, mod_revision: Revision) -> Txn {
        let key = key.into();
        Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), equals: mod_revision }],
            ops: vec![Op::Delete { key }],
        }
    }

    /// Total bytes of keys and values.
    pub(crate) fn size(&self) -> usize {
        let compares: usize = self.compares.iter().map(|compare| compare.key().len()).sum();
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
            Op::DeleteRange { start, end } => start.len() + end.len(),
        });
        compares + ops.sum::<usize>()
    }

    /// Checks the limits and the keys, which does not depend on the store's state.
    pub(crate) fn validate(&self) -> Result<()> {
        let within = |unit, size, limit| {
            if size > limit { Err(Error::TooLarge { unit, size, limit }) } else { Ok(()) }
        };
        within("operations", self.ops.len(), MAX_OPS)?;
        within("comparisons", self.compares.len(), MAX_OPS)?;
        within("bytes", self.size(), MAX_TXN_BYTES)?;
        let compared = self.compares.iter().map(Compare::key);
        let written = self.ops.iter().filter_map(|op| match op {
            Op::Put { key, .. } | Op::Delete { key } => Some(key.as_str()),
            Op::DeleteRange { .. } => None,
        });
        if compared.chain(written).any(str::is_empty) {
            return Err(Error::EmptyKey);
        }
        self.refuse_duplicates()
    }

    fn refuse_duplicates(&self) -> Result<()> {
        let mut put = HashSet::new();
        for op in &self.ops {
            if let Op::Put { key, .. } = op
                && !put.insert(key.as_str())
            {
                return Err(Error::DuplicateKey { key: key.clone() });
            }
        }
        let deleted_too = |key: &&str| {
            self.ops.iter().any(|op| match op {
                Op::Put { .. } => false,
                Op::Delete { key: deleted } => deleted == key,
                Op::DeleteRange { start, end } => within(key, start, end),
            })
        };
        match put.iter().find(|key| deleted_too(key)) {
            Some(key) => Err(Error::DuplicateKey { key: (*key).to_owned() }),
            None => Ok(()),
        }
    }
}

/// Whether a key is in the range from `start` (inclusive) to `end` (exclusive; empty means unbounded).
pub(crate) fn within(key: &str, start: &str, end: &str) -> bool {
    key >= start && (end.is_empty() || key < end)
}

/// The outcome of a transaction that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// The transaction was applied and is durable.
    Committed {
        /// The revision of its changes; the current revision if it changed nothing.
        revision: Revision,
    },
    /// A comparison did not hold, and nothing was changed.
    Conflict {
        /// The current state of each compared key, in the order of the comparisons; `None` if it does not exist.
        current: Vec<Option<KeyValue>>,
        /// The revision at which they were read.
        revision: Revision,
    },
}

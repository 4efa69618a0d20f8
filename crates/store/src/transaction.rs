use std::collections::HashSet;

use bytes::Bytes;

use crate::{Error, KeyValue, Result, Revision};

/// The most operations, and the most comparisons, of one transaction: etcd's default, so that what is
/// accepted here is accepted there.
pub const MAX_OPS: usize = 128;

/// The most bytes of keys and values in one transaction: etcd's default of 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 3 << 19;

/// What must hold for a transaction to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written at this revision; 0 means that it is absent.
    ModRevision {
        /// The key.
        key: String,
        /// The revision it must have.
        equals: Revision,
    },
}

impl Compare {
    /// The key that is compared.
    pub fn key(&self) -> &str {
        let Compare::ModRevision { key, .. } = self;
        key
    }

    pub(crate) fn holds(&self, current: Option<&KeyValue>) -> bool {
        let Compare::ModRevision { equals, .. } = self;
        current.map_or(0, |kv| kv.mod_revision) == *equals
    }
}

/// One change. No two operations of a transaction may write the same key, except that deletions may
/// overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates the key or replaces its value.
    Put {
        /// The key.
        key: String,
        /// The value, kept as it is.
        value: Bytes,
    },
    /// Deletes the key; no error if it is absent.
    Delete {
        /// The key.
        key: String,
    },
    /// Deletes every key from `start` to before `end`.
    DeleteRange {
        /// The first key to delete.
        start: String,
        /// The first key not to delete any more; empty means there is no end.
        end: String,
    },
}

/// Operations that are applied together if every comparison holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All of these must hold; none means always.
    pub compares: Vec<Compare>,
    /// The changes, which become events in this order.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Writes a key that must not exist.
    pub fn create(key: impl Into<String>, value: impl Into<Bytes>) -> Txn {
        Txn::update(key, 0, value)
    }

    /// Writes a key that must stand at `mod_revision` (0: be absent).
    pub fn update(key: impl Into<String>, mod_revision: Revision, value: impl Into<Bytes>) -> Txn {
        let key = key.into();
        Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), equals: mod_revision }],
            ops: vec![Op::Put { key, value: value.into() }],
        }
    }

    /// Deletes a key that must stand at `mod_revision`.
    pub fn delete(key: impl Into<String>, mod_revision: Revision) -> Txn {
        let key = key.into();
        Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), equals: mod_revision }],
            ops: vec![Op::Delete { key }],
        }
    }

    /// The bytes of all keys and values.
    pub(crate) fn size(&self) -> usize {
        let compares: usize = self.compares.iter().map(|compare| compare.key().len()).sum();
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
            Op::DeleteRange { start, end } => start.len() + end.len(),
        });
        compares + ops.sum::<usize>()
    }

    /// Checks what can be checked without looking at the store.
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

/// Whether a key lies in a range; an empty `end` means there is none.
pub(crate) fn within(key: &str, start: &str, end: &str) -> bool {
    key >= start && (end.is_empty() || key < end)
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// It was applied and is durable.
    Committed {
        /// The revision of its changes; the current one if it changed nothing.
        revision: Revision,
    },
    /// A comparison did not hold, and nothing was changed.
    Conflict {
        /// What each comparison found, in their order; `None` where the key is absent.
        current: Vec<Option<KeyValue>>,
        /// The revision they were read at.
        revision: Revision,
    },
}

//! A revisioned key-value store with etcd's data model. It has no knowledge of Kubernetes.
//!
//! [`Store`] is the interface: transactions with comparisons of revisions, ranges in key order at the
//! latest or an older revision, watches that replay from a revision, compaction. [`Embedded`] implements
//! it with all data in memory and every acknowledged write durable in one file. The trait requires
//! nothing that etcd's v3 API does not offer, so that a client of etcd can implement it too:
//!
//! | here | etcd v3 |
//! |---|---|
//! | [`Txn`]: compares, then operations | `Txn` with `success`; the failure branch gets the compared keys |
//! | [`Range::revision`] | `RangeRequest.revision` |
//! | [`Store::watch`] with `after` | `WatchCreateRequest.start_revision = after + 1`, `prev_kv` |
//! | [`Watch::progress`] | the header revision of the last response or progress notification |
//! | [`Store::compact`] | `Compact` |
//!
//! # The contract
//!
//! What every implementation keeps, and callers may rest on; `tests/contract.rs` is one suite for all of them.
//!
//! - **Order.** Committed transactions have one order, that of their revisions. A [`Txn`] is applied as a whole or not at
//!   all, and its comparisons hold at the very point of the order at which it is applied.
//! - **Durability.** What [`Store::txn`] has acknowledged survives a crash of every process involved.
//! - **Doubt.** After [`Error::InDoubt`], and after a dropped future, a transaction may have been applied. Compare with the
//!   revision that the decision rested on, and trying again is safe: it is applied at most once.
//! - **Freshness.** [`Store::latest`] is at least the revision of every transaction that was acknowledged to anybody before
//!   it was called. A cache that has reached it answers as the store would. [`Store::revision`] costs nothing and may
//!   be behind what other processes wrote.
//! - **Watches.** Each event once, in the order of revisions, those of one revision in one item. Once [`Watch::progress`]
//!   says R, all events up to R have been delivered, also where none concerned the range.
//! - **Transient errors.** Where [`Error::is_transient`] holds, the same call may succeed later: a watch is opened again
//!   after the last revision that it delivered and loses nothing, unless history was compacted meanwhile.
//! - **Compaction.** Live keys stay. What needs older history fails with [`Error::Compacted`]; it never gets a part of it.
//! - **Fencing.** A lease is a key. Who writes under it compares the lease's [`KeyValue::mod_revision`] in the same
//!   transaction: a holder that was replaced meanwhile, however late its write arrives, changes nothing.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use yado_store::{Config, Embedded, Store, Txn, TxnOutcome};
//! # let directory = tempfile::tempdir().unwrap();
//! let store = Embedded::open(Config::new(directory.path()))?;
//! let outcome = store.txn(Txn::create("/pods/a", "one")).await?;
//! assert_eq!(outcome, TxnOutcome::Committed { revision: 2 });
//! assert_eq!(store.get("/pods/a").await?.unwrap().value, "one");
//! store.close().await;
//! # Ok::<(), yado_store::Error>(())
//! # }).unwrap();
//! ```

mod embedded;
mod error;
mod range;
mod seal;
mod transaction;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use embedded::{Config, Embedded, damage_behind_panic};
pub use error::{Error, Result};
pub use range::{Range, RangeResult, key_after, prefix_end};
pub use seal::Sealing;
pub use transaction::{Compare, MAX_OPS, MAX_TXN_BYTES, Op, Txn, TxnOutcome};
pub use watch::{Watch, WatchEvent, WatchSource};

/// A point in the history of the whole store. An empty store is at 1; every transaction that changes
/// something adds 1, and all its changes carry that one number. It survives restarts.
pub type Revision = u64;

/// A key with its value and revisions. Clones share key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key. Keys are compared and sorted byte by byte.
    pub key: Arc<str>,
    /// The value, which the store does not interpret.
    pub value: Bytes,
    /// The revision that created the key (again, if it was deleted before).
    pub create_revision: Revision,
    /// The revision that last wrote the key: what a [`Compare::ModRevision`] is compared with.
    pub mod_revision: Revision,
    /// How often the key was written since it was created: 1 after creation.
    pub version: u64,
}

impl KeyValue {
    /// Bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// The store's interface; see the crate's documentation for how it maps to etcd.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies all operations if every comparison holds, and none otherwise. It returns when the change
    /// is durable and visible to reads; watches receive it.
    ///
    /// A transaction that changes nothing (no operations, or only deletions of absent keys) commits
    /// at the current revision and causes no event. Dropping the future does not cancel the transaction:
    /// it may still be applied.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome>;

    /// The latest value of a key.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>>;

    /// Lists the keys of a range in order, all as of one revision.
    /// Fails with [`Error::Compacted`] or [`Error::FutureRevision`] where that revision cannot be read.
    async fn range(&self, range: Range) -> Result<RangeResult>;

    /// Streams every event with a revision greater than `after` on keys from `start` (inclusive) to `end`
    /// (exclusive; empty means to the last key), in order and exactly once. With the revision of a
    /// [`RangeResult`] as `after`, the stream continues where the list ends. Fails with
    /// [`Error::Compacted`] if events after `after` were dropped already, and with
    /// [`Error::FutureRevision`] if `after` has not been reached.
    async fn watch(&self, start: String, end: String, after: Revision) -> Result<Watch>;

    /// Drops history: afterwards `before` is the oldest revision that can be read or watched from. Live
    /// keys stay. Compacting to a revision that is compacted already succeeds without effect; one in the
    /// future fails with [`Error::FutureRevision`].
    async fn compact(&self, before: Revision) -> Result<()>;

    /// The latest revision that this process knows of.
    fn revision(&self) -> Revision;

    /// A revision that is at least that of every transaction which was acknowledged to any process before the call. A
    /// store that one process has to itself knows it already; a remote one has to be asked.
    async fn latest(&self) -> Result<Revision> {
        Ok(self.revision())
    }

    /// Completes accepted writes, ends every watch with [`Error::Closed`] and releases files and threads.
    /// Later operations fail with [`Error::Closed`].
    async fn close(&self);
}

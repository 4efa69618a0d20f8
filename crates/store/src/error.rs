use std::path::PathBuf;

use crate::Revision;

/// What every operation of the store returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store refused or failed. Unless the text says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The history asked for was dropped. Read the latest state instead.
    #[error(
        "revision {requested} was compacted, the oldest that can be read is {oldest}: list again without a revision"
    )]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The revision has not been reached yet, as with a number from another store.
    #[error(
        "revision {requested} is in the future, the store is at {current}: list again without a revision"
    )]
    FutureRevision {
        /// The revision that was asked for.
        requested: Revision,
        /// The latest revision.
        current: Revision,
    },
    /// A watcher read too slowly and has missed events after the ones it got.
    #[error(
        "the watcher fell behind after revision {delivered} and was ended: list again and watch from there"
    )]
    Lagged {
        /// The revision of the last event the watcher got.
        delivered: Revision,
    },
    /// A key is empty.
    #[error("a transaction names an empty key: give every key at least one character")]
    EmptyKey,
    /// Two operations of one transaction touch the same key.
    #[error("the transaction touches key {key:?} more than once: split it or drop an operation")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A transaction exceeds a limit.
    #[error("the transaction has {size} {unit}, more than the limit of {limit}: make it smaller")]
    TooLarge {
        /// What was counted: `bytes`, `operations` or `comparisons`.
        unit: &'static str,
        /// How many there are.
        size: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The store has reached its configured size.
    #[error("the store holds its limit of {limit} bytes: delete something or raise the limit")]
    Full {
        /// The limit on live keys and values, in bytes.
        limit: usize,
    },
    /// The disk, or its owner's quota, is full.
    #[error("no room left on the disk of {}: free some space and try again, nothing was changed", path.display())]
    DiskFull {
        /// The database file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("cannot write {}: {reason}; check the disk and try again, nothing was changed", path.display())]
    Storage {
        /// The database file.
        path: PathBuf,
        /// What the disk or the database said.
        reason: String,
    },
    /// The disk failed at the very moment of committing and cannot be read back yet. The transaction
    /// may turn out to be applied once the disk works again.
    #[error("lost {} while committing: {reason}; the write may or may not be applied, check the disk and read before trying again", path.display())]
    InDoubt {
        /// The database file.
        path: PathBuf,
        /// What the disk or the database said.
        reason: String,
    },
    /// Another process, or another store in this one, has the directory open.
    #[error("{} is in use by another process: stop it or choose another data directory", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory cannot be created, read or written.
    #[error("cannot use {}: {reason}; check that it is a directory this user may write to", path.display())]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The database file is not what was written to it.
    #[error("{} is damaged: {reason}; restore it from a backup, or move it away to start empty", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of keys cannot be read or made, or holds something else.
    #[error("cannot use the key file {}: {reason}", path.display())]
    KeyFile {
        /// The file of keys.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        reason: String,
    },
    /// Values are sealed with a key that is not there. They are as they were.
    #[error(
        "{} holds {values} encrypted values whose key {key} is not in {}: put that key's line back, from a backup or \
         from wherever the key file went; nothing was changed",
        path.display(), file.as_deref().map_or("any key file that is named".into(), |file| file.display().to_string())
    )]
    KeyMissing {
        /// The database file.
        path: PathBuf,
        /// How many values.
        values: usize,
        /// The name of the key, or of the first of several.
        key: String,
        /// The file of keys, if one is named.
        file: Option<PathBuf>,
    },
    /// The database file was written by a later version.
    #[error("{} has format {found}, this version knows {known}: use a newer version", path.display())]
    NewerFormat {
        /// The database file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format this version writes.
        known: u64,
    },
    /// The store was closed.
    #[error("the store is closed: open it again to use it")]
    Closed,
}

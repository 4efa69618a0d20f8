use std::path::PathBuf;

use crate::Revision;

/// Result of an operation of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the store. Unless the message says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The requested revision was compacted. The caller can list the latest state instead.
    #[error(
        "revision {requested} was compacted, the oldest that can be read is {oldest}: list again without a revision"
    )]
    Compacted {
        /// The requested revision.
        requested: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The requested revision has not been reached, for example because it is from another store.
    #[error(
        "revision {requested} is in the future, the store is at {current}: list again without a revision"
    )]
    FutureRevision {
        /// The requested revision.
        requested: Revision,
        /// The latest revision.
        current: Revision,
    },
    /// A watch was read too slowly and has missed events.
    #[error(
        "the watcher fell behind after revision {delivered} and was ended: list again and watch from there"
    )]
    Lagged {
        /// The revision of the last event before the missed ones.
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
    /// The file system is full or a disk quota is exhausted.
    #[error("no room left on the disk of {}: free some space and try again, nothing was changed", path.display())]
    DiskFull {
        /// The database file.
        path: PathBuf,
    },
    /// Reading or writing the database file failed.
    #[error("cannot write {}: {reason}; check the disk and try again, nothing was changed", path.display())]
    Storage {
        /// The database file.
        path: PathBuf,
        /// What the disk or the database said.
        reason: String,
    },
    /// The disk failed during the commit and the database cannot be read. The transaction may or may not
    /// be applied, which is known once the disk works again.
    #[error("lost {} while committing: {reason}; the write may or may not be applied, check the disk and read before trying again", path.display())]
    InDoubt {
        /// The database file.
        path: PathBuf,
        /// What the disk or the database said.
        reason: String,
    },
    /// Another process, or another store in this process, has locked the directory.
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
    /// The content of the database file is not valid.
    #[error("{} is damaged: {reason}; restore it from a backup, or move it away to start empty", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key file cannot be read or created, or its content is not valid.
    #[error("cannot use the key file {}: {reason}", path.display())]
    KeyFile {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it, and how to repair it.
        reason: String,
    },
    /// Values are encrypted with a key that the key file does not have. They are unchanged.
    #[error(
        "{} holds {values} encrypted values whose key {key} is not in {}: put that key's line back, from a backup or \
         from wherever the key file went; nothing was changed",
        path.display(), file.as_deref().map_or("any key file that is named".into(), |file| file.display().to_string())
    )]
    KeyMissing {
        /// The database file.
        path: PathBuf,
        /// Number of values that cannot be decrypted.
        values: usize,
        /// Id of the missing key (16 hexadecimal digits), or of the first if there are several.
        key: String,
        /// The key file, if one is configured.
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
    /// The store cannot be reached, or has no leader at the moment.
    #[error("the store cannot be reached: {reason}; the same call may succeed later")]
    Unavailable {
        /// What the connection said.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed: open it again to use it")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later without anybody doing something about it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Lagged { .. })
    }
}

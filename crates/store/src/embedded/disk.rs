//! The database file: the live keys and the revision. History is not stored.

mod medium;
mod records;

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::Database;
use tracing::info;

use super::group::Group;
use super::state::State;
use crate::seal::{KeyRing, Sealer, Sealing, missing_key_file};
use crate::{Error, KeyValue, Result, Revision};
#[cfg(test)]
pub(crate) use medium::Fill;
pub(crate) use medium::{Directory, Medium};
use records::{FORMAT, Loaded};

/// redb's own page cache. Reads never reach it. Half of it holds the pages that a group writes, a few hundred; what does not
/// fit is written to the file in between, and read again where the group changes it once more.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// A failure of the database, by how it is reported to the caller.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The file system or quota is full.
    Full,
    /// The file's content is not valid, for this reason.
    Corrupted(String),
    /// Any other failure, with its message.
    Other(String),
}

impl Fault {
    fn new(error: impl Into<redb::Error>) -> Fault {
        match error.into() {
            redb::Error::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full,
                // A file shorter than it says, or one that is no database at all.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                    Fault::Corrupted(error.to_string())
                }
                _ => Fault::Other(error.to_string()),
            },
            redb::Error::Corrupted(reason) => Fault::Corrupted(reason),
            error @ (redb::Error::TableTypeMismatch { .. } | redb::Error::UpgradeRequired(_)) => {
                Fault::Corrupted(error.to_string())
            }
            error => Fault::Other(error.to_string()),
        }
    }

    /// The error for a transaction that was certainly not applied.
    pub(crate) fn not_applied(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Fault::Full => Error::DiskFull { path },
            Fault::Corrupted(reason) => Error::Damaged { path, reason },
            Fault::Other(reason) => Error::Storage { path, reason },
        }
    }

    /// The error for a transaction that may or may not be applied.
    pub(crate) fn in_doubt(self, path: &Path) -> Error {
        let reason = match self {
            Fault::Full => "no room left on the disk".to_owned(),
            Fault::Corrupted(reason) | Fault::Other(reason) => reason,
        };
        Error::InDoubt { path: path.to_owned(), reason }
    }
}

fn senseless() -> Fault {
    Fault::Corrupted("its structure makes no sense".to_owned())
}

thread_local! {
    /// The file that this thread is opening and whose content has not been verified.
    static READING: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// The error that a panic of the current thread stands for: [`Error::Damaged`] while it opens a database, else `None`. For
/// the panic hook of programs that abort on panic, where [`super::Embedded::open`] cannot catch it.
pub fn damage_behind_panic() -> Option<Error> {
    let path = READING.with(|reading| reading.try_borrow().ok()?.clone())?;
    Some(senseless().not_applied(&path))
}

/// A failed commit, by whether its group may be durable nevertheless.
pub(crate) enum CommitFault {
    /// It failed before the group could become durable.
    Before(Fault),
    /// It failed while the group became durable or later. The file shows which, once it is opened again.
    During(Fault),
}

/// The database, which is closed after a failure until it is opened again.
pub(crate) struct Disk {
    medium: Box<dyn Medium>,
    database: Option<Database>,
    sealer: Option<Sealer>,
}

impl Disk {
    /// Opens the database and reads all of it. If values are not encrypted as configured, it is rewritten.
    pub(crate) fn open(medium: impl Medium, sealing: Option<&Sealing>) -> Result<(Disk, State)> {
        let mut disk = Disk { medium: Box::new(medium), database: None, sealer: None };
        let loaded = disk.guarded(|disk| {
            let database = disk.open_checked()?;
            records::create_tables(&database)?;
            let loaded = records::load(&database)?;
            disk.database = Some(database);
            Ok(loaded)
        });
        let Loaded { format, revision, mut keys, sealed } = loaded.map_err(|fault| disk.unusable(fault))?;
        if format > FORMAT {
            let path = disk.path().to_owned();
            return Err(Error::NewerFormat { path, found: format, known: FORMAT });
        }
        disk.sealer = sealing.map(|sealing| sealer(sealing, sealed.is_empty())).transpose()?.flatten();
        let sealer = disk.sealer.as_ref();
        let stale = keys.iter().any(|kv| sealer.is_some_and(|sealer| sealer.covers(&kv.key)))
            || sealed.iter().any(|record| !sealer.is_some_and(|sealer| record.is_current(sealer)));
        let file = sealing.map(|sealing| sealing.keys.as_path());
        keys.extend(records::open_all(&sealed, sealer, disk.path(), file)?);
        if stale {
            disk.rewrite(revision, &keys)?;
        }
        Ok((disk, State::new(revision, keys)))
    }

    /// Rewrites the whole database with values encrypted as configured, so that the file has no traces of the old ones.
    fn rewrite(&mut self, revision: Revision, keys: &[KeyValue]) -> Result<()> {
        self.database = None;
        let rewritten = self.guarded(|disk| {
            let sealer = disk.sealer.as_ref();
            let mut fill = |database: &Database| records::fill(database, revision, keys, sealer);
            disk.medium.replace(&mut builder(), &mut fill)?;
            disk.database = Some(disk.medium.open(&mut builder())?);
            Ok(())
        });
        rewritten.map_err(|fault| self.unusable(fault))?;
        info!(path = %self.path().display(), "everything secret is sealed with the first key now");
        Ok(())
    }

    fn unusable(&self, fault: Fault) -> Error {
        match fault {
            Fault::Other(reason) => Error::Unusable { path: self.path().to_owned(), reason },
            fault => fault.not_applied(self.path()),
        }
    }

    /// The database file, for error messages.
    pub(crate) fn path(&self) -> &Path {
        self.medium.path()
    }

    /// Whether the database is closed and must be opened again before the next commit.
    pub(crate) fn is_down(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the database again after a failure and returns its revision.
    pub(crate) fn reopen(&mut self) -> Result<Revision, Fault> {
        // After a failure the old handle rejects all operations, but still holds the file's lock.
        self.database = None;
        self.guarded(|disk| {
            let database = disk.medium.open(builder().set_repair_callback(|_| {}))?;
            let revision = records::read_revision(&database)?;
            disk.database = Some(database);
            Ok(revision)
        })
    }

    /// Closes the database until [`Disk::reopen`].
    pub(crate) fn abandon(&mut self) {
        self.database = None;
    }

    /// Writes the changes of a group in one database transaction, which is durable when this returns.
    pub(crate) fn commit(&mut self, group: &Group) -> Result<(), CommitFault> {
        let Some(database) = &self.database else {
            return Err(CommitFault::Before(Fault::Other("the database is not open".to_owned())));
        };
        let prepared = records::prepare(database, group, self.sealer.as_ref());
        let transaction = prepared.map_err(|error| CommitFault::Before(Fault::new(error)))?;
        transaction.commit().map_err(|error| CommitFault::During(Fault::new(error)))
    }

    /// Opens the database and verifies the whole file. redb verifies checksums only when it repairs a file,
    /// and reading a damaged page may fail in any way, including a panic.
    fn open_checked(&self) -> Result<Database, redb::Error> {
        let repaired = Arc::new(AtomicBool::new(false));
        let seen = repaired.clone();
        let mut builder = builder();
        builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
        let mut database = self.medium.open(&mut builder)?;
        if !repaired.load(Ordering::Relaxed) {
            database.check_integrity()?;
        }
        Ok(database)
    }

    /// Runs an operation on a file that has not been verified, and turns a panic into [`Fault::Corrupted`].
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Disk) -> Result<T, redb::Error>) -> Result<T, Fault> {
        READING.set(Some(self.path().to_owned()));
        let result = catch_unwind(AssertUnwindSafe(|| run(self)));
        READING.set(None);
        match result {
            Ok(result) => result.map_err(Fault::new),
            Err(_) => Err(senseless()),
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGE_CACHE_BYTES);
    builder
}

/// Reads the key file. If it does not exist, it is created if configured, unless the database has encrypted values, whose
/// keys are lost: then `None`.
fn sealer(sealing: &Sealing, nothing_sealed: bool) -> Result<Option<Sealer>> {
    let ring = match KeyRing::read(&sealing.keys)? {
        None if !nothing_sealed => return Ok(None),
        None if !sealing.create => return Err(missing_key_file(&sealing.keys)),
        None => KeyRing::create(&sealing.keys)?,
        Some(ring) => ring,
    };
    Ok(Some(Sealer::new(sealing.prefixes.clone(), ring)))
}

//! The database file beneath: the live keys and the revision, nothing of history.

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

/// redb's own page cache. Reads never reach it and a group writes a few hundred pages, so what matters
/// is the upper part of the tree.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// What failed, as far as it matters to the one who waits.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Full,
    Corrupted(String),
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

    /// The error for one whose write is certainly not applied.
    pub(crate) fn not_applied(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Fault::Full => Error::DiskFull { path },
            Fault::Corrupted(reason) => Error::Damaged { path, reason },
            Fault::Other(reason) => Error::Storage { path, reason },
        }
    }

    /// The error for one whose write may be applied or not.
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
    /// The file that this thread reads without knowing yet whether it makes sense.
    static READING: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// What a panic of this thread would mean: that a database is damaged, while it is being opened. For the panic hook
/// of a program whose panics abort: there, no panic can become an error of [`super::Embedded::open`].
pub fn damage_behind_panic() -> Option<Error> {
    let path = READING.with(|reading| reading.try_borrow().ok()?.clone())?;
    Some(senseless().not_applied(&path))
}

/// How far a failed commit got.
pub(crate) enum CommitFault {
    /// Not to the point where the group could have become durable.
    Before(Fault),
    /// To that point or beyond: the file tells, once it is opened again.
    During(Fault),
}

/// The open database, or none after the disk failed.
pub(crate) struct Disk {
    medium: Box<dyn Medium>,
    database: Option<Database>,
    sealer: Option<Sealer>,
}

impl Disk {
    /// Opens the database and reads everything in it. What is not sealed as it should be is, before this returns.
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

    /// Writes all of it anew, sealed as it should be, so that what it was before is nowhere in the file.
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

    pub(crate) fn path(&self) -> &Path {
        self.medium.path()
    }

    /// Whether the database has to be opened again before anything can be written.
    pub(crate) fn is_down(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the database again after a fault and tells which revision it holds.
    pub(crate) fn reopen(&mut self) -> Result<Revision, Fault> {
        // The old handle refuses everything after a fault and still holds the file's lock.
        self.database = None;
        self.guarded(|disk| {
            let database = disk.medium.open(builder().set_repair_callback(|_| {}))?;
            let revision = records::read_revision(&database)?;
            disk.database = Some(database);
            Ok(revision)
        })
    }

    /// Lets go of the database; only `reopen` gets it back.
    pub(crate) fn abandon(&mut self) {
        self.database = None;
    }

    /// Makes a group durable.
    pub(crate) fn commit(&mut self, group: &Group) -> Result<(), CommitFault> {
        let Some(database) = &self.database else {
            return Err(CommitFault::Before(Fault::Other("the database is not open".to_owned())));
        };
        let prepared = records::prepare(database, group, self.sealer.as_ref());
        let transaction = prepared.map_err(|error| CommitFault::Before(Fault::new(error)))?;
        transaction.commit().map_err(|error| CommitFault::During(Fault::new(error)))
    }

    /// redb verifies checksums only where it repairs, and reading a page that is not what was written
    /// can fail in any way. So the whole file is verified once, while it is opened: at its first opening
    /// everything is read anyway.
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

    /// Runs what reads a file of which nothing is known yet; a panic over its content is damage.
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

/// Keys from the file, which is made where that is wanted and nothing can be sealed with keys that are lost. `None`
/// where they are.
fn sealer(sealing: &Sealing, nothing_sealed: bool) -> Result<Option<Sealer>> {
    let ring = match KeyRing::read(&sealing.keys)? {
        None if !nothing_sealed => return Ok(None),
        None if !sealing.create => return Err(missing_key_file(&sealing.keys)),
        None => KeyRing::create(&sealing.keys)?,
        Some(ring) => ring,
    };
    Ok(Some(Sealer::new(sealing.prefixes.clone(), ring)))
}

//! The database file beneath: the live keys and the revision, nothing of history.

use std::cell::RefCell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::group::Group;
use super::state::State;
use crate::{Error, KeyValue, Result, Revision};

/// Key to header and value; see [`encode_header`].
const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("keys");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const FORMAT: u64 = 1;

/// redb's own page cache. Reads never reach it and a group writes a few hundred pages, so what matters
/// is the upper part of the tree.
const PAGE_CACHE_BYTES: usize = 16 << 20;

const DATABASE_FILE: &str = "state.redb";
const LOCK_FILE: &str = "lock";

/// Where the database is, so that it can be opened again after the disk failed.
pub(crate) trait Medium: Send + 'static {
    /// Names it in errors.
    fn path(&self) -> &Path;
    /// Opens the database, creating it if it is absent.
    fn open(&self, builder: &mut redb::Builder) -> Result<Database, DatabaseError>;
}

/// A file in a directory that no other process uses.
pub(crate) struct Directory {
    path: PathBuf,
    /// Locked as long as it is open. The database file has a lock too, but not while it is being
    /// created under another name or opened again.
    _lock: File,
}

impl Directory {
    pub(crate) fn lock(directory: &Path) -> Result<Directory> {
        let unusable = |path: &Path, error: io::Error| Error::Unusable {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        create_private(directory).map_err(|error| unusable(directory, error))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = private_file().create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|error| unusable(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Directory { path: directory.join(DATABASE_FILE), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: directory.to_owned() }),
            Err(TryLockError::Error(error)) => Err(unusable(&lock_path, error)),
        }
    }

    /// Creates the database under another name first: a crash in between leaves no half-made file
    /// that would look damaged.
    fn create(&self, builder: &mut redb::Builder) -> Result<(), DatabaseError> {
        let new = self.path.with_extension("new");
        let file = private_file().create(true).truncate(true).open(&new)?;
        drop(builder.create_file(file)?);
        std::fs::rename(&new, &self.path)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        Ok(File::open(directory)?.sync_all()?)
    }
}

impl Medium for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, builder: &mut redb::Builder) -> Result<Database, DatabaseError> {
        if !self.path.try_exists()? {
            self.create(builder)?;
        }
        builder.open(&self.path)
    }
}

/// Values can be secret: nobody but the owner reads the directory.
fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

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
}

impl Disk {
    /// Opens the database and reads everything in it.
    pub(crate) fn open(medium: impl Medium) -> Result<(Disk, State)> {
        let mut disk = Disk { medium: Box::new(medium), database: None };
        let loaded = disk.guarded(|disk| {
            let database = disk.open_checked()?;
            create_tables(&database)?;
            let loaded = load(&database)?;
            disk.database = Some(database);
            Ok(loaded)
        });
        match loaded {
            Ok(Loaded { format, .. }) if format > FORMAT => {
                Err(Error::NewerFormat { path: disk.path().to_owned(), found: format, known: FORMAT })
            }
            Ok(Loaded { revision, keys, .. }) => Ok((disk, State::new(revision, keys))),
            Err(Fault::Other(reason)) => Err(Error::Unusable { path: disk.path().to_owned(), reason }),
            Err(fault) => Err(fault.not_applied(disk.path())),
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
            let revision = read_revision(&database)?;
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
        let transaction = prepare(database, group).map_err(|error| CommitFault::Before(Fault::new(error)))?;
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

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(KEYS)?;
        let mut meta = transaction.open_table(META)?;
        if meta.get(META_REVISION)?.is_some() {
            return Ok(());
        }
        meta.insert(META_FORMAT, FORMAT)?;
        meta.insert(META_REVISION, 1)?;
    }
    Ok(transaction.commit()?)
}

fn prepare(database: &Database, group: &Group) -> Result<redb::WriteTransaction, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut keys = transaction.open_table(KEYS)?;
        for (key, change) in &group.changes {
            match change {
                Some(kv) => {
                    let mut slot = keys.insert_reserve(&**key, HEADER + kv.value.len())?;
                    let (header, value) = slot.as_mut().split_at_mut(HEADER);
                    header.copy_from_slice(&encode_header(kv));
                    value.copy_from_slice(&kv.value);
                }
                None => {
                    keys.remove(&**key)?;
                }
            }
        }
        transaction.open_table(META)?.insert(META_REVISION, group.revision())?;
    }
    Ok(transaction)
}

struct Loaded {
    format: u64,
    revision: Revision,
    keys: Vec<KeyValue>,
}

fn corrupted(reason: String) -> redb::Error {
    StorageError::Corrupted(reason).into()
}

fn read_meta(database: &Database, name: &str) -> Result<u64, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let value = meta.get(name)?;
    value.map(|value| value.value()).ok_or_else(|| corrupted(format!("it has no {name}")))
}

fn read_revision(database: &Database) -> Result<Revision, redb::Error> {
    read_meta(database, META_REVISION)
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let format = read_meta(database, META_FORMAT)?;
    let revision = read_revision(database)?;
    let mut loaded = Loaded { format, revision, keys: Vec::new() };
    if format > FORMAT {
        return Ok(loaded);
    }
    for record in database.begin_read()?.open_table(KEYS)?.iter()? {
        let (key, record) = record?;
        let key = key.value();
        let kv = decode(key, record.value()).filter(|kv| kv.mod_revision <= revision);
        loaded.keys.push(kv.ok_or_else(|| corrupted(format!("the record of {key:?} makes no sense")))?);
    }
    Ok(loaded)
}

/// Create revision, mod revision and version, each as 8 bytes with the lowest first.
const HEADER: usize = 24;

fn encode_header(kv: &KeyValue) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let numbers = [kv.create_revision, kv.mod_revision, kv.version];
    for (bytes, number) in header.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    header
}

fn decode(key: &str, record: &[u8]) -> Option<KeyValue> {
    let (header, value) = record.split_at_checked(HEADER)?;
    let mut numbers =
        header.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    Some(KeyValue {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        create_revision: numbers.next()?,
        mod_revision: numbers.next()?,
        version: numbers.next()?,
    })
}

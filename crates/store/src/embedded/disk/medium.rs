//! The storage location of the database: a file in a locked directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};
use tracing::warn;

use crate::{Error, Result};

const DATABASE_FILE: &str = "state.redb";
const LOCK_FILE: &str = "lock";
/// Extension of a database file that is being created.
const NEW: &str = "new";
/// Extension of a database file that was replaced and has not been removed yet.
const OLD: &str = "old";

/// The storage location of a database, from which it can be opened again after a failure. Tests inject faults here.
pub(crate) trait Medium: Send + 'static {
    /// The database file, for error messages.
    fn path(&self) -> &Path;
    /// Opens the database, or creates it if it does not exist.
    fn open(&self, builder: &mut redb::Builder) -> Result<Database, DatabaseError>;
    /// Replaces the database, which must be closed, by a new one with the content that `fill` writes. The replacement is
    /// atomic. The old file is overwritten before it is removed.
    fn replace(&self, builder: &mut redb::Builder, fill: &mut Fill) -> Result<(), redb::Error>;
}

/// Writes the content of a new database.
pub(crate) type Fill<'a> = dyn FnMut(&Database) -> Result<(), redb::Error> + 'a;

/// A database file in a directory that is locked against other processes.
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock while it is open. The database file has a lock of its own, but not while it is being
    /// created under another name or reopened.
    _lock: File,
}

impl Directory {
    /// Creates the directory if it does not exist, and locks it. Fails with [`Error::InUse`] or
    /// [`Error::Unusable`].
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

    /// Creates the database under another name and renames it, so that a crash leaves no incomplete file
    /// that would look damaged.
    fn create(&self, builder: &mut redb::Builder) -> Result<(), DatabaseError> {
        let new = self.path.with_extension(NEW);
        let file = private_file().create(true).truncate(true).open(&new)?;
        drop(builder.create_file(file)?);
        fs::rename(&new, &self.path)?;
        Ok(self.sync()?)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Completes or reverts a replacement that was interrupted at any point.
    fn clean_up(&self) -> io::Result<()> {
        let (new, old) = (self.path.with_extension(NEW), self.path.with_extension(OLD));
        remove(&new)?;
        let Some(found) = look(&old)? else { return Ok(()) };
        match look(&self.path)? {
            // The new file was removed by somebody else: the old one is the only one left.
            None => fs::rename(&old, &self.path)?,
            // The new file has not been renamed yet: both names are links to the old one.
            Some(now) if (found.dev(), found.ino()) == (now.dev(), now.ino()) => remove(&old)?,
            Some(_) => {
                // The rename of the new file must be durable before the old one is destroyed.
                self.sync()?;
                if let Err(error) = overwrite(&old) {
                    warn!(path = %old.display(), %error, "the database that was replaced is removed without being overwritten");
                }
                remove(&old)?;
            }
        }
        self.sync()
    }
}

fn look(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Overwrites a file with zeros, since removing it would leave its content in the blocks. This is effective only on file
/// systems that write in place.
fn overwrite(path: &Path) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut file = OpenOptions::new().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    while left > 0 {
        let count = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..count as usize])?;
        left -= count;
    }
    file.sync_all()
}

impl Medium for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, builder: &mut redb::Builder) -> Result<Database, DatabaseError> {
        self.clean_up()?;
        if !self.path.try_exists()? {
            self.create(builder)?;
        }
        builder.open(&self.path)
    }

    /// The old file keeps a second name until it is overwritten, so that its content can be destroyed after a crash as
    /// well. The database's own name refers to the old or the new file at every moment.
    fn replace(&self, builder: &mut redb::Builder, fill: &mut Fill) -> Result<(), redb::Error> {
        let (new, old) = (self.path.with_extension(NEW), self.path.with_extension(OLD));
        let file = private_file().create(true).truncate(true).open(&new)?;
        let database = builder.create_file(file)?;
        let filled = fill(&database);
        drop(database);
        if let Err(error) = filled {
            remove(&new)?;
            return Err(error);
        }
        fs::hard_link(&self.path, &old)?;
        fs::rename(&new, &self.path)?;
        Ok(self.clean_up()?)
    }
}

/// Creates a directory that only its owner can access, since values may be secret.
fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

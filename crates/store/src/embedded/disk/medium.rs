//! Where the database is: a file in a directory that is locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};
use tracing::warn;

use crate::{Error, Result};

const DATABASE_FILE: &str = "state.redb";
const LOCK_FILE: &str = "lock";
/// The ending of a database that is being made.
const NEW: &str = "new";
/// The ending of one that has been replaced and is not gone yet.
const OLD: &str = "old";

/// Where the database is, so that it can be opened again after the disk failed.
pub(crate) trait Medium: Send + 'static {
    /// Names it in errors.
    fn path(&self) -> &Path;
    /// Opens the database, creating it if it is absent.
    fn open(&self, builder: &mut redb::Builder) -> Result<Database, DatabaseError>;
    /// Puts a database that `fill` fills in the place of this one, which must not be open: whole, or not at all. What
    /// the old one held is overwritten.
    fn replace(&self, builder: &mut redb::Builder, fill: &mut Fill) -> Result<(), redb::Error>;
}

/// Makes a new database's content.
pub(crate) type Fill<'a> = dyn FnMut(&Database) -> Result<(), redb::Error> + 'a;

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
        let new = self.path.with_extension(NEW);
        let file = private_file().create(true).truncate(true).open(&new)?;
        drop(builder.create_file(file)?);
        fs::rename(&new, &self.path)?;
        Ok(self.sync()?)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Ends a replacement wherever it was interrupted.
    fn clean_up(&self) -> io::Result<()> {
        let (new, old) = (self.path.with_extension(NEW), self.path.with_extension(OLD));
        remove(&new)?;
        let Some(found) = look(&old)? else { return Ok(()) };
        match look(&self.path)? {
            // Somebody took the other one away: this is the only one.
            None => fs::rename(&old, &self.path)?,
            // Before the new one took its name, this is a second name of the only one.
            Some(now) if (found.dev(), found.ino()) == (now.dev(), now.ino()) => remove(&old)?,
            Some(_) => {
                // The new one's name must not be lost once there is nothing left to go back to.
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

/// Removing a file leaves its blocks as they are. Where the file system writes in place, this does not.
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

    /// The old one keeps a name until it is overwritten, so that a crash does not leave its content behind; and the
    /// database's own name leads to one of the two at any moment.
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

/// Values can be secret: nobody but the owner reads the directory.
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

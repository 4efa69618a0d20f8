//! The tables of the database: a record for each live key, the revision and the format version.

use std::path::Path;

use bytes::Bytes;
use redb::{
    Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction,
};

use super::super::group::Group;
use crate::seal::{Closed, Sealer, id_of};
use crate::{Error, KeyValue, Result, Revision};

/// Key to header and value; see [`encode_header`].
const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("keys");
/// Key to header and envelope. The table is created with the first encrypted value.
const SEALED: TableDefinition<&str, &[u8]> = TableDefinition::new("sealed");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
/// Version of the format with encrypted values, the latest one.
pub(crate) const FORMAT: u64 = 2;
/// Version of the format without encrypted values, which older versions of the program can read.
const FORMAT_PLAIN: u64 = 1;

/// Creates the tables of a new database, with revision 1. Existing ones are left unchanged.
pub(crate) fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(KEYS)?;
        let mut meta = transaction.open_table(META)?;
        if meta.get(META_REVISION)?.is_some() {
            return Ok(());
        }
        meta.insert(META_FORMAT, FORMAT_PLAIN)?;
        meta.insert(META_REVISION, 1)?;
    }
    Ok(transaction.commit()?)
}

/// A database transaction with the changes of a group, which the caller commits.
pub(crate) fn prepare(
    database: &Database,
    group: &Group,
    sealer: Option<&Sealer>,
) -> Result<WriteTransaction, redb::Error> {
    let transaction = database.begin_write()?;
    let sealer_of = |key: &str| sealer.filter(|sealer| sealer.covers(key));
    {
        let mut keys = transaction.open_table(KEYS)?;
        for (key, change) in group.changes.iter().filter(|(key, _)| sealer_of(key).is_none()) {
            match change {
                Some(kv) => write(&mut keys, kv, &kv.value)?,
                None => {
                    keys.remove(&**key)?;
                }
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_REVISION, group.revision())?;
        let mut covered =
            group.changes.iter().filter_map(|(key, change)| Some((key, change, sealer_of(key)?))).peekable();
        if covered.peek().is_some() {
            meta.insert(META_FORMAT, FORMAT)?;
            let mut sealed = transaction.open_table(SEALED)?;
            for (key, change, sealer) in covered {
                match change {
                    Some(kv) => write(&mut sealed, kv, &sealer.seal(&bound(kv), &kv.value)?)?,
                    None => {
                        sealed.remove(&**key)?;
                    }
                }
            }
        }
    }
    Ok(transaction)
}

/// Writes keys and revision to a new database in one transaction.
pub(crate) fn fill(
    database: &Database,
    revision: Revision,
    keys: &[KeyValue],
    sealer: Option<&Sealer>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut plain = transaction.open_table(KEYS)?;
        let mut sealed = transaction.open_table(SEALED)?;
        for kv in keys {
            match sealer.filter(|sealer| sealer.covers(&kv.key)) {
                Some(sealer) => write(&mut sealed, kv, &sealer.seal(&bound(kv), &kv.value)?)?,
                None => write(&mut plain, kv, &kv.value)?,
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT)?;
        meta.insert(META_REVISION, revision)?;
    }
    Ok(transaction.commit()?)
}

fn write(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    kv: &KeyValue,
    content: &[u8],
) -> Result<(), redb::Error> {
    let mut slot = table.insert_reserve(&*kv.key, HEADER + content.len())?;
    let (header, rest) = slot.as_mut().split_at_mut(HEADER);
    header.copy_from_slice(&encode_header(kv));
    rest.copy_from_slice(content);
    Ok(())
}

/// The content of a database. Of a format that is not known, the records are not loaded.
pub(crate) struct Loaded {
    /// Format version.
    pub(crate) format: u64,
    /// The store's revision.
    pub(crate) revision: Revision,
    /// Records with values in plain text.
    pub(crate) keys: Vec<KeyValue>,
    /// Records with encrypted values.
    pub(crate) sealed: Vec<SealedRecord>,
}

/// A record whose value is an envelope.
pub(crate) struct SealedRecord(KeyValue);

impl SealedRecord {
    /// Whether the record would be encrypted with the same key if it were written now.
    pub(crate) fn is_current(&self, sealer: &Sealer) -> bool {
        sealer.covers(&self.0.key) && sealer.is_current(&self.0.value)
    }
}

/// Decrypts all records. `path` (the database file) and `keys` (the key file) are for error messages.
pub(crate) fn open_all(
    sealed: &[SealedRecord],
    sealer: Option<&Sealer>,
    path: &Path,
    keys: Option<&Path>,
) -> Result<Vec<KeyValue>> {
    let mut opened = Vec::with_capacity(sealed.len());
    let mut unknown = Vec::new();
    for SealedRecord(kv) in sealed {
        let value = match sealer {
            Some(sealer) => sealer.open(&bound(kv), &kv.value),
            None => Err(id_of(&kv.value).map_or(Closed::Forged, Closed::UnknownKey)),
        };
        match value {
            Ok(value) => opened.push(KeyValue { value: value.into(), ..kv.clone() }),
            Err(Closed::UnknownKey(id)) => unknown.push(id),
            Err(Closed::Forged) => {
                let reason = format!(
                    "the value of {:?} was changed, or brought there from another key or time",
                    kv.key
                );
                return Err(Error::Damaged { path: path.to_owned(), reason });
            }
        }
    }
    match unknown.first() {
        None => Ok(opened),
        Some(id) => Err(Error::KeyMissing {
            path: path.to_owned(),
            values: unknown.len(),
            key: crate::seal::shown(*id),
            file: keys.map(Path::to_owned),
        }),
    }
}

fn corrupted(reason: String) -> redb::Error {
    StorageError::Corrupted(reason).into()
}

fn read_meta(database: &Database, name: &str) -> Result<u64, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let value = meta.get(name)?;
    value.map(|value| value.value()).ok_or_else(|| corrupted(format!("it has no {name}")))
}

/// Reads the store's revision from a database.
pub(crate) fn read_revision(database: &Database) -> Result<Revision, redb::Error> {
    read_meta(database, META_REVISION)
}

/// Reads all tables of a database.
pub(crate) fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let format = read_meta(database, META_FORMAT)?;
    let revision = read_revision(database)?;
    let mut loaded = Loaded { format, revision, keys: Vec::new(), sealed: Vec::new() };
    if format > FORMAT {
        return Ok(loaded);
    }
    loaded.keys = load_table(database, KEYS, revision)?;
    loaded.sealed = load_table(database, SEALED, revision)?.into_iter().map(SealedRecord).collect();
    Ok(loaded)
}

fn load_table(
    database: &Database,
    name: TableDefinition<&'static str, &'static [u8]>,
    revision: Revision,
) -> Result<Vec<KeyValue>, redb::Error> {
    let table = match database.begin_read()?.open_table(name) {
        // The table of encrypted values may not exist yet; the other is created with the database.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut records = Vec::new();
    for record in table.iter()? {
        let (key, record) = record?;
        let key = key.value();
        let kv = decode(key, record.value()).filter(|kv| kv.mod_revision <= revision);
        records.push(kv.ok_or_else(|| corrupted(format!("the record of {key:?} makes no sense")))?);
    }
    Ok(records)
}

/// The associated data of an envelope: the record's header and key.
fn bound(kv: &KeyValue) -> Vec<u8> {
    [&encode_header(kv), kv.key.as_bytes()].concat()
}

/// Size of a record's header: create revision, mod revision and version, each as 8 bytes in little-endian order.
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

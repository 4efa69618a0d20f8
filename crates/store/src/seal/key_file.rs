//! The key file of encryption at rest: reading, validating and creating it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{Error, Result};

/// Id of a key: the first 8 bytes of a SHA-256 hash over it, which does not disclose the key.
pub(crate) type Id = [u8; 8];

const KEY_LEN: usize = 32;

/// Maximum size of the file in bytes, which is enough for more than a thousand keys.
const FILE_MAX: u64 = 64 << 10;

/// How to create a key manually, for error messages.
const RECIPE: &str = "`head -c 32 /dev/urandom | base64` makes a key";

/// A secret key with its id. The debug output has only the id.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    id: Id,
    secret: [u8; KEY_LEN],
}

impl Key {
    fn new(secret: [u8; KEY_LEN]) -> Key {
        let mut hash = Context::new(&SHA256);
        hash.update(b"yado key id 1");
        hash.update(&secret);
        let mut id = Id::default();
        // A SHA-256 hash is longer than an id.
        id.copy_from_slice(&hash.finish().as_ref()[..size_of::<Id>()]);
        Key { id, secret }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", shown(self.id))
    }
}

/// Formats an id as 16 hexadecimal digits, as in error messages.
pub(crate) fn shown(id: Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of the file, at least one. The first one encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRing {
    first: Key,
    others: Vec<Key>,
}

impl KeyRing {
    #[cfg(test)]
    pub(crate) fn of(secrets: &[[u8; KEY_LEN]]) -> KeyRing {
        let mut keys = secrets.iter().map(|secret| Key::new(*secret));
        KeyRing { first: keys.next().expect("a key"), others: keys.collect() }
    }

    pub(crate) fn first(&self) -> &Key {
        &self.first
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Key> {
        std::iter::once(&self.first).chain(&self.others).find(|key| key.id == id)
    }

    /// Reads and validates the file; `None` if it does not exist. A file that other users can access is rejected.
    pub(crate) fn read(path: &Path) -> Result<Option<KeyRing>> {
        let unusable = |reason: String| Error::KeyFile { path: path.to_owned(), reason };
        let system =
            |error: io::Error| unusable(format!("{error}; check that it is a file this user may read"));
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(system)?,
        };
        let mode = file.metadata().map_err(system)?.mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(unusable(format!("its mode {mode:04o} lets every user at it; `chmod 600` it")));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(system)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(unusable(format!("it has more than {FILE_MAX} bytes; {RECIPE}, one line each")));
        }
        parse(&bytes).map(Some).map_err(unusable)
    }

    /// Creates the file with one random key. It is durable when this returns.
    pub(crate) fn create(path: &Path) -> Result<KeyRing> {
        let mut secret = [0; KEY_LEN];
        let filled = SystemRandom::new().fill(&mut secret);
        let filled = filled.map_err(|_| io::Error::other("the system gives no random bytes"));
        let written = filled.and_then(|()| write(path, &format!("{}\n", STANDARD.encode(secret))));
        written.map_err(|error| Error::KeyFile {
            path: path.to_owned(),
            reason: format!("{error}; check that this user may write there"),
        })?;
        Ok(KeyRing { first: Key::new(secret), others: Vec::new() })
    }
}

/// The error for a configured file that does not exist and must not be created.
pub(crate) fn missing_key_file(path: &Path) -> Error {
    Error::KeyFile {
        path: path.to_owned(),
        reason: format!("there is no such file; {RECIPE}, which `chmod 600` keeps private"),
    }
}

/// Writes a file atomically and durably, with mode 0600.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Parses a file with one key per line. Blank lines and lines that begin with `#` are ignored. Errors name the number of a
/// line but not its content, which may be a secret.
fn parse(bytes: &[u8]) -> Result<KeyRing, String> {
    let mut keys = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let secret = STANDARD.decode(line).ok().and_then(|secret| <[u8; KEY_LEN]>::try_from(secret).ok());
        let secret =
            secret.ok_or_else(|| format!("line {} is not 32 bytes in base64; {RECIPE}", number + 1))?;
        keys.push(Key::new(secret));
    }
    let mut keys = keys.into_iter();
    let first = keys.next().ok_or_else(|| format!("it has no key; {RECIPE}"))?;
    Ok(KeyRing { first, others: keys.collect() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A file of this content and mode: the number of its keys, or what is said of it.
    fn check(content: &[u8], mode: u32, expect: Result<usize, &str>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let read = KeyRing::read(&path).map(|ring| 1 + ring.unwrap().others.len());
        let start = format!("cannot use the key file {}: ", path.display());
        match (read, expect) {
            (Err(error), Err(reason)) => assert_eq!(error.to_string(), start + reason),
            (read, expect) => {
                assert_eq!(read.map_err(|error| error.to_string()), expect.map_err(str::to_owned))
            }
        }
    }

    #[test]
    fn a_file_of_keys() {
        let (a, b) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        check(a.as_bytes(), 0o600, Ok(1));
        check(format!("# new\n {b}\r\n\n# old\n{a}\n").as_bytes(), 0o440, Ok(2));
        let no_key = "it has no key; `head -c 32 /dev/urandom | base64` makes a key";
        check(b"", 0o600, Err(no_key));
        check(b"# nothing\n", 0o600, Err(no_key));
        let second = "line 2 is not 32 bytes in base64; `head -c 32 /dev/urandom | base64` makes a key";
        check(format!("{a}\nhunter2").as_bytes(), 0o600, Err(second));
        check(format!("{a}\n{}", STANDARD.encode([1; 31])).as_bytes(), 0o600, Err(second));
        check(&[b'\n', 0xff, 0xfe], 0o600, Err(second));
        let open = "its mode 0644 lets every user at it; `chmod 600` it";
        check(a.as_bytes(), 0o644, Err(open));
        let long =
            "it has more than 65536 bytes; `head -c 32 /dev/urandom | base64` makes a key, one line each";
        check(&[b'\n'; 70_000], 0o600, Err(long));
    }

    #[test]
    fn a_file_that_is_made_reads_as_the_same_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        assert_eq!(KeyRing::read(&path), Ok(None));
        let made = KeyRing::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyRing::read(&path), Ok(Some(made.clone())));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_ne!(KeyRing::create(&directory.path().join("others")).unwrap(), made);
        assert!(KeyRing::create(&directory.path().join("no/keys")).is_err());
        assert!(KeyRing::read(directory.path()).is_err());
    }

    #[test]
    fn no_key_is_ever_shown() {
        let ring = KeyRing::of(&[[b'k'; 32]]);
        let text = format!("{ring:?}");
        assert!(
            !text.contains("kkk") && !text.contains("107, 107") && text.contains(&shown(ring.first().id()))
        );
    }
}

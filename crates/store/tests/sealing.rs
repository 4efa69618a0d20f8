//! Values that are sealed: what lies in the files, what becomes of old keys and of old databases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use yado_store::{Config, Embedded, Error, KeyValue, Op, Range, Sealing, Store, Txn};

/// Part of every secret value, and of nothing else.
const SECRET: &[u8] = b"tell-nobody-of-this";
const OPEN: &[u8] = b"known-to-everybody";
const KEY_A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const KEY_B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn keys(&self) -> PathBuf {
        self.0.path().join("keys")
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn database(&self) -> PathBuf {
        self.store().join("state.redb")
    }

    fn sealing(&self, create: bool) -> Sealing {
        Sealing { prefixes: vec!["/secret/".into()], keys: self.keys(), create }
    }

    /// With keys that are made where there are none.
    fn open(&self) -> Embedded {
        self.try_open(Some(self.sealing(true))).unwrap()
    }

    fn open_plain(&self) -> Embedded {
        self.try_open(None).unwrap()
    }

    fn try_open(&self, sealing: Option<Sealing>) -> Result<Embedded, Error> {
        Embedded::open(Config { sealing, ..Config::new(self.store()) })
    }

    /// What opening says, with `DIR` for the directory.
    fn refusal(&self, sealing: Option<Sealing>) -> String {
        let error = self.try_open(sealing).err().expect("it opened");
        error.to_string().replace(self.0.path().to_str().unwrap(), "DIR")
    }

    fn write_keys(&self, keys: &[&str]) {
        std::fs::write(self.keys(), keys.join("\n")).unwrap();
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        std::fs::set_permissions(self.keys(), mode).unwrap();
    }

    /// No file holds a secret, though the database holds what is open.
    #[track_caller]
    fn check_files(&self) {
        for entry in std::fs::read_dir(self.store()).unwrap() {
            let path = entry.unwrap().path();
            assert!(!contains(&path, SECRET), "{} holds a secret", path.display());
        }
        assert!(contains(&self.database(), OPEN));
    }
}

fn contains(path: &Path, bytes: &[u8]) -> bool {
    let content = std::fs::read(path).unwrap();
    let mut starts = content.iter().enumerate().filter(|(_, byte)| **byte == bytes[0]);
    starts.any(|(at, _)| content[at..].starts_with(bytes))
}

fn value(marker: &[u8], number: usize) -> Vec<u8> {
    [format!("{number}: ").as_bytes(), marker, &vec![b'.'; number * 37 % 1000]].concat()
}

fn put(key: String, value: Vec<u8>) -> Txn {
    Txn { compares: Vec::new(), ops: vec![Op::Put { key, value: value.into() }] }
}

/// Creates, replaces and deletes secret and open values.
fn write(store: &Embedded) {
    run(async {
        for number in 0..40 {
            store.txn(put(format!("/secret/{}", number % 30), value(SECRET, number))).await.unwrap();
            store.txn(put(format!("/open/{}", number % 30), value(OPEN, number))).await.unwrap();
        }
        for key in ["/secret/7", "/open/7"] {
            store.txn(Txn { compares: Vec::new(), ops: vec![Op::Delete { key: key.into() }] }).await.unwrap();
        }
        store.compact(store.revision()).await.unwrap();
    });
}

/// Everything in it, and its revision.
fn contents(store: &Embedded) -> (u64, BTreeMap<String, KeyValue>) {
    let items = run(store.range(Range::default())).unwrap().items;
    (store.revision(), items.into_iter().map(|kv| (kv.key.to_string(), kv)).collect())
}

#[test]
fn what_is_secret_is_in_no_file_and_comes_back() {
    let place = Place::new();
    let store = place.open();
    write(&store);
    let before = contents(&store);
    assert_eq!(before.1["/secret/9"].value, value(SECRET, 39));
    place.check_files();
    drop(store);
    place.check_files();
    let store = place.open();
    assert_eq!(contents(&store), before);
    write(&store);
    place.check_files();
}

#[test]
fn a_plain_database_is_sealed_at_the_next_start() {
    let place = Place::new();
    let store = place.open_plain();
    write(&store);
    let before = contents(&store);
    drop(store);
    assert!(contains(&place.database(), SECRET));
    let store = place.open();
    assert_eq!(contents(&store), before);
    place.check_files();
    drop(store);
    place.check_files();
    let left: Vec<_> = std::fs::read_dir(place.store()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(contents(&place.open()), before);
}

/// A plain database whose sealing was ended by a crash: before the new one had its name, and after.
#[test]
fn an_interrupted_replacement_is_ended_at_the_next_start() {
    let place = Place::new();
    let store = place.open_plain();
    write(&store);
    let before = contents(&store);
    drop(store);
    let (old, new) = (place.database().with_extension("old"), place.database().with_extension("new"));
    std::fs::write(&new, "half").unwrap();
    std::fs::hard_link(place.database(), &old).unwrap();
    assert_eq!(contents(&place.open_plain()), before, "it was overwritten under its other name");
    assert!(!old.exists() && !new.exists());
    std::fs::rename(place.database(), &old).unwrap();
    assert_eq!(contents(&place.open_plain()), before, "the only one was given up");

    std::fs::copy(place.database(), &old).unwrap();
    let other_name = place.0.path().join("disk");
    std::fs::hard_link(&old, &other_name).unwrap();
    assert_eq!(contents(&place.open()), before);
    place.check_files();
    assert!(!old.exists());
    assert!(std::fs::read(other_name).unwrap().iter().all(|byte| *byte == 0), "it was not overwritten");
}

#[test]
fn keys_are_rotated_by_putting_a_new_one_in_front() {
    let place = Place::new();
    place.write_keys(&[KEY_A]);
    let store = place.open();
    write(&store);
    let before = contents(&store);
    drop(store);
    let envelopes = || sealed(&place.database());
    let first = envelopes();
    place.write_keys(&["# since yesterday", KEY_B, KEY_A]);
    assert_eq!(contents(&place.open()), before);
    let second = envelopes();
    assert!(first.len() == 29 && second.len() == 29);
    assert!(first.iter().all(|(key, envelope)| second[key][24 + 1..24 + 9] != envelope[24 + 1..24 + 9]));
    // Nothing is rewritten without need, and the old key is needed no more.
    place.write_keys(&[KEY_B, KEY_A]);
    assert_eq!(contents(&place.open()), before);
    assert_eq!(envelopes(), second);
    place.write_keys(&[KEY_B]);
    assert_eq!(contents(&place.open()), before);
}

#[test]
fn without_its_key_nothing_opens_and_nothing_is_lost() {
    let place = Place::new();
    let no_file = place.refusal(Some(place.sealing(false)));
    assert_eq!(
        no_file,
        "cannot use the key file DIR/keys: there is no such file; `head -c 32 /dev/urandom | base64` makes a key, \
         which `chmod 600` keeps private"
    );
    place.write_keys(&[KEY_A]);
    let store = place.open();
    write(&store);
    let before = contents(&store);
    drop(store);
    let bytes = std::fs::read(place.database()).unwrap();

    let missing = "DIR/store/state.redb holds 29 encrypted values whose key 10f8b41d2e878b95 is not in DIR/keys: put \
                   that key's line back, from a backup or from wherever the key file went; nothing was changed";
    place.write_keys(&[KEY_B]);
    assert_eq!(place.refusal(Some(place.sealing(true))), missing);
    std::fs::remove_file(place.keys()).unwrap();
    assert_eq!(place.refusal(Some(place.sealing(true))), missing);
    assert!(!place.keys().exists(), "a new key hides that the old one is lost");
    assert_eq!(place.refusal(None), missing.replace("DIR/keys", "any key file that is named"));
    place.write_keys(&["hunter2"]);
    let bad = "cannot use the key file DIR/keys: line 1 is not 32 bytes in base64; ";
    assert!(place.refusal(Some(place.sealing(true))).starts_with(bad));

    assert_eq!(std::fs::read(place.database()).unwrap().len(), bytes.len());
    place.write_keys(&[KEY_A]);
    assert_eq!(contents(&place.open()), before);
}

const SEALED: TableDefinition<&str, &[u8]> = TableDefinition::new("sealed");

fn sealed(database: &Path) -> BTreeMap<String, Vec<u8>> {
    let database = Database::open(database).unwrap();
    let table = database.begin_read().unwrap().open_table(SEALED).unwrap();
    let records = table.iter().unwrap().map(Result::unwrap);
    records.map(|(key, record)| (key.value().to_owned(), record.value().to_vec())).collect()
}

/// Changes a sealed database behind the store's back: which key's value does not open.
fn check_forged(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>), expect: &str) {
    let place = Place::new();
    write(&place.open());
    let mut records = sealed(&place.database());
    let before = records.clone();
    change(&mut records);
    let database = Database::open(place.database()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(SEALED).unwrap();
        for (key, record) in records.iter().filter(|(key, record)| before.get(*key) != Some(record)) {
            table.insert(&**key, &**record).unwrap();
        }
    }
    transaction.commit().unwrap();
    drop(database);
    let text = place.refusal(Some(place.sealing(true)));
    let reason = "was changed, or brought there from another key or time";
    assert!(
        text.starts_with(&format!("DIR/store/state.redb is damaged: the value of {expect:?} {reason}; ")),
        "{text}"
    );
}

#[test]
fn a_value_that_was_moved_or_changed_does_not_open() {
    let from = |records: &BTreeMap<String, Vec<u8>>| records["/secret/1"].clone();
    // To another key, old or new, with its revisions and without.
    check_forged(|records| drop(records.insert("/secret/2".into(), from(records))), "/secret/2");
    check_forged(|records| drop(records.insert("/secret/new".into(), from(records))), "/secret/new");
    check_forged(
        |records| {
            let envelope = from(records)[24..].to_vec();
            let to = records.get_mut("/secret/2").unwrap();
            to.truncate(24);
            to.extend(envelope);
        },
        "/secret/2",
    );
    // At another revision; in its last byte; cut.
    check_forged(|records| records.get_mut("/secret/2").unwrap()[16] ^= 1, "/secret/2");
    check_forged(|records| *records.get_mut("/secret/2").unwrap().last_mut().unwrap() ^= 1, "/secret/2");
    check_forged(|records| records.get_mut("/secret/2").unwrap().truncate(30), "/secret/2");
}

const CHILD: &str = "YADO_STORE_SEALING_DIRECTORY";

#[test]
fn child_that_seals() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let directory = Path::new(&directory);
    let sealing = Sealing { prefixes: vec!["/secret/".into()], keys: directory.join("keys"), create: true };
    let config = Config { sealing: Some(sealing), ..Config::new(directory.join("store")) };
    drop(Embedded::open(config).unwrap());
}

/// A process that seals a plain database is killed as soon as one of its files is seen.
#[test]
fn sealing_a_plain_database_survives_a_kill() {
    for seen in ["keys", "store/state.new", "store/state.old"] {
        let place = Place::new();
        let store = place.open_plain();
        let padding = |number| Op::Put { key: format!("/secret/{number}"), value: value(SECRET, 26).into() };
        for chunk in 0..10 {
            let ops = (chunk * 100..chunk * 100 + 100).map(padding).collect();
            run(store.txn(Txn { compares: Vec::new(), ops })).unwrap();
        }
        write(&store);
        let before = contents(&store);
        drop(store);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_seals"])
            .env(CHILD, place.0.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let file = place.0.path().join(seen);
        while !file.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(contents(&place.open()), before, "{seen}");
        place.check_files();
    }
}

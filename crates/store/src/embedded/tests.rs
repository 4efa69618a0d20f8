//! Watches that fall behind, limits, and a disk that fails.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use futures::{FutureExt, StreamExt};
use redb::{Database, DatabaseError, StorageBackend};

use super::disk::Fill;
use super::*;
use crate::{Compare, Op, WatchEvent};

/// A disk in memory that fails on demand. It keeps what was written, synced or not, as a disk does
/// under a process that is not killed.
#[derive(Clone, Debug, Default)]
struct Disc(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    fault: Option<Fail>,
    calls: u64,
    /// How many calls failed.
    failed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Fail {
    /// Everything that grows or writes, as on a full disk.
    Writes,
    /// Syncs, and everything after the first of them.
    FromSync,
    /// Everything.
    All,
    /// Only the call with this number that writes or syncs.
    Call(u64),
}

impl Disc {
    fn set(&self, fault: Option<Fail>) {
        let mut content = self.0.lock();
        content.fault = fault;
        content.calls = 0;
        content.failed = 0;
    }

    fn call(&self, kind: Kind) -> io::Result<parking_lot::MutexGuard<'_, Content>> {
        let mut content = self.0.lock();
        content.calls += u64::from(kind != Kind::Read);
        let fails = match content.fault {
            None => false,
            Some(Fail::Writes) => kind != Kind::Read,
            Some(Fail::FromSync) => kind == Kind::Sync,
            Some(Fail::All) => true,
            Some(Fail::Call(number)) => kind != Kind::Read && content.calls == number,
        };
        if !fails {
            return Ok(content);
        }
        content.failed += 1;
        if matches!(content.fault, Some(Fail::FromSync)) {
            content.fault = Some(Fail::All);
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
}

impl StorageBackend for Disc {
    fn len(&self) -> io::Result<u64> {
        Ok(self.call(Kind::Read)?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.call(Kind::Read)?;
        let from = content.bytes.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Kind::Write)?.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(Kind::Sync).map(drop)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.call(Kind::Write)?;
        content.bytes[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl Medium for Disc {
    fn path(&self) -> &Path {
        Path::new("/disc")
    }

    fn open(&self, builder: &mut redb::Builder) -> Result<Database, DatabaseError> {
        builder.create_with_backend(self.clone())
    }

    fn replace(&self, builder: &mut redb::Builder, fill: &mut Fill) -> Result<(), redb::Error> {
        let new = Disc::default();
        fill(&builder.create_with_backend(new.clone())?)?;
        let bytes = std::mem::take(&mut new.0.lock().bytes);
        self.call(Kind::Write)?.bytes = bytes;
        Ok(())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn open(disc: &Disc, config: &Config) -> Embedded {
    Embedded::open_medium(config, disc.clone()).unwrap()
}

fn config() -> Config {
    Config::new("")
}

fn put(key: &str, value: &str) -> Txn {
    let op = Op::Put { key: key.to_owned(), value: value.to_owned().into() };
    Txn { compares: Vec::new(), ops: vec![op] }
}

async fn contents(store: &Embedded) -> BTreeMap<String, KeyValue> {
    let items = store.range(Range::default()).await.unwrap().items;
    items.into_iter().map(|kv| (kv.key.to_string(), kv)).collect()
}

/// What the disk holds, once the store is closed.
async fn stored(disc: &Disc) -> (Revision, BTreeMap<String, KeyValue>) {
    let store = open(disc, &config());
    (store.revision(), contents(&store).await)
}

fn disk_full() -> Error {
    Error::DiskFull { path: "/disc".into() }
}

/// Not even pages that have their place can be written, as on a full disk that copies on write.
#[test]
fn a_disk_that_takes_no_write_refuses_them_until_it_does() {
    run(async {
        let disc = Disc::default();
        let store = open(&disc, &config());
        let mut watch = store.watch(String::new(), String::new(), 1).await.unwrap();
        store.txn(put("a", "1")).await.unwrap();
        let before = contents(&store).await;
        disc.set(Some(Fail::Writes));
        // The first of them was committing, and the database cannot be opened to see how far it came.
        let reason = "no room left on the disk".to_owned();
        let in_doubt = Error::InDoubt { path: "/disc".into(), reason };
        for expected in [in_doubt, disk_full(), disk_full()] {
            assert_eq!(store.txn(put("a", "2")).await, Err(expected));
            assert_eq!(contents(&store).await, before);
            assert_eq!(store.revision(), 2);
        }
        disc.set(None);
        assert_eq!(store.txn(put("a", "3")).await, Ok(TxnOutcome::Committed { revision: 3 }));
        let after = contents(&store).await;
        assert_eq!(after["a"].version, 2);
        for revision in [2, 3] {
            assert_eq!(watch.next().await.unwrap().unwrap()[0].revision(), revision);
        }
        assert!(watch.next().now_or_never().is_none());
        store.close().await;
        assert_eq!(stored(&disc).await, (3, after));
    });
}

/// Fails each call of a commit in turn: the answer, the memory and the disk always agree.
#[test]
fn a_fault_anywhere_in_a_commit_leaves_memory_and_disk_agreeing() {
    run(async {
        let mut failures = 0;
        for number in 1.. {
            let disc = Disc::default();
            let store = open(&disc, &config());
            store.txn(put("a", "1")).await.unwrap();
            disc.set(Some(Fail::Call(number)));
            let outcome = store.txn(put("b", &"2".repeat(10_000))).await;
            let reached = disc.0.lock().failed > 0;
            disc.set(None);
            let expected = match &outcome {
                Ok(outcome) => {
                    assert_eq!(*outcome, TxnOutcome::Committed { revision: 3 });
                    3
                }
                Err(error) => {
                    assert_eq!(*error, disk_full());
                    failures += 1;
                    2
                }
            };
            assert_eq!(store.revision(), expected);
            assert_eq!(contents(&store).await.contains_key("b"), expected == 3);
            store.txn(put("c", "3")).await.unwrap();
            let after = contents(&store).await;
            store.close().await;
            assert_eq!(stored(&disc).await, (expected + 1, after), "after failing call {number}");
            if !reached {
                break;
            }
        }
        assert!(failures > 0, "no call failed a commit");
    });
}

#[test]
fn a_write_in_doubt_is_settled_when_the_disk_is_back() {
    run(async {
        let disc = Disc::default();
        let store = open(&disc, &config());
        store.txn(put("a", "1")).await.unwrap();
        let mut watch = store.watch(String::new(), String::new(), 2).await.unwrap();
        disc.set(Some(Fail::FromSync));
        let outcome = store.txn(put("b", "2")).await;
        assert!(matches!(outcome, Err(Error::InDoubt { .. })), "{outcome:?}");
        assert_eq!(store.get("b").await.unwrap(), None);
        assert_eq!(store.txn(put("c", "3")).await, Err(disk_full()));
        disc.set(None);
        // It reached the disk, so the next write finds it there.
        let create =
            Txn { compares: vec![Compare::ModRevision { key: "b".into(), equals: 3 }], ..put("d", "4") };
        assert_eq!(store.txn(create).await, Ok(TxnOutcome::Committed { revision: 4 }));
        let keys: Vec<_> = [3, 4].into_iter().zip(["b", "d"]).collect();
        for (revision, key) in keys {
            let events = watch.next().await.unwrap().unwrap();
            assert_eq!((events[0].revision(), &**events[0].key()), (revision, key));
        }
        let after = contents(&store).await;
        store.close().await;
        assert_eq!(stored(&disc).await, (4, after));
    });
}

/// Flips bits all over the file of a store that was closed: it opens with exactly what was written,
/// or says that it is damaged.
#[test]
fn damage_is_found_or_does_not_matter() {
    run(async {
        let disc = Disc::default();
        let store = open(&disc, &config());
        for number in 0..50 {
            store.txn(put(&format!("key-{number}"), &"v".repeat(number * 40))).await.unwrap();
        }
        let before = contents(&store).await;
        store.close().await;
        let bytes = disc.0.lock().bytes.clone();
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let mut damaged = 0;
        for at in used.iter().step_by(used.len() / 300 + 1) {
            let hurt = Disc::default();
            hurt.0.lock().bytes = bytes.clone();
            hurt.0.lock().bytes[*at] ^= 0x55;
            match Embedded::open_medium(&config(), hurt) {
                Ok(store) => assert_eq!(contents(&store).await, before, "byte {at} of the file"),
                Err(Error::Damaged { .. } | Error::Unusable { .. }) => damaged += 1,
                Err(error) => panic!("byte {at} of the file: {error}"),
            }
        }
        assert!(damaged > 0);
    });
}

#[test]
fn a_file_of_a_later_version_is_left_alone() {
    let disc = Disc::default();
    drop(open(&disc, &config()));
    let database = disc.open(&mut Database::builder()).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 3).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Embedded::open_medium(&config(), disc).err();
    assert_eq!(error, Some(Error::NewerFormat { path: "/disc".into(), found: 3, known: 2 }));
}

#[test]
fn a_watcher_that_falls_behind_is_told_and_ended() {
    run(async {
        let limits = Config { watch_revisions: 3, ..config() };
        let store = open(&Disc::default(), &limits);
        let mut slow = store.watch("a".into(), "b".into(), 1).await.unwrap();
        let mut quiet = store.watch("c".into(), "d".into(), 1).await.unwrap();
        for number in 0..5 {
            store.txn(put("a", &number.to_string())).await.unwrap();
        }
        for revision in 2..=4 {
            assert_eq!(slow.next().await.unwrap().unwrap()[0].revision(), revision);
        }
        assert_eq!(slow.progress(), 4);
        assert_eq!(slow.next().await, Some(Err(Error::Lagged { delivered: 4 })));
        assert_eq!(slow.next().await, None);
        assert_eq!(slow.progress(), 4);
        assert_eq!(quiet.progress(), 6);
        store.txn(put("c", "")).await.unwrap();
        assert_eq!(quiet.progress(), 6);
        assert_eq!(quiet.next().await.unwrap().unwrap()[0].revision(), 7);
        assert_eq!(quiet.progress(), 7);
    });
}

#[test]
fn a_dropped_watch_is_forgotten() {
    run(async {
        let store = open(&Disc::default(), &config());
        let watch = store.watch(String::new(), String::new(), 1).await.unwrap();
        assert_eq!(store.shared.watchers.len(), 1);
        drop(watch);
        assert_eq!(store.shared.watchers.len(), 0);
    });
}

/// A waiting watch is woken by a write from another task, and sees it whole.
#[test]
fn a_waiting_watch_wakes() {
    run(async {
        let store = open(&Disc::default(), &config());
        let mut watch = store.watch("a".into(), "b".into(), 1).await.unwrap();
        let txn = Txn {
            ops: [put("a1", "x").ops, put("b1", "y").ops, put("a2", "z").ops].concat(),
            ..Txn::default()
        };
        let (events, outcome) = tokio::join!(watch.next(), store.txn(txn));
        assert_eq!(outcome, Ok(TxnOutcome::Committed { revision: 2 }));
        let keys: Vec<_> = events.unwrap().unwrap().iter().map(WatchEvent::key).cloned().collect();
        assert_eq!(keys, [Arc::from("a1"), Arc::from("a2")]);
    });
}

#[test]
fn history_is_kept_within_its_limits() {
    let oldest = |limits: Config| {
        run(async {
            let store = open(&Disc::default(), &limits);
            for number in 0..20 {
                store.txn(put("a", &format!("{number:0100}"))).await.unwrap();
            }
            let first = Range { revision: Some(1), ..Range::default() };
            match store.range(first).await {
                Err(Error::Compacted { oldest, .. }) => oldest,
                other => panic!("{other:?}"),
            }
        })
    };
    assert_eq!(oldest(Config { history_revisions: 5, ..config() }), 16);
    let entry = size_of::<WatchEvent>() + 101;
    assert_eq!(oldest(Config { history_bytes: 4 * entry, ..config() }), 17);
}

#[test]
fn what_is_too_large_is_refused() {
    run(async {
        let store = open(&Disc::default(), &Config { max_bytes: 100, ..config() });
        let huge = "x".repeat(crate::MAX_TXN_BYTES);
        let many = Txn { ops: vec![Op::Delete { key: "a".into() }; 129], ..Txn::default() };
        let refused = [
            (
                put("a", &"x".repeat(100)),
                "the store holds its limit of 100 bytes: delete something or raise the limit",
            ),
            (
                put("a", &huge),
                "the transaction has 1572865 bytes, more than the limit of 1572864: make it smaller",
            ),
            (many, "the transaction has 129 operations, more than the limit of 128: make it smaller"),
            (put("", ""), "a transaction names an empty key: give every key at least one character"),
        ];
        for (txn, expected) in refused {
            assert_eq!(store.txn(txn).await.unwrap_err().to_string(), expected);
        }
        store.txn(put("a", &"x".repeat(99))).await.unwrap();
        assert_eq!(store.txn(put("b", "")).await, Err(Error::Full { limit: 100 }));
        // What does not grow it goes on, so that it can be emptied.
        store.txn(put("a", &"y".repeat(99))).await.unwrap();
        store.txn(Txn { ops: vec![Op::Delete { key: "a".into() }], ..Txn::default() }).await.unwrap();
        store.txn(put("b", "")).await.unwrap();
    });
}

#[test]
fn a_closed_store_says_so_after_finishing_what_it_accepted() {
    run(async {
        let disc = Disc::default();
        let store = Arc::new(open(&disc, &config()));
        let mut watch = store.watch(String::new(), String::new(), 1).await.unwrap();
        let (written, ()) = tokio::join!(store.txn(put("a", "1")), store.close());
        assert_eq!(written, Ok(TxnOutcome::Committed { revision: 2 }));
        assert_eq!(watch.next().await.unwrap().unwrap().len(), 1);
        assert_eq!(watch.next().await, Some(Err(Error::Closed)));
        assert_eq!(watch.next().await, None);
        assert_eq!(store.txn(put("a", "2")).await, Err(Error::Closed));
        assert_eq!(store.get("a").await, Err(Error::Closed));
        assert_eq!(store.watch(String::new(), String::new(), 1).await.err(), Some(Error::Closed));
        store.close().await;
        assert_eq!(stored(&disc).await.0, 2);
    });
}

/// Many writers race for one key: each change is seen by the next one, whatever group it falls into.
#[test]
fn no_update_is_lost_between_writers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(&Disc::default(), &config()));
        let conflicted = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (store, conflicted) = (store.clone(), conflicted.clone());
            writers.spawn(async move {
                for _ in 0..25 {
                    let mut current = store.get("count").await.unwrap();
                    loop {
                        let revision = current.as_ref().map_or(0, |kv| kv.mod_revision);
                        let count =
                            current.map_or(0, |kv| String::from_utf8_lossy(&kv.value).parse().unwrap());
                        let next: u32 = count + 1;
                        match store.txn(Txn::update("count", revision, next.to_string())).await.unwrap() {
                            TxnOutcome::Committed { .. } => break,
                            TxnOutcome::Conflict { current: found, .. } => {
                                conflicted.store(true, Ordering::Relaxed);
                                current = found.into_iter().next().unwrap();
                            }
                        }
                    }
                }
            });
        }
        writers.join_all().await;
        let count = store.get("count").await.unwrap().unwrap();
        assert_eq!((count.value.as_ref(), count.version), (&b"400"[..], 400));
        assert!(conflicted.load(Ordering::Relaxed), "no two writers ever met");
    });
}

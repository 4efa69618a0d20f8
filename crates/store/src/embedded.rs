//! The embedded store for a single machine: all data in memory, one database file for durability.
//!
//! ```text
//! txn() -> queue -> writer thread: decide a group -> commit and sync -> apply -> publish -> answer
//! get(), range() <- memory                                               watches <- mailboxes
//! ```

mod disk;
mod group;
mod retention;
mod state;
#[cfg(test)]
mod tests;
mod watchers;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use crate::{Error, KeyValue, Range, RangeResult, Result, Revision, Sealing, Store, Txn, TxnOutcome, Watch};
pub use disk::damage_behind_panic;
use disk::{Directory, Disk, Medium};
use group::Group;
use state::{LogLimits, State};
use watchers::{MailboxLimits, Watchers};
use writer::{Request, Writer};

/// Configuration of an [`Embedded`] store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The store's directory, which nothing else may use. It is created with mode 0700 if it does not exist.
    pub directory: PathBuf,
    /// Minimum time for which history is kept, unless one of the next two limits is reached. The default
    /// of 5 minutes is the compaction interval that a Kubernetes API server uses with etcd.
    pub history_age: Duration,
    /// Maximum number of revisions of history: by default 50,000, about 10 MB for small values.
    pub history_revisions: usize,
    /// Maximum bytes of history (keys and values that are no longer live): by default 16 MiB,
    /// some thousand versions of Pods. While much is written this limit comes before the age, and decides what a
    /// process keeps in the gaps that history leaves.
    pub history_bytes: usize,
    /// Maximum bytes of live keys and values, all of which are in memory: by default 2 GiB, as with etcd.
    pub max_bytes: usize,
    /// Capacity of the writer's queue in transactions: by default 1,024. Further callers wait.
    pub queue: usize,
    /// Maximum backlog of a watch in revisions, above which it ends with [`Error::Lagged`]: by default
    /// 16,384, more than a second of the fastest writing.
    pub watch_revisions: usize,
    /// Maximum backlog of a watch in bytes of keys and values, likewise: by default 64 MiB.
    pub watch_bytes: usize,
    /// Encryption at rest; `None`, the default, stores all values in plain text.
    pub sealing: Option<Sealing>,
}

impl Config {
    /// The default configuration for a store in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Config {
        Config {
            directory: directory.into(),
            history_age: Duration::from_secs(300),
            history_revisions: 50_000,
            history_bytes: 16 << 20,
            max_bytes: 2 << 30,
            queue: 1024,
            watch_revisions: 16_384,
            watch_bytes: 64 << 20,
            sealing: None,
        }
    }
}

/// The state that the writer, readers and watches share.
struct Shared {
    state: RwLock<State>,
    watchers: Arc<Watchers>,
    log_limits: LogLimits,
    max_bytes: usize,
}

impl Shared {
    /// Makes a durable group visible to readers, then to watches.
    fn publish(&self, group: &Group) {
        let dropped = self.state.write().apply(&group.entries, self.log_limits);
        self.watchers.publish(&group.entries);
        drop(dropped);
    }

    fn compact(&self, before: Revision) -> Result<()> {
        let dropped = self.state.write().compact(before)?;
        debug!(before, revisions = dropped.len(), "compacted");
        Ok(())
    }
}

/// A store for a single machine: all data in memory and durable in one file, with group commit (one sync
/// for many transactions). Dropping it is like [`Store::close`], but blocks the thread.
pub struct Embedded {
    shared: Arc<Shared>,
    /// `None` once the store is closing.
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    /// Dropped to stop the retention thread.
    stop_retention: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// True once the writer has closed the database.
    finished: watch::Receiver<bool>,
    closing: AtomicBool,
}

impl Embedded {
    /// Opens or creates the store in its directory and reads all data into memory. It blocks the thread,
    /// so call it at start-up.
    ///
    /// Fails with [`Error::InUse`], [`Error::Unusable`], [`Error::Damaged`], [`Error::NewerFormat`],
    /// [`Error::DiskFull`], [`Error::KeyFile`] or [`Error::KeyMissing`].
    pub fn open(config: Config) -> Result<Embedded> {
        let medium = Directory::lock(&config.directory)?;
        Embedded::open_medium(&config, medium)
    }

    fn open_medium(config: &Config, medium: impl Medium) -> Result<Embedded> {
        let (disk, state) = Disk::open(medium, config.sealing.as_ref())?;
        let path = disk.path().to_owned();
        let mailbox_limits = MailboxLimits { revisions: config.watch_revisions, bytes: config.watch_bytes };
        let shared = Arc::new(Shared {
            watchers: Arc::new(Watchers::new(state.revision(), mailbox_limits)),
            state: RwLock::new(state),
            log_limits: LogLimits { revisions: config.history_revisions, bytes: config.history_bytes },
            max_bytes: config.max_bytes,
        });
        let (queue, requests) = mpsc::channel(config.queue.max(1));
        let (finish, finished) = watch::channel(false);
        let (stop_retention, stop) = std::sync::mpsc::channel();
        let writer = Writer::new(shared.clone(), disk);
        let (kept, age) = (shared.clone(), config.history_age);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| Error::Unusable { path: path.clone(), reason: error.to_string() })
        };
        let threads = vec![
            spawn(
                "store-writer",
                Box::new(move || {
                    writer.run(requests);
                    finish.send_replace(true);
                }),
            )?,
            spawn(
                "store-retention",
                Box::new(move || {
                    let current = || kept.state.read().revision();
                    // A mark is never in the future, so there is no error to hear of.
                    retention::run(age, &stop, current, |before| drop(kept.compact(before)));
                }),
            )?,
        ];
        Ok(Embedded {
            shared,
            queue: Mutex::new(Some(queue)),
            stop_retention: Mutex::new(Some(stop_retention)),
            threads: Mutex::new(threads),
            finished,
            closing: AtomicBool::new(false),
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Signals both threads to end.
    fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
        self.queue.lock().take();
        self.stop_retention.lock().take();
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A panic has been reported by the thread itself, and waiting writers got `Closed`.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        txn.validate()?;
        let queue = self.queue.lock().clone().ok_or(Error::Closed)?;
        let (reply, outcome) = oneshot::channel();
        queue.send(Request { txn, reply }).await.map_err(|_| Error::Closed)?;
        // A sender kept while waiting would keep a closing writer from ending.
        drop(queue);
        outcome.await.unwrap_or(Err(Error::Closed))
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.check_open()?;
        Ok(self.shared.state.read().get(key).cloned())
    }

    async fn range(&self, range: Range) -> Result<RangeResult> {
        self.check_open()?;
        self.shared.state.read().range(&range)
    }

    async fn watch(&self, start: String, end: String, after: Revision) -> Result<Watch> {
        let state = self.shared.state.read();
        state.check_readable(after)?;
        let replay = state.entries_after(after);
        let watch = self.shared.watchers.register((start, end), after, replay, state.revision())?;
        Ok(Watch::new(watch))
    }

    async fn compact(&self, before: Revision) -> Result<()> {
        self.check_open()?;
        self.shared.compact(before)
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().revision()
    }

    async fn close(&self) {
        self.begin_close();
        // An error means that the writer panicked, which ends it as well.
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
        self.join();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.begin_close();
        self.join();
    }
}

//! The store of a single machine: everything in memory, one database file beneath.
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

/// How an [`Embedded`] store is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory, which is the store's own; it is created if it is absent.
    pub directory: PathBuf,
    /// How long history is kept at least, unless one of the next two limits is reached. 5 minutes is
    /// what a Kubernetes API server asks of etcd.
    pub history_age: Duration,
    /// How many revisions of history are kept at most: by default 50,000, about 10 MB for small values.
    pub history_revisions: usize,
    /// How many bytes of history (keys and values that are no longer live) are kept at most.
    pub history_bytes: usize,
    /// How many bytes of live keys and values there may be: by default 2 GiB as with etcd. All of it is
    /// in memory.
    pub max_bytes: usize,
    /// How many transactions may wait for the writer; more wait for a place.
    pub queue: usize,
    /// How many revisions may wait at a watch before it is ended: by default 16,384, more than a second
    /// of the fastest writing.
    pub watch_revisions: usize,
    /// How many bytes of keys and values may wait at a watch before it is ended.
    pub watch_bytes: usize,
    /// Which values are encrypted on the disk; none by default.
    pub sealing: Option<Sealing>,
}

impl Config {
    /// The defaults, in a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Config {
        Config {
            directory: directory.into(),
            history_age: Duration::from_secs(300),
            history_revisions: 50_000,
            history_bytes: 64 << 20,
            max_bytes: 2 << 30,
            queue: 1024,
            watch_revisions: 16_384,
            watch_bytes: 64 << 20,
            sealing: None,
        }
    }
}

/// What the writer, the readers and the watches share.
struct Shared {
    state: RwLock<State>,
    watchers: Arc<Watchers>,
    log_limits: LogLimits,
    max_bytes: usize,
}

impl Shared {
    /// Shows a durable group to readers, then to watches.
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

/// The store of a single machine: all in memory, durable in one file, with many transactions made
/// durable by one sync. Dropping it does what [`Store::close`] does, but blocks.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Gone once the store is closing.
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    /// Dropped to stop the retention thread.
    stop_retention: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// True once the writer has closed the database.
    finished: watch::Receiver<bool>,
    closing: AtomicBool,
}

impl Embedded {
    /// Opens the store in its directory, or creates it, and reads all of it into memory. It blocks, so
    /// call it at start-up.
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

    /// Tells both threads to end.
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

//! The file of the audit log: lines are written by a thread of their own, and the file is rotated by size and age.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use yado_types::clock::Clock;

/// Bytes of lines that wait to be written. At a full buffer requests wait, so that no event is lost.
const BUFFER: usize = 16 << 20;
/// The time in the name of a rotated file, as Kubernetes writes it.
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// Where the log goes, and how long it is kept.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The file; `None` is standard output.
    pub path: Option<PathBuf>,
    /// Bytes after which the file is rotated; 0 is never.
    pub max_size: u64,
    /// Rotated files that are kept; 0 is all.
    pub max_backups: usize,
    /// The age at which rotated files are removed; zero is never.
    pub max_age: Duration,
}

/// The queue of lines to the thread that writes them.
pub(super) struct Log {
    lines: Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>,
    /// Bytes that the buffer has room for.
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Counters of events.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) events: AtomicU64,
    pub(super) errors: AtomicU64,
}

impl Log {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// Where the file cannot be opened for appending.
    pub(super) fn open(config: LogConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let output = Output::open(config, clock)?;
        let (sender, lines) = mpsc::unbounded_channel();
        let (room, counts) = (Arc::new(Semaphore::new(BUFFER)), Arc::<Counts>::default());
        let thread = std::thread::Builder::new().name("audit-log".to_owned());
        let (freed, counted) = (room.clone(), counts.clone());
        let writer = thread.spawn(move || write_all(output, lines, &freed, &counted))?;
        Ok(Self { lines: Mutex::new(Some(sender)), room, counts, writer: Mutex::new(Some(writer)) })
    }

    /// Queues a line, when the buffer has room for it.
    pub(super) async fn write(&self, line: Vec<u8>) {
        // The semaphore is never closed; the writer gives the permits back.
        if let Ok(room) = self.room.acquire_many(size(&line)).await {
            room.forget();
            self.send(line);
        }
    }

    /// Queues a line at once, for events that come when nothing can wait any more: the ends of streams.
    pub(super) fn write_now(&self, line: Vec<u8>) {
        if let Ok(room) = self.room.try_acquire_many(size(&line)) {
            room.forget();
        }
        self.send(line);
    }

    fn send(&self, line: Vec<u8>) {
        self.counts.events.fetch_add(1, Relaxed);
        let sent = self.lines.lock().as_ref().is_some_and(|lines| lines.send(line).is_ok());
        if !sent {
            self.counts.errors.fetch_add(1, Relaxed);
        }
    }

    /// Counters of events that were logged, and of those that could not be written.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Writes what is queued and ends the thread.
    pub(super) async fn close(&self) {
        drop(self.lines.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // It was joined, or it panicked, which was printed.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

/// The permits of a line.
fn size(line: &[u8]) -> u32 {
    u32::try_from(line.len().min(BUFFER)).unwrap_or(u32::MAX)
}

fn write_all(
    mut output: Output,
    mut lines: mpsc::UnboundedReceiver<Vec<u8>>,
    room: &Semaphore,
    counts: &Counts,
) {
    let mut failing = false;
    while let Some(mut line) = lines.blocking_recv() {
        loop {
            let missing = BUFFER.saturating_sub(room.available_permits());
            room.add_permits((size(&line) as usize).min(missing));
            let mut written = output.line(&line);
            let next = lines.try_recv().ok();
            if next.is_none() {
                written = written.and_then(|()| output.flush());
            }
            match written {
                Ok(()) => failing = false,
                Err(error) => {
                    counts.errors.fetch_add(1, Relaxed);
                    // Said once, not for each of thousands of lines.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the audit log cannot be written: events are lost");
                    }
                }
            }
            match next {
                Some(next) => line = next,
                None => break,
            }
        }
    }
}

/// The open file.
struct Output {
    config: LogConfig,
    clock: Arc<dyn Clock>,
    writer: Box<dyn Write + Send>,
    /// Bytes in the file.
    size: u64,
}

impl Output {
    fn open(config: LogConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (writer, size): (Box<dyn Write + Send>, u64) = match &config.path {
            None => (Box::new(BufWriter::new(io::stdout())), 0),
            Some(path) => {
                let file = open(path)?;
                let size = file.metadata()?.len();
                (Box::new(BufWriter::new(file)), size)
            }
        };
        Ok(Self { config, clock, writer, size })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let grown = self.size + line.len() as u64;
        let is_full = self.config.max_size > 0 && grown > self.config.max_size && self.size > 0;
        let rotated = if is_full { self.rotate() } else { Ok(()) };
        // A file that cannot be renamed can still be written to: no event is lost for it.
        self.writer.write_all(line)?;
        self.size += line.len() as u64;
        rotated
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(path) = &self.config.path else { return Ok(()) };
        self.writer.flush()?;
        let now = self.clock.now();
        std::fs::rename(path, backup_name(path, now))?;
        self.writer = Box::new(BufWriter::new(open(path)?));
        self.size = 0;
        for old in outdated(&backups(path)?, now, &self.config) {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }
}

/// Opened for appending; only its owner may read it, since it says who does what.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// `audit-2026-01-02T03-04-05.006.log` for `audit.log`.
fn backup_name(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, extension) = parts(path);
    let time = now.to_zoned(jiff::tz::TimeZone::UTC).strftime(BACKUP_TIME).to_string();
    path.with_file_name(format!("{stem}-{time}{extension}"))
}

/// The file's name before and from its last dot.
fn parts(path: &Path) -> (String, String) {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.rfind('.').filter(|at| *at > 0) {
        Some(at) => (name[..at].to_owned(), name[at..].to_owned()),
        None => (name, String::new()),
    }
}

/// Rotated files with their times, the oldest first.
fn backups(path: &Path) -> io::Result<BTreeSet<(Timestamp, PathBuf)>> {
    let (stem, extension) = parts(path);
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let middle = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        let time = middle.and_then(|text| jiff::civil::DateTime::strptime(BACKUP_TIME, text).ok());
        if let Some(time) = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
            found.insert((time.timestamp(), entry.path()));
        }
    }
    Ok(found)
}

/// The rotated files that are too many or too old.
fn outdated(backups: &BTreeSet<(Timestamp, PathBuf)>, now: Timestamp, config: &LogConfig) -> Vec<PathBuf> {
    let too_many = match config.max_backups {
        0 => 0,
        most => backups.len().saturating_sub(most),
    };
    let is_old = |time: Timestamp| {
        let age = now.as_second().saturating_sub(time.as_second());
        !config.max_age.is_zero() && u64::try_from(age).is_ok_and(|age| age > config.max_age.as_secs())
    };
    let all = backups.iter().enumerate();
    all.filter(|(i, (time, _))| *i < too_many || is_old(*time)).map(|(_, (_, path))| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use yado_types::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn the_file_is_rotated_by_size_and_old_ones_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let clock = ManualClock::new("2026-01-02T03:04:05.006Z".parse().expect("a time"));
        let day = Duration::from_secs(86_400);
        let config = LogConfig { path: Some(path.clone()), max_size: 10, max_backups: 2, max_age: 3 * day };
        std::fs::write(&path, "before\n").expect("a file");
        std::fs::write(directory.path().join("audit-notes.log"), "").expect("a file");
        let mut output = Output::open(config.clone(), Arc::new(clock.clone())).expect("a log");
        let names = || {
            let entries = std::fs::read_dir(directory.path()).expect("a directory");
            let names = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned());
            names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        };
        for (line, days, expect) in [
            ("a\n", 0, "audit-notes.log audit.log"),
            // It would have 11 bytes.
            ("bb\n", 0, "audit-2026-01-02T03-04-05.006.log audit-notes.log audit.log"),
            (
                "a line that is longer than a file may be\n",
                1,
                "audit-2026-01-02T03-04-05.006.log audit-2026-01-03T03-04-05.006.log audit-notes.log audit.log",
            ),
            (
                "c\n",
                1,
                "audit-2026-01-03T03-04-05.006.log audit-2026-01-04T03-04-05.006.log audit-notes.log audit.log",
            ),
            ("more than ten\n", 5, "audit-2026-01-09T03-04-05.006.log audit-notes.log audit.log"),
        ] {
            clock.advance(days * day);
            output.line(line.as_bytes()).and_then(|()| output.flush()).expect("written");
            assert_eq!(names(), expect, "{line}");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "more than ten\n");
        // Nothing that was queued is lost at the end.
        let log = Log::open(LogConfig { max_size: 0, ..config }, Arc::new(clock)).expect("a log");
        for n in 0..1000 {
            log.write(format!("{n}\n").into_bytes()).await;
        }
        log.close().await;
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.ends_with("\n999\n") && text.lines().count() == 1001);
        assert_eq!((log.counts().events.load(Relaxed), log.counts().errors.load(Relaxed)), (1000, 0));
    }
}

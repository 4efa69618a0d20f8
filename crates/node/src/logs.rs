//! Container logs: files in the CRI format, read across rotation, followed without polling.

mod follow;
mod line;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use follow::Follow;
pub(crate) use line::Filter;

/// Size in bytes of the buffer of each reader; a larger one is not faster.
const PIECE: usize = 64 << 10;
/// Maximum length in bytes of a record; longer ones are passed on unparsed. The shim writes at most 16 KiB of text in one.
const LONGEST_RECORD: usize = 64 << 10;

/// Options of a log request, as in `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether to continue with new records until the container ends.
    pub follow: bool,
    /// Whether to read the log of the container's previous run.
    pub previous: bool,
    /// Number of lines from the end of the log to start with; `None` starts with the first.
    pub tail_lines: Option<u64>,
    /// Time of the earliest record to send.
    pub since: Option<Timestamp>,
    /// Whether to put its time before each line.
    pub timestamps: bool,
    /// Maximum number of bytes to send.
    pub limit_bytes: Option<u64>,
}

/// The channel for pieces of the log. It is bounded, so that a slow client delays the reader.
pub(crate) type Sink = mpsc::Sender<io::Result<Bytes>>;

/// Sends the log at `path` by `options`. `ended` completes when the container has written its last record.
pub(crate) async fn stream(path: PathBuf, options: Options, ended: impl Future<Output = ()>, sink: Sink) {
    let mut reader = Reader { path, filter: Filter::new(&options), rest: BytesMut::new(), sink };
    let result = tokio::select! {
        // The client has disconnected.
        () = reader.sink.clone().closed_owned() => return,
        result = reader.run(&options, ended) => result,
    };
    if let Err(error) = result {
        let _ = reader.sink.send(Err(error)).await;
    }
}

/// A clone's `closed` as a future of its own.
trait ClosedOwned {
    async fn closed_owned(self);
}

impl ClosedOwned for Sink {
    async fn closed_owned(self) {
        self.closed().await;
    }
}

struct Reader {
    path: PathBuf,
    filter: Filter,
    /// The start of a record whose end has not been read yet.
    rest: BytesMut,
    sink: Sink,
}

impl Reader {
    async fn run(&mut self, options: &Options, ended: impl Future<Output = ()>) -> io::Result<()> {
        // Before the first look, so that nothing written in between goes unnoticed.
        let mut follow = if options.follow { Some(Follow::new(&self.path)?) } else { None };
        let mut files = open_all(&self.path).await?;
        if let Some(lines) = options.tail_lines {
            let skip = skip_for_tail(&mut files, lines).await?;
            self.filter.skip(skip);
        }
        let mut current = None;
        for mut file in files {
            if self.pump(&mut file).await?.is_break() {
                return Ok(());
            }
            current = Some(file);
        }
        let Some(follow) = &mut follow else { return self.finish().await };
        let mut ended = std::pin::pin!(ended);
        let mut over = false;
        loop {
            if let Some(file) = &mut current
                && self.pump(file).await?.is_break()
            {
                return Ok(());
            }
            if let Some(next) = self.successor(current.as_ref()).await? {
                // Written to its end before it was renamed: what came after the last look is read first.
                if let Some(file) = &mut current
                    && self.pump(file).await?.is_break()
                {
                    return Ok(());
                }
                current = Some(next);
                continue;
            }
            if over {
                return self.finish().await;
            }
            tokio::select! {
                changed = follow.changed() => changed?,
                // One more round: the last lines may have come since the last look.
                () = &mut ended => over = true,
            }
        }
    }

    /// Sends what is new in a file.
    async fn pump(&mut self, file: &mut File) -> io::Result<ControlFlow<()>> {
        loop {
            self.rest.reserve(PIECE);
            if file.read_buf(&mut self.rest).await? == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            let mut out = BytesMut::new();
            let mut flow = ControlFlow::Continue(());
            while flow.is_continue()
                && let Some(end) = self.rest.iter().position(|b| *b == b'\n')
            {
                let record = self.rest.split_to(end + 1);
                flow = self.filter.push(&record[..end], &mut out);
            }
            if self.rest.len() > LONGEST_RECORD {
                let record = std::mem::take(&mut self.rest);
                flow = self.filter.push(&record, &mut out);
            }
            self.send(out).await?;
            if flow.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    async fn send(&mut self, out: BytesMut) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone");
        self.sink.send(Ok(out.freeze())).await.map_err(gone)
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The file that was begun when `current` was rotated away; `None` while it is the newest.
    async fn successor(&self, current: Option<&File>) -> io::Result<Option<File>> {
        let Some(current) = current else { return open(&self.path).await };
        let identity = identity(current).await?;
        let files = open_all(&self.path).await?;
        let mut after = false;
        for file in files {
            if after {
                return Ok(Some(file));
            }
            after = self::identity(&file).await? == identity;
        }
        // Not found: rotated out of existence while nobody read. The oldest that is left comes next.
        if after { Ok(None) } else { Ok(open_all(&self.path).await?.into_iter().next()) }
    }
}

async fn identity(file: &File) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata().await?;
    Ok((meta.dev(), meta.ino()))
}

async fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A log's files, oldest first: `path.2`, `path.1`, `path`.
async fn open_all(path: &Path) -> io::Result<Vec<File>> {
    let mut files: Vec<File> = open(path).await?.into_iter().collect();
    for number in 1.. {
        let rotated = PathBuf::from(format!("{}.{number}", path.display()));
        match open(&rotated).await? {
            Some(file) => files.push(file),
            None => break,
        }
    }
    files.reverse();
    Ok(files)
}

/// How many lines come before the last `lines`. Files that hold none of these are dropped; all are rewound.
async fn skip_for_tail(files: &mut Vec<File>, lines: u64) -> io::Result<u64> {
    let mut found = 0;
    let mut first = files.len();
    while first > 0 && found <= lines {
        first -= 1;
        found += count_lines(&mut files[first]).await?;
    }
    files.drain(..first);
    Ok(found.saturating_sub(lines))
}

async fn count_lines(file: &mut File) -> io::Result<u64> {
    let (mut buffer, mut count) = (BytesMut::with_capacity(PIECE), 0);
    loop {
        buffer.reserve(PIECE);
        if file.read_buf(&mut buffer).await? == 0 {
            break;
        }
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let record = buffer.split_to(end + 1);
            count += u64::from(line::Record::parse(&record[..end]).full);
        }
        if buffer.len() > LONGEST_RECORD {
            buffer.clear();
        }
    }
    file.rewind().await?;
    Ok(count)
}

/// The last lines of a log, at most so many bytes of them.
pub(crate) fn last_lines(path: &Path, lines: usize, bytes: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    // A record has some 40 bytes of its own beside the text.
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(bytes + lines as u64 * 40)))?;
        let mut all = Vec::new();
        file.read_to_end(&mut all)?;
        Ok(all)
    };
    let all = read().unwrap_or_default();
    let records: Vec<&[u8]> = all.split(|b| *b == b'\n').filter(|r| !r.is_empty()).collect();
    let from = records.len().saturating_sub(lines);
    let mut out = BytesMut::new();
    let mut filter = Filter::new(&Options::default());
    for record in &records[from..] {
        if filter.push(record, &mut out).is_break() {
            break;
        }
    }
    let cut = out.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    String::from_utf8_lossy(&out[cut..]).into_owned()
}

#[cfg(test)]
mod tests;

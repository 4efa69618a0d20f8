//! From a stream of bytes to a layer in place: decompressed, verified, unpacked.
//!
//! Two threads share the work, so that one large layer uses two cores: the one that calls reads the source, hashes it
//! and decompresses; the other hashes what comes out and writes files.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use super::store::{Inner, LayerRecord};
use super::unpack::{UnpackError, Written, unpack};
use super::{ImageError, IoContext as _, LayerState, Progress, Result};

/// Bytes that pass between the two threads at once.
const CHUNK: usize = 256 << 10;
/// Chunks in flight: enough that neither thread waits for a hiccup of the other, 2 MiB in all.
const IN_FLIGHT: usize = 8;
/// A progress event for so many bytes: a terminal shows no more.
const REPORT_EVERY: u64 = 512 << 10;

/// What a layer's source says about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Digest of the blob as transferred; archives of the old Docker form do not tell.
    pub(crate) blob: Option<String>,
    /// Digest of the uncompressed archive, from the image's configuration.
    pub(crate) diff_id: String,
    /// Bytes as transferred; 0 where unknown.
    pub(crate) size: u64,
    /// What to call it in errors.
    pub(crate) origin: String,
}

/// Unpacks one layer and puts it in place. Nothing of it stays where this fails.
pub(crate) fn add(
    store: &Arc<Inner>,
    source: impl Read,
    expected: &Expected,
    progress: &Progress,
) -> Result<()> {
    let staged = store.stage_dir("layer")?;
    let keep = match &expected.blob {
        Some(_) if store.config.keep_blobs => Some(store.stage_file("blob")?),
        _ => None,
    };
    let limits = store.config.limits;
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    let counted = Counted { inner: source, done: 0, reported: 0, expected, progress };
    // The writer fails for a reason that no digest changes; the source need not be read to its end.
    let hopeless = AtomicBool::new(false);
    let (fed, unpacked) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut hashed = Hashed::new(Chunks { receiver, current: Vec::new(), at: 0 });
            let written = unpack(&mut hashed, staged.path(), &limits, progress);
            if let Err(UnpackError::NoSpace | UnpackError::TooLarge(_) | UnpackError::Cancelled) = written {
                hopeless.store(true, Ordering::Relaxed);
            }
            let written = written?;
            // What follows the end of the archive is part of the digest.
            io::copy(&mut hashed, &mut io::sink()).map_err(UnpackError::Read)?;
            Ok::<_, UnpackError>((written, hashed.finish()))
        });
        let fed = feed(counted, keep.as_ref().map(|(_, file)| file), sender, limits.layer_bytes, &hopeless);
        (fed, writer.join())
    });
    let unpacked = unpacked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (written, diff_id) = judge(fed, unpacked, expected, &limits, store)?;
    check(&expected.origin, "once unpacked", &expected.diff_id, &diff_id)?;
    let blob = keep.map(|(staging, _)| staging);
    let kept = blob.as_ref().and(expected.blob.clone());
    let record = LayerRecord { size: written.bytes, packed: None, blob: kept, ..LayerRecord::default() };
    store.place_layer(&expected.diff_id, staged, record, blob)?;
    progress.layer(&expected.diff_id, LayerState::Done);
    Ok(())
}

/// What the reading side found.
struct Fed {
    /// Digest of all the source gave.
    digest: String,
    /// Why it could not be decompressed to the end.
    damage: Option<io::Error>,
}

/// Blames the right side: a source that fails or differs from its digest explains whatever the writer says.
fn judge(
    fed: io::Result<Fed>,
    unpacked: Result<(Written, String), UnpackError>,
    expected: &Expected,
    limits: &super::Limits,
    store: &Inner,
) -> Result<(Written, String)> {
    let layer = expected.origin.clone();
    let refused = |entry: &str, reason: String| {
        Err(ImageError::Unpack { layer: layer.clone(), entry: entry.to_owned(), reason })
    };
    match unpacked {
        Err(UnpackError::NoSpace) => {
            return Err(ImageError::NoSpace { doing: "unpack an image into", path: store.dir.clone() });
        }
        Err(UnpackError::Cancelled) => return Err(ImageError::Cancelled),
        Err(UnpackError::TooLarge(limit)) if limit == limits.layer_entries => {
            return refused("(the last one)", format!("the layer has more than {limit} entries"));
        }
        Err(UnpackError::TooLarge(limit)) => {
            return Err(ImageError::TooLarge { what: format!("layer {layer}"), limit });
        }
        Ok(_) | Err(UnpackError::Entry(..) | UnpackError::Read(_)) => {}
    }
    let fed = fed.map_err(|error| source_error(error, expected))?;
    if let Some(want) = &expected.blob {
        check(&expected.origin, "as transferred", want, &fed.digest)?;
    }
    if let Some(damage) = fed.damage {
        return refused("(decompressing it)", damage.to_string());
    }
    match unpacked {
        Ok(done) => Ok(done),
        Err(UnpackError::Entry(entry, reason)) => refused(&entry, reason),
        Err(UnpackError::Read(error)) => refused("(its headers)", error.to_string()),
        Err(_) => Err(ImageError::Cancelled),
    }
}

fn source_error(error: io::Error, expected: &Expected) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(ours) => ours,
        Err(error) => {
            let (layer, entry) = (expected.origin.clone(), "(reading it)".to_owned());
            ImageError::Unpack { layer, entry, reason: error.to_string() }
        }
    }
}

fn check(origin: &str, when: &str, expected: &str, got: &str) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let what = format!("layer {origin} {when}");
    Err(ImageError::Digest { what, expected: expected.to_owned(), got: got.to_owned() })
}

/// Reads and decompresses the source into the channel. The source is read to its end even where the archive ended
/// before, could not be decompressed or is refused by the writer, for the digest is over all of it.
fn feed(
    source: impl Read,
    keep: Option<&std::fs::File>,
    sender: SyncSender<Vec<u8>>,
    limit: u64,
    hopeless: &AtomicBool,
) -> io::Result<Fed> {
    let mut source = Hashed::new(Tee { inner: source, copy: keep });
    let damage = match decompress_into(&mut source, &sender, limit) {
        Ok(()) => None,
        Err(e) if e.get_ref().is_some_and(|e| e.is::<ImageError>()) => return Err(e),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => None,
        Err(e) => Some(e),
    };
    drop(sender);
    if !hopeless.load(Ordering::Relaxed) {
        io::copy(&mut source, &mut io::sink())?;
    }
    Ok(Fed { digest: source.finish(), damage })
}

fn decompress_into(source: impl Read, sender: &SyncSender<Vec<u8>>, limit: u64) -> io::Result<()> {
    let mut plain = decompress(source)?;
    // Headers and padding come on top of the content, of which `unpack` keeps its own count.
    let mut left = limit.saturating_mul(2).saturating_add(1 << 20);
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        while filled < CHUNK {
            match plain.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        chunk.truncate(filled);
        if filled == 0 {
            return Ok(());
        }
        left = left.saturating_sub(filled as u64);
        if left == 0 {
            let what = "a layer".to_owned();
            return Err(io::Error::other(ImageError::TooLarge { what, limit }));
        }
        sender.send(chunk).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
}

/// Undoes gzip or zstd, told by the first bytes; what media types say is wrong often enough.
pub(crate) fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(CHUNK, source);
    let magic = source.fill_buf()?;
    let starts = |with: &[u8]| magic.starts_with(with);
    if starts(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(source)))
    } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) || (magic.len() > 4 && magic[1..4] == [0x2a, 0x4d, 0x18]) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(source)?))
    } else if starts(b"BZh") || starts(&[0xfd, b'7', b'z', b'X', b'Z']) {
        let reason = "it is compressed with bzip2 or xz; only gzip and zstd are read";
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    } else {
        Ok(Box::new(source))
    }
}

/// Hashes what is read through it.
pub(crate) struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    pub(crate) fn finish(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Copies what is read into a file.
struct Tee<'a, R> {
    inner: R,
    copy: Option<&'a std::fs::File>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(mut file) = self.copy {
            file.write_all(&buffer[..n]).at("keep a layer in", "blobs").map_err(io::Error::other)?;
        }
        Ok(n)
    }
}

/// Reports how far the source is, and ends it where the caller has lost interest.
struct Counted<'a, R> {
    inner: R,
    done: u64,
    reported: u64,
    expected: &'a Expected,
    progress: &'a Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.progress.check().map_err(io::Error::other)?;
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        if self.done - self.reported >= REPORT_EVERY || (n == 0 && self.reported < self.done) {
            self.reported = self.done;
            let (done, total) = (self.done, self.expected.size);
            self.progress.layer(&self.expected.diff_id, LayerState::Transferring { done, total });
        }
        Ok(n)
    }
}

/// The reading end of the channel between the threads.
struct Chunks {
    receiver: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

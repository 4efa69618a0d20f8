//! A watch on the headers of an archive as it is read.
//!
//! Long names and extended attributes come in records before an entry, which a reader of archives takes into memory
//! as a whole. Nothing in the format bounds them; this does, before they are read.

use std::io::{self, Read};

/// Bytes of one such record. Names are at most 4 KiB and the attributes of a file at most 64 KiB on Linux.
const MAX_RECORD: u64 = 1 << 20;
const BLOCK: usize = 512;

/// Passes an archive through, and fails where a record is too large.
pub(super) struct Headers<R> {
    inner: R,
    /// The header being collected.
    block: [u8; BLOCK],
    filled: usize,
    /// Bytes of content and padding until the next header.
    skip: u64,
    /// The content of a pax record being collected, which may give the next entry's size.
    record: Option<(Vec<u8>, usize)>,
    size: Option<u64>,
    /// Blocks of a sparse file's map follow.
    sparse: bool,
}

impl<R: Read> Headers<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, block: [0; BLOCK], filled: 0, skip: 0, record: None, size: None, sparse: false }
    }

    fn watch(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = usize::try_from(self.skip).unwrap_or(usize::MAX);
            // A sparse file's map stands before its content.
            if left > 0 && !self.sparse {
                let n = left.min(bytes.len());
                if let Some((record, length)) = &mut self.record {
                    let wanted = n.min(*length - record.len());
                    record.extend_from_slice(&bytes[..wanted]);
                }
                self.skip -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            if let Some((record, _)) = self.record.take() {
                self.size = pax_size(&record).or(self.size);
            }
            let n = (BLOCK - self.filled).min(bytes.len());
            self.block[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            if self.filled == BLOCK {
                self.filled = 0;
                self.header()?;
            }
        }
        Ok(())
    }

    fn header(&mut self) -> io::Result<()> {
        if self.sparse {
            self.sparse = self.block[504] == 1;
            return Ok(());
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&self.block);
        // Zeros end an archive, and a header that cannot be read is refused by who reads it.
        let Ok(size) = header.entry_size() else { return Ok(()) };
        let kind = header.entry_type();
        let extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        // What the reader of archives takes for an entry of an unknown kind, and so ends what was said about the next.
        let plain =
            kind.is_pax_global_extensions() || (header.as_gnu().is_none() && header.as_ustar().is_none());
        let size = if extension && plain {
            self.size = None;
            size
        } else if extension {
            if size > MAX_RECORD {
                let reason = format!("a record of {size} bytes before an entry, more than {MAX_RECORD}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            if kind.is_pax_local_extensions() {
                // At most MAX_RECORD, so within usize.
                self.record = Some((Vec::new(), size as usize));
            }
            size
        } else {
            self.sparse = kind.is_gnu_sparse() && self.block[482] == 1;
            self.size.take().unwrap_or(size)
        };
        self.skip = size.saturating_add(BLOCK as u64 - 1) / BLOCK as u64 * BLOCK as u64;
        Ok(())
    }
}

/// The `size` of a pax record, lines of `LENGTH KEY=VALUE`, as the reader of archives understands it: the first one,
/// and none after a line that is malformed.
fn pax_size(record: &[u8]) -> Option<u64> {
    let mut lines = tar::PaxExtensions::new(record).map_while(Result::ok);
    lines.find(|line| line.key() == Ok("size"))?.value().ok()?.parse().ok()
}

impl<R: Read> Read for Headers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.watch(&buffer[..n])?;
        Ok(n)
    }
}

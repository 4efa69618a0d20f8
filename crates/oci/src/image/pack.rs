//! A layer directory as an archive: the inverse of unpacking, and always the same bytes for the same directory.
//!
//! Entries come in the order of their names, times in whole seconds, owners by number only. Overlay's marks are turned
//! back into whiteouts. Sockets are left out, as nothing could use them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{ImageError, IoContext as _, Progress, Result};

const OPAQUE: &str = "trusted.overlay.opaque";

/// What packing a directory gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packed {
    /// Digest of the archive: the layer's diffID.
    pub(crate) digest: String,
    /// Bytes of the archive.
    pub(crate) size: u64,
    /// Bytes of the files in it.
    pub(crate) content: u64,
}

/// Writes the archive of `dir`.
pub(crate) fn pack(dir: &Path, writer: impl Write, progress: &Progress) -> Result<Packed> {
    let output = Output { inner: writer, hash: Sha256::new(), size: 0 };
    let mut builder = tar::Builder::new(output);
    let mut packer = Packer { builder: &mut builder, links: HashMap::new(), content: 0, progress };
    packer.directory(dir, Path::new(""))?;
    let content = packer.content;
    let output = builder.into_inner().at("pack", dir)?;
    let digest = format!("sha256:{}", hex::encode(output.hash.finalize()));
    Ok(Packed { digest, size: output.size, content })
}

/// Hashes and counts what is written.
struct Output<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Packer<'a, W: Write> {
    builder: &'a mut tar::Builder<Output<W>>,
    /// First path of a file that has several names.
    links: HashMap<(u64, u64), PathBuf>,
    content: u64,
    progress: &'a Progress,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, dir: &Path, path: &Path) -> Result<()> {
        self.progress.check()?;
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).at("list", dir)? {
            names.push(entry.at("list", dir)?.file_name());
        }
        names.sort();
        if xattr::get(dir, OPAQUE).at("read the attributes of", dir)?.is_some_and(|v| v == b"y") {
            self.append(&path.join(".wh..wh..opq"), &mut plain(EntryType::Regular, 0), &[][..])?;
        }
        for name in names {
            self.entry(&dir.join(&name), &path.join(&name))?;
        }
        Ok(())
    }

    fn entry(&mut self, file: &Path, path: &Path) -> Result<()> {
        let meta = fs::symlink_metadata(file).at("look at", file)?;
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            let mut name = std::ffi::OsString::from(".wh.");
            name.push(path.file_name().unwrap_or_default());
            return self.append(&path.with_file_name(name), &mut plain(EntryType::Regular, 0), &[][..]);
        }
        let mut header = plain(EntryType::Regular, meta.mode());
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        if !kind.is_dir() && meta.nlink() > 1 {
            match self.links.get(&(meta.dev(), meta.ino())) {
                Some(first) => {
                    header.set_entry_type(EntryType::Link);
                    let first = first.clone();
                    return self.link(file, path, &mut header, &first);
                }
                None => self.links.insert((meta.dev(), meta.ino()), path.to_owned()),
            };
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(file).at("read the link", file)?;
            return self.link(file, path, &mut header, &target);
        }
        if kind.is_socket() {
            return Ok(());
        }
        self.attributes(file)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.append(path, &mut header, &[][..])?;
            return self.directory(file, path);
        }
        if kind.is_file() {
            header.set_size(meta.len());
            self.content += meta.len();
            // A file that grows or shrinks meanwhile must not shift what follows it.
            let content = fs::File::open(file).at("open", file)?.take(meta.len());
            return self.append(path, &mut header, content.chain(io::repeat(0)).take(meta.len()));
        }
        header.set_entry_type(match (kind.is_fifo(), kind.is_block_device()) {
            (true, _) => EntryType::Fifo,
            (_, true) => EntryType::Block,
            _ => EntryType::Char,
        });
        header.set_device_major(libc::major(meta.rdev())).at("pack", file)?;
        header.set_device_minor(libc::minor(meta.rdev())).at("pack", file)?;
        self.append(path, &mut header, &[][..])
    }

    fn append(&mut self, path: &Path, header: &mut Header, content: impl io::Read) -> Result<()> {
        self.builder.append_data(header, path, content).at("pack", path)
    }

    fn link(&mut self, file: &Path, path: &Path, header: &mut Header, target: &Path) -> Result<()> {
        self.builder.append_link(header, path, target).map_err(|e| ImageError::io("pack", file, e))
    }

    /// The extended attributes that mean something elsewhere, in a record before the entry's own.
    fn attributes(&mut self, file: &Path) -> Result<()> {
        let mut names: Vec<_> = xattr::list(file).at("read the attributes of", file)?.collect();
        names.retain(|n| !n.as_bytes().starts_with(b"trusted.") && !n.as_bytes().starts_with(b"system."));
        names.sort();
        let mut records = Vec::with_capacity(names.len());
        for name in names {
            let value = xattr::get(file, &name).at("read the attributes of", file)?.unwrap_or_default();
            records.push((format!("SCHILY.xattr.{}", name.to_string_lossy()), value));
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records).at("pack", file)
    }
}

fn plain(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

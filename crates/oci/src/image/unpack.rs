//! A layer archive, written out as a directory that overlay can take as a lower one.
//!
//! The archive is not trusted. Every path is resolved by the kernel beneath the layer's root (`openat2` with
//! `RESOLVE_IN_ROOT`), so neither `..` nor a symbolic link that an earlier entry made leads out of it, and the last
//! component is never followed. A whiteout `.wh.NAME` becomes a character device 0:0, `.wh..wh..opq` the attribute
//! `trusted.overlay.opaque`; such attributes in the archive itself are dropped.

mod headers;
mod place;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use self::place::{Attributes, Root};
use super::{Limits, Progress};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Written {
    /// Bytes of regular files.
    pub(crate) bytes: u64,
    /// Entries of the archive.
    pub(crate) entries: u64,
}

/// Why an entry is refused, or why reading or writing failed.
#[derive(Debug)]
pub(crate) enum UnpackError {
    /// The entry must not or cannot be written; what it is called and why.
    Entry(String, String),
    /// The archive could not be read.
    Read(io::Error),
    /// The disk is full.
    NoSpace,
    /// The layer is larger than this many bytes or entries.
    TooLarge(u64),
    /// The caller has lost interest.
    Cancelled,
}

/// Unpacks an uncompressed archive into the empty directory `dir`.
pub(crate) fn unpack(
    archive: impl Read,
    dir: &Path,
    limits: &Limits,
    progress: &Progress,
) -> Result<Written, UnpackError> {
    let mut root = Root::open(dir).map_err(UnpackError::Read)?;
    let mut archive = tar::Archive::new(headers::Headers::new(archive));
    let mut layer = Layer { written: Written::default(), limits: *limits, directories: HashMap::new() };
    for entry in archive.entries().map_err(UnpackError::Read)? {
        let mut entry = entry.map_err(UnpackError::Read)?;
        if progress.is_cancelled() {
            return Err(UnpackError::Cancelled);
        }
        layer.written.entries += 1;
        if layer.written.entries > limits.layer_entries {
            return Err(UnpackError::TooLarge(limits.layer_entries));
        }
        let path = entry.path_bytes().into_owned();
        layer.entry(&mut root, &mut entry, &path).map_err(|error| match error {
            Refusal::Reason(reason) => {
                UnpackError::Entry(String::from_utf8_lossy(&path).into_owned(), reason)
            }
            Refusal::TooLarge => UnpackError::TooLarge(limits.layer_bytes),
            Refusal::Io(e) if matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                UnpackError::NoSpace
            }
            Refusal::Io(e) => UnpackError::Entry(String::from_utf8_lossy(&path).into_owned(), e.to_string()),
            Refusal::Read(e) => UnpackError::Read(e),
        })?;
    }
    layer.finish_directories(&mut root)?;
    Ok(layer.written)
}

/// Why one entry could not be written.
enum Refusal {
    Reason(String),
    Io(io::Error),
    Read(io::Error),
    TooLarge,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::Error> for Refusal {
    fn from(error: nix::Error) -> Self {
        Self::Io(error.into())
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Reason(reason.into()))
}

struct Layer {
    written: Written,
    limits: Limits,
    /// Times of directories, set last because making an entry in one changes them.
    directories: HashMap<PathBuf, i64>,
}

impl Layer {
    fn entry<R: Read>(
        &mut self,
        root: &mut Root,
        entry: &mut tar::Entry<'_, R>,
        path: &[u8],
    ) -> Result<(), Refusal> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = clean(path)?;
        let attributes = attributes(entry)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself.
            self.directories.insert(PathBuf::new(), attributes.modified);
            return Ok(root.set_root(&attributes)?);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(root, parent, hidden);
        }
        let parent_fd = root.directory(parent)?;
        match kind {
            EntryType::Directory => {
                parent_fd.directory(&name, &attributes)?;
                self.directories.insert(path.clone(), attributes.modified);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if self.written.bytes.saturating_add(entry.size()) > self.limits.layer_bytes {
                    return Err(Refusal::TooLarge);
                }
                let file = parent_fd.file(&name)?;
                let size = copy(entry, &file)?;
                self.written.bytes += size;
                place::set_file(&file, &attributes)?;
            }
            EntryType::Symlink => {
                let target = link_target(entry)?;
                parent_fd.symlink(&name, &target, &attributes)?;
            }
            EntryType::Link => {
                let target = clean(link_target(entry)?.as_bytes())?;
                let Some(target_name) = target.file_name() else {
                    return refuse("it is a hard link to the root");
                };
                // Two directory handles: the one for the new name may be the cached one.
                let from = root.directory_uncached(target.parent().unwrap_or(Path::new("")))?;
                let parent_fd = root.directory(parent)?;
                match parent_fd.hard_link(&name, &from, target_name) {
                    Err(nix::Error::ENOENT) => {
                        return refuse(format!(
                            "it is a hard link to `{}`, which is not in the layer",
                            target.display()
                        ));
                    }
                    linked => linked?,
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let device = device_number(kind, entry.header())?;
                if kind == EntryType::Char && device == (0, 0) {
                    return refuse("it is a device 0:0, which would hide a file of a lower layer");
                }
                parent_fd.device(&name, kind, device, &attributes)?;
            }
            other => return refuse(format!("it is of the unknown type {:?}", char::from(other.as_byte()))),
        }
        Ok(())
    }

    fn finish_directories(&self, root: &mut Root) -> Result<(), UnpackError> {
        for (path, modified) in &self.directories {
            match root.touch_directory(path, *modified) {
                // A later entry may have replaced the directory by something else.
                Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) | Ok(()) => {}
                Err(e) => return Err(UnpackError::Entry(path.display().to_string(), e.to_string())),
            }
        }
        Ok(())
    }
}

/// A pipe has none, and not every writer of archives fills the fields for it.
fn device_number(kind: EntryType, header: &tar::Header) -> Result<(u32, u32), Refusal> {
    match (kind, header.device_major(), header.device_minor()) {
        (EntryType::Fifo, ..) => Ok((0, 0)),
        (_, Ok(Some(major)), Ok(Some(minor))) => Ok((major, minor)),
        _ => refuse("it is a device without a number"),
    }
}

/// A path of the archive as one relative to the layer's root: `/` and `.` dropped, `..` refused.
fn clean(path: &[u8]) -> Result<PathBuf, Refusal> {
    if path.contains(&0) {
        return refuse("its name has a zero byte");
    }
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(part) if part.len() > 255 => return refuse("a part of its name is too long"),
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return refuse("its path leads out of the layer"),
        }
    }
    Ok(clean)
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<OsString, Refusal> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() => Ok(OsString::from_vec(target.into_owned())),
        _ => refuse("it is a link to nothing"),
    }
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Attributes, Refusal> {
    let header = entry.header();
    // An empty field is how some writers say 0.
    let id = |field: &[u8], id: io::Result<u64>| match id {
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        id => id
            .ok()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or(Refusal::Reason("its owner is not a user id".to_owned())),
    };
    let mut attributes = Attributes {
        mode: header.mode().map_err(Refusal::Read)? & 0o7777,
        uid: id(&header.as_old().uid, header.uid())?,
        gid: id(&header.as_old().gid, header.gid())?,
        modified: header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0),
        xattrs: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions().map_err(Refusal::Read)? else { return Ok(attributes) };
    for extension in extensions {
        let extension = extension.map_err(Refusal::Read)?;
        let (key, value) = (extension.key_bytes(), extension.value_bytes());
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            // `trusted` is the host administrator's and overlay's; `system` holds ACLs whose form differs.
            if !name.starts_with(b"trusted.") && !name.starts_with(b"system.") {
                attributes.xattrs.push((OsString::from_vec(name.to_vec()), value.to_vec()));
            }
        } else if key == b"mtime" {
            // Fractions are dropped: what checks times (Python's caches) counts in seconds.
            let seconds = std::str::from_utf8(value).ok().and_then(|v| v.split('.').next()?.parse().ok());
            attributes.modified = seconds.unwrap_or(attributes.modified);
        } else if key.starts_with(b"GNU.sparse.") {
            return refuse("it is a sparse file in the pax form, which is not supported");
        }
    }
    Ok(attributes)
}

fn whiteout(root: &mut Root, parent: &Path, hidden: &[u8]) -> Result<(), Refusal> {
    match hidden {
        b".wh..opq" => Ok(root.directory(parent)?.set_opaque(None)?),
        // Book-keeping of aufs.
        name if name.starts_with(b".wh.") => Ok(()),
        b"" | b"." | b".." => refuse("it is a whiteout of nothing"),
        name => Ok(root.directory(parent)?.whiteout(OsStr::from_bytes(name))?),
    }
}

/// Copies an entry's content, leaving holes where it has blocks of zeros.
fn copy(entry: &mut impl Read, file: &std::fs::File) -> Result<u64, Refusal> {
    use std::os::unix::fs::FileExt as _;
    // As large as the chunks that arrive; a multiple of every file system's block.
    let mut buffer = vec![0; 128 << 10];
    let (mut size, mut end) = (0, 0);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match entry.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Refusal::Read(e)),
            }
        }
        if filled == 0 {
            break;
        }
        // Small files are written as they are: a hole saves nothing there.
        if filled < 4096 || buffer[..filled].iter().any(|&b| b != 0) {
            file.write_all_at(&buffer[..filled], size)?;
            end = size + filled as u64;
        }
        size += filled as u64;
    }
    if end < size {
        file.set_len(size)?;
    }
    Ok(size)
}

#[cfg(test)]
mod tests;

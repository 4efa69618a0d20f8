//! Archives of images, read at random: where in the file each member lies.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::manifest::MAX_DOCUMENT;
use super::store::Inner;
use super::{ImageError, IoContext as _, Progress, Result, Staging, layer};

/// Members of one archive: a layout of a hundred images has some thousand. The list is kept in memory.
const MAX_MEMBERS: usize = 200_000;

/// An uncompressed archive on disk.
pub(crate) struct Archive {
    file: Arc<File>,
    /// What to call it in errors.
    path: PathBuf,
    members: HashMap<String, Member>,
    /// Removes the copy on disk of an archive that came compressed or through a pipe.
    _copy: Option<Staging>,
}

#[derive(Clone, Debug)]
enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Old archives link equal layers to one another.
    Link(String),
}

/// A part of a file, read without moving a shared position.
pub(crate) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Archive {
    /// Opens an archive file; a compressed one is put on disk uncompressed first.
    pub(crate) fn open(store: &Inner, path: &Path, progress: &Progress) -> Result<Self> {
        let mut file = File::open(path).at("open", path)?;
        if !file.metadata().at("look at", path)?.is_file() {
            return Self::copy(store, file, path, progress);
        }
        let mut magic = [0; 262];
        let n = file.read_at(&mut magic, 0).at("read", path)?;
        // The mark of a tar archive, which compressed data has at no such place.
        if n == 262 && magic[257..262] == *b"ustar" {
            file.rewind().at("read", path)?;
            return Self::index(file, path, None);
        }
        Self::copy(store, file, path, progress)
    }

    /// Takes an archive from a stream, compressed or not. `name` stands for it in errors.
    pub(crate) fn copy(store: &Inner, source: impl Read, name: &Path, progress: &Progress) -> Result<Self> {
        let bad = |reason: String| ImageError::Archive { path: name.to_owned(), reason };
        let (staging, mut file) = store.stage_file("archive")?;
        let mut plain = layer::decompress(source).map_err(|e| bad(e.to_string()))?;
        let limit = store.config.limits.archive_bytes;
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            progress.check()?;
            let n = match plain.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|e| bad(e.to_string()))?,
            };
            if n == 0 {
                break;
            }
            size += n as u64;
            if size > limit {
                return Err(ImageError::TooLarge { what: name.display().to_string(), limit });
            }
            file.write_all(&buffer[..n]).at("write a copy of an archive to", staging.path())?;
        }
        file.rewind().at("read", staging.path())?;
        Self::index(file, name, Some(staging))
    }

    fn index(file: File, path: &Path, copy: Option<Staging>) -> Result<Self> {
        let bad = |reason: String| ImageError::Archive { path: path.to_owned(), reason };
        // The reader's words can quote the file.
        let broken = |e: io::Error| match e.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                bad("it is not a valid tar file: damaged, cut short or of another format".to_owned())
            }
            _ => bad(format!("it cannot be read: {e}")),
        };
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let Some(name) = entry.path().ok().and_then(|p| member_name(&p)) else { continue };
            let kind = entry.header().entry_type();
            let member = if kind.is_symlink() || kind.is_hard_link() {
                let Ok(Some(target)) = entry.link_name() else { continue };
                let beside = if kind.is_symlink() { Path::new(&name).parent() } else { None };
                match member_name(&beside.unwrap_or(Path::new("")).join(target)) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            } else if kind.is_file() {
                Member::File { offset: entry.raw_file_position(), size: entry.size() }
            } else {
                continue;
            };
            members.insert(name, member);
            if members.len() > MAX_MEMBERS {
                return Err(bad(format!("it has more than {MAX_MEMBERS} members")));
            }
        }
        if members.is_empty() {
            return Err(bad("it has no members".to_owned()));
        }
        Ok(Self { file: Arc::new(file), path: path.to_owned(), members, _copy: copy })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(crate) fn bad(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Archive { path: self.path.clone(), reason: reason.into() }
    }

    /// A member's content and its size.
    pub(crate) fn open_member(&self, name: &str) -> Result<(Section, u64)> {
        let asked = name;
        let mut name = member_name(Path::new(asked)).unwrap_or_default();
        // A link to a link does occur; a circle must end.
        for _ in 0..8 {
            match self.members.get(&name) {
                Some(Member::File { offset, size }) => {
                    let section = Section { file: Arc::clone(&self.file), at: *offset, end: offset + size };
                    return Ok((section, *size));
                }
                Some(Member::Link(target)) => name.clone_from(target),
                None => break,
            }
        }
        Err(self.bad(format!("it lacks the member `{asked}`")))
    }

    /// A small member as a whole.
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let (mut section, size) = self.open_member(name)?;
        if size > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what: format!("the document `{name}`"), limit: MAX_DOCUMENT });
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).at("read", &self.path)?;
        Ok(bytes)
    }
}

/// `./a/../b/` as `b`; `None` where it leads out of the archive.
fn member_name(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

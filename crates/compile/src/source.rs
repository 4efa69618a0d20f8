//! The text of a description file, and the conversion of byte offsets to positions.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        linux::fs::MetadataExt,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::diagnostic::{Diagnostic, Position};

/// A description is written by hand; 16 MiB is far above any (the largest manifests known have about 6 MiB) and keeps
/// a mistaken path, such as a disk image, from filling the memory.
pub(crate) const MAX_BYTES: u64 = 16 << 20;

/// Device number of `/dev/null`, which stands for an empty file.
const NULL_DEVICE: u64 = (1 << 8) | 3;

/// Reads a regular file of at most `limit` bytes. Files without an end (`/dev/zero`) and named pipes, on which a read may
/// block for ever, are refused. Pipes opened by the caller's shell, such as `<(command)`, and `/dev/null` are read.
///
/// # Errors
///
/// The file cannot be read, is not a regular file, or is larger than `limit`.
pub fn read_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK, opening a named pipe blocks until it has a writer.
    let mut file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    let kind = meta.file_type();
    if kind.is_fifo() && is_descriptor(path) {
        file = File::open(path)?;
    } else if !(kind.is_file() || kind.is_char_device() && meta.st_rdev() == NULL_DEVICE) {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Whether a path names an open file descriptor of this process.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/fd", "/dev/stdin", "/proc/self/fd"].iter().any(|open| path.starts_with(open))
}

/// A file's text.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: Arc<Path>,
    pub text: String,
}

impl Source {
    pub fn read(path: &Path) -> Result<Source, Diagnostic> {
        let bytes = read_bytes(path, MAX_BYTES).map_err(|e| match e.kind() {
            io::ErrorKind::FileTooLarge => {
                Diagnostic::of_file(path, "is larger than 16 MiB, the limit for descriptions")
            }
            _ => Diagnostic::of_file(path, format!("cannot be read: {e}")),
        })?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source { path: path.into(), text }),
            Err(e) => {
                let valid = e.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&e.as_bytes()[..valid]).into_owned();
                let source = Source { path: path.into(), text };
                Err(Diagnostic::new(&source.at(valid), "is not UTF-8 text from here on"))
            }
        }
    }

    /// Position of the byte at `offset`, or of the end of the text if `offset` is beyond it.
    pub fn at(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Position {
            file: self.path.clone(),
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// Position of a line and column, both from 1.
    pub fn at_line(&self, line: usize, column: usize) -> Position {
        Position { file: self.path.clone(), line: line.max(1), column: column.max(1) }
    }
}

/// Removes `.` and `..` from a path lexically; symbolic links are not followed.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                let inside = matches!(out.components().next_back(), Some(Component::Normal(_)));
                if inside {
                    out.pop();
                } else if !out.has_root() {
                    out.push("..");
                }
            }
            part => out.push(part),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let plain = directory.path().join("plain");
        std::fs::write(&plain, "12345").expect("a file");
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
        for (path, limit, expect) in [
            (plain.as_path(), 5, Ok("12345")),
            (&plain, 4, Err("it is larger than 4 bytes")),
            (Path::new("/dev/null"), 4, Ok("")),
            (Path::new("/dev/zero"), 4, Err("it is not a plain file")),
            (&link, 4, Err("it is not a plain file")),
            (&pipe, 4, Err("it is not a plain file")),
            (directory.path(), 4, Err("it is not a plain file")),
        ] {
            let read = read_bytes(path, limit).map_err(|e| e.to_string());
            let read = read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert_eq!(read, expect.map(String::from).map_err(String::from), "{}", path.display());
        }
    }
}

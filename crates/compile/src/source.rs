//! The text of a description and where in it a byte is.

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

/// Device number of `/dev/null`, which people name to say that there is nothing to read.
const NULL_DEVICE: u64 = (1 << 8) | 3;

/// At most `limit` bytes of a plain file; those of a larger one are an error. What has no end (`/dev/zero`) or may never
/// have a beginning (a named pipe without a writer) is no plain file. Pipes that the caller's shell has opened, as
/// `<(command)` does, are read, and so is `/dev/null`.
///
/// # Errors
///
/// The file cannot be read, is not plain, or is too large.
pub fn read_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Without this flag opening a named pipe waits for its writer.
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

/// Whether a path names an open file of this process.
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
                Diagnostic::of_file(path, "is larger than 16 MiB, which no description is")
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

    /// The place of the byte at `offset`; past the end it is the end.
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

    /// The place of a line and column, both from 1.
    pub fn at_line(&self, line: usize, column: usize) -> Position {
        Position { file: self.path.clone(), line: line.max(1), column: column.max(1) }
    }
}

/// A path without `.` and `..`, as text alone shows it; links are not followed.
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

//! The text of a description and where in it a byte is.

use std::{
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::diagnostic::{Diagnostic, Position};

/// A description is written by hand; 16 MiB is far above any (the largest manifests known have about 6 MiB) and keeps
/// a mistaken path, such as a disk image, from filling the memory.
const MAX_BYTES: u64 = 16 << 20;

/// A file's text.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: Arc<Path>,
    pub text: String,
}

impl Source {
    pub fn read(path: &Path) -> Result<Source, Diagnostic> {
        let broken = |e: std::io::Error| Diagnostic::of_file(path, format!("cannot be read: {e}"));
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(broken)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Diagnostic::of_file(path, "is larger than 16 MiB, which no description is"));
        }
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

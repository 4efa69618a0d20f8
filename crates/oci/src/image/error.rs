//! What can go wrong with images. Each text is one sentence: what happened, where, what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand of this module.
pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// Why an image could not be had, kept or built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the sentences say what the fields are
pub enum ImageError {
    #[error(
        "`{text}` is not an image name: {reason}; write it like `redis`, `redis:7` or `registry.example.org/team/app:v1`"
    )]
    Reference { text: String, reason: &'static str },
    #[error("the image store {} is in use by {holder}; stop it, or choose another directory", dir.display())]
    InUse { dir: PathBuf, holder: String },
    #[error("could not {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the disk is full: could not {doing} {}; free some space there and try again", path.display())]
    NoSpace { doing: &'static str, path: PathBuf },
    #[error("the image store is damaged: {} {reason}; remove that file to start with an empty store", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is not an image archive that can be imported: {reason}; make it with `docker save` or as an OCI layout", path.display())]
    Archive { path: PathBuf, reason: String },
    #[error(
        "{what} does not match its digest (expected {expected}, got {got}); it was altered or cut short, get it again"
    )]
    Digest { what: String, expected: String, got: String },
    #[error("layer {layer} is refused at the entry `{entry}`: {reason}")]
    Unpack { layer: String, entry: String, reason: String },
    #[error("no image `{0}` is on this machine; pull, import or build it first")]
    NotFound(String),
    #[error("could not pull `{reference}`: {reason}")]
    Registry { reference: String, reason: String },
    #[error(
        "the registry refused access to `{0}`; the image does not exist, or it needs a user name and password that are allowed to pull it"
    )]
    Unauthorized(String),
    #[error("`{reference}` has no image for {wanted}, only for {found}; choose another tag")]
    Platform { reference: String, wanted: String, found: String },
    #[error("{what} is larger than the limit of {limit} bytes; use a smaller image or raise the limit")]
    TooLarge { what: String, limit: u64 },
    #[error("stopped before it was finished")]
    Cancelled,
    #[error("{file}, line {line}: {reason}")]
    BuildFile { file: String, line: usize, reason: String },
    #[error("could not build `{name}`: {reason}")]
    Build { name: String, reason: String },
}

/// Turns an [`io::Error`] into an [`ImageError`] that says what was being done, and where.
pub(crate) trait IoContext<T> {
    /// `doing` completes "could not …"; `path` is what it was done to.
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| ImageError::io(doing, path.as_ref(), source))
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| ImageError::io(doing, path.as_ref(), e.into()))
    }
}

impl ImageError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        // A reader may carry one of ours through `io::Error`; it says more than the wrapping would.
        let source = match source.downcast::<ImageError>() {
            Ok(ours) => return ours,
            Err(source) => source,
        };
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace { doing, path },
            _ => Self::Io { doing, path, source },
        }
    }

    pub(crate) fn registry(reference: &crate::image::Reference, reason: impl std::fmt::Display) -> Self {
        Self::Registry { reference: reference.to_string(), reason: tidy_reason(&reason.to_string()) }
    }
}

/// One line of at most 400 characters: what other programs say may be long.
pub(crate) fn tidy_reason(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(400) {
        line.truncate(at);
        line.push('…');
    }
    line
}

use crate::{KeyValue, Revision};

/// A question for the keys between two ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key that counts.
    pub start: String,
    /// The first key that does not count any more; empty means there is no end.
    pub end: String,
    /// The most keys to return; 0 means all.
    pub limit: usize,
    /// As of which revision to answer; `None` means the latest.
    pub revision: Option<Revision>,
}

impl Range {
    /// All keys that begin with `prefix`, at the latest revision.
    pub fn prefix(prefix: &str) -> Range {
        Range { start: prefix.to_owned(), end: prefix_end(prefix), limit: 0, revision: None }
    }
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys in order, at most `limit`.
    pub items: Vec<KeyValue>,
    /// Whether the limit left keys out. To get them, ask again at `revision` with `start` set to
    /// [`key_after`] the last key.
    pub more: bool,
    /// How many keys of the range follow the last one returned.
    pub remaining: u64,
    /// The revision the items are from: the one asked for, or else the latest.
    pub revision: Revision,
}

/// The `end` of the range of all keys that begin with `prefix`: the smallest key greater than all of
/// them, or empty (no end) where there is none.
///
/// ```
/// assert_eq!(yado_store::prefix_end("/pods/"), "/pods0");
/// assert_eq!(yado_store::prefix_end(""), "");
/// ```
pub fn prefix_end(prefix: &str) -> String {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // A range over `char` steps over the surrogates, and UTF-8 sorts as its code points do.
        if let Some(next) = (last..=char::MAX).nth(1) {
            characters.push(next);
            return characters.into_iter().collect();
        }
    }
    String::new()
}

/// The smallest key greater than `key`: where to continue after it.
pub fn key_after(key: &str) -> String {
    format!("{key}\0")
}

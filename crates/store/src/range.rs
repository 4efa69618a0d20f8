use crate::{KeyValue, Revision};

/// A query for the keys from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Lower bound, inclusive.
    pub start: String,
    /// Upper bound, exclusive; empty means unbounded.
    pub end: String,
    /// Maximum number of keys to return; 0 means unlimited.
    pub limit: usize,
    /// The revision to read at; `None` means the latest.
    pub revision: Option<Revision>,
}

impl Range {
    /// All keys that begin with `prefix`, at the latest revision.
    pub fn prefix(prefix: &str) -> Range {
        Range { start: prefix.to_owned(), end: prefix_end(prefix), limit: 0, revision: None }
    }
}

/// The result of a [`Range`] query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// Keys and values in key order, at most [`Range::limit`].
    pub items: Vec<KeyValue>,
    /// Whether the limit truncated the result. The next page is the same query at `revision` with `start`
    /// set to [`key_after`] of the last key.
    pub more: bool,
    /// Number of keys of the range after the last returned one.
    pub remaining: u64,
    /// The revision that was read: the requested one, or the latest.
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

/// The smallest key greater than `key`, from which a paged list continues.
pub fn key_after(key: &str) -> String {
    format!("{key}\0")
}

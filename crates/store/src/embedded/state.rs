//! The state in memory: the live keys, and a log of recent events.
//!
//! The log serves three purposes. Watches replay it. A read at an older revision starts from the live
//! keys and reverts the events since, each of which has the previous state of its key. Compaction drops
//! its oldest entries. So no key needs a history of its own.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::transaction::within;
use crate::{Error, KeyValue, Range, RangeResult, Result, Revision, WatchEvent};

/// A log entry: the events of one revision.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// At least one event.
    pub(crate) events: Arc<[WatchEvent]>,
    /// Estimate of the memory that dropping the entry would free, in bytes.
    pub(crate) bytes: usize,
}

impl Entry {
    pub(crate) fn new(events: Vec<WatchEvent>) -> Entry {
        let superseded: usize = events.iter().filter_map(WatchEvent::previous).map(KeyValue::size).sum();
        Entry { bytes: superseded + events.len() * size_of::<WatchEvent>(), events: events.into() }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.events[0].revision()
    }
}

/// Limits of the log, above which the oldest entries are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    pub(crate) revisions: usize,
    pub(crate) bytes: usize,
}

/// The store's state in memory.
#[derive(Debug)]
pub(crate) struct State {
    live: BTreeMap<Arc<str>, KeyValue>,
    live_bytes: usize,
    /// One entry for each revision after `compacted`, up to `revision`.
    log: VecDeque<Entry>,
    log_bytes: usize,
    revision: Revision,
    compacted: Revision,
}

type Bounds<'a> = (Bound<&'a str>, Bound<&'a str>);

/// The bounds of a range for a `BTreeMap`; `None` if the range is empty.
fn bounds<'a>(start: &'a str, end: &'a str) -> Option<Bounds<'a>> {
    match end {
        "" => Some((Bound::Included(start), Bound::Unbounded)),
        _ if start < end => Some((Bound::Included(start), Bound::Excluded(end))),
        _ => None,
    }
}

impl State {
    /// The state after loading a database file, which has no history.
    pub(crate) fn new(revision: Revision, keys: Vec<KeyValue>) -> State {
        State {
            live_bytes: keys.iter().map(KeyValue::size).sum(),
            live: keys.into_iter().map(|kv| (kv.key.clone(), kv)).collect(),
            log: VecDeque::new(),
            log_bytes: 0,
            revision,
            compacted: revision,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    pub(crate) fn get(&self, key: &str) -> Option<&KeyValue> {
        self.live.get(key)
    }

    /// The live keys of a range with their values, in key order.
    pub(crate) fn live<'a>(&'a self, start: &str, end: &str) -> impl Iterator<Item = &'a KeyValue> + use<'a> {
        let found = bounds(start, end).map(|bounds| self.live.range::<str, _>(bounds));
        found.into_iter().flatten().map(|(_, kv)| kv)
    }

    /// Answers a query. Fails as [`State::check_readable`] does.
    pub(crate) fn range(&self, range: &Range) -> Result<RangeResult> {
        let revision = range.revision.unwrap_or(self.revision);
        self.check_readable(revision)?;
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut page = Page { items: Vec::new(), limit, remaining: 0 };
        if revision == self.revision {
            self.live(&range.start, &range.end).for_each(|kv| page.add(kv));
        } else {
            self.earlier(&range.start, &range.end, revision, &mut page);
        }
        Ok(RangeResult { more: page.remaining > 0, remaining: page.remaining, items: page.items, revision })
    }

    /// Fills a page with the keys of the range at an earlier revision.
    fn earlier(&self, start: &str, end: &str, revision: Revision, page: &mut Page) {
        let mut since: BTreeMap<&str, Option<&KeyValue>> = BTreeMap::new();
        for event in self.entries_after(revision).flat_map(|entry| entry.events.iter()) {
            if within(event.key(), start, end) {
                // The first change after the revision has the key's state at the revision.
                since.entry(event.key()).or_insert(event.previous());
            }
        }
        let mut since = since.into_iter().peekable();
        for kv in self.live(start, end) {
            let mut changed = false;
            while let Some((key, before)) = since.next_if(|(key, _)| *key <= &*kv.key) {
                changed |= key == &*kv.key;
                before.into_iter().for_each(|kv| page.add(kv));
            }
            if !changed {
                page.add(kv);
            }
        }
        since.filter_map(|(_, before)| before).for_each(|kv| page.add(kv));
    }

    /// The entries with a revision greater than `after`, which must not be compacted.
    pub(crate) fn entries_after(&self, after: Revision) -> impl Iterator<Item = &Entry> {
        // The log is in memory, so its length and any index into it fit.
        let skip = (after.max(self.compacted) - self.compacted) as usize;
        self.log.range(skip.min(self.log.len())..)
    }

    /// Checks that the store can be read at this revision and watched from it. Fails with
    /// [`Error::Compacted`] or [`Error::FutureRevision`].
    pub(crate) fn check_readable(&self, revision: Revision) -> Result<()> {
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, oldest: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision { requested: revision, current: self.revision });
        }
        Ok(())
    }

    /// Applies committed entries. Returns the log entries that are dropped by its limits, so that the caller
    /// can free their memory without holding the lock.
    pub(crate) fn apply(&mut self, entries: &[Entry], limits: LogLimits) -> Vec<Entry> {
        for entry in entries {
            for event in entry.events.iter() {
                match event {
                    WatchEvent::Put { kv, .. } => {
                        self.live_bytes += kv.size();
                        self.live.insert(kv.key.clone(), kv.clone());
                    }
                    WatchEvent::Delete { key, .. } => {
                        self.live.remove(key);
                    }
                }
                self.live_bytes -= event.previous().map_or(0, KeyValue::size);
            }
            self.revision = entry.revision();
            self.log_bytes += entry.bytes;
            self.log.push_back(entry.clone());
        }
        let mut dropped = Vec::new();
        while self.log.len() > limits.revisions || self.log_bytes > limits.bytes {
            dropped.extend(self.drop_oldest());
        }
        dropped
    }

    /// Makes `before` the oldest readable revision. Returns the dropped log entries, as [`State::apply`]
    /// does.
    pub(crate) fn compact(&mut self, before: Revision) -> Result<Vec<Entry>> {
        if before > self.revision {
            return Err(Error::FutureRevision { requested: before, current: self.revision });
        }
        let mut dropped = Vec::new();
        while self.compacted < before {
            dropped.extend(self.drop_oldest());
        }
        // After a burst of writes the log's buffer would keep its size for ever.
        if self.log.len() < self.log.capacity() / 4 {
            self.log.shrink_to(2 * self.log.len());
        }
        Ok(dropped)
    }

    fn drop_oldest(&mut self) -> Option<Entry> {
        let entry = self.log.pop_front()?;
        self.compacted = entry.revision();
        self.log_bytes -= entry.bytes;
        Some(entry)
    }
}

/// The items of a range up to its limit, and the number of items beyond it.
struct Page {
    items: Vec<KeyValue>,
    limit: usize,
    remaining: u64,
}

impl Page {
    fn add(&mut self, kv: &KeyValue) {
        if self.items.len() < self.limit {
            self.items.push(kv.clone());
        } else {
            self.remaining += 1;
        }
    }
}

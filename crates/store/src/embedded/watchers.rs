//! Delivery of committed events to watches. Each watch has a bounded backlog of its own, so that a slow
//! one delays neither the writer nor other watches.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;

use super::state::Entry;
use crate::transaction::within;
use crate::{Error, Result, Revision, WatchEvent, WatchSource};

/// Limits of a watch's backlog, above which the watch ends with [`Error::Lagged`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailboxLimits {
    pub(crate) revisions: usize,
    pub(crate) bytes: usize,
}

/// The open watches of a store.
#[derive(Debug)]
pub(crate) struct Watchers {
    registry: Mutex<Registry>,
    /// All events up to this revision have been added to the backlogs.
    published: AtomicU64,
    limits: MailboxLimits,
}

#[derive(Debug, Default)]
struct Registry {
    mailboxes: Vec<Arc<Mailbox>>,
    closed: bool,
}

impl Watchers {
    pub(crate) fn new(revision: Revision, limits: MailboxLimits) -> Watchers {
        Watchers { registry: Mutex::default(), published: AtomicU64::new(revision), limits }
    }

    /// Starts a watch that delivers the entries `replay` first and then those published after `revision`.
    /// The caller holds the lock of the state, so that no entry is lost or repeated in between.
    pub(crate) fn register<'a>(
        self: &Arc<Self>,
        (start, end): (String, String),
        after: Revision,
        replay: impl Iterator<Item = &'a Entry>,
        revision: Revision,
    ) -> Result<EmbeddedWatch> {
        let mut letters =
            Letters { delivered: after, progress: after, replayed: revision, ..Letters::default() };
        // The size of the replay is bounded by the log, with which it shares the entries.
        for entry in replay {
            if let Some(events) = matching(&entry.events, &start, &end) {
                letters.add(events);
            }
        }
        let mailbox = Arc::new(Mailbox { start, end, letters: Mutex::new(letters) });
        let mut registry = self.registry.lock();
        if registry.closed {
            return Err(Error::Closed);
        }
        registry.mailboxes.push(mailbox.clone());
        Ok(EmbeddedWatch { mailbox, watchers: self.clone() })
    }

    /// Adds committed entries, in order, to the backlogs of the watches whose ranges they touch.
    pub(crate) fn publish(&self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        let mut wakers = Vec::new();
        {
            let mut registry = self.registry.lock();
            registry.mailboxes.retain(|mailbox| mailbox.put(entries, self.limits, &mut wakers));
            self.published.store(last.revision(), Ordering::Release);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.registry.lock().mailboxes.len()
    }

    /// Ends every watch after its backlog with [`Error::Closed`], and rejects new ones.
    pub(crate) fn close(&self) {
        let mailboxes = {
            let mut registry = self.registry.lock();
            registry.closed = true;
            std::mem::take(&mut registry.mailboxes)
        };
        for mailbox in mailboxes {
            let waker = {
                let mut letters = mailbox.letters.lock();
                letters.end.get_or_insert(Error::Closed);
                letters.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// The events of a revision in a range; not copied if that is all of them.
fn matching(events: &Arc<[WatchEvent]>, start: &str, end: &str) -> Option<Arc<[WatchEvent]>> {
    let in_range = |event: &&WatchEvent| within(event.key(), start, end);
    match events.iter().filter(in_range).count() {
        0 => None,
        all if all == events.len() => Some(events.clone()),
        _ => Some(events.iter().filter(in_range).cloned().collect()),
    }
}

#[derive(Debug)]
struct Mailbox {
    start: String,
    end: String,
    letters: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    waiting: VecDeque<Arc<[WatchEvent]>>,
    bytes: usize,
    /// The revision of the last delivered events, or the one from which the watch started.
    delivered: Revision,
    /// The highest progress that was reported, which must not decrease.
    progress: Revision,
    /// The replay had all events up to this revision, which are not added again.
    replayed: Revision,
    /// The error that ends the watch after its backlog.
    end: Option<Error>,
    ended: bool,
    waker: Option<Waker>,
}

fn size(events: &[WatchEvent]) -> usize {
    let value = |event: &WatchEvent| match event {
        WatchEvent::Put { kv, .. } => kv.size(),
        WatchEvent::Delete { key, .. } => key.len(),
    };
    events.iter().map(value).sum()
}

impl Letters {
    fn add(&mut self, events: Arc<[WatchEvent]>) {
        self.bytes += size(&events);
        self.waiting.push_back(events);
    }
}

impl Mailbox {
    /// Adds the events in this watch's range. Returns false if the backlog exceeds its limits, which ends
    /// the watch.
    fn put(&self, entries: &[Entry], limits: MailboxLimits, wakers: &mut Vec<Waker>) -> bool {
        let mut letters = self.letters.lock();
        let before = letters.waiting.len();
        for entry in entries {
            if entry.revision() <= letters.replayed {
                continue;
            }
            let Some(events) = matching(&entry.events, &self.start, &self.end) else { continue };
            if letters.waiting.len() >= limits.revisions || letters.bytes > limits.bytes {
                let last = letters.waiting.back().and_then(|events| events.first());
                let delivered = last.map_or(letters.delivered, WatchEvent::revision);
                letters.end = Some(Error::Lagged { delivered });
                break;
            }
            letters.add(events);
        }
        if letters.waiting.len() > before || letters.end.is_some() {
            wakers.extend(letters.waker.take());
        }
        letters.end.is_none()
    }
}

/// The event stream of a watch of the embedded store. Dropping it removes the watch.
pub(crate) struct EmbeddedWatch {
    mailbox: Arc<Mailbox>,
    watchers: Arc<Watchers>,
}

impl Stream for EmbeddedWatch {
    type Item = Result<Arc<[WatchEvent]>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut letters = self.mailbox.letters.lock();
        if let Some(events) = letters.waiting.pop_front() {
            letters.bytes -= size(&events);
            letters.delivered = events[0].revision();
            return Poll::Ready(Some(Ok(events)));
        }
        if letters.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = letters.end.clone() {
            letters.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        letters.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl WatchSource for EmbeddedWatch {
    fn progress(&self) -> Revision {
        // Read first: all events up to it are then in the backlog or have been delivered.
        let published = self.watchers.published.load(Ordering::Acquire);
        let mut letters = self.mailbox.letters.lock();
        let reached = match letters.waiting.front() {
            Some(events) => events[0].revision() - 1,
            None if letters.end.is_none() => letters.replayed.max(published),
            None => letters.delivered,
        };
        letters.progress = letters.progress.max(reached);
        letters.progress
    }
}

impl Drop for EmbeddedWatch {
    fn drop(&mut self) {
        self.watchers.registry.lock().mailboxes.retain(|other| !Arc::ptr_eq(other, &self.mailbox));
    }
}

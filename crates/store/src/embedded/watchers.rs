//! Handing committed events to watches: each has a bounded mailbox of its own, so that a slow one
//! holds up neither the writer nor the others.

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

/// How much may wait in a mailbox before its watch is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailboxLimits {
    pub(crate) revisions: usize,
    pub(crate) bytes: usize,
}

/// All watches of a store.
#[derive(Debug)]
pub(crate) struct Watchers {
    registry: Mutex<Registry>,
    /// Every mailbox holds all its events up to this revision.
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

    /// Starts a watch that has `replay` before it and gets what is published after `revision`. The
    /// caller holds the state's lock, so that no entry falls between the two or into both.
    pub(crate) fn register<'a>(
        self: &Arc<Self>,
        (start, end): (String, String),
        after: Revision,
        replay: impl Iterator<Item = &'a Entry>,
        revision: Revision,
    ) -> Result<EmbeddedWatch> {
        let mut letters =
            Letters { delivered: after, progress: after, replayed: revision, ..Letters::default() };
        // The replay is bounded by the log, whose entries it shares.
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

    /// Hands committed entries, in order, to every watch they concern.
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

    /// Ends every watch, after the events it still has, and refuses new ones.
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

/// The events of a revision that lie in a range; shared where that is all of them.
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
    /// The revision of the last events handed out, or the one the watch started from.
    delivered: Revision,
    /// The highest progress that was told, which must not fall.
    progress: Revision,
    /// The watch began with everything up to this revision, so it is not put in again.
    replayed: Revision,
    /// What ends the watch once nothing is waiting any more.
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
    /// Puts in what concerns this watch; false if that is too much, which ends it.
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

/// A watch of the embedded store.
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
        // Read first: whatever was published up to it is then in the mailbox or handed out.
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

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use crate::{KeyValue, Result, Revision};

/// A change of one key by a committed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was created (then its version is 1) or replaced.
    Put {
        /// The new state of the key.
        kv: KeyValue,
        /// The state just before; `None` if the key was created. (A remote store may also return `None`
        /// if that state was compacted.)
        previous: Option<KeyValue>,
    },
    /// The key was deleted.
    Delete {
        /// The deleted key.
        key: Arc<str>,
        /// The revision of the deletion.
        revision: Revision,
        /// The state just before; as in `Put`, a remote store may return `None`.
        previous: Option<KeyValue>,
    },
}

impl WatchEvent {
    /// The key that was written or deleted.
    pub fn key(&self) -> &Arc<str> {
        match self {
            WatchEvent::Put { kv, .. } => &kv.key,
            WatchEvent::Delete { key, .. } => key,
        }
    }

    /// The revision of the transaction that changed the key.
    pub fn revision(&self) -> Revision {
        match self {
            WatchEvent::Put { kv, .. } => kv.mod_revision,
            WatchEvent::Delete { revision, .. } => *revision,
        }
    }

    /// The state of the key just before the change; `None` if it was created.
    pub fn previous(&self) -> Option<&KeyValue> {
        match self {
            WatchEvent::Put { previous, .. } | WatchEvent::Delete { previous, .. } => previous.as_ref(),
        }
    }
}

/// The stream of events that an implementation of [`Store`](crate::Store) provides for a [`Watch`].
///
/// Each item has all events of one revision in the watched range, at least one. An error is the last item.
pub trait WatchSource: Stream<Item = Result<Arc<[WatchEvent]>>> + Send {
    /// See [`Watch::progress`].
    fn progress(&self) -> Revision;
}

/// A stream of events. Each item has those of one revision, in the order of the transaction's operations,
/// and revisions increase from item to item. An error ([`Error::Lagged`](crate::Error::Lagged),
/// [`Error::Closed`](crate::Error::Closed)) is the last item. Dropping the stream ends the watch.
pub struct Watch(Pin<Box<dyn WatchSource>>);

impl Watch {
    /// Wraps the event stream of a store implementation.
    pub fn new(source: impl WatchSource + 'static) -> Watch {
        Watch(Box::pin(source))
    }

    /// The highest revision up to which this stream has returned every event of its range: no event with
    /// this revision or a lower one will follow. It increases with writes outside the range as well, and
    /// never decreases: the resource version of a bookmark.
    pub fn progress(&self) -> Revision {
        self.0.progress()
    }
}

impl Stream for Watch {
    type Item = Result<Arc<[WatchEvent]>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

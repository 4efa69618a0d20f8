use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use crate::{KeyValue, Result, Revision};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was created (then its version is 1) or replaced.
    Put {
        /// What the key is now.
        kv: KeyValue,
        /// What it was just before; `None` if it was created. (A remote back end may also give `None`
        /// where that was compacted meanwhile.)
        previous: Option<KeyValue>,
    },
    /// The key was deleted.
    Delete {
        /// The key.
        key: Arc<str>,
        /// The revision that deleted it.
        revision: Revision,
        /// What it was just before; as in `Put`, a remote back end may give `None`.
        previous: Option<KeyValue>,
    },
}

impl WatchEvent {
    /// The key that changed.
    pub fn key(&self) -> &Arc<str> {
        match self {
            WatchEvent::Put { kv, .. } => &kv.key,
            WatchEvent::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            WatchEvent::Put { kv, .. } => kv.mod_revision,
            WatchEvent::Delete { revision, .. } => *revision,
        }
    }

    /// What the key was just before.
    pub fn previous(&self) -> Option<&KeyValue> {
        match self {
            WatchEvent::Put { previous, .. } | WatchEvent::Delete { previous, .. } => previous.as_ref(),
        }
    }
}

/// What a back end gives to make a [`Watch`].
///
/// Each item holds all events of one revision that lie in the watched range, and is never empty. An
/// error is the last item.
pub trait WatchSource: Stream<Item = Result<Arc<[WatchEvent]>>> + Send {
    /// See [`Watch::progress`].
    fn progress(&self) -> Revision;
}

/// A stream of events: each item holds those of one revision, in the order of the transaction's
/// operations, and revisions rise from item to item. An error ([`Error::Lagged`](crate::Error::Lagged),
/// [`Error::Closed`](crate::Error::Closed)) is the last item. Dropping it ends the watch.
pub struct Watch(Pin<Box<dyn WatchSource>>);

impl Watch {
    /// Makes a watch from what a back end provides.
    pub fn new(source: impl WatchSource + 'static) -> Watch {
        Watch(Box::pin(source))
    }

    /// The highest revision up to which this stream has handed out every event of its range: no event
    /// with this revision or a lower one will follow. It rises with every write to the store, also
    /// where the range saw none, and never falls: what a bookmark carries.
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

//! How the rest of the node sees a Pod: the snapshot that the Pod's task publishes, and requests to that task.
//!
//! Only the task in `pod` changes a Pod's state. Everything else reads a [`PodState`], which never changes once it is
//! published, and asks for changes:
//!
//! - a [`Request`] carries no data. Requests are flags, so that callbacks of informers neither wait nor fill a queue, and
//!   several equal ones are served once;
//! - a [`Message`] carries data. Messages go through a bounded queue, and their senders wait while it is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, mpsc, watch};
use yado_oci::runtime::Sandbox;
use yado_reconcile::ObjectKey;

use crate::container::PodDir;
use crate::lifecycle::{ContainerRecord, PodRecord, Probed, Run};
use crate::sources::PodSources;

/// Capacity of a Pod's message queue: senders are the probes of its containers and the eviction, which may wait.
const QUEUED_MESSAGES: usize = 8;

/// The state of a Pod on this node at one moment.
#[derive(Clone, Default)]
pub(crate) struct PodState {
    /// The observed state of the Pod and its containers.
    pub record: PodRecord,
    /// The sandbox, while its shim runs and answers.
    pub sandbox: Option<Sandbox>,
    /// The last observed object, which is needed to stop a Pod whose object was removed.
    pub pod: Option<Arc<Pod>>,
}

impl PodState {
    /// The sandbox and the id of the current run of a container, if it is running.
    pub(crate) fn running(&self, container: &str) -> Option<(Sandbox, String)> {
        let state = self.record.container(container);
        matches!(state.run, Run::Running { .. }).then_some(())?;
        Some((self.sandbox.clone()?, ContainerRecord::id(container, state.attempt)))
    }
}

/// A request without data to a Pod's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Request {
    /// The Pod's object has changed.
    Reconcile = 1,
    /// The Pod's projected files may be outdated.
    RefreshFiles = 1 << 1,
    /// A ConfigMap or Secret that the Pod refers to has changed: a start that failed for want of it is retried now.
    RetryConfig = 1 << 2,
    /// A claim of the Pod, or its volume, has changed: a failed preparation is retried now.
    RetryVolumes = 1 << 3,
    /// Images were imported: a start that failed for want of its image is retried now.
    RetryImages = 1 << 4,
}

/// Pending requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests(u8);

impl Requests {
    /// Whether `request` is among them.
    pub(crate) fn contains(self, request: Request) -> bool {
        self.0 & request as u8 != 0
    }
}

/// A message to a Pod's task.
#[derive(Debug)]
pub(crate) enum Message {
    /// A probe's results have reached a threshold.
    Probed(Probed),
    /// The Pod exceeds a limit of local disk usage: it is stopped and fails with this message.
    Evict(String),
}

/// Identifies a Pod, reads its state and sends requests to its task.
pub(crate) struct PodHandle {
    pub uid: String,
    pub key: ObjectKey,
    pub dir: PodDir,
    /// Keeps the ConfigMaps and Secrets watched to which the Pod refers; see [`crate::shared::Shared::watch_sources`].
    pub sources: OnceCell<PodSources>,
    state: watch::Receiver<Arc<PodState>>,
    requests: AtomicU8,
    requested: Notify,
    messages: mpsc::Sender<Box<Message>>,
}

/// The task's ends of the channels of a [`PodHandle`].
pub(crate) struct PodInbox {
    /// Publishes the state. Its drop tells [`PodHandle::ended`] that the task has ended.
    pub state: watch::Sender<Arc<PodState>>,
    /// Messages in the order in which they were sent. Boxed, because the queue allocates its slots at once.
    pub messages: mpsc::Receiver<Box<Message>>,
}

impl PodHandle {
    /// Creates the handle of a Pod, with an initial state, and the ends of its channels for the Pod's task.
    pub(crate) fn new(uid: &str, key: ObjectKey, dir: PodDir) -> (Arc<Self>, PodInbox) {
        let (publisher, state) = watch::channel(Arc::default());
        let (sender, messages) = mpsc::channel(QUEUED_MESSAGES);
        let handle = Self {
            uid: uid.to_owned(),
            key,
            dir,
            sources: OnceCell::new(),
            state,
            requests: AtomicU8::new(0),
            requested: Notify::new(),
            messages: sender,
        };
        (Arc::new(handle), PodInbox { state: publisher, messages })
    }

    /// The state that the Pod's task has published last.
    pub(crate) fn state(&self) -> Arc<PodState> {
        self.state.borrow().clone()
    }

    /// Sends a request. Returns at once; a request that is still pending is not repeated.
    pub(crate) fn request(&self, request: Request) {
        self.requests.fetch_or(request as u8, Ordering::AcqRel);
        self.requested.notify_one();
    }

    /// Waits for requests and takes them. Only the Pod's task calls it. Dropping the future loses no request.
    pub(crate) async fn requested(&self) -> Requests {
        loop {
            let pending = self.requests.swap(0, Ordering::AcqRel);
            if pending != 0 {
                return Requests(pending);
            }
            self.requested.notified().await;
        }
    }

    /// Sends a message, which is dropped if the Pod's task has ended. Waits while the queue is full.
    pub(crate) async fn send(&self, message: Message) {
        let _ = self.messages.send(Box::new(message)).await;
    }

    /// Waits until the Pod's task has ended.
    pub(crate) async fn ended(&self) {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
    }
}

/// The handles of the Pods of this node, by uid.
#[derive(Default)]
pub(crate) struct Pods {
    handles: Mutex<HashMap<String, Arc<PodHandle>>>,
}

impl Pods {
    /// The handle of a Pod.
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<PodHandle>> {
        self.handles.lock().get(uid).cloned()
    }

    /// All handles, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<PodHandle>> {
        self.handles.lock().values().cloned().collect()
    }

    /// Adds the handle of a Pod that has none yet.
    pub(crate) fn add(&self, handle: &Arc<PodHandle>) {
        let before = self.handles.lock().insert(handle.uid.clone(), handle.clone());
        debug_assert!(before.is_none(), "a Pod has one task");
    }

    /// Removes the handle of a Pod whose task has ended.
    pub(crate) fn remove(&self, uid: &str) {
        self.handles.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn handle() -> (Arc<PodHandle>, PodInbox) {
        PodHandle::new("u", ObjectKey::new("n", "p"), PodDir::new("/d".as_ref(), "u"))
    }

    #[test]
    fn requests_are_merged_and_none_is_lost() {
        let (handle, _inbox) = handle();
        assert_eq!(handle.requested().now_or_never(), None);
        handle.request(Request::Reconcile);
        handle.request(Request::RetryImages);
        handle.request(Request::Reconcile);
        let taken = handle.requested().now_or_never().expect("pending requests");
        for (request, expect) in [
            (Request::Reconcile, true),
            (Request::RefreshFiles, false),
            (Request::RetryConfig, false),
            (Request::RetryVolumes, false),
            (Request::RetryImages, true),
        ] {
            assert_eq!(taken.contains(request), expect, "{request:?}");
        }
        assert_eq!(handle.requested().now_or_never(), None);
        // A request between the look at the flags and the wait is found, too.
        let mut waiting = Box::pin(handle.requested());
        assert_eq!((&mut waiting).now_or_never(), None);
        handle.request(Request::RefreshFiles);
        assert!(waiting.now_or_never().is_some_and(|taken| taken.contains(Request::RefreshFiles)));
    }

    #[test]
    fn a_handle_outlives_the_task_of_its_pod() {
        let (handle, inbox) = handle();
        assert_eq!(handle.ended().now_or_never(), None);
        let mut changed = PodState::default();
        changed.record.admitted = true;
        inbox.state.send_replace(Arc::new(changed));
        assert_eq!(handle.ended().now_or_never(), None);
        drop(inbox);
        assert_eq!(handle.ended().now_or_never(), Some(()));
        assert!(handle.state().record.admitted);
        assert_eq!(handle.send(Message::Evict(String::new())).now_or_never(), Some(()));
    }
}

//! Ownership of background tasks: they are cancelled and joined when their owner is shut down.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// A group of background tasks, which [`Tasks::shutdown`] ends and joins. Clones share the group and are cheap.
#[derive(Clone, Default)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    stop: CancellationToken,
    running: Mutex<Running>,
}

/// Running tasks with their names.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Running {
    fn ended(&mut self, task: Result<(Id, ()), JoinError>) {
        let id = task.map_or_else(|error| error.id(), |(id, ())| id);
        self.names.remove(&id);
    }
}

impl Tasks {
    /// Creates an empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends or the group is shut down. On shutdown it is dropped at its next await.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop();
        self.spawn_until_stopped(name, async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Runs `task`, which observes [`Tasks::stop`] itself so that it can clean up before it ends.
    pub fn spawn_until_stopped(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.inner.running.lock();
        // Joining ended tasks here keeps the set from growing over the life of the process.
        while let Some(task) = running.tasks.try_join_next_with_id() {
            running.ended(task);
        }
        let id = running.tasks.spawn(task.instrument(tracing::debug_span!("task", name))).id();
        running.names.insert(id, name);
    }

    /// A token that is cancelled when the shutdown begins.
    pub fn stop(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Cancels all tasks and waits until they have ended. Tasks that still run after `grace` are aborted; their names are
    /// returned.
    pub async fn shutdown(&self, grace: Duration) -> BTreeSet<&'static str> {
        self.inner.stop.cancel();
        let mut running = std::mem::take(&mut *self.inner.running.lock());
        let all_ended = async {
            while let Some(task) = running.tasks.join_next_with_id().await {
                running.ended(task);
            }
        };
        if tokio::time::timeout(grace, all_ended).await.is_err() {
            let stubborn: BTreeSet<&str> = running.names.values().copied().collect();
            tracing::warn!(?stubborn, "tasks did not end within {grace:?} and were aborted");
            running.tasks.shutdown().await;
            return stubborn;
        }
        BTreeSet::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_the_tidy_and_aborts_the_stubborn() {
        let tasks = Tasks::new();
        let (tidied, was_tidied) = tokio::sync::oneshot::channel();
        let stop = tasks.stop();
        tasks.spawn_until_stopped("tidy", async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            let _ = tidied.send(());
        });
        tasks.spawn_until_stopped("stubborn", std::future::pending());
        tasks.spawn("plain", std::future::pending());
        tasks.spawn("over", async {});
        let stubborn = tasks.shutdown(Duration::from_secs(2)).await;
        assert_eq!(stubborn, BTreeSet::from(["stubborn"]));
        assert_eq!(was_tidied.await, Ok(()));
    }
}

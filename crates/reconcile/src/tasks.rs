//! Ownership of tasks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Owns tasks: they end when it is shut down, and whoever shuts it down waits for them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    stop: CancellationToken,
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    /// Owns nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends or the owner is shut down, whichever is first: it is dropped at its next await.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop();
        self.spawn_until_stopped(name, async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Runs `task`, which looks at [`Tasks::stop`] itself and tidies up before it ends.
    pub fn spawn_until_stopped(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.inner.running.lock();
        // Ended tasks are let go here, so that the set is as large as what runs, not as what ever ran.
        while running.try_join_next().is_some() {}
        running.spawn(task.instrument(tracing::debug_span!("task", name)));
    }

    /// Cancelled once the owner is being shut down.
    pub fn stop(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Asks every task to end, waits for at most `grace`, then aborts those that have not.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.stop.cancel();
        let mut running = std::mem::take(&mut *self.inner.running.lock());
        let all_ended = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all_ended).await.is_err() {
            tracing::warn!(tasks = running.len(), "tasks did not end within {grace:?} and were aborted");
            running.shutdown().await;
        }
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
        tasks.shutdown(Duration::from_millis(20)).await;
        assert_eq!(was_tidied.await, Ok(()));
    }
}

//! The injected clock, with which tests simulate a day of cluster life in a second. No other code reads the system clock.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A source of wall clock time, monotonic time and timers.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock time, for timestamps in objects. It can jump in both directions.
    fn now(&self) -> Timestamp;
    /// Monotonic time since an arbitrary fixed moment, for durations and deadlines.
    fn monotonic(&self) -> Duration;
    /// Waits until [`Self::monotonic`] has advanced by `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The clocks of the operating system.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Creates a shared system clock whose monotonic time is zero now.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self { started: Instant::now() })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A system clock set before year -9999 is the only failure; the epoch is then as good as any.
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// A clock for tests, which advances only when [`ManualClock::advance`] is called.
#[derive(Clone)]
pub struct ManualClock {
    inner: Arc<ManualInner>,
}

struct ManualInner {
    epoch: Timestamp,
    elapsed: Mutex<Duration>,
    moved: Notify,
}

impl ManualClock {
    /// Creates a clock whose wall clock time is `epoch` and whose monotonic time is zero.
    pub fn new(epoch: Timestamp) -> Self {
        Self { inner: Arc::new(ManualInner { epoch, elapsed: Mutex::default(), moved: Notify::new() }) }
    }

    /// Advances both times and wakes the timers that have expired.
    pub fn advance(&self, by: Duration) {
        *self.inner.elapsed.lock() += by;
        self.inner.moved.notify_waiters();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.inner.epoch + *self.inner.elapsed.lock()
    }

    fn monotonic(&self) -> Duration {
        *self.inner.elapsed.lock()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let inner = self.inner.clone();
        let until = *inner.elapsed.lock() + duration;
        async move {
            loop {
                // Registered before the check, so that an advance in between is not missed.
                let moved = inner.moved.notified();
                if *inner.elapsed.lock() >= until {
                    return;
                }
                moved.await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_only_whose_time_has_come() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let mut short = clock.sleep(Duration::from_secs(1));
        let mut long = clock.sleep(Duration::from_secs(10));
        assert!((&mut short).now_or_never().is_none());
        clock.advance(Duration::from_secs(2));
        assert!((&mut short).now_or_never().is_some());
        assert!((&mut long).now_or_never().is_none());
        assert_eq!(clock.now().as_second(), 2);
    }
}

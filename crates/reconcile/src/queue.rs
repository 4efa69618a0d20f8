//! The work queue of a controller and its workers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use yado_types::clock::Clock;

use crate::Tasks;

/// Retry delay after a first failure; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Maximum of the retry delay, so that a recovery is noticed within half a minute.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A queue of keys to reconcile, in order of arrival. Adding a key that is queued has no effect, so the size is bounded by
/// the number of objects. A key that is added while a worker processes it is queued again when that is done, so that no two
/// workers process one key at the same time.
pub struct Queue<Q> {
    clock: Arc<dyn Clock>,
    state: Mutex<State<Q>>,
    changed: Notify,
}

struct State<Q> {
    /// Keys to process now, in order.
    ready: VecDeque<Q>,
    /// The same keys, for lookup.
    waiting: HashSet<Q>,
    /// Keys that workers are processing.
    working: HashSet<Q>,
    /// Keys that were added while being processed.
    again: HashSet<Q>,
    /// Delayed keys by the monotonic time at which they become ready.
    later: BTreeMap<Duration, BTreeSet<Q>>,
    /// The same by key.
    due: HashMap<Q, Duration>,
    /// Consecutive failures of keys whose last attempt failed.
    failures: HashMap<Q, u32>,
}

impl<Q: Clone + Eq + Ord + Hash + Send + 'static> Queue<Q> {
    /// Creates an empty queue, which measures delays by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            later: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Arc::new(Self { clock, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Queues a key.
    pub fn add(&self, key: Q) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Queues a key after `delay`, unless it is due earlier already.
    pub fn add_after(&self, key: Q, delay: Duration) {
        let at = self.clock.monotonic() + delay;
        self.state.lock().add_at(key, at);
        self.changed.notify_one();
    }

    /// Waits for the next key to process. The caller must call [`Queue::done`] afterwards, or the key is never processed
    /// again. Dropping the future loses no key.
    pub async fn next(&self) -> Q {
        loop {
            let changed = self.changed.notified();
            let now = self.clock.monotonic();
            let until_due = {
                let mut state = self.state.lock();
                state.promote(now);
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        // Wakes a further worker: one notification may stand for several keys.
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.later.keys().next().map(|at| at.saturating_sub(now))
            };
            match until_due {
                Some(delay) => tokio::select! {
                    () = changed => {}
                    () = self.clock.sleep(delay) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Reports that the processing of `key` has ended. A key that was added meanwhile is queued again.
    pub fn done(&self, key: &Q, outcome: Outcome) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        state.working.remove(key);
        match outcome {
            Outcome::Next(next) => {
                state.failures.remove(key);
                if let Next::After(delay) = next {
                    state.add_at(key.clone(), now + delay);
                }
            }
            Outcome::Failed => {
                let failures = state.failures.entry(key.clone()).or_default();
                let delay = retry_delay(*failures);
                *failures += 1;
                state.add_at(key.clone(), now + delay);
            }
        }
        if state.again.remove(key) {
            state.add(key.clone());
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Number of consecutive failures of `key` so far.
    fn failures(&self, key: &Q) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// Whether no key is queued or being processed. Delayed keys do not count.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.ready.is_empty() && state.working.is_empty()
    }
}

impl<Q: Clone + Eq + Ord + Hash> State<Q> {
    fn add(&mut self, key: Q) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: Q, at: Duration) {
        if let Some(planned) = self.due.get(&key) {
            if *planned <= at {
                return;
            }
            let planned = *planned;
            if let Some(keys) = self.later.get_mut(&planned) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.later.remove(&planned);
                }
            }
        }
        self.due.insert(key.clone(), at);
        self.later.entry(at).or_default().insert(key);
    }

    fn promote(&mut self, now: Duration) {
        while let Some(first) = self.later.first_entry().filter(|e| *e.key() <= now) {
            for key in first.remove() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

/// When a key is reconciled again after a successful pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes that queues it.
    Wait,
    /// After this delay, even if nothing changes.
    After(Duration),
}

/// The result of processing a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success; the retry delay is reset.
    Next(Next),
    /// Failure; the key is retried after a delay that doubles with each consecutive failure.
    Failed,
}

/// The retry delay after a failure that follows `failures` consecutive ones: 5 ms after the first, doubled with each further
/// one, and at most 30 seconds.
pub fn retry_delay(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(16)).min(RETRY_MAX)
}

/// Whether the `failures`-th consecutive failure is logged as a warning. The first ones are usually races that a retry
/// resolves (8 of them take a little over a second); after that the intervals between warnings double, so that a permanent
/// failure is visible without filling the log.
pub fn is_worth_a_warning(failures: u32) -> bool {
    failures >= 8 && failures.is_power_of_two()
}

/// Starts `workers` tasks that take keys from `queue` and call `reconcile` for each. Failures are logged under `name` and
/// retried with increasing delays; those that persist are logged as warnings.
pub fn run<Q, F, W, E>(tasks: &Tasks, name: &'static str, queue: &Arc<Queue<Q>>, workers: usize, reconcile: F)
where
    Q: Clone + Eq + Ord + Hash + Debug + Send + Sync + 'static,
    F: Fn(Q) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Next, E>> + Send,
    E: Display + Send,
{
    for _ in 0..workers {
        let (queue, reconcile) = (queue.clone(), reconcile.clone());
        tasks.spawn(name, async move {
            loop {
                let key = queue.next().await;
                let outcome = match reconcile(key.clone()).await {
                    Ok(next) => Outcome::Next(next),
                    Err(error) => {
                        let failures = queue.failures(&key) + 1;
                        if is_worth_a_warning(failures) {
                            tracing::warn!(controller = name, ?key, failures, %error, "keeps failing and is retried");
                        } else {
                            tracing::debug!(controller = name, ?key, %error, "failed and is retried");
                        }
                        Outcome::Failed
                    }
                };
                queue.done(&key, outcome);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use jiff::Timestamp;
    use yado_types::clock::ManualClock;

    use super::*;

    fn queue() -> (ManualClock, Arc<Queue<&'static str>>) {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        (clock.clone(), Queue::new(Arc::new(clock)))
    }

    #[tokio::test]
    async fn a_key_waits_once_and_comes_back_after_the_work_on_it() {
        let (_, queue) = queue();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().now_or_never(), None);
        queue.done(&"a", Outcome::Next(Next::Wait));
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Outcome::Next(Next::Wait));
        assert!(queue.is_idle());
    }

    #[tokio::test]
    async fn the_earliest_plan_wins_and_failures_back_off() {
        let (clock, queue) = queue();
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(9));
        clock.advance(Duration::from_secs(1));
        assert_eq!(queue.next().await, "a");
        for delay in [5, 10, 20] {
            queue.done(&"a", Outcome::Failed);
            clock.advance(Duration::from_millis(delay - 1));
            assert_eq!(queue.next().now_or_never(), None);
            clock.advance(Duration::from_millis(1));
            assert_eq!(queue.next().now_or_never(), Some("a"));
        }
        queue.done(&"a", Outcome::Next(Next::After(Duration::from_secs(1))));
        assert_eq!(queue.next().now_or_never(), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(queue.next().now_or_never(), Some("a"));
    }
}

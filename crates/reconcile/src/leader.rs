//! Leader election by Leases, as Kubernetes' own components do it: of several processes one does the work, and another
//! takes over when its Lease is no longer renewed.
//!
//! ```text
//! [Lease] --read--> Candidate::decide --> new Lease --write, if it is still the one that was read--> [Lease]
//! ```
//!
//! A leader whose renewals fail stops before anybody else may start: after [`Timing::renew_deadline`], which is shorter
//! than the Lease. No clock is compared with that of another machine: how long a Lease has not changed is measured by
//! the candidate's own monotonic clock.
//!
//! A leftover Lease of the same identity is taken over at once. So an identity must not be used by two processes at the
//! same time; that of a data directory, which one process can claim, is not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use yado_types::clock::Clock;

/// Durations of an election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others wait for the renewal of a Lease before they take it.
    pub lease: Duration,
    /// How long a leader goes on without a renewal.
    pub renew_deadline: Duration,
    /// Between renewals.
    pub renew: Duration,
    /// Between attempts to become the leader, or to renew after a failure.
    pub retry: Duration,
}

impl Default for Timing {
    /// Those of kube-controller-manager; but it renews at every retry, which an idle machine would notice.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), renew_deadline: seconds(10), renew: seconds(5), retry: seconds(2) }
    }
}

/// The content of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// Empty where nobody holds it.
    holder: String,
    duration: Duration,
    acquired: Timestamp,
    renewed: Timestamp,
    transitions: i32,
}

impl Record {
    fn read(spec: &LeaseSpec) -> Self {
        let seconds = spec.lease_duration_seconds.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        let time = |time: &Option<MicroTime>| time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Self {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            duration: Duration::from_secs(seconds),
            acquired: time(&spec.acquire_time),
            renewed: time(&spec.renew_time),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }

    fn write(&self, spec: &mut LeaseSpec) {
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = i32::try_from(self.duration.as_secs()).ok();
        spec.acquire_time = Some(MicroTime(self.acquired));
        spec.renew_time = Some(MicroTime(self.renewed));
        spec.lease_transitions = Some(self.transitions);
    }
}

/// A process that may become the leader. Pure over the times it is given.
#[derive(Debug)]
struct Candidate {
    identity: String,
    timing: Timing,
    /// The Lease as it was read last, and when it was first read so.
    observed: Option<(Record, Duration)>,
    /// When its last successful renewal began.
    renewed: Option<Duration>,
}

impl Candidate {
    fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, observed: None, renewed: None }
    }

    /// What becomes of the Lease that was read at `now`; `None` while another candidate holds it.
    fn decide(&mut self, lease: Option<&Record>, wall: Timestamp, now: Duration) -> Option<Record> {
        let mine = |acquired, transitions| Record {
            holder: self.identity.clone(),
            duration: self.timing.lease,
            acquired,
            renewed: wall,
            transitions,
        };
        let Some(lease) = lease else { return Some(mine(wall, 0)) };
        if lease.holder == self.identity {
            return Some(mine(lease.acquired, lease.transitions));
        }
        let since = match &self.observed {
            Some((known, since)) if known == lease => *since,
            _ => now,
        };
        let next = mine(wall, lease.transitions.saturating_add(1));
        self.observed = Some((lease.clone(), since));
        let is_held = !lease.holder.is_empty() && now < since + lease.duration;
        (!is_held).then_some(next)
    }

    /// The Lease was written by an attempt that began at `began`.
    fn written(&mut self, began: Duration) {
        self.renewed = Some(began);
    }

    /// Whether it is the leader.
    fn leads(&self, now: Duration) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed + self.timing.renew_deadline)
    }

    /// The Lease after it was given up; `None` where it is not held.
    fn released(&mut self, lease: &Record, wall: Timestamp) -> Option<Record> {
        self.renewed = None;
        let is_mine = lease.holder == self.identity;
        is_mine.then(|| Record {
            holder: String::new(),
            duration: Duration::from_secs(1),
            acquired: wall,
            renewed: wall,
            ..*lease
        })
    }
}

/// The election for one Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    candidate: Candidate,
    clock: Arc<dyn Clock>,
}

impl Election {
    /// A candidate for the Lease of that name. `client` needs the verbs get, create and update on it.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String, clock: Arc<dyn Clock>) -> Self {
        let candidate = Candidate::new(identity, Timing::default());
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), candidate, clock }
    }

    /// Waits until this process is the leader.
    pub async fn acquire(&mut self) {
        while !self.attempt().await {
            self.clock.sleep(self.candidate.timing.retry).await;
        }
        tracing::debug!(lease = self.name, "this process is the leader");
    }

    /// Renews the Lease until the leadership is lost. The work of a leader must end when this returns.
    pub async fn hold(&mut self) {
        let mut pause = self.candidate.timing.renew;
        while self.candidate.leads(self.clock.monotonic()) {
            let left = self.left();
            self.clock.sleep(pause.min(left)).await;
            if !self.candidate.leads(self.clock.monotonic()) {
                break;
            }
            let before = self.candidate.renewed;
            self.attempt().await;
            let was_renewed = self.candidate.renewed != before;
            pause = if was_renewed { self.candidate.timing.renew } else { self.candidate.timing.retry };
        }
        tracing::error!(
            lease = self.name,
            "the lease could not be renewed: another process may be the leader"
        );
    }

    /// Gives the Lease up, so that another process can take it at once.
    pub async fn release(&mut self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
            let mut spec = lease.spec.take().unwrap_or_default();
            let Some(record) = self.candidate.released(&Record::read(&spec), self.clock.now()) else {
                return Ok(());
            };
            record.write(&mut spec);
            lease.spec = Some(spec);
            self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        let result: Result<(), kube::Error> = released.await;
        if let Err(error) = result {
            tracing::debug!(lease = self.name, %error, "the lease is left to expire");
        }
    }

    /// The time that is left of the leadership.
    fn left(&self) -> Duration {
        let ends = self.candidate.renewed.map(|renewed| renewed + self.candidate.timing.renew_deadline);
        ends.unwrap_or_default().saturating_sub(self.clock.monotonic())
    }

    /// Tries to get or renew the Lease. Returns whether this process is the leader.
    async fn attempt(&mut self) -> bool {
        let limit = match self.left() {
            Duration::ZERO => self.candidate.timing.renew_deadline,
            left => left,
        };
        let late = self.clock.sleep(limit);
        tokio::select! {
            written = self.write() => if let Err(error) = written {
                tracing::debug!(lease = self.name, %error, "the lease could not be written");
            },
            () = late => {}
        }
        self.candidate.leads(self.clock.monotonic())
    }

    async fn write(&mut self) -> Result<(), kube::Error> {
        let began = self.clock.monotonic();
        let found = self.api.get_opt(&self.name).await?;
        let record = found.as_ref().map(|lease| Record::read(&lease.spec.clone().unwrap_or_default()));
        let Some(next) = self.candidate.decide(record.as_ref(), self.clock.now(), began) else {
            return Ok(());
        };
        // It carries the resource version that was read: of two candidates one is refused.
        let mut lease = found.unwrap_or_default();
        let mut spec = lease.spec.take().unwrap_or_default();
        next.write(&mut spec);
        lease.spec = Some(spec);
        if record.is_some() {
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        } else {
            lease.metadata.name = Some(self.name.clone());
            self.api.create(&PostParams::default(), &lease).await?;
        }
        self.candidate.written(began);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two candidates and one Lease, a second a step. Each row is a script, one word a second: the candidates that try, in
    /// order, `!` after one whose write fails, and `-` after one that releases; `.` for nobody. The result has one word a
    /// second: who leads at its end.
    #[test]
    fn one_leads_and_another_takes_over() {
        for (script, expect) in [
            ("a b a b", "a a a a"),
            ("b a", "b b"),
            // The second one waits for the lease's end, counted from its own first look.
            ("a . . b . . . . . . . . . . . . . b b", "a a a a a a a a a a . . . . . . . . b"),
            // Whose renewals fail stops before that.
            (
                "a ab a!b a!b a!b a!b a!b a!b a!b a!b a!b a!b a!b a!b a!b a!b ba",
                "a a a a a a a a a a a . . . . . b",
            ),
            ("a a- b a", "a . b b"),
            (
                "a ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab",
                "a a a a a a a a a a a a a a a a a a a",
            ),
        ] {
            let timing = Timing::default();
            let mut candidates = ["a", "b"].map(|name| Candidate::new(name.to_owned(), timing));
            let mut lease: Option<Record> = None;
            let mut shown = Vec::new();
            for (second, word) in script.split(' ').enumerate() {
                let now = Duration::from_secs(second as u64);
                let wall = Timestamp::from_second(1000 + second as i64).expect("a time");
                let mut steps = word.chars().filter(|c| *c != '.').peekable();
                while let Some(name) = steps.next() {
                    let candidate = &mut candidates[usize::from(name == 'b')];
                    let mark = steps.next_if(|c| "!-".contains(*c));
                    if mark == Some('-') {
                        lease = lease.take().and_then(|lease| candidate.released(&lease, wall));
                        continue;
                    }
                    let next = candidate.decide(lease.as_ref(), wall, now);
                    if let (Some(next), None) = (next, mark) {
                        lease = Some(next);
                        candidate.written(now);
                    }
                }
                let leaders: String =
                    candidates.iter().filter(|c| c.leads(now)).map(|c| c.identity.as_str()).collect();
                assert!(leaders.len() < 2, "{leaders} lead at {second} of {script}");
                shown.push(if leaders.is_empty() { ".".to_owned() } else { leaders });
            }
            assert_eq!(shown.join(" "), expect, "{script}");
        }
    }

    #[test]
    fn a_leftover_lease_of_the_same_identity_is_taken_at_once() {
        let wall: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let earlier = "2025-12-31T23:59:59Z".parse().expect("a time");
        let record = |holder: &str| Record {
            holder: holder.to_owned(),
            duration: Duration::from_secs(15),
            acquired: earlier,
            renewed: earlier,
            transitions: 3,
        };
        let mut candidate = Candidate::new("me".to_owned(), Timing::default());
        let taken = candidate.decide(Some(&record("me")), wall, Duration::ZERO).expect("taken");
        assert_eq!((taken.acquired, taken.renewed, taken.transitions), (earlier, wall, 3));
        assert_eq!(candidate.decide(Some(&record("other")), wall, Duration::ZERO), None);
        let free = candidate.decide(Some(&record("")), wall, Duration::ZERO).expect("taken");
        assert_eq!((free.acquired, free.transitions), (wall, 4));
        // What is written is read again.
        let mut spec = LeaseSpec::default();
        free.write(&mut spec);
        assert_eq!(Record::read(&spec), free);
    }
}

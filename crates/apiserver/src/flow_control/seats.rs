//! The server's seats, divided among the priority levels: who executes, who waits, and who is next. Pure over its
//! arguments.
//!
//! A request takes one seat. Each level has a nominal number of them, in proportion to its shares. Some of these are
//! guaranteed to it; the others it may lend. Seats that are guaranteed to no one are a pool for all levels, up to each
//! level's limit of borrowing. Kubernetes moves lent seats by the demand of the last ten seconds; here a seat is lent for
//! one request, and when it is free again a level that waits with fewer seats in proportion to its own comes first.

use std::time::Duration;

use super::queues::{Queues, Ticket};
use super::retry::Rejections;
use super::schema::{PriorityLevel, Queuing};

/// The seats of all priority levels. `T` wakes a waiting request.
#[derive(Debug)]
pub struct Seats<T> {
    levels: Vec<Level<T>>,
    /// Requests that wait, in all levels.
    waiting: usize,
}

/// Number of a priority level: an index that stays its own as long as one of its requests executes or waits.
pub type LevelId = usize;

/// A priority level's seats and queues.
#[derive(Debug)]
pub struct Level<T> {
    /// Its name.
    pub name: Box<str>,
    /// Seats by its shares.
    pub nominal: u32,
    /// Seats that no other level can use.
    pub guaranteed: u32,
    /// Seats that it can use at most.
    pub most: u32,
    /// Seats that its requests have.
    pub executing: u32,
    queuing: Option<Queuing>,
    queues: Queues<T>,
    rejections: Rejections,
    /// It is no longer configured and goes when its last request ends.
    retired: bool,
}

/// The decision about a new request.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It has a seat.
    Execute,
    /// It waits until it is woken.
    Wait(Ticket),
    /// There is no seat, and no place in a queue.
    Reject(Reason),
}

/// The reason of a rejection, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The flow's queue is full.
    QueueFull,
    /// The level has no queues.
    ConcurrencyLimit,
    /// It waited too long.
    TimeOut,
    /// The client went away while it waited.
    Cancelled,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::ConcurrencyLimit, Self::TimeOut, Self::Cancelled];

    /// The word of `apiserver_flowcontrol_rejected_requests_total`.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl<T> Default for Seats<T> {
    fn default() -> Self {
        Self { levels: Vec::new(), waiting: 0 }
    }
}

impl<T> Seats<T> {
    /// Divides `total` seats among these levels. Levels that are gone keep their number of seats until their last
    /// request ends. Returns the requests that now have a seat.
    pub fn configure(&mut self, total: u32, levels: &[PriorityLevel]) -> Vec<T> {
        for level in &mut self.levels {
            level.retired = true;
        }
        let shares: u64 = levels.iter().map(|level| u64::from(level.shares)).sum();
        for config in levels {
            let id = self.level_named(&config.name);
            let level = &mut self.levels[id];
            let part = (u64::from(total) * u64::from(config.shares)).div_ceil(shares.max(1));
            level.nominal = u32::try_from(part).unwrap_or(u32::MAX);
            level.guaranteed = level.nominal - percent(level.nominal, config.lendable_percent);
            let borrowed = config.borrowing_percent.map_or(total, |of| percent(level.nominal, of));
            level.most = level.nominal.saturating_add(borrowed);
            level.queuing = config.queuing;
            level.retired = false;
        }
        self.next()
    }

    /// The number of the level of that name, which is made where it is absent.
    fn level_named(&mut self, name: &str) -> LevelId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let level = Level {
            name: name.into(),
            nominal: 0,
            guaranteed: 0,
            most: 0,
            executing: 0,
            queuing: None,
            queues: Queues::default(),
            rejections: Rejections::default(),
            retired: false,
        };
        match self.levels.iter().position(Level::is_gone) {
            Some(id) => {
                self.levels[id] = level;
                id
            }
            None => {
                self.levels.push(level);
                self.levels.len() - 1
            }
        }
    }

    /// The number of the level of that name.
    pub fn find(&self, name: &str) -> Option<LevelId> {
        self.levels.iter().position(|level| *level.name == *name && !level.is_gone())
    }

    /// The levels that are configured.
    pub fn levels(&self) -> impl Iterator<Item = &Level<T>> {
        self.levels.iter().filter(|level| !level.retired)
    }

    /// Decides about a new request. `flow` computes the hash of its flow, and `wake` what wakes it, where it has to wait.
    pub fn arrive(&mut self, id: LevelId, flow: impl FnOnce() -> u64, wake: impl FnOnce() -> T) -> Arrival {
        let level = &self.levels[id];
        if level.queues.waiting() == 0 && self.has_seat(level) {
            self.levels[id].executing += 1;
            return Arrival::Execute;
        }
        let Some(queuing) = level.queuing else { return Arrival::Reject(Reason::ConcurrencyLimit) };
        match self.levels[id].queues.enqueue(queuing, flow(), wake()) {
            Some(ticket) => {
                self.waiting += 1;
                Arrival::Wait(ticket)
            }
            None => Arrival::Reject(Reason::QueueFull),
        }
    }

    /// A request has ended; `waited` is its queue and the time of its execution where it has waited. Returns the requests
    /// that now have a seat.
    pub fn leave(&mut self, id: LevelId, waited: Option<(u32, Duration)>) -> Vec<T> {
        let level = &mut self.levels[id];
        level.executing = level.executing.saturating_sub(1);
        if let Some((queue, took)) = waited {
            level.queues.finish(queue, took);
        }
        if self.waiting == 0 { Vec::new() } else { self.next() }
    }

    /// Removes a request that no longer waits for its turn; `false` where it has had it, and so has a seat.
    pub fn cancel(&mut self, id: LevelId, ticket: Ticket) -> bool {
        let was_waiting = self.levels[id].queues.cancel(ticket);
        self.waiting -= usize::from(was_waiting);
        was_waiting
    }

    /// Counts a rejection in the second `now` and returns the seconds until its client may try again.
    pub fn rejected(&mut self, id: LevelId, now: u64) -> u64 {
        self.levels[id].rejections.record(i64::try_from(now).unwrap_or(i64::MAX))
    }

    /// Gives free seats to waiting requests, those of the level first that has the fewest in proportion to its own.
    fn next(&mut self) -> Vec<T> {
        let mut turns = Vec::new();
        while self.waiting > 0 {
            let waits =
                |(_, level): &(LevelId, &Level<T>)| level.queues.waiting() > 0 && self.has_seat(level);
            let part = |level: &Level<T>| f64::from(level.executing) / f64::from(level.nominal.max(1));
            let waiting = self.levels.iter().enumerate().filter(waits);
            let Some((id, _)) = waiting.min_by(|(_, a), (_, b)| part(a).total_cmp(&part(b))) else { break };
            let Some((_, wake)) = self.levels[id].queues.dequeue() else { break };
            self.levels[id].executing += 1;
            self.waiting -= 1;
            turns.push(wake);
        }
        turns
    }

    fn has_seat(&self, level: &Level<T>) -> bool {
        if level.executing < level.guaranteed {
            return true;
        }
        let all = || self.levels.iter().filter(|level| !level.is_gone());
        let taken = || all().map(|level| u64::from(level.executing.max(level.guaranteed))).sum::<u64>();
        level.executing < level.most && taken() < all().map(|level| u64::from(level.nominal)).sum()
    }
}

impl<T> Level<T> {
    /// Requests that wait for a seat.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.queues.waiting()
    }

    fn is_gone(&self) -> bool {
        self.retired && self.executing == 0 && self.queues.waiting() == 0
    }
}

/// A percentage of seats, rounded.
fn percent(seats: u32, percent: u32) -> u32 {
    let part = (u64::from(seats) * u64::from(percent) + 50) / 100;
    u32::try_from(part).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn level(name: &str, shares: u32, lendable: u32, borrowing: Option<u32>) -> PriorityLevel {
        PriorityLevel {
            name: name.into(),
            uid: HeaderValue::from_static(""),
            is_exempt: false,
            shares,
            lendable_percent: lendable,
            borrowing_percent: borrowing,
            queuing: Some(Queuing { queues: 1, hand_size: 1, length_limit: 2 }),
        }
    }

    /// Two levels with ten seats each of twenty: `a` lends four of them; `b` lends none and borrows three at most.
    fn two() -> Seats<char> {
        let mut seats = Seats::default();
        assert!(seats.configure(20, &[level("a", 50, 40, None), level("b", 50, 0, Some(30))]).is_empty());
        seats
    }

    /// Each row is a script over [`two`] and its results: `a` and `b` arrive at that level, `A` and `B` leave it. A result
    /// is `+` for a seat, `.` for a place in the queue, `!` for a rejection; what leaves gives its seat to those named,
    /// or to nobody (`-`).
    #[test]
    fn seats_are_lent_and_given_back() {
        for (script, expect) in [
            ("aaaaaaaaaa", "++++++++++"),
            // The seats of `b` are its own.
            ("aaaaaaaaaaa", "++++++++++."),
            // It borrows three of the four that `a` does not use.
            ("bbbbbbbbbbbbbb", "+++++++++++++."),
            ("bbbbbbbbbbbbbbbb", "+++++++++++++..!"),
            // Six are guaranteed to `a`, and one is left in the pool.
            ("bbbbbbbbbbbbbaaaaaaaa", "++++++++++++++++++++."),
            // Lent seats go back to `a`, which has fewer in proportion.
            ("bbbbbbbbbbbbbaaaaaaaabBAB", "++++++++++++++++++++..ab-"),
            ("aaaaaaaaaaaA", "++++++++++.a"),
        ] {
            let mut seats = two();
            let mut shown = String::new();
            for step in script.chars() {
                let id = seats.find(&step.to_ascii_lowercase().to_string()).expect("a level");
                if step.is_lowercase() {
                    shown.push(match seats.arrive(id, || 0, || step) {
                        Arrival::Execute => '+',
                        Arrival::Wait(_) => '.',
                        Arrival::Reject(_) => '!',
                    });
                } else {
                    let woken: String = seats.leave(id, None).into_iter().collect();
                    shown.push_str(if woken.is_empty() { "-" } else { &woken });
                }
            }
            assert_eq!(shown, expect, "{script}");
        }
    }

    #[test]
    fn a_level_without_queues_rejects_and_a_removed_one_drains() {
        let mut seats: Seats<char> = Seats::default();
        let reject = PriorityLevel { queuing: None, ..level("r", 1, 0, Some(0)) };
        seats.configure(2, &[reject.clone(), level("q", 1, 0, Some(0))]);
        let (r, q) = (seats.find("r").expect("r"), seats.find("q").expect("q"));
        assert_eq!(seats.arrive(r, || 0, || 'r'), Arrival::Execute);
        assert_eq!(seats.arrive(r, || 0, || 'r'), Arrival::Reject(Reason::ConcurrencyLimit));
        assert_eq!(seats.arrive(q, || 0, || 'q'), Arrival::Execute);
        assert!(matches!(seats.arrive(q, || 0, || 'q'), Arrival::Wait(_)));
        let Arrival::Wait(ticket) = seats.arrive(q, || 0, || 'x') else { panic!("it is full") };
        assert!(seats.cancel(q, ticket));
        assert!(seats.configure(2, std::slice::from_ref(&reject)).is_empty());
        assert_eq!(seats.levels().map(|level| &*level.name).collect::<Vec<_>>(), ["r"]);
        assert_eq!(seats.leave(q, None).into_iter().collect::<String>(), "q");
        assert_eq!(seats.find("q"), Some(q));
        assert!(seats.leave(q, Some((0, Duration::from_millis(1)))).is_empty());
        assert_eq!(seats.find("q"), None);
        // Its number is free again.
        assert!(seats.configure(2, &[reject, level("n", 1, 0, None)]).is_empty());
        assert_eq!(seats.find("n"), Some(q));
    }

    #[test]
    fn more_seats_wake_who_waits() {
        let mut seats: Seats<char> = Seats::default();
        seats.configure(1, &[level("a", 1, 0, Some(0))]);
        let results: Vec<_> = "abc".chars().map(|c| seats.arrive(0, || 0, || c)).collect();
        assert!(matches!(&results[..], [Arrival::Execute, Arrival::Wait(_), Arrival::Wait(_)]));
        let turns = seats.configure(3, &[level("a", 1, 0, Some(0))]);
        assert_eq!(turns.into_iter().collect::<String>(), "bc");
    }
}

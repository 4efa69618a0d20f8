//! The queues of one priority level: shuffle sharding puts flows into queues, fair queuing takes requests out of them.
//! Pure over its arguments.
//!
//! Queues are served in the order of their virtual start times, as in start-time fair queuing: each request that a queue
//! has had executed moves its start by the time that the execution took. A flow with slow or many requests so waits for
//! flows with few, and a queue that was empty begins at the present virtual time: nobody saves time up. Until a request
//! has ended it counts with [`ESTIMATE`].
//!
//! Source: <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>, KEP 1040.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::schema::Queuing;

/// The assumed execution time of a request that has not ended, in microseconds: about that of a write.
const ESTIMATE: u64 = 1000;

/// Queues with waiting requests, and those of requests that execute.
#[derive(Debug)]
pub struct Queues<T> {
    /// By their number. Absent queues are empty.
    queues: BTreeMap<u32, Queue<T>>,
    /// The virtual start time of the queue that was served last.
    virtual_time: u64,
    waiting: usize,
    last_ticket: u64,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<(u64, T)>,
    executing: u32,
    /// Virtual start time of its next request, in microseconds.
    start: u64,
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The number of the queue.
    pub queue: u32,
    id: u64,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), virtual_time: 0, waiting: 0, last_ticket: 0 }
    }
}

impl<T> Queues<T> {
    /// The number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Queues a request of the flow with this hash; `None` where the flow's shortest queue is full.
    pub fn enqueue(&mut self, config: Queuing, flow: u64, request: T) -> Option<Ticket> {
        let load = |number: &u32| {
            self.queues.get(number).map_or(0, |queue| queue.waiting.len() + queue.executing as usize)
        };
        let number = hand(flow, config.queues, config.hand_size).into_iter().min_by_key(load)?;
        let start = self.virtual_time;
        let make = || Queue { waiting: VecDeque::new(), executing: 0, start };
        let queue = self.queues.entry(number).or_insert_with(make);
        if queue.waiting.len() >= config.length_limit as usize {
            return None;
        }
        if queue.waiting.is_empty() {
            queue.start = queue.start.max(start);
        }
        self.last_ticket += 1;
        queue.waiting.push_back((self.last_ticket, request));
        self.waiting += 1;
        Some(Ticket { queue: number, id: self.last_ticket })
    }

    /// Takes the next request out, with the number of its queue, which [`Queues::finish`] asks for.
    pub fn dequeue(&mut self) -> Option<(u32, T)> {
        let with_requests = self.queues.iter_mut().filter(|(_, queue)| !queue.waiting.is_empty());
        let (number, queue) = with_requests.min_by_key(|(_, queue)| queue.start)?;
        let (_, request) = queue.waiting.pop_front()?;
        self.virtual_time = self.virtual_time.max(queue.start);
        queue.start += ESTIMATE;
        queue.executing += 1;
        self.waiting -= 1;
        Some((*number, request))
    }

    /// A request that was dequeued has ended.
    pub fn finish(&mut self, number: u32, took: Duration) {
        let Some(queue) = self.queues.get_mut(&number) else { return };
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        queue.executing = queue.executing.saturating_sub(1);
        queue.start = queue.start.saturating_sub(ESTIMATE).saturating_add(took);
        if self.waiting == 0 {
            // Nobody has to be compared with anybody any more.
            self.queues.retain(|_, queue| queue.executing > 0);
        }
    }

    /// Removes a request that no longer waits for its turn; `false` where it has had it.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(queue) = self.queues.get_mut(&ticket.queue) else { return false };
        let Some(at) = queue.waiting.iter().position(|(id, _)| *id == ticket.id) else { return false };
        queue.waiting.remove(at);
        self.waiting -= 1;
        true
    }
}

/// The numbers of the queues that a flow's requests may be put into: `size` different ones of `deck`, in the order in which
/// the hash deals them, so that flows whose queues are all empty do not meet in the first ones.
fn hand(hash: u64, deck: u32, size: u32) -> Vec<u32> {
    let mut rest = hash;
    let mut order = Vec::with_capacity(size as usize);
    let mut dealt: Vec<u32> = Vec::with_capacity(size as usize);
    for cards in (deck - size.min(deck) + 1..=deck).rev() {
        // The remainder is less than `cards`, so it fits.
        let mut card = (rest % u64::from(cards)) as u32;
        rest /= u64::from(cards);
        // The card's place among those that are left, in ascending order.
        for taken in &dealt {
            card += u32::from(card >= *taken);
        }
        let at = dealt.partition_point(|taken| *taken < card);
        dealt.insert(at, card);
        order.push(card);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_EACH: Queuing = Queuing { queues: 4, hand_size: 1, length_limit: 3 };

    #[test]
    fn a_hand_has_as_many_different_queues_as_it_should() {
        let (mut used, mut first) = ([0_u32; 16], [0_u32; 16]);
        for hash in (0..4000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut cards = hand(hash, 16, 4);
            first[cards[0] as usize] += 1;
            cards.sort_unstable();
            assert!(cards.len() == 4 && cards.is_sorted_by(|a, b| a < b), "{cards:?}");
            cards.iter().for_each(|card| used[*card as usize] += 1);
        }
        // Each is dealt in a quarter of the hands.
        assert!(used.iter().all(|count| (850..1150).contains(count)), "{used:?}");
        assert!(first.iter().all(|count| (200..300).contains(count)), "{first:?}");
        assert_eq!(hand(7, 1, 1), [0]);
        let mut all = hand(12345, 3, 3);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    }

    /// Each row is a flow by its hash, the number of its requests, and how long one of them takes, in microseconds;
    /// `expect` is the order in which they are executed one by one.
    #[test]
    fn flows_are_served_by_the_time_they_have_used() {
        for (flows, expect) in [
            (vec![(0, 3, 1000)], "0 0 0"),
            (vec![(0, 3, 1000), (1, 1, 1000)], "0 1 0 0"),
            (vec![(0, 3, 1000), (1, 3, 1000), (2, 3, 1000)], "0 1 2 0 1 2 0 1 2"),
            // What takes three times as long comes a third as often.
            (vec![(0, 3, 3000), (1, 3, 1000)], "0 1 1 1 0 0"),
        ] {
            let mut queues = Queues::default();
            for (flow, count, took) in &flows {
                for _ in 0..*count {
                    queues.enqueue(ONE_EACH, *flow, (*flow, *took)).expect("room");
                }
            }
            let mut served = Vec::new();
            while let Some((queue, (flow, took))) = queues.dequeue() {
                served.push(flow.to_string());
                queues.finish(queue, Duration::from_micros(took));
            }
            assert_eq!(served.join(" "), expect, "{flows:?}");
            assert!(queues.queues.is_empty() && queues.waiting() == 0);
        }
    }

    #[test]
    fn a_full_queue_and_a_cancelled_request() {
        let mut queues = Queues::default();
        let tickets: Vec<_> = (0..4).map(|n| queues.enqueue(ONE_EACH, 0, n)).collect();
        assert_eq!(tickets.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(queues.enqueue(ONE_EACH, 1, 9).is_some(), "another flow's queue has room");
        let second = tickets[1].expect("queued");
        assert!(queues.cancel(second) && !queues.cancel(second));
        assert_eq!(queues.waiting(), 3);
        let order: Vec<_> = std::iter::from_fn(|| queues.dequeue()).map(|(_, n)| n).collect();
        assert_eq!(order, [0, 9, 2]);
        assert!(!queues.cancel(tickets[0].expect("queued")));
        // A flow with several queues takes the shortest.
        let two = Queuing { queues: 2, hand_size: 2, length_limit: 1 };
        let mut queues = Queues::default();
        let room = (0..3).map(|n| queues.enqueue(two, 5, n).is_some()).collect::<Vec<_>>();
        assert_eq!(room, [true, true, false]);
    }
}

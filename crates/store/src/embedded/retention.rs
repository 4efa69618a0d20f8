//! Retention of history: the current revision is recorded at regular intervals, and history is compacted
//! to the oldest record. This needs only intervals and no clock.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::Revision;

/// Number of intervals per retention time: history is kept for that time and up to a tenth longer.
const MARKS: u32 = 10;

/// The revisions at the ends of the last intervals.
#[derive(Debug, Default)]
struct Marks(VecDeque<Revision>);

impl Marks {
    /// Records the current revision and returns the one to compact to, if one is old enough.
    fn tick(&mut self, current: Revision) -> Option<Revision> {
        self.0.push_back(current);
        if self.0.len() > MARKS as usize { self.0.pop_front() } else { None }
    }
}

/// Calls `compact` with revisions that are `age` old, until the sender of `stop` is dropped.
pub(crate) fn run(
    age: Duration,
    stop: &Receiver<()>,
    current: impl Fn() -> Revision,
    compact: impl Fn(Revision),
) {
    let mut marks = Marks::default();
    while stop.recv_timeout(age / MARKS) == Err(RecvTimeoutError::Timeout) {
        if let Some(before) = marks.tick(current()) {
            compact(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_goes_ten_ticks_later() {
        let mut marks = Marks::default();
        let compacted: Vec<_> = (1..=13).map(|tick| marks.tick(tick * 100)).collect();
        assert_eq!(compacted[..10], [None; 10]);
        assert_eq!(compacted[10..], [Some(100), Some(200), Some(300)]);
    }
}

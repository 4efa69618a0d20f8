//! How long rejected clients are asked to wait: longer while many are rejected, as Kubernetes does it.

use std::collections::VecDeque;

/// The longest wait, in seconds.
const LONGEST: i64 = 32;

/// Rejections of one priority level in the last seconds.
#[derive(Debug)]
pub struct Rejections {
    /// Seconds with the number of rejections, the present one last.
    seconds: VecDeque<(i64, i64)>,
    retry_after: i64,
    /// The second in which the wait grew last.
    grown: i64,
}

impl Default for Rejections {
    fn default() -> Self {
        Self { seconds: VecDeque::new(), retry_after: 1, grown: i64::MIN }
    }
}

impl Rejections {
    /// Counts a rejection in the second `now` and returns the seconds until its client may try again. The wait doubles
    /// when there were three rejections for each second of it, and shrinks by one when there was less than one; it is
    /// looked at once a second.
    pub fn record(&mut self, now: i64) -> u64 {
        match self.seconds.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => {
                self.adapt(now);
                self.seconds.push_back((now, 1));
            }
        }
        self.retry_after.unsigned_abs()
    }

    fn adapt(&mut self, now: i64) {
        let since = now.saturating_sub(self.retry_after);
        let rejected: i64 =
            self.seconds.iter().filter(|(second, _)| *second >= since).map(|(_, count)| count).sum();
        if now.saturating_sub(self.grown) >= self.retry_after && rejected >= 3 * self.retry_after {
            self.retry_after = (self.retry_after * 2).min(LONGEST);
            self.grown = now;
        } else if rejected < self.retry_after && self.retry_after > 1 {
            self.retry_after -= 1;
        }
        self.seconds.retain(|(second, _)| *second >= now - LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_rejections() {
        // Rejections in each second, and the wait that the last one of the second is told; `-` for none.
        for (script, expect) in [
            ("1 1 1 1", "1 1 1 1"),
            ("9 9 9 9 9", "1 2 2 4 4"),
            ("9 9 9 9 9 9 9 9 9", "1 2 2 4 4 4 4 8 8"),
            ("9 9 9 9 0 0 0 0 0 1 1 1", "1 2 2 4 - - - - - 3 2 2"),
        ] {
            let mut rejections = Rejections::default();
            let mut shown = Vec::new();
            for (second, count) in script.split(' ').enumerate() {
                let count: usize = count.parse().expect("a number");
                let last = (0..count).map(|_| rejections.record(1000 + second as i64)).last();
                shown.push(last.map_or("-".to_owned(), |wait| wait.to_string()));
            }
            assert_eq!(shown.join(" "), expect, "{script}");
        }
    }
}

//! The `[Timer]` section: when a timer starts its unit, as schedules of CronJobs.

use super::{
    calendar::{CronTime, calendar},
    span,
    syntax::Assignment,
};
use crate::diagnostic::Findings;

/// A CronJob creates at most one Job a minute.
const SHORTEST_SECONDS: i64 = 60;

/// A timer.
#[derive(Debug, Clone, Default)]
pub struct Timer {
    /// Its times that a CronJob can be told.
    pub times: Vec<CronTime>,
    /// Whether a time that was missed is made up for.
    pub persistent: bool,
}

/// Reads the section, and warns of times that cannot be told to a CronJob.
pub fn read(entries: &[Assignment], found: &mut Findings) -> Timer {
    let mut timer = Timer::default();
    let mut once: Vec<&Assignment> = Vec::new();
    for entry in entries.iter().filter(|e| e.section.eq_ignore_ascii_case("timer")) {
        let text = entry.value.text.trim();
        match entry.key.as_str() {
            "Persistent" => timer.persistent = matches!(text, "yes" | "true" | "1" | "on" | "y" | "t"),
            // As systemd has it, an empty one forgets all before it.
            key if is_time(key) && text.is_empty() => {
                timer.times.clear();
                once.clear();
            }
            "OnCalendar" => match calendar(text) {
                Ok(found_time) => {
                    if found_time.rounded {
                        let sentence = "a CronJob knows no seconds: it is due at the start of the minute";
                        found.warn(&entry.value.start(), sentence);
                    }
                    timer.times.push(found_time.time);
                }
                Err(mistake) => found.warn(&entry.value.start(), format!("OnCalendar={mistake}")),
            },
            "OnUnitActiveSec" | "OnUnitInactiveSec" => timer.times.extend(interval(entry, text, found)),
            key if is_time(key) => once.push(entry),
            _ => {}
        }
    }
    let Some(first) = once.first() else { return timer };
    let sentence = if timer.times.is_empty() {
        format!("{}={} is one time only, which a CronJob cannot be", first.key, first.value.text)
    } else {
        format!("{} has no effect: the first time comes with the others", first.key)
    };
    found.warn(&first.at, sentence);
    timer
}

fn is_time(key: &str) -> bool {
    const KEYS: [&str; 6] =
        ["OnCalendar", "OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec"];
    KEYS.contains(&key)
}

/// The schedule of a time that follows the last start, or the last end.
fn interval(entry: &Assignment, text: &str, found: &mut Findings) -> Option<CronTime> {
    let at = entry.value.start();
    let seconds = match span::seconds(text) {
        Ok(seconds) => seconds?.ceil() as i64,
        Err(mistake) => {
            found.warn(&at, format!("{}={mistake}", entry.key));
            return None;
        }
    };
    if seconds < SHORTEST_SECONDS {
        found.warn(&at, "a CronJob is due once a minute at most");
    }
    if entry.key == "OnUnitInactiveSec" {
        found.warn(&at, "OnUnitInactiveSec counts from the last start here, not from the last end");
    }
    let seconds = seconds.max(SHORTEST_SECONDS);
    Some(CronTime { schedule: format!("@every {}", go_duration(seconds)), zone: None })
}

/// `1h30m`, as Go writes a duration.
fn go_duration(seconds: i64) -> String {
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use yado_types::cron::Schedule;

    use super::*;

    #[test]
    fn intervals_are_schedules() {
        for (seconds, expect) in [(60, "1m"), (5400, "1h30m"), (90, "1m30s"), (86_400, "24h")] {
            assert_eq!(go_duration(seconds), expect);
            assert!(Schedule::parse(&format!("@every {expect}")).is_ok());
        }
    }
}

//! Schedules of CronJobs: what the standard parser of Go's robfig/cron accepts, with its messages, and when they are due.
//!
//! Five fields (minute, hour, day of month, month, day of week) name the local times of a time zone at which a schedule is
//! due. A local time that the clock skips in spring is not due that day; one that comes twice in autumn is due twice.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use crate::duration;

/// A schedule that is due for ever in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At local times.
    Local(LocalTimes),
    /// Each time that this has passed, in whole seconds.
    Every(SignedDuration),
}

/// Sets of local times: in each field bit N stands for the number N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTimes {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both the day of the month and the day of the week have to match, since one of them was written as `*`.
    both_days: bool,
}

/// Why a schedule is refused: the parser's own message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// The numbers of a field, and the names that stand for the first ones.
struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
const DAYS: Bounds = Bounds { least: 1, most: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds =
    Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Schedules with names of their own.
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A schedule that is not due within this many years is never due, as `0 0 30 2 *`; the parser's own limit.
const YEARS: i16 = 5;

impl Schedule {
    /// Reads a schedule: five fields, a descriptor like `@daily`, or `@every` with a duration as Go writes it.
    ///
    /// # Errors
    /// The parser's message.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let refused = |message: String| Err(ScheduleError(message));
        if text.is_empty() {
            return refused("empty spec string".into());
        }
        if let Some(every) = text.strip_prefix("@every ") {
            let nanoseconds = duration::parse(every)
                .map_err(|why| ScheduleError(format!("failed to parse duration {text}: {why}")))?;
            let seconds = SignedDuration::from_nanos(nanoseconds).as_secs().max(1);
            return Ok(Self::Every(SignedDuration::from_secs(seconds)));
        }
        let fields = match DESCRIPTORS.iter().find(|(name, _)| *name == text) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => return refused(format!("unrecognized descriptor: {text}")),
            None => text,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let (count, all) = (fields.len(), fields.join(" "));
            return refused(format!("expected exactly 5 fields, found {count}: [{all}]"));
        };
        let (minutes, _) = field(minute, &MINUTES)?;
        let (hours, _) = field(hour, &HOURS)?;
        let (days, all_days) = field(day, &DAYS)?;
        let (months, _) = field(month, &MONTHS)?;
        let (weekdays, all_weekdays) = field(weekday, &WEEKDAYS)?;
        let both_days = all_days || all_weekdays;
        Ok(Self::Local(LocalTimes { minutes, hours, days, months, weekdays, both_days }))
    }

    /// The first time after `after` at which the schedule is due; `None` if there is none in the next five years. `after` is
    /// where the intervals of `@every` begin.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Local(times) => times.next(after, zone),
            Self::Every(interval) => {
                Timestamp::from_second(after.as_second().checked_add(interval.as_secs())?).ok()
            }
        }
    }

    /// The last time after `after` and not after `until` at which the schedule was due.
    pub fn latest(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Self::Every(interval) = self {
            let passed = until.as_second().checked_sub(after.as_second())? / interval.as_secs();
            let due = after.as_second() + passed * interval.as_secs();
            return Timestamp::from_second(due).ok().filter(|_| passed > 0);
        }
        // Looked for backwards in ever longer steps: schedules may be due each minute and `after` years ago.
        let mut back = SignedDuration::from_mins(1);
        loop {
            let from = until.checked_sub(back).map_or(after, |from| from.max(after));
            let due = |from: &Timestamp| self.next(*from, zone).filter(|due| *due <= until);
            if let Some(found) = std::iter::successors(due(&from), due).last() {
                return Some(found);
            }
            if from <= after {
                return None;
            }
            back = back.checked_mul(2)?;
        }
    }

    /// How often the schedule was due after `after` and not after `until`, counted up to `most`.
    pub fn count(&self, after: Timestamp, until: Timestamp, zone: &TimeZone, most: usize) -> usize {
        let due = |from: &Timestamp| self.next(*from, zone).filter(|due| *due <= until);
        std::iter::successors(due(&after), due).take(most).count()
    }
}

impl LocalTimes {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // The next whole minute: nothing is due between them.
        let minute = after.as_second().div_euclid(60).checked_add(1)?;
        let mut at = Timestamp::from_second(minute.checked_mul(60)?).ok()?.to_zoned(zone.clone());
        let last_year = at.year() + YEARS;
        while at.year() <= last_year {
            at = if !has(self.months, at.month()) {
                start_of(at.date().first_of_month().checked_add(1.month()).ok()?, zone)?
            } else if !self.matches_day(at.date()) {
                start_of(at.date().tomorrow().ok()?, zone)?
            } else if !has(self.hours, at.hour()) {
                at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?
            } else if !has(self.minutes, at.minute()) {
                at.checked_add(1.minute()).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }

    fn matches_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.both_days { day && weekday } else { day || weekday }
    }
}

/// The first moment of a day, which need not be midnight.
fn start_of(date: Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_zoned(zone.clone()).ok()
}

fn has(set: u64, number: i8) -> bool {
    set & (1 << number) != 0
}

/// Reads a field: ranges between commas. Also returns whether one of them is all numbers.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), ScheduleError> {
    let (mut set, mut all) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (bits, is_all) = range(part, bounds).map_err(ScheduleError)?;
        set |= bits;
        all |= is_all;
    }
    Ok((set, all))
}

/// Reads `*`, `N`, `N-M`, each with a step after a slash.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut all = matches!(ends[0], "*" | "?");
    let (first, mut last) = match ends[..] {
        _ if all => (bounds.least, bounds.most),
        [only] => (number_or_name(only, bounds)?, number_or_name(only, bounds)?),
        [first, last] => (number_or_name(first, bounds)?, number_or_name(last, bounds)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => number(step)?,
        _ => return Err(format!("too many slashes: {text}")),
    };
    if parts.len() == 2 {
        if ends.len() == 1 {
            last = bounds.most;
        }
        all &= step <= 1;
    }
    let Bounds { least, most, .. } = *bounds;
    if first < least {
        return Err(format!("beginning of range ({first}) below minimum ({least}): {text}"));
    }
    if last > most {
        return Err(format!("end of range ({last}) above maximum ({most}): {text}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    let step = usize::try_from(step).ok().filter(|step| *step > 0);
    let Some(step) = step else {
        return Err(format!("step of range should be a positive number: {text}"));
    };
    Ok(((first..=last).step_by(step).fold(0, |set, n| set | 1 << n), all))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let named = bounds.names.iter().zip(bounds.least..).find(|(name, _)| text.eq_ignore_ascii_case(name));
    named.map_or_else(|| number(text), |(_, n)| Ok(n))
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = text.parse::<i64>().map_err(|error| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}")
    })?;
    if parsed < 0 {
        return Err(format!("negative number ({parsed}) not allowed: {text}"));
    }
    // No field has numbers as large as these: all are refused in the same way.
    Ok(u32::try_from(parsed).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;

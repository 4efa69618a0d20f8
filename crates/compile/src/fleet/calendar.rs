//! systemd's calendar expressions as schedules of CronJobs.

use yado_types::time_zone;

/// When a CronJob is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronTime {
    /// `spec.schedule`.
    pub schedule: String,
    /// `spec.timeZone`.
    pub zone: Option<String>,
}

/// A calendar expression as a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// The times.
    pub time: CronTime,
    /// Whether the seconds of a minute at which it is due were left out: a schedule has none.
    pub rounded: bool,
}

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Expressions with names of their own.
const NAMED: [(&str, &str); 10] = [
    ("minutely", "* * * * *"),
    ("hourly", "0 * * * *"),
    ("daily", "0 0 * * *"),
    ("weekly", "0 0 * * 1"),
    ("monthly", "0 0 1 * *"),
    ("quarterly", "0 0 1 1,4,7,10 *"),
    ("semiannually", "0 0 1 1,7 *"),
    ("semi-annually", "0 0 1 1,7 *"),
    ("yearly", "0 0 1 1 *"),
    ("annually", "0 0 1 1 *"),
];

/// Reads a calendar expression like `Mon..Fri *-*-* 08:00`.
///
/// # Errors
///
/// What is wrong with it, or what of it a schedule cannot say, to follow `Key=`.
pub fn calendar(text: &str) -> Result<Calendar, String> {
    let wrong = || format!("{text} is not a valid calendar time, such as daily or Mon *-*-* 08:00");
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let zone = words.pop_if(|last| is_zone(last)).map(|zone| match zone {
        utc if utc.eq_ignore_ascii_case("UTC") => "UTC".to_owned(),
        other => other.to_owned(),
    });
    if let [word] = words[..]
        && let Some((_, schedule)) = NAMED.iter().find(|(name, _)| word.eq_ignore_ascii_case(name))
    {
        let time = CronTime { schedule: (*schedule).into(), zone };
        return Ok(Calendar { time, rounded: false });
    }
    let mut words = words.into_iter().peekable();
    let named = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    let weekdays = match named {
        Some(named) => weekdays(named).ok_or_else(wrong)?,
        None => "*".into(),
    };
    let date = words.next_if(|word| !word.contains(':')).unwrap_or("*-*-*");
    let time = words.next().unwrap_or("00:00");
    if words.next().is_some() || text.trim().is_empty() {
        return Err(wrong());
    }
    if date.contains('~') {
        return Err(format!("{text} counts days from the end of the month, which a CronJob cannot"));
    }
    let (year, month, day) = match date.split('-').collect::<Vec<_>>()[..] {
        [year, month, day] => (year, month, day),
        [month, day] => ("*", month, day),
        _ => return Err(wrong()),
    };
    if year != "*" {
        return Err(format!("{text} is for certain years only, which a CronJob cannot be"));
    }
    let (hour, minute, second) = match time.split(':').collect::<Vec<_>>()[..] {
        [hour, minute] => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return Err(wrong()),
    };
    let field = |text: &str, least, most| field(text, least, most).ok_or_else(wrong);
    let (month, day) = (field(month, 1, 12)?, field(day, 1, 31)?);
    let (hour, minute) = (field(hour, 0, 23)?, field(minute, 0, 59)?);
    if weekdays != "*" && day != "*" {
        return Err(format!(
            "{text} asks for days of the week that are days of the month as well, where a CronJob takes either"
        ));
    }
    let second: Option<f64> = second.parse().ok().filter(|s| (0.0..60.0).contains(s));
    let Some(second) = second else {
        return Err(format!("{text} is due more than once a minute, which a CronJob cannot be"));
    };
    let schedule = format!("{minute} {hour} {day} {month} {weekdays}");
    Ok(Calendar { time: CronTime { schedule, zone }, rounded: second > 0.0 })
}

/// Whether a word at the end names a time zone, and not a day or an expression.
fn is_zone(word: &str) -> bool {
    let named = NAMED.iter().any(|(name, _)| word.eq_ignore_ascii_case(name));
    let upper = word.starts_with(|c: char| c.is_ascii_uppercase());
    word.eq_ignore_ascii_case("UTC") || !named && upper && time_zone::find(word).is_ok()
}

/// `Mon,Wed..Fri` as the numbers of a schedule, where Sunday is 0.
fn weekdays(text: &str) -> Option<String> {
    let day = |text: &str| {
        let text = text.to_ascii_lowercase();
        DAYS.iter().position(|day| *day == text || day[..3] == text)
    };
    let mut all = [false; 7];
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once("..").or(part.split_once('-')).unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        if first > last {
            return None;
        }
        all[first..=last].fill(true);
    }
    if all.iter().all(|on| *on) {
        return Some("*".into());
    }
    let numbers: Vec<String> =
        (0..7).filter(|day| all[(day + 6) % 7]).map(|number| number.to_string()).collect();
    Some(numbers.join(","))
}

/// One part of a date or time, such as `*`, `5`, `0/15` or `1..5,9`, as a field of a schedule.
fn field(text: &str, least: u32, most: u32) -> Option<String> {
    if text == "*" {
        return Some(text.into());
    }
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (least..=most).contains(n));
    let parts = text.split(',').map(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let range = match range.split_once("..") {
            Some((first, last)) => format!("{}-{}", number(first)?, number(last)?),
            None => number(range)?.to_string(),
        };
        let Some(step) = step else { return Some(range) };
        let step = step.parse::<u32>().ok().filter(|step| *step > 0)?;
        Some(format!("{range}/{step}"))
    });
    let parts: Option<Vec<String>> = parts.collect();
    // From its first number on, each.
    Some(parts?.join(",")).map(|field| if field == format!("{least}/1") { "*".into() } else { field })
}

#[cfg(test)]
mod tests {
    use yado_types::cron::Schedule;

    use super::*;

    #[test]
    fn calendars_become_schedules() {
        for (text, expect) in [
            ("daily", "0 0 * * *"),
            ("Weekly UTC", "0 0 * * 1 UTC"),
            ("Mon..Fri 08:30", "30 8 * * 1,2,3,4,5"),
            ("Sat,Sunday *-*-* 22:00:00", "0 22 * * 0,6"),
            ("*:0/15", "0/15 * * * *"),
            ("*-*-* 02,14..18/2:05", "5 2,14-18/2 * * *"),
            ("*-*-01 04:00", "0 4 1 * *"),
            ("12-25", "0 0 25 12 *"),
            ("*-1/3-1 6:00 Europe/Berlin", "0 6 1 1/3 * Europe/Berlin"),
            ("Mon..Sun *-*-1 00:00", "0 0 1 * *"),
            ("03:00:30", "0 3 * * * (rounded)"),
            ("*:0/1", "* * * * *"),
            ("Fri", "0 0 * * 5"),
        ] {
            let Calendar { time, rounded } = calendar(text).expect(text);
            assert!(Schedule::parse(&time.schedule).is_ok(), "{text}");
            let zone = time.zone.map(|zone| format!(" {zone}")).unwrap_or_default();
            let rounded = if rounded { " (rounded)" } else { "" };
            assert_eq!(format!("{}{zone}{rounded}", time.schedule), expect, "{text}");
        }
    }

    #[test]
    fn what_a_schedule_cannot_say_is_told() {
        for (text, expect) in [
            ("Mon *-*-1..7 00:00", "days of the week that are days of the month"),
            ("2024-12-24 18:00", "certain years"),
            ("*-*~1 00:00", "the end of the month"),
            ("*:*:0/10", "more than once a minute"),
            ("whenever", "not a valid calendar time"),
            ("25:00", "not a valid calendar time"),
            ("Sun..Mon 00:00", "not a valid calendar time"),
            ("*/2:00", "not a valid calendar time"),
            ("", "not a valid calendar time"),
            ("1-2-3-4", "not a valid calendar time"),
            ("daily daily", "not a valid calendar time"),
        ] {
            let told = calendar(text).expect_err(text);
            assert!(told.contains(expect), "{text}: {told}");
        }
    }
}

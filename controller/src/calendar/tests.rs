//! Windows as rows: what is one, and what is open when.

use super::*;

fn windows(texts: &[&str]) -> Vec<Window> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// `open until ...`, `open`, `closed until ... (window N)`.
fn stands(texts: &[&str], now: &str) -> String {
    match standing(&windows(texts), at(now)) {
        Standing::Open { until: None } => "open".to_owned(),
        Standing::Open { until: Some(until) } => format!("open until {until}"),
        Standing::Closed { opens, window } => format!("closed until {opens} by {window}"),
    }
}

#[test]
fn what_is_a_window() {
    for (text, right) in [
        ("Mon-Fri 22:00-05:00 Europe/Berlin", "Mon-Fri 22:00-05:00 Europe/Berlin"),
        ("  mon-fri   22:00-05:00  UTC ", "Mon-Fri 22:00-05:00 UTC"),
        ("Sun,Sat 00:00-24:00 UTC", "Sat,Sun 00:00-24:00 UTC"),
        ("Mon,Tue,Wed,Fri 01:00-02:30 Asia/Kolkata", "Mon-Wed,Fri 01:00-02:30 Asia/Kolkata"),
        ("Fri-Mon 01:00-02:00 UTC", "Mon,Fri-Sun 01:00-02:00 UTC"),
        ("DAILY 03:00-04:00 America/New_York", "daily 03:00-04:00 America/New_York"),
        ("Mon-Sun 03:00-04:00 UTC", "daily 03:00-04:00 UTC"),
        ("Wed 22:00-24:00 UTC", "Wed 22:00-24:00 UTC"),
    ] {
        assert_eq!(text.parse::<Window>().map(|w| w.to_string()), Ok(right.to_owned()), "{text}");
        assert_eq!(right.parse::<Window>().unwrap().to_string(), right);
    }
}

#[test]
fn what_is_none_and_why() {
    for (text, why) in [
        ("", "write DAYS FROM-TO ZONE"),
        ("Mon", "write DAYS FROM-TO ZONE"),
        ("Mon-Fri 22:00-05:00", "the time zone is missing (UTC is one)"),
        ("Mon-Fri 22:00-05:00 Europe/Berlin and more", "write DAYS FROM-TO ZONE"),
        ("Mo-Fr 22:00-05:00 UTC", "`Mo` is not a day: use Mon Tue"),
        ("Mon, 22:00-05:00 UTC", "`` is not a day"),
        ("weekdays 22:00-05:00 UTC", "`weekdays` is not a day"),
        ("Mon 22:00 UTC", "`22:00` is not FROM-TO"),
        ("Mon 22-05 UTC", "`22` is not a time from 00:00 to 24:00"),
        ("Mon 9:00-10:00 UTC", "`9:00` is not a time"),
        ("Mon 22:00-25:00 UTC", "`25:00` is not a time"),
        ("Mon 22:60-23:00 UTC", "`22:60` is not a time"),
        ("Mon 24:00-05:00 UTC", "`24:00` is not a time"),
        ("Mon 05:00-05:00 UTC", "it ends when it begins; a whole day is 00:00-24:00"),
        ("Mon 00:00-00:00 UTC", "it ends when it begins"),
        ("Mon 22:00-05:00 Berlin", "`Berlin` is no time zone that is known here"),
        ("Mon 22:00-05:00 +01:00", "`+01:00` is no time zone"),
    ] {
        let said = text.parse::<Window>().unwrap_err().to_string();
        assert!(said.starts_with(&format!("`{text}` is not a window: ")), "{said}");
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn open_and_closed() {
    let nights = ["Mon-Fri 22:00-05:00 Europe/Berlin"];
    for (texts, now, right) in [
        (&[][..], "2026-11-25T12:00:00Z", "open"),
        // A Wednesday, 13:00 in Berlin.
        (&nights, "2026-11-25T12:00:00Z", "closed until 2026-11-25T21:00:00Z by 0"),
        (&nights, "2026-11-25T20:59:59.999Z", "closed until 2026-11-25T21:00:00Z by 0"),
        (&nights, "2026-11-25T21:00:00Z", "open until 2026-11-26T04:00:00Z"),
        (&nights, "2026-11-26T03:59:59.999Z", "open until 2026-11-26T04:00:00Z"),
        (&nights, "2026-11-26T04:00:00Z", "closed until 2026-11-26T21:00:00Z by 0"),
        // What begins on a Friday goes on into Saturday; Sunday night is not Monday's.
        (&nights, "2026-11-28T03:00:00Z", "open until 2026-11-28T04:00:00Z"),
        (&nights, "2026-11-28T04:00:00Z", "closed until 2026-11-30T21:00:00Z by 0"),
        (&nights, "2026-11-30T01:00:00Z", "closed until 2026-11-30T21:00:00Z by 0"),
        // Several: whichever comes first, and those that touch are one.
        (
            &["Sat 10:00-12:00 UTC", "Fri 10:00-12:00 UTC"],
            "2026-11-26T00:00:00Z",
            "closed until 2026-11-27T10:00:00Z by 1",
        ),
        (
            &["Fri 10:00-12:00 UTC", "Fri 12:00-13:00 UTC", "Fri 11:00-11:30 UTC"],
            "2026-11-27T11:15:00Z",
            "open until 2026-11-27T13:00:00Z",
        ),
        (
            &["Fri 22:00-24:00 UTC", "Sat 00:00-06:00 UTC"],
            "2026-11-27T23:00:00Z",
            "open until 2026-11-28T06:00:00Z",
        ),
        // Just closed, and the only one of the week.
        (
            &["Wed 10:00-11:00 UTC"],
            "2026-11-25T11:00:00Z",
            "closed until 2026-12-02T10:00:00Z by 0",
        ),
        (&["daily 00:00-24:00 UTC"], "2026-11-25T11:00:00Z", "open"),
        (&["Mon-Sat 00:00-24:00 UTC"], "2026-11-25T11:00:00Z", "open until 2026-11-29T00:00:00Z"),
        // A day earlier or later than here.
        (
            &["Mon 00:00-01:00 Pacific/Kiritimati"],
            "2026-11-29T09:00:00Z",
            "closed until 2026-11-29T10:00:00Z by 0",
        ),
        (
            &["Sun 23:00-23:30 Pacific/Midway"],
            "2026-11-30T10:00:00Z",
            "open until 2026-11-30T10:30:00Z",
        ),
    ] {
        assert_eq!(stands(texts, now), right, "{texts:?} {now}");
    }
}

/// Berlin: on 2026-03-29 the clock jumps from 02:00 to 03:00 (01:00Z), on 2026-10-25 back from 03:00 to 02:00 (01:00Z).
#[test]
fn changes_of_the_clock() {
    for (text, now, right) in [
        // It begins in the gap: with the jump.
        (
            "daily 02:30-04:00 Europe/Berlin",
            "2026-03-29T00:30:00Z",
            "closed until 2026-03-29T01:00:00Z by 0",
        ),
        (
            "daily 02:30-04:00 Europe/Berlin",
            "2026-03-29T01:00:00Z",
            "open until 2026-03-29T02:00:00Z",
        ),
        // It ends in the gap: with the jump.
        (
            "daily 01:00-02:30 Europe/Berlin",
            "2026-03-29T00:30:00Z",
            "open until 2026-03-29T01:00:00Z",
        ),
        // It lies in the gap as a whole: not on that day.
        (
            "daily 02:10-02:50 Europe/Berlin",
            "2026-03-29T00:30:00Z",
            "closed until 2026-03-30T00:10:00Z by 0",
        ),
        // It spans the gap: an hour shorter.
        (
            "daily 22:00-05:00 Europe/Berlin",
            "2026-03-28T22:00:00Z",
            "open until 2026-03-29T03:00:00Z",
        ),
        // It begins in the hour that comes twice: in the first; it is an hour longer.
        (
            "daily 02:30-04:00 Europe/Berlin",
            "2026-10-25T00:29:00Z",
            "closed until 2026-10-25T00:30:00Z by 0",
        ),
        (
            "daily 02:30-04:00 Europe/Berlin",
            "2026-10-25T01:15:00Z",
            "open until 2026-10-25T03:00:00Z",
        ),
        // It ends in the hour that comes twice: in the first.
        (
            "daily 01:00-02:30 Europe/Berlin",
            "2026-10-25T00:15:00Z",
            "open until 2026-10-25T00:30:00Z",
        ),
        (
            "daily 01:00-02:30 Europe/Berlin",
            "2026-10-25T01:15:00Z",
            "closed until 2026-10-26T00:00:00Z by 0",
        ),
        // It spans that hour: an hour longer.
        (
            "daily 22:00-05:00 Europe/Berlin",
            "2026-10-24T21:00:00Z",
            "open until 2026-10-25T04:00:00Z",
        ),
        // Clocks that jump at midnight: the day begins at 01:00 (Beirut, 2026-03-29).
        (
            "Sun 00:00-02:00 Asia/Beirut",
            "2026-03-28T21:59:00Z",
            "closed until 2026-03-28T22:00:00Z by 0",
        ),
    ] {
        assert_eq!(stands(&[text], now), right, "{text} {now}");
    }
}

#[test]
fn moments_for_people() {
    let window: Window = "Mon-Fri 22:00-05:00 Europe/Berlin".parse().unwrap();
    assert_eq!(window.moment(at("2026-11-30T21:00:00Z")), "Mon 22:00 Europe/Berlin");
    for (from, to, words) in [
        ("2026-11-25T12:00:00Z", "2026-11-25T12:00:30Z", "within a minute"),
        ("2026-11-25T12:00:00Z", "2026-11-25T12:12:00Z", "in 12 min"),
        ("2026-11-25T12:00:00Z", "2026-11-25T13:59:00Z", "in 119 min"),
        ("2026-11-25T12:00:00Z", "2026-11-25T17:30:00Z", "in 5 h 30 min"),
        ("2026-11-25T12:00:00Z", "2026-11-25T17:00:00Z", "in 5 h"),
        ("2026-11-25T12:00:00Z", "2026-11-30T17:00:00Z", "in 5 d"),
        ("2026-11-25T12:00:00Z", "2026-11-25T11:00:00Z", "within a minute"),
    ] {
        assert_eq!(ahead(at(from), at(to)), words);
    }
}

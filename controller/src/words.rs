//! Numbers, times and lists of nodes as people say them.

use rota_rollout::names::{Span, Timestamp};

/// Groups of names that are listed one by one; more are counted.
const NAMES_LISTED_MAX: usize = 6;

/// A length of time with two digits that matter: `812 ms`, `12.4 s`, `3m 20s`, `2h 5m`, `4d 3h`.
pub fn span(span: Span) -> String {
    let (ms, seconds) = (span.0, span.0 / 1000);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{}d {}h", hours / 24, hours % 24),
    }
}

/// A stop-watch: `0:42`, `12:05`, `1:02:05`.
pub fn clock(span: Span) -> String {
    let seconds = span.0 / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// How long ago a time of the contract (RFC 3339) was: `12s ago`; the text itself if it is none.
pub fn ago(time: &str, now: Timestamp) -> String {
    let Some(then) = moment(time) else { return time.to_owned() };
    let seconds = now.since(then).0 / 1000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// How far off a time is: `in 2h 5m`, or `past`.
pub fn until(time: &str, now: Timestamp) -> String {
    match moment(time) {
        Some(then) if then > now => format!("in {}", span(then.since(now))),
        Some(_) => "past".to_owned(),
        None => time.to_owned(),
    }
}

/// A time of the contract to the second: `2026-11-24 03:45:01Z`; the text itself if it is none.
pub fn date(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => time.to_owned(),
    }
}

/// A time of the contract as milliseconds; `None` when it is not RFC 3339 or before 1970.
pub fn moment(time: &str) -> Option<Timestamp> {
    let ms = time.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    u64::try_from(ms).ok().map(Timestamp)
}

/// A size: `512 B`, `1.4 KiB`, `100.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `1 node`, `2 nodes`.
pub fn count(number: impl Into<u64>, thing: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", thousands(number))
}

/// `120 931`: large numbers in groups of three.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    if digits.len() <= 4 {
        return digits;
    }
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A name whose end is a number: `web-04` is (`web-`, 4, 2 digits).
fn numbered(name: &str) -> Option<(&str, u64, usize)> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[stem.len()..];
    Some((stem, digits.parse().ok()?, digits.len()))
}

/// Does `next` follow `name` in counting?
fn follows(name: &str, next: &str) -> bool {
    let (Some((stem, number, width)), Some((next_stem, next_number, next_width))) =
        (numbered(name), numbered(next))
    else {
        return false;
    };
    let same_width = width == next_width || (next_width == width + 1 && !name.contains("-0"));
    stem == next_stem && number + 1 == next_number && same_width
}

/// `web-01`, `web-01 and web-02`, `web-01, web-04 to web-06 and db-1`; many are counted.
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut runs: Vec<(&str, &str, usize)> = Vec::new();
    for name in &names {
        match runs.last_mut() {
            Some((_, last, length)) if follows(last, name) => {
                *last = name;
                *length += 1;
            }
            Some(_) | None => runs.push((name, name, 1)),
        }
    }
    let mut parts = Vec::new();
    for (first, last, length) in runs {
        match length {
            1 => parts.push(first.to_owned()),
            2 => parts.extend([first.to_owned(), last.to_owned()]),
            _ => parts.push(format!("{first} to {last}")),
        }
    }
    if parts.len() > NAMES_LISTED_MAX {
        return format!("{} ({}, ...)", count(names.len() as u64, "node"), parts[..3].join(", "));
    }
    match parts.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// Foreign text in one line that a terminal cannot be steered with: what apps, scripts and other
/// people wrote may hold control characters.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.peek() == Some(&'[') => {
                // A colour or a cursor command: up to its final letter.
                chars.by_ref().skip(1).find(|c| ('@'..='~').contains(c));
            }
            '\n' | '\t' => clean.push(' '),
            c if is_unseen(c) => {}
            c => clean.push(c),
        }
    }
    clean.trim_end().to_owned()
}

/// Steers a terminal, or turns the text around it (as U+202E does), and is not seen itself.
fn is_unseen(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// The longest reason that an operator may give, in characters: it stands in every list of what was done.
const WHY_MAX: usize = 2_000;

/// What an operator says with `-m`, if that can be kept and shown.
pub fn why(text: &str) -> Result<String, String> {
    let long = text.chars().count();
    if long > WHY_MAX {
        return Err(format!("it is {long} characters long, and at most {WHY_MAX} are kept"));
    }
    match text.chars().find(|c| is_unseen(*c) && !matches!(c, '\n' | '\r' | '\t')) {
        Some(c) => {
            let code = u32::from(c);
            Err(format!("it holds U+{code:04X}, which is not seen and changes how the rest is"))
        }
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_cannot_be_shown() {
        for (text, right) in [
            ("", Ok("")),
            ("CVE-2026-1: \u{fc}ber\nall", Ok("CVE-2026-1: \u{fc}ber\nall")),
            ("a\u{202e}b", Err("U+202E")),
            ("a\u{1b}[31mb", Err("U+001B")),
            (&"w".repeat(2_000), Ok(&"w".repeat(2_000))),
            (&"w".repeat(2_001), Err("at most 2000")),
        ] {
            match (why(text), right) {
                (Ok(kept), Ok(right)) => assert_eq!(kept, right),
                (Err(why), Err(right)) => assert!(why.contains(right), "{why}"),
                (got, right) => panic!("{got:?} instead of {right:?}"),
            }
        }
        assert_eq!(clean("a\u{202e}b\u{2066}"), "ab");
    }

    #[test]
    fn spans() {
        for (ms, words, stop_watch) in [
            (0, "0 ms", "0:00"),
            (812, "812 ms", "0:00"),
            (12_480, "12.4 s", "0:12"),
            (200_000, "3m 20s", "3:20"),
            (7_500_000, "2h 5m", "2:05:00"),
            (356_400_000, "4d 3h", "99:00:00"),
        ] {
            assert_eq!(span(Span(ms)), words);
            assert_eq!(clock(Span(ms)), stop_watch);
        }
    }

    #[test]
    fn times() {
        let now = moment("2026-11-24T03:45:00.000Z").unwrap();
        for (time, words) in [
            ("2026-11-24T03:45:00.000Z", "now"),
            ("2026-11-24T03:44:18.000Z", "42s ago"),
            ("2026-11-24T03:40:00Z", "5m ago"),
            ("2026-11-23T20:40:00Z", "7h ago"),
            ("2026-11-20T20:40:00Z", "3d ago"),
            ("2026-11-24T03:46:00Z", "now"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(ago(time, now), words, "{time}");
        }
        assert_eq!(until("2026-11-24T05:50:00Z", now), "in 2h 5m");
        assert_eq!(until("2026-11-24T03:00:00Z", now), "past");
        assert_eq!(date("2026-11-24T03:45:01.123Z"), "2026-11-24 03:45:01Z");
    }

    #[test]
    fn sizes_and_counts() {
        for (number, words) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1434, "1.4 KiB"),
            (104_857_600, "100.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(number), words);
        }
        assert_eq!(count(1_u64, "node"), "1 node");
        assert_eq!(count(0_u64, "node"), "0 nodes");
        assert_eq!(count(120_931_u64, "request"), "120 931 requests");
        assert_eq!(thousands(1_000_000), "1 000 000");
        assert_eq!(thousands(9999), "9999");
    }

    #[test]
    fn foreign_text() {
        for (text, cleaned) in [
            ("plain", "plain"),
            ("two\nlines\tand a tab\n", "two lines and a tab"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "]0;titleafter"),
            ("back\x08space\r", "backspace"),
            ("\x1b[", ""),
        ] {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }

    #[test]
    fn lists_of_names() {
        for (list, words) in [
            (vec![], "none"),
            (vec!["web-01"], "web-01"),
            (vec!["web-01", "web-02"], "web-01 and web-02"),
            (vec!["web-04", "web-05", "web-06"], "web-04 to web-06"),
            (vec!["web-1", "web-4", "web-5", "web-6", "db-1"], "web-1, web-4 to web-6 and db-1"),
            (vec!["web-9", "web-10", "web-11"], "web-9 to web-11"),
            (vec!["a", "b"], "a and b"),
            (vec!["a", "b", "c", "d", "e", "f", "g"], "7 nodes (a, b, c, ...)"),
        ] {
            assert_eq!(names(list.iter().copied()), words, "{list:?}");
        }
    }
}

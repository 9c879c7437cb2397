//! One window as operators write it: `Mon-Fri 22:00-05:00 Europe/Berlin`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// What a window looks like, for every error.
const RULE: &str = "write DAYS FROM-TO ZONE, for example \"Mon-Fri 22:00-05:00 Europe/Berlin\"";

/// The days in the order of the week, as they are written.
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// A recurring time.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// On which days it begins, Monday first.
    days: [bool; 7],
    from: Time,
    /// The end, as a time of its own; on the next day where it is not after the beginning.
    to: Time,
    zone: TimeZone,
    /// The name of the zone as it is written.
    zone_name: String,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a window: {why}")]
pub struct BadWindow {
    text: String,
    why: String,
}

impl BadWindow {
    /// The reason alone, for who has said already what is wrong.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl FromStr for Window {
    type Err = BadWindow;
    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let bad = |why: String| BadWindow { text: text.to_owned(), why };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days_text, times, zone_name) = match words[..] {
            [days, times, zone] => (days, times, zone),
            [_, _] => return Err(bad(format!("the time zone is missing (UTC is one); {RULE}"))),
            _ => return Err(bad(RULE.to_owned())),
        };
        let (from, to) = times
            .split_once('-')
            .ok_or_else(|| bad(format!("`{times}` is not FROM-TO, for example 22:00-05:00")))?;
        let from = time(from).filter(|_| from != "24:00").ok_or_else(|| bad(no_time(from)))?;
        let (whole, to) = (to == "24:00", time(to).ok_or_else(|| bad(no_time(to)))?);
        if from == to && !(whole && from == Time::midnight()) {
            return Err(bad("it ends when it begins; a whole day is 00:00-24:00".to_owned()));
        }
        let zone = zone(zone_name).ok_or_else(|| {
            let like = "write one such as UTC, Europe/Berlin or America/New_York";
            bad(format!("`{zone_name}` is no time zone that is known here; {like}"))
        })?;
        let days = days(days_text).map_err(bad)?;
        Ok(Self { days, from, to, zone, zone_name: zone_name.to_owned() })
    }
}

/// `22:00`; `24:00` is the midnight that follows.
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    if text == "24:00" {
        return Some(Time::midnight());
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

fn no_time(text: &str) -> String {
    format!("`{text}` is not a time from 00:00 to 24:00")
}

/// A name of the IANA database, or UTC. Not an offset: it would be wrong for half of the year.
fn zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "UTC" | "Etc/UTC") {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(name).ok()
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`, `daily`.
fn days(text: &str) -> Result<[bool; 7], String> {
    if text.eq_ignore_ascii_case("daily") {
        return Ok([true; 7]);
    }
    let place = |name: &str| {
        let found = DAYS.iter().position(|(day, _)| day.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            format!("`{name}` is not a day: use Mon Tue Wed Thu Fri Sat Sun, Mon-Fri, or daily")
        })
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (place(first)?, place(last)?);
        let length = (last + 7 - first) % 7;
        (0..=length).for_each(|step| days[(first + step) % 7] = true);
    }
    Ok(days)
}

impl fmt::Display for Window {
    /// As it is best written: the days in the order of the week, runs of three and more drawn together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = if self.to == Time::midnight() { "24:00".to_owned() } else { clock(self.to) };
        write!(f, "{} {}-{to} {}", self.day_names(), clock(self.from), self.zone_name)
    }
}

fn clock(time: Time) -> String {
    format!("{:02}:{:02}", time.hour(), time.minute())
}

impl Window {
    fn day_names(&self) -> String {
        if self.days == [true; 7] {
            return "daily".to_owned();
        }
        let mut parts: Vec<String> = Vec::new();
        let mut place = 0;
        while place < 7 {
            let run = self.days[place..].iter().take_while(|on| **on).count();
            match run {
                0 => place += 1,
                1 | 2 => parts.extend((place..place + run).map(|day| DAYS[day].0.to_owned())),
                _ => parts.push(format!("{}-{}", DAYS[place].0, DAYS[place + run - 1].0)),
            }
            place += run;
        }
        parts.join(",")
    }

    /// Its times from two days before an instant to so many after it; each begins before it ends.
    pub(super) fn around(
        &self,
        at: Timestamp,
        days: i64,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = at.to_zoned(self.zone.clone()).date();
        (-2..=days).filter_map(move |day| {
            let date = today.checked_add(day.days()).ok()?;
            let place = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
            if !self.days[place] {
                return None;
            }
            let next = date.checked_add(1.day()).ok()?;
            let from = self.instant(date, self.from)?;
            let to = self.instant(if self.to > self.from { date } else { next }, self.to)?;
            (from < to).then_some((from, to))
        })
    }

    /// When the wall clock shows this: the first time, or the moment at which it jumps over it.
    fn instant(&self, date: Date, time: Time) -> Option<Timestamp> {
        let shown = date.to_datetime(time);
        match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(shown).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(shown).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                let earlier = after.to_timestamp(shown).ok()?;
                self.zone.following(earlier).next().map(|change| change.timestamp())
            }
        }
    }

    /// An instant as this window's people read it: `Mon 22:00 Europe/Berlin`.
    pub fn moment(&self, at: Timestamp) -> String {
        let there = at.to_zoned(self.zone.clone());
        let day = DAYS.iter().find(|(_, day)| *day == there.weekday());
        format!("{} {} {}", day.map_or("", |day| day.0), clock(there.time()), self.zone_name)
    }
}

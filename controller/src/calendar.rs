//! The windows of an environment: recurring times in which updates may start. Pure: windows and an instant in, open or
//! closed and until when out.
//!
//! A window's times are those of a wall clock in its zone, and belong to the day on which it begins. A time that a
//! change of the clock skips is the moment of the change; one that comes twice is the first of the two.

mod window;

use jiff::{Timestamp, ToSpan};

pub use window::{BadWindow, Window};

/// So many days are looked ahead: every window recurs within a week, and one that was skipped today may be closed now.
const DAYS_AHEAD: i64 = 9;

/// How the windows of an environment stand at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Updates may start.
    Open {
        /// Until then; `None`: without end.
        until: Option<Timestamp>,
    },
    /// They may not.
    Closed {
        /// Until then.
        opens: Timestamp,
        /// The window that opens then, by its place in the list.
        window: usize,
    },
}

/// Is the environment open at this instant? One without windows always is.
pub fn standing(windows: &[Window], at: Timestamp) -> Standing {
    if windows.is_empty() {
        return Standing::Open { until: None };
    }
    let mut times: Vec<(Timestamp, Timestamp, usize)> = Vec::new();
    for (place, window) in windows.iter().enumerate() {
        times.extend(window.around(at, DAYS_AHEAD).map(|(from, to)| (from, to, place)));
    }
    times.sort_unstable();
    let mut until = None;
    for (from, to, place) in times {
        let reached = until.unwrap_or(at);
        if from > reached {
            return match until {
                Some(_) => Standing::Open { until },
                None => Standing::Closed { opens: from, window: place },
            };
        }
        if to > reached {
            until = Some(to);
        }
    }
    // One after the other for as long as we look: it never closes.
    Standing::Open { until: until.filter(|until| *until < at + (24 * (DAYS_AHEAD - 2)).hours()) }
}

/// How long from now, for people: `in 5 h`.
pub fn ahead(from: Timestamp, to: Timestamp) -> String {
    let minutes = (to.as_second() - from.as_second()).max(0).div_euclid(60);
    match minutes {
        0 => "within a minute".to_owned(),
        1..=119 => format!("in {minutes} min"),
        120..=2879 if minutes % 60 == 0 => format!("in {} h", minutes / 60),
        120..=2879 => format!("in {} h {} min", minutes / 60, minutes % 60),
        _ => format!("in {} d", minutes / 1440),
    }
}

#[cfg(test)]
mod tests;

//! Durations as the manifest writes them: `200ms`, `10s`, `5m`, `1h`.

use rota_rollout::names::Span;

/// The longest duration that makes sense anywhere: 30 days. Longer ones are typing errors.
pub(super) const DURATION_MAX: Span = Span::seconds(30 * 24 * 3600);

/// Units from large to small, with their milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What a duration looks like, for hints.
pub(super) const FORM: &str =
    "write a whole number and ms, s, m or h, for example \"200ms\", \"10s\", \"5m\" or \"1h\"";

/// Why a text is not a duration, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadDuration {
    pub(super) message: String,
    pub(super) hint: String,
}

/// Reads a duration: numbers with units, large units first (`1m30s`).
pub(super) fn parse(text: &str) -> Result<Span, BadDuration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    if text.is_empty() {
        return Err(bad(text, FORM.to_owned()));
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return Err(bad(text, FORM.to_owned()));
        }
        let Some((_, millis)) = units.by_ref().find(|(name, _)| *name == unit) else {
            return Err(bad(text, advice(text, number, unit)));
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*millis));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(|| too_long(text))?;
        rest = tail;
    }
    if total > DURATION_MAX.0 { Err(too_long(text)) } else { Ok(Span(total)) }
}

fn bad(text: &str, hint: String) -> BadDuration {
    BadDuration { message: format!("\"{text}\" is not a duration"), hint }
}

fn too_long(text: &str) -> BadDuration {
    BadDuration {
        message: format!("\"{text}\" is longer than 30 days"),
        hint: format!("the longest duration is \"{DURATION_MAX}\""),
    }
}

/// The most likely meaning of a wrong unit.
fn advice(text: &str, number: &str, unit: &str) -> String {
    let days = || number.parse::<u64>().ok().filter(|days| *days <= 30).map(|days| days * 24);
    let meant = match unit.to_ascii_lowercase().as_str() {
        "" if number == text => {
            return format!("it has no unit: write \"{number}s\" or \"{number}ms\"");
        }
        "ms" | "msec" | "millis" => format!("{number}ms"),
        "s" | "sec" | "secs" | "second" | "seconds" => format!("{number}s"),
        "min" | "mins" | "minute" | "minutes" => format!("{number}m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => format!("{number}h"),
        "d" | "day" | "days" => match days() {
            Some(hours) => format!("{hours}h"),
            None => return format!("the longest duration is \"{DURATION_MAX}\""),
        },
        _ => String::new(),
    };
    let whole = text.len() == number.len() + unit.len();
    if whole && !meant.is_empty() { format!("write \"{meant}\"") } else { FORM.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0s", 0),
            ("200ms", 200),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1h1m1s1ms", 3_661_001),
            ("720h", DURATION_MAX.0),
        ] {
            assert_eq!(parse(text), Ok(Span(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for (text, hint) in [
            ("", FORM),
            ("10", "it has no unit: write \"10s\" or \"10ms\""),
            ("10 s", FORM),
            ("s", FORM),
            ("-1s", FORM),
            ("1.5s", FORM),
            ("10sec", "write \"10s\""),
            ("5min", "write \"5m\""),
            ("1d", "write \"24h\""),
            ("31d", "the longest duration is \"720h\""),
            ("10S", "write \"10s\""),
            ("30s1m", FORM),
            ("1s1s", FORM),
            ("1µs", FORM),
            ("721h", "the longest duration is \"720h\""),
            ("99999999999999999999h", "the longest duration is \"720h\""),
            ("18446744073709551615h", "the longest duration is \"720h\""),
        ] {
            assert_eq!(parse(text).map_err(|bad| bad.hint), Err(hint.to_owned()), "{text}");
        }
    }
}

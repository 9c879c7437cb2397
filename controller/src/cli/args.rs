//! Texts of the command line that mean something: rollouts, durations, labels, times.

use std::fmt;
use std::str::FromStr;

use rota_rollout::names::{AppName, EnvName, LABEL_RULE, Revision, Span, Timestamp, is_label};

/// `APP/ENV/REVISION`, or `APP/ENV` for the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRef {
    /// The app.
    pub app: AppName,
    /// The environment.
    pub env: EnvName,
    /// Which one; `None`: the latest.
    pub revision: Option<Revision>,
}

impl FromStr for RolloutRef {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "write APP/ENV/REVISION, for example shop/prod/14, or APP/ENV for the \
                            latest";
        let parts: Vec<&str> = text.split('/').collect();
        let (app, env, revision) = match parts[..] {
            [app, env] => (app, env, None),
            [app, env, revision] => (app, env, Some(revision)),
            _ => return Err(RULE.to_owned()),
        };
        let revision = match revision.map(str::parse::<u64>) {
            None => None,
            Some(Ok(number)) if number > 0 => Some(Revision(number)),
            Some(Ok(_) | Err(_)) => return Err(format!("a revision is a number from 1; {RULE}")),
        };
        let app = app.parse().map_err(|error| format!("{error}"))?;
        let env = env.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { app, env, revision })
    }
}

impl fmt::Display for RolloutRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.env)?;
        match self.revision {
            Some(revision) => write!(f, "/{revision}"),
            None => Ok(()),
        }
    }
}

/// A duration as in the manifest: `200ms`, `10s`, `5m`, `1h`; and days.
pub fn duration(text: &str) -> Result<Span, String> {
    const RULE: &str = "write a number and a unit: 200ms, 10s, 5m, 1h or 7d";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(RULE.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| RULE.to_owned())?;
    number.checked_mul(unit).map(Span).ok_or_else(|| "that is too long".to_owned())
}

/// A duration that is not zero.
pub fn some_duration(text: &str) -> Result<Span, String> {
    match duration(text)? {
        Span::ZERO => Err("it must be longer than nothing".to_owned()),
        span => Ok(span),
    }
}

/// A point in time: RFC 3339, or a duration from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// This moment.
    At(jiff::Timestamp),
    /// So much later than now.
    In(Span),
}

impl FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = some_duration(text) {
            return Ok(Self::In(span));
        }
        text.parse().map(Self::At).map_err(|_| {
            "write a time such as 2026-11-25T06:00:00Z, or how long from now: 2h".to_owned()
        })
    }
}

impl Until {
    /// The moment as RFC 3339, given the present.
    pub fn moment(&self, now: Timestamp) -> Result<String, String> {
        let moment = match self {
            Self::At(moment) => *moment,
            Self::In(span) => i64::try_from(now.after(*span).0)
                .ok()
                .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
                .ok_or("that is too far in the future: a time has a year of at most four digits")?,
        };
        Ok(format!("{moment:.3}"))
    }
}

/// `k=v`, or `k=` to remove it.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, for example zone=a, or KEY= to remove the label")?;
    if !is_label(key) {
        return Err(format!("`{key}` is not a label's name: {LABEL_RULE}"));
    }
    let bad = |c: char| c.is_control() || c.is_whitespace();
    if value.len() > 63 || value.contains(bad) {
        return Err(format!("a label's value has at most 63 bytes and no spaces: `{value}`"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts() {
        for (text, right) in [
            ("shop/prod/14", true),
            ("shop/prod", true),
            ("shop", false),
            ("shop/prod/0", false),
            ("shop/prod/x", false),
            ("shop/prod/1/2", false),
            ("Shop/prod", false),
            ("shop//1", false),
        ] {
            let parsed = text.parse::<RolloutRef>();
            assert_eq!(parsed.is_ok(), right, "{text}");
            assert!(parsed.is_err() || parsed.unwrap().to_string() == text);
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("200ms", Some(200)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5h", None),
            ("1 h", None),
            ("99999999999999999999h", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text).ok(), ms.map(Span), "{text}");
        }
        assert!(some_duration("0s").is_err());
    }

    #[test]
    fn moments() {
        let now = Timestamp(1_795_491_900_000);
        for (text, moment) in [
            ("2h", Some("2026-11-24T05:45:00.000Z")),
            ("2026-11-25T06:00:00Z", Some("2026-11-25T06:00:00.000Z")),
            ("2026-11-25T06:00:00+01:00", Some("2026-11-25T05:00:00.000Z")),
            ("tomorrow", None),
            ("0s", None),
        ] {
            let parsed = text.parse::<Until>().ok().map(|until| until.moment(now).unwrap());
            assert_eq!(parsed.as_deref(), moment, "{text}");
        }
    }

    #[test]
    fn labels() {
        for (text, right) in [
            ("zone=a", true),
            ("zone=", true),
            ("zone=a=b", true),
            ("zone", false),
            ("=a", false),
            ("Zone=a", false),
            ("zone=a b", false),
        ] {
            assert_eq!(label(text).is_ok(), right, "{text}");
        }
    }
}

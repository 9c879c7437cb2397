//! What the operator asked for, checked once. Zero, empty or -1 never means "off" or "all".

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::Span;

/// How a fleet is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// Whole batches, or a window that slides.
    pub mode: Mode,
    /// The size of each batch in turn, the last one repeating; of the window in window mode.
    pub batch: Vec<Amount>,
    /// Which of two instances comes first.
    pub order: StartOrder,
    /// The most targets out of traffic for any reason; `None`: as many as the batch in turn.
    pub max_unavailable: Option<Amount>,
    /// Between the end of one batch and the start of the next.
    pub delay: Span,
    /// How long a node is watched after it joined before it counts as done.
    pub monitor: Span,
    /// The rollout stops when more targets than this failed.
    pub max_failures: Tolerance,
    /// What happens when it stops.
    pub on_failure: OnFailure,
    /// What a node does whose update failed.
    pub on_node_failure: OnNodeFailure,
    /// What happens to targets that are offline.
    pub offline: Offline,
    /// The numbers of batches (from 1) after which an operator must promote.
    pub approve_after: Vec<NonZeroU32>,
    /// A label of which no two values may be in one batch.
    pub spread_by: Option<String>,
    /// For the whole rollout; when it passes, the rollout holds.
    pub deadline: Deadline,
    /// The first batch goes forward, back and forward again before the others begin.
    #[serde(default)]
    pub rehearse_rollback: bool,
    /// Nodes that run something else than they should are brought to the current release by themselves.
    #[serde(default)]
    pub catch_up: bool,
}

/// Batches or a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The next batch starts when the whole one before is done.
    Batches,
    /// The next node starts when any one is done.
    Window,
}

/// Which of two instances comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartOrder {
    /// The old one stops, then the new one starts.
    StopFirst,
    /// The new one starts beside the old one, which then stops.
    StartFirst,
}

/// What a rollout does when more nodes failed than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Hold, and wait for the operator.
    Pause,
    /// Take every touched node back.
    Rollback,
    /// Go on; the rollout then ends partial.
    Continue,
}

/// What a node does whose update failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNodeFailure {
    /// Put the previous release back.
    Restore,
    /// Stay out of traffic as it is, for inspection.
    Leave,
}

/// What happens to targets that are offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offline {
    /// Leave them out; they catch up when they return.
    Skip,
    /// Hold until they return.
    Wait,
    /// They count as failed.
    Fail,
}

/// A deadline that may be absent; written `0s` in the manifest, and never zero here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deadline {
    /// There is none.
    None,
    /// So long after the start.
    After(Span),
}

/// A number of targets, or a share of them. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// So many.
    Number(NonZeroU32),
    /// 1 to 100 % of the targets, rounded down, at least 1.
    Percent(Percent),
}

/// A share of 1 to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Percent(u32);

impl Percent {
    /// The share as a number from 1 to 100.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Percent {
    type Error = BadAmount;
    fn try_from(percent: u32) -> Result<Self, BadAmount> {
        if (1..=100).contains(&percent) { Ok(Self(percent)) } else { Err(BadAmount::Percent) }
    }
}

impl From<Percent> for u32 {
    fn from(percent: Percent) -> u32 {
        percent.0
    }
}

/// How many failures are borne; unlike an [`Amount`] it may be none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tolerance {
    /// So many.
    Number(u32),
    /// A share of all targets, rounded down, at least 1.
    Percent(Percent),
}

/// Why an amount is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAmount {
    /// A literal zero.
    Zero,
    /// Not a whole number and not a percentage.
    Form,
    /// Outside 1 to 100 %.
    Percent,
}

impl fmt::Display for BadAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "0 would never move a node: write at least 1, or a percentage",
            Self::Form => "write a whole number such as 3, or a percentage such as \"25%\"",
            Self::Percent => "a percentage is between \"1%\" and \"100%\"",
        })
    }
}

impl std::error::Error for BadAmount {}

/// Parses `25%`.
fn percent(text: &str) -> Result<Percent, BadAmount> {
    let digits = text.strip_suffix('%').ok_or(BadAmount::Form)?;
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(BadAmount::Form);
    }
    Percent::try_from(digits.parse::<u32>().map_err(|_| BadAmount::Percent)?)
}

impl FromStr for Amount {
    type Err = BadAmount;
    /// Reads `25%`; a number in quotes is a mistake, because TOML has numbers.
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        percent(text).map(Self::Percent)
    }
}

impl FromStr for Tolerance {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        percent(text).map(Self::Percent)
    }
}

impl TryFrom<i64> for Amount {
    type Error = BadAmount;
    fn try_from(number: i64) -> Result<Self, BadAmount> {
        if number == 0 {
            return Err(BadAmount::Zero);
        }
        let number = u32::try_from(number).map_err(|_| BadAmount::Form)?;
        NonZeroU32::new(number).map(Self::Number).ok_or(BadAmount::Zero)
    }
}

/// The one rounding rule: down, and at least 1 (of none, none).
fn share(percent: Percent, targets: usize) -> usize {
    (targets * percent.0 as usize / 100).max(1).min(targets)
}

impl Amount {
    /// How many of `targets` this is.
    pub fn of(self, targets: usize) -> usize {
        match self {
            Self::Number(number) => (number.get() as usize).min(targets),
            Self::Percent(percent) => share(percent, targets),
        }
    }
}

impl Tolerance {
    /// How many failures among `targets` are borne.
    pub fn of(self, targets: usize) -> usize {
        match self {
            Self::Number(number) => number as usize,
            Self::Percent(percent) => share(percent, targets),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{}%", percent.0),
        }
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{}%", percent.0),
        }
    }
}

/// The manifest's defaults (INTERFACE 2).
impl Default for Strategy {
    fn default() -> Self {
        Self {
            mode: Mode::Batches,
            batch: vec![Amount::Percent(Percent(25))],
            order: StartOrder::StopFirst,
            max_unavailable: None,
            delay: Span::ZERO,
            monitor: Span::seconds(5),
            max_failures: Tolerance::Number(0),
            on_failure: OnFailure::Pause,
            on_node_failure: OnNodeFailure::Restore,
            offline: Offline::Skip,
            approve_after: Vec::new(),
            spread_by: None,
            deadline: Deadline::None,
            rehearse_rollback: false,
            catch_up: false,
        }
    }
}

impl Strategy {
    /// The size of the batch with this number (from 1) among so many targets.
    pub fn batch_size(&self, number: usize, targets: usize) -> usize {
        let entry = self.batch.get(number.saturating_sub(1)).or(self.batch.last());
        entry.map_or(1, |amount| amount.of(targets)).max(1)
    }

    /// The most targets that may be out of traffic while any batch runs.
    pub fn widest_limit(&self, targets: usize) -> usize {
        let limits = (1..=self.batch.len().max(1)).map(|n| self.unavailable_limit(n, targets));
        limits.max().unwrap_or(1)
    }

    /// The most targets that may be out of traffic while the batch with this number runs.
    pub fn unavailable_limit(&self, number: usize, targets: usize) -> usize {
        match self.max_unavailable {
            Some(amount) => amount.of(targets),
            None => self.batch_size(number, targets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rounding_rule() {
        for (text, targets, result) in [
            ("10%", 37, 3),
            ("25%", 3, 1),
            ("30%", 7, 2),
            ("50%", 3, 1),
            ("100%", 7, 7),
            ("1%", 10_000, 100),
            ("1%", 1, 1),
            ("99%", 1, 1),
            ("50%", 0, 0),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(amount.of(targets), result, "{text} of {targets}");
        }
        assert_eq!(Amount::try_from(5).unwrap().of(3), 3);
    }

    #[test]
    fn what_is_no_amount() {
        for (text, why) in [
            ("0%", BadAmount::Percent),
            ("101%", BadAmount::Percent),
            ("25", BadAmount::Form),
            ("%", BadAmount::Form),
            ("-5%", BadAmount::Form),
            ("2.5%", BadAmount::Form),
            ("all", BadAmount::Form),
        ] {
            assert_eq!(text.parse::<Amount>(), Err(why), "{text}");
        }
        assert_eq!(Amount::try_from(0), Err(BadAmount::Zero));
        assert_eq!(Amount::try_from(-1), Err(BadAmount::Form));
    }

    #[test]
    fn the_last_size_repeats() {
        let strategy = Strategy {
            batch: vec![Amount::try_from(1).unwrap(), "10%".parse().unwrap()],
            ..Strategy::default()
        };
        assert_eq!((1..=4).map(|n| strategy.batch_size(n, 37)).collect::<Vec<_>>(), [1, 3, 3, 3]);
    }
}

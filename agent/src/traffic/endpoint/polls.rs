//! Who polls an app's readiness, and whether all of them know. Pure: times are milliseconds that somebody else counts.
//!
//! An answer counts when its poller comes back: it has acted on it by then. What was sent and not yet acted on proves
//! nothing, for in that moment a load balancer may still choose this node.

use std::collections::BTreeMap;

/// Load balancers that poll one app. More are not believed to be load balancers.
const POLLERS_MAX: usize = 64;

/// Who polled only once, and not again within so long, was no load balancer: somebody looked.
const ONCE_MS: u64 = 10_000;

/// Whoever polls is waited for so long at least: a load balancer may poll more seldom once it knows.
const WINDOW_LEAST_MS: u64 = 5_000;

/// Beside two of its own intervals.
const WINDOW_SLACK_MS: u64 = 1_000;

/// One poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Poller {
    /// When it last came.
    last: u64,
    /// Its interval, and rather too long than too short; 0: it came once.
    gap: u64,
    /// Answers since the app last turned.
    told: u32,
    /// Of these, the ones after which it came back.
    seen: u32,
}

impl Poller {
    /// Until when it is a poller, if it does not come.
    fn until(&self) -> u64 {
        let window = match self.gap {
            0 => ONCE_MS,
            gap => WINDOW_LEAST_MS.max(2 * gap + WINDOW_SLACK_MS),
        };
        self.last + window
    }
}

/// How far the news of an app's readiness got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nobody polls.
    Nobody,
    /// These do not all know yet: each with the answers that it acted on.
    Some(Vec<(String, u32)>),
    /// Everyone who polls knows.
    All,
}

/// The pollers of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Polls {
    /// What they are told now.
    ready: bool,
    /// Grows with every turn: an answer of an earlier turn is no answer of this one.
    turn: u64,
    /// What anybody was last told; `None`: nothing yet.
    said: Option<bool>,
    pollers: BTreeMap<String, Poller>,
}

impl Polls {
    /// From now on they are told this.
    pub fn turn(&mut self, ready: bool) {
        if self.ready == ready {
            return;
        }
        self.ready = ready;
        self.turn += 1;
        for poller in self.pollers.values_mut() {
            (poller.told, poller.seen) = (0, 0);
        }
    }

    /// Somebody polls. `Err`: there are too many, and this one must not be told that it is ready. The number goes into
    /// [`Polls::told`].
    pub fn comes(&mut self, name: &str, at: u64) -> Result<u64, TooMany> {
        self.forget(at);
        if let Some(poller) = self.pollers.get_mut(name) {
            let gap = at.saturating_sub(poller.last);
            poller.gap = gap.max(poller.gap - poller.gap / 16).max(1);
            poller.last = at;
            poller.seen = poller.told;
            return Ok(self.turn);
        }
        if self.pollers.len() >= POLLERS_MAX {
            return Err(TooMany);
        }
        self.know(name, 0, at);
        Ok(self.turn)
    }

    /// It was answered, by what was right in this turn.
    pub fn told(&mut self, name: &str, turn: u64) {
        if turn != self.turn {
            return;
        }
        self.said = Some(self.ready);
        if let Some(poller) = self.pollers.get_mut(name) {
            poller.told = poller.told.saturating_add(1);
        }
    }

    /// It turned to not ready and back, and nobody heard of that: it is where it was.
    pub fn is_as_before(&self) -> bool {
        self.ready && self.said == Some(true)
    }

    /// It is ready again, and whoever was told that it is not is not there to hear it.
    pub fn is_missed(&self) -> bool {
        self.ready && self.said == Some(false)
    }

    /// Somebody polled at these intervals before the agent was started again.
    pub fn know(&mut self, name: &str, gap: u64, at: u64) {
        let poller = Poller { last: at, gap, told: 0, seen: 0 };
        self.pollers.entry(name.to_owned()).or_insert(poller);
    }

    /// Who polls, and how often.
    pub fn who(&self) -> impl Iterator<Item = (&str, u64)> {
        self.pollers.iter().map(|(name, poller)| (name.as_str(), poller.gap))
    }

    /// How far the news got, when everyone must have acted on so many answers.
    pub fn reach(&mut self, answers: u32, at: u64) -> Reach {
        self.forget(at);
        if self.pollers.is_empty() {
            return Reach::Nobody;
        }
        let late = self.pollers.iter().filter(|(_, poller)| poller.seen < answers);
        let late: Vec<_> = late.map(|(name, poller)| (name.clone(), poller.seen)).collect();
        if late.is_empty() { Reach::All } else { Reach::Some(late) }
    }

    /// When the next of them is one no more, if it does not come; `None`: there is none.
    pub fn next_to_go(&self) -> Option<u64> {
        self.pollers.values().map(Poller::until).min()
    }

    /// How long everyone who polls needs to act on so many answers, and one more in case that it was just there.
    pub fn needs(&self, answers: u32) -> u64 {
        let slowest = self.pollers.values().map(|poller| poller.gap).max().unwrap_or(0);
        slowest * (u64::from(answers) + 2)
    }

    /// Whoever stayed away polls no more.
    pub fn forget(&mut self, at: u64) {
        self.pollers.retain(|_, poller| at <= poller.until());
    }
}

/// More poll than can be load balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

#[cfg(test)]
mod tests {
    use super::*;

    /// `a@100` comes at 100 ms and is answered; `a?300` comes and gets no answer; `in`, `out` turn; `boot a/200` is
    /// known from before.
    #[track_caller]
    fn check(story: &str, answers: u32, at: u64, expected: &str) {
        let mut polls = Polls::default();
        for word in story.split_whitespace() {
            if let Some((name, time)) = word.split_once('@') {
                let turn = polls.comes(name, time.parse().unwrap()).unwrap();
                polls.told(name, turn);
            } else if let Some((name, time)) = word.split_once('?') {
                polls.comes(name, time.parse().unwrap()).unwrap();
            } else if let Some((name, gap)) = word.split_once('/') {
                polls.know(name, gap.parse().unwrap(), 0);
            } else {
                polls.turn(word == "in");
            }
        }
        let got = match polls.reach(answers, at) {
            Reach::Nobody => "nobody".to_owned(),
            Reach::All => "all".to_owned(),
            Reach::Some(late) => {
                let late = late.iter().map(|(name, seen)| format!("{name}:{seen}"));
                late.collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(got, expected, "{story}");
    }

    #[test]
    fn who_knows() {
        check("", 1, 0, "nobody");
        check("in a@100", 1, 100, "a:0"); // told, and nobody knows whether it acted on that
        check("in a@100 a@200", 1, 200, "all");
        check("in a@100 a@200", 2, 200, "a:1");
        check("in a@100 a@200 a?300", 2, 300, "all"); // it came back: what it is told now is not needed
        check("in a@100 a?200 a?300", 2, 300, "a:1"); // an answer that did not leave was not heard
        check("in a@100 a@200 out", 1, 200, "a:0"); // what it was told before does not count
        check("in a@100 a@200 out a@300", 1, 300, "a:0");
        check("in a@100 a@200 out a@300 a@400", 1, 400, "all");
        check("in a@100 a@200 in", 1, 200, "all"); // no turn
        check("in a@100 b@150 a@200", 1, 200, "b:0"); // every one of them
        check("in a@100 b@150 a@200 b@250", 1, 250, "all");
    }

    #[test]
    fn who_stays_away_polls_no_more() {
        check("in a@100", 1, 10_100, "a:0"); // once: a load balancer that was just started, perhaps
        check("in a@100", 1, 10_101, "nobody"); // or somebody who looked
        check("in a@100 a@200", 1, 5_200, "all");
        check("in a@100 a@200", 1, 5_201, "nobody");
        check("in a@0 a@10000 a@20000", 1, 41_000, "all"); // twice its own interval, and a second
        check("in a@0 a@10000 a@20000", 1, 41_001, "nobody");
        // It polls faster after a failure; its interval is not forgotten at once.
        check("in a@0 a@4000 a@4100 a@4200 a@4300", 1, 11_800, "all");
        check("in a@0 a@100 b@100 b@200", 2, 5_150, "b:1"); // who is gone is not waited for
        check("a/4000", 1, 8_999, "a:0"); // known from before the agent's restart
        check("a/4000", 1, 9_001, "nobody");
    }

    #[test]
    fn an_answer_of_an_earlier_turn_does_not_count() {
        let mut polls = Polls::default();
        let turn = polls.comes("a", 0).unwrap();
        polls.turn(true);
        polls.told("a", turn);
        polls.comes("a", 100).unwrap();
        assert_eq!(polls.reach(1, 100), Reach::Some(vec![("a".to_owned(), 0)]));
    }

    #[test]
    fn what_nobody_heard() {
        let mut polls = Polls::default();
        polls.turn(true);
        assert!(!polls.is_as_before(), "nobody ever heard of it");
        let turn = polls.comes("a", 0).unwrap();
        polls.told("a", turn);
        polls.turn(false);
        assert!(!polls.is_as_before(), "a drain is always proven");
        polls.turn(true);
        assert!(polls.is_as_before());
        polls.turn(false);
        let turn = polls.comes("a", 100).unwrap();
        polls.told("a", turn);
        polls.turn(true);
        assert!(!polls.is_as_before() && polls.is_missed());
    }

    #[test]
    fn so_many_are_no_load_balancers() {
        let mut polls = Polls::default();
        for number in 0..POLLERS_MAX {
            polls.comes(&number.to_string(), 0).unwrap();
        }
        assert_eq!(polls.comes("one more", 1), Err(TooMany));
        assert!(polls.comes("one more", ONCE_MS + 1).is_ok(), "the others are gone");
        assert_eq!(polls.who().count(), 1);
    }

    #[test]
    fn how_long_it_may_take() {
        let mut polls = Polls::default();
        assert_eq!((polls.needs(3), polls.next_to_go()), (0, None));
        polls.comes("a", 0).unwrap();
        polls.comes("a", 2_000).unwrap();
        assert_eq!((polls.needs(3), polls.next_to_go()), (10_000, Some(7_000)));
    }
}

//! What a case is: a fleet and a strategy, in all their dimensions.

use std::num::NonZeroU32;

use proptest::prelude::{Just, any, prop, prop_compose, prop_oneof};
use proptest::strategy::Strategy as Sort;
use rota_rollout::batches::Target;
use rota_rollout::names::{NodeName, Release, Span};
use rota_rollout::node::{Observed, Serving};
use rota_rollout::strategy::{
    Amount, Deadline, Mode, Offline, OnFailure, OnNodeFailure, Percent, StartOrder, Strategy,
    Tolerance,
};

/// One rollout that may be.
#[derive(Debug, Clone)]
pub struct Case {
    pub places: Vec<Place>,
    pub strategy: Strategy,
    pub once: bool,
}

/// How a target stands when the rollout begins, and its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub stands: Stands,
    pub zone: u8,
}

/// What a target is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Serves,
    Out,
    Absent,
    Offline,
    Drained,
    Current,
    Busy,
}

pub fn name(index: usize) -> NodeName {
    format!("n{index:02}").parse().unwrap()
}

fn release(minor: u32) -> Release {
    Release {
        version: format!("1.{minor}.0").parse().unwrap(),
        digest: minor.to_string().repeat(64).parse().unwrap(),
    }
}

/// What runs before.
pub fn old() -> Release {
    release(0)
}

/// What is rolled out.
pub fn new() -> Release {
    release(1)
}

impl Case {
    pub fn strategy(&self) -> Strategy {
        self.strategy.clone()
    }

    pub fn targets(&self) -> Vec<Target> {
        let zoned = self.strategy.spread_by.is_some();
        let target = |(index, place): (usize, &Place)| {
            let mut observed = Observed {
                online: true,
                serving: Serving::In,
                busy: false,
                drained: false,
                unsure: false,
            };
            let mut runs = Some(old());
            match place.stands {
                Stands::Serves => {}
                Stands::Out => observed.serving = Serving::Out,
                Stands::Absent => (observed.serving, runs) = (Serving::Absent, None),
                Stands::Offline => observed.online = false,
                Stands::Drained => (observed.drained, observed.serving) = (true, Serving::Out),
                Stands::Current => runs = Some(new()),
                Stands::Busy => observed.busy = true,
            }
            let spread = zoned.then(|| format!("z{}", place.zone));
            Target { name: name(index), observed, runs, spread, left_alone: false }
        };
        self.places.iter().enumerate().map(target).collect()
    }
}

fn place() -> impl Sort<Value = Place> {
    let stands = prop_oneof![
        12 => Just(Stands::Serves),
        1 => Just(Stands::Out),
        1 => Just(Stands::Absent),
        1 => Just(Stands::Offline),
        1 => Just(Stands::Drained),
        1 => Just(Stands::Current),
        1 => Just(Stands::Busy),
    ];
    (stands, 0..3_u8).prop_map(|(stands, zone)| Place { stands, zone })
}

fn amount() -> impl Sort<Value = Amount> {
    prop_oneof![
        (1..6_u32).prop_map(|number| Amount::Number(NonZeroU32::new(number).unwrap())),
        (1..=100_u32).prop_map(|share| Amount::Percent(Percent::try_from(share).unwrap())),
    ]
}

fn tolerance() -> impl Sort<Value = Tolerance> {
    prop_oneof![
        (0..4_u32).prop_map(Tolerance::Number),
        (1..=100_u32).prop_map(|share| Tolerance::Percent(Percent::try_from(share).unwrap())),
    ]
}

fn seconds(most: u64) -> impl Sort<Value = Span> {
    prop_oneof![Just(Span::ZERO), (1..most).prop_map(Span::seconds)]
}

prop_compose! {
    fn sizes()(
        mode in prop_oneof![2 => Just(Mode::Batches), 1 => Just(Mode::Window)],
        batch in prop::collection::vec(amount(), 1..4),
        order in prop_oneof![3 => Just(StartOrder::StopFirst), 1 => Just(StartOrder::StartFirst)],
        max_unavailable in prop::option::of(amount()),
        approve_after in prop::collection::btree_set(1..6_u32, 0..3),
        spread in any::<bool>(),
    ) -> Strategy {
        Strategy {
            mode,
            batch,
            order,
            max_unavailable,
            approve_after: approve_after.into_iter().filter_map(NonZeroU32::new).collect(),
            spread_by: spread.then(|| "zone".to_owned()),
            ..Strategy::default()
        }
    }
}

prop_compose! {
    fn strategies()(
        sizes in sizes(),
        delay in seconds(60),
        monitor in seconds(60),
        max_failures in tolerance(),
        on_failure in prop_oneof![
            Just(OnFailure::Pause), Just(OnFailure::Rollback), Just(OnFailure::Continue),
        ],
        on_node_failure in prop_oneof![Just(OnNodeFailure::Restore), Just(OnNodeFailure::Leave)],
        offline in prop_oneof![Just(Offline::Skip), Just(Offline::Wait), Just(Offline::Fail)],
        deadline in prop_oneof![3 => Just(0_u64), 1 => 60..3600_u64],
        rehearse_rollback in prop::bool::weighted(0.2),
    ) -> Strategy {
        let deadline = match deadline {
            0 => Deadline::None,
            after => Deadline::After(Span::seconds(after)),
        };
        Strategy {
            delay,
            monitor,
            max_failures,
            on_failure,
            on_node_failure,
            offline,
            deadline,
            rehearse_rollback,
            ..sizes
        }
    }
}

/// Any fleet of 1 to 40, any strategy.
pub fn case() -> impl Sort<Value = Case> {
    let places =
        prop_oneof![prop::collection::vec(place(), 1..8), prop::collection::vec(place(), 8..=40),];
    (places, strategies(), any::<bool>()).prop_map(|(places, strategy, once)| Case {
        places,
        strategy,
        once,
    })
}

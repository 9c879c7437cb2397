//! What users and other programs read: the JSON documents of the public contract, one type each.
//!
//! `/api/v1`, the `Read` and `Follow` calls and `-o json` all print these; the CLI's tables are drawn from them.

mod answer;
mod evidence;
mod fleet;
mod plan;
mod record;
mod rollout;
mod trace;

pub use answer::{AppliedView, ErrorView, NewTokenView, StartedView};
pub use evidence::{Evidence, evidence_line, took, wrapped};
pub use fleet::{
    AppView, CareView, ControllerView, DrainView, DrainedAppView, DriftView, EdgeView, EnvView,
    FleetView, FreezeView, MemberView, NodeView, PoolView, StatusView, WindowView,
};
pub use plan::{
    EtaView, FileChange, FilesView, KeyChange, OnceView, PlanView, PlannedHoldView, SkippedView,
    StepView,
};
pub use record::{AuditView, EventView, ReleaseView, TokenView};
pub use rollout::{BatchView, HistoryEntry, HoldView, NodeProgress, RolloutView};
pub use trace::{LiveView, PointView, PrintedView, StepTimeView, TraceView};

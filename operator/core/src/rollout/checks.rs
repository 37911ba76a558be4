//! What is asked between machines: before a run, before and after each batch, after a run.

use std::time::Duration;

use jiff::Timestamp;

use super::{population::Goal, request::Request, snapshot::Snapshot, stage::Waiting};

/// Where something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// Before anything moves: what the Rollout depends on, the preflight gates, the hooks before the run.
    BeforeRun,
    /// Before the machines of this batch.
    BeforeBatch(usize),
    /// After the machines of this batch, when it has soaked.
    AfterBatch(usize),
    /// After the last batch.
    AfterRun,
}

/// The answer.
#[derive(Debug)]
pub(super) enum Pass {
    /// Go on.
    Go,
    /// Wait, and look again after this time at the latest.
    Wait(Waiting, Duration),
    /// Make this request first.
    Request(Request),
    /// It says no: the run stops, for this reason.
    Fail(String),
}

/// Whether the run may go on from here, at which it is since that time.
pub(super) fn pass(
    _snapshot: &Snapshot,
    _goal: &Goal,
    _checkpoint: Checkpoint,
    _since: Timestamp,
    _now: Timestamp,
) -> Pass {
    Pass::Go
}

//! Where a run is between its machines: what must be so before it begins, before and after each batch, and at its end.
//!
//! The place is recorded in the Rollout's `status.stage`, and machines are begun in the batch that is recorded there, at
//! its step `Hosts`, and nowhere else. Steps at which there is nothing to wait for are passed without a write.

use std::time::Duration;

use drover_crds::{Approval, Host, RolloutStatus, Stage, StageStep, condition::Summary};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    checks::{self, Checkpoint, Pass},
    people,
    population::{self, Goal, Member},
    report::number,
    request::Request,
    schedule::{self, Closed},
    snapshot::Snapshot,
};

/// What the stage of a run says.
#[derive(Debug)]
pub(super) enum Next {
    /// Machines of this batch may be begun.
    Hosts(usize),
    /// Record this first.
    Record(Stage),
    /// Make this request.
    Request(Request),
    /// Wait, and look again after this time at the latest.
    Wait(Waiting, Duration),
    /// The schedule lets no machine be begun now.
    Closed(Closed),
    /// What was asked said no, for this reason.
    Fail(String),
    /// Nothing is left to do.
    Done,
}

/// What a run waits for between its machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// One word for the column and the conditions.
    pub(super) reason: &'static str,
    /// In words.
    pub(super) message: String,
    /// Only a person can end it.
    pub(super) for_a_person: bool,
}

impl Waiting {
    /// How it counts in the conditions.
    pub(super) fn summary(&self) -> Summary {
        match self.reason {
            checks::DEPENDENCY_CYCLE => Summary::Stalled,
            _ if self.for_a_person => Summary::Waiting,
            _ => Summary::Working,
        }
    }
}

/// What is next for the run.
pub(super) fn next(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], now: Timestamp) -> Next {
    let recorded = snapshot.rollout.status.as_ref().and_then(|status| status.stage.clone());
    let begins = Stage { batch: 0, step: StageStep::BeforeRun, since: Time(now) };
    let mut stage = recorded.clone().unwrap_or(begins);
    loop {
        let onward = match pass(snapshot, goal, members, &stage, now) {
            Onward::Step(step) => Stage { step, since: Time(now), ..stage },
            Onward::Batch(batch) => Stage { batch: number(batch), step: StageStep::BeforeBatch, since: Time(now) },
            // What is waited for, done, or asked for is recorded first.
            _ if recorded.as_ref() != Some(&stage) => return Next::Record(stage),
            Onward::Stay(next) => return next,
        };
        stage = onward;
    }
}

/// The batch that machines which wait are put in, or the first after it.
pub(super) fn batch_at_hand(status: &RolloutStatus) -> usize {
    let Some(stage) = &status.stage else { return 0 };
    let batch = usize::try_from(stage.batch).unwrap_or_default();
    if stage.step > StageStep::Hosts { batch + 1 } else { batch }
}

enum Onward {
    Step(StageStep),
    Batch(usize),
    Stay(Next),
}

fn pass(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], stage: &Stage, now: Timestamp) -> Onward {
    let batch = usize::try_from(stage.batch).unwrap_or_default();
    let at_hand = if stage.step > StageStep::Hosts { batch + 1 } else { batch };
    let batches = population::batches(&snapshot.rollout, members, at_hand);
    let machine = |batch: usize| Some(members[*batches.get(batch)?.first()?].host);
    let first_open = || {
        let open = |indices: &Vec<usize>| indices.iter().any(|index| members[*index].standing.is_open());
        batches.iter().position(open)
    };
    // What is done before machines belongs to the same windows as the machines.
    let closed = |checkpoint| match checkpoint {
        Checkpoint::BeforeRun => first_open().and_then(|_| schedule::closed(snapshot, goal, members, None, now)),
        Checkpoint::BeforeBatch(batch) => schedule::closed(snapshot, goal, members, Some(batch), now),
        Checkpoint::AfterBatch(_) | Checkpoint::AfterRun => None,
    };
    let check = |checkpoint, onward: Onward| {
        if let Some(closed) = closed(checkpoint) {
            return Onward::Stay(Next::Closed(closed));
        }
        match checks::pass(snapshot, goal, checkpoint, stage.since.0, now) {
            Pass::Go => onward,
            Pass::Wait(waiting, look_again) => Onward::Stay(Next::Wait(waiting, look_again)),
            Pass::Request(request) => Onward::Stay(Next::Request(request)),
            Pass::Fail(why) => Onward::Stay(Next::Fail(why)),
        }
    };
    match stage.step {
        StageStep::BeforeRun => check(Checkpoint::BeforeRun, Onward::Step(StageStep::BeforeBatch)),
        StageStep::BeforeBatch => match first_open() {
            None => Onward::Step(StageStep::AfterRun),
            Some(open) if open != batch => Onward::Batch(open),
            Some(_) => match unapproved(snapshot, goal, (batch, machine(batch))) {
                Some(waiting) => Onward::Stay(Next::Wait(waiting, Duration::from_secs(60))),
                None => check(Checkpoint::BeforeBatch(batch), Onward::Step(StageStep::Hosts)),
            },
        },
        StageStep::Hosts if first_open() == Some(batch) => Onward::Stay(Next::Hosts(batch)),
        StageStep::Hosts => Onward::Step(StageStep::AfterBatch),
        StageStep::AfterBatch => match soaks(snapshot, (batch, machine(batch)), stage.since.0, now) {
            Some((waiting, left)) => Onward::Stay(Next::Wait(waiting, left)),
            None => check(Checkpoint::AfterBatch(batch), Onward::Batch(batch + 1)),
        },
        StageStep::AfterRun | StageStep::Done if first_open().is_some() => Onward::Batch(at_hand),
        StageStep::AfterRun => check(Checkpoint::AfterRun, Onward::Step(StageStep::Done)),
        StageStep::Done => Onward::Stay(Next::Done),
    }
}

/// What the batch waits for if somebody must approve it and nobody has.
fn unapproved(snapshot: &Snapshot, goal: &Goal, (batch, machine): (usize, Option<&Host>)) -> Option<Waiting> {
    let rollout = &snapshot.rollout;
    let definition = rollout.spec.batch(batch)?;
    let name = population::batch_name(rollout, batch, machine);
    if definition.approval != Some(Approval::Required) || people::approves(rollout, goal.run, batch, &name) {
        return None;
    }
    Some(Waiting {
        reason: "WaitingForApproval",
        message: format!(
            "batch {name} waits for approval: kubectl annotate --overwrite rollouts.drover.dev {} {}={}/{name}",
            crate::metadata::name(&rollout.metadata),
            drover_crds::keys::APPROVE_ANNOTATION,
            goal.run
        ),
        for_a_person: true,
    })
}

/// For how long the batch still soaks.
fn soaks(
    snapshot: &Snapshot,
    (batch, machine): (usize, Option<&Host>),
    since: Timestamp,
    now: Timestamp,
) -> Option<(Waiting, Duration)> {
    let seconds = snapshot.rollout.spec.batch(batch)?.soak_seconds?;
    let end = since.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()?;
    let left = Duration::try_from(end.duration_since(now)).ok().filter(|left| !left.is_zero())?;
    let name = population::batch_name(&snapshot.rollout, batch, machine);
    Some((
        Waiting { reason: "Soaking", message: format!("batch {name} soaks until {end:.0}"), for_a_person: false },
        left,
    ))
}

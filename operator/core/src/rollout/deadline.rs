//! Whether the run has made no progress for too long, by a clock that stands still while it waits by somebody's wish.
//!
//! The clock is kept in the status, and written when a machine gets done, or when it stops or goes on: not as time passes.

use std::time::Duration;

use drover_crds::{ProgressClock, RolloutStatus, RunOutcome};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    admission::Hold,
    people,
    population::{Goal, Member},
    snapshot::Snapshot,
};

/// The clock as it should be in the status, with this reason against a further machine.
pub(super) fn clock(
    snapshot: &Snapshot,
    goal: &Goal,
    members: &[Member<'_>],
    hold: &Hold,
    now: Timestamp,
) -> Option<ProgressClock> {
    deadline(snapshot)?;
    let status = snapshot.rollout.status.as_ref()?;
    if status.run.as_ref().is_none_or(|run| run.stopped.is_some()) {
        return None;
    }
    let stops = match hold {
        // There is nothing to wait for any more.
        Hold::Done | Hold::NoHosts | Hold::Stopped(_) | Hold::OnlyFailedLeft { .. } => return None,
        Hold::Paused { .. } | Hold::Held { .. } | Hold::Stage(_) | Hold::Budget { .. } => Some(now),
        // The operator may have been away when the window closed.
        Hold::Closed(closed) => Some(closed.since.unwrap_or(now)),
        Hold::BusyWith { .. } | Hold::MaxUnavailable { .. } | Hold::NoneFit { .. } => None,
    };
    let begins = ProgressClock { progress_at: Time(now), stopped_since: None, stopped_seconds: 0 };
    let mut clock = status.clock.clone().map_or(begins, |clock| progressed(clock, goal, members));
    match (stops, &clock.stopped_since) {
        (Some(since), None) => clock.stopped_since = Some(Time(since.max(clock.progress_at.0).min(now))),
        (None, Some(since)) => {
            clock.stopped_seconds += now.duration_since(since.0).as_secs().max(0);
            clock.stopped_since = None;
        }
        _ => {}
    }
    Some(clock)
}

/// Why the run stops, if no machine got done for too long.
pub(super) fn exceeded(
    snapshot: &Snapshot,
    status: &RolloutStatus,
    goal: &Goal,
    members: &[Member<'_>],
    now: Timestamp,
) -> Option<String> {
    let deadline = deadline(snapshot)?;
    let waits_for_a_person = people::held(&snapshot.rollout).or_else(|| people::paused(&snapshot.rollout)).is_some();
    let clock = progressed(status.clock.clone()?, goal, members);
    if waits_for_a_person || counted(&clock, now) < deadline {
        return None;
    }
    let stuck = status.in_flight.iter().find_map(|entry| {
        let what = entry.waiting_for.as_ref()?;
        Some(format!("; {} is at {}: {what}", entry.host, entry.step.as_str()))
    });
    Some(format!(
        "no machine got done within {} s, which is progressDeadlineSeconds{}",
        deadline.as_secs(),
        stuck.unwrap_or_default()
    ))
}

/// How long until the deadline at the earliest.
pub(super) fn left(snapshot: &Snapshot, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(snapshot)?;
    let clock = snapshot.rollout.status.as_ref()?.clock.as_ref().filter(|clock| clock.stopped_since.is_none())?;
    let left = Duration::try_from(deadline - counted(clock, now)).unwrap_or_default();
    Some(left.max(Duration::from_secs(1)))
}

fn deadline(snapshot: &Snapshot) -> Option<SignedDuration> {
    let seconds = snapshot.rollout.spec.strategy.as_ref()?.progress_deadline_seconds?;
    Some(SignedDuration::from_secs(i64::from(seconds)))
}

/// Counts from the last machine that got done.
fn progressed(clock: ProgressClock, goal: &Goal, members: &[Member<'_>]) -> ProgressClock {
    let records = members.iter().filter_map(|member| member.record);
    let done = records.filter(|record| record.run == goal.run && record.outcome != RunOutcome::Withdrawn);
    match done.map(|record| record.finished_at.0).max() {
        Some(done) if done > clock.progress_at.0 => ProgressClock {
            progress_at: Time(done),
            stopped_since: clock.stopped_since.map(|since| Time(since.0.max(done))),
            stopped_seconds: 0,
        },
        _ => clock,
    }
}

/// How much of the time counts.
fn counted(clock: &ProgressClock, now: Timestamp) -> SignedDuration {
    let until = clock.stopped_since.as_ref().map_or(now, |since| since.0);
    until.duration_since(clock.progress_at.0) - SignedDuration::from_secs(clock.stopped_seconds)
}

//! Whether the Rollout's schedule lets machines be begun now.

use std::time::Duration;

use drover_crds::{OnClose, Schedule};
use jiff::{SignedDuration, Timestamp};

use super::{
    estimate,
    population::{Goal, Member},
    snapshot::Snapshot,
};
use crate::calendar::{At, Calendar};

/// How long to wait at least before it is asked again: what the clock says may be a moment early.
const SOONEST: Duration = Duration::from_secs(1);

/// No machine is begun, because of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// Until when and why, in words.
    pub(super) message: String,
    /// The schedule can not be understood, so it never opens.
    pub(super) invalid: bool,
    /// When it closed, as far as that can be told.
    pub(super) since: Option<Timestamp>,
    /// When it opens, if that is known.
    pub(super) until: Option<Timestamp>,
}

impl Closed {
    /// After what time to look again at the latest, when that is before `idle`.
    pub(super) fn look_again(&self, now: Timestamp, idle: Duration) -> Duration {
        let left = self.until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
        left.map_or(idle, |left| left.clamp(SOONEST, idle.max(SOONEST)))
    }
}

/// The Rollout's windows, if it has any.
pub(super) fn calendar(snapshot: &Snapshot, now: Timestamp) -> Option<Result<Calendar, String>> {
    let windows = &snapshot.rollout.spec.schedule.as_ref()?.windows;
    let read = || Calendar::of(windows, now).map_err(|why| format!("no machine is begun: schedule.{why}"));
    (!windows.is_empty()).then(read)
}

/// Why no machine of this batch may be begun now, or, without a batch, none of the run.
pub(super) fn closed(
    snapshot: &Snapshot,
    goal: &Goal,
    members: &[Member<'_>],
    batch: Option<usize>,
    now: Timestamp,
) -> Option<Closed> {
    let schedule = snapshot.rollout.spec.schedule.as_ref()?;
    let calendar = match calendar(snapshot, now)? {
        Ok(calendar) => calendar,
        Err(message) => return Some(Closed { message, invalid: true, since: None, until: None }),
    };
    let overruns = overruns(schedule, members, batch);
    match calendar.at(now) {
        At::Closed { denied: false, .. } if overruns => None,
        At::Closed { since, until, message, .. } => Some(Closed { message, invalid: false, since, until }),
        At::Open { until: Some(until), length } if !overruns => {
            let left = until.duration_since(now);
            let needed = needed(schedule, goal, members, length).filter(|needed| left < *needed)?;
            let opens = match calendar.at(until) {
                At::Closed { until, .. } => until,
                At::Open { .. } => None,
            };
            let message = format!(
                "its window closes in less than the {} that a machine needs; {}",
                estimate::in_words(needed),
                calendar.opens(opens)
            );
            Some(Closed { message, invalid: false, since: None, until: opens })
        }
        At::Open { .. } => None,
    }
}

/// Whether what was begun is finished although the window has ended.
fn overruns(schedule: &Schedule, members: &[Member<'_>], batch: Option<usize>) -> bool {
    match schedule.resolved_on_close() {
        OnClose::FinishHosts => false,
        OnClose::FinishBatch => batch.is_some() && members.iter().any(|member| member.touched == batch),
        OnClose::FinishRun => members.iter().any(|member| member.touched.is_some()),
    }
}

/// How much of the window must be left.
fn needed(
    schedule: &Schedule,
    goal: &Goal,
    members: &[Member<'_>],
    length: Option<SignedDuration>,
) -> Option<SignedDuration> {
    if let Some(seconds) = schedule.min_remaining_seconds {
        return Some(SignedDuration::from_secs(i64::from(seconds)));
    }
    let most = estimate::Measured::of(members, goal)?.p90;
    // Machines that take longer than the window would never be begun.
    Some(length.map_or(most, |length| most.min(length / 2)))
}

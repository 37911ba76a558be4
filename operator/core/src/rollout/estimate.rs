//! When a run will be done, from how long its machines took.

use drover_crds::{Estimate, OnClose, RolloutStatus, RunOutcome, RunRecord, StageStep};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    admission::Hold,
    population::{self, Goal, Member, Standing},
    schedule,
    snapshot::Snapshot,
    stage,
};
use crate::calendar::{At, Calendar};

/// How many windows ahead are looked at.
const MOST_WINDOWS: usize = 64;

/// When the run will be done, with this reason against a further machine; `None` when it has ended.
pub(super) fn estimate(
    snapshot: &Snapshot,
    goal: &Goal,
    members: &[Member<'_>],
    hold: &Hold,
    now: Timestamp,
) -> Option<Estimate> {
    let status = snapshot.rollout.status.as_ref()?;
    if status.run.as_ref().is_none_or(|run| run.stopped.is_some()) {
        return None;
    }
    if matches!(hold, Hold::Done | Hold::NoHosts | Hold::Stopped(_) | Hold::OnlyFailedLeft { .. }) {
        return None;
    }
    let Some(measured) = Measured::of(members, goal) else {
        return Some(Estimate { basis: "no measurement yet".to_owned(), ..Estimate::default() });
    };
    let work = Work::of(snapshot, status, members, &measured, now);
    let route = match schedule::calendar(snapshot, now) {
        None => Route::straight(now, &work),
        Some(Ok(calendar)) => Route::of(snapshot, members, &calendar, &work, now),
        Some(Err(_)) => None,
    };
    let scheduled = snapshot.rollout.spec.schedule.as_ref().is_some_and(|schedule| !schedule.windows.is_empty());
    let fits = route.as_ref().filter(|_| scheduled).map(|route| route.windows == 1);
    let begun = members.iter().any(|member| member.touched.is_some());
    let warning = route.as_ref().filter(|route| route.windows > 1 && !begun).map(|route| {
        let window = route.first.map_or_else(String::new, |first| format!(", and the window is {}", in_words(first)));
        format!("about {} of work{window}: it will take {} windows", in_words(work.total()), route.windows)
    });
    Some(Estimate {
        finish_at: route.filter(|_| goes_on(hold, members)).map(|route| to_the_second(route.end)),
        remaining_seconds: Some(work.total().as_secs()),
        basis: work.basis(&measured),
        fits,
        warning,
    })
}

/// The one that is kept in the status: the one that is there, unless something else is to be said, or it moved by a
/// minute and by a tenth of what is left. `anew`: the status changes in any case.
pub(super) fn kept(old: Option<&Estimate>, new: Option<Estimate>, anew: bool, now: Timestamp) -> Option<Estimate> {
    let (Some(old), Some(new)) = (old, &new) else { return new };
    let moved = match (&old.finish_at, &new.finish_at) {
        (Some(was), Some(is)) => Some((is.0.duration_since(was.0), is.0.duration_since(now))),
        (None, None) => match (old.remaining_seconds, new.remaining_seconds) {
            (Some(was), Some(is)) => Some((SignedDuration::from_secs(is - was), SignedDuration::from_secs(is))),
            (None, None) => Some((SignedDuration::ZERO, SignedDuration::ZERO)),
            _ => None,
        },
        _ => None,
    };
    let little = moved.is_some_and(|(by, left)| by.abs() <= (left / 10).max(SignedDuration::from_mins(1)));
    let same = (old.fits, &old.warning) == (new.fits, &new.warning);
    Some(if little && same && !anew { old.clone() } else { new.clone() })
}

/// The finish in a column of `kubectl get`.
pub(super) fn eta(estimate: Option<&Estimate>) -> Option<String> {
    Some(estimate?.finish_at.as_ref()?.0.strftime("%Y-%m-%dT%H:%MZ").to_string())
}

/// Whether it goes on by itself.
fn goes_on(hold: &Hold, members: &[Member<'_>]) -> bool {
    let busy = members.iter().any(|member| member.standing == Standing::InFlight);
    match hold {
        Hold::Paused { .. } | Hold::Held { .. } => false,
        Hold::Stage(waiting) => !waiting.for_a_person,
        Hold::Closed(closed) => !closed.invalid,
        Hold::MaxUnavailable { .. } | Hold::Budget { .. } | Hold::NoneFit { .. } => busy,
        Hold::BusyWith { .. } | Hold::Done | Hold::NoHosts | Hold::Stopped(_) | Hold::OnlyFailedLeft { .. } => true,
    }
}

fn to_the_second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// What is left to do.
struct Work {
    machines: usize,
    parallel: usize,
    /// For each batch that is left: its machines, and for how long it soaks after them.
    batches: Vec<(SignedDuration, SignedDuration)>,
}

impl Work {
    fn of(
        snapshot: &Snapshot,
        status: &RolloutStatus,
        members: &[Member<'_>],
        measured: &Measured,
        now: Timestamp,
    ) -> Self {
        let spec = &snapshot.rollout.spec;
        let is_in_flight = |member: &&Member<'_>| member.standing == Standing::InFlight;
        let elsewhere = members.iter().filter(|member| member.unavailable && !is_in_flight(member)).count();
        let room = spec.resolved_max_unavailable(members.len()).saturating_sub(elsewhere).max(1);
        let parallel = spec.resolved_max_parallel(members.len()).min(room);
        let begun: Vec<Timestamp> = status.in_flight.iter().map(|entry| entry.since.0).collect();
        // How far the machines under way are, on average.
        let done = begun.iter().map(|since| now.duration_since(*since).clamp(SignedDuration::ZERO, measured.mean));
        let done = done.map(|time| time.as_secs()).sum::<i64>() / i64::try_from(begun.len().max(1)).unwrap_or(1);
        let soak = |batch: usize| {
            let seconds = spec.batch(batch).and_then(|batch| batch.soak_seconds);
            SignedDuration::from_secs(i64::from(seconds.unwrap_or(0)))
        };
        let mut work = Self { machines: 0, parallel, batches: vec![] };
        if let Some(stage) = status.stage.as_ref().filter(|stage| stage.step == StageStep::AfterBatch) {
            let left = soak(usize::try_from(stage.batch).unwrap_or_default()) - now.duration_since(stage.since.0);
            work.batches.push((SignedDuration::ZERO, left.max(SignedDuration::ZERO)));
        }
        let batches = population::batches(&snapshot.rollout, members, stage::batch_at_hand(status));
        for (batch, indices) in batches.iter().enumerate() {
            let open: Vec<&Member<'_>> =
                indices.iter().map(|index| &members[*index]).filter(|member| member.standing.is_open()).collect();
            if open.is_empty() {
                continue;
            }
            work.machines += open.len();
            let rounds = i32::try_from(open.len().div_ceil(parallel)).unwrap_or(i32::MAX);
            let under_way = open.iter().any(is_in_flight);
            let done = if under_way { SignedDuration::from_secs(done) } else { SignedDuration::ZERO };
            work.batches.push((measured.mean.saturating_mul(rounds) - done, soak(batch)));
        }
        work.parallel = parallel.min(work.machines.max(1));
        work
    }

    fn total(&self) -> SignedDuration {
        self.batches.iter().map(|(machines, soak)| *machines + *soak).sum()
    }

    fn basis(&self, measured: &Measured) -> String {
        let soak: SignedDuration = self.batches.iter().map(|(_, soak)| *soak).sum();
        let machines = if self.machines == 1 { "1 machine".to_owned() } else { format!("{} machines", self.machines) };
        let mut basis = format!(
            "{machines}, {} each (p90 {}), {} at a time",
            in_words(measured.mean),
            in_words(measured.p90),
            self.parallel
        );
        if soak.is_positive() {
            basis = format!("{basis}, {} of soaking", in_words(soak));
        }
        if measured.earlier {
            basis.push_str(", by what the run before took");
        }
        basis
    }
}

/// The work laid over the windows ahead.
struct Route {
    end: Timestamp,
    windows: usize,
    /// How long the first window is, from now on or from its opening on.
    first: Option<SignedDuration>,
}

impl Route {
    /// Without a break.
    fn straight(from: Timestamp, work: &Work) -> Option<Self> {
        Some(Self { end: from.checked_add(work.total()).ok()?, windows: 1, first: None })
    }

    fn of(
        snapshot: &Snapshot,
        members: &[Member<'_>],
        calendar: &Calendar,
        work: &Work,
        now: Timestamp,
    ) -> Option<Self> {
        let begun = members.iter().any(|member| member.touched.is_some());
        let on_close = snapshot.rollout.spec.schedule.as_ref().map(drover_crds::Schedule::resolved_on_close);
        let whole_run = on_close == Some(OnClose::FinishRun);
        let mut route = Self { end: now, windows: 0, first: None };
        if whole_run && begun {
            return Self::straight(now, work);
        }
        let mut closes = None;
        for (machines, soak) in &work.batches {
            let mut left = *machines;
            // A batch without machines left only soaks, which needs no window.
            while left.is_positive() {
                if route.windows > MOST_WINDOWS {
                    return None;
                }
                if closes.is_none_or(|closes| route.end >= closes) {
                    let (opens, until) = next_open(calendar, route.end)?;
                    let until = until.unwrap_or(Timestamp::MAX);
                    route.windows += 1;
                    route.first = route.first.or_else(|| Some(until.duration_since(opens)));
                    (route.end, closes) = (opens, Some(until));
                    if whole_run {
                        return Some(Self { first: route.first, ..Self::straight(opens, work)? });
                    }
                }
                let room = closes.unwrap_or(Timestamp::MAX).duration_since(route.end);
                let step = left.min(room);
                left -= step;
                route.end = route.end.checked_add(step).ok()?;
            }
            route.end = route.end.checked_add(*soak).ok()?;
        }
        route.windows = route.windows.max(1);
        Some(route)
    }
}

/// From when to when it is open next, from this moment on.
fn next_open(calendar: &Calendar, from: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
    match calendar.at(from) {
        At::Open { until, .. } => Some((from, until)),
        At::Closed { until, .. } => match calendar.at(until?) {
            At::Open { until: closes, .. } => Some((until?, closes)),
            At::Closed { .. } => None,
        },
    }
}

/// How long machines took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// On average.
    pub(super) mean: SignedDuration,
    /// Nine of ten took no longer.
    pub(super) p90: SignedDuration,
    /// It was in an earlier run.
    earlier: bool,
}

impl Measured {
    /// From the machines that this run updated, else from those that an earlier run of the Rollout did.
    pub(super) fn of(members: &[Member<'_>], goal: &Goal) -> Option<Self> {
        let records = || members.iter().filter_map(|member| member.record);
        let took = |record: &RunRecord| {
            let started = record.started_at.as_ref().filter(|_| record.outcome == RunOutcome::Succeeded)?;
            Some(record.finished_at.0.duration_since(started.0)).filter(|took| !took.is_negative())
        };
        let mut times: Vec<SignedDuration> =
            records().filter(|record| record.run == goal.run).filter_map(took).collect();
        let earlier = times.is_empty();
        if earlier {
            times = records().filter_map(took).collect();
        }
        times.sort_unstable();
        let count = i64::try_from(times.len()).ok().filter(|count| *count > 0)?;
        let sum: i64 = times.iter().map(SignedDuration::as_secs).sum();
        let p90 = *times.get((times.len() * 9).div_ceil(10) - 1)?;
        Some(Self { mean: SignedDuration::from_secs(sum / count), p90, earlier })
    }
}

/// A time in two units at most: `43 s`, `12 min`, `3 h 10 min`, `2 d 4 h`.
pub(super) fn in_words(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let minutes = (seconds + 30) / 60;
    let two = |large: i64, first: &str, small: i64, second: &str| {
        if small == 0 { format!("{large} {first}") } else { format!("{large} {first} {small} {second}") }
    };
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 if minutes < 120 => format!("{minutes} min"),
        _ if minutes < 48 * 60 => two(minutes / 60, "h", minutes % 60, "min"),
        _ => two(minutes / (24 * 60), "d", minutes % (24 * 60) / 60, "h"),
    }
}

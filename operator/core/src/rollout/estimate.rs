//! When a run will be done, from how long its machines took.

use drover_crds::{RunOutcome, RunRecord};
use jiff::SignedDuration;

use super::population::{Goal, Member};

/// How long machines took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// On average.
    pub(super) mean: SignedDuration,
    /// Nine of ten took no longer.
    pub(super) p90: SignedDuration,
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
        if times.is_empty() {
            times = records().filter_map(took).collect();
        }
        times.sort_unstable();
        let count = i64::try_from(times.len()).ok().filter(|count| *count > 0)?;
        let sum: i64 = times.iter().map(SignedDuration::as_secs).sum();
        let p90 = *times.get((times.len() * 9).div_ceil(10) - 1)?;
        Some(Self { mean: SignedDuration::from_secs(sum / count), p90 })
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

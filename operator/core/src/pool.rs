//! How many masters a pool needs: from what they did, from what is planned, and from the time of day.
//!
//! A master runs out of time to compile before it runs out of anything else. So what is needed is the larger of the time that
//! was used and the time that the plan says will be used, by what a master may be used; more where requests had to wait or are
//! too many for one; and then those that may be lost. It grows at once, and shrinks when no less was needed for a while: what
//! a Kubernetes `HorizontalPodAutoscaler` does
//! (<https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#stabilization-window>).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use drover_crds::{Autoscaling, Redundancy};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::calendar::{At, Calendar};

/// A wait for a turn to compile that is worth another master.
pub const LONG_WAIT: Duration = Duration::from_millis(500);
/// How many requests a second a master is counted on to answer, whatever they cost.
pub const REQUESTS_PER_SECOND: f64 = 500.0;
/// For how long less must be needed before there are fewer masters.
pub const STABILIZATION: SignedDuration = SignedDuration::from_mins(5);

/// How many seconds a wait took at most that is counted in each of the buckets of [`Counters::waits`]; the last has no end.
pub const WAIT_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Over how many minutes the load is looked at.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// What one master did since it began: what it answers at `/load`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Seconds of compiling.
    pub compile_seconds: f64,
    /// Catalogs that were compiled.
    pub compiled: u64,
    /// Requests of agents, answered however.
    pub requests: u64,
    /// Those that were sent away because the master was full.
    pub refused: u64,
    /// How many catalogs waited for their turn for how long: one more than there are [`WAIT_BUCKETS`].
    pub waits: Vec<u64>,
    /// How many catalogs it compiles at once.
    pub slots: u32,
}

/// What the masters of a pool did over the last minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// By the master's own name, which no other has.
    last: BTreeMap<String, (Timestamp, Counters)>,
    samples: VecDeque<(Timestamp, Load)>,
}

impl Window {
    /// Takes in what the masters answered that could be asked.
    pub fn observe(&mut self, answers: &BTreeMap<String, Counters>, now: Timestamp) {
        let mut sample = Load { masters: u32::try_from(answers.len()).unwrap_or(u32::MAX), ..Load::default() };
        let mut waits = vec![0; WAIT_BUCKETS.len() + 1];
        let mut known = false;
        for (name, counters) in answers {
            let Some((at, before)) = self.last.get(name) else { continue };
            let seconds = now.duration_since(*at).as_secs_f64();
            // A master that began anew counts from nothing, under a name of its own; a clock that was put back counts nothing.
            if seconds <= 0.0 || counters.requests < before.requests {
                continue;
            }
            known = true;
            sample.compile_seconds_per_second += (counters.compile_seconds - before.compile_seconds).max(0.0) / seconds;
            sample.requests_per_second += number(counters.requests - before.requests) / seconds;
            sample.refusals_per_second += number(counters.refused.saturating_sub(before.refused)) / seconds;
            for (sum, (after, before)) in waits.iter_mut().zip(counters.waits.iter().zip(&before.waits)) {
                *sum += after.saturating_sub(*before);
            }
        }
        sample.queue_wait = percentile_of(&waits);
        self.last = answers.iter().map(|(name, counters)| (name.clone(), (now, counters.clone()))).collect();
        self.samples.retain(|(at, _)| now.duration_since(*at) < WINDOW);
        if known {
            self.samples.push_back((now, sample));
        }
    }

    /// The 95th percentile of each, if anything was measured.
    pub fn load(&self) -> Option<Load> {
        let (_, newest) = self.samples.back()?;
        let p95 = |of: fn(&Load) -> f64| {
            let mut all: Vec<f64> = self.samples.iter().map(|(_, sample)| of(sample)).collect();
            all.sort_by(f64::total_cmp);
            all.get(rank(all.len())).copied().unwrap_or_default()
        };
        Some(Load {
            compile_seconds_per_second: p95(|load| load.compile_seconds_per_second),
            requests_per_second: p95(|load| load.requests_per_second),
            queue_wait: Duration::from_secs_f64(p95(|load| load.queue_wait.as_secs_f64())),
            refusals_per_second: p95(|load| load.refusals_per_second),
            masters: newest.masters,
        })
    }
}

/// The place of the 95th percentile among so many in their order: the nearest rank.
fn rank(count: usize) -> usize {
    (count * 95).div_ceil(100).saturating_sub(1)
}

/// The 95th percentile of waits, as the end of its bucket.
fn percentile_of(waits: &[u64]) -> Duration {
    let total: u64 = waits.iter().sum();
    let wanted = (total * 95).div_ceil(100);
    let mut seen = 0;
    for (index, count) in waits.iter().enumerate() {
        seen += count;
        if seen >= wanted && total > 0 {
            let last = WAIT_BUCKETS.last().copied().unwrap_or_default();
            return Duration::from_secs_f64(WAIT_BUCKETS.get(index).copied().unwrap_or(last));
        }
    }
    Duration::ZERO
}

#[allow(clippy::cast_precision_loss, reason = "counts of minutes")]
fn number(count: u64) -> f64 {
    count as f64
}

/// What the masters of a pool did together, over the last minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Seconds of compiling in a second: the 95th percentile of those that were measured.
    pub compile_seconds_per_second: f64,
    /// Requests in a second, the same.
    pub requests_per_second: f64,
    /// How long a catalog waited for its turn: the 95th percentile.
    pub queue_wait: Duration,
    /// How many requests in a second were sent away because a master was full.
    pub refusals_per_second: f64,
    /// How many masters were measured.
    pub masters: u32,
}

/// How many masters, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Size {
    /// How many.
    pub replicas: i32,
    /// How many would be wanted if there were no `max`.
    pub wanted: i32,
    /// How many are needed for the load alone; not a whole number.
    pub needed: f64,
    /// Why, in one line: `4 masters: 2.6 needed at p95 (compile time), +1 for N+1`.
    pub why: String,
}

/// What was wanted in the last minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    wanted: VecDeque<(Timestamp, i32)>,
    since: Option<Timestamp>,
}

/// How many masters the pool is to have. `planned` is what the plan of the machines' runs asks for in its fullest slot, in
/// seconds of compiling in a second, `slots` how many catalogs a master compiles at once, `current` how many masters
/// there are. The memory is of this pool, and can be empty: then it does not shrink for a while.
pub fn size(
    autoscaling: &Autoscaling,
    load: Option<&Load>,
    planned: f64,
    slots: u32,
    current: i32,
    memory: &mut Memory,
    now: Timestamp,
) -> Size {
    let target = f64::from(autoscaling.resolved_target_utilization()) / 100.0;
    let one = f64::from(slots.max(1)) * target;
    let mut needs: Vec<(f64, &str)> = vec![(planned / one, "as planned")];
    if let Some(load) = load {
        needs.push((load.compile_seconds_per_second / one, "at p95 (compile time)"));
        needs.push((load.requests_per_second / (REQUESTS_PER_SECOND * target), "at p95 (requests)"));
        // One more than there are, as long as it lasts: by how much they are too few can not be seen from within.
        let more = f64::from(load.masters.max(1)) + 1.0;
        if load.refusals_per_second > 0.0 {
            needs.push((more, "because requests were refused"));
        } else if load.queue_wait >= LONG_WAIT {
            needs.push((more, "because catalogs waited for their turn"));
        }
    }
    let (needed, reason) = needs.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
    let for_load = up(needed).max(1);
    let (with_spares, spares) = match autoscaling.resolved_redundancy() {
        Redundancy::One => (for_load + 1, "+1 for N+1"),
        Redundancy::Two => (for_load + 2, "+2 for N+2"),
        Redundancy::Double => (for_load * 2, "twice that for 2N"),
    };
    let (min, max) = (autoscaling.resolved_min(), autoscaling.max);
    let (floor, floor_why) = minimum(autoscaling, min, now);
    let unlimited = with_spares.max(floor);
    let wanted = unlimited.min(max);

    memory.since.get_or_insert(now);
    memory.wanted.retain(|(at, _)| now.duration_since(*at) < STABILIZATION);
    memory.wanted.push_back((now, wanted));
    let is_new = memory.since.is_some_and(|since| now.duration_since(since) < STABILIZATION);
    let lately = memory.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
    let kept = if is_new { lately.max(current) } else { lately };
    let replicas = kept.max(floor).min(max);

    let mut why = vec![format!("{}: {needed:.1} needed {reason}, {spares}", masters(replicas))];
    if load.is_none() {
        why.push("no master could be asked for its load".to_owned());
    }
    if with_spares < floor {
        why.push(format!("at least {floor} {floor_why}"));
    }
    why.extend(unreadable(autoscaling, now));
    if unlimited > max {
        why.push(format!("{unlimited} are wanted and max is {max}"));
    } else if replicas > wanted {
        why.push(format!("{wanted} would do, and are left when that was so for {} min", STABILIZATION.as_mins()));
    }
    let why = why.join("; ");
    Size { replicas, wanted: unlimited, needed, why }
}

/// The least number at this time, and what says so.
fn minimum(autoscaling: &Autoscaling, min: i32, now: Timestamp) -> (i32, String) {
    let open = autoscaling.schedule.iter().filter_map(|entry| {
        let calendar = Calendar::of(&[entry.window()], now).ok()?;
        matches!(calendar.at(now), At::Open { .. }).then_some(entry)
    });
    match open.max_by_key(|entry| entry.min) {
        Some(entry) if entry.min > min => (entry.min, format!("by schedule {}", entry.schedule)),
        _ => (min, "by min".to_owned()),
    }
}

/// What is wrong with the schedule, if anything: such an entry counts never.
fn unreadable(autoscaling: &Autoscaling, now: Timestamp) -> Option<String> {
    autoscaling.schedule.iter().enumerate().find_map(|(index, entry)| {
        let why = Calendar::of(&[entry.window()], now).err()?;
        let why = why.strip_prefix("windows[0] ").unwrap_or(&why);
        Some(format!("autoscaling.schedule[{index}] {why}"))
    })
}

fn masters(count: i32) -> String {
    if count == 1 { "1 master".to_owned() } else { format!("{count} masters") }
}

#[allow(clippy::cast_possible_truncation, reason = "clamped")]
fn up(number: f64) -> i32 {
    (number - 1e-9).ceil().clamp(0.0, 10_000.0) as i32
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "of numbers that are exact in binary")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn autoscaling(more: &Value) -> Autoscaling {
        let mut all = json!({"min": 2, "max": 10, "targetUtilization": 50});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn moment(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_load_is_the_95th_percentile_of_the_last_minutes() {
        let mut window = Window::default();
        let mut now = moment(NOON);
        let mut at = |seconds: i64, answers: &[(&str, f64, u64)]| {
            now += SignedDuration::from_secs(seconds);
            let one = |(name, compile, requests): &(&str, f64, u64)| {
                let waits = vec![0, *requests, 0, 0, 0, 0, 0, 0, 0, 0];
                let counters =
                    Counters { compile_seconds: *compile, requests: *requests, waits, slots: 2, ..Counters::default() };
                ((*name).to_owned(), counters)
            };
            window.observe(&answers.iter().map(one).collect(), now);
            window.load()
        };
        assert_eq!(at(0, &[("a", 5.0, 100)]), None, "one look is no rate");
        let load = at(10, &[("a", 10.0, 200), ("b", 7.0, 900)]).unwrap();
        assert_eq!((load.compile_seconds_per_second, load.requests_per_second, load.masters), (0.5, 10.0, 2));
        assert_eq!(load.queue_wait, Duration::from_millis(5));
        let load = at(10, &[("a", 10.0, 200), ("b", 17.0, 1_000)]).unwrap();
        assert_eq!(load.compile_seconds_per_second, 1.0);
        // One of twenty is no more than a moment, and what is five minutes ago is forgotten.
        for _ in 0..29 {
            at(10, &[("a", 10.0, 200), ("b", 17.0, 1_000)]);
        }
        assert_eq!(at(10, &[("a", 10.0, 200)]).unwrap().compile_seconds_per_second, 0.0);
        assert_eq!(at(10, &[]).unwrap().masters, 1, "nobody could be asked: what was seen last");
    }

    const NOON: &str = "2026-03-02T12:00:00Z";

    /// What is wanted of a pool that has been watched for long.
    fn settled(autoscaling: &Autoscaling, load: Option<Load>, planned: f64, now: &str) -> Size {
        let now = moment(now);
        let mut memory = Memory { since: Some(now - STABILIZATION), ..Memory::default() };
        size(autoscaling, load.as_ref(), planned, 2, 2, &mut memory, now)
    }

    fn compiling(seconds: f64) -> Load {
        Load { compile_seconds_per_second: seconds, masters: 2, ..Load::default() }
    }

    #[test]
    fn the_load_and_those_that_may_be_lost() {
        let plain = autoscaling(&json!({}));
        let size = settled(&plain, Some(compiling(2.6)), 0.0, NOON);
        assert_eq!(size.why, "4 masters: 2.6 needed at p95 (compile time), +1 for N+1");
        assert_eq!(size.replicas, 4);
        let two = autoscaling(&json!({"redundancy": "N+2"}));
        assert_eq!(settled(&two, Some(compiling(2.6)), 0.0, NOON).replicas, 5);
        let double = autoscaling(&json!({"redundancy": "2N"}));
        let size = settled(&double, Some(compiling(2.6)), 0.0, NOON);
        assert_eq!(size.why, "6 masters: 2.6 needed at p95 (compile time), twice that for 2N");
        // What is planned comes before it is seen.
        let size = settled(&plain, Some(compiling(0.1)), 4.2, NOON);
        assert_eq!(size.why, "6 masters: 4.2 needed as planned, +1 for N+1");
        let busy = Load { requests_per_second: 1000.0, masters: 2, ..Load::default() };
        assert_eq!(settled(&plain, Some(busy), 0.0, NOON).replicas, 5);
    }

    #[test]
    fn what_waits_or_is_refused_asks_for_one_more() {
        let plain = autoscaling(&json!({}));
        let waits = Load { queue_wait: LONG_WAIT, masters: 3, ..compiling(0.1) };
        let size = settled(&plain, Some(waits), 0.0, NOON);
        assert_eq!(size.why, "5 masters: 4.0 needed because catalogs waited for their turn, +1 for N+1");
        let refuses = Load { refusals_per_second: 0.1, masters: 3, ..compiling(0.1) };
        assert!(settled(&plain, Some(refuses), 0.0, NOON).why.contains("requests were refused"));
    }

    #[test]
    fn limits_are_kept_and_told() {
        let plain = autoscaling(&json!({}));
        let size = settled(&plain, Some(compiling(100.0)), 0.0, NOON);
        assert_eq!(size.replicas, 10);
        assert!(size.why.ends_with("; 101 are wanted and max is 10"), "{}", size.why);
        let none = settled(&autoscaling(&json!({"min": 3})), None, 0.0, NOON);
        assert_eq!(none.replicas, 3);
        assert!(none.why.ends_with("; no master could be asked for its load; at least 3 by min"), "{}", none.why);
    }

    #[test]
    fn there_are_more_at_some_times_of_the_day() {
        let entry =
            json!({"schedule": "0 7 * * MON-FRI", "durationSeconds": 43200, "timeZone": "Europe/Berlin", "min": 5});
        let scheduled = autoscaling(&json!({"schedule": [entry]}));
        let at = |now| settled(&scheduled, Some(compiling(0.0)), 0.0, now);
        assert_eq!(at("2026-03-02T05:59:00Z").replicas, 2);
        let open = at("2026-03-02T06:00:00Z");
        assert_eq!(open.replicas, 5);
        assert!(open.why.ends_with("; at least 5 by schedule 0 7 * * MON-FRI"), "{}", open.why);
        assert_eq!(at("2026-03-02T18:00:00Z").replicas, 2);
        let wrong = json!({"schedule": "0 25 * * *", "durationSeconds": 60, "min": 5});
        let size = settled(&autoscaling(&json!({"schedule": [wrong]})), None, 0.0, NOON);
        assert!(
            size.replicas == 2 && size.why.contains("autoscaling.schedule[0] can not be understood"),
            "{}",
            size.why
        );
    }

    #[test]
    fn it_grows_at_once_and_shrinks_when_no_less_was_needed_for_a_while() {
        let plain = autoscaling(&json!({}));
        let mut memory = Memory::default();
        let mut now = moment(NOON);
        let mut at = |seconds: i64, load: f64, current: i32| {
            now += SignedDuration::from_secs(seconds);
            size(&plain, Some(&compiling(load)), 0.0, 2, current, &mut memory, now)
        };
        // An operator that just began knows nothing of the minutes before.
        assert_eq!(at(0, 0.0, 7).replicas, 7);
        assert_eq!(at(200, 6.0, 7).replicas, 7);
        assert_eq!(at(10, 8.0, 7).replicas, 9);
        let kept = at(290, 0.0, 9);
        assert_eq!(kept.replicas, 9);
        assert!(kept.why.ends_with("; 2 would do, and are left when that was so for 5 min"), "{}", kept.why);
        assert_eq!(at(10, 0.0, 9).replicas, 2);
    }
}

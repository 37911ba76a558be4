//! When each machine runs, so that the masters' load is flat: intervals on a harmonic grid, and a slot for each machine.
//!
//! A fleet whose machines come whenever they like meets itself: two groups that come every 25 and every 60 minutes, the second
//! one a quarter of an hour later, come together at 01:15, because two periods coincide wherever their phases agree modulo
//! their greatest common divisor. So each interval is rounded down to `base * 2^k`, where each period divides all longer ones;
//! then a machine that has a place in its period has it for ever, and what a plan promises for one longest period it promises
//! for all time.
//!
//! - **Which base.** That with the least additional load, of those that some interval gives by halving: the specialisation `Sr`
//!   of C.-C. Han and H.-Y. Tyan, "A better polynomial-time schedulability test for real-time fixed-priority scheduling
//!   algorithms", RTSS 1997.
//! - **Whether it fits.** C. L. Liu and J. W. Layland, "Scheduling algorithms for multiprogramming in a hard-real-time environment",
//!   Journal of the ACM 20 (1973): a processor can be used up to `n (2^(1/n) - 1)`, in the limit 0.693, and with harmonic periods
//!   up to 1. Both are about work that can be interrupted, and a catalog under way is not. So capacity is proved by slots: what a
//!   slot holds is bounded, and its work ends in the slot when it is no more than R. L. Graham's bound allows ("Bounds on
//!   multiprocessing timing anomalies", SIAM Journal on Applied Mathematics 17 (1969)).
//! - **Which slot.** The machine's own by hash, unless that is full: V. Mirrokni, M. Thorup and M. Zadimoghaddam, "Consistent hashing
//!   with bounded loads", SODA 2018. So slots are balanced, the same whoever works them out, outlive restarts, and few move
//!   when machines come and go.

use std::collections::{BTreeMap, HashMap};

use drover_catalog::{Digest, Slot};

#[cfg(test)]
mod simulation;

/// The shortest period that is planned: what comes more often is no wave. In seconds.
pub const SHORTEST_PERIOD: u32 = 60;
/// The longest period: a day. What comes less often has a slot in a day, and uses it some days.
pub const LONGEST_PERIOD: u32 = 86_400;
/// The width of a slot, in seconds: the first in which there are so many machines on average that rounding up is little. Few widths,
/// so that a fleet that grows does not move all of its slots each time.
const WIDTHS: [u32; 6] = [1, 2, 5, 10, 30, 60];
const CROWD: u64 = 40;
/// How much more than the average a slot takes, in a hundred.
const SLACK_PERCENT: u64 = 5;

/// Machines that run at one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// How often they are to run, in seconds.
    pub interval: u32,
    /// Something of each that lasts and is its own: its Host's UID.
    pub hosts: Vec<&'a str>,
}

/// The machines by the interval at which each is to run, in seconds.
pub fn by_interval<'a>(machines: impl IntoIterator<Item = (&'a str, u32)>) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<u32, Vec<&'a str>> = BTreeMap::new();
    for (host, interval) in machines {
        groups.entry(interval).or_default().push(host);
    }
    groups.into_iter().map(|(interval, hosts)| Group { interval, hosts }).collect()
}

/// When each machine runs, and what that comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Each machine's slot.
    pub slots: HashMap<String, Slot>,
    /// For each interval that was asked for, in seconds, the period that it is rounded down to.
    pub periods: BTreeMap<u32, u32>,
    /// The width of a slot in seconds.
    pub width: u32,
    /// How many runs the fullest slot has.
    pub fullest: u64,
    /// How many runs begin in a second, on average.
    pub runs_per_second: f64,
}

/// What a plan asks of masters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// How much of the masters' time is used on average: 1 is all of it.
    pub utilisation: f64,
    /// How much of it is used in the fullest slot.
    pub peak_utilisation: f64,
    /// How many runs are worked on at once at most, when each is begun in its slot.
    pub peak_concurrency: u64,
    /// Whether all work of each slot ends within it, whatever the order.
    pub fits: bool,
}

/// Rounds each of these intervals (in seconds, with how many machines run at it) down to `base * 2^k`, with the base of the least
/// load.
pub fn harmonic(intervals: &BTreeMap<u32, usize>) -> BTreeMap<u32, u32> {
    let bounded = |interval: u32| interval.clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
    let Some(least) = intervals.keys().map(|interval| bounded(*interval)).min() else { return BTreeMap::new() };
    let round = |interval: u32, base: u32| {
        let mut period = base;
        while period * 2 <= bounded(interval) {
            period *= 2;
        }
        period
    };
    let load = |base: u32| -> f64 {
        intervals.iter().map(|(interval, hosts)| count(*hosts) / f64::from(round(*interval, base))).sum()
    };
    let halved = intervals.keys().map(|interval| {
        let mut base = bounded(*interval);
        while base > least {
            base /= 2;
        }
        base
    });
    // Of two that are as good the longer one.
    let best = halved.map(|base| (load(base), base)).min_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let base = best.map_or(least, |(_, base)| base);
    intervals.keys().map(|interval| (*interval, round(*interval, base))).collect()
}

/// Gives each machine its slot.
pub fn plan(groups: &[Group<'_>]) -> Plan {
    let mut intervals: BTreeMap<u32, usize> = BTreeMap::new();
    for group in groups {
        *intervals.entry(group.interval).or_default() += group.hosts.len();
    }
    let periods = harmonic(&intervals);
    let mut by_period: BTreeMap<u32, Vec<(u64, &str)>> = BTreeMap::new();
    for group in groups {
        let period = periods.get(&group.interval).copied().unwrap_or(SHORTEST_PERIOD);
        by_period.entry(period).or_default().extend(group.hosts.iter().map(|host| (hash(host), *host)));
    }
    let base = by_period.keys().next().copied().unwrap_or(SHORTEST_PERIOD);
    let runs_per_second: f64 = by_period.iter().map(|(period, hosts)| count(hosts.len()) / f64::from(*period)).sum();
    let (width, slots_in_base) = width(base, runs_per_second);
    let average = runs_per_second * f64::from(width);
    let limit = whole(average * hundredths(100 + SLACK_PERCENT)).max(1);

    let mut slots = HashMap::new();
    // How many runs each slot of the period has. What is placed already has a period that divides this one.
    let mut load: Vec<u64> = vec![0; slots_in_base];
    let mut placed_for = base;
    for (period, mut hosts) in by_period {
        while placed_for < period {
            load.extend_from_within(..);
            placed_for *= 2;
        }
        hosts.sort_unstable();
        let count = load.len() as u64;
        for (hash, host) in hosts {
            let own = usize::try_from(hash % count).unwrap_or_default();
            let Some(slot) = free(&load, own, limit) else { continue };
            // Those of one slot are spread over it, so that no stretch of a slot's width has more of them than a slot.
            let start = u64::from(period) * 1000 * slot as u64 / count;
            let within = load[slot] * u64::from(width) * 1000 / limit.max(load[slot] + 1);
            load[slot] += 1;
            slots.insert(host.to_owned(), Slot { period: u64::from(period) * 1000, offset: start + within });
        }
    }
    Plan { slots, periods, width, fullest: load.into_iter().max().unwrap_or(0), runs_per_second }
}

impl Plan {
    /// What it asks of `servers` that work on one run at a time each, when a run takes so many seconds.
    pub fn capacity(&self, servers: u32, seconds_per_run: f64) -> Capacity {
        let servers_f = f64::from(servers.max(1));
        let width = f64::from(self.width);
        #[allow(clippy::cast_precision_loss, reason = "fewer machines than 2^52")]
        let fullest = self.fullest as f64;
        let work = fullest * seconds_per_run;
        // Graham: on m servers, work W of pieces no longer than c ends within W / m + (1 - 1 / m) c.
        let ends_after = work / servers_f + (1.0 - 1.0 / servers_f) * seconds_per_run;
        let at_once = seconds_per_run / width * fullest;
        Capacity {
            utilisation: self.runs_per_second * seconds_per_run / servers_f,
            peak_utilisation: work / (servers_f * width),
            peak_concurrency: if self.fullest == 0 { 0 } else { whole(at_once).max(1) },
            fits: self.fullest == 0 || ends_after <= width,
        }
    }
}

/// The slot's own place or the next that is not full; the least full one where all are.
fn free(load: &[u64], own: usize, limit: u64) -> Option<usize> {
    let around = (own..load.len()).chain(0..own);
    around.clone().find(|slot| load[*slot] < limit).or_else(|| around.min_by_key(|slot| load[*slot]))
}

/// The width of slots in seconds, and how many there are in the base period.
fn width(base: u32, runs_per_second: f64) -> (u32, usize) {
    #[allow(clippy::cast_precision_loss, reason = "a small constant")]
    let crowd = CROWD as f64;
    let fits = |width: &&u32| base.is_multiple_of(**width);
    let wanted = WIDTHS.iter().filter(fits).find(|width| runs_per_second * f64::from(**width) >= crowd);
    let width = wanted.or_else(|| WIDTHS.iter().rfind(fits)).copied().unwrap_or(1);
    (width, usize::try_from(base / width).unwrap_or(1).max(1))
}

fn hash(host: &str) -> u64 {
    let digest = Digest::of(host.as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    hex.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

#[allow(clippy::cast_precision_loss, reason = "fewer machines than 2^52")]
fn count(machines: usize) -> f64 {
    machines as f64
}

#[allow(clippy::cast_precision_loss, reason = "a percentage")]
fn hundredths(percent: u64) -> f64 {
    percent as f64 / 100.0
}

/// Rounded up; a little above a whole number is that number, because sums of fractions are not exact.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
fn whole(number: f64) -> u64 {
    (number - 1e-9).ceil().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("0b5e-{number}")).collect()
    }

    fn group(interval: u32, names: &[String]) -> Group<'_> {
        Group { interval, hosts: names.iter().map(String::as_str).collect() }
    }

    #[test]
    fn intervals_become_powers_of_two_of_one_base_and_none_grows() {
        let of = |intervals: &[(u32, usize)]| -> Vec<u32> {
            harmonic(&intervals.iter().copied().collect()).into_values().collect()
        };
        assert_eq!(of(&[(1800, 10), (3600, 10), (14400, 1)]), [1800, 3600, 14400]);
        // 25 and 60 minutes: a base of 25 minutes costs a fifth of the second group more.
        assert_eq!(of(&[(1500, 10), (3600, 10)]), [1500, 3000]);
        // Where the second group is large, it decides.
        assert_eq!(of(&[(1500, 1), (3600, 1000)]), [900, 3600]);
        assert_eq!(of(&[(1, 1), (1_000_000, 1)]), [60, 61_440]);
        assert_eq!(of(&[]), [0_u32; 0]);
    }

    /// The case of the seed: every 25 minutes, and every 60 minutes a quarter of an hour later.
    #[test]
    fn twenty_five_and_sixty_minutes_meet_at_a_quarter_past_one_and_never_with_a_plan() {
        let minutes = |period: u32, offset: u32| (0..24 * 60).filter(move |minute| minute % period == offset % period);
        let met: Vec<u32> = minutes(25, 0).filter(|minute| minutes(60, 15).any(|other| other == *minute)).collect();
        assert_eq!(met[0], 75, "01:15");

        let (first, second) = (names(0..500), names(500..1000));
        let plan = plan(&[group(25 * 60, &first), group(60 * 60, &second)]);
        assert_eq!(plan.periods, BTreeMap::from([(1500, 1500), (3600, 3000)]));
        // 500 / 25 and 500 / 50 a minute: no minute of a day has more than that and the slack.
        let mut runs = vec![0_u32; 24 * 60];
        for slot in plan.slots.values() {
            let mut at = slot.offset;
            while at < 86_400_000 {
                runs[usize::try_from(at / 60_000).unwrap()] += 1;
                at += slot.period;
            }
        }
        assert!(runs.iter().all(|runs| *runs <= 32), "{:?}", runs.iter().max());
        assert_eq!(plan.slots.len(), 1000);
    }

    #[test]
    fn slots_last_and_few_move_when_machines_come_and_go() {
        let all = names(0..5_050);
        let before = plan(&[group(1800, &all[..5_000])]);
        assert_eq!(plan(&[group(1800, &all[..5_000])]), before, "whoever works it out");
        // A hundredth goes, and as many come.
        let after = plan(&[group(1800, &all[50..])]);
        let width = u64::from(before.width) * 1000;
        let moved = |name: &&String| {
            let (Some(a), Some(b)) = (before.slots.get(*name), after.slots.get(*name)) else { return false };
            a.offset / width != b.offset / width
        };
        let moved = all.iter().filter(moved).count();
        assert!(moved <= 500, "{moved} of 4,950 have another slot");
    }

    #[test]
    fn what_fits_is_proved_by_slots() {
        let hosts = names(0..1_800);
        let plan = plan(&[group(1800, &hosts)]);
        // One a second on average, and a second each: all of one server's time, and the slack of a slot does not fit.
        let full = plan.capacity(1, 1.0);
        assert!((full.utilisation - 1.0).abs() < 1e-9 && !full.fits, "{full:?}");
        let half = plan.capacity(2, 1.0);
        assert!((half.utilisation - 0.5).abs() < 1e-9 && half.fits, "{half:?}");
        assert!(half.peak_utilisation < 0.56 && half.peak_concurrency <= 2, "{half:?}");
        assert!(super::plan(&[]).capacity(1, 1.0).fits);
    }

    #[test]
    fn a_slot_is_never_fuller_than_the_slack_allows() {
        for (size, interval) in [(1, 1800), (39, 1800), (1_000, 600), (10_000, 1800), (20_000, 3600)] {
            let hosts = names(0..size);
            let plan = plan(&[group(interval, &hosts)]);
            let average = plan.runs_per_second * f64::from(plan.width);
            let most = whole(average * 1.05).max(1);
            assert!(plan.fullest <= most, "{size}: {} of {most}", plan.fullest);
            assert_eq!(plan.slots.len(), size);
        }
    }
}

//! A day of ten thousand machines: random splay, splay by hash, and slots.
//!
//! Two thirds run every half hour and the rest less often; each run takes ten seconds of a master's time, the example of
//! the capacity formula in T. Uphill and others, "Mastering Puppet 5". Nothing waits: what is counted is how many want to be worked
//! on at once.

use fastrand::Rng;

use super::{Group, plan};

const DAY: u64 = 86_400_000;
const RUN: u64 = 10_000;
const GROUPS: [(u32, usize); 3] = [(1800, 6_000), (3600, 3_000), (14_400, 1_000)];

/// How many are worked on at once at most, and for how long more than `capacity`, in seconds.
fn judge(mut begins: Vec<u64>, capacity: usize) -> (usize, u64) {
    begins.sort_unstable();
    let mut changes: Vec<(u64, i64)> = begins.iter().flat_map(|at| [(*at, 1), (at + RUN, -1)]).collect();
    changes.sort_unstable();
    let (mut now, mut before, mut peak, mut over) = (0_i64, 0, 0, 0);
    for (at, change) in changes {
        if usize::try_from(now).unwrap() > capacity {
            over += at - before;
        }
        now += change;
        peak = peak.max(now);
        before = at;
    }
    (usize::try_from(peak).unwrap(), over / 1000)
}

/// When machines run that come again and again: from `first` on, each time so much later.
fn day(first: u64, mut later: impl FnMut() -> u64) -> Vec<u64> {
    let mut at = first;
    let mut begins = vec![];
    while at < DAY {
        begins.push(at);
        at += later();
    }
    begins
}

#[test]
fn slots_are_as_flat_as_can_be_and_splays_are_not() {
    let mut random = Rng::with_seed(20);
    let machines: Vec<(u64, String)> = GROUPS
        .iter()
        .flat_map(|(interval, count)| {
            (0..*count).map(move |n| (u64::from(*interval) * 1000, format!("{interval}-{n}")))
        })
        .collect();

    // Puppet: a delay once, when the agent starts. Chef: another one before each run, on top of the interval.
    let once: Vec<u64> = machines.iter().flat_map(|(period, _)| day(random.u64(0..*period), || *period)).collect();
    let each: Vec<u64> = machines
        .iter()
        .flat_map(|(period, _)| day(random.u64(0..*period), || *period + random.u64(0..*period / 6)).clone())
        .collect();
    // CFEngine: by the name's hash, in whole minutes.
    let by_hash: Vec<u64> = machines
        .iter()
        .flat_map(|(period, name)| day(super::hash(name) % (period / 60_000) * 60_000, || *period))
        .collect();
    let groups: Vec<Group<'_>> = GROUPS
        .iter()
        .map(|(interval, _)| {
            let of = machines.iter().filter(|(period, _)| *period == u64::from(*interval) * 1000);
            Group { interval: *interval, hosts: of.map(|(_, name)| name.as_str()).collect() }
        })
        .collect();
    let plan = plan(&groups);
    let ours: Vec<u64> = plan.slots.values().flat_map(|slot| day(slot.offset, || slot.period)).collect();

    let load: f64 = plan.runs_per_second * 10.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let flat = load.ceil() as usize;
    let capacity = flat + flat / 10;
    println!("10,000 machines over a day, 10 s a run; flat would be {flat} at once; overload is more than {capacity}");
    println!("{:<28} {:>7} {:>12} {:>14}", "", "runs", "most at once", "overload in s");
    let mut peaks = vec![];
    for (name, begins) in [
        ("random splay, once", once),
        ("random splay, each run", each),
        ("by hash, whole minutes", by_hash),
        ("slots on a harmonic grid", ours),
    ] {
        let runs = begins.len();
        let (peak, over) = judge(begins, capacity);
        println!("{name:<28} {runs:>7} {peak:>12} {over:>14}");
        peaks.push((peak, over));
    }
    let (ours, splays) = peaks.split_last().unwrap();
    assert!(ours.0 <= capacity && ours.1 == 0, "{ours:?}");
    assert!(splays.iter().all(|(peak, over)| *peak > capacity && *over > 0), "{splays:?}");
}

//! Which faults there are, which of them are taken, and what is told of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use crate::{
    history::Kind,
    proxy::Strike,
    run::{Fault, Outcome, WATCHED},
    scenarios::Scenario,
};

/// How many seeds of lost events each scenario is played with.
const SEEDS: u64 = 5;

/// A run to make.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) scenario: &'static Scenario,
    pub(crate) fault: Fault,
    /// How the scenario ends without a fault.
    pub(crate) expected: Option<Arc<Value>>,
}

/// All faults of a scenario with this many writes.
pub(crate) fn faults(writes: usize) -> Vec<Fault> {
    let strikes =
        (1..=writes).flat_map(|at| [Strike::Before(at), Strike::After(at), Strike::Stop(at)]).map(Fault::Strike);
    let silences =
        WATCHED.into_iter().map(|kind| BTreeSet::<Kind>::from([kind])).chain([WATCHED.into()]).map(Fault::Freeze);
    strikes.chain(silences).chain((1..=SEEDS).map(Fault::Lose)).collect()
}

/// Every N-th of all cases, beginning elsewhere in each scenario; at least one of each scenario.
pub(crate) fn sample(scenarios: Vec<Vec<Case>>, stride: usize) -> Vec<Case> {
    let stride = stride.max(1);
    let each = scenarios.into_iter().enumerate().map(|(number, cases)| {
        // Neighbours are the same write struck differently, so that a whole stride apart is another kind of fault as well.
        let from = (number * 7) % stride.min(cases.len().max(1));
        cases.into_iter().skip(from).step_by(stride)
    });
    each.flatten().collect()
}

/// What came of all runs, by scenario.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, Row>);

#[derive(Default)]
struct Row {
    writes: usize,
    kills: usize,
    stops: usize,
    refused: usize,
    stale: usize,
    missed: usize,
    violations: usize,
    time: Duration,
    old_lists: BTreeSet<String>,
}

impl Tally {
    /// Notes a run.
    pub(crate) fn add(&mut self, case: &Case, outcome: &Outcome, took: Duration) {
        let row = self.0.entry(case.scenario.name).or_default();
        row.violations += outcome.violations.len();
        row.time += took;
        row.old_lists.extend(outcome.old_lists.iter().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()));
        match &case.fault {
            Fault::None => row.writes = outcome.writes.len(),
            Fault::Strike(_) if outcome.struck.is_none() => row.missed += 1,
            Fault::Strike(Strike::Before(_) | Strike::After(_)) => row.kills += 1,
            Fault::Strike(Strike::Stop(_)) => {
                row.stops += 1;
                row.refused += usize::from(outcome.late_answer.is_some_and(|answer| answer >= 400));
            }
            Fault::Freeze(_) | Fault::Lose(_) => row.stale += 1,
        }
    }

    /// The faults that took place.
    pub(crate) fn faults(&self) -> usize {
        self.0.values().map(|row| row.kills + row.stops + row.stale).sum()
    }

    pub(crate) fn violations(&self) -> usize {
        self.0.values().map(|row| row.violations).sum()
    }

    /// A table for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<16} {:>6} {:>6} {:>6} {:>8} {:>6} {:>7} {:>11} {:>8}",
            "scenario", "writes", "kills", "stops", "refused", "stale", "missed", "violations", "s/run"
        )];
        for (name, row) in &self.0 {
            let runs = row.kills + row.stops + row.stale + row.missed + 1;
            let average = row.time.as_secs_f64() / f64::from(u32::try_from(runs).unwrap_or(u32::MAX));
            lines.push(format!(
                "{name:<16} {:>6} {:>6} {:>6} {:>8} {:>6} {:>7} {:>11} {average:>8.1}",
                row.writes, row.kills, row.stops, row.refused, row.stale, row.missed, row.violations
            ));
        }
        lines.push(
            "kills: before or after a write; stops: a write held back until another operator was done, refused: by the API \
             server then; stale: silent watches and lost events; missed: the run had no such write"
                .to_owned(),
        );
        let old: BTreeSet<&String> = self.0.values().flat_map(|row| &row.old_lists).collect();
        if !old.is_empty() {
            let old: Vec<&str> = old.into_iter().map(String::as_str).collect();
            lines.push(format!("lists from any state, however old, were asked for: {}", old.join(", ")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::ALL;

    #[test]
    fn a_sample_has_each_scenario_and_all_is_all() {
        let cases = |scenario| -> Vec<Case> {
            faults(10).into_iter().map(|fault| Case { scenario, fault, expected: None }).collect()
        };
        let all: Vec<Vec<Case>> = ALL.iter().map(cases).collect();
        let total: usize = all.iter().map(Vec::len).sum();
        assert_eq!(sample(all.clone(), 1).len(), total);
        let some = sample(all, 20);
        let names: BTreeSet<&str> = some.iter().map(|case| case.scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(some.len() < total / 10, "{} of {total}", some.len());
    }

    #[test]
    fn faults_are_written_as_they_are_read() {
        for fault in faults(3) {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
    }
}

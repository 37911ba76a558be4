//! Which machines a Rollout is for, where each of them stands, and which batch it is in.

use std::collections::BTreeMap;

use drover_crds::{Assignment, ClaimStep, Host, InFlightHost, Rollout, RunOutcome, RunRecord};

use super::snapshot::{NodeView, Snapshot};
use crate::{
    metadata::{name, uid},
    selector,
};

/// Where a machine stands in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits for its turn. `broken`: it failed in an earlier run, so it comes first.
    Pending { broken: bool },
    /// It got the revision with its first assignment, and its agent has not reported yet.
    Settling,
    /// It is in the ledger.
    InFlight,
    /// It has the revision.
    Updated,
    /// It failed in this run.
    Failed,
}

impl Standing {
    /// Whether the machine waits for its turn.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Pending { .. } | Self::Settling)
    }

    /// Whether the machine's batch is not done before it: it waits, or is under way.
    pub(super) fn is_open(&self) -> bool {
        self.waits() || *self == Self::InFlight
    }
}

/// A machine of a Rollout.
#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    pub(super) host: &'a Host,
    pub(super) standing: Standing,
    /// The batch it was put in when it was begun in this run.
    pub(super) touched: Option<usize>,
    /// Out of service now, for whatever reason.
    pub(super) unavailable: bool,
}

impl Member<'_> {
    pub(super) fn name(&self) -> &str {
        name(&self.host.metadata)
    }
}

/// A run's goal: which revision, and the number under which hosts record how it went.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) target: Assignment,
    pub(super) run: i64,
}

/// The record of this Rollout's last run on a host.
pub(super) fn record<'a>(rollout: &Rollout, host: &'a Host) -> Option<&'a RunRecord> {
    let runs = &host.status.as_ref()?.runs;
    runs.iter().find(|record| record.rollout_uid == uid(&rollout.metadata))
}

/// The ledger's entry for a host, by UID.
pub(super) fn ledger_entry<'a>(rollout: &'a Rollout, host: &Host) -> Option<&'a InFlightHost> {
    let ledger = &rollout.status.as_ref()?.in_flight;
    ledger.iter().find(|entry| entry.host == name(&host.metadata) && entry.uid == uid(&host.metadata))
}

/// The Node that a Host stands for, if it is still the same machine.
pub(super) fn node_of<'a>(snapshot: &'a Snapshot, host: &Host) -> Option<&'a NodeView> {
    snapshot.nodes.get(&host.spec.node_ref.name).filter(|node| node.uid == host.spec.node_ref.uid)
}

/// Whether the host's agent reported that this assignment is active and converged.
fn is_active(host: &Host, target: &Assignment) -> bool {
    host.status.as_ref().is_some_and(|status| {
        status.assigned.contains(target)
            && status.active.as_ref().is_some_and(|active| {
                active.generation == status.assigned_generation && active.converged && active.revisions.contains(target)
            })
    })
}

/// Whether the host got this assignment and its agent has not reported on it at all.
fn is_unreported(host: &Host, target: &Assignment) -> bool {
    host.status.as_ref().is_some_and(|status| {
        let reported = status.active.as_ref().is_some_and(|active| active.generation >= status.assigned_generation);
        status.assigned.contains(target) && !reported
    })
}

fn standing(rollout: &Rollout, host: &Host, goal: &Goal) -> Standing {
    if ledger_entry(rollout, host).is_some() {
        return Standing::InFlight;
    }
    let record = record(rollout, host);
    let failed_before = record.is_some_and(|record| record.outcome == RunOutcome::Failed);
    match record {
        Some(record) if record.run == goal.run && record.revision == goal.target.revision => match record.outcome {
            RunOutcome::Succeeded => Standing::Updated,
            RunOutcome::Failed => Standing::Failed,
        },
        Some(record) if failed_before && record.revision == goal.target.revision => Standing::Pending { broken: true },
        _ if is_active(host, &goal.target) => Standing::Updated,
        _ if is_unreported(host, &goal.target) => Standing::Settling,
        _ => Standing::Pending { broken: failed_before },
    }
}

/// The machines that the Rollout is for, and those under way, in the order in which they are begun: those that an
/// earlier run broke first, then by name.
pub(super) fn members<'a>(snapshot: &'a Snapshot, goal: &Goal) -> Vec<Member<'a>> {
    let rollout = &snapshot.rollout;
    let config_selector = snapshot.node_config.as_ref().map(|config| config.spec.host_selector.as_ref());
    let mut members: Vec<Member<'a>> = snapshot
        .hosts
        .iter()
        .filter(|host| {
            let labels = host.metadata.labels.as_ref();
            let selected = config_selector.is_some_and(|selector| {
                selector::matches(selector, labels) && selector::matches(rollout.spec.host_selector.as_ref(), labels)
            });
            selected || ledger_entry(rollout, host).is_some()
        })
        .map(|host| {
            let standing = standing(rollout, host, goal);
            let in_run = record(rollout, host).filter(|record| record.run == goal.run).map(|record| record.batch);
            let batch = ledger_entry(rollout, host).map(|entry| entry.batch).or(in_run);
            let node = node_of(snapshot, host);
            let out_of_service = node.is_none_or(|node| !node.ready || node.cordoned);
            Member {
                unavailable: standing == Standing::InFlight || out_of_service,
                host,
                standing,
                touched: batch.and_then(|batch| usize::try_from(batch).ok()),
            }
        })
        .collect();
    members.sort_by(|a, b| {
        let rank = |member: &Member<'_>| member.standing != Standing::Pending { broken: true };
        rank(a).cmp(&rank(b)).then_with(|| a.name().cmp(b.name()))
    });
    members
}

/// The batches of a run: indices into the members, exactly one batch for each machine that is not up to date already.
///
/// A machine keeps the batch that it was begun in. The others fill the batch under way and those after it in their
/// order, so a batch that is done stays done when machines come or go.
pub(super) fn batches(rollout: &Rollout, members: &[Member<'_>]) -> Vec<Vec<usize>> {
    let mut batches: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        if let Some(batch) = member.touched {
            batches.entry(batch).or_default().push(index);
        }
    }
    let mut batch = batches.keys().next_back().copied().unwrap_or(0);
    for (index, member) in members.iter().enumerate() {
        if member.touched.is_some() || !member.standing.waits() {
            continue;
        }
        while batches.get(&batch).map_or(0, Vec::len) >= batch_size(rollout, batch, members.len()) {
            batch += 1;
        }
        batches.entry(batch).or_default().push(index);
    }
    let last = batches.keys().next_back().map_or(0, |last| last + 1);
    (0..last).map(|batch| batches.remove(&batch).unwrap_or_default()).collect()
}

/// How many machines the batch takes, at least 1; the last one that is written repeats.
fn batch_size(rollout: &Rollout, batch: usize, total: usize) -> usize {
    let written = rollout.spec.strategy.as_ref().map_or(&[][..], |strategy| &strategy.batches);
    match written.get(batch).or(written.last()) {
        Some(batch) => batch.size.of(total),
        None => usize::MAX,
    }
}

/// The name of a batch for people.
pub(super) fn batch_name(rollout: &Rollout, batch: usize) -> String {
    let written = rollout.spec.strategy.as_ref().map_or(&[][..], |strategy| &strategy.batches);
    let name = written.get(batch).or(written.last()).and_then(|batch| batch.name.clone());
    match name {
        Some(name) if batch < written.len() => name,
        // The last one that is written repeats.
        Some(name) => format!("{name}-{}", batch + 2 - written.len()),
        None => format!("batch-{}", batch + 1),
    }
}

/// The Host of an entry, if it is still the same one.
pub(super) fn entry_host<'a>(snapshot: &'a Snapshot, entry: &InFlightHost) -> Option<&'a Host> {
    snapshot.hosts.iter().find(|host| name(&host.metadata) == entry.host && uid(&host.metadata) == entry.uid)
}

/// The step of an entry's machine, from its Host.
pub(super) fn step_of(snapshot: &Snapshot, entry: &InFlightHost) -> (ClaimStep, Option<String>) {
    let claim = entry_host(snapshot, entry).and_then(|host| host.status.as_ref()?.claim.as_ref());
    claim.map_or((ClaimStep::Claim, None), |claim| (claim.step, claim.waiting_for.clone()))
}

//! Which machines a Rollout is for, where each of them stands, and in which order they come.

use std::collections::{BTreeMap, BTreeSet};

use drover_crds::{
    Assignment, ClaimStep, Host, InFlightHost, RiskOrder, Rollout, RunOutcome, RunRecord, keys::SKIP_ANNOTATION,
};

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
    /// It is left out.
    Skipped,
    /// The run changed it, and it has again what it had before.
    RolledBack,
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
    /// How this Rollout's last hold on it ended.
    pub(super) record: Option<&'a RunRecord>,
}

impl Member<'_> {
    pub(super) fn name(&self) -> &str {
        name(&self.host.metadata)
    }

    /// Whether this run changed the machine, and a rollback has not been at it yet: the revision that it goes back to.
    pub(super) fn goes_back_to(&self, goal: &Goal) -> Option<&str> {
        let record = self.record.filter(|record| record.run == goal.run && record.revision == goal.target.revision)?;
        let changed = matches!(record.outcome, RunOutcome::Succeeded | RunOutcome::Failed);
        let previous = record.previous.as_deref().filter(|previous| *previous != goal.target.revision);
        let has_it = self.host.status.as_ref().is_some_and(|status| status.assigned.contains(&goal.target));
        previous.filter(|_| changed && has_it && self.standing != Standing::InFlight)
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

/// Whether the machine is not as it should be, as far as is known: a Rollout failed on it, or its agent does not converge.
fn is_failing(host: &Host, standing: &Standing) -> bool {
    let status = host.status.as_ref();
    let active =
        status.and_then(|status| status.active.as_ref().filter(|a| a.generation == status.assigned_generation));
    matches!(standing, Standing::Failed | Standing::Pending { broken: true }) || active.is_some_and(|a| !a.converged)
}

/// The ledger by Host UID: a name may have gone to another machine.
type Ledger<'a> = BTreeMap<&'a str, &'a InFlightHost>;

fn ledger(rollout: &Rollout) -> Ledger<'_> {
    let entries = rollout.status.iter().flat_map(|status| &status.in_flight);
    entries.map(|entry| (entry.uid.as_str(), entry)).collect()
}

/// Whether people leave the machine out of this Rollout.
pub(super) fn is_skipped(rollout: &Rollout, host: &Host) -> bool {
    leaves_out(host, &skipped(rollout))
}

fn leaves_out(host: &Host, skipped: &BTreeSet<&str>) -> bool {
    let annotated = host.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(SKIP_ANNOTATION));
    annotated || skipped.contains(name(&host.metadata))
}

/// The Hosts that people leave out of this Rollout, by name.
fn skipped(rollout: &Rollout) -> BTreeSet<&str> {
    let value = rollout.metadata.annotations.as_ref().and_then(|all| all.get(SKIP_ANNOTATION));
    value.map(|names| names.split(',').map(str::trim).collect()).unwrap_or_default()
}

fn standing(host: &Host, goal: &Goal, record: Option<&RunRecord>, is_skipped: bool) -> Standing {
    let failed_before = record.is_some_and(|record| record.outcome == RunOutcome::Failed);
    let this_run = record.filter(|record| record.run == goal.run).map(|record| record.outcome);
    match this_run {
        Some(RunOutcome::Succeeded) if record.is_some_and(|record| record.revision == goal.target.revision) => {
            return Standing::Updated;
        }
        Some(RunOutcome::Failed) => return Standing::Failed,
        Some(RunOutcome::Skipped) => return Standing::Skipped,
        Some(RunOutcome::RolledBack) => return Standing::RolledBack,
        Some(RunOutcome::Succeeded | RunOutcome::Withdrawn) | None => {}
    }
    if is_skipped {
        return Standing::Skipped;
    }
    // A machine that failed is not up to date, whatever its agent says: a gate may have failed.
    let broken_with_it = record.is_some_and(|record| failed_before && record.revision == goal.target.revision);
    if broken_with_it {
        return Standing::Pending { broken: true };
    }
    if is_active(host, &goal.target) {
        return Standing::Updated;
    }
    if is_unreported(host, &goal.target) { Standing::Settling } else { Standing::Pending { broken: failed_before } }
}

/// The machines that the Rollout is for, and those under way, in the order in which they are begun.
pub(super) fn members<'a>(snapshot: &'a Snapshot, goal: &Goal) -> Vec<Member<'a>> {
    let rollout = &snapshot.rollout;
    let config_selector = snapshot.node_config.as_ref().map(|config| config.spec.host_selector.as_ref());
    let ledger = ledger(rollout);
    let skipped = skipped(rollout);
    let mut members: Vec<Member<'a>> = snapshot
        .hosts
        .iter()
        .filter_map(|host| {
            let labels = host.metadata.labels.as_ref();
            let entry = ledger.get(uid(&host.metadata)).filter(|entry| entry.host == name(&host.metadata));
            let selected = config_selector.is_some_and(|selector| {
                selector::matches(selector, labels) && selector::matches(rollout.spec.host_selector.as_ref(), labels)
            });
            if !selected && entry.is_none() {
                return None;
            }
            let record = record(rollout, host);
            let standing = match entry {
                Some(_) => Standing::InFlight,
                None => standing(host, goal, record, leaves_out(host, &skipped)),
            };
            let in_run = record.filter(|record| record.run == goal.run).map(|record| record.batch);
            let batch = entry.map(|entry| entry.batch).or(in_run);
            let node = node_of(snapshot, host);
            let out_of_service = node.is_none_or(|node| !node.ready || node.cordoned);
            let held = host.status.as_ref().is_some_and(|status| status.claim.is_some());
            Some(Member {
                unavailable: standing == Standing::InFlight || out_of_service || held || is_failing(host, &standing),
                host,
                standing,
                touched: batch.and_then(|batch| usize::try_from(batch).ok()),
                record,
            })
        })
        .collect();
    members.sort_by_cached_key(|member| rank(snapshot, member));
    members
}

/// What machines are sorted by: broken ones first, the operator's own node last, and between them what the spec says.
fn rank(snapshot: &Snapshot, member: &Member<'_>) -> impl Ord + use<> {
    let order = snapshot.rollout.spec.strategy.as_ref().and_then(|strategy| strategy.order.as_ref());
    let label = |key: &Option<String>| member.host.metadata.labels.as_ref()?.get(key.as_ref()?).cloned();
    let number = order.and_then(|order| label(&order.label)).and_then(|value| value.trim().parse::<i64>().ok());
    let cost = snapshot.costs.get(member.name()).map_or(i32::MAX, |cost| *cost as i32);
    let risk = match order.and_then(|order| order.risk) {
        Some(RiskOrder::LowestFirst) => cost,
        Some(RiskOrder::HighestFirst) => -cost,
        None => 0,
    };
    let place = order.and_then(|order| label(&order.topology_key));
    let name = member.name().to_owned();
    let is_own = snapshot.own_node.as_ref() == Some(&member.host.spec.node_ref.name);
    let broken = member.standing == Standing::Pending { broken: true };
    (!broken, is_own, number.unwrap_or(i64::MAX), risk, place.is_none(), place, name)
}

/// The batches of a run: indices into the members, exactly one batch for each machine that is not up to date already.
///
/// A machine keeps the batch that it was begun in. The others fill the batch at hand and those after it in their order, so
/// a batch that is done stays done when machines come or go. `at_hand` is the batch that the run is at, or past when it
/// takes no more.
pub(super) fn batches(rollout: &Rollout, members: &[Member<'_>], at_hand: usize) -> Vec<Vec<usize>> {
    let mut batches: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        if let Some(batch) = member.touched {
            batches.entry(batch).or_default().push(index);
        }
    }
    let last_touched = batches.keys().next_back().copied().unwrap_or(0);
    let mut left: Vec<usize> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.touched.is_none() && member.standing.waits())
        .map(|(index, _)| index)
        .collect();
    let written = rollout.spec.batches();
    let mut batch = at_hand.max(last_touched);
    while !left.is_empty() {
        let taken: Vec<usize> = match written.get(batch) {
            Some(definition) => {
                let there = batches.get(&batch).map_or(0, Vec::len);
                let room = definition.size.map_or(usize::MAX, |size| size.of(members.len())).saturating_sub(there);
                let is_for = |index: &usize| is_for(definition, members[*index].host);
                left.iter().copied().filter(is_for).take(room).collect()
            }
            // The last one repeats; what no batch is for comes at the end.
            None => {
                let there = batches.get(&batch).map_or(&[][..], Vec::as_slice);
                let repeats = |index: &usize| {
                    written.last().is_some_and(|last| last.size.is_some() && is_for(last, members[*index].host))
                };
                let size = written.last().and_then(|last| last.size).map_or(usize::MAX, |size| size.of(members.len()));
                if there.iter().any(repeats) || left.iter().any(repeats) {
                    let room = size.saturating_sub(there.len());
                    left.iter().copied().filter(repeats).take(room).collect()
                } else {
                    left.clone()
                }
            }
        };
        let chosen: BTreeSet<usize> = taken.iter().copied().collect();
        left.retain(|index| !chosen.contains(index));
        batches.entry(batch).or_default().extend(taken);
        batch += 1;
    }
    let last = batches.iter().rev().find(|(_, indices)| !indices.is_empty()).map_or(0, |(last, _)| last + 1);
    (0..last).map(|batch| batches.remove(&batch).unwrap_or_default()).collect()
}

fn is_for(batch: &drover_crds::Batch, host: &Host) -> bool {
    let named = batch.hosts.is_empty() || batch.hosts.iter().any(|wanted| wanted == name(&host.metadata));
    named && selector::matches(batch.host_selector.as_ref(), host.metadata.labels.as_ref())
}

/// The name of a batch for people. `machine` is any one of it.
pub(super) fn batch_name(rollout: &Rollout, batch: usize, machine: Option<&Host>) -> String {
    let written = rollout.spec.batches();
    if let Some(name) = written.get(batch).and_then(|batch| batch.name.clone()) {
        return name;
    }
    let repeated = written.last().filter(|last| batch >= written.len() && last.name.is_some());
    match repeated {
        Some(last) if last.size.is_none() || machine.is_some_and(|host| !is_for(last, host)) => "rest".to_owned(),
        // The last one that is written repeats.
        Some(last) => format!("{}-{}", last.name.as_deref().unwrap_or_default(), batch + 2 - written.len()),
        None => format!("batch-{}", batch + 1),
    }
}

/// The Host of an entry, if it is still the same one.
pub(super) fn entry_host<'a>(snapshot: &'a Snapshot, entry: &InFlightHost) -> Option<&'a Host> {
    snapshot.hosts.iter().find(|host| uid(&host.metadata) == entry.uid && name(&host.metadata) == entry.host)
}

/// The step of an entry's machine, from its Host.
pub(super) fn step_of(snapshot: &Snapshot, entry: &InFlightHost) -> (ClaimStep, Option<String>) {
    let claim = entry_host(snapshot, entry).and_then(|host| host.status.as_ref()?.claim.as_ref());
    claim.map_or((ClaimStep::Claim, None), |claim| (claim.step, claim.waiting_for.clone()))
}

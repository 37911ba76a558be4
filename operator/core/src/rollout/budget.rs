//! What all Rollouts of the namespace may take out of service together.
//!
//! Two Rollouts must not both take the last place of a budget, and there is no lock. Each enters its machine in its own
//! ledger first, and claims it only when a look at all ledgers, taken after that, shows that the machine fits beside
//! everything that is entered or held. Of two that race, the one that entered later sees the other one's entry, so they
//! never both pass. When both see each other, the younger entry (by time, then by the Rollout's name, then by the Host's)
//! goes, and the older one waits until it is gone.

use std::collections::{BTreeMap, BTreeSet};

use drover_crds::{DisruptionBudget, DisruptionBudgetStatus, Host, InFlightHost, condition};
use jiff::Timestamp;

use super::{
    population,
    snapshot::{Ledger, NodeView, Snapshot},
};
use crate::{
    calendar::{At, Calendar},
    metadata::{name, uid},
    selector,
};

/// Whether a machine that is entered may be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MayClaim {
    /// It may.
    Yes,
    /// Younger entries of others must go first.
    NotYet,
    /// It may not, so its entry must go.
    No,
}

/// An entry that has not become a claim yet, and whose it is.
type Entered<'a> = (&'a str, &'a InFlightHost);

/// The budgets of the namespace, and what is used of them.
pub(super) struct Budgets<'a>(Vec<Budget<'a>>);

struct Budget<'a> {
    object: &'a DisruptionBudget,
    /// The machines that it is for, by name.
    hosts: BTreeSet<&'a str>,
    /// Of these: those that a Rollout has claimed.
    claimed: BTreeSet<&'a str>,
    /// Of these: those out of service for another reason.
    out: BTreeSet<&'a str>,
    /// Entries for these that are not claimed yet.
    entered: Vec<Entered<'a>>,
    /// Why no machine of it may be begun now.
    shut: Option<String>,
}

impl<'a> Budgets<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let own = snapshot.rollout.status.as_ref().map_or(&[][..], |status| &status.in_flight);
        let own = own.iter().map(|entry| (name(&snapshot.rollout.metadata), entry));
        let others =
            snapshot.ledgers.iter().flat_map(|ledger| ledger.entries.iter().map(|e| (ledger.rollout.as_str(), e)));
        let entries: Vec<Entered<'a>> = own.chain(others).collect();
        let node = |host: &Host| population::node_of(snapshot, host);
        let hosts: Vec<&Host> = if snapshot.budgets.is_empty() { vec![] } else { snapshot.hosts.iter().collect() };
        let one = |budget| Budget::of(budget, &hosts, &entries, &node, now);
        Self(snapshot.budgets.iter().map(one).collect())
    }

    /// Why this machine may not be entered now, if so: the budget, and what uses it.
    pub(super) fn refusal(&self, host: &str, goes_back: bool) -> Option<String> {
        let of = self.0.iter().filter(|budget| budget.hosts.contains(host));
        of.into_iter().find_map(|budget| budget.refusal(host, goes_back, |_| true))
    }
}

/// Whether the machine of this entry, which is in the ledger of the snapshot, may be claimed.
pub(super) fn may_claim(snapshot: &Snapshot, entry: &InFlightHost, now: Timestamp) -> MayClaim {
    if snapshot.budgets.is_empty() {
        return MayClaim::Yes;
    }
    let run = snapshot.rollout.status.as_ref().and_then(|status| status.run.as_ref());
    let goes_back = run.is_some_and(|run| run.stopped.is_some() && run.revision != entry.revision);
    let us = name(&snapshot.rollout.metadata);
    let budgets = Budgets::of(snapshot, now);
    let mut answer = MayClaim::Yes;
    for budget in budgets.0.iter().filter(|budget| budget.hosts.contains(entry.host.as_str())) {
        if budget.refusal(&entry.host, goes_back, |other| age(other) < age((us, entry))).is_some() {
            return MayClaim::No;
        }
        if budget.refusal(&entry.host, goes_back, |_| true).is_some() {
            answer = MayClaim::NotYet;
        }
    }
    answer
}

/// What entries are ordered by: the same for whoever looks.
fn age((rollout, entry): Entered<'_>) -> (Timestamp, &str, &str) {
    (entry.since.0, rollout, entry.host.as_str())
}

impl<'a> Budget<'a> {
    fn of(
        budget: &'a DisruptionBudget,
        hosts: &[&'a Host],
        entries: &[Entered<'a>],
        node: &dyn Fn(&Host) -> Option<&'a NodeView>,
        now: Timestamp,
    ) -> Self {
        let spec = &budget.spec;
        let selected = |host: &&Host| selector::matches(spec.host_selector.as_ref(), host.metadata.labels.as_ref());
        let hosts: Vec<&'a Host> = hosts.iter().copied().filter(selected).collect();
        let by_name: BTreeMap<&str, &Host> = hosts.iter().map(|host| (name(&host.metadata), *host)).collect();
        let names = |of: &dyn Fn(&Host) -> bool| -> BTreeSet<&'a str> {
            hosts.iter().filter(|host| of(host)).map(|host| name(&host.metadata)).collect()
        };
        let claim =
            |host: &Host| host.status.as_ref().and_then(|status| status.claim.as_ref()).map(|c| c.token.clone());
        let entered = entries.iter().filter(|(_, entry)| {
            let host = by_name.get(entry.host.as_str()).filter(|host| uid(&host.metadata) == entry.uid);
            host.is_some_and(|host| claim(host).as_ref() != Some(&entry.token))
        });
        let shut = (!spec.windows.is_empty()).then(|| Calendar::of(&spec.windows, now));
        Self {
            object: budget,
            entered: entered.copied().collect(),
            claimed: names(&|host| claim(host).is_some()),
            out: names(&|host| claim(host).is_none() && node(host).is_none_or(|node| !node.ready || node.cordoned)),
            hosts: names(&|_| true),
            shut: shut.and_then(|calendar| match calendar.map(|calendar| calendar.at(now)) {
                Ok(At::Open { .. }) => None,
                Ok(At::Closed { message, .. }) => Some(message),
                Err(why) => Some(format!("no machine of it is begun: {why}")),
            }),
        }
    }

    /// What is used with this machine, beside the entries that count: those held, and those out of service.
    fn used(&self, counts: &dyn Fn(Entered<'a>) -> bool) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let entered = self.entered.iter().filter(|entry| counts(**entry)).map(|(_, entry)| entry.host.as_str());
        let held: BTreeSet<&str> = self.claimed.iter().copied().chain(entered).collect();
        let out = held.union(&self.out).copied().collect();
        (held, out)
    }

    fn refusal(&self, host: &str, goes_back: bool, counts: impl Fn(Entered<'a>) -> bool) -> Option<String> {
        let name = name(&self.object.metadata);
        if let Some(shut) = self.shut.as_ref().filter(|_| !goes_back) {
            return Some(format!("DisruptionBudget {name}: {shut}"));
        }
        let total = self.hosts.len();
        let (held, out) = self.used(&counts);
        if let Some((may, out)) = over(&out, host, self.object.spec.resolved_max_unavailable(total)) {
            let (out_of, rest) = (out.len(), listed(&out));
            return Some(format!(
                "DisruptionBudget {name}: {out_of} of its machines out of service and {may} may be: {rest}"
            ));
        }
        let (may, held) = over(&held, host, self.object.spec.resolved_max_parallel(total))?;
        let (count, rest) = (held.len(), listed(&held));
        Some(format!("DisruptionBudget {name}: {count} of its machines held and {may} may be: {rest}"))
    }
}

/// How many may be used, and which are beside this one, if it is one too many.
fn over<'a>(used: &BTreeSet<&'a str>, host: &str, may: Option<usize>) -> Option<(usize, Vec<&'a str>)> {
    let beside: Vec<&str> = used.iter().copied().filter(|other| *other != host).collect();
    may.filter(|may| beside.len() >= *may).map(|may| (may, beside))
}

fn listed(hosts: &[&str]) -> String {
    let first = hosts.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    if hosts.len() > 3 { format!("{first} and {} more", hosts.len() - 3) } else { first }
}

/// How much of a budget is used, as its status says it. `node` finds the Node that a Host stands for, if that is still the
/// same machine.
pub fn summarise_budget<'a>(
    budget: &'a DisruptionBudget,
    hosts: impl IntoIterator<Item = &'a Host>,
    ledgers: &'a [Ledger],
    node: &dyn Fn(&Host) -> Option<&'a NodeView>,
    now: Timestamp,
) -> DisruptionBudgetStatus {
    let entries: Vec<Entered<'a>> =
        ledgers.iter().flat_map(|ledger| ledger.entries.iter().map(|entry| (ledger.rollout.as_str(), entry))).collect();
    let hosts: Vec<&'a Host> = hosts.into_iter().collect();
    let used = Budget::of(budget, &hosts, &entries, node, now);
    let (held, out) = used.used(&|_| true);
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let total = used.hosts.len();
    let mut status = budget.status.clone().unwrap_or_default();
    let unreadable = Calendar::of(&budget.spec.windows, now).err();
    let message = match (&unreadable, &used.shut) {
        (Some(why), _) => format!("no machine of it is begun: {why}"),
        (None, Some(shut)) => format!("{} of {total} held; {shut}", held.len()),
        (None, None) => format!("{} of {total} held, {} out of service", held.len(), out.len()),
    };
    status.observed_generation = budget.metadata.generation;
    status.hosts = Some(number(total));
    status.held = Some(number(held.len()));
    status.unavailable = Some(number(out.len()));
    status.max_unavailable = budget.spec.resolved_max_unavailable(total).map(number);
    status.max_parallel = budget.spec.resolved_max_parallel(total).map(number);
    let (summary, reason) = match unreadable {
        Some(_) => (condition::Summary::Stalled, "InvalidWindows"),
        None => (condition::Summary::Ready, "Understood"),
    };
    condition::summarise(&mut status.conditions, summary, reason, &message, budget.metadata.generation, now);
    status.message = Some(message);
    status
}

//! What is next while a machine's pods leave it: the wait before the cordon, the cordon, the evictions and the volumes.
//!
//! Which pods leave, in which order, and what is in their way, is as `kubectl drain` and Cluster API's `MachineDrainRule`
//! have it.

use std::time::Duration;

use drover_crds::{ClaimStep, Drain, EmptyDirPods, OnDrainTimeout, PodBehavior, PodRule, RunOutcome, UnmanagedPods};
use jiff::{SignedDuration, Timestamp};

use super::{
    population::entry_host,
    request::{NodeChange, Request},
    snapshot::{BudgetView, NodeView, PodKeeper, PodView, Snapshot},
    steps::{Next, SOON, Subject},
};
use crate::selector;

/// The most pods that a message names.
/// How long pods that were deleted get at least, in seconds.
const FORCED_SECONDS: i32 = 60;

const MOST_NAMES: usize = 3;

/// A pod that a drain has to do with.
struct Leaving<'a> {
    pod: &'a PodView,
    /// It is evicted, not waited for only.
    evicted: bool,
    /// Those of a lower order go first.
    order: i32,
}

/// Whether a machine holds up all that are not begun: its drain takes too long, and the spec says so.
pub(super) fn pauses(snapshot: &Snapshot, now: Timestamp) -> bool {
    let Some(drain) = snapshot.rollout.spec.drain() else { return false };
    if drain.resolved_on_timeout() != OnDrainTimeout::Pause {
        return false;
    }
    let ledger = snapshot.rollout.status.iter().flat_map(|status| &status.in_flight);
    ledger.filter_map(|entry| entry_host(snapshot, entry)?.status.as_ref()?.claim.as_ref()).any(|claim| {
        let limit = match claim.step {
            ClaimStep::Claim | ClaimStep::Drain => drain.resolved_timeout_seconds(),
            ClaimStep::DetachVolumes => drain.volume_detach_seconds.unwrap_or(i32::MAX),
            _ => return false,
        };
        now.duration_since(claim.step_started_at.0) >= SignedDuration::from_secs(i64::from(limit))
    })
}

impl Subject<'_> {
    /// Takes the machine out of service, unless it is to be drained and something is in the way of that already: then it
    /// waits in service.
    pub(super) fn begin(&self) -> Next {
        let Some(drain) = self.drain_for(self.cost()) else { return self.enter(self.first_step()) };
        if drain.resolved_on_timeout() == OnDrainTimeout::Force {
            return self.enter(self.first_step());
        }
        let node = match self.node() {
            Ok(node) => node,
            Err(next) => return next,
        };
        let Some(pods) = self.pods() else { return Next::Wait(SOON) };
        let leaving = leaving(drain, node, pods);
        let known = |one: &Leaving<'_>| obstacle(drain, one).or_else(|| protected(one.pod));
        let obstacles: Vec<String> =
            leaving.iter().filter_map(|one| Some(format!("pod {}{}", one.pod.key, known(one)?))).collect();
        if obstacles.is_empty() {
            return self.enter(self.first_step());
        }
        let note = format!("{}; the node is in service until then", some_of(&obstacles, "; ", ""));
        self.blocked(drain, drain.resolved_timeout_seconds(), &note, SOON)
    }

    pub(super) fn cordon(&self) -> Next {
        match self.node() {
            Ok(node) if node.cordoned => self.enter(ClaimStep::Drain),
            Ok(node) => self.patch_node(node, NodeChange::Cordon(self.claim.token.clone())),
            Err(next) => next,
        }
    }

    pub(super) fn drain(&self) -> Next {
        let node = match self.node() {
            Ok(node) => node,
            Err(next) => return next,
        };
        if !node.cordoned {
            // Somebody uncordoned it, and pods may come back while we evict: cordon again first.
            return self.patch_node(node, NodeChange::Cordon(self.claim.token.clone()));
        }
        let Some(drain) = self.spec.drain() else {
            return self.enter(ClaimStep::Apply);
        };
        let Some(pods) = self.pods() else { return Next::Wait(SOON) };
        let mut leaving = leaving(drain, node, pods);
        let Some(order) = leaving.iter().map(|one| one.order).min() else {
            let waits = drain.volume_detach_seconds.is_some();
            return self.enter(if waits { ClaimStep::DetachVolumes } else { ClaimStep::Apply });
        };
        leaving.retain(|one| one.order == order);

        let timeout = drain.resolved_timeout_seconds();
        let policy = drain.resolved_on_timeout();
        if self.is_over(timeout) && policy == OnDrainTimeout::Force {
            return self.force(&leaving, timeout);
        }
        let goes_on = !self.is_over(timeout) || matches!(policy, OnDrainTimeout::Hold | OnDrainTimeout::Pause);
        let free = |one: &&Leaving<'_>| {
            one.evicted && !one.pod.terminating && obstacle(drain, one).is_none() && self.refusal(one.pod).is_none()
        };
        if let Some(next) = leaving.iter().find(free).filter(|_| goes_on) {
            return Next::Request(Request::Evict(next.pod.key.clone()));
        }
        let in_the_way = |one: &Leaving<'_>| obstacle(drain, one).or_else(|| self.refusal(one.pod));
        let obstacles: Vec<String> =
            leaving.iter().filter_map(|one| Some(format!("pod {}{}", one.pod.key, in_the_way(one)?))).collect();
        let note = if obstacles.is_empty() { waits_for(&leaving) } else { some_of(&obstacles, "; ", "") };
        // What was recorded while it waited says more than the moment at which the time is over: nothing is tried then.
        let note = if goes_on { note } else { self.claim.waiting_for.clone().unwrap_or(note) };
        self.blocked(drain, timeout, &note, SOON)
    }

    /// Waits until the volumes of the pods that left are detached.
    pub(super) fn detach_volumes(&self) -> Next {
        let limit = self.spec.drain().and_then(|drain| Some((drain, drain.volume_detach_seconds?)));
        let Some((drain, limit)) = limit else { return self.enter(ClaimStep::Apply) };
        let Some(volumes) = self.snapshot.volumes.get(&self.host.spec.node_ref.name) else {
            return Next::Wait(SOON);
        };
        let forced = self.is_over(limit) && drain.resolved_on_timeout() == OnDrainTimeout::Force;
        if volumes.is_empty() || forced {
            return self.enter(ClaimStep::Apply);
        }
        self.blocked(drain, limit, &format!("volumes to be detached: {}", some_of(volumes, ", ", "")), SOON)
    }

    fn pods(&self) -> Option<&[PodView]> {
        self.snapshot.pods.get(&self.host.spec.node_ref.name).map(Vec::as_slice)
    }

    /// Waits for this, or does what the spec says when it took too long.
    fn blocked(&self, drain: &Drain, limit: i32, note: &str, look_again: Duration) -> Next {
        if !self.is_over(limit) {
            return self.wait_for(note.to_owned(), look_again);
        }
        let step = if self.claim.step == ClaimStep::DetachVolumes { "volumes not detached" } else { "not drained" };
        let over = format!("{step} within {limit} s");
        match drain.resolved_on_timeout() {
            OnDrainTimeout::Fail | OnDrainTimeout::Force => self.fail(format!("{over}: {note}")),
            OnDrainTimeout::Skip => self.end(RunOutcome::Skipped, format!("{over}, so it is left out: {note}")),
            OnDrainTimeout::Hold => self.wait_for(format!("{note}; {over}, goes on waiting"), look_again),
            OnDrainTimeout::Pause => {
                self.wait_for(format!("{note}; {over}, goes on waiting, no further machine is begun"), look_again)
            }
        }
    }

    /// Deletes the pods that are left.
    fn force(&self, leaving: &[Leaving<'_>], timeout: i32) -> Next {
        // Pods have their grace periods, which may well be longer than a short timeout.
        let wait = timeout.max(FORCED_SECONDS);
        if self.is_over(timeout.saturating_add(wait)) {
            return self.fail(format!("not drained {wait} s after its pods were deleted: {}", waits_for(leaving)));
        }
        match leaving.iter().find(|one| !one.pod.terminating) {
            Some(one) => Next::Request(Request::DeletePod(one.pod.key.clone())),
            None => self.wait_for(format!("{}; they were deleted after {timeout} s", waits_for(leaving)), SOON),
        }
    }

    /// Why the API server would not evict the pod, if it was asked: the budget in our words, where it is known which.
    fn refusal(&self, pod: &PodView) -> Option<String> {
        let refusal = self.snapshot.refused_evictions.get(&pod.key).filter(|_| !pod.terminating)?;
        let by_budget = || match pod.budgets.as_slice() {
            [budget] => format!(": PodDisruptionBudget {}: {refusal}", budget.name),
            _ => format!(": {refusal}"),
        };
        Some(protected(pod).unwrap_or_else(by_budget))
    }
}

/// The pods that the drain evicts or waits for, by name: the others stay, as with `kubectl drain`.
fn leaving<'a>(drain: &Drain, node: &NodeView, pods: &'a [PodView]) -> Vec<Leaving<'a>> {
    let mut leaving: Vec<Leaving<'a>> = pods
        .iter()
        .filter(|pod| !pod.finished && !matches!(pod.keeper, PodKeeper::DaemonSet | PodKeeper::Kubelet))
        // A kubelet that does not answer never says that they are gone.
        .filter(|pod| node.ready || !pod.terminating)
        .filter_map(|pod| {
            let rule = drain.pod_rules.iter().find(|rule| is_for(rule, pod));
            let behavior = rule.map_or(PodBehavior::Drain, |rule| rule.behavior);
            let order = rule.and_then(|rule| rule.order).unwrap_or(0);
            let evicted = behavior == PodBehavior::Drain;
            (behavior != PodBehavior::Skip).then_some(Leaving { pod, evicted, order })
        })
        .collect();
    leaving.sort_by(|a, b| a.pod.key.cmp(&b.pod.key));
    leaving
}

fn is_for(rule: &PodRule, pod: &PodView) -> bool {
    let PodRule { selector, namespaces, namespace_selector, behavior: _, order: _ } = rule;
    selector::matches(selector.as_ref(), Some(&pod.labels))
        && (namespaces.is_empty() || namespaces.contains(&pod.key.namespace))
        && selector::matches(namespace_selector.as_ref(), Some(&pod.namespace_labels))
}

/// Why the drain must not evict this pod, if so; to be written after the pod's name.
fn obstacle(drain: &Drain, one: &Leaving<'_>) -> Option<String> {
    if one.pod.terminating || !one.evicted {
        return None;
    }
    if one.pod.keeper == PodKeeper::Nobody && drain.resolved_unmanaged_pods() == UnmanagedPods::Block {
        let way = "delete it, or set disruption.drain.unmanagedPods: Evict";
        return Some(format!(" has no controller that would start it again: {way}"));
    }
    if one.pod.empty_dir && drain.resolved_empty_dir() == EmptyDirPods::Block {
        let way = "delete it, or set disruption.drain.emptyDir: Evict";
        return Some(format!(" keeps data in an emptyDir, which goes with it: {way}"));
    }
    None
}

/// Which budget would not let this pod go now, if one would not; to be written after the pod's name.
fn protected(pod: &PodView) -> Option<String> {
    if pod.terminating {
        return None;
    }
    if pod.budgets.len() > 1 {
        let names: Vec<String> = pod.budgets.iter().map(|budget| budget.name.clone()).collect();
        return Some(format!(
            ": the PodDisruptionBudgets {} select it, and the API server evicts no pod that more than one selects",
            some_of(&names, ", ", "")
        ));
    }
    let budget = pod.budgets.first().filter(|budget| refuses(budget, pod))?;
    let BudgetView { name, needs, has, .. } = budget;
    Some(format!(": PodDisruptionBudget {name} needs {needs} healthy pods and has {has}"))
}

/// Whether the budget would refuse to let this pod go, as
/// <https://kubernetes.io/docs/tasks/run-application/configure-pdb/#unhealthy-pod-eviction-policy> has it.
fn refuses(budget: &BudgetView, pod: &PodView) -> bool {
    let is_satisfied = budget.needs > 0 && budget.has >= budget.needs;
    let may_go_unhealthy = !pod.ready && (budget.unhealthy_may_go || is_satisfied);
    budget.allowed <= 0 && !may_go_unhealthy
}

/// What is waited for where nothing is in the way.
fn waits_for(leaving: &[Leaving<'_>]) -> String {
    let names = |evicted: bool| -> Vec<String> {
        leaving.iter().filter(|one| one.evicted == evicted).map(|one| one.pod.key.to_string()).collect()
    };
    let (evicted, completing) = (names(true), names(false));
    let mut parts = vec![];
    if !evicted.is_empty() {
        parts.push(some_of(&evicted, ", ", " to terminate"));
    }
    if !completing.is_empty() {
        parts.push(some_of(&completing, ", ", " to finish"));
    }
    format!("waiting for {}", parts.join(" and for "))
}

/// The first of them, and how many more.
fn some_of(words: &[String], separator: &str, after: &str) -> String {
    let first = words.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(separator);
    match words.len().saturating_sub(MOST_NAMES) {
        0 => format!("{first}{after}"),
        more => format!("{first} and {more} more{after}"),
    }
}

//! What is next for a machine under way. Each step is recorded in the Host's claim before it is done, and does nothing
//! that was done already.

use std::time::Duration;

use drover_crds::{
    Assignment, Claim, ClaimStep, Host, HostStatus, InFlightHost, Restore, RolloutSpec, RunOutcome, RunRecord,
    UnmanagedPods,
    condition::{self, Status},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    population::{self, entry_host},
    request::{NodeChange, Request},
    snapshot::{GateEvidence, NodeView, PodKeeper, PodView, Snapshot},
};
use crate::metadata::{name, uid};

/// Conditions of a Host that speak of a Rollout's steps.
const CLAIMED: &str = "Claimed";
const EXCLUDED: &str = "ExcludedFromLoadBalancer";
const CORDONED: &str = "Cordoned";
const DRAINED: &str = "Drained";
const REBOOTED: &str = "Rebooted";
const VERIFIED: &str = "Verified";

/// Of how many Rollouts a host remembers how the last run ended.
const MOST_RUNS: usize = 16;

/// How often a drain, or a gate that was just asked for, is looked at again.
const SOON: Duration = Duration::from_secs(2);
/// How often something is looked at that is watched as well.
const LATER: Duration = Duration::from_secs(15);

/// What is next for a machine.
pub(super) enum Next {
    /// Make this request.
    Request(Request),
    /// Look again after this time at the latest.
    Wait(Duration),
}

/// A machine under way, taken apart.
struct Subject<'a> {
    snapshot: &'a Snapshot,
    spec: &'a RolloutSpec,
    host: &'a Host,
    status: HostStatus,
    claim: Claim,
    node: Option<&'a NodeView>,
    now: Timestamp,
}

/// What is next for the machine of this entry.
pub(super) fn next(snapshot: &Snapshot, entry: &InFlightHost, now: Timestamp) -> Next {
    let Some(host) = entry_host(snapshot, entry) else {
        return Next::Wait(SOON);
    };
    let Some(subject) = Subject::of(snapshot, host, now) else {
        return hold(snapshot, host, entry, now);
    };
    match subject.claim.step {
        ClaimStep::Claim => subject.enter(subject.first_step()),
        ClaimStep::LeaveLoadBalancer => subject.leave_load_balancer(),
        ClaimStep::Cordon => subject.cordon(),
        ClaimStep::Drain => subject.drain(),
        ClaimStep::Apply => subject.apply(),
        ClaimStep::Reboot => subject.reboot(),
        ClaimStep::Verify => subject.verify(),
        ClaimStep::Restore => subject.restore(),
    }
}

/// Gives the machine back now, whatever it is at.
pub(super) fn give_back(snapshot: &Snapshot, entry: &InFlightHost, why: &str, now: Timestamp) -> Next {
    match entry_host(snapshot, entry).and_then(|host| Subject::of(snapshot, host, now)) {
        Some(subject) if subject.claim.step == ClaimStep::Restore => subject.restore(),
        Some(subject) => subject.fail(why.to_owned()),
        // Admitted, and nothing done yet: the entry goes.
        None => drop_entry(snapshot, entry),
    }
}

/// Gives a machine back that was not changed yet; its turn comes again. One that was changed already goes on.
pub(super) fn withdraw(snapshot: &Snapshot, entry: &InFlightHost, why: &str, now: Timestamp) -> Next {
    let subject = entry_host(snapshot, entry).and_then(|host| Subject::of(snapshot, host, now));
    match subject {
        Some(subject) if subject.claim.step < ClaimStep::Apply => {
            subject.end(RunOutcome::Withdrawn, format!("given back unchanged: {why}"))
        }
        Some(_) => next(snapshot, entry, now),
        None => drop_entry(snapshot, entry),
    }
}

/// Takes an entry out of the ledger whose machine was not claimed yet.
fn drop_entry(snapshot: &Snapshot, entry: &InFlightHost) -> Next {
    let mut status = snapshot.rollout.status.clone().unwrap_or_default();
    status.in_flight.retain(|other| other.token != entry.token);
    Next::Request(Request::WriteRollout(Box::new(status)))
}

/// Records the hold on the Host, with what the machine was like before.
fn hold(snapshot: &Snapshot, host: &Host, entry: &InFlightHost, now: Timestamp) -> Next {
    let rollout = &snapshot.rollout;
    let node = population::node_of(snapshot, host);
    let mut status = host.status.clone().unwrap_or_default();
    let run = rollout.status.as_ref().and_then(|status| status.run.as_ref()).map_or(0, |run| run.number);
    let node_config = &rollout.spec.node_config_ref.name;
    let earlier = population::record(rollout, host).filter(|record| record.run == run);
    let attempt = earlier.map_or(1, |record| record.attempt + 1);
    let assigned = status.assigned.iter().find(|assignment| assignment.node_config == *node_config);
    // What a machine had before the run is told by its first hold; a later one would call the run's own revision that.
    let previous = match earlier {
        Some(record) => record.previous.clone(),
        None => assigned.map(|assignment| assignment.revision.clone()),
    };
    status.claim = Some(Claim {
        rollout: name(&rollout.metadata).to_owned(),
        rollout_uid: uid(&rollout.metadata).to_owned(),
        run,
        batch: entry.batch,
        token: entry.token.clone(),
        target: Assignment { node_config: node_config.clone(), revision: entry.revision.clone() },
        attempt,
        previous,
        cost: snapshot.costs.get(&entry.host).copied(),
        step: ClaimStep::Claim,
        since: entry.since.clone(),
        step_started_at: Time(now),
        waiting_for: None,
        reboot: None,
        outcome: None,
        failure: None,
    });
    status.restore = Some(Restore {
        cordoned: node.is_some_and(|node| node.cordoned),
        load_balancer_label: node.and_then(|node| node.load_balancer_label.clone()),
    });
    let message = format!("Rollout {}, run {run}", name(&rollout.metadata));
    condition::set(&mut status.conditions, CLAIMED, Status::True, "HeldByRollout", message, None, now);
    condition::remove(&mut status.conditions, VERIFIED);
    Next::Request(Request::WriteHost { host: entry.host.clone(), status: Box::new(status) })
}

impl<'a> Subject<'a> {
    /// The machine, if it is claimed.
    fn of(snapshot: &'a Snapshot, host: &'a Host, now: Timestamp) -> Option<Self> {
        let status = host.status.clone()?;
        let claim = status.claim.clone()?;
        let node = population::node_of(snapshot, host);
        Some(Self { snapshot, spec: &snapshot.rollout.spec, host, status, claim, node, now })
    }

    fn first_step(&self) -> ClaimStep {
        if self.spec.excludes_from_load_balancers() { ClaimStep::LeaveLoadBalancer } else { self.after_load_balancer() }
    }

    fn after_load_balancer(&self) -> ClaimStep {
        if self.spec.drain().is_some() { ClaimStep::Cordon } else { ClaimStep::Apply }
    }

    /// How long the step has gone on.
    fn elapsed(&self) -> SignedDuration {
        self.now.duration_since(self.claim.step_started_at.0)
    }

    fn is_over(&self, seconds: i32) -> bool {
        self.elapsed() >= SignedDuration::from_secs(i64::from(seconds))
    }

    fn write(&self, status: HostStatus) -> Next {
        Next::Request(Request::WriteHost { host: name(&self.host.metadata).to_owned(), status: Box::new(status) })
    }

    fn patch_node(&self, node: &NodeView, change: NodeChange) -> Next {
        Next::Request(Request::PatchNode {
            node: self.host.spec.node_ref.name.clone(),
            resource_version: node.resource_version.clone(),
            change,
        })
    }

    /// Records that the machine is at this step now. The assignment is recorded together with the step that waits for it.
    fn enter(&self, step: ClaimStep) -> Next {
        let mut status = self.status.clone();
        self.conclude(&mut status.conditions);
        let begun = match step {
            ClaimStep::LeaveLoadBalancer => Some((EXCLUDED, "Settling")),
            ClaimStep::Cordon => Some((CORDONED, "Cordoning")),
            ClaimStep::Drain => Some((DRAINED, "Draining")),
            ClaimStep::Reboot => Some((REBOOTED, "Rebooting")),
            ClaimStep::Verify => Some((VERIFIED, "AskingGates")),
            ClaimStep::Claim | ClaimStep::Apply | ClaimStep::Restore => None,
        };
        if let Some((type_, reason)) = begun {
            condition::set(&mut status.conditions, type_, Status::Unknown, reason, "", None, self.now);
        }
        if step == ClaimStep::Apply {
            assign(&mut status, &self.claim.target);
        }
        let mut claim = Claim { step, step_started_at: Time(self.now), waiting_for: None, ..self.claim.clone() };
        claim.reboot = match step {
            ClaimStep::Reboot => self.status.active.as_ref().and_then(|active| active.boot_id.clone()),
            _ => None,
        };
        status.claim = Some(claim);
        self.write(status)
    }

    /// Marks the condition of the step that ends as done.
    fn conclude(&self, conditions: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>) {
        let done = match self.claim.step {
            ClaimStep::LeaveLoadBalancer => Some((EXCLUDED, "Excluded")),
            ClaimStep::Cordon => Some((CORDONED, "Cordoned")),
            ClaimStep::Drain => Some((DRAINED, "Drained")),
            ClaimStep::Reboot => Some((REBOOTED, "AnotherBootId")),
            ClaimStep::Verify => Some((VERIFIED, "GatesPassed")),
            ClaimStep::Claim | ClaimStep::Apply | ClaimStep::Restore => None,
        };
        if let Some((type_, reason)) = done {
            condition::set(conditions, type_, Status::True, reason, "", None, self.now);
        }
    }

    /// Records why the machine failed; what is left is to give it back.
    fn fail(&self, message: String) -> Next {
        self.end(RunOutcome::Failed, message)
    }

    /// Records that the hold ends so; what is left is to give the machine back.
    fn end(&self, outcome: RunOutcome, message: String) -> Next {
        let mut status = self.status.clone();
        if outcome == RunOutcome::Failed {
            let (is, reason) = (Status::False, "StepFailed");
            condition::set(&mut status.conditions, VERIFIED, is, reason, message.clone(), None, self.now);
        }
        status.claim = Some(Claim {
            step: ClaimStep::Restore,
            step_started_at: Time(self.now),
            waiting_for: None,
            reboot: None,
            outcome: Some(outcome),
            failure: Some(message),
            ..self.claim.clone()
        });
        self.write(status)
    }

    /// Records what the step waits for, or waits when that is recorded already.
    fn wait_for(&self, what: String, look_again: Duration) -> Next {
        if self.claim.waiting_for.as_ref() == Some(&what) {
            return Next::Wait(look_again);
        }
        let mut status = self.status.clone();
        status.claim = Some(Claim { waiting_for: Some(what), ..self.claim.clone() });
        self.write(status)
    }

    /// The Node, or what to do without it.
    fn node(&self) -> Result<&NodeView, Next> {
        self.node.ok_or_else(|| self.fail(format!("Node {} is gone", self.host.spec.node_ref.name)))
    }

    fn leave_load_balancer(&self) -> Next {
        let node = match self.node() {
            Ok(node) => node,
            Err(next) => return next,
        };
        if node.load_balancer_label.is_none() {
            return self.patch_node(node, NodeChange::ExcludeFromLoadBalancers(self.claim.token.clone()));
        }
        let settle = SignedDuration::from_secs(i64::from(self.spec.resolved_settle_seconds()));
        match Duration::try_from(settle - self.elapsed()) {
            Ok(left) if !left.is_zero() => Next::Wait(left),
            _ => self.enter(self.after_load_balancer()),
        }
    }

    fn cordon(&self) -> Next {
        match self.node() {
            Ok(node) if node.cordoned => self.enter(ClaimStep::Drain),
            Ok(node) => self.patch_node(node, NodeChange::Cordon(self.claim.token.clone())),
            Err(next) => next,
        }
    }

    fn drain(&self) -> Next {
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
        let Some(pods) = self.snapshot.pods.get(&self.host.spec.node_ref.name) else {
            return Next::Wait(SOON);
        };
        let mut leaving: Vec<&PodView> = pods.iter().filter(|pod| leaves(pod)).collect();
        leaving.sort_by(|a, b| a.key.cmp(&b.key));
        if leaving.is_empty() {
            return self.enter(ClaimStep::Apply);
        }
        let obstacles: Vec<String> =
            leaving.iter().filter_map(|pod| self.obstacle(drain.resolved_unmanaged_pods(), pod)).collect();
        let timeout = drain.resolved_timeout_seconds();
        if self.is_over(timeout) {
            // What was recorded while it waited says more than this moment: evictions are not tried again now.
            let rest = self.claim.waiting_for.clone().unwrap_or_else(|| listed(&leaving));
            return self.fail(format!("not drained within {timeout} s: {rest}"));
        }
        let evictable = leaving
            .iter()
            .find(|pod| !pod.terminating && self.obstacle(drain.resolved_unmanaged_pods(), pod).is_none());
        match evictable {
            Some(pod) => Next::Request(Request::Evict(pod.key.clone())),
            None if obstacles.is_empty() => self.wait_for(listed(&leaving), SOON),
            None => self.wait_for(obstacles.join("; "), SOON),
        }
    }

    /// Why this pod does not leave, if something is in its way.
    fn obstacle(&self, unmanaged: UnmanagedPods, pod: &PodView) -> Option<String> {
        if pod.terminating {
            return None;
        }
        if pod.keeper == PodKeeper::Nobody && unmanaged == UnmanagedPods::Block {
            return Some(format!(
                "pod {} has no controller that would start it again: delete it, or set disruption.drain.unmanagedPods: Evict",
                pod.key
            ));
        }
        self.snapshot.refused_evictions.get(&pod.key).map(|refusal| format!("pod {}: {refusal}", pod.key))
    }

    fn apply(&self) -> Next {
        if !self.status.assigned.contains(&self.claim.target) {
            return self.enter(ClaimStep::Apply);
        }
        let host = name(&self.host.metadata);
        let generation = self.status.assigned_generation;
        if let Some(active) = self.status.active.as_ref().filter(|active| active.generation == generation) {
            if active.converged {
                let reboots = !active.reboot_required.is_empty() && self.spec.reboots();
                return self.enter(if reboots { ClaimStep::Reboot } else { ClaimStep::Verify });
            }
            let message = active.message.as_deref().unwrap_or("see the agent's log");
            return self.fail(format!("{} of {} resources failed: {message}", active.failed, active.resources));
        }
        let applied = condition::find(&self.status.conditions, "Applied");
        if let Some(applied) =
            applied.filter(|c| c.reason == "CompileFailed" && c.observed_generation == Some(generation))
        {
            return self.fail(format!("no catalog: {}", applied.message));
        }
        let timeout = self.spec.resolved_apply_timeout_seconds();
        if self.is_over(timeout) {
            return self.fail(format!(
                "no report from the agent within {timeout} s; see the logs of the drover-agent pod on {host}"
            ));
        }
        self.wait_for("the agent's report".to_owned(), LATER)
    }

    /// The agent reboots its machine when its catalog says so, for the boot id that the claim holds; another one is the
    /// proof.
    fn reboot(&self) -> Next {
        let active = self.status.active.clone().unwrap_or_default();
        let Some(before) = &self.claim.reboot else {
            return self.fail("it must reboot, and its agent reports no boot id to tell that by".to_owned());
        };
        let reasons = active.reboot_required.join(", ");
        if active.boot_id.as_ref().is_some_and(|now| now != before) {
            return match (active.converged, reasons.as_str()) {
                (true, "") => self.enter(ClaimStep::Verify),
                (true, reasons) => self.fail(format!("it has rebooted, and asks for it again: {reasons}")),
                (false, _) => self.fail(format!(
                    "after its reboot {} of {} resources failed: {}",
                    active.failed,
                    active.resources,
                    active.message.as_deref().unwrap_or("see the agent's log")
                )),
            };
        }
        let timeout = self.spec.resolved_reboot_timeout_seconds();
        if self.is_over(timeout) {
            return self.fail(format!("it did not come back from its reboot within {timeout} s; look at its console"));
        }
        self.wait_for(format!("the reboot: {reasons}"), LATER)
    }

    fn verify(&self) -> Next {
        let unknown = vec![];
        let evidence = self.snapshot.gates.get(name(&self.host.metadata)).unwrap_or(&unknown);
        for (index, gate) in self.spec.host_gates().iter().enumerate() {
            let shown = match evidence.get(index) {
                Some(GateEvidence::Passed) => continue,
                Some(GateEvidence::Failed(why)) => why.as_str(),
                Some(GateEvidence::Inconclusive) | None => "no answer yet",
            };
            let timeout = gate.resolved_timeout_seconds();
            if self.is_over(timeout) {
                return self.fail(format!("gate {} did not pass within {timeout} s: {shown}", gate.describe()));
            }
            let period = Duration::from_secs(u64::try_from(gate.resolved_period_seconds()).unwrap_or(2));
            return self.wait_for(format!("gate {}: {shown}", gate.describe()), period);
        }
        self.enter(ClaimStep::Restore)
    }

    /// Whether a write to the Node was decided on under this hold, be it done or not.
    fn reached_the_node(&self) -> bool {
        [EXCLUDED, CORDONED].iter().any(|type_| condition::find(&self.status.conditions, type_).is_some())
    }

    /// Gives back the node as it was, then lets the machine go. The node is written before the claim goes: an operator that
    /// lost its leadership may have a cordon on its way, decided on the version before.
    fn restore(&self) -> Next {
        if let Some(node) = self.node {
            let token = Some(&self.claim.token);
            if node.cordoned_by.as_ref() == token {
                return self.patch_node(node, NodeChange::Uncordon(self.claim.token.clone()));
            }
            if node.excluded_by.as_ref() == token {
                return self.patch_node(node, NodeChange::IncludeInLoadBalancers(self.claim.token.clone()));
            }
            if self.reached_the_node() && node.released_by.as_ref() != token {
                return self.patch_node(node, NodeChange::Release(self.claim.token.clone()));
            }
        }
        let mut status = self.status.clone();
        // A rollback is what brings a machine to another revision than the run's.
        let run = self.snapshot.rollout.status.as_ref().and_then(|status| status.run.as_ref());
        let goes_back =
            run.is_some_and(|run| run.number == self.claim.run && run.revision != self.claim.target.revision);
        let done = if goes_back { RunOutcome::RolledBack } else { RunOutcome::Succeeded };
        status.runs.retain(|record| record.rollout != self.claim.rollout);
        status.runs.push(RunRecord {
            rollout: self.claim.rollout.clone(),
            rollout_uid: self.claim.rollout_uid.clone(),
            run: self.claim.run,
            batch: self.claim.batch,
            attempt: self.claim.attempt,
            revision: self.claim.target.revision.clone(),
            previous: self.claim.previous.clone(),
            outcome: self.claim.outcome.unwrap_or(done),
            message: self.claim.failure.clone(),
            started_at: Some(self.claim.since.clone()),
            finished_at: Time(self.now),
        });
        // Rollouts come and go; what a host remembers of them is bounded.
        status.runs.sort_by_key(|record| std::cmp::Reverse(record.finished_at.0));
        status.runs.truncate(MOST_RUNS);
        status.runs.sort_by(|a, b| a.rollout.cmp(&b.rollout));
        for type_ in [CLAIMED, EXCLUDED, CORDONED, DRAINED, REBOOTED] {
            condition::remove(&mut status.conditions, type_);
        }
        status.claim = None;
        status.restore = None;
        self.write(status)
    }
}

/// Assigns the revision in place of the NodeConfig's earlier one. Where it is assigned already and the agent failed, the
/// new generation asks the agent to try again.
fn assign(status: &mut HostStatus, target: &Assignment) {
    let generation = status.assigned_generation;
    let failed = status.active.as_ref().is_some_and(|active| active.generation == generation && !active.converged);
    if status.assigned.contains(target) && !failed {
        return;
    }
    status.assigned.retain(|assignment| assignment.node_config != target.node_config);
    status.assigned.push(target.clone());
    status.assigned.sort();
    status.assigned_generation += 1;
}

/// Whether a drain waits for the pod: the others stay, as with `kubectl drain`.
fn leaves(pod: &PodView) -> bool {
    !pod.finished && !matches!(pod.keeper, PodKeeper::DaemonSet | PodKeeper::Kubelet)
}

/// The first pods by name, and how many more.
fn listed(pods: &[&PodView]) -> String {
    let first: Vec<String> = pods.iter().take(3).map(|pod| pod.key.to_string()).collect();
    match pods.len() {
        0..=3 => format!("waiting for {} to terminate", first.join(", ")),
        more => format!("waiting for {} and {} more to terminate", first.join(", "), more - 3),
    }
}

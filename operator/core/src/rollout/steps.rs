//! What is next for a machine under way. Each step is recorded in the Host's claim before it is done, and does nothing
//! that was done already.

use std::time::Duration;

use drover_crds::{
    Assignment, ChangeCost, Claim, ClaimStep, Drain, Gate, Hook, Hooks, Host, HostStatus, InFlightHost, Restore,
    RolloutSpec, RunOutcome, RunRecord,
    condition::{self, Status},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    budget::{self, MayClaim},
    gate::{self, Together},
    hook::{self, Place, Progress},
    population::{self, entry_host},
    request::{NodeChange, Request},
    snapshot::{NodeView, Snapshot},
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
pub(super) const SOON: Duration = Duration::from_secs(2);
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
pub(super) struct Subject<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) spec: &'a RolloutSpec,
    pub(super) host: &'a Host,
    pub(super) status: &'a HostStatus,
    pub(super) claim: &'a Claim,
    pub(super) node: Option<&'a NodeView>,
    pub(super) now: Timestamp,
}

/// What is next for the machine of this entry.
pub(super) fn next(snapshot: &Snapshot, entry: &InFlightHost, now: Timestamp) -> Next {
    let Some(host) = entry_host(snapshot, entry) else {
        return Next::Wait(SOON);
    };
    let Some(subject) = Subject::of(snapshot, host, now) else {
        return match budget::may_claim(snapshot, entry, now) {
            MayClaim::Yes => hold(snapshot, host, entry, now),
            MayClaim::NotYet => Next::Wait(SOON),
            // Its turn comes again; the message then names the budget.
            MayClaim::No => drop_entry(snapshot, entry),
        };
    };
    match subject.claim.step {
        ClaimStep::Claim => subject.begin(),
        ClaimStep::BeforeHost => subject.hooks("beforeHost", |hooks| &hooks.before_host),
        ClaimStep::LeaveLoadBalancer => subject.leave_load_balancer(),
        ClaimStep::Cordon => subject.cordon(),
        ClaimStep::Drain => subject.drain(),
        ClaimStep::DetachVolumes => subject.detach_volumes(),
        ClaimStep::Apply => subject.apply(),
        ClaimStep::Reboot => subject.reboot(),
        ClaimStep::Verify => subject.verify(),
        ClaimStep::AfterHost => subject.hooks("afterHost", |hooks| &hooks.after_host),
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
        Some(subject) if subject.claim.step < ClaimStep::Apply && !subject.claim.applied => {
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

/// Records the hold on the Host, with what the machine was like before, and the first step with it.
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
        applied: false,
        drained_for: None,
        left_load_balancers: vec![],
        step: ClaimStep::Claim,
        since: entry.since.clone(),
        step_started_at: Time(now),
        waiting_for: None,
        reboot: None,
        commands: vec![],
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
    let mut claimed = host.clone();
    claimed.status = Some(status);
    let Some(subject) = Subject::of(snapshot, &claimed, now) else { return Next::Wait(SOON) };
    match subject.begin() {
        // What stands in the way of its drain is not known yet.
        Next::Wait(_) => subject.write(subject.status.clone()),
        next @ Next::Request(_) => next,
    }
}

impl<'a> Subject<'a> {
    /// The machine, if it is claimed.
    fn of(snapshot: &'a Snapshot, host: &'a Host, now: Timestamp) -> Option<Self> {
        let status = host.status.as_ref()?;
        let claim = status.claim.as_ref()?;
        let node = population::node_of(snapshot, host);
        Some(Self { snapshot, spec: &snapshot.rollout.spec, host, status, claim, node, now })
    }

    /// What the change counts as.
    pub(super) fn cost(&self) -> ChangeCost {
        let known = self.claim.cost.filter(|_| !self.spec.always_disrupts());
        known.unwrap_or(ChangeCost::Reboot)
    }

    /// How the machine is drained, if it is.
    pub(super) fn drain_for(&self, cost: ChangeCost) -> Option<&'a Drain> {
        self.spec.drain().filter(|_| cost >= ChangeCost::Drain)
    }

    /// Whether the machine leaves load balancers.
    fn leaves_load_balancers_for(&self, cost: ChangeCost) -> bool {
        let configured = self.spec.excludes_from_load_balancers() || !self.spec.load_balancer_steps().is_empty();
        configured && cost >= ChangeCost::Restart
    }

    /// The step after `Claim`.
    pub(super) fn first_step(&self) -> ClaimStep {
        let before = self.spec.hooks.as_ref().is_some_and(|hooks| !hooks.before_host.is_empty());
        if before { ClaimStep::BeforeHost } else { self.out_of_service() }
    }

    fn out_of_service(&self) -> ClaimStep {
        if self.leaves_load_balancers_for(self.cost()) {
            ClaimStep::LeaveLoadBalancer
        } else {
            self.after_load_balancer()
        }
    }

    pub(super) fn after_load_balancer(&self) -> ClaimStep {
        if self.drain_for(self.cost()).is_some() { ClaimStep::Cordon } else { ClaimStep::Apply }
    }

    /// Whether the machine is as far out of service as a reboot needs it, in this hold and at this moment.
    fn may_reboot(&self) -> bool {
        let all = ChangeCost::Reboot;
        let is_drained = self.claim.drained_for.is_some() && self.node.is_some_and(|node| node.cordoned);
        let has_left = !self.leaves_load_balancers_for(all) || self.leaves_load_balancers_for(self.cost());
        (self.drain_for(all).is_none() || is_drained) && has_left
    }

    /// Records that the change costs a reboot after all: the machine is taken out of service from the beginning, and comes
    /// back to what it has applied already.
    fn take_out_for_reboot(&self) -> Next {
        let mut status = self.status.clone();
        status.claim = Some(Claim {
            step: ClaimStep::Claim,
            step_started_at: Time(self.now),
            waiting_for: None,
            cost: Some(ChangeCost::Reboot),
            applied: true,
            drained_for: None,
            ..self.claim.clone()
        });
        self.write(status)
    }

    /// How long the step has gone on.
    pub(super) fn elapsed(&self) -> SignedDuration {
        self.now.duration_since(self.claim.step_started_at.0)
    }

    pub(super) fn is_over(&self, seconds: i32) -> bool {
        self.elapsed() >= SignedDuration::from_secs(i64::from(seconds))
    }

    pub(super) fn write(&self, status: HostStatus) -> Next {
        Next::Request(Request::WriteHost { host: name(&self.host.metadata).to_owned(), status: Box::new(status) })
    }

    pub(super) fn patch_node(&self, node: &NodeView, change: NodeChange) -> Next {
        Next::Request(Request::PatchNode {
            node: self.host.spec.node_ref.name.clone(),
            resource_version: node.resource_version.clone(),
            change,
        })
    }

    /// Records that the machine is at this step now. The assignment is recorded together with the step that waits for it.
    pub(super) fn enter(&self, step: ClaimStep) -> Next {
        let mut status = self.status.clone();
        self.conclude(&mut status.conditions);
        self.record(status, step)
    }

    fn record(&self, mut status: HostStatus, step: ClaimStep) -> Next {
        let begun = match step {
            ClaimStep::LeaveLoadBalancer => Some((EXCLUDED, "Settling")),
            ClaimStep::Cordon => Some((CORDONED, "Cordoning")),
            ClaimStep::Drain => Some((DRAINED, "Draining")),
            ClaimStep::Reboot => Some((REBOOTED, "Rebooting")),
            ClaimStep::Verify => Some((VERIFIED, "AskingGates")),
            ClaimStep::Claim
            | ClaimStep::BeforeHost
            | ClaimStep::DetachVolumes
            | ClaimStep::Apply
            | ClaimStep::AfterHost
            | ClaimStep::Restore => None,
        };
        if let Some((type_, reason)) = begun {
            condition::set(&mut status.conditions, type_, Status::Unknown, reason, "", None, self.now);
        }
        if step == ClaimStep::Apply {
            assign(&mut status, &self.claim.target);
        }
        let mut claim = Claim { step, step_started_at: Time(self.now), waiting_for: None, ..self.claim.clone() };
        if self.claim.step == ClaimStep::Drain {
            claim.drained_for = Some(self.cost());
        }
        claim.commands = match step {
            ClaimStep::Verify => gate::commands(self.spec.host_gates(), &claim.token),
            _ => vec![],
        };
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
            ClaimStep::Claim
            | ClaimStep::BeforeHost
            | ClaimStep::DetachVolumes
            | ClaimStep::Apply
            | ClaimStep::AfterHost
            | ClaimStep::Restore => None,
        };
        if let Some((type_, reason)) = done {
            condition::set(conditions, type_, Status::True, reason, "", None, self.now);
        }
    }

    /// Records why the machine failed; what is left is to give it back.
    pub(super) fn fail(&self, message: String) -> Next {
        self.end(RunOutcome::Failed, message)
    }

    /// Records that the hold ends so; what is left is to give the machine back.
    pub(super) fn end(&self, outcome: RunOutcome, message: String) -> Next {
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
            commands: vec![],
            outcome: Some(outcome),
            failure: Some(message),
            ..self.claim.clone()
        });
        self.write(status)
    }

    /// Records what the step waits for, or waits when that is recorded already.
    pub(super) fn wait_for(&self, what: String, look_again: Duration) -> Next {
        if self.claim.waiting_for.as_ref() == Some(&what) {
            return Next::Wait(look_again);
        }
        let mut status = self.status.clone();
        status.claim = Some(Claim { waiting_for: Some(what), ..self.claim.clone() });
        self.write(status)
    }

    /// The Node, or what to do without it.
    pub(super) fn node(&self) -> Result<&NodeView, Next> {
        self.node.ok_or_else(|| self.fail(format!("Node {} is gone", self.host.spec.node_ref.name)))
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
                return match (reboots, self.may_reboot()) {
                    (false, _) => self.applied(),
                    (true, true) => self.enter(ClaimStep::Reboot),
                    (true, false) => self.take_out_for_reboot(),
                };
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
        // What is usual is not worth a write.
        match Duration::try_from(self.elapsed()).ok().and_then(|elapsed| LATER.checked_sub(elapsed)) {
            Some(left) if !left.is_zero() => Next::Wait(left),
            _ => self.wait_for("the agent's report".to_owned(), LATER),
        }
    }

    /// What was to be applied is: the gates are next, if there are any.
    fn applied(&self) -> Next {
        if self.spec.host_gates().is_empty() { self.verified(&[]) } else { self.enter(ClaimStep::Verify) }
    }

    /// The gates passed; the condition tells what those showed that decide nothing.
    fn verified(&self, shown: &[(String, String)]) -> Next {
        let told: Vec<String> =
            shown.iter().map(|(gate, answer)| format!("dry run of gate {gate}: {answer}")).collect();
        let told: String = told.join("; ").chars().take(1000).collect();
        let mut status = self.status.clone();
        self.conclude(&mut status.conditions);
        condition::set(&mut status.conditions, VERIFIED, Status::True, "GatesPassed", told, None, self.now);
        let after = self.spec.hooks.as_ref().is_some_and(|hooks| !hooks.after_host.is_empty());
        if after { self.record(status, ClaimStep::AfterHost) } else { self.finish(status) }
    }

    /// Gives the machine back. Where the node is as it was, there is no step of its own for that.
    fn finish(&self, status: HostStatus) -> Next {
        let is_marked = self.node.is_some_and(|node| self.mark_of_ours(node).is_some());
        if is_marked || !self.claim.left_load_balancers.is_empty() {
            return self.record(status, ClaimStep::Restore);
        }
        self.release(status)
    }

    /// What takes this hold's mark from the node, if it has one.
    fn mark_of_ours(&self, node: &NodeView) -> Option<NodeChange> {
        let (token, mark) = (Some(&self.claim.token), || self.claim.token.clone());
        if node.cordoned_by.as_ref() == token {
            return Some(NodeChange::Uncordon(mark()));
        }
        if node.excluded_by.as_ref() == token {
            return Some(NodeChange::IncludeInLoadBalancers(mark()));
        }
        // The node is written before the claim goes: an operator that lost its leadership may have a cordon on its way,
        // decided on the version before.
        (self.reached_the_node() && node.released_by.as_ref() != token).then(|| NodeChange::Release(mark()))
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
                (true, "") => self.applied(),
                (true, reasons) => self.fail(format!("it has rebooted, and asks for it again: {reasons}")),
                (false, _) => self.fail(format!(
                    "after its reboot {} of {} resources failed: {}",
                    active.failed,
                    active.resources,
                    active.message.as_deref().unwrap_or("see the agent's log")
                )),
            };
        }
        if let Some(node) = self.node.filter(|node| !node.cordoned && self.claim.drained_for.is_some()) {
            // Somebody uncordoned it, and pods may come back while it goes down.
            return self.patch_node(node, NodeChange::Cordon(self.claim.token.clone()));
        }
        let timeout = self.spec.resolved_reboot_timeout_seconds();
        if self.is_over(timeout) {
            return self.fail(format!("it did not come back from its reboot within {timeout} s; look at its console"));
        }
        self.wait_for(format!("the reboot: {reasons}"), LATER)
    }

    fn place(&self, what: &'static str) -> Place<'_> {
        let claim = &self.claim;
        let host = Some((name(&self.host.metadata), claim.token.as_str()));
        Place { what, run: claim.run, revision: &claim.target.revision, batch: Some(claim.batch), host }
    }

    fn verify(&self) -> Next {
        let gates = self.spec.host_gates();
        let evidence = self.snapshot.gates.get(name(&self.host.metadata)).map_or(&[][..], Vec::as_slice);
        let together = gate::together(self.snapshot, gates, evidence, &self.place("host"), self.elapsed());
        let least = |of: fn(&Gate) -> i32| gates.iter().map(of).min().unwrap_or(2);
        match together {
            Together::Passed(shown) => self.verified(&shown),
            Together::Failed(why) => self.fail(why),
            Together::Inconclusive(why) => self.fail(format!("Inconclusive: {why}")),
            Together::Stuck(why) if self.is_over(least(Gate::resolved_timeout_seconds)) => self.fail(why),
            Together::Stuck(why) => self.wait_for(why, LATER),
            Together::Pending(why) => {
                let period = u64::try_from(least(Gate::resolved_period_seconds)).unwrap_or(2);
                self.wait_for(why, Duration::from_secs(period))
            }
            Together::Request(request) => Next::Request(request),
        }
    }

    /// Runs the hooks of this machine, then goes on.
    fn hooks(&self, what: &'static str, hooks: fn(&Hooks) -> &Vec<Hook>) -> Next {
        let hooks = self.spec.hooks.as_ref().map_or(&[][..], |all| hooks(all));
        let longest = hooks.iter().map(Hook::resolved_timeout_seconds).max().unwrap_or(0);
        match hook::run(self.snapshot, hooks, &self.place(what)) {
            Progress::Done if self.claim.step == ClaimStep::BeforeHost => self.enter(self.out_of_service()),
            Progress::Done => self.finish(self.status.clone()),
            Progress::Request(request) => Next::Request(request),
            Progress::Failed(why) => self.fail(why),
            Progress::Stuck(why) if self.is_over(longest) => self.fail(why),
            Progress::Stuck(why) | Progress::Wait(why) => self.wait_for(why, LATER),
        }
    }

    /// Whether a write to the Node was decided on under this hold, be it done or not.
    fn reached_the_node(&self) -> bool {
        [EXCLUDED, CORDONED].iter().any(|type_| condition::find(&self.status.conditions, type_).is_some())
    }

    /// Gives back the node as it was, then lets the machine go. The node is written before the claim goes: an operator that
    /// lost its leadership may have a cordon on its way, decided on the version before.
    fn restore(&self) -> Next {
        let change = self.node.and_then(|node| Some((node, self.mark_of_ours(node)?)));
        if let Some((node, NodeChange::Uncordon(_))) = &change {
            return self.patch_node(node, NodeChange::Uncordon(self.claim.token.clone()));
        }
        if let Some(next) = self.return_to_load_balancers() {
            return next;
        }
        if let Some((node, change)) = change {
            return self.patch_node(node, change);
        }
        self.release(self.status.clone())
    }

    /// Lets the machine go: how it went is recorded in the claim's place.
    fn release(&self, mut status: HostStatus) -> Next {
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

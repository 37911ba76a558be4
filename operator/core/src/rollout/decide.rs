//! The order in which things are asked: what must be put right first, then the machines under way, then the next one.

use std::{collections::BTreeSet, time::Duration};

use drover_crds::{
    Host, InFlightHost, OnExceeded, RolloutPhase, RolloutStatus, Run, RunRecord, StopAction, Stopped,
    keys::ROLLOUT_FINALIZER,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    admission::{self, Hold},
    deadline, hook, people,
    population::{self, Goal, Member, Standing, entry_host},
    report,
    request::{NodeChange, Request},
    schedule,
    snapshot::Snapshot,
    stage, steps,
};
use crate::metadata::{name, uid};

/// What is next, and when to look again when nothing happens before.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The one request to make now. After it, take a new snapshot and ask again; while a Host is written, the same can be done
    /// with a snapshot that says so ([`Snapshot::unanswered`]).
    pub request: Option<Request>,
    /// Look again after this time at the latest, when there is no request.
    pub look_again: Duration,
}

/// How often a Rollout is looked at when nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// What is next for this Rollout. Pure: the same snapshot at the same time gives the same answer.
pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Decision {
    match next(snapshot, now) {
        Ok(request) => Decision { request: Some(request), look_again: Duration::ZERO },
        Err(look_again) => Decision { request: None, look_again },
    }
}

/// The next request, or how long to wait.
fn next(snapshot: &Snapshot, now: Timestamp) -> Result<Request, Duration> {
    let rollout = &snapshot.rollout;
    let held = rollout.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == ROLLOUT_FINALIZER);
    if rollout.metadata.deletion_timestamp.is_some() {
        return if held { leave(snapshot, now) } else { Err(IDLE) };
    }
    if !held {
        return Ok(Request::AddFinalizer);
    }
    if let Some(request) = enter_lost(snapshot).or_else(|| mend_nodes(snapshot)) {
        return Ok(request);
    }
    let none = RolloutStatus::default();
    let status = rollout.status.as_ref().unwrap_or(&none);
    if let Some(status) = people::handle(snapshot, status, now) {
        return Ok(write(status));
    }
    let mut look_again = IDLE;
    let held = people::held(rollout).is_some();
    let withdrawal = Withdrawal::of(snapshot, status);
    let mut finished = false;
    for entry in answered(snapshot, status) {
        if !is_alive(snapshot, entry) {
            finished = true;
            continue;
        }
        if held {
            continue;
        }
        let left_out = || {
            let host = entry_host(snapshot, entry)?;
            population::is_skipped(rollout, host).then_some("somebody leaves it out")
        };
        let next = match withdrawal.of_entry(entry).or_else(left_out) {
            Some(why) => steps::withdraw(snapshot, entry, why, now),
            None => steps::next(snapshot, entry, now),
        };
        match next {
            // Where there is always something to do, how far it is would never be told.
            steps::Next::Request(request) => return Ok(overdue(snapshot, status, now).unwrap_or(request)),
            steps::Next::Wait(time) => look_again = look_again.min(time),
        }
    }
    // What is decided about the run as a whole counts what came of them.
    if !snapshot.unanswered.is_empty() {
        return Err(look_again);
    }

    // What is finished leaves the ledger with its next write, whatever that says: one write for as many as there are.
    let swept;
    let snapshot = if finished {
        swept = sweep(snapshot, status);
        &swept
    } else {
        snapshot
    };
    if let Some(request) = hook::tidy(snapshot) {
        return Ok(request);
    }
    let after_sweep = snapshot.rollout.status.clone().unwrap_or_default();
    let outlook = match begin(snapshot, &after_sweep, now) {
        Begin::Wait(why) => report::waiting(snapshot, &why, now),
        Begin::Run(run) => {
            return Ok(write(report::begun(snapshot, RolloutStatus { run: Some(run), ..after_sweep }, now)));
        }
        Begin::Supersede(old, run) => {
            let mut history = vec![old];
            history.extend(after_sweep.history.iter().cloned());
            history.truncate(10);
            let status = RolloutStatus { run: Some(run), history, failures: vec![], stage: None, ..after_sweep };
            return Ok(write(report::begun(snapshot, status, now)));
        }
        Begin::Under(goal) => {
            let members = population::members(snapshot, &goal);
            let hold = match advance(snapshot, &after_sweep, &goal, &members, now) {
                Advance::Request(request) => return Ok(request),
                Advance::Hold(hold, time) => {
                    look_again = look_again.min(time).min(deadline::left(snapshot, now).unwrap_or(IDLE));
                    hold
                }
            };
            report::under_way(snapshot, &goal, &members, &hold, now)
        }
    };
    if outlook == *status {
        return Err(look_again);
    }
    match report::not_before(snapshot.reported, status, &outlook, now) {
        Some(left) => Err(look_again.min(left)),
        None => Ok(write(outlook)),
    }
}

/// How far it is, when that was not told for long although machines move all the time.
fn overdue(snapshot: &Snapshot, status: &RolloutStatus, now: Timestamp) -> Option<Request> {
    if !report::is_overdue(snapshot.reported, now) {
        return None;
    }
    let snapshot = &sweep(snapshot, status);
    let after_sweep = snapshot.rollout.status.clone().unwrap_or_default();
    let Begin::Under(goal) = begin(snapshot, &after_sweep, now) else { return None };
    let members = population::members(snapshot, &goal);
    let hold = match advance(snapshot, &after_sweep, &goal, &members, now) {
        Advance::Hold(hold, _) => hold,
        Advance::Request(_) => Hold::BusyWith { in_flight: after_sweep.in_flight.len() },
    };
    let outlook = report::under_way(snapshot, &goal, &members, &hold, now);
    (outlook != *status).then(|| write(outlook))
}

/// The same without what is finished in the ledger.
fn sweep(snapshot: &Snapshot, status: &RolloutStatus) -> Snapshot {
    snapshot.with_status(RolloutStatus { in_flight: alive(snapshot, status), ..status.clone() })
}

/// The entries of the ledger for which there is still something to do.
fn alive(snapshot: &Snapshot, status: &RolloutStatus) -> Vec<InFlightHost> {
    status.in_flight.iter().filter(|entry| is_alive(snapshot, entry)).cloned().collect()
}

/// The entries of the ledger whose Hosts are not being written.
fn answered<'a>(snapshot: &'a Snapshot, status: &'a RolloutStatus) -> impl Iterator<Item = &'a InFlightHost> {
    status.in_flight.iter().filter(|entry| !snapshot.unanswered.contains(&entry.host))
}

enum Advance {
    Request(Request),
    /// No further machine is begun for this reason; look again after this time.
    Hold(Hold, Duration),
}

/// What is next for a run as a whole.
fn advance(
    snapshot: &Snapshot,
    status: &RolloutStatus,
    goal: &Goal,
    members: &[Member<'_>],
    now: Timestamp,
) -> Advance {
    let hold = |hold| Advance::Hold(hold, IDLE);
    let closed = |closed: schedule::Closed| {
        // What a person wished comes first.
        if let Some(how) = people::held(&snapshot.rollout) {
            return hold(Hold::Held { how });
        }
        if let Some(how) = people::paused(&snapshot.rollout) {
            return hold(Hold::Paused { how });
        }
        let look_again = closed.look_again(now, IDLE);
        Advance::Hold(Hold::Closed(closed), look_again)
    };
    let admit = |next| match next {
        admission::Next::Admit(entries) => Advance::Request(enter(status.clone(), entries)),
        admission::Next::Hold(why) => hold(why),
    };
    let stopped = status.run.as_ref().and_then(|run| run.stopped.clone());
    match stopped {
        Some(Stopped { action: StopAction::Rollback, .. }) => {
            return admit(admission::next_back(snapshot, goal, members, now));
        }
        Some(stopped) => return hold(Hold::Stopped(stopped)),
        None => {}
    }
    if members.is_empty() {
        return hold(Hold::NoHosts);
    }
    let failed = members.iter().filter(|member| member.standing == Standing::Failed).count();
    let may = snapshot.rollout.spec.resolved_max_failed(members.len());
    if failed > may {
        return Advance::Request(stop(snapshot, status, format!("{failed} failed and {may} may"), now));
    }
    match stage::next(snapshot, goal, members, now) {
        stage::Next::Hosts(batch) => {
            if let Some(shut) = schedule::closed(snapshot, goal, members, Some(batch), now) {
                return closed(shut);
            }
            if let Some(why) = deadline::exceeded(snapshot, status, goal, members, now) {
                return Advance::Request(stop(snapshot, status, why, now));
            }
            match admission::next(snapshot, goal, members, batch, now) {
                admission::Next::Hold(Hold::MaxUnavailable { unavailable, may })
                    if status.in_flight.is_empty() && unavailable.len() < may + failed =>
                {
                    let why = format!("{failed} failed and count as out of service, of which there may be {may}");
                    Advance::Request(stop(snapshot, status, why, now))
                }
                next => admit(next),
            }
        }
        stage::Next::Closed(shut) => closed(shut),
        stage::Next::Record(stage) => Advance::Request(write(RolloutStatus { stage: Some(stage), ..status.clone() })),
        stage::Next::Request(request) => Advance::Request(request),
        stage::Next::Wait(waiting, time) => Advance::Hold(Hold::Stage(waiting), time),
        stage::Next::Fail(why) => Advance::Request(stop(snapshot, status, why, now)),
        stage::Next::Done if failed > 0 => hold(Hold::OnlyFailedLeft { failed }),
        stage::Next::Done => hold(Hold::Done),
    }
}

/// Records that the run is stopped, and what the spec says about that.
fn stop(snapshot: &Snapshot, status: &RolloutStatus, reason: String, now: Timestamp) -> Request {
    let mut status = status.clone();
    let action = match snapshot.rollout.spec.on_exceeded() {
        OnExceeded::Pause => StopAction::Pause,
        OnExceeded::Abort => StopAction::Abort,
        OnExceeded::Rollback => StopAction::Rollback,
    };
    if let Some(run) = &mut status.run {
        people::stop(run, action, reason, now);
    }
    write(status)
}

/// Why machines that are under way, and were not changed yet, are given back, if so.
enum Withdrawal<'a> {
    None,
    /// The run is stopped. A rollback's own machines go back to another revision than the run's, and are not meant.
    Stopped {
        revision: &'a str,
        reason: &'a str,
    },
    All(String),
}

impl<'a> Withdrawal<'a> {
    fn of(snapshot: &Snapshot, status: &'a RolloutStatus) -> Self {
        let Some(run) = &status.run else { return Self::None };
        if let Some(stopped) = run.stopped.as_ref().filter(|stopped| stopped.action != StopAction::Pause) {
            return Self::Stopped { revision: &run.revision, reason: &stopped.reason };
        }
        match target_revision(snapshot) {
            Ok(newest) if newest != run.revision => Self::All(format!("{newest} supersedes {}", run.revision)),
            Err(why @ report::Waiting::NoNodeConfig(_)) => Self::All(why.to_string()),
            Ok(_) | Err(_) => Self::None,
        }
    }

    fn of_entry(&self, entry: &InFlightHost) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Stopped { revision, reason } => (entry.revision == *revision).then_some(*reason),
            Self::All(why) => Some(why),
        }
    }
}

fn write(status: RolloutStatus) -> Request {
    Request::WriteRollout(Box::new(status))
}

/// Enters machines in the ledger, which stays in the order of names.
fn enter(mut status: RolloutStatus, entries: Vec<InFlightHost>) -> Request {
    status.in_flight.extend(entries);
    status.in_flight.sort_by(|a, b| a.host.cmp(&b.host));
    write(status)
}

/// Makes the ledger and the claims agree: a claim of ours that the ledger lost is entered again; an entry whose machine
/// is gone, was given back, or is held by another Rollout is removed.
fn mend_ledger(snapshot: &Snapshot) -> Option<Request> {
    enter_lost(snapshot).or_else(|| {
        let status = snapshot.rollout.status.as_ref()?;
        let in_flight = alive(snapshot, status);
        (in_flight.len() < status.in_flight.len()).then(|| write(RolloutStatus { in_flight, ..status.clone() }))
    })
}

/// Enters each claim of ours again that the ledger lost.
fn enter_lost(snapshot: &Snapshot) -> Option<Request> {
    let rollout = &snapshot.rollout;
    let ledger = rollout.status.as_ref().map_or(&[][..], |status| &status.in_flight);
    let known: BTreeSet<&str> = ledger.iter().map(|entry| entry.uid.as_str()).collect();
    let lost = snapshot.hosts.held().filter_map(|host| {
        let claim = host.status.as_ref()?.claim.as_ref()?;
        let ours = claim.rollout_uid == uid(&rollout.metadata);
        (ours && !known.contains(uid(&host.metadata))).then(|| InFlightHost {
            host: name(&host.metadata).to_owned(),
            uid: uid(&host.metadata).to_owned(),
            batch: claim.batch,
            token: claim.token.clone(),
            revision: claim.target.revision.clone(),
            since: claim.since.clone(),
            step: claim.step,
            waiting_for: claim.waiting_for.clone(),
        })
    });
    let lost: Vec<InFlightHost> = lost.collect();
    (!lost.is_empty()).then(|| enter(rollout.status.clone().unwrap_or_default(), lost))
}

/// Gives back a Node that carries a mark of ours without a hold: an operator that lost its leadership can have set it
/// with its last write.
fn mend_nodes(snapshot: &Snapshot) -> Option<Request> {
    let ledger = snapshot.rollout.status.as_ref().map_or(&[][..], |status| &status.in_flight);
    let held: BTreeSet<&str> = ledger.iter().map(|entry| entry.token.as_str()).collect();
    let prefix = admission::prefix(&snapshot.rollout);
    let stray = |mark: &Option<String>| {
        mark.as_ref().is_some_and(|token| token.starts_with(&prefix) && !held.contains(token.as_str()))
    };
    snapshot.nodes.marked().find_map(|(node, view)| {
        let change = match (stray(&view.cordoned_by), stray(&view.excluded_by)) {
            (true, _) => NodeChange::Uncordon(view.cordoned_by.clone()?),
            (false, true) => NodeChange::IncludeInLoadBalancers(view.excluded_by.clone()?),
            (false, false) => return None,
        };
        Some(Request::PatchNode { node: node.clone(), resource_version: view.resource_version.clone(), change })
    })
}

/// Whether there is still something to do for this entry.
fn is_alive(snapshot: &Snapshot, entry: &InFlightHost) -> bool {
    let Some(host) = entry_host(snapshot, entry) else {
        return false;
    };
    match host.status.as_ref().and_then(|status| status.claim.as_ref()) {
        Some(claim) => claim.token == entry.token,
        // Not claimed yet, unless the record says that it was given back already.
        None => population::record(&snapshot.rollout, host)
            .is_none_or(|record| !token_matches(snapshot, host, record, entry)),
    }
}

fn token_matches(snapshot: &Snapshot, host: &Host, record: &RunRecord, entry: &InFlightHost) -> bool {
    admission::token(&snapshot.rollout, host, record.run, record.attempt) == entry.token
}

/// Gives back what is held, then lets the Rollout go.
fn leave(snapshot: &Snapshot, now: Timestamp) -> Result<Request, Duration> {
    if let Some(request) = mend_ledger(snapshot).or_else(|| mend_nodes(snapshot)) {
        return Ok(request);
    }
    let status = snapshot.rollout.status.clone().unwrap_or_default();
    if status.in_flight.is_empty() {
        return Ok(Request::RemoveFinalizer);
    }
    let Some(entry) = answered(snapshot, &status).next() else { return Err(IDLE) };
    match steps::give_back(snapshot, entry, "the Rollout was deleted while the machine was under way", now) {
        steps::Next::Request(request) => Ok(request),
        steps::Next::Wait(time) => Err(time),
    }
}

enum Begin {
    /// There is nothing to run, for this reason.
    Wait(report::Waiting),
    /// The first run begins.
    Run(Run),
    /// The run before ends here, and another one begins.
    Supersede(Run, Run),
    /// A run goes on.
    Under(Goal),
}

/// Which run it is, or should be.
fn begin(snapshot: &Snapshot, status: &RolloutStatus, now: Timestamp) -> Begin {
    let rollout = &snapshot.rollout;
    let revision = match target_revision(snapshot) {
        Ok(revision) => revision,
        Err(why) => return Begin::Wait(why),
    };
    let generation = rollout.metadata.generation.unwrap_or_default();
    let target = drover_crds::Assignment { node_config: rollout.spec.node_config_ref.name.clone(), revision };
    let begun = |number| Run {
        number,
        revision: target.revision.clone(),
        generation,
        started_at: Time(now),
        stopped: None,
        finished_at: None,
        updated: None,
    };
    let Some(run) = &status.run else {
        return Begin::Run(begun(1));
    };
    let ended = run.stopped.is_some() || status.phase == Some(RolloutPhase::Failed);
    let retried = ended && (run.generation != generation || people::retries(rollout, status, run));
    if run.revision == target.revision && !retried {
        return Begin::Under(Goal { target, run: run.number });
    }
    if !status.in_flight.is_empty() {
        return Begin::Wait(report::Waiting::Superseded { old: run.revision.clone(), new: target.revision });
    }
    let mut old = run.clone();
    old.finished_at.get_or_insert(Time(now));
    if old.updated.is_none() {
        old.updated = status.counts.as_ref().map(|counts| counts.updated);
    }
    Begin::Supersede(old, begun(run.number + 1))
}

/// What the run under way is for, or the next one will be.
pub(super) fn goal(snapshot: &Snapshot) -> Option<Goal> {
    let revision = target_revision(snapshot).ok()?;
    let run = snapshot.rollout.status.as_ref().and_then(|status| status.run.as_ref());
    let run = run.map_or(1, |run| if run.revision == revision { run.number } else { run.number + 1 });
    let node_config = snapshot.rollout.spec.node_config_ref.name.clone();
    Some(Goal { target: drover_crds::Assignment { node_config, revision }, run })
}

/// The revision that machines shall get.
pub(super) fn target_revision(snapshot: &Snapshot) -> Result<String, report::Waiting> {
    let reference = &snapshot.rollout.spec.node_config_ref;
    let Some(config) = &snapshot.node_config else {
        return Err(report::Waiting::NoNodeConfig(reference.name.clone()));
    };
    if let Some(pinned) = &reference.revision {
        return if snapshot.revisions.contains(pinned) {
            Ok(pinned.clone())
        } else {
            Err(report::Waiting::NoSuchRevision { node_config: reference.name.clone(), revision: pinned.clone() })
        };
    }
    let status = config.status.as_ref();
    status.and_then(|status| status.revision.clone()).ok_or_else(|| report::Waiting::NoRevision {
        node_config: reference.name.clone(),
        message: status.and_then(|status| status.message.clone()),
    })
}

//! Whether a further machine may be begun, and which one.

use drover_crds::{ClaimStep, Host, InFlightHost, Rollout, RunOutcome, Stopped};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    people,
    population::{self, Goal, Member, Standing},
    snapshot::Snapshot,
    stage::Waiting,
};
use crate::metadata::{name, uid};

/// The most machines that are under way at once, whatever `maxParallel` says: the ledger is part of the status, which
/// must stay small.
const MOST_IN_FLIGHT: usize = 200;

/// What admission says.
pub(super) enum Next {
    /// This machine is begun: enter it in the ledger.
    Admit(Box<InFlightHost>),
    /// No further machine is begun, for this reason.
    Hold(Hold),
}

/// Why no further machine is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// All machines are done.
    Done,
    /// There are no machines at all.
    NoHosts,
    /// The run was stopped before all machines were done.
    Stopped(Stopped),
    /// All that is left failed, and as many may.
    OnlyFailedLeft { failed: usize },
    /// Somebody paused the Rollout.
    Paused { how: String },
    /// Somebody holds the Rollout: nothing moves.
    Held { how: String },
    /// Something comes before the next machines.
    Stage(Waiting),
    /// The machines under way, or the batch, come first.
    BusyWith { in_flight: usize },
    /// One more machine out of service would be too many.
    MaxUnavailable { unavailable: Vec<String>, may: usize },
    /// The next machines can not be begun now.
    NoneFit { reasons: Vec<String> },
}

/// Whether a further machine of this batch is begun, and which. The first reason against it is the answer.
pub(super) fn next(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], batch: usize, now: Timestamp) -> Next {
    let target = &goal.target.revision;
    match candidate(snapshot, goal, members, batch) {
        Ok(member) => Next::Admit(Box::new(entry(snapshot, goal, member, (batch, target), now))),
        Err(hold) => Next::Hold(hold),
    }
}

/// Whether a further machine gets back what it had before, and which: the one that was changed last.
pub(super) fn next_back(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], now: Timestamp) -> Next {
    let mut waiting: Vec<(&Member<'_>, &str)> =
        members.iter().filter_map(|member| Some((member, member.goes_back_to(goal)?))).collect();
    waiting.sort_by_key(|(member, _)| std::cmp::Reverse(member.record.map(|record| record.finished_at.0)));
    let busy = members.iter().filter(|member| member.standing == Standing::InFlight).count();
    if waiting.is_empty() {
        return Next::Hold(if busy == 0 { Hold::Done } else { Hold::BusyWith { in_flight: busy } });
    }
    if let Err(hold) = may_begin(snapshot, goal, members) {
        return Next::Hold(hold);
    }
    let may = snapshot.rollout.spec.resolved_max_unavailable(members.len());
    let mut reasons = vec![];
    for (member, previous) in waiting {
        match claimed_by_another(member).or_else(|| out_of_reach(snapshot, member)) {
            Some(reason) => reasons.push(reason),
            None => {
                let batch = member.touched.unwrap_or_default();
                return match fits(members, member, may) {
                    Ok(()) => Next::Admit(Box::new(entry(snapshot, goal, member, (batch, previous), now))),
                    Err(hold) => Next::Hold(hold),
                };
            }
        }
    }
    Next::Hold(Hold::NoneFit { reasons })
}

fn entry(
    snapshot: &Snapshot,
    goal: &Goal,
    member: &Member<'_>,
    (batch, revision): (usize, &str),
    now: Timestamp,
) -> InFlightHost {
    let attempt = member.record.filter(|record| record.run == goal.run).map_or(1, |record| record.attempt + 1);
    InFlightHost {
        host: member.name().to_owned(),
        uid: uid(&member.host.metadata).to_owned(),
        batch: i32::try_from(batch).unwrap_or(i32::MAX),
        token: token(&snapshot.rollout, member.host, goal.run, attempt),
        revision: revision.to_owned(),
        since: Time(now),
        step: ClaimStep::Claim,
        waiting_for: None,
    }
}

/// Whether any further machine may be begun at all.
fn may_begin(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>]) -> Result<(), Hold> {
    let in_flight = members.iter().filter(|member| member.standing == Standing::InFlight).count();
    if let Some(how) = people::held(&snapshot.rollout) {
        return Err(Hold::Held { how });
    }
    if let Some(how) = people::paused(&snapshot.rollout) {
        return Err(Hold::Paused { how });
    }
    // A failure may have a cause that the next machines share: then one at a time, until one succeeds.
    let last = |failed| last(members, goal, failed);
    let fresh_failure = last(true).is_some() && last(true) > last(false);
    let parallel = if fresh_failure { 1 } else { snapshot.rollout.spec.resolved_max_parallel(members.len()) };
    if in_flight >= parallel.min(MOST_IN_FLIGHT) { Err(Hold::BusyWith { in_flight }) } else { Ok(()) }
}

fn candidate<'a, 'b>(
    snapshot: &Snapshot,
    goal: &Goal,
    members: &'b [Member<'a>],
    batch: usize,
) -> Result<&'b Member<'a>, Hold> {
    may_begin(snapshot, goal, members)?;
    let batches = population::batches(&snapshot.rollout, members, batch);
    let mut reasons = vec![];
    let indices = batches.get(batch).map_or(&[][..], Vec::as_slice);
    for member in indices.iter().map(|index| &members[*index]).filter(|member| member.standing.waits()) {
        match obstacle(snapshot, goal, member) {
            Some(reason) => reasons.push(reason),
            None => {
                let may = snapshot.rollout.spec.resolved_max_unavailable(members.len());
                return fits(members, member, may).map(|()| member);
            }
        }
    }
    if reasons.is_empty() {
        let in_flight = members.iter().filter(|member| member.standing == Standing::InFlight).count();
        Err(Hold::BusyWith { in_flight })
    } else {
        Err(Hold::NoneFit { reasons })
    }
}

/// Whether the machine may be out of service beside those that are already.
fn fits(members: &[Member<'_>], candidate: &Member<'_>, may: usize) -> Result<(), Hold> {
    let unavailable: Vec<String> =
        members.iter().filter(|member| member.unavailable).map(|member| member.name().to_owned()).collect();
    let more = usize::from(!candidate.unavailable);
    if unavailable.len() + more <= may { Ok(()) } else { Err(Hold::MaxUnavailable { unavailable, may }) }
}

/// Why this machine can not be begun now, if so.
fn obstacle(snapshot: &Snapshot, goal: &Goal, member: &Member<'_>) -> Option<String> {
    let host = member.name();
    if member.standing == Standing::Settling {
        return Some(format!("{host} got {} when it joined; its agent has not reported yet", goal.target.revision));
    }
    // A machine that the revision before broke may be NotReady for that very reason.
    let broken = member.standing == Standing::Pending { broken: true };
    let is_down = population::node_of(snapshot, member.host).is_some_and(|node| !node.ready) && !broken;
    let down = || is_down.then(|| format!("{host} is NotReady"));
    claimed_by_another(member).or_else(|| out_of_reach(snapshot, member)).or_else(down)
}

fn claimed_by_another(member: &Member<'_>) -> Option<String> {
    let claim = member.host.status.as_ref()?.claim.as_ref()?;
    Some(format!("{} is held by Rollout {}", member.name(), claim.rollout))
}

fn out_of_reach(snapshot: &Snapshot, member: &Member<'_>) -> Option<String> {
    let gone = population::node_of(snapshot, member.host).is_none();
    gone.then(|| format!("{} has no Node any more", member.name()))
}

/// When a machine last failed, or last did not, in this run.
fn last(members: &[Member<'_>], goal: &Goal, failed: bool) -> Option<Timestamp> {
    let records = members.iter().filter_map(|member| member.record).filter(|record| record.run == goal.run);
    let wanted = records.filter(|record| match record.outcome {
        RunOutcome::Failed => failed,
        RunOutcome::Succeeded | RunOutcome::RolledBack => !failed,
        RunOutcome::Withdrawn | RunOutcome::Skipped => false,
    });
    wanted.map(|record| record.finished_at.0).max()
}

/// The token of a hold: the same for the same Rollout, run, machine and attempt, and for no other.
pub(super) fn token(rollout: &Rollout, host: &Host, run: i64, attempt: i32) -> String {
    format!("{}{}.{run}.{attempt}.{}", prefix(rollout), short(uid(&host.metadata)), name(&host.metadata))
}

/// Whether a hold of this Rollout has this token.
pub(super) fn is_ours(rollout: &Rollout, token: &str) -> bool {
    token.starts_with(&prefix(rollout))
}

fn prefix(rollout: &Rollout) -> String {
    format!("{}.{}.", name(&rollout.metadata), short(uid(&rollout.metadata)))
}

/// The first part of a UID: with the name, enough to tell objects apart.
fn short(uid: &str) -> &str {
    uid.split('-').next().unwrap_or_default()
}

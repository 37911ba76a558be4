//! Whether a further machine may be begun, and which one.

use drover_crds::{ClaimStep, Host, InFlightHost, Rollout, RunOutcome};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    population::{self, Goal, Member, Standing},
    snapshot::Snapshot,
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
    /// More machines failed than may.
    TooManyFailed { failed: usize, may: usize },
    /// All that is left failed, and as many may.
    OnlyFailedLeft { failed: usize },
    /// Somebody paused the Rollout.
    Paused,
    /// The machines under way, or the batch, come first.
    BusyWith { in_flight: usize },
    /// One more machine out of service would be too many.
    MaxUnavailable { unavailable: Vec<String>, may: usize },
    /// The next machines can not be begun now.
    NoneFit { reasons: Vec<String> },
}

/// Whether a further machine is begun, and which. The first reason against it is the answer.
pub(super) fn next(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], now: Timestamp) -> Next {
    match candidate(snapshot, goal, members) {
        Ok((member, batch)) => Next::Admit(Box::new(InFlightHost {
            host: member.name().to_owned(),
            uid: uid(&member.host.metadata).to_owned(),
            batch: i32::try_from(batch).unwrap_or(i32::MAX),
            token: token(&snapshot.rollout, member.host, goal.run),
            revision: goal.target.revision.clone(),
            since: Time(now),
            step: ClaimStep::Claim,
            waiting_for: None,
        })),
        Err(hold) => Next::Hold(hold),
    }
}

fn candidate<'a, 'b>(
    snapshot: &Snapshot,
    goal: &Goal,
    members: &'b [Member<'a>],
) -> Result<(&'b Member<'a>, usize), Hold> {
    let spec = &snapshot.rollout.spec;
    let count = |wanted: &dyn Fn(&Standing) -> bool| members.iter().filter(|member| wanted(&member.standing)).count();
    let in_flight = count(&|standing| *standing == Standing::InFlight);
    let failed = count(&|standing| *standing == Standing::Failed);
    let waiting = count(&Standing::waits);

    if members.is_empty() {
        return Err(Hold::NoHosts);
    }
    if failed > spec.resolved_max_failed() {
        return Err(Hold::TooManyFailed { failed, may: spec.resolved_max_failed() });
    }
    if waiting == 0 {
        return Err(match (in_flight, failed) {
            (0, 0) => Hold::Done,
            (0, failed) => Hold::OnlyFailedLeft { failed },
            (in_flight, _) => Hold::BusyWith { in_flight },
        });
    }
    if spec.paused.unwrap_or(false) {
        return Err(Hold::Paused);
    }
    // A failure may have a cause that the next machines share: then one at a time, until one succeeds.
    let fresh_failure = failed > 0
        && last(members, &snapshot.rollout, goal, RunOutcome::Failed)
            > last(members, &snapshot.rollout, goal, RunOutcome::Succeeded);
    let parallel = if fresh_failure { 1 } else { spec.resolved_max_parallel(members.len()) };
    if in_flight >= parallel.min(MOST_IN_FLIGHT) {
        return Err(Hold::BusyWith { in_flight });
    }

    let batches = population::batches(&snapshot.rollout, members);
    let open = |index: &usize| members[*index].standing.is_open();
    let Some((batch, indices)) = batches.iter().enumerate().find(|(_, indices)| indices.iter().any(open)) else {
        return Err(Hold::BusyWith { in_flight });
    };
    let mut reasons = vec![];
    for member in indices.iter().map(|index| &members[*index]).filter(|member| member.standing.waits()) {
        match obstacle(snapshot, goal, member) {
            Some(reason) => reasons.push(reason),
            None => {
                return fits(members, member, spec.resolved_max_unavailable(members.len())).map(|()| (member, batch));
            }
        }
    }
    if reasons.is_empty() { Err(Hold::BusyWith { in_flight }) } else { Err(Hold::NoneFit { reasons }) }
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
    let claim = member.host.status.as_ref().and_then(|status| status.claim.as_ref());
    if let Some(claim) = claim {
        return Some(format!("{host} is held by Rollout {}", claim.rollout));
    }
    match population::node_of(snapshot, member.host) {
        None => Some(format!("{host} has no Node any more")),
        Some(node) if !node.ready => Some(format!("{host} is NotReady")),
        Some(_) => None,
    }
}

/// When a machine last ended so in this run.
fn last(members: &[Member<'_>], rollout: &Rollout, goal: &Goal, outcome: RunOutcome) -> Option<Timestamp> {
    let records = members.iter().filter_map(|member| population::record(rollout, member.host));
    records
        .filter(|record| record.run == goal.run && record.outcome == outcome)
        .map(|record| record.finished_at.0)
        .max()
}

/// The token of a hold: the same for the same Rollout, run and machine, and for no other.
pub(super) fn token(rollout: &Rollout, host: &Host, run: i64) -> String {
    format!("{}{}.{run}.{}", prefix(rollout), short(uid(&host.metadata)), name(&host.metadata))
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

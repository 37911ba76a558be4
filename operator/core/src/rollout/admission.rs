//! Whether a further machine may be begun, and which one.

use drover_crds::{ClaimStep, Host, InFlightHost, Rollout, RunOutcome, Stopped};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    people,
    population::{self, Goal, Member, Standing},
    report,
    snapshot::Snapshot,
    stage::Waiting,
};
use crate::metadata::{name, uid};

/// What admission says.
pub(super) enum Next {
    /// These machines are begun: enter them in the ledger, all in one write.
    Admit(Vec<InFlightHost>),
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

/// Whether further machines of this batch are begun, and which. The first reason against the first of them is the answer.
pub(super) fn next(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], batch: usize, now: Timestamp) -> Next {
    let mut room = match Room::of(snapshot, goal, members) {
        Ok(room) => room,
        Err(hold) => return Next::Hold(hold),
    };
    let batches = population::batches(&snapshot.rollout, members, batch);
    let indices = batches.get(batch).map_or(&[][..], Vec::as_slice);
    let waiting = indices.iter().map(|index| &members[*index]).filter(|member| member.standing.waits());
    for member in waiting {
        if let Some(reason) = obstacle(snapshot, goal, member) {
            room.reasons.push(reason);
        } else if !room.take(member, || entry(snapshot, goal, member, (batch, &goal.target.revision), now)) {
            break;
        }
    }
    room.result()
}

/// Whether further machines get back what they had before, and which: those that were changed last.
pub(super) fn next_back(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>], now: Timestamp) -> Next {
    let mut waiting: Vec<(&Member<'_>, &str)> =
        members.iter().filter_map(|member| Some((member, member.goes_back_to(goal)?))).collect();
    waiting.sort_by_key(|(member, _)| std::cmp::Reverse(member.record.map(|record| record.finished_at.0)));
    let busy = members.iter().filter(|member| member.standing == Standing::InFlight).count();
    if waiting.is_empty() {
        return Next::Hold(if busy == 0 { Hold::Done } else { Hold::BusyWith { in_flight: busy } });
    }
    let mut room = match Room::of(snapshot, goal, members) {
        Ok(room) => room,
        Err(hold) => return Next::Hold(hold),
    };
    for (member, previous) in waiting {
        let batch = member.touched.unwrap_or_default();
        if let Some(reason) = claimed_by_another(member).or_else(|| out_of_reach(snapshot, member)) {
            room.reasons.push(reason);
        } else if !room.take(member, || entry(snapshot, goal, member, (batch, previous), now)) {
            break;
        }
    }
    room.result()
}

/// How many machines may still be begun, and those that are.
struct Room<'a, 'b> {
    members: &'b [Member<'a>],
    in_flight: usize,
    /// How many more may be under way.
    parallel: usize,
    /// How many may be out of service, and how many are.
    may: usize,
    unavailable: usize,
    /// How many bytes the ledger may grow by.
    bytes: usize,
    admitted: Vec<InFlightHost>,
    /// Why machines that come first are not begun.
    reasons: Vec<String>,
    /// What stands against all further ones.
    full: Option<Hold>,
}

/// How many bytes of JSON the status of a Rollout has at most, with some room for what may still be said while machines
/// are under way. The ledger is by far the most of it.
const STATUS_BYTES: usize = 126 << 10;

impl<'a, 'b> Room<'a, 'b> {
    /// What may be begun beside what is under way, or why nothing.
    fn of(snapshot: &Snapshot, goal: &Goal, members: &'b [Member<'a>]) -> Result<Self, Hold> {
        let rollout = &snapshot.rollout;
        if let Some(how) = people::held(rollout) {
            return Err(Hold::Held { how });
        }
        if let Some(how) = people::paused(rollout) {
            return Err(Hold::Paused { how });
        }
        // A failure may have a cause that the next machines share: then one at a time, until one succeeds.
        let last = |failed| last(members, goal, failed);
        let fresh_failure = last(true).is_some() && last(true) > last(false);
        let parallel = if fresh_failure { 1 } else { rollout.spec.resolved_max_parallel(members.len()) };
        let in_flight = members.iter().filter(|member| member.standing == Standing::InFlight).count();
        let bytes = STATUS_BYTES.saturating_sub(rollout.status.as_ref().map_or(0, report::most_bytes));
        if in_flight >= parallel || bytes == 0 {
            return Err(Hold::BusyWith { in_flight });
        }
        Ok(Self {
            members,
            in_flight,
            parallel: parallel - in_flight,
            may: rollout.spec.resolved_max_unavailable(members.len()),
            unavailable: members.iter().filter(|member| member.unavailable).count(),
            bytes,
            admitted: vec![],
            reasons: vec![],
            full: None,
        })
    }

    /// Takes this machine in if there is room for it. False: there is none for any other one either.
    fn take(&mut self, member: &Member<'_>, entry: impl FnOnce() -> InFlightHost) -> bool {
        let more = usize::from(!member.unavailable);
        if self.admitted.len() >= self.parallel {
            self.full = Some(Hold::BusyWith { in_flight: self.in_flight + self.admitted.len() });
            return false;
        }
        if self.unavailable + more > self.may {
            let unavailable = self.members.iter().filter(|member| member.unavailable);
            let unavailable = unavailable.map(|member| member.name().to_owned()).collect();
            self.full = Some(Hold::MaxUnavailable { unavailable, may: self.may });
            return false;
        }
        let entry = entry();
        let bytes = report::entry_bytes(&entry);
        if bytes > self.bytes {
            self.full = Some(Hold::BusyWith { in_flight: self.in_flight + self.admitted.len() });
            return false;
        }
        self.unavailable += more;
        self.bytes -= bytes;
        self.admitted.push(entry);
        true
    }

    fn result(self) -> Next {
        match (self.admitted.is_empty(), self.full) {
            (false, _) => Next::Admit(self.admitted),
            (true, Some(hold)) => Next::Hold(hold),
            (true, None) if self.reasons.is_empty() => Next::Hold(Hold::BusyWith { in_flight: self.in_flight }),
            (true, None) => Next::Hold(Hold::NoneFit { reasons: self.reasons }),
        }
    }
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

/// The token of a hold: the same for the same Rollout, run, machine and attempt, and for no other. There is one for each
/// machine in the ledger, so it is short.
pub(super) fn token(rollout: &Rollout, host: &Host, run: i64, attempt: i32) -> String {
    let id: String = uid(&host.metadata).chars().filter(|c| *c != '-').take(16).collect();
    format!("{}{run}.{attempt}.{id}", prefix(rollout))
}

/// What the tokens of all holds of this Rollout begin with, and of no other.
pub(super) fn prefix(rollout: &Rollout) -> String {
    let short = uid(&rollout.metadata).split('-').next().unwrap_or_default();
    format!("{}.{short}.", name(&rollout.metadata))
}

//! The status that people read, derived from what is so.

use std::{fmt, time::Duration};

use drover_crds::{
    BatchStatus, Counts, Failure, InFlightHost, RolloutDisplay, RolloutPhase, RolloutStatus, RunOutcome, StopAction,
    Stopped,
    condition::{self, Summary},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    admission::Hold,
    deadline, estimate,
    population::{self, Goal, Member, Standing, step_of},
    preview,
    snapshot::Snapshot,
    stage,
};

/// The most batches and failures that the status lists.
const MOST_BATCHES: usize = 50;
const MOST_FAILURES: usize = 20;
/// Of how many machines under way it says what they wait for.
const MOST_WAITING: usize = 10;
/// How many characters of such a sentence, or of a failure's, are told.
const MOST_WORDS: usize = 300;
/// How often it is told how far the Rollout is, when nothing else is new, in seconds.
const REPORT_SECONDS: i64 = 2;
/// After how many seconds it is told although there is something to do first.
const OVERDUE_SECONDS: i64 = 10;

/// How many bytes of JSON a status may come to while the machines in its ledger are under way, and no other: what is listed
/// for people may still grow.
pub(super) fn most_bytes(status: &RolloutStatus) -> usize {
    let listed = RolloutStatus { in_flight: vec![], batches: vec![], failures: vec![], ..status.clone() };
    let rest = serde_json::to_vec(&listed).map_or(usize::MAX / 2, |bytes| bytes.len());
    let batches = status.batches.len().clamp(2, MOST_BATCHES) * 130;
    let words = MOST_FAILURES * (253 + MOST_WORDS + 60) + MOST_WAITING * MOST_WORDS;
    rest + batches + words + status.in_flight.iter().map(entry_bytes).sum::<usize>()
}

/// How many bytes of JSON an entry of the ledger comes to at most, without what it waits for.
pub(super) fn entry_bytes(entry: &InFlightHost) -> usize {
    // The names of fields, quotes, a number of the batch, a time, and the longest name of a step.
    let fixed = 120;
    fixed + entry.host.len() + entry.uid.len() + entry.token.len() + entry.revision.len()
}

/// Whether it was not told for long how far the Rollout is. Unknown is no: nothing was told yet.
pub(super) fn is_overdue(reported: Option<Timestamp>, now: Timestamp) -> bool {
    reported.is_some_and(|reported| now.duration_since(reported) >= SignedDuration::from_secs(OVERDUE_SECONDS))
}

/// How long a status that says no more than how far the Rollout is waits until it is written, if so.
pub(super) fn not_before(
    reported: Option<Timestamp>,
    before: &RolloutStatus,
    after: &RolloutStatus,
    now: Timestamp,
) -> Option<Duration> {
    let next = reported?.checked_add(SignedDuration::from_secs(REPORT_SECONDS)).ok()?;
    let left = Duration::try_from(next.duration_since(now)).ok().filter(|left| !left.is_zero())?;
    (timeless(before) == timeless(after)).then_some(left)
}

/// Whether machines are under way, and a status without what changes with each step of each of them.
fn timeless(status: &RolloutStatus) -> (bool, RolloutStatus) {
    let mut status = status.clone();
    let busy = !status.in_flight.is_empty();
    status.message = None;
    status.counts = None;
    status.batches = vec![];
    status.in_flight = vec![];
    status.display = status.display.map(|display| RolloutDisplay { batch: None, ..display });
    status.run.iter_mut().for_each(|run| run.updated = None);
    status.conditions.iter_mut().for_each(|condition| condition.message = String::new());
    (busy, status)
}

/// What a Rollout waits for before there is a run, or between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    NoNodeConfig(String),
    NoRevision { node_config: String, message: Option<String> },
    NoSuchRevision { node_config: String, revision: String },
    Superseded { old: String, new: String },
}

impl Waiting {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoNodeConfig(_) => "NodeConfigNotFound",
            Self::NoRevision { .. } => "NoRevision",
            Self::NoSuchRevision { .. } => "RevisionNotFound",
            Self::Superseded { .. } => "Superseded",
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNodeConfig(name) => {
                write!(f, "waits for NodeConfig {name}: there is none of this name in this namespace")
            }
            Self::NoRevision { node_config, message: Some(message) } => {
                write!(f, "waits for a revision of NodeConfig {node_config} that can be rolled out: {message}")
            }
            Self::NoRevision { node_config, message: None } => {
                write!(f, "waits for the first revision of NodeConfig {node_config}")
            }
            Self::NoSuchRevision { node_config, revision } => write!(
                f,
                "NodeConfig {node_config} has no revision {revision}; see kubectl get controllerrevisions -l {}={node_config}",
                drover_crds::keys::NODE_CONFIG_LABEL
            ),
            Self::Superseded { old, new } => {
                write!(f, "finishes the machines that are under way to {old}, then begins {new}")
            }
        }
    }
}

/// The status of a Rollout that waits for a run.
pub(super) fn waiting(snapshot: &Snapshot, why: &Waiting, now: Timestamp) -> RolloutStatus {
    let mut status = snapshot.rollout.status.clone().unwrap_or_default();
    let superseded = matches!(why, Waiting::Superseded { .. });
    let phase = if superseded { RolloutPhase::Progressing } else { RolloutPhase::Pending };
    refresh_ledger(snapshot, &mut status);
    status.display = Some(RolloutDisplay {
        batch: status.display.and_then(|display| display.batch),
        blocked: (!superseded).then(|| why.reason().to_owned()),
        eta: None,
    });
    let summary = if matches!(why, Waiting::NoSuchRevision { .. }) { Summary::Stalled } else { Summary::Working };
    conclude(snapshot, &mut status, phase, summary, why.reason(), why.to_string(), now);
    status
}

/// The status of a run that begins: what was said of the run before, such as that it is complete, holds no more.
pub(super) fn begun(snapshot: &Snapshot, mut status: RolloutStatus, now: Timestamp) -> RolloutStatus {
    let message = status.run.as_ref().map_or_else(String::new, |run| format!("begins {}", run.revision));
    status.counts = None;
    status.batches = vec![];
    status.display = None;
    status.clock = None;
    status.estimate = None;
    status.preview = status.run.as_ref().and_then(|run| {
        let target = drover_crds::Assignment {
            node_config: snapshot.rollout.spec.node_config_ref.name.clone(),
            revision: run.revision.clone(),
        };
        preview::kept(&status, snapshot, &Goal { target, run: run.number }, false)
    });
    conclude(snapshot, &mut status, RolloutPhase::Progressing, Summary::Working, "RollingOut", message, now);
    status
}

/// The status of a run that is under way, stopped, or done.
pub(super) fn under_way(
    snapshot: &Snapshot,
    goal: &Goal,
    members: &[Member<'_>],
    hold: &Hold,
    now: Timestamp,
) -> RolloutStatus {
    let rollout = &snapshot.rollout;
    let mut status = rollout.status.clone().unwrap_or_default();
    refresh_ledger(snapshot, &mut status);

    let counts = counts(members);
    let batches = population::batches(rollout, members, stage::batch_at_hand(&status));
    let in_batch = |batch: &[usize], wanted: &Standing| {
        number(batch.iter().filter(|index| members[**index].standing == *wanted).count())
    };
    status.batches = batches
        .iter()
        .take(MOST_BATCHES)
        .enumerate()
        .map(|(index, batch)| BatchStatus {
            name: population::batch_name(rollout, index, batch.first().map(|index| members[*index].host)),
            total: number(batch.len()),
            updated: in_batch(batch, &Standing::Updated),
            failed: in_batch(batch, &Standing::Failed),
        })
        .collect();
    let open = |index: &usize| members[*index].standing.is_open();
    let current = batches.iter().position(|batch| batch.iter().any(open)).map_or(batches.len(), |index| index + 1);
    status.failures = failures(snapshot, goal, members);

    let stuck = status
        .in_flight
        .iter()
        .find_map(|entry| entry.waiting_for.as_ref().map(|what| format!("{}: {what}", entry.host)));
    let fresh = estimate::estimate(snapshot, goal, members, hold, now);
    let moved = status.counts.as_ref() != Some(&counts);
    status.estimate = estimate::kept(status.estimate.as_ref(), fresh, moved, now);
    let (phase, summary, reason, mut message) = outlook(&status, &counts, hold, stuck.as_deref());
    let begun = members.iter().any(|member| member.touched.is_some());
    status.preview = preview::kept(&status, snapshot, goal, begun);
    // While nothing moves because somebody wants to look first, this is what they look at.
    let looked_at =
        status.preview.as_ref().filter(|_| !begun && matches!(hold, Hold::Paused { .. } | Hold::Held { .. }));
    if let Some(words) = looked_at.and_then(preview::in_words) {
        message = format!("{message}; {words}");
    }
    if let Some(warning) = status.estimate.as_ref().and_then(|estimate| estimate.warning.as_ref()) {
        message = format!("{message}; {warning}");
    }
    if let Some(why) = newer_but_unfit(snapshot) {
        message =
            format!("{message}; the newest content of NodeConfig {} is not rolled out: {why}", goal.target.node_config);
    }
    status.display = Some(RolloutDisplay {
        batch: (!batches.is_empty()).then(|| format!("{current}/{}", batches.len())),
        blocked: blocked(snapshot, hold),
        eta: estimate::eta(status.estimate.as_ref()),
    });
    if let Some(run) = &mut status.run {
        run.updated = Some(counts.updated);
        let ended = [RolloutPhase::Complete, RolloutPhase::Aborted, RolloutPhase::RolledBack].contains(&phase);
        if ended {
            run.finished_at.get_or_insert(Time(now));
        }
    }
    status.clock = deadline::clock(snapshot, goal, members, hold, now);
    status.counts = Some(counts);
    conclude(snapshot, &mut status, phase, summary, reason, message, now);
    status
}

/// Why the NodeConfig's newest content is no revision that could be rolled out, if that is so.
fn newer_but_unfit(snapshot: &Snapshot) -> Option<&str> {
    if snapshot.rollout.spec.node_config_ref.revision.is_some() {
        return None;
    }
    let status = snapshot.node_config.as_ref()?.status.as_ref()?;
    let unfit = condition::is_true(&status.conditions, condition::STALLED);
    status.message.as_deref().filter(|_| unfit)
}

/// The phase, how it counts, the reason and the message.
fn outlook(
    status: &RolloutStatus,
    counts: &Counts,
    hold: &Hold,
    stuck: Option<&str>,
) -> (RolloutPhase, Summary, &'static str, String) {
    let revision = status.run.as_ref().map_or("", |run| run.revision.as_str());
    let progress = format!("{} of {} updated to {revision}", counts.updated, counts.total);
    let first_failure = || {
        let first = status.failures.first().map(|failure| format!("{}: {}", failure.host, failure.message));
        first.unwrap_or_default()
    };
    let under_way = |reason, note: String| (RolloutPhase::Progressing, Summary::Working, reason, note);
    let busy = counts.in_flight > 0;
    let stopped = status.run.as_ref().and_then(|run| run.stopped.as_ref());
    if let Some(stopped) = stopped.filter(|stopped| stopped.action == StopAction::Rollback) {
        return rolling_back(stopped, counts, hold, stuck, &first_failure());
    }
    match hold {
        Hold::Done if counts.skipped > 0 => {
            (RolloutPhase::Complete, Summary::Ready, "Complete", format!("{progress}, {} left out", counts.skipped))
        }
        Hold::Done => (RolloutPhase::Complete, Summary::Ready, "Complete", progress),
        Hold::NoHosts => (
            RolloutPhase::Pending,
            Summary::Working,
            "NoHosts",
            "no Host matches hostSelector here and in the NodeConfig; see kubectl get hosts.drover.dev --show-labels"
                .to_owned(),
        ),
        Hold::Stopped(stopped) if busy => {
            under_way("Stopping", format!("{}; finishes {} under way, then stops", stopped.reason, counts.in_flight))
        }
        Hold::Stopped(stopped) => {
            let (phase, reason) = match stopped.action {
                StopAction::Abort => (RolloutPhase::Aborted, "Aborted"),
                StopAction::Pause | StopAction::Rollback => (RolloutPhase::Failed, "Stopped"),
            };
            let first = if counts.failed > 0 { format!(": {}", first_failure()) } else { String::new() };
            (phase, Summary::Stalled, reason, format!("{progress}, {}{first}", stopped.reason))
        }
        Hold::OnlyFailedLeft { failed } => (
            RolloutPhase::Failed,
            Summary::Stalled,
            "HostsFailed",
            format!("{progress}, {failed} failed: {}", first_failure()),
        ),
        Hold::Paused { .. } if busy => {
            under_way("Pausing", format!("{progress}; paused, finishes {} under way", counts.in_flight))
        }
        Hold::Paused { how } => {
            (RolloutPhase::Paused, Summary::Waiting, "Paused", format!("{progress}; paused: {how}"))
        }
        Hold::Held { how } => (RolloutPhase::Paused, Summary::Waiting, "Held", format!("{progress}; held: {how}")),
        Hold::Closed(closed) if closed.invalid && !busy => {
            let message = format!("{progress}; {}", closed.message);
            (RolloutPhase::Progressing, Summary::Stalled, "InvalidSchedule", message)
        }
        Hold::Closed(closed) if busy => {
            under_way("Closing", format!("{progress}; finishes {} under way; {}", counts.in_flight, closed.message))
        }
        Hold::Closed(closed) => under_way("OutsideWindow", format!("{progress}; {}", closed.message)),
        Hold::Stage(waiting) => {
            let phase = if waiting.reason == "Paused" { RolloutPhase::Paused } else { RolloutPhase::Progressing };
            (phase, waiting.summary(), waiting.reason, format!("{progress}; {}", waiting.message))
        }
        Hold::BusyWith { .. } | Hold::MaxUnavailable { .. } | Hold::Budget { .. } | Hold::NoneFit { .. } => {
            match (stuck, hold) {
                (Some(stuck), _) => under_way("RollingOut", format!("{progress}; {stuck}")),
                (None, Hold::MaxUnavailable { unavailable, may }) if !busy => under_way(
                    "MaxUnavailable",
                    format!(
                        "{progress}; waits: {} out of service and {may} may be: {}",
                        unavailable.len(),
                        first_of(unavailable)
                    ),
                ),
                (None, Hold::Budget { message }) => {
                    under_way("WaitingForBudget", format!("{progress}; waits: {message}"))
                }
                (None, Hold::NoneFit { reasons }) if !busy => {
                    under_way("Waiting", format!("{progress}; waits: {}", first_of(reasons)))
                }
                _ => under_way("RollingOut", progress),
            }
        }
    }
}

/// The same for a run that is rolled back.
fn rolling_back(
    stopped: &Stopped,
    counts: &Counts,
    hold: &Hold,
    stuck: Option<&str>,
    first_failure: &str,
) -> (RolloutPhase, Summary, &'static str, String) {
    let progress = format!("{}: {} rolled back", stopped.reason, counts.rolled_back);
    let under_way = |note: &str| {
        let message = if note.is_empty() { progress.clone() } else { format!("{progress}; {note}") };
        (RolloutPhase::RollingBack, Summary::Working, "RollingBack", message)
    };
    match hold {
        // Those that have nothing to go back to, or failed on their way back, keep what they have.
        Hold::Done => {
            let stay = counts.updated + counts.failed;
            let rest = match (stay, first_failure) {
                (0, _) => String::new(),
                (stay, "") => format!(", {stay} had nothing to go back to and stay as they are"),
                (stay, first) => format!(", {stay} stay as they are: {first}"),
            };
            (RolloutPhase::RolledBack, Summary::Stalled, "RolledBack", format!("{progress}{rest}"))
        }
        Hold::Paused { how } if counts.in_flight == 0 => {
            (RolloutPhase::Paused, Summary::Waiting, "Paused", format!("{progress}; paused: {how}"))
        }
        Hold::Held { how } => (RolloutPhase::Paused, Summary::Waiting, "Held", format!("{progress}; held: {how}")),
        Hold::MaxUnavailable { unavailable, may } if counts.in_flight == 0 => under_way(&format!(
            "waits: {} out of service and {may} may be: {}",
            unavailable.len(),
            first_of(unavailable)
        )),
        Hold::Budget { message } => under_way(&format!("waits: {message}")),
        Hold::NoneFit { reasons } => under_way(&format!("waits: {}", first_of(reasons))),
        _ => under_way(stuck.unwrap_or_default()),
    }
}

/// What stands in the way, in a few words for a column.
fn blocked(snapshot: &Snapshot, hold: &Hold) -> Option<String> {
    let status = snapshot.rollout.status.as_ref();
    let draining = status.into_iter().flat_map(|status| &status.in_flight).find_map(|entry| {
        let (step, waiting_for) = step_of(snapshot, entry);
        match step {
            drover_crds::ClaimStep::Claim | drover_crds::ClaimStep::Drain
                if waiting_for.as_deref().is_some_and(|what| what.starts_with("pod ")) =>
            {
                Some("Drain")
            }
            drover_crds::ClaimStep::DetachVolumes if waiting_for.is_some() => Some("Volumes"),
            drover_crds::ClaimStep::Verify if waiting_for.is_some() => Some("Gate"),
            drover_crds::ClaimStep::BeforeHost | drover_crds::ClaimStep::AfterHost => Some("Hook"),
            _ => None,
        }
    });
    let standstill = match hold {
        Hold::Stopped(stopped) if stopped.action == StopAction::Abort => Some("Aborted"),
        Hold::Stopped(_) => Some("Failed"),
        Hold::Paused { .. } => Some("Paused"),
        Hold::Held { .. } => Some("Held"),
        Hold::Closed(closed) => Some(if closed.invalid { "Schedule" } else { "Window" }),
        Hold::Stage(waiting) => Some(match waiting.reason {
            "WaitingForApproval" => "Approval",
            "WaitingForGate" | "GateInconclusive" => "Gate",
            "WaitingForHook" | "WaitingForJob" => "Hook",
            "WaitingForRollout" | "DependencyCycle" => "Rollout",
            reason => reason,
        }),
        Hold::MaxUnavailable { unavailable, .. } if status.is_none_or(|s| s.in_flight.len() < unavailable.len()) => {
            Some("MaxUnavailable")
        }
        Hold::Budget { .. } => Some("Budget"),
        Hold::NoneFit { .. } => Some("HostsNotFit"),
        Hold::NoHosts => Some("NoHosts"),
        Hold::MaxUnavailable { .. } | Hold::Done | Hold::OnlyFailedLeft { .. } | Hold::BusyWith { .. } => None,
    };
    draining.or(standstill).map(str::to_owned)
}

fn counts(members: &[Member<'_>]) -> Counts {
    let count =
        |wanted: &dyn Fn(&Standing) -> bool| number(members.iter().filter(|member| wanted(&member.standing)).count());
    Counts {
        total: number(members.len()),
        pending: count(&Standing::waits),
        in_flight: count(&|standing| *standing == Standing::InFlight),
        updated: count(&|standing| *standing == Standing::Updated),
        failed: count(&|standing| *standing == Standing::Failed),
        skipped: count(&|standing| *standing == Standing::Skipped),
        rolled_back: count(&|standing| *standing == Standing::RolledBack),
        unavailable: number(members.iter().filter(|member| member.unavailable).count()),
    }
}

fn failures(snapshot: &Snapshot, goal: &Goal, members: &[Member<'_>]) -> Vec<Failure> {
    let records =
        members.iter().filter_map(|member| Some((member, population::record(&snapshot.rollout, member.host)?)));
    let mut failures: Vec<Failure> = records
        .filter(|(_, record)| record.run == goal.run && record.outcome == RunOutcome::Failed)
        .map(|(member, record)| Failure {
            host: member.name().to_owned(),
            message: few(record.message.as_deref().unwrap_or_default()),
            time: record.finished_at.clone(),
        })
        .collect();
    failures.sort_by(|a, b| a.time.0.cmp(&b.time.0).then_with(|| a.host.cmp(&b.host)));
    failures.truncate(MOST_FAILURES);
    failures
}

/// Copies each machine's step from its Host into the ledger, for people.
fn refresh_ledger(snapshot: &Snapshot, status: &mut RolloutStatus) {
    let mut told = 0;
    for entry in &mut status.in_flight {
        let (step, waiting_for) = step_of(snapshot, entry);
        entry.step = step;
        entry.waiting_for = waiting_for.filter(|_| told < MOST_WAITING).map(|what| few(&what));
        told += usize::from(entry.waiting_for.is_some());
    }
}

/// The beginning of what may be long.
fn few(words: &str) -> String {
    if words.len() <= MOST_WORDS {
        return words.to_owned();
    }
    let end = (0..=MOST_WORDS - 3).rev().find(|end| words.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &words[..end])
}

fn conclude(
    snapshot: &Snapshot,
    status: &mut RolloutStatus,
    phase: RolloutPhase,
    summary: Summary,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let generation = snapshot.rollout.metadata.generation;
    condition::summarise(&mut status.conditions, summary, reason, &message, generation, now);
    status.phase = Some(phase);
    status.message = Some(message);
    status.observed_generation = generation;
}

fn first_of(words: &[String]) -> String {
    let first = words.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    if words.len() > 3 { format!("{first} and {} more", words.len() - 3) } else { first }
}

/// As the API counts.
pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

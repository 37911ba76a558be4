//! What people ask for by annotations on the Rollout, which tools that sync a spec from git leave alone. Each is echoed in
//! the status when it is first seen, together with what came of it.

use drover_crds::{
    Handled, Rollout, RolloutPhase, RolloutStatus, Run, StopAction, Stopped,
    keys::{
        ABORT_ANNOTATION, APPROVE_ANNOTATION, HOLD_ANNOTATION, PAUSE_ANNOTATION, RETRY_ANNOTATION, SKIP_ANNOTATION,
        UNDO_ANNOTATION,
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::snapshot::Snapshot;

const ALL: [&str; 7] = [
    ABORT_ANNOTATION,
    APPROVE_ANNOTATION,
    HOLD_ANNOTATION,
    PAUSE_ANNOTATION,
    RETRY_ANNOTATION,
    SKIP_ANNOTATION,
    UNDO_ANNOTATION,
];

/// The value of an annotation. An empty one is as good as any other: what counts is that it is there.
fn asked<'a>(rollout: &'a Rollout, annotation: &str) -> Option<&'a str> {
    rollout.metadata.annotations.as_ref()?.get(annotation).map(String::as_str)
}

/// Why no further machine is begun, if somebody paused the Rollout.
pub(super) fn paused(rollout: &Rollout) -> Option<String> {
    if rollout.spec.paused.unwrap_or(false) {
        return Some("set spec.paused to false to go on".to_owned());
    }
    asked(rollout, PAUSE_ANNOTATION)
        .map(|why| format!("{}remove the annotation {PAUSE_ANNOTATION} to go on", said(why)))
}

/// Why nothing moves, if somebody holds the Rollout.
pub(super) fn held(rollout: &Rollout) -> Option<String> {
    asked(rollout, HOLD_ANNOTATION).map(|why| format!("{}remove the annotation {HOLD_ANNOTATION} to go on", said(why)))
}

fn said(why: &str) -> String {
    let why: String = why.trim().chars().take(200).collect();
    if why.is_empty() { String::new() } else { format!("{why}; ") }
}

/// Whether somebody approved this batch of this run: by its name or its number from 1, or all of the run.
pub(super) fn approves(rollout: &Rollout, run: i64, batch: usize, name: &str) -> bool {
    let value = asked(rollout, APPROVE_ANNOTATION).unwrap_or_default();
    approvals(value)
        .any(|(approved, what)| approved == run && (what == "*" || what == name || what.parse() == Ok(batch + 1)))
}

fn approvals(value: &str) -> impl Iterator<Item = (i64, &str)> {
    value.split(',').filter_map(|one| {
        let (run, what) = one.trim().split_once('/')?;
        Some((run.trim().parse().ok()?, what.trim()))
    })
}

/// The status in which each new wish is echoed and carried out, or `None` when all of them were seen before.
pub(super) fn handle(snapshot: &Snapshot, status: &RolloutStatus, now: Timestamp) -> Option<RolloutStatus> {
    let rollout = &snapshot.rollout;
    let mut next = status.clone();
    for annotation in ALL {
        let action = annotation.strip_prefix("drover.dev/").unwrap_or(annotation);
        let before = status.last_handled.iter().find(|handled| handled.action == action);
        let value = asked(rollout, annotation).map(|value| value.chars().take(1000).collect::<String>());
        match (value, before) {
            (Some(value), before) if before.is_none_or(|handled| handled.value != value) => {
                let result = carry_out(annotation, &value, &mut next, now);
                next.last_handled.retain(|handled| handled.action != action);
                next.last_handled.push(Handled { action: action.to_owned(), value, result, time: Time(now) });
            }
            // What holds as long as it is there is over when it is gone; what was done once stays told.
            (None, Some(_)) if [HOLD_ANNOTATION, PAUSE_ANNOTATION, SKIP_ANNOTATION].contains(&annotation) => {
                next.last_handled.retain(|handled| handled.action != action);
            }
            // So that it can be asked for again.
            (None, Some(handled)) if handled.result.starts_with("ignored") => {
                next.last_handled.retain(|handled| handled.action != action);
            }
            _ => {}
        }
    }
    next.last_handled.sort_by(|a, b| a.action.cmp(&b.action));
    (next != *status).then_some(next)
}

/// Does what is asked for in the status, and says what came of it.
fn carry_out(annotation: &str, value: &str, status: &mut RolloutStatus, now: Timestamp) -> String {
    match annotation {
        PAUSE_ANNOTATION => return "paused: machines under way are finished, no further one is begun".to_owned(),
        HOLD_ANNOTATION => return "held: nothing moves, machines under way stay at their step".to_owned(),
        SKIP_ANNOTATION => return "these Hosts are left out".to_owned(),
        APPROVE_ANNOTATION if approvals(value).next().is_some() => return "approved".to_owned(),
        APPROVE_ANNOTATION => return "ignored: write <run>/<batch>, such as 3/canary".to_owned(),
        _ => {}
    }
    let Some(run) = &mut status.run else { return "ignored: there is no run yet".to_owned() };
    if value.trim().parse() != Ok(run.number) {
        return format!("ignored: the value is the number of the run, which is {}", run.number);
    }
    let ended = status
        .phase
        .is_some_and(|phase| matches!(phase, RolloutPhase::Failed | RolloutPhase::Aborted | RolloutPhase::RolledBack));
    match annotation {
        ABORT_ANNOTATION if run.finished_at.is_some() => "ignored: the run has ended".to_owned(),
        ABORT_ANNOTATION => {
            stop(run, StopAction::Abort, "somebody aborted the run".to_owned(), now);
            "aborted".to_owned()
        }
        UNDO_ANNOTATION if status.phase == Some(RolloutPhase::RolledBack) => "ignored: it is rolled back".to_owned(),
        UNDO_ANNOTATION => {
            run.finished_at = None;
            stop(run, StopAction::Rollback, "somebody asked to undo the run".to_owned(), now);
            "the machines that the run changed get back what they had".to_owned()
        }
        RETRY_ANNOTATION if ended || run.stopped.is_some() => "tries again".to_owned(),
        RETRY_ANNOTATION => "ignored: the run has neither failed nor been stopped".to_owned(),
        _ => "ignored".to_owned(),
    }
}

/// Records that a run is ended, and what happens to the machines that it changed. A rollback is never taken back by less.
pub(super) fn stop(run: &mut Run, action: StopAction, reason: String, now: Timestamp) {
    if run.stopped.as_ref().is_none_or(|stopped| stopped.action != StopAction::Rollback) {
        run.stopped = Some(Stopped { action, reason, time: Time(now) });
    }
}

/// Whether somebody asked for another try of this run, which failed or was stopped.
pub(super) fn retries(rollout: &Rollout, status: &RolloutStatus, run: &Run) -> bool {
    let handled = status.last_handled.iter().find(|handled| handled.action == "retry");
    asked(rollout, RETRY_ANNOTATION).is_some_and(|value| value.trim().parse() == Ok(run.number))
        && handled.is_some_and(|handled| handled.result == "tries again")
}

//! What is asked between machines: before a run, before and after each batch, after a run.

use std::time::Duration;

use drover_crds::{DryRunGate, Gate, Hook, Hooks, StageStep};
use jiff::Timestamp;

use super::{
    depends::{self, Unmet},
    gate::{self, Together},
    hook::{self, Place, Progress},
    people,
    population::Goal,
    report::number,
    request::Request,
    snapshot::Snapshot,
    stage::Waiting,
};

/// Where something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// Before anything moves: what the Rollout depends on, the preflight gates, the hooks before the run.
    BeforeRun,
    /// Before the machines of this batch.
    BeforeBatch(usize),
    /// After the machines of this batch, when it has soaked.
    AfterBatch(usize),
    /// After the last batch.
    AfterRun,
}

/// The answer.
#[derive(Debug)]
pub(super) enum Pass {
    /// Go on.
    Go,
    /// Wait, and look again after this time at the latest.
    Wait(Waiting, Duration),
    /// Make this request first.
    Request(Request),
    /// It says no: the run stops, for this reason.
    Fail(String),
}

/// The reason of a run that waits for itself by way of others: it goes on when somebody changes that.
pub(super) const DEPENDENCY_CYCLE: &str = "DependencyCycle";

/// How often something is looked at that is watched as well.
const LATER: Duration = Duration::from_secs(30);
/// How often something that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Whether the run may go on from here, at which it is since that time.
pub(super) fn pass(snapshot: &Snapshot, goal: &Goal, checkpoint: Checkpoint, since: Timestamp, now: Timestamp) -> Pass {
    // What is waited for is not begun while somebody wants nothing to begin.
    if people::held(&snapshot.rollout).or_else(|| people::paused(&snapshot.rollout)).is_some() {
        return paused(snapshot, checkpoint);
    }
    let none = Hooks::default();
    let spec = &snapshot.rollout.spec;
    let hooks = spec.hooks.as_ref().unwrap_or(&none);
    let here = Here { snapshot, goal, since, now };
    match checkpoint {
        Checkpoint::BeforeRun => {
            if let Some(unmet) = depends::unmet(snapshot) {
                return match unmet {
                    Unmet::Waits(why) => wait("WaitingForRollout", why, LATER),
                    Unmet::Cycle(path) => wait(DEPENDENCY_CYCLE, path, LATER),
                };
            }
            let gates = (spec.preflight_gates(), "preflight", StageStep::BeforeRun);
            here.gates(gates, None).or_else(|| here.hooks(&hooks.before_run, "beforeRun", None))
        }
        Checkpoint::BeforeBatch(batch) => here.hooks(&hooks.before_batch, "beforeBatch", Some(number(batch))),
        Checkpoint::AfterBatch(batch) => {
            let batch = Some(number(batch));
            let gates = (spec.batch_gates(), "batch", StageStep::AfterBatch);
            here.gates(gates, batch).or_else(|| here.hooks(&hooks.after_batch, "afterBatch", batch))
        }
        Checkpoint::AfterRun => {
            // A run that had nothing to change, such as one that is tried again after a gate had failed, is not complete for that.
            let unasked = !gate::has_changed_machines(snapshot, goal.run);
            let gates = (spec.batch_gates(), "batch", StageStep::AfterRun);
            let asked = if unasked { here.gates(gates, None) } else { None };
            asked.or_else(|| here.hooks(&hooks.after_run, "afterRun", None))
        }
    }
    .unwrap_or(Pass::Go)
}

/// A run that somebody paused begins no Job and asks no gate. Where there is neither, it goes on to its machines, which say
/// that it is paused.
fn paused(snapshot: &Snapshot, checkpoint: Checkpoint) -> Pass {
    let rollout = &snapshot.rollout;
    let spec = &rollout.spec;
    let hooks = spec.hooks.clone().unwrap_or_default();
    let asks = match checkpoint {
        Checkpoint::BeforeRun => {
            !spec.depends_on.is_empty() || !spec.preflight_gates().is_empty() || !hooks.before_run.is_empty()
        }
        Checkpoint::BeforeBatch(_) => !hooks.before_batch.is_empty(),
        Checkpoint::AfterBatch(_) => !spec.batch_gates().is_empty() || !hooks.after_batch.is_empty(),
        Checkpoint::AfterRun => !spec.batch_gates().is_empty() || !hooks.after_run.is_empty(),
    };
    match people::held(rollout).or_else(|| people::paused(rollout)) {
        Some(how) if asks => Pass::Wait(
            Waiting { reason: "Paused", message: format!("paused: {how}"), for_a_person: true },
            Duration::from_secs(60),
        ),
        _ => Pass::Go,
    }
}

struct Here<'a> {
    snapshot: &'a Snapshot,
    goal: &'a Goal,
    since: Timestamp,
    now: Timestamp,
}

impl Here<'_> {
    fn place(&self, what: &'static str, batch: Option<i32>) -> Place<'_> {
        Place { what, run: self.goal.run, revision: &self.goal.target.revision, batch, host: None }
    }

    /// What is in the way, by the gates. Those before a run fail nothing: no machine was touched.
    fn gates(&self, (gates, what, step): (&[Gate], &'static str, StageStep), batch: Option<i32>) -> Option<Pass> {
        let rollout = &self.snapshot.rollout;
        let since = gate::asked_since(rollout, step, batch.unwrap_or_default(), self.since);
        let elapsed = self.now.duration_since(since);
        let is_patient = what == "preflight";
        let together =
            gate::together(self.snapshot, gates, &self.snapshot.run_gates, &self.place(what, batch), elapsed);
        let period = gates.iter().map(Gate::resolved_period_seconds).min().unwrap_or(2);
        let period = Duration::from_secs(u64::try_from(period).unwrap_or(2));
        Some(match together {
            Together::Passed(shown) => return self.tell(&shown, batch),
            Together::Request(request) => Pass::Request(request),
            Together::Stuck(why) => wait("WaitingForJob", why, AGAIN),
            Together::Pending(why) => wait("WaitingForGate", why, period),
            Together::Failed(why) | Together::Inconclusive(why) if is_patient => wait("WaitingForGate", why, period),
            Together::Failed(why) => Pass::Fail(why),
            Together::Inconclusive(why) => Pass::Wait(
                Waiting {
                    reason: "GateInconclusive",
                    message: format!(
                        "{why}; the run goes on when it passes after all, or annotate {} or {} to end it",
                        drover_crds::keys::ABORT_ANNOTATION,
                        drover_crds::keys::UNDO_ANNOTATION
                    ),
                    for_a_person: true,
                },
                period,
            ),
        })
    }

    /// Writes down what the gates that decide nothing showed, once for each place.
    fn tell(&self, shown: &[(String, String)], batch: Option<i32>) -> Option<Pass> {
        let mut status = self.snapshot.rollout.status.clone().unwrap_or_default();
        let run = self.goal.run;
        let is_told =
            |entry: &DryRunGate, gate: &String| entry.gate == *gate && (entry.run, entry.batch) == (run, batch);
        if shown.iter().all(|(gate, _)| status.dry_run_gates.iter().any(|entry| is_told(entry, gate))) {
            return None;
        }
        for (gate, answer) in shown {
            status.dry_run_gates.retain(|entry| entry.gate != *gate);
            let answer = answer.chars().take(500).collect();
            status.dry_run_gates.push(DryRunGate { gate: gate.clone(), run, batch, answer });
        }
        status.dry_run_gates.sort_by(|a, b| a.gate.cmp(&b.gate));
        status.dry_run_gates.truncate(32);
        Some(Pass::Request(Request::WriteRollout(Box::new(status))))
    }

    /// What is in the way, by the hooks.
    fn hooks(&self, hooks: &[Hook], what: &'static str, batch: Option<i32>) -> Option<Pass> {
        match hook::run(self.snapshot, hooks, &self.place(what, batch)) {
            Progress::Done => None,
            Progress::Request(request) => Some(Pass::Request(request)),
            Progress::Wait(what) => Some(wait("WaitingForHook", what, LATER)),
            Progress::Stuck(why) => Some(wait("WaitingForHook", why, AGAIN)),
            Progress::Failed(why) => Some(Pass::Fail(why)),
        }
    }
}

fn wait(reason: &'static str, message: String, look_again: Duration) -> Pass {
    Pass::Wait(Waiting { reason, message, for_a_person: false }, look_again)
}

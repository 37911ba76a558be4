//! What gates say: how answers are counted, and what the counts mean. Who asks, and how, is left to the operator.

use drover_crds::{ClaimCommand, CommandGate, Gate, Rollout, StageStep};
use jiff::{SignedDuration, Timestamp};

use super::{
    hook::{self, JobView, Place},
    population,
    request::Request,
    snapshot::Snapshot,
};

/// What a gate answered when it was asked once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GateAnswer {
    /// What it asks for is so.
    Passed,
    /// It is not so, for this reason. The words are the same as long as the reason is: a status is written for each change.
    Failed(String),
    /// There was no answer, or none that could be judged, for this reason. That is never a success.
    Inconclusive(String),
    /// It was not asked yet.
    #[default]
    None,
}

/// What a gate answered since it was first asked, at one place. It is kept in the operator's memory: one that starts again
/// begins from nothing, which is never healthier than what was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateEvidence {
    /// The last answer.
    pub last: GateAnswer,
    /// The last answer that was no success: while it is waited for, this is told, so that the words do not change each time.
    pub objection: Option<String>,
    /// What was measured last, such as the value of a query: told once the gate has failed.
    pub measured: Option<String>,
    /// How many times in a row it passed.
    pub passed_in_a_row: u32,
    /// How many times it failed.
    pub failed: u32,
    /// How many times it was inconclusive.
    pub inconclusive: u32,
}

impl GateEvidence {
    /// Counts an answer.
    pub fn count(&mut self, answer: GateAnswer, measured: Option<String>) {
        let (objection, counter) = match &answer {
            GateAnswer::Passed => {
                self.passed_in_a_row = self.passed_in_a_row.saturating_add(1);
                (None, None)
            }
            GateAnswer::Failed(why) => (Some(why.clone()), Some(&mut self.failed)),
            GateAnswer::Inconclusive(why) => (Some(why.clone()), Some(&mut self.inconclusive)),
            GateAnswer::None => return,
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(1);
            self.passed_in_a_row = 0;
        }
        self.objection = objection.or_else(|| self.objection.take());
        self.measured = measured;
        self.last = answer;
    }

    /// The evidence of one answer.
    pub fn of(answer: GateAnswer) -> Self {
        let mut evidence = Self::default();
        evidence.count(answer, None);
        evidence
    }

    /// The last answer, in words.
    fn told(&self) -> String {
        match &self.last {
            GateAnswer::Passed => "Passed".to_owned(),
            GateAnswer::Failed(why) => why.clone(),
            GateAnswer::Inconclusive(why) => format!("inconclusive: {why}"),
            GateAnswer::None => "no answer yet".to_owned(),
        }
    }
}

/// What the answers of a gate come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passed as often as it must.
    Passed,
    /// It failed more often than it may, or too long.
    Failed(String),
    /// It gave no answer more often than it may, or too long.
    Inconclusive(String),
    /// It is asked again; this is what it said.
    Pending(String),
}

/// What the answers of this gate come to when it is asked since `elapsed`.
pub(super) fn verdict(gate: &Gate, evidence: &GateEvidence, elapsed: SignedDuration) -> Verdict {
    let name = gate.describe();
    let threshold = gate.resolved_success_threshold();
    if evidence.passed_in_a_row >= threshold {
        return Verdict::Passed;
    }
    let measured = evidence.measured.as_ref().map(|measured| format!(" ({measured})")).unwrap_or_default();
    let exceeds = |count: u32, limit: Option<i32>| limit.is_some_and(|limit| i64::from(count) > i64::from(limit));
    if exceeds(evidence.failed, gate.failure_limit) {
        let why = evidence.objection.as_deref().unwrap_or_default();
        return Verdict::Failed(format!("gate {name} failed {} times: {why}{measured}", evidence.failed));
    }
    if exceeds(evidence.inconclusive, gate.inconclusive_limit) {
        let why = evidence.objection.as_deref().unwrap_or_default();
        return Verdict::Inconclusive(format!("gate {name} was inconclusive {} times: {why}", evidence.inconclusive));
    }
    let timeout = gate.resolved_timeout_seconds();
    if elapsed >= SignedDuration::from_secs(i64::from(timeout)) {
        let failed =
            |why: &str| Verdict::Failed(format!("gate {name} did not pass within {timeout} s: {why}{measured}"));
        return match &evidence.last {
            GateAnswer::Failed(why) => failed(why),
            GateAnswer::Passed => failed(&format!(
                "it passed {} of {threshold} times in a row{}",
                evidence.passed_in_a_row,
                evidence.objection.as_ref().map(|why| format!(", and before: {why}")).unwrap_or_default()
            )),
            GateAnswer::Inconclusive(_) | GateAnswer::None => {
                Verdict::Inconclusive(format!("gate {name} did not pass within {timeout} s: {}", evidence.told()))
            }
        };
    }
    let why = match (&evidence.objection, &evidence.last) {
        (Some(why), _) => why.clone(),
        (None, GateAnswer::Passed) => format!("it must pass {threshold} times in a row"),
        (None, _) => "no answer yet".to_owned(),
    };
    Verdict::Pending(format!("gate {name}: {why}"))
}

/// What the gates of a place come to, all together.
#[derive(Debug)]
pub(super) enum Together {
    /// All that decide passed; in words what the others showed.
    Passed(Vec<(String, String)>),
    /// This one has failed.
    Failed(String),
    /// This one has no answer, and a person has to look.
    Inconclusive(String),
    /// This one is waited for.
    Pending(String),
    /// This Job has to be made, to ask.
    Request(Request),
    /// The Job can not be made, for this reason.
    Stuck(String),
}

/// What these gates come to at a place, at which they are asked since that time. `evidence` is in their order.
pub(super) fn together(
    snapshot: &Snapshot,
    gates: &[Gate],
    evidence: &[GateEvidence],
    place: &Place<'_>,
    elapsed: SignedDuration,
) -> Together {
    let mut shown = vec![];
    let mut first = None;
    for (index, gate) in gates.iter().enumerate() {
        let verdict = match &gate.job {
            Some(_) => match hook::gate_job(snapshot, gate, place) {
                Ok(Some(job)) => judge(gate, job),
                Ok(None) => Verdict::Passed,
                Err(hook::Missing::Request(request)) => return Together::Request(request),
                Err(hook::Missing::Refused(why)) if !gate.is_dry_run() => return Together::Stuck(why),
                Err(hook::Missing::Refused(why)) => Verdict::Inconclusive(why),
            },
            None if gate.command.is_some() => of_command(snapshot, gate, place, elapsed),
            None => verdict(gate, evidence.get(index).unwrap_or(&GateEvidence::default()), elapsed),
        };
        if gate.is_dry_run() {
            let told = match verdict {
                Verdict::Passed => "Passed".to_owned(),
                Verdict::Failed(why) => why,
                Verdict::Inconclusive(why) | Verdict::Pending(why) => format!("inconclusive: {why}"),
            };
            shown.push((gate.describe(), told));
            continue;
        }
        // What has failed is told before what is waited for.
        match verdict {
            Verdict::Passed => {}
            Verdict::Failed(why) => return Together::Failed(why),
            Verdict::Inconclusive(why) => match first {
                None | Some(Together::Pending(_)) => first = Some(Together::Inconclusive(why)),
                Some(_) => {}
            },
            Verdict::Pending(why) => first = first.or(Some(Together::Pending(why))),
        }
    }
    first.unwrap_or(Together::Passed(shown))
}

/// What the commands are that the machine's agent shall run once for these gates.
pub(super) fn commands(gates: &[Gate], hold: &str) -> Vec<ClaimCommand> {
    let wish = |gate: &Gate| {
        let command = gate.command.as_ref()?;
        let timeout_seconds = command.resolved_timeout_seconds();
        Some(ClaimCommand { token: command_token(command, hold), argv: command.argv.clone(), timeout_seconds })
    };
    let mut commands: Vec<ClaimCommand> = gates.iter().filter_map(wish).collect();
    commands.sort_by(|a, b| a.token.cmp(&b.token));
    commands.dedup_by(|a, b| a.token == b.token);
    commands
}

/// The same for the same command in the same hold, and for no other.
fn command_token(command: &CommandGate, hold: &str) -> String {
    format!("{hold}/{}", hook::short_hash(&format!("{command:?}")))
}

/// What a command says as a gate, by the report of the machine's agent.
fn of_command(snapshot: &Snapshot, gate: &Gate, place: &Place<'_>, elapsed: SignedDuration) -> Verdict {
    let unasked = || verdict(gate, &GateEvidence::default(), elapsed);
    let (Some(command), Some((host, hold))) = (&gate.command, place.host) else { return unasked() };
    let token = command_token(command, hold);
    let host = snapshot.hosts.get(host);
    let active = host.and_then(|host| host.status.as_ref()?.active.as_ref());
    let result = active.and_then(|active| active.commands.iter().find(|result| result.token == token));
    let Some(result) = result else { return unasked() };
    let name = gate.describe();
    let told = result.message.as_deref().unwrap_or("it printed nothing");
    match result.code {
        Some(0) => Verdict::Passed,
        Some(code) => Verdict::Failed(format!("gate {name} exited with {code}: {told}")),
        None => Verdict::Failed(format!("gate {name} did not end by itself: {told}")),
    }
}

/// What a Job says as a gate.
fn judge(gate: &Gate, job: &JobView) -> Verdict {
    let name = gate.describe();
    match job {
        JobView::Succeeded => Verdict::Passed,
        JobView::Failed(why) => Verdict::Failed(format!("gate {name} failed: {why}")),
        JobView::Made { .. } | JobView::Running => Verdict::Pending(format!("gate {name}: its Job runs")),
    }
}

/// Gates of a run that are asked now.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedGates<'a> {
    /// Tells this place from every other; evidence is never carried over from one to another.
    pub place: String,
    /// The gates.
    pub gates: &'a [Gate],
    /// Since when.
    pub since: Timestamp,
}

/// The gates of the run itself that are asked where it is now, if any are.
pub fn asked_of_run(rollout: &Rollout, now: Timestamp) -> Option<AskedGates<'_>> {
    let status = rollout.status.as_ref()?;
    let (run, stage) = (status.run.as_ref()?, status.stage.as_ref()?);
    if run.stopped.is_some() || rollout.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let gates = match stage.step {
        StageStep::BeforeRun => rollout.spec.preflight_gates(),
        StageStep::AfterBatch | StageStep::AfterRun => rollout.spec.batch_gates(),
        StageStep::BeforeBatch | StageStep::Hosts | StageStep::Done => &[],
    };
    let since = asked_since(rollout, stage.step, stage.batch, stage.since.0);
    let uid = crate::metadata::uid(&rollout.metadata);
    (!gates.is_empty() && since <= now).then(|| AskedGates {
        place: format!("{uid}/{}/{:?}/{}", run.number, stage.step, stage.batch),
        gates,
        since,
    })
}

/// Since when gates are asked at a step of a run that began at that time: a batch soaks before.
pub(super) fn asked_since(rollout: &Rollout, step: StageStep, batch: i32, since: Timestamp) -> Timestamp {
    let written = rollout.spec.batches();
    let definition = written.get(usize::try_from(batch).unwrap_or_default()).or(written.last());
    let soak = definition.and_then(|batch| batch.soak_seconds).filter(|_| step == StageStep::AfterBatch).unwrap_or(0);
    since.checked_add(SignedDuration::from_secs(i64::from(soak))).unwrap_or(since)
}

/// Whether this run changed any machine.
pub(super) fn has_changed_machines(snapshot: &Snapshot, run: i64) -> bool {
    let records = snapshot.hosts.iter().filter_map(|host| population::record(&snapshot.rollout, host));
    records.into_iter().any(|record| record.run == run)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a gate comes to after these answers: `+` passed, `-` failed, `?` inconclusive.
    fn check(gate: &serde_json::Value, answers: &str, elapsed: i64, expected: &str) {
        let mut all = json!({"tcp": {"port": 80}, "timeoutSeconds": 60});
        all.as_object_mut().unwrap().extend(gate.as_object().unwrap().clone());
        let gate: Gate = serde_json::from_value(all).unwrap();
        let mut evidence = GateEvidence::default();
        for answer in answers.chars() {
            let answer = match answer {
                '+' => GateAnswer::Passed,
                '-' => GateAnswer::Failed("refused".into()),
                _ => GateAnswer::Inconclusive("silent".into()),
            };
            evidence.count(answer, None);
        }
        let verdict = verdict(&gate, &evidence, SignedDuration::from_secs(elapsed));
        assert_eq!(format!("{verdict:?}"), expected, "{answers} after {elapsed} s");
    }

    #[test]
    fn answers_are_counted_and_no_answer_is_no_success() {
        let none = json!({});
        check(&none, "", 0, r#"Pending("gate tcp :80: no answer yet")"#);
        check(&none, "+", 0, "Passed");
        check(&none, "+", 600, "Passed");
        check(&none, "-?-?-", 59, r#"Pending("gate tcp :80: refused")"#);
        check(&none, "+-", 59, r#"Pending("gate tcp :80: refused")"#);
        check(&none, "--", 60, r#"Failed("gate tcp :80 did not pass within 60 s: refused")"#);
        check(&none, "-?", 60, r#"Inconclusive("gate tcp :80 did not pass within 60 s: inconclusive: silent")"#);
        check(&none, "", 60, r#"Inconclusive("gate tcp :80 did not pass within 60 s: no answer yet")"#);

        let thrice = json!({"successThreshold": 3});
        check(&thrice, "++", 0, r#"Pending("gate tcp :80: it must pass 3 times in a row")"#);
        check(&thrice, "++-++", 0, r#"Pending("gate tcp :80: refused")"#);
        check(&thrice, "++?++", 0, r#"Pending("gate tcp :80: silent")"#);
        check(&thrice, "++-+++", 0, "Passed");
        let late =
            r#"Failed("gate tcp :80 did not pass within 60 s: it passed 2 of 3 times in a row, and before: refused")"#;
        check(&thrice, "-++", 60, late);

        let limited = json!({"failureLimit": 1, "inconclusiveLimit": 2, "name": "errors"});
        check(&limited, "-??", 0, r#"Pending("gate errors: silent")"#);
        check(&limited, "-?-", 0, r#"Failed("gate errors failed 2 times: refused")"#);
        check(&limited, "???", 0, r#"Inconclusive("gate errors was inconclusive 3 times: silent")"#);
        check(&json!({"failureLimit": 0}), "-", 0, r#"Failed("gate tcp :80 failed 1 times: refused")"#);
        // It passes after all.
        check(&limited, "???+", 0, "Passed");
    }

    #[test]
    fn what_was_measured_is_told_with_the_failure_and_not_while_it_changes() {
        let gate: Gate = serde_json::from_value(json!({"tcp": {"port": 80}, "failureLimit": 1})).unwrap();
        let mut evidence = GateEvidence::default();
        evidence.count(GateAnswer::Failed("above 3".into()), Some("it is 4".into()));
        let pending = verdict(&gate, &evidence, SignedDuration::ZERO);
        assert_eq!(pending, Verdict::Pending("gate tcp :80: above 3".into()));
        evidence.count(GateAnswer::Failed("above 3".into()), Some("it is 5".into()));
        let failed = verdict(&gate, &evidence, SignedDuration::ZERO);
        assert_eq!(failed, Verdict::Failed("gate tcp :80 failed 2 times: above 3 (it is 5)".into()));
    }
}

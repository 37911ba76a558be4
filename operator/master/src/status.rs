//! What masters write: facts, reports and failed compilations, each into the status of one Host.
//!
//! What to write is decided in pure functions, which find nothing to do when the Host says it already. Writes are
//! server-side applies, each with a field manager of its own, so that no write takes another's fields away; they carry
//! the Host's UID, so that a Host made again under the same name is never written by mistake. Heartbeats write nothing.

use std::{collections::BTreeSet, time::Duration};

use drover_catalog::{Facts, HostIdentity, Outcome, Report, ResourceReport, ResourceStatus, Totals};
use drover_core::compile::facts_for_status;
use drover_crds::{AppliedReport, Assignment, CommandReport, GROUP, Host, VERSION, condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    fleet::{APPLIED, DRIFTED, HostView},
    unavailable,
};

/// How many writes are under way at once.
const WRITES: usize = 64;
/// How long a write may take, waiting for its turn included. The client tries again on its own within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a message in a status.
const MAX_MESSAGE: usize = 1024;

const CONVERGED: &str = "Converged";
const RESOURCES_FAILED: &str = "ResourcesFailed";
const COMPILE_FAILED: &str = "CompileFailed";
const COMPILED: &str = "Compiled";

/// How many flapping resources and reasons to reboot a Host names.
const MAX_FLAPPING: usize = 20;
const MAX_REASONS: usize = 10;
/// How many commands a Host tells of: as many as there can be gates.
const MAX_COMMANDS: usize = 16;

const DIFFERS: &str = "Differs";
const CORRECTED: &str = "Corrected";
const FLAPPING: &str = "Flapping";
const IN_PLACE: &str = "InPlace";
const NOT_LOOKED: &str = "NotLooked";

/// What a write says, and in whose name.
#[derive(Debug, PartialEq)]
pub(crate) enum Write {
    /// The machine's facts.
    Facts(Box<Facts>),
    /// The result of an agent's run.
    Report(Box<Reported>),
    /// Whether there is a catalog at all.
    Compile(Condition),
}

/// The result of an agent's run.
#[derive(Debug, PartialEq)]
pub(crate) struct Reported {
    active: AppliedReport,
    applied: Condition,
    drifted: Condition,
}

impl Write {
    fn manager(&self) -> &'static str {
        match self {
            Self::Facts(_) => "drover-master-facts",
            Self::Report(_) => "drover-master-report",
            Self::Compile(_) => "drover-master-compile",
        }
    }

    fn status(&self) -> Value {
        match self {
            Self::Facts(facts) => json!({ "facts": facts_for_status(facts) }),
            Self::Report(reported) => {
                let Reported { active, applied, drifted } = &**reported;
                json!({ "active": active, "conditions": [applied, drifted] })
            }
            Self::Compile(applied) => json!({ "conditions": [applied] }),
        }
    }
}

/// Facts, when the Host has others.
pub(crate) fn facts(host: &HostView, facts: Facts) -> Option<Write> {
    (host.facts.as_ref() != Some(&facts)).then(|| Write::Facts(Box::new(facts)))
}

/// A report, when it tells news.
pub(crate) fn report(host: &HostView, report: &Report, now: Timestamp) -> Option<Write> {
    let Totals { changed, corrected, pending, failed, .. } = report.totals;
    let converged = report.outcome == Outcome::Converged && failed == 0;
    let known = host.active.as_ref();
    let text = |text: &str| Some(clean(text)).filter(|text| !text.is_empty());
    let active = AppliedReport {
        generation: report.generation,
        catalog: report.catalog.to_string(),
        revisions: report
            .revisions
            .iter()
            .map(|r| Assignment { node_config: r.node_config.clone(), revision: r.revision.clone() })
            .collect(),
        converged,
        resources: number(report.totals.resources()),
        changed: number(changed),
        corrected: number(corrected),
        pending: number(pending),
        failed: number(failed),
        flapping: flapping(report).take(MAX_FLAPPING).map(|resource| clean(resource.id.as_str())).collect(),
        drifted_from: drifted_from(report),
        reboot_required: report.reboot_required.iter().take(MAX_REASONS).map(|reason| clean(reason)).collect(),
        commands: report
            .commands
            .iter()
            .take(MAX_COMMANDS)
            .map(|result| CommandReport {
                token: result.token.clone(),
                code: result.code,
                message: text(&result.message),
            })
            .collect(),
        message: text(&words(report, if converged { ResourceStatus::Changed } else { ResourceStatus::Failed })),
        last_change_time: if changed + corrected > 0 {
            Some(Time(now))
        } else {
            known.and_then(|known| known.last_change_time.clone())
        },
        boot_id: text(&report.boot_id),
        agent_version: text(&report.agent_version),
    };
    let (reason, message) = verdict(&active);
    let applied = applied(host, converged.into(), reason, message, report.generation, now);
    let (status, reason, message) = drift(report);
    let drifted = conditioned(DRIFTED, host.drifted.as_ref(), status, reason, message, report.generation, now);
    let news =
        known != Some(&active) || host.applied.as_ref() != Some(&applied) || host.drifted.as_ref() != Some(&drifted);
    news.then(|| Write::Report(Box::new(Reported { active, applied, drifted })))
}

fn flapping(report: &Report) -> impl Iterator<Item = &ResourceReport> {
    report.resources.iter().filter(|resource| resource.flapping)
}

/// The NodeConfigs of the catalog with resources that somebody else had changed.
fn drifted_from(report: &Report) -> Vec<String> {
    let has_drifted = |resource: &ResourceReport| {
        let corrected = resource.status == ResourceStatus::Changed && resource.corrective;
        corrected || resource.status == ResourceStatus::Pending || resource.flapping
    };
    let named: BTreeSet<&str> =
        report.resources.iter().filter(|r| has_drifted(r)).map(|resource| resource.id.node_config()).collect();
    let configs = report.revisions.iter().map(|revision| revision.node_config.as_str());
    configs.filter(|config| named.contains(config)).map(str::to_owned).collect()
}

/// Whether the run found resources that somebody else had changed, and which.
fn drift(report: &Report) -> (condition::Status, &'static str, String) {
    let Totals { corrected, pending, skipped, .. } = report.totals;
    let of = |wanted: fn(&ResourceReport) -> bool| -> Vec<&str> {
        report.resources.iter().filter(|resource| wanted(resource)).map(|resource| resource.id.as_str()).collect()
    };
    let differing = of(|resource| resource.status == ResourceStatus::Pending);
    let corrected_ones = of(|resource| resource.status == ResourceStatus::Changed && resource.corrective);
    let flapping: Vec<&str> = flapping(report).map(|resource| resource.id.as_str()).collect();
    let mut parts = Vec::new();
    if pending > 0 {
        let (resources, differ) = if pending == 1 { ("resource", "differs") } else { ("resources", "differ") };
        parts.push((DIFFERS, format!("{pending} {resources} {differ}: {}", named(&differing))));
    }
    if corrected > 0 {
        let were = if corrected == 1 { "resource was" } else { "resources were" };
        parts.push((CORRECTED, format!("{corrected} {were} corrected: {}", named(&corrected_ones))));
    }
    if !flapping.is_empty() {
        let (change, them, their) = if flapping.len() == 1 {
            ("changes", "it", "its guard is")
        } else {
            ("change", "them", "their guards are")
        };
        let why = format!("something else changes {them} back, or {their} wrong");
        parts.push((FLAPPING, format!("{} {change} at each run: {why}", named(&flapping))));
    }
    let resources = report.totals.resources();
    match parts.first() {
        Some((reason, _)) => {
            let messages: Vec<&str> = parts.iter().map(|(_, message)| message.as_str()).collect();
            (condition::Status::True, reason, clean(&messages.join("; ")))
        }
        None if resources > 0 && skipped == resources => {
            (condition::Status::Unknown, NOT_LOOKED, "the last run could not look at the resources".to_owned())
        }
        None => {
            (condition::Status::False, IN_PLACE, "the last run found nothing that somebody else had changed".to_owned())
        }
    }
}

/// Names of resources in words: `base/motd, base/issue and 2 more`.
fn named(ids: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = ids.iter().take(SHOWN).copied().collect();
    match ids.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A failed compilation, when the Host does not say so already.
pub(crate) fn compile_failed(host: &HostView, why: &str, now: Timestamp) -> Option<Write> {
    let message = clean(why);
    let applied = applied(host, condition::Status::False, COMPILE_FAILED, message, host.generation, now);
    (host.applied.as_ref() != Some(&applied)).then_some(Write::Compile(applied))
}

/// The end of a failed compilation, when the Host still tells of one. What the agent reported of this assignment holds
/// again; without a report the result is not known.
pub(crate) fn compiled_again(host: &HostView, now: Timestamp) -> Option<Write> {
    if host.applied.as_ref().is_none_or(|applied| applied.reason != COMPILE_FAILED) {
        return None;
    }
    let reported = host.active.as_ref().filter(|active| active.generation == host.generation);
    let (status, (reason, message)) = match reported {
        Some(active) => (active.converged.into(), verdict(active)),
        None => (
            condition::Status::Unknown,
            (COMPILED, "the catalog compiles again; the agent has not reported on it yet".to_owned()),
        ),
    };
    Some(Write::Compile(applied(host, status, reason, message, host.generation, now)))
}

fn verdict(active: &AppliedReport) -> (&'static str, String) {
    if active.converged {
        (CONVERGED, format!("each of {} resources is as its catalog says", active.resources))
    } else {
        let failures = active.message.clone();
        (
            RESOURCES_FAILED,
            failures.unwrap_or_else(|| "the run failed; the agent's log on the machine says why".to_owned()),
        )
    }
}

/// The condition `Applied` with what is new; its transition time moves with its status only.
fn applied(
    host: &HostView,
    status: condition::Status,
    reason: &str,
    message: String,
    generation: i64,
    now: Timestamp,
) -> Condition {
    conditioned(APPLIED, host.applied.as_ref(), status, reason, message, generation, now)
}

/// A condition with what is new, in place of the one that is known.
fn conditioned(
    type_: &str,
    known: Option<&Condition>,
    status: condition::Status,
    reason: &str,
    message: String,
    generation: i64,
    now: Timestamp,
) -> Condition {
    let status = status.as_str();
    let since = known.filter(|known| known.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: since.map_or(Time(now), |known| known.last_transition_time.clone()),
    }
}

/// The resources of this status in words: `base/motd: permission denied; and 2 more`.
fn words(report: &Report, status: ResourceStatus) -> String {
    const SHOWN: usize = 5;
    let of_status = || report.resources.iter().filter(|resource| resource.status == status);
    let mut parts: Vec<String> = of_status()
        .take(SHOWN)
        .map(|resource| match shorten(&resource.message, MAX_MESSAGE / SHOWN).trim() {
            "" => resource.id.to_string(),
            message => format!("{}: {message}", resource.id),
        })
        .collect();
    let more = of_status().count().saturating_sub(SHOWN);
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

/// Text of an agent, for people: one line, no control characters, bounded.
fn clean(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(printable.trim(), MAX_MESSAGE).to_owned()
}

/// At most so many bytes, cut between characters.
fn shorten(text: &str, bytes: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes).last().unwrap_or(0);
    &text[..end]
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Why a Host was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the API server can not be reached now; keep this and send it again")]
    Unavailable,
    #[error("the Host {0} is gone, or another one has its name now; drop this and fetch the catalog anew")]
    Gone(String),
    #[error("the API server refuses this: {0}")]
    Refused(String),
}

/// Reads and writes Hosts at the API server.
pub(crate) struct Hosts {
    api: Api<Host>,
    turns: Semaphore,
}

impl Hosts {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), turns: Semaphore::new(WRITES) }
    }

    /// Writes one part of a Host's status, and returns the Host as it is now.
    pub(crate) async fn write(&self, host: &HostIdentity, write: &Write) -> Result<Host, WriteError> {
        let patch = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Host",
            "metadata": { "name": host.name, "uid": host.uid },
            "status": write.status(),
        });
        // Forced: no one else may say what an agent reported.
        let params = PatchParams::apply(write.manager()).force();
        self.ask(host, self.api.patch_status(&host.name, &params, &Patch::Apply(patch))).await
    }

    /// The Host as the API server has it now.
    pub(crate) async fn read(&self, host: &HostIdentity) -> Result<Host, WriteError> {
        let found = self.ask(host, self.api.get(&host.name)).await?;
        if found.metadata.uid.as_ref() == Some(&host.uid) {
            Ok(found)
        } else {
            Err(WriteError::Gone(host.name.clone()))
        }
    }

    async fn ask(
        &self,
        host: &HostIdentity,
        request: impl Future<Output = kube::Result<Host>>,
    ) -> Result<Host, WriteError> {
        let in_turn = async {
            // Never closed.
            let _turn = self.turns.acquire().await;
            request.await
        };
        match timeout(WRITE_TIMEOUT, in_turn).await {
            Ok(Ok(host)) => Ok(host),
            // 409: the UID is another's.
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {
                Err(WriteError::Gone(host.name.clone()))
            }
            Ok(Err(error)) if unavailable(&error) => {
                tracing::warn!(%error, host = host.name, "a Host was not written");
                Err(WriteError::Unavailable)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, host = host.name, "the API server refuses a write; does this master's Role allow `get` on hosts and `patch` on hosts/status?");
                match error {
                    kube::Error::Api(status) if status.is_invalid() => Err(WriteError::Refused(status.message)),
                    _ => Err(WriteError::Unavailable),
                }
            }
            Err(_) => {
                tracing::warn!(host = host.name, "a Host was not written in time");
                Err(WriteError::Unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Digest, ResourceId, ResourceReport, RevisionRef};

    use super::*;
    use crate::testing::{assigned, content, host};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view() -> HostView {
        HostView::of(assigned(host("a"), &content("1"), 3)).unwrap()
    }

    fn told(outcome: Outcome, resources: &[(&str, ResourceStatus, &str)]) -> Report {
        let one = |(name, status, message): &(&str, ResourceStatus, &str)| {
            ResourceReport::new(ResourceId::new("base", name), "file", *status, (*message).to_owned())
        };
        told_of(outcome, resources.iter().map(one).collect())
    }

    fn told_of(outcome: Outcome, resources: Vec<ResourceReport>) -> Report {
        let mut totals = drover_catalog::Totals::default();
        for resource in &resources {
            totals.add(resource);
        }
        Report {
            totals,
            millis_by_type: std::collections::BTreeMap::new(),
            reboot_required: vec![],
            commands: vec![],
            host: view().identity,
            generation: 3,
            catalog: Digest::of(b"catalog"),
            revisions: vec![RevisionRef { node_config: "base".into(), revision: "base-1".into() }],
            outcome,
            resources,
            duration_millis: 5,
            boot_id: "boot".into(),
            agent_version: String::new(),
        }
    }

    /// The Host after the write.
    fn after(mut host: HostView, write: Write) -> HostView {
        match write {
            Write::Facts(facts) => host.facts = Some(*facts),
            Write::Report(reported) => {
                let Reported { active, applied, drifted } = *reported;
                (host.active, host.applied, host.drifted) = (Some(active), Some(applied), Some(drifted));
            }
            Write::Compile(applied) => host.applied = Some(applied),
        }
        host
    }

    #[test]
    fn an_equal_write_is_not_sent() {
        let host = view();
        let write = facts(&host, Facts::default()).unwrap();
        let host = after(host, write);
        assert_eq!(facts(&host, Facts::default()), None);

        let unchanged = told(Outcome::Converged, &[("motd", ResourceStatus::Unchanged, "")]);
        let write = report(&host, &unchanged, at(1)).unwrap();
        let host = after(host, write);
        assert_eq!(report(&host, &unchanged, at(2)), None);

        let write = compile_failed(&host, "why", at(3)).unwrap();
        let host = after(host, write);
        assert_eq!(compile_failed(&host, "why", at(4)), None);
        assert!(compile_failed(&host, "another reason", at(4)).is_some());
    }

    #[test]
    fn times_move_with_what_they_tell_of() {
        let times = |write: Option<Write>| match write {
            Some(Write::Report(reported)) => {
                (reported.active.last_change_time.map(|t| t.0), reported.applied.last_transition_time.0)
            }
            other => panic!("{other:?}"),
        };
        let changed = told(Outcome::Converged, &[("motd", ResourceStatus::Changed, "wrote it")]);
        let write = report(&view(), &changed, at(1));
        assert_eq!(times(write), (Some(at(1)), at(1)));
        let host = after(view(), report(&view(), &changed, at(1)).unwrap());
        // Nothing changed on the machine: the last change stays when it was. The condition stays True: so does its time.
        let unchanged = told(Outcome::Converged, &[("motd", ResourceStatus::Unchanged, "")]);
        assert_eq!(times(report(&host, &unchanged, at(2))), (Some(at(1)), at(1)));
        let failed = told(Outcome::Failed, &[("motd", ResourceStatus::Failed, "no space left")]);
        assert_eq!(times(report(&host, &failed, at(3))), (Some(at(1)), at(3)));
    }

    #[test]
    fn failures_are_told_in_words_and_within_bounds() {
        let long = "ü\n".repeat(2000);
        let rows: Vec<(String, ResourceStatus, &str)> = (0..20)
            .map(|i| (format!("r{i}"), ResourceStatus::Failed, if i == 0 { "no space left" } else { &long }))
            .collect();
        let rows: Vec<_> = rows.iter().map(|(name, status, message)| (name.as_str(), *status, *message)).collect();
        let Reported { active, applied, .. } = reported(&view(), &told(Outcome::Failed, &rows));
        assert!(applied.message.starts_with("base/r0: no space left; base/r1: ü ü"), "{}", applied.message);
        assert!(applied.message.len() <= MAX_MESSAGE && !applied.message.contains('\n'));
        assert_eq!((applied.status.as_str(), applied.reason.as_str()), ("False", RESOURCES_FAILED));
        assert_eq!((active.failed, active.resources, active.converged), (20, 20, false));

        let few = told(Outcome::Failed, &[("a", ResourceStatus::Failed, "x"), ("b", ResourceStatus::Skipped, "")]);
        assert_eq!(reported(&view(), &few).applied.message, "base/a: x");
        // An agent that contradicts itself is not believed to have converged.
        let odd = told(Outcome::Converged, &[("a", ResourceStatus::Failed, "x")]);
        let Reported { active, applied, .. } = reported(&view(), &odd);
        assert!(!active.converged && applied.status == "False");
    }

    fn reported(host: &HostView, told: &Report) -> Reported {
        match report(host, told, at(1)) {
            Some(Write::Report(reported)) => *reported,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn drift_is_told_by_name_and_ends() {
        use ResourceStatus::{Changed, Failed, Pending, Skipped, Unchanged};
        let resource = |(name, status, corrective, flapping): &(&str, ResourceStatus, bool, bool)| ResourceReport {
            corrective: *corrective,
            flapping: *flapping,
            ..ResourceReport::new(ResourceId::new("base", name), "file", *status, String::new())
        };
        let many: Vec<String> = (0..30).map(|number| format!("r{number:02}")).collect();
        let all_flap: Vec<_> = many.iter().map(|name| (name.as_str(), Changed, true, true)).collect();
        let quiet = "the last run found nothing that somebody else had changed";
        for (rows, expected) in [
            (&[("a", Unchanged, false, false)][..], format!("False InPlace {quiet}")),
            (&[], format!("False InPlace {quiet}")),
            (&[("a", Changed, false, false)], format!("False InPlace {quiet}")),
            (&[("a", Unchanged, false, false), ("b", Failed, false, false)], format!("False InPlace {quiet}")),
            (&[("a", Skipped, false, false)], "Unknown NotLooked the last run could not look at the resources".into()),
            (&[("a", Changed, true, false)], "True Corrected 1 resource was corrected: base/a".into()),
            (
                &[("a", Changed, true, false), ("b", Changed, false, false)],
                "True Corrected 1 resource was corrected: base/a".into(),
            ),
            (&[("a", Pending, true, false), ("b", Pending, true, false), ("c", Changed, true, false)],
             "True Differs 2 resources differ: base/a, base/b; 1 resource was corrected: base/c".into()),
            (&[("a", Pending, true, false)], "True Differs 1 resource differs: base/a".into()),
            (&[("c", Changed, true, true)],
             "True Corrected 1 resource was corrected: base/c; base/c changes at each run: something else changes it back, or its guard is wrong".into()),
            (&[("c", Changed, false, true), ("d", Unchanged, false, true)],
             "True Flapping base/c, base/d change at each run: something else changes them back, or their guards are wrong".into()),
            (&all_flap,
             "True Corrected 30 resources were corrected: base/r00, base/r01, base/r02, base/r03, base/r04 and 25 more; base/r00, base/r01, base/r02, base/r03, base/r04 and 25 more change at each run: something else changes them back, or their guards are wrong".into()),
        ] {
            let told = told_of(Outcome::Converged, rows.iter().map(resource).collect());
            let Reported { active, drifted, .. } = reported(&view(), &told);
            assert_eq!(format!("{} {} {}", drifted.status, drifted.reason, drifted.message), expected);
            assert_eq!(drifted.type_, DRIFTED);
            assert_eq!(active.drifted_from, if drifted.status == "True" { vec!["base"] } else { vec![] }, "{expected}");
            assert_eq!(active.flapping.len(), rows.iter().filter(|row| row.3).count().min(MAX_FLAPPING));
            assert_eq!(usize::try_from(active.pending).unwrap(), rows.iter().filter(|row| row.1 == Pending).count());
        }
    }

    #[test]
    fn drift_that_ends_is_written_and_drift_that_stays_is_not() {
        let differs = |name| {
            let id = ResourceId::new("base", name);
            let resource = ResourceReport::new(id, "file", ResourceStatus::Pending, String::new());
            told_of(Outcome::Converged, vec![ResourceReport { corrective: true, ..resource }])
        };
        let drifted = differs("a");
        let host = after(view(), report(&view(), &drifted, at(1)).unwrap());
        assert_eq!(report(&host, &drifted, at(2)), None);
        assert!(report(&host, &differs("b"), at(2)).is_some(), "another one");
        let quiet = told(Outcome::Converged, &[("a", ResourceStatus::Unchanged, "")]);
        let host = after(host.clone(), report(&host, &quiet, at(3)).unwrap());
        let known = host.drifted.as_ref().unwrap();
        assert_eq!((known.status.as_str(), known.last_transition_time.0), ("False", at(3)));
        assert_eq!(report(&host, &quiet, at(4)), None);
    }

    #[test]
    fn reasons_to_reboot_are_told_within_bounds() {
        let reasons: Vec<String> = (0..20).map(|number| format!("reason\n{number}")).collect();
        let told = Report { reboot_required: reasons, ..told(Outcome::Converged, &[]) };
        let Reported { active, .. } = reported(&view(), &told);
        assert_eq!((active.reboot_required.len(), active.reboot_required[1].as_str()), (MAX_REASONS, "reason 1"));
    }

    #[test]
    fn a_compilation_that_works_again_gives_back_what_was_reported() {
        let converged = told(Outcome::Converged, &[("motd", ResourceStatus::Unchanged, "")]);
        let host = after(view(), report(&view(), &converged, at(1)).unwrap());
        assert_eq!(compiled_again(&host, at(2)), None, "there was no failure");
        let failing = after(host.clone(), compile_failed(&host, "why", at(2)).unwrap());
        let Some(Write::Compile(applied)) = compiled_again(&failing, at(3)) else { panic!() };
        assert_eq!((applied.status.as_str(), applied.reason.as_str()), ("True", CONVERGED));
        assert_eq!(Some(applied.message), host.applied.map(|known| known.message));
        let never = after(view(), compile_failed(&view(), "why", at(1)).unwrap());
        let Some(Write::Compile(applied)) = compiled_again(&never, at(3)) else { panic!() };
        assert_eq!((applied.status.as_str(), applied.reason.as_str()), ("Unknown", COMPILED));
    }

    #[test]
    fn each_manager_owns_its_own_fields() {
        let fields = |write: Write| {
            let status = write.status();
            let keys: Vec<String> = status.as_object().unwrap().keys().cloned().collect();
            (write.manager(), keys.join(" "))
        };
        assert_eq!(fields(facts(&view(), Facts::default()).unwrap()), ("drover-master-facts", "facts".into()));
        let write = report(&view(), &told(Outcome::Converged, &[]), at(1)).unwrap();
        assert_eq!(fields(write), ("drover-master-report", "active conditions".into()));
        assert_eq!(
            fields(compile_failed(&view(), "why", at(1)).unwrap()),
            ("drover-master-compile", "conditions".into())
        );
    }
}

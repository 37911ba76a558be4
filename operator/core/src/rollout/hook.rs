//! Jobs that are run for a Rollout: by hooks at its turning points, and by gates. Each is made once for its place: its name
//! is told by the Rollout, the run, the place and the hook, so that whoever makes it again finds it there.

use drover_crds::{Gate, Hook, Rollout, keys};
use sha2::{Digest as _, Sha256};

use super::{request::Request, snapshot::Snapshot};
use crate::{
    metadata::{name, uid},
    revision::hexadecimal,
};

/// A Job that was made for a Rollout, as far as a Rollout is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobView {
    /// It was made and did not begin. It stays suspended after that where its template says so.
    Made {
        /// Whether its template has it suspended.
        suspended: bool,
    },
    /// It has not ended.
    Running,
    /// It is complete.
    Succeeded,
    /// It failed, for this reason, and will not be tried again.
    Failed(String),
}

/// A Job of a Rollout, and what it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutJob {
    /// How it is.
    pub state: JobView,
    /// Its UID.
    pub uid: String,
    /// The version that was read.
    pub resource_version: String,
    /// The run that it was made for, by its label.
    pub run: Option<i64>,
    /// Whether it was made for a machine.
    pub of_host: bool,
    /// The token of the hold on the machine that it was made for.
    pub token: Option<String>,
}

/// A Job that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The CronJob that it is made from.
    pub template: String,
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// The token of the hold on the machine that it is made for.
    pub token: Option<String>,
    /// The environment variables that each container gets.
    pub environment: Vec<(&'static str, String)>,
    /// How long it may take, in seconds.
    pub timeout_seconds: i32,
}

/// Where a hook is run or a gate is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// What it is called, such as `beforeBatch`.
    pub(super) what: &'static str,
    pub(super) run: i64,
    pub(super) revision: &'a str,
    pub(super) batch: Option<i32>,
    /// The Host's name, and the token of the hold on it.
    pub(super) host: Option<(&'a str, &'a str)>,
}

/// Why there is no Job that runs or has run.
#[derive(Debug)]
pub(super) enum Missing {
    /// Make this request first: it was not made yet, or did not begin.
    Request(Request),
    /// It could not be made, for this reason.
    Refused(String),
}

/// What the hooks of a place come to.
#[derive(Debug)]
pub(super) enum Progress {
    /// All of them were run.
    Done,
    /// Make this request first.
    Request(Request),
    /// One is waited for.
    Wait(String),
    /// One of them can not be run, for this reason.
    Stuck(String),
    /// One of them failed.
    Failed(String),
}

/// Runs the hooks of a place, one after the other.
pub(super) fn run(snapshot: &Snapshot, hooks: &[Hook], place: &Place<'_>) -> Progress {
    for hook in hooks {
        let wanted = wanted(snapshot, place, &hook.name, &hook.job_template_ref.name, hook.resolved_timeout_seconds());
        let job = wanted.name.clone();
        let shown = format!("hook {} ({})", hook.name, place.what);
        match find(snapshot, wanted) {
            Ok(JobView::Succeeded) => {}
            Ok(JobView::Failed(_)) if hook.ignores_failure() => {}
            Ok(JobView::Failed(why)) => {
                return Progress::Failed(format!("{shown} failed: {why}; see kubectl logs job/{job}"));
            }
            Ok(JobView::Made { .. } | JobView::Running) => return Progress::Wait(format!("{shown}: Job {job} runs")),
            Err(Missing::Request(request)) => return Progress::Request(request),
            Err(Missing::Refused(why)) => return Progress::Stuck(format!("{shown}: {why}")),
        }
    }
    Progress::Done
}

/// The Job of a gate, if it is one.
pub(super) fn gate_job<'a>(
    snapshot: &'a Snapshot,
    gate: &Gate,
    place: &Place<'_>,
) -> Result<Option<&'a JobView>, Missing> {
    let Some(job) = &gate.job else { return Ok(None) };
    let what = gate.name.as_deref().unwrap_or(&job.template_ref.name);
    // A dot can not be in the name of a hook.
    let wanted =
        wanted(snapshot, place, &format!("gate.{what}"), &job.template_ref.name, gate.resolved_timeout_seconds());
    find(snapshot, wanted).map(Some)
}

fn find(snapshot: &Snapshot, wanted: Wanted) -> Result<&JobView, Missing> {
    if let Some(job) = snapshot.jobs.get(&wanted.name) {
        let JobView::Made { suspended } = job.state else { return Ok(&job.state) };
        let (uid, resource_version) = (job.uid.clone(), job.resource_version.clone());
        return Err(Missing::Request(Request::StartJob { name: wanted.name, uid, resource_version, suspended }));
    }
    match snapshot.refused_jobs.get(&wanted.name) {
        Some(why) => Err(Missing::Refused(why.clone())),
        None => Err(Missing::Request(Request::CreateJob(Box::new(wanted)))),
    }
}

fn wanted(snapshot: &Snapshot, place: &Place<'_>, hook: &str, template: &str, timeout_seconds: i32) -> Wanted {
    let rollout = &snapshot.rollout;
    let mut labels =
        vec![(keys::ROLLOUT_LABEL, label_value(name(&rollout.metadata))), (keys::RUN_LABEL, place.run.to_string())];
    let mut environment = vec![
        ("DROVER_ROLLOUT", name(&rollout.metadata).to_owned()),
        ("DROVER_RUN", place.run.to_string()),
        ("DROVER_REVISION", place.revision.to_owned()),
    ];
    if let Some(batch) = place.batch {
        labels.push((keys::BATCH_LABEL, batch.to_string()));
        environment.push(("DROVER_BATCH", batch.to_string()));
    }
    if let Some((host, _)) = place.host {
        labels.push((keys::HOST_LABEL, label_value(host)));
        environment.push(("DROVER_HOST", host.to_owned()));
    }
    Wanted {
        name: job_name(rollout, place, hook),
        template: template.to_owned(),
        labels,
        token: place.host.map(|(_, token)| token.to_owned()),
        environment,
        timeout_seconds,
    }
}

/// `<rollout>-<hook>-<hash>`, at most 63 characters: a pod's label has it as well.
fn job_name(rollout: &Rollout, place: &Place<'_>, hook: &str) -> String {
    let Place { what, run, revision: _, batch, host } = place;
    let token = host.map(|(_, token)| token);
    let whole = (uid(&rollout.metadata), run, what, batch, token, hook);
    let hash = short_hash(&format!("{whole:?}"));
    let readable = format!("{}-{hook}", name(&rollout.metadata)).replace('.', "-");
    let readable: String = readable.chars().take(63 - 1 - hash.len()).collect();
    format!("{}-{hash}", readable.trim_end_matches('-'))
}

/// The value of a label for a name, which may be longer than a label's value.
pub fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    let hash = short_hash(name);
    let readable: String = name.chars().take(63 - 1 - hash.len()).collect();
    format!("{readable}-{hash}")
}

/// The first 40 bits of a SHA-256, in hexadecimal.
pub(super) fn short_hash(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes())[..5])
}

/// Removes a Job that nobody waits for: of an earlier run, or, of a machine that is done, one that succeeded or that somebody made
/// too late.
pub(super) fn tidy(snapshot: &Snapshot) -> Option<Request> {
    let status = snapshot.rollout.status.as_ref()?;
    let run = status.run.as_ref()?.number;
    let job = snapshot.jobs.iter().find(|(_, job)| {
        let ended = job.state != JobView::Running;
        let earlier = job.run.is_some_and(|its| its < run);
        let under_way = status.in_flight.iter().any(|entry| job.token.as_ref() == Some(&entry.token));
        let is_spent = matches!(job.state, JobView::Succeeded | JobView::Made { .. });
        let of_host_done = job.of_host && is_spent && !under_way;
        ended && (earlier || of_host_done)
    });
    job.map(|(name, job)| Request::DeleteJob { name: name.clone(), uid: job.uid.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_the_same_for_the_same_place_only() {
        let spec = serde_json::from_value(serde_json::json!({"nodeConfigRef": {"name": "base"}})).unwrap();
        let mut rollout = Rollout::new("base", spec);
        rollout.metadata.uid = Some("u1".into());
        let place = Place { what: "beforeBatch", run: 1, revision: "base-1", batch: Some(0), host: None };
        let first = job_name(&rollout, &place, "migrate");
        assert!(first.starts_with("base-migrate-") && first.len() == 23, "{first}");
        assert_eq!(first, job_name(&rollout, &Place { revision: "base-2", ..place }, "migrate"));
        let others = [
            job_name(&rollout, &Place { run: 2, ..place }, "migrate"),
            job_name(&rollout, &Place { batch: Some(1), ..place }, "migrate"),
            job_name(&rollout, &Place { what: "afterBatch", ..place }, "migrate"),
            job_name(&rollout, &Place { host: Some(("node-1", "a")), ..place }, "migrate"),
            job_name(&rollout, &Place { host: Some(("node-1", "b")), ..place }, "migrate"),
            job_name(&rollout, &place, "gate.migrate"),
        ];
        let all: std::collections::BTreeSet<_> = others.iter().chain([&first]).collect();
        assert_eq!(all.len(), 7);
        rollout.metadata.name = Some("a.long".repeat(40));
        let long = job_name(&rollout, &place, "migrate");
        assert!(long.len() <= 63 && !long.contains('.'), "{long}");
        assert_eq!(label_value(&"x".repeat(64)).len(), 63);
        assert_ne!(label_value(&"x".repeat(64)), label_value(&"x".repeat(65)));
    }
}

//! What comes before what across objects: other Rollouts, and the Jobs of hooks. Each Job is run once for its place.

use serde_json::Value;

use super::{Replay, claim, name, number, text, uid};
use crate::history::Kind;

const ROLLOUT_LABEL: &str = "drover.dev/rollout";
const RUN_LABEL: &str = "drover.dev/run";
const TOKEN: &str = "drover.dev/hold-token";

impl Replay {
    /// The first machine of a run is begun: the Rollouts that come first are complete, and so are the hooks before it.
    pub(super) fn run_begins(&mut self, rollout: &Value) {
        let first = list(&rollout["spec"]["dependsOn"]).iter().map(|other| text(&other["name"]).to_owned());
        for other in first.collect::<Vec<_>>() {
            if !self.get(Kind::Rollout, &other).is_some_and(|other| self.is_complete(other)) {
                self.wrong(format!("Rollout {} began before Rollout {other} was complete", name(rollout)));
            }
        }
        self.hooks_succeeded(rollout, "beforeRun", &rollout["status"]["run"]["number"], &Value::Null);
    }

    fn is_complete(&self, rollout: &Value) -> bool {
        let config = self.get(Kind::NodeConfig, text(&rollout["spec"]["nodeConfigRef"]["name"]));
        let status = &rollout["status"];
        let newest = config.is_some_and(|config| config["status"]["revision"] == status["run"]["revision"]);
        newest && status["phase"] == "Complete"
    }

    /// A machine changes, or is given back: the hooks that come before that were run for this hold on it.
    pub(super) fn host_hooks_succeeded(&mut self, host: &Value, place: &str) {
        let claim = claim(host).clone();
        let rollout = self.get(Kind::Rollout, text(&claim["rollout"])).cloned().unwrap_or_default();
        self.hooks_succeeded(&rollout, place, &claim["run"], &claim["token"]);
    }

    /// The Jobs of a place were run to their end.
    pub(super) fn hooks_succeeded(&mut self, rollout: &Value, place: &str, run: &Value, token: &Value) {
        for hook in list(&rollout["spec"]["hooks"][place]) {
            let prefix = format!("{}-{}-", name(rollout), text(&hook["name"]));
            let of_it = |job: &&Value| {
                let metadata = &job["metadata"];
                name(job).starts_with(&prefix)
                    && text(&metadata["labels"][RUN_LABEL]) == number(run).to_string()
                    && metadata["annotations"][TOKEN] == *token
            };
            let succeeded = self.jobs.values().filter(of_it).any(has_succeeded);
            if !succeeded {
                let of = token.as_str().unwrap_or("the run");
                self.wrong(format!(
                    "{}: hook {} of {of} was passed, and its Job had not succeeded",
                    name(rollout),
                    hook["name"]
                ));
            }
        }
    }

    /// A Job was written. What it did is done, and known also when it is removed.
    pub(super) fn job(&mut self, job: &Value) {
        // One that is suspended does nothing.
        if job["metadata"]["labels"][ROLLOUT_LABEL].is_null() || job["spec"]["suspend"] == true {
            return;
        }
        let (machine, job_name) = (text(&job["metadata"]["annotations"][TOKEN]).to_owned(), name(job).to_owned());
        if self.jobs.values().any(|other| name(other) == job_name && uid(other) != uid(job)) {
            self.wrong(format!("Job {job_name} was run twice"));
        }
        if !self.jobs.contains_key(uid(job)) && !machine.is_empty() && !self.is_entered(&machine) {
            self.wrong(format!("Job {job_name} was run for {machine}, which no ledger has"));
        }
        self.jobs.insert(uid(job).to_owned(), job.clone());
    }
}

fn has_succeeded(job: &Value) -> bool {
    list(&job["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == "Complete" && condition["status"] == "True")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

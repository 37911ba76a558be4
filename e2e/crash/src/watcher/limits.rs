//! Invariants 1, 4 and 7: whether a machine may be begun now.

use serde_json::Value;

use super::{Replay, claim, ledger, name, number, text, uid};
use crate::history::Kind;

impl Replay {
    /// A machine was entered in the ledger.
    pub(super) fn admitted(&mut self, before: &Value, after: &Value, entry: &Value) {
        let machine = text(&entry["host"]).to_owned();
        let Some(host) = self.get(Kind::Host, &machine).filter(|host| uid(host) == text(&entry["uid"])).cloned() else {
            return self.wrong(format!("{machine} was admitted, and there is no such Host"));
        };
        if claim(&host)["token"] == entry["token"] {
            // The claim was there, and the ledger had lost it: this is no admission.
            return;
        }
        if after["spec"]["paused"] == true {
            self.wrong(format!("{machine} was admitted while the Rollout was paused"));
        }
        if !after["metadata"]["deletionTimestamp"].is_null() {
            self.wrong(format!("{machine} was admitted while the Rollout was being deleted"));
        }
        for annotation in ["drover.dev/pause", "drover.dev/hold"] {
            if !after["metadata"]["annotations"][annotation].is_null() {
                self.wrong(format!("{machine} was admitted in spite of {annotation}"));
            }
        }
        let run = &after["status"]["run"];
        let goes_back = run["stopped"]["action"] == "Rollback";
        if goes_back && entry["revision"] == run["revision"] {
            self.wrong(format!("{machine} was admitted to the revision that is rolled back"));
        }
        if !run["stopped"].is_null() && !goes_back {
            self.wrong(format!("{machine} was admitted after the run was stopped"));
        }
        let total = self.of(Kind::Host).count();
        let strategy = &after["spec"]["strategy"];
        let (parallel, unavailable) =
            (limit(&strategy["maxParallel"], total), limit(&strategy["maxUnavailable"], total));
        if ledger(after).len() > parallel {
            self.wrong(format!("{machine} makes {} under way, and maxParallel is {parallel}", ledger(after).len()));
        }
        if ledger(after).len() > 1 && self.failed_last(after) {
            self.wrong(format!("{machine} is not alone under way, and nothing succeeded since the last failure"));
        }
        let out = self.out_of_service(after);
        if out.len() > unavailable {
            self.wrong(format!(
                "{machine} makes {} out of service, and maxUnavailable is {unavailable}",
                out.join(", ")
            ));
        }
        if goes_back {
            // The other way round, and each machine in the batch that it was begun in.
            return;
        }
        self.in_its_batch(after, entry, total);
        self.broken_first(before, after, &host);
    }

    /// Whether the machine of this run that ended last failed.
    fn failed_last(&self, rollout: &Value) -> bool {
        let run = &rollout["status"]["run"]["number"];
        let records = self.of(Kind::Host).flat_map(|host| host["status"]["runs"].as_array().into_iter().flatten());
        let of_run = records.filter(|record| record["rolloutUid"] == *uid(rollout) && record["run"] == *run);
        let ended: Vec<_> = of_run.map(|record| (text(&record["finishedAt"]), text(&record["outcome"]))).collect();
        let last = |wanted: &[&str]| {
            ended.iter().filter(|(_, outcome)| wanted.contains(outcome)).map(|(finished, _)| finished).max()
        };
        last(&["Failed"]) > last(&["Succeeded", "RolledBack"])
    }

    /// The machines that this Rollout has under way, and those that are out of service for another reason.
    fn out_of_service(&self, rollout: &Value) -> Vec<String> {
        let is_out = |host: &&Value| {
            let entered = ledger(rollout).iter().any(|entry| text(&entry["uid"]) == uid(host));
            entered || self.node_of(host).is_none_or(|node| !is_ready(node) || node["spec"]["unschedulable"] == true)
        };
        self.of(Kind::Host).filter(is_out).map(|host| name(host).to_owned()).collect()
    }

    /// Batches are entered one after the other, hold no more than they may, and no machine is in two.
    fn in_its_batch(&mut self, rollout: &Value, entry: &Value, total: usize) {
        let batch = number(&entry["batch"]);
        let machine = text(&entry["host"]);
        if ledger(rollout).iter().any(|other| number(&other["batch"]) < batch) {
            self.wrong(format!("{machine} of batch {batch} was admitted before the batch under way was done"));
        }
        let written = rollout["spec"]["strategy"]["batches"].as_array().cloned().unwrap_or_default();
        let size = usize::try_from(batch).ok().and_then(|index| written.get(index)).or(written.last());
        let size =
            size.filter(|batch| !batch["size"].is_null()).map_or(usize::MAX, |batch| limit(&batch["size"], total));
        let run = (uid(rollout).to_owned(), number(&rollout["status"]["run"]["number"]));
        if !self.batches.contains_key(&run) {
            self.run_begins(rollout);
        }
        let begun = self.batches.entry(run).or_default();
        let earlier = begun.insert(text(&entry["uid"]).to_owned(), batch);
        let members = begun.values().filter(|other| **other == batch).count();
        if earlier.is_some_and(|earlier| earlier != batch) {
            self.wrong(format!("{machine} was begun in batch {earlier:?} and in batch {batch}"));
        }
        if members > size {
            self.wrong(format!("{machine} is machine {members} of batch {batch}, which has {size}"));
        }
    }

    /// A run begins with the machines that an earlier one broke.
    fn broken_first(&mut self, before: &Value, after: &Value, admitted: &Value) {
        let run = number(&after["status"]["run"]["number"]);
        let is_broken = |host: &Value| {
            let records = host["status"]["runs"].as_array();
            let ours = records.into_iter().flatten().find(|record| text(&record["rolloutUid"]) == uid(after));
            ours.is_some_and(|record| record["outcome"] == "Failed" && number(&record["run"]) < run)
        };
        if is_broken(admitted) {
            return;
        }
        let waits = |host: &&Value| {
            let busy = ledger(before).iter().any(|entry| text(&entry["uid"]) == uid(host)) || !claim(host).is_null();
            is_broken(host) && !busy && self.node_of(host).is_some_and(is_ready)
        };
        let broken = self.of(Kind::Host).find(waits).map(|host| name(host).to_owned());
        if let Some(broken) = broken {
            self.wrong(format!("{} was admitted before {broken}, which an earlier run broke", name(admitted)));
        }
    }

    /// The machines that a Rollout holds are as many as may be.
    pub(super) fn claimed(&mut self, rollout: &Value) {
        let total = self.of(Kind::Host).count();
        let may = limit(&rollout["spec"]["strategy"]["maxParallel"], total);
        // The claim that is being written now is one more.
        let held = 1 + self.of(Kind::Host).filter(|host| text(&claim(host)["rolloutUid"]) == uid(rollout)).count();
        if held > may {
            self.wrong(format!("{held} machines are claimed by {}, and maxParallel is {may}", name(rollout)));
        }
    }
}

/// A number, or a percentage of all rounded down, but at least 1; 1 where nothing is written.
pub(super) fn limit(value: &Value, total: usize) -> usize {
    match value {
        Value::Number(count) => count.as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1),
        Value::String(share) => {
            let share: usize = share.trim_end_matches('%').parse().unwrap_or(0);
            (total * share / 100).max(1)
        }
        _ => 1,
    }
}

pub(super) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

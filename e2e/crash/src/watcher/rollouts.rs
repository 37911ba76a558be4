//! Invariants 2, 5 and 6 of a Rollout: its ledger, its counts, its run.

use serde_json::Value;

use super::{Replay, claim, ledger, name, number, text, uid};
use crate::history::Kind;

impl Replay {
    /// A Rollout was written.
    pub(super) fn rollout(&mut self, before: Option<&Value>, after: &Value) {
        let nothing = Value::Null;
        let before = before.unwrap_or(&nothing);
        for entry in ledger(after) {
            match ledger(before).iter().find(|known| known["token"] == entry["token"]) {
                None => self.admitted(before, after, entry),
                Some(known) if known["since"] != entry["since"] => {
                    self.wrong(format!("{} was admitted at another time by now", text(&entry["host"])));
                }
                Some(_) => {}
            }
        }
        for entry in ledger(before) {
            let stays = ledger(after).iter().any(|kept| kept["token"] == entry["token"]);
            let held = self
                .get(Kind::Host, text(&entry["host"]))
                .is_some_and(|host| uid(host) == text(&entry["uid"]) && claim(host)["token"] == entry["token"]);
            if held && !stays {
                self.wrong(format!("{} left the ledger while it is claimed", text(&entry["host"])));
            }
        }
        let mut machines: Vec<&str> = ledger(after).iter().map(|entry| text(&entry["host"])).collect();
        machines.sort_unstable();
        machines.dedup();
        if machines.len() < ledger(after).len() {
            self.wrong("a machine is in the ledger twice".to_owned());
        }
        self.run(before, after);
        self.counts(after);
        if before["status"]["phase"] != "Complete" && after["status"]["phase"] == "Complete" {
            self.complete(after);
        }
    }

    fn run(&mut self, before: &Value, after: &Value) {
        let (old, new) = (&before["status"]["run"], &after["status"]["run"]);
        if new.is_null() {
            if !old.is_null() {
                self.wrong("the run was forgotten".to_owned());
            }
            return;
        }
        if old["number"] == new["number"] {
            if old["startedAt"] != new["startedAt"] || old["revision"] != new["revision"] {
                self.wrong(format!("run {} became another one", new["number"]));
            }
            return;
        }
        if number(&new["number"]) != number(&old["number"]) + 1 {
            self.wrong(format!("run {} follows run {}", new["number"], old["number"]));
        }
        // What is finished may leave the ledger with the same write; what is held may not.
        let held = self.of(Kind::Host).any(|host| {
            let claim = &host["status"]["claim"];
            claim["rolloutUid"] == *uid(after) && claim["run"] == old["number"]
        });
        if held || !ledger(after).is_empty() {
            self.wrong(format!("run {} began while machines of the one before are under way", new["number"]));
        }
    }

    fn counts(&mut self, after: &Value) {
        let counts = &after["status"]["counts"];
        if counts.is_null() {
            return;
        }
        let count = |what: &str| number(&counts[what]);
        let sum = count("pending") + count("inFlight") + count("updated") + count("failed");
        // Places that later features add count as well: whatever is no sum and no overlap.
        let others: i64 = counts
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(what, _)| {
                !["total", "pending", "inFlight", "updated", "failed", "unavailable"].contains(&what.as_str())
            })
            .map(|(_, count)| number(count))
            .sum();
        if sum != count("total") && sum + others != count("total") {
            self.wrong(format!("the counts do not add up: {counts}"));
        }
        let batches = after["status"]["batches"].as_array().cloned().unwrap_or_default();
        if batches.iter().any(|batch| number(&batch["updated"]) + number(&batch["failed"]) > number(&batch["total"])) {
            self.wrong("a batch has more done than it has machines".to_owned());
        }
        if batches.iter().map(|batch| number(&batch["total"])).sum::<i64>() > count("total") {
            self.wrong("the batches have more machines than there are".to_owned());
        }
    }

    fn complete(&mut self, after: &Value) {
        let counts = &after["status"]["counts"];
        let (total, updated) = (number(&counts["total"]), number(&counts["updated"]));
        // Machines that somebody leaves out are done as well.
        if total == 0 || updated + number(&counts["skipped"]) != total {
            self.wrong(format!("complete at {updated}/{total}"));
        }
        self.hooks_succeeded(after, "afterRun", &after["status"]["run"]["number"], &Value::Null);
        if !ledger(after).is_empty() {
            self.wrong("complete while machines are under way".to_owned());
        }
        let revision = text(&after["status"]["run"]["revision"]);
        let has_it = |host: &&Value| {
            let active = &host["status"]["active"];
            let mut revisions = active["revisions"].as_array().into_iter().flatten();
            active["converged"] == true && revisions.any(|active| text(&active["revision"]) == revision)
        };
        let have = self.of(Kind::Host).filter(has_it).count();
        if i64::try_from(have).unwrap_or(i64::MAX) < updated {
            self.wrong(format!("complete, {updated} updated, and {have} have reported {revision}"));
        }
    }

    /// A Rollout is gone: it holds nothing.
    pub(super) fn rollout_gone(&mut self, last: &Value) {
        if !ledger(last).is_empty() {
            self.wrong(format!("Rollout {} is gone with machines under way", name(last)));
        }
        let held = self.of(Kind::Host).find(|host| text(&claim(host)["rolloutUid"]) == uid(last));
        if let Some(host) = held.map(|host| name(host).to_owned()) {
            self.wrong(format!("Rollout {} is gone and holds {host}", name(last)));
        }
        let prefix = format!("{}.", name(last));
        let marked =
            self.of(Kind::Node).find(|node| super::nodes::marks(node).iter().any(|mark| mark.starts_with(&prefix)));
        if let Some(node) = marked.map(|node| name(node).to_owned()) {
            self.wrong(format!("Rollout {} is gone and its mark is on {node}", name(last)));
        }
    }
}

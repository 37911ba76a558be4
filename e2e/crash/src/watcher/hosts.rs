//! Invariants 1, 2, 3 and 6 of a Host: its claim, the steps, what is assigned.

use serde_json::Value;

use super::{Replay, claim, ledger, name, number, text, uid};
use crate::history::Kind;

const STEPS: [&str; 11] = [
    "Claim",
    "BeforeHost",
    "LeaveLoadBalancer",
    "Cordon",
    "Drain",
    "DetachVolumes",
    "Apply",
    "Reboot",
    "Verify",
    "AfterHost",
    "Restore",
];

impl Replay {
    /// A Host was written.
    pub(super) fn host(&mut self, before: Option<&Value>, after: &Value) {
        let nothing = Value::Null;
        let before = before.unwrap_or(&nothing);
        let (old, new) = (claim(before), claim(after));
        match (old.is_null(), new.is_null()) {
            (true, false) => self.taken(after, new),
            (false, true) => self.given_back(before, after, old),
            (false, false) if old["token"] != new["token"] => {
                self.wrong(format!("{} went from one hold to another: {} {}", name(after), old["token"], new["token"]));
            }
            (false, false) => self.went_on(after, old, new),
            (true, true) => {}
        }
        self.assigned(before, after);
    }

    /// The ledger has it first, and what the machine was like is recorded with it.
    fn taken(&mut self, host: &Value, claim: &Value) {
        let rollout = self.get(Kind::Rollout, text(&claim["rollout"])).cloned().unwrap_or_default();
        let entered = ledger(&rollout).iter().any(|entry| {
            entry["token"] == claim["token"] && text(&entry["host"]) == name(host) && text(&entry["uid"]) == uid(host)
        });
        if !entered || uid(&rollout) != text(&claim["rolloutUid"]) {
            self.wrong(format!("{} was claimed by {}, whose ledger does not have it", name(host), claim["rollout"]));
        }
        self.claimed(&rollout);
        // The first step is recorded with the claim; what it does to a Node comes after that.
        if !["Claim", "BeforeHost", "LeaveLoadBalancer", "Cordon", "Apply"].contains(&text(&claim["step"])) {
            self.wrong(format!("{} was claimed at step {}", name(host), claim["step"]));
        }
        let restore = &host["status"]["restore"];
        let node = self.node_of(host).cloned().unwrap_or_default();
        let cordoned = node["spec"]["unschedulable"] == true;
        if restore.is_null() || (restore["cordoned"] == true) != cordoned {
            self.wrong(format!("{} was claimed, and what it was like was recorded as {restore}", name(host)));
        }
    }

    /// The machine is as it was before.
    fn given_back(&mut self, before: &Value, host: &Value, old: &Value) {
        let machine = name(host).to_owned();
        // Where nothing was done to the Node, there is no step of its own for giving it back.
        let marks = ["drover.dev/cordoned-by", "drover.dev/excluded-by"];
        let marked = self
            .node_of(host)
            .is_some_and(|node| marks.iter().any(|mark| node["metadata"]["annotations"][*mark] == old["token"]));
        let changed = ["Apply", "Reboot", "Verify", "AfterHost"].contains(&text(&old["step"]));
        if old["step"] != "Restore" && (marked || !changed) {
            self.wrong(format!("{machine} was given back at step {}", old["step"]));
        }
        let records = host["status"]["runs"].as_array();
        let record = records.into_iter().flatten().find(|record| record["rolloutUid"] == old["rolloutUid"]);
        if record.is_some_and(|record| record["outcome"] == "Succeeded" && record["run"] == old["run"]) {
            self.host_hooks_succeeded(before, "afterHost");
        }
        if !self.is_entered(text(&old["token"])) {
            self.wrong(format!("{machine} was given back, and the ledger had lost it"));
        }
        let Some(node) = self.node_of(host).cloned() else { return };
        let restore = &before["status"]["restore"];
        let cordoned = node["spec"]["unschedulable"] == true;
        let label = &node["metadata"]["labels"][super::nodes::EXCLUDED_LABEL];
        if cordoned != (restore["cordoned"] == true) || *label != restore["loadBalancerLabel"] {
            self.wrong(format!(
                "{machine} was given back, and its node is not as it was: cordoned {cordoned}, label {label}"
            ));
        }
        if super::nodes::marks(&node).contains(&text(&old["token"])) {
            self.wrong(format!("{machine} was given back with a mark on its node"));
        }
    }

    /// Steps go forward, and a deadline counts from when the step began, whoever counts.
    fn went_on(&mut self, host: &Value, old: &Value, new: &Value) {
        let place = |claim: &Value| STEPS.iter().position(|step| claim["step"] == *step);
        if place(new) < place(old) {
            self.wrong(format!("{} went back from {} to {}", name(host), old["step"], new["step"]));
        }
        if old["step"] == new["step"] && old["stepStartedAt"] != new["stepStartedAt"] {
            self.wrong(format!("{}: the time of step {} began anew", name(host), new["step"]));
        }
        let same = ["rollout", "rolloutUid", "run", "batch", "target"].iter().all(|field| old[*field] == new[*field]);
        if !same {
            self.wrong(format!("{}: the claim became another one under the same token", name(host)));
        }
        if !old["failure"].is_null() && old["failure"] != new["failure"] {
            self.wrong(format!("{}: its failure was forgotten", name(host)));
        }
    }

    /// An assignment changes at the step `Apply`; or, of a machine that nobody holds, to what a Rollout completed.
    fn assigned(&mut self, before: &Value, after: &Value) {
        let (old, new) = (&before["status"]["assigned"], &after["status"]["assigned"]);
        let generation = |host: &Value| number(&host["status"]["assignedGeneration"]);
        if old == new && generation(before) == generation(after) {
            return;
        }
        let machine = name(after).to_owned();
        if generation(after) != generation(before) + 1 {
            self.wrong(format!("{machine}: generation {} follows {}", generation(after), generation(before)));
        }
        let known = |assignment: &&Value| old.as_array().is_some_and(|old| old.contains(assignment));
        let added: Vec<Value> =
            new.as_array().into_iter().flatten().filter(|assignment| !known(assignment)).cloned().collect();
        let claim = claim(after).clone();
        if claim.is_null() {
            for assignment in added {
                if !self.completed.contains(text(&assignment["revision"])) {
                    self.wrong(format!("{machine} got {assignment}, which nobody completed, and nobody holds it"));
                }
            }
            return;
        }
        if claim["step"] != "Apply" {
            self.wrong(format!("{machine}: what is assigned changed at step {}", claim["step"]));
        }
        self.host_hooks_succeeded(after, "beforeHost");
        if added.iter().any(|assignment| *assignment != claim["target"]) {
            self.wrong(format!("{machine} got something else than its claim says"));
        }
        self.is_drained(after, &claim);
    }

    /// Where nodes are drained, nothing changes before the node is.
    fn is_drained(&mut self, host: &Value, claim: &Value) {
        let drains = self
            .get(Kind::Rollout, text(&claim["rollout"]))
            .is_some_and(|rollout| !rollout["spec"]["disruption"]["drain"].is_null());
        let Some(node) = self.node_of(host).filter(|_| drains).cloned() else { return };
        if node["spec"]["unschedulable"] != true {
            self.wrong(format!("{} changes, and its node is not cordoned", name(host)));
        }
        let before = self.to_drain.get(name(&node)).cloned().unwrap_or_default();
        let left = self.of(Kind::Pod).find(|pod| before.contains(uid(pod)) && !has_finished(pod));
        if let Some(pod) = left.map(|pod| name(pod).to_owned()) {
            self.wrong(format!("{} changes, and pod {pod} is still there", name(host)));
        }
    }
}

fn has_finished(pod: &Value) -> bool {
    matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
}

//! Invariants 2 and 3 of a Node and its pods: cordon, label, evictions.

use serde_json::Value;

use super::{Replay, claim, name, text, uid};
use crate::history::Kind;

pub(super) const EXCLUDED_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const CORDONED_BY: &str = "drover.dev/cordoned-by";
const EXCLUDED_BY: &str = "drover.dev/excluded-by";

/// The tokens of the holds that marked a Node.
pub(super) fn marks(node: &Value) -> Vec<&str> {
    let annotations = &node["metadata"]["annotations"];
    [CORDONED_BY, EXCLUDED_BY].iter().filter_map(|mark| annotations[*mark].as_str()).collect()
}

impl Replay {
    /// A Node was written.
    pub(super) fn node(&mut self, before: Option<&Value>, after: &Value) {
        let Some(before) = before else {
            if !marks(after).is_empty() {
                self.wrong(format!("Node {} came with a mark", name(after)));
            }
            return;
        };
        let cordoned = |node: &Value| node["spec"]["unschedulable"] == true;
        let excluded = |node: &Value| !node["metadata"]["labels"][EXCLUDED_LABEL].is_null();
        let changes = [
            ("cordoned", CORDONED_BY, cordoned(before), cordoned(after), &["Cordon", "Drain"][..]),
            ("excluded", EXCLUDED_BY, excluded(before), excluded(after), &["LeaveLoadBalancer"][..]),
        ];
        for (what, mark, was, is, steps) in changes {
            let of = |node: &Value| text(&node["metadata"]["annotations"][mark]).to_owned();
            let (old, new) = (of(before), of(after));
            match (was, is) {
                (false, true) => self.taken_out(after, what, &new, steps),
                (true, false) => self.put_back(after, what, &old, &new),
                _ if old != new => self.wrong(format!("{}: the mark of who {what} it changed alone", name(after))),
                _ => {}
            }
        }
        if !cordoned(before) && cordoned(after) {
            let on_it =
                self.of(Kind::Pod).filter(|pod| text(&pod["spec"]["nodeName"]) == name(after) && is_movable(pod));
            let pods = on_it.map(|pod| uid(pod).to_owned()).collect();
            self.to_drain.insert(name(after).to_owned(), pods);
        }
    }

    /// By us, while the claim says that it is at this step and the ledger has it.
    fn taken_out(&mut self, node: &Value, what: &str, mark: &str, steps: &[&str]) {
        let machine = name(node).to_owned();
        if mark.is_empty() {
            return self.wrong(format!("{machine} was {what}, and nobody says so"));
        }
        let claim = self.host_of(node).map(claim).cloned().unwrap_or_default();
        if text(&claim["token"]) != mark || !steps.contains(&text(&claim["step"])) {
            self.wrong(format!(
                "{machine} was {what} by {mark}, and its claim is at {} of {}",
                claim["step"], claim["token"]
            ));
        }
        if !self.is_entered(mark) {
            self.wrong(format!("{machine} was {what} by {mark}, which no ledger has"));
        }
    }

    /// What we did, at the end of the hold; or after it, where somebody did it too late.
    fn put_back(&mut self, node: &Value, what: &str, old: &str, new: &str) {
        let machine = name(node).to_owned();
        if old.is_empty() || !new.is_empty() {
            return self.wrong(format!("{machine} is no longer {what}, and that was not ours to change"));
        }
        let claim = self.host_of(node).map(claim).cloned().unwrap_or_default();
        let at_its_end = text(&claim["token"]) == old && claim["step"] == "Restore";
        if !at_its_end && self.is_entered(old) {
            self.wrong(format!("{machine} is no longer {what} while its claim is at {}", claim["step"]));
        }
    }

    /// A pod was written: if it is being evicted, its node is being drained.
    pub(super) fn pod(&mut self, before: Option<&Value>, after: &Value) {
        if !is_evicted(after) || before.is_some_and(is_evicted) {
            return;
        }
        let node = self.get(Kind::Node, text(&after["spec"]["nodeName"])).cloned().unwrap_or_default();
        let step = self.host_of(&node).map(|host| claim(host)["step"].clone()).unwrap_or_default();
        if step != "Drain" || node["spec"]["unschedulable"] != true {
            self.wrong(format!("pod {} was evicted while {} was at step {step}", name(after), name(&node)));
        }
    }
}

/// The API server's eviction marks a pod before it deletes it.
fn is_evicted(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["reason"] == "EvictionByEvictionAPI")
}

/// Whether a drain waits for the pod.
fn is_movable(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let daemon = owners.into_iter().flatten().any(|owner| owner["kind"] == "DaemonSet");
    let finished = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    !daemon && !finished
}

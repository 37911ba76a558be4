//! Judges what happened, version by version, by the invariants 1 to 7 of the design.
//!
//! It reads the objects as JSON, as anybody else does, and shares no code with what decides: a mistake there is not made
//! here as well. Only what the API server committed counts, in the order in which it did.

mod hosts;
mod limits;
mod nodes;
mod order;
mod rollouts;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use crate::history::{Kind, Log, Version};

/// What is wrong with a history; nothing, if all is well.
pub(crate) fn judge(log: &Log) -> Vec<String> {
    judge_versions(&log.before, &log.versions)
}

fn judge_versions(before: &[Arc<Version>], versions: &[Arc<Version>]) -> Vec<String> {
    let mut replay = Replay::default();
    for version in before {
        replay.keep(version);
    }
    let mut versions = versions.to_vec();
    versions.sort_by_key(|version| version.revision);
    for version in &versions {
        replay.now = version.revision;
        replay.look(version);
        replay.keep(version);
    }
    replay.violations
}

/// The world at one moment, and what is to be remembered of earlier ones.
#[derive(Default)]
struct Replay {
    now: u64,
    objects: BTreeMap<(Kind, String), Arc<Version>>,
    /// Which batch a machine was begun in: by Rollout and run, then by the Host's UID.
    batches: BTreeMap<(String, i64), BTreeMap<String, i64>>,
    /// The pods that were on a Node when it was cordoned, by UID.
    to_drain: BTreeMap<String, BTreeSet<String>>,
    /// The Jobs that were made for Rollouts, as they were last, by UID.
    jobs: BTreeMap<String, Value>,
    /// The revisions that some Rollout completed.
    completed: BTreeSet<String>,
    violations: Vec<String>,
}

impl Replay {
    fn look(&mut self, version: &Version) {
        let before = self.objects.get(&(version.kind, version.name.clone())).cloned();
        // Another object under the same name is another object.
        let before = before.filter(|before| uid(&before.object) == uid(&version.object));
        let before = before.as_ref().map(|before| &before.object);
        match version.kind {
            Kind::Rollout if version.deleted => self.rollout_gone(&version.object),
            Kind::Rollout => self.rollout(before, &version.object),
            Kind::Host if !version.deleted => self.host(before, &version.object),
            Kind::Node if !version.deleted => self.node(before, &version.object),
            Kind::Pod if !version.deleted => self.pod(before, &version.object),
            Kind::NodeConfig => self.node_config(&version.object),
            Kind::Job if !version.deleted => self.job(&version.object),
            Kind::Host | Kind::Job | Kind::Node | Kind::Pod => {}
        }
    }

    fn keep(&mut self, version: &Arc<Version>) {
        let key = (version.kind, version.name.clone());
        if version.deleted {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, Arc::clone(version));
        }
    }

    fn wrong(&mut self, what: impl std::fmt::Display) {
        self.violations.push(format!("at version {}: {what}", self.now));
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        self.objects.values().filter(move |version| version.kind == kind).map(|version| &version.object)
    }

    fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned())).map(|version| &version.object)
    }

    /// The Node that a Host stands for, if it is still the same one.
    fn node_of(&self, host: &Value) -> Option<&Value> {
        let reference = &host["spec"]["nodeRef"];
        let node = self.get(Kind::Node, text(&reference["name"]))?;
        (uid(node) == text(&reference["uid"])).then_some(node)
    }

    /// The Host that stands for a Node.
    fn host_of(&self, node: &Value) -> Option<&Value> {
        self.of(Kind::Host).find(|host| text(&host["spec"]["nodeRef"]["uid"]) == uid(node))
    }

    /// Whether some Rollout's ledger has an entry with this token.
    fn is_entered(&self, token: &str) -> bool {
        self.of(Kind::Rollout).any(|rollout| ledger(rollout).iter().any(|entry| text(&entry["token"]) == token))
    }

    fn node_config(&mut self, config: &Value) {
        if let Some(revision) = config["status"]["completedRevision"].as_str() {
            self.completed.insert(revision.to_owned());
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn uid(object: &Value) -> &str {
    text(&object["metadata"]["uid"])
}

/// The entries of a Rollout's ledger.
fn ledger(rollout: &Value) -> &[Value] {
    rollout["status"]["inFlight"].as_array().map_or(&[], Vec::as_slice)
}

/// A Host's claim; null if there is none.
fn claim(host: &Value) -> &Value {
    &host["status"]["claim"]
}

//! What happened, from the API server's own records: its audit log tells of each write in full, also of those that a
//! watch never shows because the next one came too soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::PathBuf,
};

use drover_crds::keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL;
use serde::Deserialize;
use serde_json::Value;

/// The audit log from the beginning of a story.
pub struct Audit {
    path: PathBuf,
    from: u64,
}

/// A Node after a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// It takes no new pods.
    pub cordoned: bool,
    /// It has the label that takes it out of load balancers.
    pub excluded: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    response_object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: u16,
}

impl Audit {
    /// From now on.
    pub(crate) fn from_now(path: PathBuf) -> Self {
        let from = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len();
        Self { path, from }
    }

    /// All Nodes that were written to, after each write, in the order of the writes.
    pub fn nodes(&self) -> Vec<BTreeMap<String, NodeState>> {
        let mut writes: Vec<(u64, String, NodeState)> = self
            .entries()
            .filter(|entry| entry.succeeded("nodes", ""))
            .map(|entry| {
                let node = entry.response_object;
                let version = node["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
                let state = NodeState {
                    cordoned: node["spec"]["unschedulable"] == true,
                    excluded: !node["metadata"]["labels"][EXCLUDE_FROM_LOAD_BALANCERS_LABEL].is_null(),
                };
                (
                    version.expect("a written Node has a version"),
                    node["metadata"]["name"].as_str().unwrap().to_owned(),
                    state,
                )
            })
            .collect();
        // The log has the order in which answers were sent; versions have the order in which writes happened.
        writes.sort_by_key(|(version, ..)| *version);
        let mut nodes = BTreeMap::new();
        let after = |(_, name, state)| {
            nodes.insert(name, state);
            nodes.clone()
        };
        writes.into_iter().map(after).collect()
    }

    /// The pods whose eviction was granted, by name.
    pub fn evicted(&self) -> BTreeSet<String> {
        let granted = self.entries().filter(|entry| entry.verb == "create" && entry.succeeded("pods", "eviction"));
        granted.filter_map(|entry| Some(entry.object_ref?.name)).collect()
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut log = File::open(&self.path).unwrap();
        log.seek(SeekFrom::Start(self.from)).unwrap();
        let lines = BufReader::new(log).lines().map(Result::unwrap);
        lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("the audit log: {error}: {line}")))
    }
}

impl Entry {
    fn succeeded(&self, resource: &str, subresource: &str) -> bool {
        let about = self.object_ref.as_ref().is_some_and(|o| o.resource == resource && o.subresource == subresource);
        about && self.response_status.as_ref().is_some_and(|status| (200..300).contains(&status.code))
    }
}

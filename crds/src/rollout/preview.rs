//! What a run will do to its machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ChangeCost;

/// What a run does to its machines: how many of them by what the change costs each, and the first of them one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The revision that it is about.
    pub revision: String,
    /// The machine reboots.
    pub reboot: i32,
    /// Its pods leave.
    pub drain: i32,
    /// A service is away for a moment.
    pub restart: i32,
    /// A service reads its configuration again.
    pub reload: i32,
    /// Something changes, and nobody notices.
    pub none: i32,
    /// Nothing changes.
    pub noop: i32,
    /// It is not known what the change costs, which counts as the most.
    pub unknown: i32,
    /// The first 20 machines, in the order in which they are begun.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub first_hosts: Vec<HostPreview>,
}

/// What a run does to one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPreview {
    /// The Host's name.
    pub host: String,
    /// The name of its batch.
    pub batch: String,
    /// What the change costs it; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<ChangeCost>,
    /// What is done to it, in words and in order, such as `leaves load balancers`, `drained`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steps: Vec<String>,
}

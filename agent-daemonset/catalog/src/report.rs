use serde::{Deserialize, Serialize};

use crate::{Digest, HostIdentity, ResourceId, RevisionRef};

/// What one run of an agent did. It holds no content, no diff and no command output that could carry a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The host that the applied catalog was made for.
    pub host: HostIdentity,
    /// The catalog's assignment generation.
    pub generation: i64,
    /// The catalog's digest.
    pub catalog: Digest,
    /// The revisions that the catalog was made of.
    pub revisions: Vec<RevisionRef>,
    /// How the run ended.
    pub outcome: Outcome,
    /// One entry for each resource of the catalog, in the order they were visited.
    pub resources: Vec<ResourceReport>,
    /// How long the run took, in milliseconds.
    pub duration_millis: u64,
    /// The kernel's boot id while the run went on: it changes with each reboot.
    #[serde(default)]
    pub boot_id: String,
    /// The agent's version.
    #[serde(default)]
    pub agent_version: String,
}

impl Report {
    /// How many resources ended in this way.
    pub fn count(&self, status: ResourceStatus) -> usize {
        self.resources.iter().filter(|r| r.status == status).count()
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Each resource is as the catalog says.
    Converged,
    /// At least one resource failed.
    Failed,
}

/// How one resource ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// Which resource.
    pub id: ResourceId,
    /// How it ended.
    pub status: ResourceStatus,
    /// For people: what was changed, or why it failed and what to do. Empty for an unchanged one; at most 1,000 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How one resource ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceStatus {
    /// It was as the catalog says.
    Unchanged,
    /// It was made so.
    Changed,
    /// It could not be made so.
    Failed,
    /// It was not tried, because something that it requires failed.
    Skipped,
    /// It cannot be done here and now, and that is no failure: a service in a folder that stands for a machine.
    Deferred,
}

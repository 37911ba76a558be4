use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CommandResult, Digest, HostIdentity, ResourceId, RevisionRef};

/// What one run of an agent did. It holds no content, no diff and no output of a resource's command, which could carry a secret.
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
    /// How many resources ended how; their sum is that of all resources of the catalog.
    #[serde(default)]
    pub totals: Totals,
    /// One entry for each resource that did not end unchanged, in the order they were visited, and for each flapping one.
    pub resources: Vec<ResourceReport>,
    /// How long the resources of each type took, in milliseconds.
    #[serde(default)]
    pub millis_by_type: BTreeMap<String, u64>,
    /// How long the run took, in milliseconds.
    pub duration_millis: u64,
    /// Why the machine must reboot; empty when it need not.
    #[serde(default)]
    pub reboot_required: Vec<String>,
    /// The kernel's boot id while the run went on: it changes with each reboot.
    #[serde(default)]
    pub boot_id: String,
    /// How the catalog's commands ended that were run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandResult>,
    /// The agent's version.
    #[serde(default)]
    pub agent_version: String,
}

/// How many resources of a run ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Were as the catalog says.
    pub unchanged: u32,
    /// Were made so, because the catalog was new.
    pub changed: u32,
    /// Were made so, although the catalog had been applied: somebody else had changed the machine.
    pub corrected: u32,
    /// Differ, and were left so: by `--noop`, or by their drift mode `Report`.
    pub pending: u32,
    /// Could not be made so.
    pub failed: u32,
    /// Were not tried, because something that they require failed.
    pub skipped: u32,
    /// Cannot be made so here and now, and that is no failure.
    pub deferred: u32,
    /// Of all of these, those that change at each run.
    pub flapping: u32,
}

impl Totals {
    /// Counts one resource.
    pub fn add(&mut self, resource: &ResourceReport) {
        let total = match resource.status {
            ResourceStatus::Unchanged => &mut self.unchanged,
            ResourceStatus::Changed if resource.corrective => &mut self.corrected,
            ResourceStatus::Changed => &mut self.changed,
            ResourceStatus::Pending => &mut self.pending,
            ResourceStatus::Failed => &mut self.failed,
            ResourceStatus::Skipped => &mut self.skipped,
            ResourceStatus::Deferred => &mut self.deferred,
        };
        *total += 1;
        self.flapping += u32::from(resource.flapping);
    }

    /// How many resources the run was over.
    pub fn resources(&self) -> u32 {
        let Self { unchanged, changed, corrected, pending, failed, skipped, deferred, flapping: _ } = self;
        unchanged + changed + corrected + pending + failed + skipped + deferred
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
    /// Its type, as its user wrote it.
    #[serde(rename = "type", default)]
    pub type_name: String,
    /// How it ended.
    pub status: ResourceStatus,
    /// Whether it differed although it had been applied as it is: drift, not a new intent.
    #[serde(default)]
    pub corrective: bool,
    /// Whether it has changed at each of the last runs: something else changes it back, or its guard is wrong.
    #[serde(default)]
    pub flapping: bool,
    /// What changed, or would have; at most 50. Without values where the resource is sensitive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<PropertyEvent>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub millis: u64,
    /// For people: what was changed, or why it failed and what to do. Empty for an unchanged one; at most 1,000 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl ResourceReport {
    /// How a resource ended, with nothing else said of it.
    pub fn new(id: ResourceId, type_name: &str, status: ResourceStatus, message: String) -> Self {
        Self {
            id,
            type_name: type_name.to_owned(),
            status,
            corrective: false,
            flapping: false,
            events: Vec::new(),
            millis: 0,
            message,
        }
    }
}

/// A change of one property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PropertyEvent {
    /// The property: `mode`, `content`, `version`.
    pub property: String,
    /// What it was; absent where there was nothing, or nothing that may be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// What it must be; absent where there must be nothing, or nothing that may be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
}

/// How one resource ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceStatus {
    /// It was as the catalog says.
    Unchanged,
    /// It was made so.
    Changed,
    /// It is not so, and was left: by `--noop`, or by its drift mode `Report`.
    Pending,
    /// It could not be made so.
    Failed,
    /// It was not tried, because something that it requires failed.
    Skipped,
    /// It cannot be done here and now, and that is no failure: a service in a folder that stands for a machine.
    Deferred,
}

//! How many machines at once, in which portions and order, and when to stop.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Limit, Tolerance};

/// How many machines change at once, in which portions, and how many may be out of service meanwhile.
///
/// Two limits hold at every moment: `maxParallel` for the machines that this Rollout changes, and `maxUnavailable` for
/// all machines out of service, for whatever reason. Batches come one after the other; a batch begins when all machines
/// of the one before are done. For example, a canary first and then a tenth of the machines at a time:
/// `{maxParallel: 10, maxUnavailable: "10%", batches: [{name: canary, size: 1}, {name: rest, size: "10%"}]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// How many machines this Rollout changes at once: a number, or a percentage of the machines it is for, rounded down
    /// but at least 1. Left out: 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_parallel: Option<Limit>,
    /// How many machines may be out of service: those under way, and those that are so for another reason: their node is
    /// NotReady, gone or cordoned by an administrator, another Rollout holds them, a Rollout failed on them, or their agent
    /// does not converge. A run of which so many machines failed that no further one may be begun is stopped. A number, or a percentage of the machines it is for, rounded down but
    /// at least 1. No further machine is begun when that would exceed it. Left out: 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_unavailable: Option<Limit>,
    /// Portions of the machines, in their order. Each takes, of the machines that are left, those that it is for; the last
    /// one repeats until all machines are done, and machines that no batch is for come at the end, as a batch `rest`. Left
    /// out: one batch of all machines.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 30))]
    pub batches: Vec<Batch>,
    /// Which machines come first. Whatever it says, machines that an earlier run broke come before all others, and the node
    /// that the operator runs on comes last. Left out: by name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<Order>,
    /// When to stop, and what happens then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<FailurePolicy>,
    /// How long a machine's agent may take to apply the revision and report, in seconds; then the machine has failed. Left
    /// out: 600.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub apply_timeout_seconds: Option<i32>,
}

/// A portion of the machines: so many, these, or those with these labels. A batch is done when all its machines are, has
/// soaked, and its gates passed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.size) || has(self.hosts) || has(self.hostSelector)", "a batch says which machines it has: size, hosts or hostSelector"))]
pub struct Batch {
    /// Names the batch for people, and for its approval. Left out: `batch-1`, `batch-2`, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// How many machines at most: a number, or a percentage of all machines of the Rollout, rounded down but at least 1.
    /// Left out: all that `hosts` and `hostSelector` say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<Limit>,
    /// These Hosts only, by name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub hosts: Vec<String>,
    /// Hosts with these labels only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_selector: Option<LabelSelector>,
    /// How long to wait, in seconds, after the last machine of the batch is done and before its gates are asked and the next
    /// batch begins. Left out: 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub soak_seconds: Option<i32>,
    /// `Required`: the batch begins when somebody approved it, with the annotation `drover.dev/approve: "<run>/<batch>"`;
    /// the message has the whole command. Left out: `NotRequired`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<Approval>,
}

/// Whether somebody must approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    /// Nothing begins without it.
    Required,
    /// It begins by itself.
    NotRequired,
}

/// Which machines come first. Where two are alike in the first thing that is given here, the next one decides, in the
/// order of these fields, and at last the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// A label of Hosts with a whole number; lower numbers come first, machines without it last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 317))]
    pub label: Option<String>,
    /// By what the change costs each machine: no-ops first and reboots last, or the other way round.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub risk: Option<RiskOrder>,
    /// A label of Hosts, such as `topology.kubernetes.io/zone`: the machines of one value are done before those of the next.
    /// Machines without it come last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: Option<String>,
}

/// An order by what a change costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RiskOrder {
    /// What costs least comes first.
    LowestFirst,
    /// What costs most comes first.
    HighestFirst,
}

/// When to stop, and what happens then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// How many machines of a run may fail before it stops: a number, or a percentage of the machines, rounded down. Left
    /// out: 0, so that the first failure stops it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_failed: Option<Tolerance>,
    /// What happens when more failed. Left out: `Pause`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_exceeded: Option<OnExceeded>,
}

/// What happens when more machines failed than may, or when a batch's gates or hooks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExceeded {
    /// No further machine is begun; those under way are finished. The run goes on with a new revision, when the spec is
    /// changed, or with the annotation `drover.dev/retry`.
    Pause,
    /// As `Pause`, and machines under way that were not changed yet are given back at once.
    Abort,
    /// As `Abort`, and then the machines that this run changed get the revision again that each had before: the last one
    /// first, under the same limits, out of service in the same way, and with the gates of each machine. The spec is not
    /// touched, and the revision is not tried again until the spec is changed or somebody says so (`drover.dev/retry`).
    Rollback,
}

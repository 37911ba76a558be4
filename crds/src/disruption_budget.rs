//! The kind DisruptionBudget: what all Rollouts of a namespace may take out of service together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Limit, Window};

/// What all Rollouts of this namespace may take out of service together.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "DisruptionBudget",
    namespaced,
    status = "DisruptionBudgetStatus",
    derive = "PartialEq",
    category = "drover",
    shortname = "ddb",
    doc = "What all Rollouts of this namespace may take out of service together, whatever each of them allows itself: how many \
           machines, and when. Of several budgets that a machine belongs to, each must allow it. A Rollout that a budget holds \
           back says which one it is.",
    printcolumn(name = "Hosts", type_ = "integer", json_path = ".status.hosts"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.held"),
    printcolumn(name = "Unavailable", type_ = "integer", json_path = ".status.unavailable"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".status.maxUnavailable"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.maxUnavailable) || has(self.maxParallel) || has(self.windows)", "a budget that limits nothing has no effect: write maxUnavailable, maxParallel or windows"))]
pub struct DisruptionBudgetSpec {
    /// The Hosts that it is for. Left out or empty: all Hosts of the namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_selector: Option<LabelSelector>,
    /// How many of these machines may be out of service: those that Rollouts hold, and those that are so for another reason:
    /// their node is NotReady, gone or cordoned. A number, or a percentage of them, rounded down but at least 1. No further
    /// machine is claimed by any Rollout when that would exceed it, also for a rollback. Left out: any number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_unavailable: Option<Limit>,
    /// How many of these machines Rollouts hold at once, all together. Left out: any number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_parallel: Option<Limit>,
    /// When these machines may be begun (`Allow`), and when not (`Deny`): a freeze for all Rollouts. It is read as a
    /// Rollout's `schedule.windows` are. Machines under way are finished, and rollbacks do not wait. Left out: at any time.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 32))]
    pub windows: Vec<Window>,
}

/// How much of the budget is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudgetStatus {
    /// The generation of the DisruptionBudget that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// How much is left, in a line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// How many machines it is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts: Option<i32>,
    /// How many of them Rollouts hold, or have entered to hold next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<i32>,
    /// How many of them are out of service, for whatever reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unavailable: Option<i32>,
    /// How many of them may be out of service, as a number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_unavailable: Option<i32>,
    /// How many of them may be held, as a number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_parallel: Option<i32>,
    /// `Ready`: whether it is understood; `Stalled`: it is not, and no machine of it is begun.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl DisruptionBudgetSpec {
    /// How many of `total` machines may be out of service, if that is limited.
    pub fn resolved_max_unavailable(&self, total: usize) -> Option<usize> {
        self.max_unavailable.map(|limit| limit.of(total))
    }

    /// How many of `total` machines Rollouts may hold at once, if that is limited.
    pub fn resolved_max_parallel(&self, total: usize) -> Option<usize> {
        self.max_parallel.map(|limit| limit.of(total))
    }
}

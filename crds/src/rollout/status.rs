//! Where a Rollout is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    estimate::{Estimate, ProgressClock},
    gate::DryRunGate,
    preview::Preview,
};
use crate::ClaimStep;

/// Where the Rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The generation of the Rollout that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Pending`, `Progressing`, `Paused`, `Failed`, `Aborted`, `RollingBack`, `RolledBack`, `Complete`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<RolloutPhase>,
    /// One line about the phase.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Strings made ready for the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub display: Option<RolloutDisplay>,
    /// The run that is under way or was the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<Run>,
    /// Where the run is between its machines: what it waits for before the batch begins, or after it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<Stage>,
    /// What people asked for by annotations, and what came of it; the last of each kind.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["action".into()]))]
    pub last_handled: Vec<Handled>,
    /// The machines of the run, by where they are. `total` is the sum of the others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counts: Option<Counts>,
    /// The first 50 batches of the run.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub batches: Vec<BatchStatus>,
    /// The machines under way. A machine is entered here before anything is done to it.
    // Atomic: with a key, the managed fields would name each machine once more, which is half as much again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub in_flight: Vec<InFlightHost>,
    /// The first 20 machines that failed in the run, and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub failures: Vec<Failure>,
    /// What the gates of a run or a batch that decide nothing (`dryRun`) showed last.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["gate".into()]))]
    pub dry_run_gates: Vec<DryRunGate>,
    /// What the run does to its machines, known before anything moves. It stays as it was then while machines are changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preview: Option<Preview>,
    /// When the run will be done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimate: Option<Estimate>,
    /// What `progressDeadlineSeconds` is counted from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<ProgressClock>,
    /// The runs before, newest first, at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub history: Vec<Run>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Where a Rollout is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// It waits for something that it needs before it can begin; the message says for what.
    Pending,
    /// Machines are under way.
    Progressing,
    /// Somebody paused it, and no machine is under way any more.
    Paused,
    /// More machines failed than may.
    Failed,
    /// It was aborted.
    Aborted,
    /// The machines that the run changed get back the revision that they had.
    RollingBack,
    /// They have it again.
    RolledBack,
    /// All machines have the revision.
    Complete,
}

impl RolloutPhase {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Complete => "Complete",
        }
    }
}

/// Strings made ready for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutDisplay {
    /// The batch under way, of how many: `2/4`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<String>,
    /// What it waits for, in a few words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blocked: Option<String>,
    /// When the run will be done, by its estimate, to the minute: `2026-11-28T02:40Z`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta: Option<String>,
}

/// A run: one revision over the machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Counts the runs of this Rollout, from 1.
    pub number: i64,
    /// The revision.
    pub revision: String,
    /// The generation of the Rollout that the run was begun, or last retried, under.
    pub generation: i64,
    /// When it began.
    pub started_at: Time,
    /// Why the run was ended before all machines had the revision, if it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped: Option<Stopped>,
    /// When all machines had the revision, or when it was stopped or superseded by another run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<Time>,
    /// How many machines had the revision when it was superseded or completed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub updated: Option<i32>,
}

/// Why a run was ended before all machines had the revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// What happens to the machines that the run changed.
    pub action: StopAction,
    /// In words.
    pub reason: String,
    /// When.
    pub time: Time,
}

/// What happens to the machines that a run changed when it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StopAction {
    /// They stay as they are, and those under way are finished.
    Pause,
    /// They stay as they are; those under way that were not changed yet are given back.
    Abort,
    /// They get the revision again that each had before.
    Rollback,
}

/// Where a run is between its machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The batch, from 0.
    pub batch: i32,
    /// What is at hand.
    pub step: StageStep,
    /// Since when.
    pub since: Time,
}

/// The steps of a run, in their order; those from `BeforeBatch` to `AfterBatch` come for each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum StageStep {
    /// What the run depends on, its preflight gates and the hooks before it.
    BeforeRun,
    /// The batch's approval, and the hooks before it.
    BeforeBatch,
    /// The machines of the batch.
    Hosts,
    /// The batch soaks; its gates and the hooks after it.
    AfterBatch,
    /// The hooks after the run.
    AfterRun,
    /// Nothing is left to do.
    Done,
}

/// What somebody asked for by an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// The annotation, without `drover.dev/`: `pause`, `hold`, `approve`, `abort`, `retry`, `undo`, `skip`.
    pub action: String,
    /// Its value.
    pub value: String,
    /// What came of it, in words.
    pub result: String,
    /// When it was seen.
    pub time: Time,
}

/// The machines of a run, by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All machines of the run.
    pub total: i32,
    /// They wait for their turn.
    pub pending: i32,
    /// They are under way.
    pub in_flight: i32,
    /// They have the revision.
    pub updated: i32,
    /// They failed in this run.
    pub failed: i32,
    /// They were left out: by a person, or because their drain took too long and `onTimeout` is `Skip`.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub skipped: i32,
    /// They had the revision, or failed to get it, and have again what they had before.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub rolled_back: i32,
    /// Of all of these, those out of service now, for whatever reason.
    pub unavailable: i32,
}

/// A batch of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// Its name.
    pub name: String,
    /// How many machines it has.
    pub total: i32,
    /// How many of them have the revision.
    pub updated: i32,
    /// How many of them failed.
    pub failed: i32,
}

/// A machine under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InFlightHost {
    /// The Host's name.
    pub host: String,
    /// The Host's UID.
    pub uid: String,
    /// The batch, from 0.
    pub batch: i32,
    /// Tells this hold from every other; the Host's `claim` has the same.
    pub token: String,
    /// The revision that the machine gets.
    pub revision: String,
    /// When it was admitted.
    pub since: Time,
    /// What is being done.
    pub step: ClaimStep,
    /// What the step waits for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting_for: Option<String>,
}

/// A machine that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The Host's name.
    pub host: String,
    /// Why, and what to do.
    pub message: String,
    /// When.
    pub time: Time,
}

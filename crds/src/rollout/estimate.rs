//! When a run will be done, and since when it made no progress.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a run will be done, from how long its machines took: those of this run, else those of the run before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// When the last machine will be done. Absent while that depends on a person or on machines out of service, and while
    /// nothing was measured. It is brought up to date when it moves by a minute and by a tenth of what is left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish_at: Option<Time>,
    /// How much work is left, in seconds, with the machines that change at once taken into account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remaining_seconds: Option<i64>,
    /// What it rests on, in words: `12 machines, 43 s each (p90 71 s), 5 at a time`.
    pub basis: String,
    /// Whether the work that is left fits into the window that is open, or into the next one. Absent without windows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fits: Option<bool>,
    /// What to know before it begins, such as that it takes more than one window.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warning: Option<String>,
}

/// What a Rollout's `progressDeadlineSeconds` is counted from. It changes when a machine gets done, and when the run
/// begins or ceases to wait by somebody's wish; so it survives a restart of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressClock {
    /// When a machine last got done, or the count began.
    pub progress_at: Time,
    /// Since when time does not count, if it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped_since: Option<Time>,
    /// How long time did not count between `progressAt` and now, in seconds, without the stop that lasts.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub stopped_seconds: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

//! Jobs at the turning points of a run, and the Rollouts that come before it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Jobs that are run at the turning points of a run, one after the other in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Before anything moves, when `dependsOn` and the preflight gates are satisfied.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub before_run: Vec<Hook>,
    /// Before the first machine of each batch, when it was approved.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub before_batch: Vec<Hook>,
    /// For each machine, before it is taken out of service. One that fails has failed the machine, which is given back
    /// unchanged.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub before_host: Vec<Hook>,
    /// For each machine whose gates passed, before it is given back. One that fails has failed the machine.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub after_host: Vec<Hook>,
    /// After each batch, when it has soaked and its gates passed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub after_batch: Vec<Hook>,
    /// After the last batch, before the run is complete.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub after_run: Vec<Hook>,
}

/// A Job that is run at a turning point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Names the hook among those of its place.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')", "write a name of lower case letters, digits and -, with a letter or digit at both ends"))]
    pub name: String,
    /// The CronJob of this namespace that the Job is made from.
    pub job_template_ref: JobTemplateRef,
    /// How long the Job may take, in seconds: it becomes the Job's `activeDeadlineSeconds`, where the template has no shorter one.
    /// Left out: 600.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// What happens when the Job fails. `Fail`: the machine has failed, or the run stops, as `strategy.failure` says. `Ignore`:
    /// it goes on. Left out: `Fail`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_failure: Option<HookFailure>,
}

/// What happens when a hook's Job fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookFailure {
    /// The machine has failed, or the run stops.
    Fail,
    /// It goes on.
    Ignore,
}

/// A CronJob of the Rollout's namespace whose `jobTemplate` is used; its schedule is not, so it usually has `suspend: true`.
/// Who may write pods into the namespace is thus decided by who may write CronJobs, not by who may write Rollouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplateRef {
    /// The CronJob's name. The run waits for it when it is not there.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Rollout that comes before this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The name of a Rollout in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl Hooks {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        let Self { before_run, before_batch, before_host, after_host, after_batch, after_run } = self;
        [before_run, before_batch, before_host, after_host, after_batch, after_run].into_iter().all(Vec::is_empty)
    }
}

impl Hook {
    /// How long the Job may take, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(600)
    }

    /// Whether a failure is ignored.
    pub fn ignores_failure(&self) -> bool {
        self.on_failure == Some(HookFailure::Ignore)
    }
}

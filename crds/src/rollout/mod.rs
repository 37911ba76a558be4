//! The kind Rollout: how revisions of a NodeConfig travel over the machines.
//!
//! - `strategy`: how many at once, in which portions and order, and when to stop
//! - `disruption`: how a machine is taken out of service; `load_balancer`: of which load balancers
//! - `gate`: what must be seen
//! - `hook`: what is run at its turning points, and what comes before it
//! - `schedule`: when machines may be begun
//! - `status`: where it is; `estimate`: when it is done; `preview`: what it will do

mod disruption;
mod estimate;
mod gate;
mod hook;
mod load_balancer;
mod preview;
mod schedule;
mod status;
mod strategy;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    disruption::*, estimate::*, gate::*, hook::*, load_balancer::*, preview::*, schedule::*, status::*, strategy::*,
};
use crate::Limit;

/// How revisions of a NodeConfig travel over the machines.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    status = "RolloutStatus",
    derive = "PartialEq",
    category = "drover",
    shortname = "dro",
    doc = "How revisions of a NodeConfig travel over the machines: in batches, each machine drained, changed, checked and \
           given back before the next one. It is a standing policy: each new revision is a new numbered run.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Batch", type_ = "string", json_path = ".status.display.batch"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.counts.updated"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.counts.total"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Blocked", type_ = "string", json_path = ".status.display.blocked"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.display.eta"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Config", type_ = "string", json_path = ".spec.nodeConfigRef.name", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.run.revision", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// The NodeConfig whose revisions this Rollout moves.
    pub node_config_ref: NodeConfigRef,
    /// Narrows the Hosts that the NodeConfig selects. Left out or empty: all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_selector: Option<LabelSelector>,
    /// How many machines change at once, in which portions, and how many may be out of service meanwhile. Left out: one
    /// machine at a time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strategy: Option<Strategy>,
    /// How a machine is taken out of service before it changes, and given back after, on success and on failure: as it was,
    /// so that a node that was cordoned before stays cordoned. Left out: it stays in service.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disruption: Option<Disruption>,
    /// What must be seen before a run begins, before a machine counts as updated, and before a batch counts as done. At each of
    /// these places all gates are asked, and all must pass. Left out: the agent's report that it converged suffices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gates: Option<Gates>,
    /// Jobs that are run before and after the run, each batch and each machine, one after the other in their order. Left out:
    /// none.
    ///
    /// A hook's Job is made from a CronJob, as `kubectl create job --from=cronjob/…` does: once for each run and place, whatever
    /// happens to the operator meanwhile. A run that is tried again is another run, so what a hook does must bear being done
    /// again. Each container gets the environment variables `DROVER_ROLLOUT`, `DROVER_RUN`, `DROVER_REVISION`, `DROVER_BATCH`
    /// (from 0) and `DROVER_HOST`, the last two where they apply. The Job has the labels `drover.dev/rollout`,
    /// `drover.dev/run`, `drover.dev/batch` and `drover.dev/host`. Those of a run are removed when a later run has begun, those
    /// of a machine that succeeded when the machine is done, all of them with the Rollout. Delete one to have it made again.
    ///
    /// Hooks are run on the way forward. What comes after something is run when it succeeded: after a machine that failed, a
    /// batch that was stopped, or a run that was aborted or rolled back, no hook is run. While a run is rolled back, the hooks
    /// of machines are run for each machine that goes back (`DROVER_REVISION` is what it goes back to), those of batches and
    /// of the run are not. A Job that runs when the run is stopped is left to end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hooks: Option<Hooks>,
    /// Rollouts of this namespace that come first: a run begins when each of them is complete, with the newest revision of its
    /// own NodeConfig, or the one that it pins. For example `[{name: database}]` for the web tier. Left out: none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub depends_on: Vec<Dependency>,
    /// When machines may be begun. Left out: at any time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<Schedule>,
    /// True: no further machine is begun. Those under way are finished and given back. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused: Option<bool>,
}

/// The NodeConfig whose revisions a Rollout moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfigRef {
    /// The name of a NodeConfig in this namespace. The Rollout waits for it when it is not there yet.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Pins one revision, such as `base-7f9c41d2ab`: the Rollout is then a single run to it. Left out: each new revision
    /// starts a new run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 253))]
    pub revision: Option<String>,
}

impl RolloutSpec {
    /// How many of `total` machines change at once.
    pub fn resolved_max_parallel(&self, total: usize) -> usize {
        self.strategy.as_ref().and_then(|s| s.max_parallel).unwrap_or(Limit::Count(1)).of(total)
    }

    /// How many of `total` machines may be out of service.
    pub fn resolved_max_unavailable(&self, total: usize) -> usize {
        self.strategy.as_ref().and_then(|s| s.max_unavailable).unwrap_or(Limit::Count(1)).of(total)
    }

    /// How many of `total` machines may fail before the run stops.
    pub fn resolved_max_failed(&self, total: usize) -> usize {
        self.failure().and_then(|failure| failure.max_failed).map_or(0, |limit| limit.of(total))
    }

    /// What happens when more machines failed than may.
    pub fn on_exceeded(&self) -> OnExceeded {
        self.failure().and_then(|failure| failure.on_exceeded).unwrap_or(OnExceeded::Pause)
    }

    fn failure(&self) -> Option<&FailurePolicy> {
        self.strategy.as_ref()?.failure.as_ref()
    }

    /// The batches as they are written.
    pub fn batches(&self) -> &[Batch] {
        self.strategy.as_ref().map_or(&[], |strategy| &strategy.batches)
    }

    /// What is written of this batch, from 0: the last one repeats.
    pub fn batch(&self, batch: usize) -> Option<&Batch> {
        let written = self.batches();
        written.get(batch).or(written.last())
    }

    /// Whether each machine is taken out of service, whatever the change costs it.
    pub fn always_disrupts(&self) -> bool {
        self.disruption.as_ref().and_then(|disruption| disruption.when) == Some(DisruptWhen::Always)
    }

    /// How long an agent may take to apply and report, in seconds.
    pub fn resolved_apply_timeout_seconds(&self) -> i32 {
        self.strategy.as_ref().and_then(|s| s.apply_timeout_seconds).unwrap_or(600)
    }

    /// Whether nodes get the label that takes them out of load balancers.
    pub fn excludes_from_load_balancers(&self) -> bool {
        self.load_balancer().is_some_and(|lb| lb.exclude.unwrap_or(true))
    }

    /// The load balancers outside the cluster that machines leave.
    pub fn load_balancer_steps(&self) -> &[LoadBalancerStep] {
        self.load_balancer().map_or(&[], |lb| &lb.steps)
    }

    /// How long load balancers get to notice, in seconds.
    pub fn resolved_settle_seconds(&self) -> i32 {
        self.load_balancer().and_then(|lb| lb.settle_seconds).unwrap_or(15)
    }

    /// How long load balancers outside the cluster may take to do what is asked, in seconds.
    pub fn resolved_load_balancer_timeout_seconds(&self) -> i32 {
        self.load_balancer().and_then(|lb| lb.timeout_seconds).unwrap_or(300)
    }

    /// How nodes are drained, if they are.
    pub fn drain(&self) -> Option<&Drain> {
        self.disruption.as_ref()?.drain.as_ref()
    }

    /// Whether a machine reboots when something that was applied asks for it.
    pub fn reboots(&self) -> bool {
        let policy = self.disruption.as_ref().and_then(|disruption| disruption.reboot);
        policy.map_or(self.drain().is_some(), |policy| policy == RebootPolicy::IfRequired)
    }

    /// How long a machine may take to come back from its reboot, in seconds.
    pub fn resolved_reboot_timeout_seconds(&self) -> i32 {
        self.disruption.as_ref().and_then(|disruption| disruption.reboot_timeout_seconds).unwrap_or(900)
    }

    /// The gates of each machine.
    pub fn host_gates(&self) -> &[Gate] {
        self.gates.as_ref().map_or(&[], |gates| &gates.host)
    }

    /// The gates before a run.
    pub fn preflight_gates(&self) -> &[Gate] {
        self.gates.as_ref().map_or(&[], |gates| &gates.preflight)
    }

    /// The gates after each batch.
    pub fn batch_gates(&self) -> &[Gate] {
        self.gates.as_ref().map_or(&[], |gates| &gates.batch)
    }

    /// Whether Jobs are made for it: by hooks, or by gates.
    pub fn has_jobs(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| !hooks.is_empty()) || self.gates.as_ref().is_some_and(Gates::have_jobs)
    }

    fn load_balancer(&self) -> Option<&LoadBalancer> {
        self.disruption.as_ref()?.load_balancer.as_ref()
    }
}

//! How a machine is taken out of service, and given back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LoadBalancer;

/// How a machine is taken out of service before it changes. What it was like before is recorded first and restored
/// after, on success and on failure; a node that was cordoned before stays cordoned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Which machines are taken out of service. `AsNeeded`: those for which the change costs enough, by the NodeConfig's
    /// `disruption` rules: `Restart` and more leave load balancers, `Drain` and `Reboot` are drained as well; a machine that
    /// the change is a no-op or a reload for stays in service. One whose cost can not be told, because it has not reported
    /// what it has, counts as `Reboot`. `Always`: each of them. Left out: `AsNeeded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub when: Option<DisruptWhen>,
    /// Take the node out of load balancers first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load_balancer: Option<LoadBalancer>,
    /// Cordon the node and evict its pods, as `kubectl drain` does. Left out: neither.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain: Option<Drain>,
    /// What happens when something that was applied asks for a reboot. `IfRequired`: the machine reboots while it is out of
    /// service, and has failed when it does not come back with another boot id; one that was not drained for the change is
    /// drained first. `Never`: it goes on, and its Host says that a reboot is due. Left out: `IfRequired` where nodes are drained, else `Never`: pods would not survive it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reboot: Option<RebootPolicy>,
    /// How long a machine may take to come back from its reboot, in seconds. Left out: 900.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub reboot_timeout_seconds: Option<i32>,
}

/// Which machines are taken out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DisruptWhen {
    /// Those for which the change costs enough.
    AsNeeded,
    /// Each of them.
    Always,
}

/// What happens when something that was applied asks for a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebootPolicy {
    /// The machine reboots.
    IfRequired,
    /// It does not.
    Never,
}

/// How a node is drained: by the Eviction API, so that every PodDisruptionBudget is respected. Pods of DaemonSets, static
/// pods and finished pods stay. While a budget lets none of its pods go, or a pod is one that must not be evicted, the node
/// is not even cordoned: the machine waits in service, for as long as the drain may take. A node that somebody uncordons
/// meanwhile is cordoned again. Who wants to keep a node cordoned that a Rollout holds removes the annotation
/// `drover.dev/cordoned-by` from it: the cordon is then theirs, and stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// How long the drain may take, in seconds; as long before it for what stands in its way already. What then happens is
    /// `onTimeout`. Meanwhile the status names the pod, and the budget, that it waits for. Left out: 600.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// What happens when the time is over. `Fail`: the machine has failed and is given back. `Skip`: it is given back
    /// unchanged and left out of the run. `Hold`: it goes on waiting, and says so. `Pause`: the same, and no further machine
    /// is begun until it is through. `Force`: the pods that are left are deleted, whatever budget protects them, which an
    /// event tells of; where they do not go for as long again, the machine has failed. Left out: `Fail`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_timeout: Option<OnDrainTimeout>,
    /// What happens to a pod that no controller would start again elsewhere: `Evict` it, or `Block` the drain until
    /// somebody removes it. Left out: `Block`, as `kubectl drain` does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unmanaged_pods: Option<UnmanagedPods>,
    /// What happens to a pod with data in an `emptyDir`, which goes with it: `Evict` it, or `Block` the drain until somebody
    /// removes it. Left out: `Evict`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty_dir: Option<EmptyDirPods>,
    /// How long pods get to end, in seconds, in place of what each says for itself. Left out: what each says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 86400))]
    pub grace_period_seconds: Option<i32>,
    /// What is done with which pods; the first rule that is for a pod counts. Pods that no rule is for are drained, with
    /// order 0. Pods of DaemonSets, static pods and finished pods stay, whatever a rule says.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 50))]
    pub pod_rules: Vec<PodRule>,
    /// Wait after the drain until the volumes of the pods that left are detached from the node, for so many seconds; then
    /// `onTimeout` says what happens, where `Force` goes on. Left out: it is not waited for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub volume_detach_seconds: Option<i32>,
}

/// What is done with certain pods when their node is drained, as with Cluster API's MachineDrainRule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.namespaces) || !has(self.namespaceSelector)",
    "a rule has namespaces or namespaceSelector, not both"
))]
#[x_kube(validation = (
    "!has(self.order) || self.behavior != 'Skip'",
    "pods that stay have no order; leave order out, or set behavior to Drain"
))]
pub struct PodRule {
    /// The pods, by their labels. Left out or empty: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selector: Option<LabelSelector>,
    /// Their namespaces, by name. Left out: all, or those of `namespaceSelector`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// Their namespaces, by the labels of the Namespace. Left out: all, or `namespaces`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace_selector: Option<LabelSelector>,
    /// `Drain`: they are evicted. `Skip`: they stay, and are not waited for. `WaitCompleted`: they are not evicted, and the
    /// drain waits until they have finished or are gone.
    pub behavior: PodBehavior,
    /// Pods of a lower order leave first; the next ones are evicted when those before are gone. Left out: 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<i32>,
}

/// What is done with a pod when its node is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodBehavior {
    /// It is evicted.
    Drain,
    /// It stays.
    Skip,
    /// It is waited for until it has finished.
    WaitCompleted,
}

/// What happens when a drain takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDrainTimeout {
    /// The machine has failed, and is given back.
    Fail,
    /// The machine is given back unchanged, and left out of the run.
    Skip,
    /// It goes on waiting.
    Hold,
    /// It goes on waiting, and no further machine is begun meanwhile.
    Pause,
    /// The pods that are left are deleted.
    Force,
}

/// What happens to a pod that no controller would start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnmanagedPods {
    /// It is evicted, and gone.
    Evict,
    /// The drain waits until it is gone.
    Block,
}

/// What happens to a pod with data in an `emptyDir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EmptyDirPods {
    /// It is evicted, and its data goes.
    Evict,
    /// The drain waits until it is gone.
    Block,
}

impl Drain {
    /// How long the drain may take, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(600)
    }

    /// What happens when the drain takes too long.
    pub fn resolved_on_timeout(&self) -> OnDrainTimeout {
        self.on_timeout.unwrap_or(OnDrainTimeout::Fail)
    }

    /// What happens to a pod that no controller would start again.
    pub fn resolved_unmanaged_pods(&self) -> UnmanagedPods {
        self.unmanaged_pods.unwrap_or(UnmanagedPods::Block)
    }

    /// What happens to a pod with data in an `emptyDir`.
    pub fn resolved_empty_dir(&self) -> EmptyDirPods {
        self.empty_dir.unwrap_or(EmptyDirPods::Evict)
    }
}

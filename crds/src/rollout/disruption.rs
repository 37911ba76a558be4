//! How a machine is taken out of service, and given back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a machine is taken out of service before it changes. What it was like before is recorded first and restored
/// after, on success and on failure; a node that was cordoned before stays cordoned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Which machines are taken out of service. `AsNeeded`: those for which the change costs enough, by the NodeConfig's
    /// `disruption` rules: `Restart` and more leave load balancers, `Drain` and `Reboot` are drained as well; a machine that
    /// the change is a no-op or a reload for stays in service. `Always`: each of them. Left out: `AsNeeded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub when: Option<DisruptWhen>,
    /// Take the node out of load balancers first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load_balancer: Option<LoadBalancer>,
    /// Cordon the node and evict its pods, as `kubectl drain` does. Left out: neither.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain: Option<Drain>,
    /// What happens when something that was applied asks for a reboot. `IfRequired`: the machine reboots while it is out of
    /// service, and has failed when it does not come back with another boot id. `Never`: it goes on, and its Host says that a
    /// reboot is due. Left out: `IfRequired` where nodes are drained, else `Never`: pods would not survive it.
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

/// Takes a node out of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// True: the node gets the label `node.kubernetes.io/exclude-from-external-load-balancers` while it is out of service.
    /// Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exclude: Option<bool>,
    /// How long load balancers get to notice before pods are evicted, in seconds. Left out: 15.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 3600))]
    pub settle_seconds: Option<i32>,
}

/// How a node is drained: by the Eviction API, so that every PodDisruptionBudget is respected. Pods of DaemonSets, static
/// pods and finished pods stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// How long the drain may take, in seconds. Then the machine has failed and is given back. Meanwhile the status names
    /// the pod, and the budget, that it waits for. Left out: 600.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// What happens to a pod that no controller would start again elsewhere: `Evict` it, or `Block` the drain until
    /// somebody removes it. Left out: `Block`, as `kubectl drain` does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unmanaged_pods: Option<UnmanagedPods>,
}

/// What happens to a pod that no controller would start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnmanagedPods {
    /// It is evicted, and gone.
    Evict,
    /// The drain waits until it is gone.
    Block,
}

impl Drain {
    /// How long the drain may take, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(600)
    }

    /// What happens to a pod that no controller would start again.
    pub fn resolved_unmanaged_pods(&self) -> UnmanagedPods {
        self.unmanaged_pods.unwrap_or(UnmanagedPods::Block)
    }
}

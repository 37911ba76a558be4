//! What a decision about a Rollout looks at. All of it is read from the API server (not from a cache) for each decision,
//! except for what only the operator can see: evictions that were refused, and what gates answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use drover_crds::{ChangeCost, Host, NodeConfig, Rollout};

/// The state of the world, as far as one Rollout is concerned.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Rollout.
    pub rollout: Rollout,
    /// Its NodeConfig, if it is there.
    pub node_config: Option<NodeConfig>,
    /// The names of the NodeConfig's revisions that are kept.
    pub revisions: BTreeSet<String>,
    /// All Hosts of the namespace, in any order.
    pub hosts: Vec<Host>,
    /// All Nodes, by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// The Node that this operator runs on: it comes last.
    pub own_node: Option<String>,
    /// What the run's revision would cost each machine, by the Host's name; absent where it is not known.
    pub costs: BTreeMap<String, ChangeCost>,
    /// The pods of each Node that is being drained, by Node.
    pub pods: BTreeMap<String, Vec<PodView>>,
    /// Evictions that were refused since the decision was first asked for, with the reason in words.
    pub refused_evictions: BTreeMap<PodKey, String>,
    /// For each Host that is being verified, by name: what each of the Rollout's gates showed, in their order.
    pub gates: BTreeMap<String, Vec<GateEvidence>>,
}

/// A Node, as far as a Rollout is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its UID.
    pub uid: String,
    /// The version that was read; a write to another version is refused.
    pub resource_version: String,
    /// Its condition `Ready` is `True`.
    pub ready: bool,
    /// It takes no new pods.
    pub cordoned: bool,
    /// The token of the hold that cordoned it.
    pub cordoned_by: Option<String>,
    /// The value of the label that takes it out of load balancers, if it has the label.
    pub load_balancer_label: Option<String>,
    /// The token of the hold that set that label.
    pub excluded_by: Option<String>,
    /// The token of the hold that gave it back last.
    pub released_by: Option<String>,
}

/// A pod by namespace, name and UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a pod made again under the same name is another pod.
    pub uid: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod on a Node that is being drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Which pod.
    pub key: PodKey,
    /// Who would start it again.
    pub keeper: PodKeeper,
    /// It succeeded or failed already.
    pub finished: bool,
    /// It is being deleted.
    pub terminating: bool,
}

/// Who would start a pod again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodKeeper {
    /// A DaemonSet, on the same node.
    DaemonSet,
    /// The kubelet, which read it from a file.
    Kubelet,
    /// A controller, elsewhere.
    Controller,
    /// Nobody.
    Nobody,
}

/// What a gate showed for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateEvidence {
    /// It passed.
    Passed,
    /// It did not pass, for this reason.
    Failed(String),
    /// It was not asked yet, or there was no answer to judge. That is never a success.
    Inconclusive,
}

//! What a decision about a Rollout looks at: objects as the API server has them or had them a moment ago, and what only the
//! operator can see: evictions and Jobs that were refused, and what gates answered.
//!
//! A view that is behind does no harm where the write that is decided on it names the version that it was decided on. It
//! would where a further machine is begun, so that is decided on a snapshot that was read for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use drover_crds::{ChangeCost, DisruptionBudget, Host, InFlightHost, NodeConfig, Rollout, RolloutPhase, RolloutStatus};
use jiff::Timestamp;

use super::{gate::GateEvidence, hook::RolloutJob};
use crate::metadata;

/// The state of the world, as far as one Rollout is concerned.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Rollout.
    pub rollout: Rollout,
    /// Its NodeConfig, if it is there.
    pub node_config: Option<NodeConfig>,
    /// The names of the NodeConfig's revisions that are kept.
    pub revisions: BTreeSet<String>,
    /// All Hosts of the namespace.
    pub hosts: Hosts,
    /// All Nodes, by name.
    pub nodes: Nodes,
    /// The Node that this operator runs on: it comes last.
    pub own_node: Option<String>,
    /// What it costs each machine to get the revision that the ledger names for it, else the run's, by the Host's name;
    /// absent where it is not known, and for machines that have it.
    pub costs: BTreeMap<String, ChangeCost>,
    /// All budgets of the namespace.
    pub budgets: Vec<DisruptionBudget>,
    /// The ledgers of all other Rollouts of the namespace, read after this Rollout. They matter where there are budgets.
    pub ledgers: Vec<Ledger>,
    /// The pods of each Node that is being drained, or that is to be, by Node.
    pub pods: BTreeMap<String, Vec<PodView>>,
    /// The volumes that are attached to each drained Node and that no pod on it uses any more, by Node.
    pub volumes: BTreeMap<String, Vec<String>>,
    /// Evictions that were refused since the decision was first asked for, with the reason in words.
    pub refused_evictions: BTreeMap<PodKey, String>,
    /// What load balancers outside the cluster answered, for as long as that holds.
    pub load_balancers: BTreeMap<LoadBalancerCall, LoadBalancerAnswer>,
    /// For each Host that is being verified, by name: what each of the gates of a machine showed, in their order.
    pub gates: BTreeMap<String, Vec<GateEvidence>>,
    /// What each of the gates of the run showed that are asked where it is now, in their order.
    pub run_gates: Vec<GateEvidence>,
    /// The Jobs that were made for the Rollout, by name; empty where it has neither hooks nor gates that are Jobs.
    pub jobs: BTreeMap<String, RolloutJob>,
    /// Jobs that could not be made since the decision was first asked for, by name, with the reason in words.
    pub refused_jobs: BTreeMap<String, String>,
    /// The other Rollouts of the namespace, by name; empty where it depends on none.
    pub other_rollouts: BTreeMap<String, RolloutView>,
    /// The Hosts, by name, that a write is under way for: nothing is decided about them before its answer.
    pub unanswered: BTreeSet<String>,
    /// When the operator last wrote how far the Rollout is, as far as it remembers: that alone is not written all the time.
    pub reported: Option<Timestamp>,
}

impl Snapshot {
    /// The same with another status of the Rollout.
    pub(super) fn with_status(&self, status: RolloutStatus) -> Self {
        let mut snapshot = self.clone();
        snapshot.rollout.status = Some(status);
        snapshot
    }
}

/// Hosts by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hosts {
    all: BTreeMap<String, Arc<Host>>,
    /// The names of those that some Rollout holds: each decision looks at them, and they are few of many.
    held: BTreeSet<String>,
}

impl Hosts {
    /// The Host of this name.
    pub fn get(&self, name: &str) -> Option<&Host> {
        self.all.get(name).map(Arc::as_ref)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        self.all.values().map(Arc::as_ref)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Those that a Rollout holds, by name.
    pub fn held(&self) -> impl Iterator<Item = &Host> {
        self.held.iter().filter_map(|name| self.get(name))
    }

    /// Puts a Host in the place of another of its name.
    pub fn put(&mut self, host: Arc<Host>) {
        let name = metadata::name(&host.metadata);
        if host.status.as_ref().is_some_and(|status| status.claim.is_some()) {
            self.held.insert(name.to_owned());
        } else {
            self.held.remove(name);
        }
        self.all.insert(name.to_owned(), host);
    }

    /// Takes the Host of this name away.
    pub fn remove(&mut self, name: &str) {
        self.all.remove(name);
        self.held.remove(name);
    }
}

/// Nodes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    all: BTreeMap<String, NodeView>,
    /// The names of those that carry a mark of some Rollout: each decision looks at them, and they are few of many.
    marked: BTreeSet<String>,
}

impl Nodes {
    /// The Node of this name.
    pub fn get(&self, name: &str) -> Option<&NodeView> {
        self.all.get(name)
    }

    /// Those that a Rollout cordoned or took out of load balancers, by name.
    pub fn marked(&self) -> impl Iterator<Item = (&String, &NodeView)> {
        self.marked.iter().filter_map(|name| self.all.get_key_value(name))
    }

    /// Puts a Node in the place of another of its name.
    pub fn put(&mut self, name: String, node: NodeView) {
        if node.cordoned_by.is_some() || node.excluded_by.is_some() {
            self.marked.insert(name.clone());
        } else {
            self.marked.remove(&name);
        }
        self.all.insert(name, node);
    }

    /// Takes the Node of this name away.
    pub fn remove(&mut self, name: &str) {
        self.all.remove(name);
        self.marked.remove(name);
    }
}

impl FromIterator<(String, NodeView)> for Nodes {
    fn from_iter<I: IntoIterator<Item = (String, NodeView)>>(nodes: I) -> Self {
        let mut all = Self::default();
        nodes.into_iter().for_each(|(name, node)| all.put(name, node));
        all
    }
}

impl FromIterator<Arc<Host>> for Hosts {
    fn from_iter<I: IntoIterator<Item = Arc<Host>>>(hosts: I) -> Self {
        let mut all = Self::default();
        hosts.into_iter().for_each(|host| all.put(host));
        all
    }
}

impl From<Vec<Host>> for Hosts {
    fn from(hosts: Vec<Host>) -> Self {
        hosts.into_iter().map(Arc::new).collect()
    }
}

/// What another Rollout has entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The Rollout's name.
    pub rollout: String,
    /// Its `status.inFlight`.
    pub entries: Vec<InFlightHost>,
}

impl Ledger {
    /// That of this Rollout.
    pub fn of(rollout: &Rollout) -> Self {
        let entries = rollout.status.as_ref().map(|status| status.in_flight.clone()).unwrap_or_default();
        Self { rollout: crate::metadata::name(&rollout.metadata).to_owned(), entries }
    }
}

/// A Node, as far as a Rollout is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its UID.
    pub uid: String,
    /// The version that was read; a write to another version is refused.
    pub resource_version: String,
    /// Its InternalIP.
    pub address: Option<String>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a view: each is so or not, whatever the others are")]
pub struct PodView {
    /// Which pod.
    pub key: PodKey,
    /// Who would start it again.
    pub keeper: PodKeeper,
    /// It succeeded or failed already.
    pub finished: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// Its condition `Ready` is `True`.
    pub ready: bool,
    /// It has a volume of type `emptyDir`.
    pub empty_dir: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of its Namespace, where a rule asks for them.
    pub namespace_labels: BTreeMap<String, String>,
    /// The budgets that the API server asks before it evicts the pod.
    pub budgets: Vec<BudgetView>,
}

/// A PodDisruptionBudget, as its status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetView {
    /// Its name.
    pub name: String,
    /// How many of its pods may be disrupted now.
    pub allowed: i32,
    /// How many of its pods must be healthy.
    pub needs: i32,
    /// How many are.
    pub has: i32,
    /// Its pods that are not healthy may be evicted whatever the numbers are: `unhealthyPodEvictionPolicy: AlwaysAllow`.
    pub unhealthy_may_go: bool,
}

/// Who would start a pod again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodKeeper {
    /// A DaemonSet, on the same node.
    DaemonSet,
    /// A DaemonSet that is gone: nobody, and nobody would keep it either.
    GoneDaemonSet,
    /// The kubelet, which read it from a file.
    Kubelet,
    /// A controller, elsewhere.
    #[default]
    Controller,
    /// Nobody.
    Nobody,
}

/// What a load balancer outside the cluster was asked for a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadBalancerCall {
    /// The token of the hold.
    pub token: String,
    /// The name of the step.
    pub step: String,
    /// What was asked.
    pub action: LoadBalancerAction,
}

/// What a load balancer can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadBalancerAction {
    /// Whether it sends anything to the machine.
    Look,
    /// To send nothing to it.
    Leave,
    /// To send to it again.
    Return,
}

/// What it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadBalancerAnswer {
    /// It did what was asked; when it was looked at, it sends to the machine.
    Done,
    /// It sends nothing to the machine already, because somebody said so before.
    Out,
    /// It sends nothing new, and something is still open, in words.
    Busy(String),
    /// It did not do what was asked, for this reason.
    Failed(String),
}

/// Another Rollout, as far as one that comes after it is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutView {
    /// The Rollouts that it waits for itself.
    pub depends_on: Vec<String>,
    /// Where it is.
    pub phase: Option<RolloutPhase>,
    /// Whether its status speaks of its spec as it is now.
    pub is_observed: bool,
    /// The revision of its run.
    pub revision: Option<String>,
    /// The revision that it should have: the one that it pins, or its NodeConfig's newest.
    pub wanted: Option<String>,
}

#[cfg(test)]
mod tests {
    use drover_crds::{Claim, HostSpec, HostStatus, NodeRef};
    use serde_json::json;

    use super::*;

    #[test]
    fn held_hosts_and_marked_nodes_are_those_that_are_so_now() {
        let claim: Claim = serde_json::from_value(json!({
            "rollout": "base", "rolloutUid": "r", "run": 1, "batch": 0, "token": "t", "attempt": 1,
            "target": {"nodeConfig": "base", "revision": "base-1"}, "since": "2030-01-01T00:00:00Z",
            "step": "Apply", "stepStartedAt": "2030-01-01T00:00:00Z",
        }))
        .unwrap();
        let host = |name: &str, held: bool| {
            let mut host = Host::new(name, HostSpec { node_ref: NodeRef::default() });
            host.status = Some(HostStatus { claim: held.then(|| claim.clone()), ..HostStatus::default() });
            Arc::new(host)
        };
        let mut hosts: Hosts = [host("b", true), host("a", true), host("c", false)].into_iter().collect();
        let held = |hosts: &Hosts| hosts.held().map(|host| host.metadata.name.clone().unwrap()).collect::<Vec<_>>();
        assert_eq!((held(&hosts), hosts.count()), (vec!["a".to_owned(), "b".to_owned()], 3));
        hosts.put(host("a", false));
        hosts.put(host("c", true));
        hosts.remove("b");
        assert_eq!((held(&hosts), hosts.count()), (vec!["c".to_owned()], 2));

        let node = |mark: Option<&str>| NodeView { cordoned_by: mark.map(str::to_owned), ..NodeView::default() };
        let excluded = NodeView { excluded_by: Some("t".into()), ..NodeView::default() };
        let nodes = [("a", node(Some("t"))), ("b", node(None)), ("c", node(Some("t"))), ("d", excluded)];
        let mut nodes: Nodes = nodes.map(|(name, node)| (name.to_owned(), node)).into_iter().collect();
        nodes.put("a".to_owned(), node(None));
        nodes.put("b".to_owned(), node(Some("t")));
        nodes.remove("c");
        assert_eq!(nodes.marked().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "d"]);
    }
}

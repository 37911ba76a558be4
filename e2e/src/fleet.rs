//! The cluster with its machines and Drover on it.

use drover_crds::{Host, NodeConfig, Rollout, RolloutPhase, RolloutStatus, condition, keys::RELEASED_BY_ANNOTATION};
use futures::future::join_all;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    Cluster, Machine,
    audit::Audit,
    cluster::required,
    machine::Harm,
    wait::{LATER, SOON, eventually, until},
};

/// The namespace that Drover is installed in.
pub const NAMESPACE: &str = "drover-system";
/// The machines, which are Nodes and Hosts of the same names.
pub const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// The cluster with its machines and Drover on it.
pub struct Fleet {
    /// The API server.
    pub cluster: Cluster,
    /// What the API server wrote down since the story began.
    pub audit: Audit,
    testbed: String,
}

impl Fleet {
    pub(crate) async fn connect() -> Self {
        let testbed = required("DROVER_E2E_TESTBED");
        let cluster = Cluster::connect().await;
        let audit = Audit::from_now(cluster.kubeconfig.with_file_name("audit.log"));
        Self { cluster, audit, testbed }
    }

    /// The story begins: what the API server writes down from now on counts.
    pub(crate) fn begin(&mut self) {
        self.audit = Audit::from_now(self.cluster.kubeconfig.with_file_name("audit.log"));
    }

    /// Objects of a kind in Drover's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }

    /// The Nodes.
    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.cluster.client.clone())
    }

    /// One machine.
    pub fn machine(&self, node: &str) -> Machine {
        Machine { node: node.to_owned(), testbed: self.testbed.clone() }
    }

    /// What a shell script prints on each machine, in their order.
    pub async fn on_all(&self, script: &str) -> Vec<String> {
        join_all(NODES.map(async |node| self.machine(node).run(script).await)).await
    }

    /// Applies a NodeConfig with these resources, and returns its revision when Drover has made it.
    pub async fn configure(&self, name: &str, resources: Value) -> String {
        self.configure_with(name, json!({"resources": resources})).await
    }

    /// Applies a NodeConfig with this spec, and returns its revision when Drover has made it.
    pub async fn configure_with(&self, name: &str, spec: Value) -> String {
        let applied = self.apply_node_config(name, spec).await;
        self.revision_of(&applied).await
    }

    /// Applies a NodeConfig with this spec, be it good or not.
    pub async fn apply_node_config(&self, name: &str, spec: Value) -> NodeConfig {
        let object = json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        });
        self.cluster.apply(&self.api::<NodeConfig>(), &object).await
    }

    /// The revision that Drover made of this NodeConfig, or of a later state of it.
    pub async fn revision_of(&self, config: &NodeConfig) -> String {
        let generation = config.metadata.generation;
        until(&self.api::<NodeConfig>(), &config.name_any(), "Ready with a revision", SOON, |config| {
            let status = config.status.as_ref()?;
            let ready = status.observed_generation >= generation && condition::is_true(&status.conditions, "Ready");
            status.revision.clone().filter(|_| ready)
        })
        .await
    }

    /// Waits until a NodeConfig can not be rolled out, in this phase, and returns what it says about that.
    pub async fn refusal_of(&self, config: &NodeConfig, phase: &str) -> String {
        let generation = config.metadata.generation;
        until(&self.api::<NodeConfig>(), &config.name_any(), phase, SOON, |config| {
            let status = config.status.as_ref()?;
            let ready = condition::find(&status.conditions, "Ready")?;
            let refused = ready.status == "False" && status.phase.as_deref() == Some(phase);
            (refused && status.observed_generation >= generation).then(|| ready.message.clone())
        })
        .await
    }

    /// Applies a Rollout of the NodeConfig of the same name; `spec` is what is to be said beside that.
    pub async fn roll(&self, name: &str, mut spec: Value) -> Rollout {
        spec["nodeConfigRef"] = json!({"name": name});
        let object = json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "Rollout",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        });
        self.cluster.apply(&self.api::<Rollout>(), &object).await
    }

    /// Waits until a Rollout is Complete with this revision on as many machines as it is for, and returns its status.
    pub async fn completes(&self, name: &str, revision: &str) -> RolloutStatus {
        self.rollout_until(name, &format!("Complete with {revision}"), |status| {
            status.phase == Some(RolloutPhase::Complete)
                && status.run.as_ref().is_some_and(|run| run.revision == revision)
        })
        .await
    }

    /// Waits until a Rollout's status is like this, and returns it. A status of an earlier spec does not count.
    pub async fn rollout_until(&self, name: &str, what: &str, like: impl Fn(&RolloutStatus) -> bool) -> RolloutStatus {
        until(&self.api::<Rollout>(), name, what, LATER, |rollout| {
            let current = |status: &&RolloutStatus| status.observed_generation == rollout.metadata.generation;
            rollout.status.as_ref().filter(current).filter(|status| like(status)).cloned()
        })
        .await
    }

    /// Waits until a Host is like this.
    pub async fn host_until(&self, name: &str, what: &str, like: impl Fn(&Host) -> bool) -> Host {
        until(&self.api::<Host>(), name, what, LATER, |host| like(host).then(|| host.clone())).await
    }

    /// Merges something into a Rollout's spec.
    pub async fn edit_rollout(&self, name: &str, spec: Value) -> Rollout {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api::<Rollout>().patch(name, &PatchParams::default(), &patch).await.unwrap()
    }

    /// The Nodes that are cordoned or out of load balancers, or that carry a mark of Drover's, and why.
    pub async fn nodes_out_of_service(&self) -> Vec<String> {
        let nodes = self.nodes().list(&ListParams::default()).await.unwrap();
        nodes.iter().filter(|node| is_touched(node)).map(ResourceExt::name_any).collect()
    }

    /// The pods of a part of Drover.
    pub async fn pods_of(&self, part: Part) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default().labels(part.labels())).await.unwrap().items
    }

    /// The pod of the operator that acts now.
    pub async fn operator(&self) -> Pod {
        let pods = self.api::<Pod>();
        let leases = self.api::<Lease>();
        eventually("an operator acts", SOON, async || {
            let lease = leases.get("drover-operator").await.map_err(|error| error.to_string())?;
            let holder = lease.spec.and_then(|spec| spec.holder_identity).ok_or("nobody holds the Lease")?;
            let pod = pods.get(&holder).await.map_err(|error| format!("the holder of the Lease: {error}"))?;
            if is_serving(&pod) { Ok(pod) } else { Err(format!("{holder} holds the Lease, and does not serve")) }
        })
        .await
    }

    /// The nodes in the order in which a Rollout takes them: by name, and the operator's own last.
    pub async fn turns(&self) -> [String; 3] {
        let operator = self.operator().await;
        let own = operator.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().to_owned();
        let mut turns = NODES.map(str::to_owned);
        turns.sort_by_key(|node| (*node == own, node.clone()));
        turns
    }

    /// The pod of the agent of a node.
    pub async fn agent(&self, node: &str) -> Pod {
        let of_node = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
        eventually(&format!("an agent serves {node}"), SOON, async || {
            let pods = self.pods_of(Part::Agent).await;
            pods.into_iter().find(|pod| of_node(pod) && is_serving(pod)).ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Kills a pod's container with SIGKILL, and waits until the kubelet has started it anew.
    pub async fn kill(&self, pod: &Pod) {
        self.kill_without_waiting(pod).await;
        self.restarted(pod).await;
    }

    /// Kills a pod's container with SIGKILL.
    pub async fn kill_without_waiting(&self, pod: &Pod) {
        self.harm(pod, Harm::Kill).await;
    }

    /// Does something to a pod's container, and waits until it is over.
    pub async fn harm(&self, pod: &Pod, harm: Harm) {
        let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap();
        self.machine(node).harm_container(status.container_id.as_deref().unwrap(), harm).await;
    }

    /// Waits until the kubelet has started a pod's container anew.
    pub async fn restarted(&self, before: &Pod) {
        let life = |pod: &Pod| Some(pod.status.as_ref()?.container_statuses.as_ref()?.first()?.restart_count);
        until(&self.api::<Pod>(), &before.name_any(), "started anew", SOON, |pod| {
            (life(pod) > life(before) && is_serving(pod)).then_some(())
        })
        .await;
    }

    /// Lists all objects of a kind in Drover's namespace.
    pub async fn all<K>(&self) -> Vec<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>().list(&ListParams::default()).await.unwrap().items
    }
}

/// A part of Drover that runs as pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The one that acts, and those that wait to take over.
    Operator,
    /// They compile and serve.
    Master,
    /// One on each node.
    Agent,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Master, Self::Agent];

    /// What selects its pods.
    pub fn labels(self) -> &'static str {
        match self {
            Self::Operator => "app.kubernetes.io/component=operator",
            Self::Master => "drover.dev/master-pool=masters",
            Self::Agent => "app.kubernetes.io/component=agent",
        }
    }
}

/// Whether all containers of a pod are ready, and it is not about to end.
pub fn is_serving(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a Node takes no new pods.
pub fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

/// Whether a Node has the label that takes it out of load balancers.
pub fn is_excluded(node: &Node) -> bool {
    node.labels().contains_key(drover_crds::keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL)
}

/// Whether nothing is assigned to a Host, no Rollout holds it, and its agent knows.
pub fn is_free(host: &Host) -> bool {
    host.status.as_ref().is_none_or(|status| {
        let known = status.active.as_ref().is_some_and(|active| active.generation == status.assigned_generation);
        status.assigned.is_empty() && status.claim.is_none() && (known || status.assigned_generation == 0)
    })
}

/// Whether a Rollout, or anybody, has left something on a Node.
pub(crate) fn is_touched(node: &Node) -> bool {
    // Who gave it back last is no mark of a hold.
    let is_mark = |key: &String| key.starts_with("drover.dev/") && key != RELEASED_BY_ANNOTATION;
    let marked = node.annotations().keys().any(is_mark);
    is_cordoned(node) || is_excluded(node) || marked
}

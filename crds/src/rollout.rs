use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ClaimStep, Limit};

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
    /// What must be seen before a machine counts as updated. Left out: the agent's report that it converged suffices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gates: Option<Gates>,
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

/// How many machines change at once, in which portions, and how many may be out of service meanwhile.
///
/// Two limits hold at every moment: `maxParallel` for the machines that this Rollout changes, and `maxUnavailable` for
/// all machines out of service, for whatever reason. Batches come one after the other; a batch begins when all machines
/// of the one before are done. For example, a canary first and then a tenth of the machines at a time:
/// `{maxParallel: 10, maxUnavailable: "10%", batches: [{name: canary, size: 1}, {name: rest, size: "10%"}]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// How many machines this Rollout changes at once: a number, or a percentage of the machines it is for, rounded down
    /// but at least 1. Left out: 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_parallel: Option<Limit>,
    /// How many machines may be out of service: those under way, and those that are so for another reason (their node is
    /// NotReady, or an administrator cordoned it). A number, or a percentage of the machines it is for, rounded down but
    /// at least 1. No further machine is begun when that would exceed it. Left out: 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_unavailable: Option<Limit>,
    /// Portions of the machines, in their order; the last one repeats until all machines are done. Left out: one batch of
    /// all machines.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 30))]
    pub batches: Vec<Batch>,
    /// When to stop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<FailurePolicy>,
    /// How long a machine's agent may take to apply the revision and report, in seconds; then the machine has failed. Left
    /// out: 600.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub apply_timeout_seconds: Option<i32>,
}

/// A portion of the machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Names the batch for people. Left out: `batch-1`, `batch-2`, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// How many machines: a number, or a percentage of all machines of the Rollout, rounded down but at least 1.
    pub size: Limit,
}

/// When to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// How many machines of a run may fail before it stops. Left out: 0, so that the first failure stops it. A stopped run
    /// goes on with a new revision, or when the Rollout's spec is changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_failed: Option<i32>,
}

/// How a machine is taken out of service before it changes. What it was like before is recorded first and restored
/// after, on success and on failure; a node that was cordoned before stays cordoned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
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

/// What must be seen before a machine counts as updated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Asked for each machine after its agent converged. All must pass.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    pub host: Vec<Gate>,
}

/// One thing that must be seen. Exactly one of `nodeReady` and `http` is given. No answer is no success.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.nodeReady) != has(self.http)", "a gate has exactly one of nodeReady and http; write each check as a gate of its own"))]
pub struct Gate {
    /// The node's condition `Ready` is `True`. Write `nodeReady: {}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_ready: Option<NodeReadyGate>,
    /// An HTTP request to the machine is answered with a 2xx status.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<HttpGate>,
    /// How long the gate may take to pass, in seconds; then the machine has failed. Left out: 120.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// How often it is asked, in seconds. Left out: 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,
}

/// The node's condition `Ready` is `True`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReadyGate {}

/// An HTTP request to the machine's own address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGate {
    /// The port, on the node's InternalIP.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The path, with its query. Left out: `/`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^/[!-~]*$')", "write a path that begins with a slash, without spaces; other characters as %20"))]
    pub path: Option<String>,
    /// `HTTP`, or `HTTPS`, whose certificate is not verified. Left out: `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scheme: Option<HttpScheme>,
}

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpScheme {
    /// Plain.
    Http,
    /// TLS, not verified.
    Https,
}

/// Where the Rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The generation of the Rollout that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Pending`, `Progressing`, `Paused`, `Failed`, `Complete`.
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
    /// The machines of the run, by where they are. `total` is the sum of the others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counts: Option<Counts>,
    /// The first 50 batches of the run.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub batches: Vec<BatchStatus>,
    /// The machines under way. A machine is entered here before anything is done to it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["host".into()]))]
    pub in_flight: Vec<InFlightHost>,
    /// The first 20 machines that failed in the run, and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub failures: Vec<Failure>,
    /// The runs before, newest first, at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub history: Vec<Run>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a Rollout is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// It waits for something that it needs before it can begin; the message says for what.
    Pending,
    /// Machines are under way.
    Progressing,
    /// `paused` is true, and no machine is under way any more.
    Paused,
    /// More machines failed than may.
    Failed,
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
    /// When all machines had the revision, or when it was superseded by another run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<Time>,
    /// How many machines had the revision when it was superseded or completed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub updated: Option<i32>,
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

impl RolloutSpec {
    /// How many of `total` machines change at once.
    pub fn resolved_max_parallel(&self, total: usize) -> usize {
        self.strategy.as_ref().and_then(|s| s.max_parallel).unwrap_or(Limit::Count(1)).of(total)
    }

    /// How many of `total` machines may be out of service.
    pub fn resolved_max_unavailable(&self, total: usize) -> usize {
        self.strategy.as_ref().and_then(|s| s.max_unavailable).unwrap_or(Limit::Count(1)).of(total)
    }

    /// How many machines may fail before the run stops.
    pub fn resolved_max_failed(&self) -> usize {
        let failure = self.strategy.as_ref().and_then(|s| s.failure.as_ref());
        failure.and_then(|f| f.max_failed).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    }

    /// How long an agent may take to apply and report, in seconds.
    pub fn resolved_apply_timeout_seconds(&self) -> i32 {
        self.strategy.as_ref().and_then(|s| s.apply_timeout_seconds).unwrap_or(600)
    }

    /// Whether nodes get the label that takes them out of load balancers.
    pub fn excludes_from_load_balancers(&self) -> bool {
        self.load_balancer().is_some_and(|lb| lb.exclude.unwrap_or(true))
    }

    /// How long load balancers get to notice, in seconds; 0 where they are not told.
    pub fn resolved_settle_seconds(&self) -> i32 {
        if !self.excludes_from_load_balancers() {
            return 0;
        }
        self.load_balancer().and_then(|lb| lb.settle_seconds).unwrap_or(15)
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

    fn load_balancer(&self) -> Option<&LoadBalancer> {
        self.disruption.as_ref()?.load_balancer.as_ref()
    }
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

impl Gate {
    /// How long the gate may take to pass, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(120)
    }

    /// How often it is asked, in seconds.
    pub fn resolved_period_seconds(&self) -> i32 {
        self.period_seconds.unwrap_or(2)
    }

    /// The gate in a few words, for messages.
    pub fn describe(&self) -> String {
        match (&self.node_ready, &self.http) {
            (_, Some(http)) => http.describe(),
            (Some(_), None) => "nodeReady".to_owned(),
            (None, None) => "an empty gate".to_owned(),
        }
    }
}

impl HttpGate {
    fn describe(&self) -> String {
        format!("http :{}{}", self.port, self.resolved_path())
    }

    /// The path.
    pub fn resolved_path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    /// The scheme.
    pub fn resolved_scheme(&self) -> HttpScheme {
        self.scheme.unwrap_or(HttpScheme::Http)
    }
}

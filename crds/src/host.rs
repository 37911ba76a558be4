use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::LoadBalancerStep;

/// One machine. The operator makes a Host for each Node of the cluster; they are not written by hand.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "Host",
    namespaced,
    status = "HostStatus",
    derive = "PartialEq",
    category = "drover",
    doc = "One machine: what is assigned to it, what is active on it, and which Rollout holds it. The operator makes a \
           Host for each Node of the cluster.",
    selectable = ".status.phase",
    selectable = ".status.masterPool",
    printcolumn(name = "State", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Via", type_ = "string", json_path = r".metadata.labels['drover\.dev/via']"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.display.revisions"),
    printcolumn(name = "OS", type_ = "string", json_path = ".status.facts.os.name"),
    printcolumn(name = "Release", type_ = "string", json_path = ".status.facts.os.release.full"),
    printcolumn(name = "Drifted", type_ = "string", json_path = ".status.conditions[?(@.type=='Drifted')].status"),
    printcolumn(name = "Last-Change", type_ = "date", json_path = ".status.active.lastChangeTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.facts.kernelrelease", priority = 1),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.facts.networking.ip", priority = 1),
    printcolumn(name = "Masters", type_ = "string", json_path = ".status.masterPool", priority = 1),
    printcolumn(name = "Held-By", type_ = "string", json_path = ".status.claim.rollout", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// The Node of the cluster that this Host stands for, by name and UID. A Node made again under the same name gets a
    /// new Host.
    #[x_kube(validation = ("self == oldSelf", "spec.nodeRef can not change: a Host stands for one machine; delete the Host and the operator makes a new one"))]
    pub node_ref: NodeRef,
}

/// A Node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeRef {
    /// The Node's name.
    pub name: String,
    /// The Node's UID.
    pub uid: String,
}

/// What is known of a machine and what is done with it. Written by the operator and the masters only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// The generation of the Host that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Unassigned`, `Pending`, `UpToDate`, `Updating`, `Failed`, `NotReady`, `Unreachable`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<String>,
    /// One line about the phase.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Strings made ready for the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub display: Option<HostDisplay>,
    /// The MasterPool whose masters serve this machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub master_pool: Option<String>,
    /// What the machine must look like: one revision of each NodeConfig that was rolled out to it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["nodeConfig".into()]))]
    pub assigned: Vec<Assignment>,
    /// Grows by one with each change of `assigned`, and when a machine that failed shall try again. Agents refuse a
    /// catalog of an older generation than they have.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub assigned_generation: i64,
    /// What the machine's agent last reported.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub active: Option<AppliedReport>,
    /// The Rollout that holds this machine now. A machine is held by one Rollout at a time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub claim: Option<Claim>,
    /// How the machine was before a Rollout came: what it gives back. Recorded before anything is changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restore: Option<Restore>,
    /// How the last run of each Rollout ended on this machine; the 16 newest.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["rollout".into()]))]
    pub runs: Vec<RunRecord>,
    /// The machine's facts, as its agent gathered them: the tree that templates read as `facts`, at most 64 KiB.
    /// `docs/facts.md` lists them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(schema_with = "facts_schema")]
    pub facts: Option<Map<String, Value>>,
    /// `Ready`, `Reconciling`, `Stalled`; the steps of a Rollout (`Claimed`, `ExcludedFromLoadBalancer`, `Cordoned`,
    /// `Drained`, `Verified`); `Applied`: whether the last run of the agent converged; and `Drifted`: whether it found
    /// resources that somebody else had changed, and which.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// An object of any content, which is replaced as a whole: custom facts have any shape, and the masters alone write it.
fn facts_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}

/// Strings made ready for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostDisplay {
    /// The active revisions, joined by commas.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revisions: Option<String>,
}

/// A revision of a NodeConfig that a machine must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The NodeConfig's name.
    pub node_config: String,
    /// The revision's name, `<NodeConfig>-<hash>`.
    pub revision: String,
}

/// What an agent last reported, in brief. Runs that change nothing are not reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedReport {
    /// The assignment generation of the catalog that was applied.
    pub generation: i64,
    /// The digest of the catalog that was applied.
    pub catalog: String,
    /// The revisions that the catalog was made of.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub revisions: Vec<Assignment>,
    /// Whether each resource is as the catalog says.
    pub converged: bool,
    /// How many resources the catalog has.
    pub resources: i32,
    /// How many of them the run changed because the catalog was new.
    pub changed: i32,
    /// How many of them the run corrected: somebody else had changed the machine.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub corrected: i32,
    /// How many of them differ and were left so, by their drift mode `Report`.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub pending: i32,
    /// How many of them failed.
    pub failed: i32,
    /// The resources that change at each run, as `<NodeConfig>/<resource>`; at most 20. They are told of once, not at each
    /// run.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flapping: Vec<String>,
    /// The NodeConfigs that the machine differed from by itself: something of theirs was corrected, left as it is, or changes
    /// at each run.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub drifted_from: Vec<String>,
    /// Why the machine must reboot; at most 10 reasons. A Rollout brings it about.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub reboot_required: Vec<String>,
    /// How the commands ended that the claim asks for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub commands: Vec<CommandReport>,
    /// The first failures, or what was changed, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// When a run last changed or corrected something on the machine. A resource that is corrected again and again counts
    /// once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_change_time: Option<Time>,
    /// The kernel's boot id: it changes with each reboot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_id: Option<String>,
    /// The agent's version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_version: Option<String>,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandReport {
    /// The wish that it was run for.
    pub token: String,
    /// Its exit code; absent when it could not be started, took too long, or was ended by a signal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<i32>,
    /// The last 256 bytes of what it printed, or why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
}

/// A command that the machine's agent runs once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimCommand {
    /// Tells this wish from every other.
    pub token: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_seconds: i32,
}

/// A Rollout's hold on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The Rollout's name.
    pub rollout: String,
    /// The Rollout's UID.
    pub rollout_uid: String,
    /// The Rollout's run.
    pub run: i64,
    /// The batch of the run that the machine is in, from 0.
    pub batch: i32,
    /// Tells this hold from every other; the entry in the Rollout's `inFlight` has the same.
    pub token: String,
    /// The revision that the machine gets.
    pub target: Assignment,
    /// Counts the holds of this run on the machine, from 1.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub attempt: i32,
    /// The revision that the machine had before, if it had one of this NodeConfig.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<String>,
    /// What the change costs the machine; it decides which steps there are. Absent: not known, which counts as the most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<ChangeCost>,
    /// The revision was applied in this hold already: the machine was kept in service, or left load balancers only, for what
    /// the change was thought to cost, and is now taken out of service for the reboot that the agent asks for.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub applied: bool,
    /// What the node was drained for in this hold. Absent: it was not drained.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drained_for: Option<ChangeCost>,
    /// The load balancers outside the cluster that were told to leave the machine out, or are to be told; each is recorded
    /// before it is told, and taken away when it was told that the machine is back.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_load_balancers: Vec<LeftLoadBalancer>,
    /// What is being done. It is recorded before it is done.
    pub step: ClaimStep,
    /// When the machine was claimed.
    pub since: Time,
    /// When this step began.
    pub step_started_at: Time,
    /// What the step waits for, such as a pod and the budget that protects it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting_for: Option<String>,
    /// The boot during which the machine may reboot, by the kernel's boot id; absent: it may not. It is over when the agent
    /// reports another boot id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reboot: Option<String>,
    /// Commands that the machine's agent runs once, for the gates.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub commands: Vec<ClaimCommand>,
    /// How the hold ends, once that is known; then the machine is given back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<RunOutcome>,
    /// Why it ends so, where it is no success.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

/// A load balancer outside the cluster that a machine left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftLoadBalancer {
    /// The step as the Rollout has it, filled in for the machine: what was done is undone in the same way, whatever the
    /// Rollout says by then.
    #[schemars(schema_with = "step_schema")]
    pub step: LoadBalancerStep,
    /// It sent nothing to the machine already, so it is neither told to leave it out nor that it is back.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub was_out: bool,
    /// When it had done what was asked. Absent: it is being told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_at: Option<Time>,
}

/// An object whose fields are a Rollout's. Their rules are checked there; here they would cost more than a CRD may.
fn step_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// What a change costs those who use a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ChangeCost {
    /// Nothing changes: the catalog is the same.
    NoOp,
    /// Something changes, and nobody notices.
    None,
    /// A service reads its configuration again.
    Reload,
    /// A service is away for a moment.
    Restart,
    /// The machine's pods have to leave.
    Drain,
    /// The machine reboots.
    Reboot,
}

/// The steps of one machine, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ClaimStep {
    /// Held, nothing done yet. A machine that is to be drained waits here, in service, for what stands in the way.
    Claim,
    /// The hooks before a machine are run.
    BeforeHost,
    /// The label that takes the node out of load balancers is set, and settles.
    LeaveLoadBalancer,
    /// The node takes no new pods.
    Cordon,
    /// The node's pods are evicted.
    Drain,
    /// The volumes of the pods that left are detached.
    DetachVolumes,
    /// The revision is assigned, and the agent applies it.
    Apply,
    /// The machine reboots, because what was applied asks for it.
    Reboot,
    /// The gates are asked.
    Verify,
    /// The hooks after a machine are run.
    AfterHost,
    /// Cordon and label become what they were before.
    Restore,
}

impl ClaimStep {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "Claim",
            Self::BeforeHost => "BeforeHost",
            Self::LeaveLoadBalancer => "LeaveLoadBalancer",
            Self::Cordon => "Cordon",
            Self::Drain => "Drain",
            Self::DetachVolumes => "DetachVolumes",
            Self::Apply => "Apply",
            Self::Reboot => "Reboot",
            Self::Verify => "Verify",
            Self::AfterHost => "AfterHost",
            Self::Restore => "Restore",
        }
    }
}

/// How a machine was before a Rollout came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// The node was cordoned already, so it stays cordoned.
    pub cordoned: bool,
    /// The value of the label that takes the node out of load balancers, if it was there already; then it stays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load_balancer_label: Option<String>,
}

/// How a run of a Rollout ended on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// The Rollout's name.
    pub rollout: String,
    /// The Rollout's UID.
    pub rollout_uid: String,
    /// The Rollout's run.
    pub run: i64,
    /// The batch that the machine was in, from 0.
    pub batch: i32,
    /// Counts the holds of this run on the machine, from 1.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub attempt: i32,
    /// The revision that the machine got.
    pub revision: String,
    /// The revision that it had before, if it had one of this NodeConfig: what a rollback brings back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<String>,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why it failed, or was left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Time,
}

impl RunRecord {
    /// When it ended, as a timestamp.
    pub fn finished(&self) -> Timestamp {
        self.finished_at.0
    }
}

/// How a run ended on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunOutcome {
    /// The revision was applied, and all gates passed.
    Succeeded,
    /// A step failed; the machine was given back.
    Failed,
    /// The machine was given back unchanged, and its turn comes again.
    Withdrawn,
    /// The machine was left out of the run.
    Skipped,
    /// The machine has again the revision that it had before the run.
    RolledBack,
}

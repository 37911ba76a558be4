//! Every label, annotation and finalizer that Drover writes or reads, in one place.

/// On a `ControllerRevision` or `Secret`: the NodeConfig that it is a revision of.
pub const NODE_CONFIG_LABEL: &str = "drover.dev/node-config";
/// On a `Host`: `node` or `ssh`, how it is reached.
pub const VIA_LABEL: &str = "drover.dev/via";
/// On what a MasterPool owns: the pool's name.
pub const MASTER_POOL_LABEL: &str = "drover.dev/master-pool";
/// On a master and its Deployment: the zone that it is for.
pub const MASTER_ZONE_LABEL: &str = "drover.dev/master-zone";
/// On a master and its Deployment: the region of that zone.
pub const MASTER_REGION_LABEL: &str = "drover.dev/master-region";
/// On a Node, by the cloud: its zone. Its Host has it as well.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// On a Node, by the cloud: its region. Its Host has it as well.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// On a Job that was made for a Rollout: the Rollout's name.
pub const ROLLOUT_LABEL: &str = "drover.dev/rollout";
/// On a Job that was made for a Rollout: the number of the run.
pub const RUN_LABEL: &str = "drover.dev/run";
/// On a Job that was made for a batch, or a machine of it: the batch, from 0.
pub const BATCH_LABEL: &str = "drover.dev/batch";
/// On a Job that was made for a machine: the Host's name.
pub const HOST_LABEL: &str = "drover.dev/host";
/// On a Job that was made for a machine: the token of the hold on it.
pub const HOLD_TOKEN_ANNOTATION: &str = "drover.dev/hold-token";
/// On a Job that was made from a CronJob by other than its schedule, as `kubectl create job --from` writes it.
pub const INSTANTIATE_ANNOTATION: &str = "cronjob.kubernetes.io/instantiate";
/// Annotation of a Job that was made and is not to begin yet; `suspended` where its template has it suspended.
pub const NOT_BEGUN_ANNOTATION: &str = "drover.dev/not-begun";
/// On a Rollout: hosts are given back before it goes.
pub const ROLLOUT_FINALIZER: &str = "drover.dev/rollout";
/// On a Node, by Kubernetes: load balancers outside the cluster leave this node out.
/// See <https://kubernetes.io/docs/reference/labels-annotations-taints/>.
pub const EXCLUDE_FROM_LOAD_BALANCERS_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// On a pod that the kubelet read from a file: it can not be evicted.
pub const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// On a Node that a Rollout cordoned: the token of its hold. It is set and removed together with the cordon, so that a
/// cordon of somebody else is never taken for ours.
pub const CORDONED_BY_ANNOTATION: &str = "drover.dev/cordoned-by";
/// On a Node that a Rollout took out of load balancers: the token of its hold. Set and removed together with the label.
pub const EXCLUDED_BY_ANNOTATION: &str = "drover.dev/excluded-by";
/// On a Node: the token of the hold that gave it back last. It is written before the machine is let go, so that a cordon or
/// a label which an operator that lost its leadership still has on its way names an older version, and is refused.
pub const RELEASED_BY_ANNOTATION: &str = "drover.dev/released-by";

/// On a Rollout, by people: no further machine is begun while it is there. The value says why.
pub const PAUSE_ANNOTATION: &str = "drover.dev/pause";
/// On a Rollout, by people: nothing moves while it is there, machines under way stay at their step. The value says why.
pub const HOLD_ANNOTATION: &str = "drover.dev/hold";
/// On a Rollout, by people: approves batches, `<run>/<batch>` each, separated by commas; `<run>/*` for all of a run.
pub const APPROVE_ANNOTATION: &str = "drover.dev/approve";
/// On a Rollout, by people: ends the run of this number.
pub const ABORT_ANNOTATION: &str = "drover.dev/abort";
/// On a Rollout, by people: after the run of this number was stopped or failed, tries again.
pub const RETRY_ANNOTATION: &str = "drover.dev/retry";
/// On a Rollout, by people: gives the machines that the run of this number changed the revision that each had before.
pub const UNDO_ANNOTATION: &str = "drover.dev/undo";
/// On a Rollout, by people: leaves these Hosts out, by name, separated by commas. On a Host: every Rollout leaves it out; the
/// value says why.
pub const SKIP_ANNOTATION: &str = "drover.dev/skip";

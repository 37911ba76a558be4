//! Every label, annotation and finalizer that Drover writes or reads, in one place.

/// On a `ControllerRevision` or `Secret`: the NodeConfig that it is a revision of.
pub const NODE_CONFIG_LABEL: &str = "drover.dev/node-config";
/// On a `Host`: `node` or `ssh`, how it is reached.
pub const VIA_LABEL: &str = "drover.dev/via";
/// On what a MasterPool owns: the pool's name.
pub const MASTER_POOL_LABEL: &str = "drover.dev/master-pool";
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

//! What can be asked of the API server, one write at a time.

use drover_crds::{HostStatus, LoadBalancerStep, RolloutStatus};

use super::{
    hook::Wanted,
    snapshot::{LoadBalancerCall, PodKey},
};

/// One write. Each names the version of the object that it was decided on, so that a write to a newer one is refused
/// with a conflict, and decided anew.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Put our finalizer on the Rollout, so that its deletion gives the machines back first.
    AddFinalizer,
    /// Take our finalizer from the Rollout: nothing is held any more.
    RemoveFinalizer,
    /// Replace the Rollout's status.
    WriteRollout(Box<RolloutStatus>),
    /// Replace a Host's status.
    WriteHost {
        /// The Host's name.
        host: String,
        /// Its new status.
        status: Box<HostStatus>,
    },
    /// Change the Node: cordon or uncordon it, or set or remove the load balancer label. The mark that says whose cordon
    /// or label it is is written in the same request.
    PatchNode {
        /// The Node's name.
        node: String,
        /// The version that was read.
        resource_version: String,
        /// What to change.
        change: NodeChange,
    },
    /// Ask the API server to evict a pod. When it refuses, note that in the snapshot and ask again.
    Evict(PodKey),
    /// Delete a pod that could not be evicted in time, whatever protects it.
    DeletePod(PodKey),
    /// Ask a load balancer outside the cluster for something. Note what it answers in the snapshot and ask again.
    TellLoadBalancer {
        /// What is asked, and for whom.
        call: LoadBalancerCall,
        /// Which load balancer, filled in for the machine.
        step: Box<LoadBalancerStep>,
    },
    /// Make a Job from its template, suspended: nothing runs before [`Request::StartJob`]. That one of its name is there already is as good; when the API server refuses, note that in
    /// the snapshot and ask again.
    CreateJob(Box<Wanted>),
    /// Let a Job begin that was made. It names the version that was read, so that of two who want it one does it, and who wakes
    /// up late does nothing: a Job can be made again that ended and was removed, and then it does not begin.
    StartJob {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The version that was read.
        resource_version: String,
        /// Whether its template has it suspended: then another controller lets it begin.
        suspended: bool,
    },
    /// Remove a Job that ended or never began, with its pods.
    DeleteJob {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

/// A change of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// Cordon it, marked with this token.
    Cordon(String),
    /// Uncordon it, and remove the mark; it is given back by the hold with this token.
    Uncordon(String),
    /// Set the label that takes it out of load balancers, marked with this token.
    ExcludeFromLoadBalancers(String),
    /// Remove that label and the mark; it is given back by the hold with this token.
    IncludeInLoadBalancers(String),
    /// Nothing of ours is on it, and what may still be on its way there must not arrive: it is given back by the hold with
    /// this token.
    Release(String),
}

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
    /// Make a Job from its template. That one of its name is there already is as good; when the API server refuses, note that in
    /// the snapshot and ask again.
    CreateJob(Box<Wanted>),
    /// Remove a Job that ended, with its pods.
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

//! Makes the one request that was decided on. Each write names the version it was decided on; a conflict is an answer, not
//! an error: the decision is taken anew.

use drover_core::rollout::{NodeChange, PodKey, Request, Snapshot};
use drover_crds::{Host, Rollout, keys};
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        policy::v1::Eviction,
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::Status,
};
use serde_json::{Value, json};

use crate::context::Context;

const MANAGER: &str = "drover-rollout";

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write Rollout {0}")]
    Rollout(String, #[source] kube::Error),
    #[error("cannot write the status of Host {0}")]
    Host(String, #[source] kube::Error),
    #[error("cannot change Node {0}")]
    Node(String, #[source] kube::Error),
    #[error("cannot evict pod {0}")]
    Evict(PodKey, #[source] kube::Error),
}

/// How a request ended.
pub(super) enum Outcome {
    /// It was done. A Rollout that was written is shown.
    Done(Option<Box<Rollout>>),
    /// The API server would not evict this pod, for this reason.
    Refused(PodKey, String),
    /// The object changed meanwhile, or is gone.
    Conflict,
}

pub(super) async fn carry_out(context: &Context, snapshot: &Snapshot, request: Request) -> Result<Outcome, Error> {
    let rollouts: Api<Rollout> = Api::namespaced(context.once.clone(), &context.namespace);
    let name = snapshot.rollout.name_any();
    match request {
        Request::AddFinalizer | Request::RemoveFinalizer => {
            let mut finalizers = snapshot.rollout.finalizers().to_vec();
            finalizers.retain(|finalizer| finalizer != keys::ROLLOUT_FINALIZER);
            if request == Request::AddFinalizer {
                finalizers.push(keys::ROLLOUT_FINALIZER.to_owned());
            }
            let metadata = json!({
                "finalizers": finalizers,
                "resourceVersion": snapshot.rollout.resource_version(),
                "uid": snapshot.rollout.uid(),
            });
            let patch = Patch::Merge(json!({"metadata": metadata}));
            settle(rollouts.patch(&name, &patching(), &patch).await, |error| Error::Rollout(name, error))
        }
        Request::WriteRollout(status) => {
            let mut next = snapshot.rollout.clone();
            next.status = Some(*status);
            match rollouts.replace_status(&name, &posting(), &next).await {
                Ok(rollout) => Ok(Outcome::Done(Some(Box::new(rollout)))),
                refused => settle(refused, |error| Error::Rollout(name, error)),
            }
        }
        Request::WriteHost { host, status } => {
            let Some(read) = snapshot.hosts.iter().find(|candidate| candidate.name_any() == host) else {
                return Ok(Outcome::Conflict);
            };
            let mut next = read.clone();
            next.status = Some(*status);
            log_step(read, &next);
            let hosts: Api<Host> = Api::namespaced(context.once.clone(), &context.namespace);
            settle(hosts.replace_status(&host, &posting(), &next).await, |error| Error::Host(host, error))
        }
        Request::PatchNode { node, resource_version, change } => {
            tracing::info!(node, ?change, "Node changes");
            let patch = Patch::Merge(node_patch(&resource_version, &change));
            let nodes = Api::<Node>::all(context.once.clone());
            settle(nodes.patch(&node, &patching(), &patch).await, |error| Error::Node(node, error))
        }
        Request::Evict(pod) => evict(context, pod).await,
    }
}

fn posting() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn patching() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// That the object changed meanwhile, or is gone, is an answer.
fn settle<T>(result: kube::Result<T>, wrap: impl FnOnce(kube::Error) -> Error) -> Result<Outcome, Error> {
    match result {
        Ok(_) => Ok(Outcome::Done(None)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(Outcome::Conflict),
        Err(error) => Err(wrap(error)),
    }
}

/// Says where a machine is now, when that changed.
fn log_step(before: &Host, after: &Host) {
    let claim = |host: &Host| host.status.as_ref().and_then(|status| status.claim.clone());
    let host = after.name_any();
    match (claim(before), claim(after)) {
        (before, Some(claim)) if before.as_ref().map(|claim| claim.step) != Some(claim.step) => {
            let failure = claim.failure.as_deref();
            tracing::info!(host, step = claim.step.as_str(), failure, "Machine enters a step");
        }
        (Some(_), None) => tracing::info!(host, "Machine given back"),
        _ => tracing::debug!(host, "Machine waits"),
    }
}

/// Cordon or label, and the mark that says whose it is, in one write.
fn node_patch(resource_version: &str, change: &NodeChange) -> Value {
    let mut patch = match change {
        NodeChange::Cordon(token) => json!({
            "metadata": {"annotations": {(keys::CORDONED_BY_ANNOTATION): token}}, "spec": {"unschedulable": true},
        }),
        NodeChange::Uncordon(token) => json!({
            "metadata": {"annotations": {(keys::CORDONED_BY_ANNOTATION): null, (keys::RELEASED_BY_ANNOTATION): token}},
            "spec": {"unschedulable": null},
        }),
        NodeChange::ExcludeFromLoadBalancers(token) => json!({"metadata": {
            "annotations": {(keys::EXCLUDED_BY_ANNOTATION): token},
            "labels": {(keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL): ""},
        }}),
        NodeChange::IncludeInLoadBalancers(token) => json!({"metadata": {
            "annotations": {(keys::EXCLUDED_BY_ANNOTATION): null, (keys::RELEASED_BY_ANNOTATION): token},
            "labels": {(keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL): null},
        }}),
        NodeChange::Release(token) => json!({"metadata": {"annotations": {(keys::RELEASED_BY_ANNOTATION): token}}}),
    };
    patch["metadata"]["resourceVersion"] = json!(resource_version);
    patch
}

async fn evict(context: &Context, pod: PodKey) -> Result<Outcome, Error> {
    // Not `Api::evict`: it sends the options under a name that the API server does not know, so that any pod of this name
    // would be evicted.
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(pod.name.clone()), ..ObjectMeta::default() },
        delete_options: Some(DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() }),
    };
    let pods: Api<Pod> = Api::namespaced(context.once.clone(), &pod.namespace);
    let answer: kube::Result<Value> = pods.create_subresource("eviction", &pod.name, &posting(), &eviction).await;
    match answer {
        Ok(_) => {
            tracing::info!(%pod, "Evicted");
            Ok(Outcome::Done(None))
        }
        // It is gone, or another one came under its name: there is nothing left to evict.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(Outcome::Conflict),
        // 429: a budget refuses. 500: more than one budget protects the pod, which the API server can not serve.
        // 403: its namespace is being deleted, or we may not evict there.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 429 | 500) => {
            let why = refusal(&status);
            tracing::debug!(%pod, why, "Eviction refused");
            Ok(Outcome::Refused(pod, why))
        }
        Err(error) => Err(Error::Evict(pod, error)),
    }
}

/// The API server's reason, with the budget's own words where it gives them.
fn refusal(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let words: Vec<&str> = causes.map(|cause| cause.message.as_str()).filter(|message| !message.is_empty()).collect();
    let words = if words.is_empty() { status.message.clone() } else { words.join("; ") };
    format!("its eviction is refused: {}", words.trim_end_matches('.'))
}

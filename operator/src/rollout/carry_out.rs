//! Makes the one request that was decided on. Each write names the version it was decided on; a conflict is an answer, not
//! an error: the decision is taken anew.

use std::sync::Arc;

use drover_core::{
    host::summarise,
    rollout::{NodeChange, PodKey, Request, Snapshot},
};
use drover_crds::{Host, HostStatus, Rollout, keys};
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        policy::v1::Eviction,
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::Status,
    runtime::events::{Event, EventType},
};
use serde_json::{Value, json};

use super::jobs;
use crate::{
    context::{Context, now},
    host::with_summary,
    objects,
};

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
    #[error("cannot make or remove Job {0}")]
    Job(String, #[source] kube::Error),
    #[error("cannot evict pod {0}")]
    Evict(PodKey, #[source] kube::Error),
    #[error("cannot delete pod {0}")]
    Delete(PodKey, #[source] kube::Error),
}

/// How a request ended.
pub(super) enum Outcome {
    /// It was done. A Rollout that was written is shown.
    Done(Option<Box<Rollout>>),
    /// The API server would not evict this pod, for this reason.
    Refused(PodKey, String),
    /// This Job could not be made, for this reason.
    RefusedJob(String, String),
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
        Request::WriteHost { host, status } => write_host(context, snapshot, host, *status).await,
        Request::PatchNode { node, resource_version, change } => {
            tracing::info!(node, ?change, "Node changes");
            let patch = Patch::Merge(node_patch(&resource_version, &change));
            let nodes = Api::<Node>::all(context.once.clone());
            let written = nodes.patch(&node, &patching(), &patch).await;
            settle(written.map(|node| context.fleet.observe_node(node)), |error| Error::Node(node, error))
        }
        Request::Evict(pod) => evict(context, pod, &options(snapshot)).await,
        Request::DeletePod(pod) => delete(context, snapshot, pod).await,
        // Not for the API server; see `load_balancer`.
        Request::TellLoadBalancer { .. } => Ok(Outcome::Conflict),
        Request::CreateJob(wanted) => {
            let name = wanted.name.clone();
            jobs::create(context, &snapshot.rollout, *wanted).await.map_err(|error| Error::Job(name, error))
        }
        Request::StartJob { name, uid, resource_version, suspended } => {
            let started = jobs::start(context, &name, (uid, resource_version), suspended).await;
            started.map_err(|error| Error::Job(name, error))
        }
        Request::DeleteJob { name, uid } => {
            jobs::delete(context, &name, uid).await.map_err(|error| Error::Job(name, error))
        }
    }
}

/// Writes the status of a Host. It needs the snapshot no more while the answer is awaited.
pub(super) fn write_host(
    context: &Context,
    snapshot: &Snapshot,
    name: String,
    status: HostStatus,
) -> impl Future<Output = Result<Outcome, Error>> + Send + use<> {
    let changed = snapshot.hosts.get(&name).map(|read| {
        let mut next = read.clone();
        next.status = Some(status);
        // What is said of the Host follows from it; to say it in the same write spares another one.
        let node = snapshot.nodes.get(&read.spec.node_ref.name);
        let summary = summarise(&next, node.is_some_and(|node| node.ready), now());
        next.status = next.status.map(|status| with_summary(status, summary));
        log_step(read, &next);
        (read.clone(), next)
    });
    let (fleet, hosts) =
        (Arc::clone(&context.fleet), Api::<Host>::namespaced(context.once.clone(), &context.namespace));
    async move {
        let Some((read, next)) = changed else { return Ok(Outcome::Conflict) };
        let written = objects::change_status(&hosts, &read, &read.status, &next.status, MANAGER).await;
        settle(written.map(|host| fleet.observe_host(host)), |error| Error::Host(name, error))
    }
}

pub(super) fn posting() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

pub(super) fn patching() -> PatchParams {
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

/// How pods are made to leave, whichever they are.
fn options(snapshot: &Snapshot) -> DeleteOptions {
    let grace_period = snapshot.rollout.spec.drain().and_then(|drain| drain.grace_period_seconds);
    DeleteOptions { grace_period_seconds: grace_period.map(i64::from), ..DeleteOptions::default() }
}

async fn evict(context: &Context, pod: PodKey, options: &DeleteOptions) -> Result<Outcome, Error> {
    // Not `Api::evict`: it sends the options under a name that the API server does not know, so that any pod of this name
    // would be evicted.
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(pod.name.clone()), ..ObjectMeta::default() },
        delete_options: Some(DeleteOptions { preconditions: Some(preconditions), ..options.clone() }),
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

/// Deletes a pod that could not be evicted in time. Somebody wrote that this may be; an event tells that it was.
async fn delete(context: &Context, snapshot: &Snapshot, pod: PodKey) -> Result<Outcome, Error> {
    let options = DeleteParams {
        grace_period_seconds: options(snapshot).grace_period_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
        preconditions: Some(kube::api::Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(context.once.clone(), &pod.namespace);
    match pods.delete(&pod.name, &options).await {
        Ok(_) => {
            let note =
                format!("pod {pod} could not be evicted in time and was deleted (disruption.drain.onTimeout: Force)");
            tracing::warn!(%pod, "Deleted: it could not be evicted in time");
            let event = Event {
                type_: EventType::Warning,
                reason: "PodDeleted".to_owned(),
                note: Some(note),
                action: "Drain".to_owned(),
                secondary: None,
            };
            if let Err(error) = context.recorder.publish(&event, &snapshot.rollout.object_ref(&())).await {
                tracing::debug!(%error, "Event not published");
            }
            Ok(Outcome::Done(None))
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(Outcome::Conflict),
        Err(error) => Err(Error::Delete(pod, error)),
    }
}

/// The API server's reason, with the budget's own words where it gives them.
fn refusal(status: &Status) -> String {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    if causes.clone().any(|cause| cause.reason == "NamespaceTerminating") {
        return "its namespace is being deleted, which takes the pod with it".to_owned();
    }
    let causes = causes.by_ref();
    let words: Vec<&str> = causes.map(|cause| cause.message.as_str()).filter(|message| !message.is_empty()).collect();
    let words = if words.is_empty() { status.message.clone() } else { words.join("; ") };
    format!("its eviction is refused: {}", words.trim_end_matches('.'))
}

//! Hosts for the cluster's Nodes: made, labelled, summarised, and given what a new machine starts with.
//!
//! The Node is the owner of its Host, so Kubernetes removes the Host when the Node is gone, or made again under the same
//! name.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use drover_core::host::{standing_assignment, summarise};
use drover_crds::{GROUP, Host, HostStatus, NodeConfig, VERSION, keys};
use futures::FutureExt as _;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::ObjectRef,
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, now},
    objects::{self, RESYNC},
};

const MANAGER: &str = "drover-host";

/// Why a Node's Host is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read Host {0}")]
    Read(String, #[source] kube::Error),
    #[error("cannot list NodeConfigs")]
    ListNodeConfigs(#[source] kube::Error),
    #[error("cannot write Host {0}")]
    Write(String, #[source] kube::Error),
    #[error("cannot write the status of Host {0}")]
    WriteStatus(String, #[source] kube::Error),
    #[error("cannot delete Host {0}, which stands for an earlier Node of this name")]
    Delete(String, #[source] kube::Error),
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    let hosts: Api<Host> = Api::namespaced(client.clone(), &namespace);
    let configs: Api<NodeConfig> = Api::namespaced(client.clone(), &namespace);
    let controller = Controller::new(Api::<Node>::all(client), objects::watching())
        .with_config(controller::Config::default().concurrency(8));
    let nodes = controller.store();
    let stream = controller
        .watches(hosts, objects::watching(), |host: Host| Some(ObjectRef::new(&host.spec.node_ref.name)))
        .watches(configs, objects::watching(), move |_| {
            nodes.state().into_iter().map(|node| ObjectRef::from_obj(&*node)).collect::<Vec<_>>()
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |node, context| reconcile(node, context).boxed(),
            |node, _, context| Action::requeue(context.backoff.failed(&format!("host/{}", node.name_any()))),
            Arc::new(context),
        );
    objects::drain("host", stream).await;
}

async fn reconcile(node: Arc<Node>, context: Arc<Context>) -> Result<Action, Error> {
    let name = node.name_any();
    if node.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        return Ok(Action::await_change());
    }
    let api: Api<Host> = Api::namespaced(context.client.clone(), &context.namespace);
    let found = api.get_opt(&name).await.map_err(|error| Error::Read(name.clone(), error))?;
    if let Some(stale) = found.as_ref().filter(|host| Some(&host.spec.node_ref.uid) != node.metadata.uid.as_ref()) {
        let preconditions = Preconditions { uid: stale.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        api.delete(&name, &params).await.map_err(|error| Error::Delete(name.clone(), error))?;
        return Ok(Action::requeue(std::time::Duration::from_secs(1)));
    }
    let host = match found {
        Some(host) if is_labelled(&host, &node) => host,
        _ => objects::apply(&api, &name, MANAGER, &desired(&node, &context.namespace))
            .await
            .map_err(|error| Error::Write(name.clone(), error))?,
    };
    let host = assign(&api, host, &context).await?;
    let summary = summarise(&host, is_ready(&node), now());
    if !says(host.status.as_ref(), &summary) {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Host", "metadata": {"name": name}, "status": summary,
        });
        objects::apply_status(&api, &name, MANAGER, &body)
            .await
            .map_err(|error| Error::WriteStatus(name.clone(), error))?;
    }
    context.backoff.reset(&format!("host/{name}"));
    Ok(Action::requeue(RESYNC))
}

/// Gives a Host that no Rollout holds what it shall have. A conflict means that something else happened to it: its event
/// brings it back here.
async fn assign(api: &Api<Host>, host: Host, context: &Context) -> Result<Host, Error> {
    let configs: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
    let configs = configs.list(&ListParams::default()).await.map_err(Error::ListNodeConfigs)?;
    let Some(assigned) = standing_assignment(&host, &configs.items) else {
        return Ok(host);
    };
    let mut next = host.clone();
    let status = next.status.get_or_insert_default();
    status.assigned = assigned;
    status.assigned_generation += 1;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.replace_status(&host.name_any(), &params, &next).await {
        Ok(host) => Ok(host),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(host),
        Err(error) => Err(Error::WriteStatus(host.name_any(), error)),
    }
}

/// The Host that stands for a Node.
fn desired(node: &Node, namespace: &str) -> serde_json::Value {
    let name = node.name_any();
    let uid = node.uid().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: uid.clone(),
        block_owner_deletion: None,
        controller: Some(true),
    };
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Host",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(node), "ownerReferences": [owner]},
        "spec": {"nodeRef": {"name": name, "uid": uid}},
    })
}

/// The Node's labels, and how the machine is reached.
fn labels(node: &Node) -> std::collections::BTreeMap<String, String> {
    let mut labels = node.labels().clone();
    labels.insert(keys::VIA_LABEL.to_owned(), "node".to_owned());
    // It comes and goes with each Rollout, and says nothing of the machine.
    labels.remove(keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL);
    labels
}

fn is_labelled(host: &Host, node: &Node) -> bool {
    *host.labels() == labels(node)
}

/// The Node's condition `Ready` is `True`.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the status says already what the summary would.
fn says(status: Option<&HostStatus>, summary: &HostStatus) -> bool {
    status.is_some_and(|status| {
        status.phase == summary.phase
            && status.message == summary.message
            && status.display == summary.display
            && status.observed_generation == summary.observed_generation
            && summary.conditions.iter().all(|condition| status.conditions.contains(condition))
    })
}

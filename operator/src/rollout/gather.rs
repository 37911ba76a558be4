//! Reads what a decision looks at, each time from the API server itself: a cache can be behind, and a decision that rests
//! on it can take one machine too many.

use std::collections::{BTreeMap, BTreeSet};

use drover_core::rollout::{NodeView, PodKeeper, PodKey, PodView, Snapshot};
use drover_crds::{Claim, ClaimStep, Host, NodeConfig, Rollout, keys};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{Node, Pod},
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;

use super::gates::{Gates, Target};
use crate::{context::Context, host::is_ready};

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read Rollout {0}")]
    Rollout(String, #[source] kube::Error),
    #[error("cannot read NodeConfig {0}")]
    NodeConfig(String, #[source] kube::Error),
    #[error("cannot list {0}")]
    List(&'static str, #[source] kube::Error),
}

/// How many objects one answer of the API server holds at most.
const PAGE: u32 = 500;

/// The state of the world, or `None` when the Rollout is gone.
pub(super) async fn snapshot(context: &Context, gates: &Gates, name: &str) -> Result<Option<Snapshot>, Error> {
    let client = || context.client.clone();
    let namespace = &context.namespace;
    let rollouts: Api<Rollout> = Api::namespaced(client(), namespace);
    let Some(rollout) = rollouts.get_opt(name).await.map_err(|error| Error::Rollout(name.to_owned(), error))? else {
        return Ok(None);
    };
    let reference = &rollout.spec.node_config_ref;
    let configs: Api<NodeConfig> = Api::namespaced(client(), namespace);
    let node_config =
        configs.get_opt(&reference.name).await.map_err(|error| Error::NodeConfig(reference.name.clone(), error))?;
    let revisions = match reference.revision {
        Some(_) => revisions(&Api::namespaced(client(), namespace), &reference.name).await?,
        None => BTreeSet::new(),
    };
    // Nodes first: a Node that was given back since has a newer version than this, so a claim that is seen now and is over
    // by then can not lead to a write.
    let nodes = list(&Api::<Node>::all(client()), "Nodes", ListParams::default()).await?;
    let hosts = list(&Api::<Host>::namespaced(client(), namespace), "Hosts", ListParams::default()).await?;

    let mut pods = BTreeMap::new();
    let mut targets = vec![];
    for (host, claim) in hosts.iter().filter_map(|host| Some((host, claim_of(&rollout, host)?))) {
        let node = &host.spec.node_ref.name;
        match claim.step {
            ClaimStep::Drain => {
                let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
                let found = list(&Api::<Pod>::all(client()), "Pods", params).await?;
                pods.insert(node.clone(), found.iter().map(pod_view).collect());
            }
            ClaimStep::Verify => targets.push(Target {
                host: host.name_any(),
                token: claim.token.clone(),
                node: nodes.iter().find(|candidate| candidate.name_any() == *node).cloned(),
            }),
            _ => {}
        }
    }
    let gates = gates.ask(rollout.spec.host_gates(), targets).await;
    let nodes = nodes.iter().map(|node| (node.name_any(), node_view(node))).collect();
    let refused_evictions = BTreeMap::new();
    let own_node = context.own_node.clone();
    let costs = BTreeMap::new();
    Ok(Some(Snapshot {
        rollout,
        node_config,
        revisions,
        hosts,
        nodes,
        own_node,
        costs,
        pods,
        refused_evictions,
        gates,
    }))
}

/// The Rollout's claim on a Host, if it has one.
fn claim_of<'a>(rollout: &Rollout, host: &'a Host) -> Option<&'a Claim> {
    let claim = host.status.as_ref()?.claim.as_ref()?;
    (Some(&claim.rollout_uid) == rollout.metadata.uid.as_ref()).then_some(claim)
}

async fn revisions(api: &Api<ControllerRevision>, node_config: &str) -> Result<BTreeSet<String>, Error> {
    let params = ListParams::default().labels(&format!("{}={node_config}", keys::NODE_CONFIG_LABEL));
    let found = api.list_metadata(&params).await.map_err(|error| Error::List("ControllerRevisions", error))?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

/// All objects, page by page.
async fn list<K>(api: &Api<K>, what: &'static str, params: ListParams) -> Result<Vec<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    let mut found = vec![];
    loop {
        let page = api.list(&params).await.map_err(|error| Error::List(what, error))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn node_view(node: &Node) -> NodeView {
    let annotation = |key: &str| node.annotations().get(key).cloned();
    NodeView {
        uid: node.uid().unwrap_or_default(),
        resource_version: node.resource_version().unwrap_or_default(),
        ready: is_ready(node),
        cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        cordoned_by: annotation(keys::CORDONED_BY_ANNOTATION),
        load_balancer_label: node.labels().get(keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL).cloned(),
        excluded_by: annotation(keys::EXCLUDED_BY_ANNOTATION),
        released_by: annotation(keys::RELEASED_BY_ANNOTATION),
    }
}

fn pod_view(pod: &Pod) -> PodView {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let keeper = match owner {
        _ if pod.annotations().contains_key(keys::MIRROR_POD_ANNOTATION) => PodKeeper::Kubelet,
        Some(owner) if owner.kind == "DaemonSet" => PodKeeper::DaemonSet,
        Some(_) => PodKeeper::Controller,
        None => PodKeeper::Nobody,
    };
    PodView {
        key: PodKey {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        },
        keeper,
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        terminating: pod.metadata.deletion_timestamp.is_some(),
    }
}

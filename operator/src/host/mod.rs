//! Hosts for the cluster's Nodes: made, labelled, summarised, and given what a new machine starts with.
//!
//! The Node is the owner of its Host, so Kubernetes removes the Host when the Node is gone, or made again under the same
//! name.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use drover_core::{
    host::{standing_assignment, summarise},
    placement::pool_of,
};
use drover_crds::{GROUP, Host, HostStatus, MasterPool, NodeConfig, VERSION, condition, keys};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PartialObjectMeta, PartialObjectMetaExt as _, Preconditions},
    runtime::{
        Controller, WatchStreamExt as _,
        controller::{self, Action},
        reflector::{self, ObjectRef, Store, reflector, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, now},
    fleet::{Change, Fleet},
    objects::{self, RESYNC},
};

const MANAGER: &str = "drover-host";

/// Why a Node's Host is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    let api: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
    let (configs, config_writer) = reflector::store();
    let config_events = reflector(config_writer, watcher(api, objects::watching()));
    let api: Api<MasterPool> = Api::namespaced(context.client.clone(), &context.namespace);
    let (pools, pool_writer) = reflector::store();
    let pool_events = reflector(pool_writer, watcher(api, objects::watching()));
    let (nodes, node_writer) = reflector::store();
    let triggers = node_events(Arc::clone(&context.fleet), node_writer);
    let fleet = Arc::clone(&context.fleet);
    let hosts = context.fleet.hosts.changes().into_stream();
    let (by_config, by_pool, by_host) = (nodes.clone(), nodes.clone(), nodes.clone());
    let (told, known_configs) = (Mutex::default(), configs.clone());
    let (told_pools, known_pools) = (Mutex::default(), pools.clone());
    let stream = Controller::for_stream(triggers, nodes)
        .with_config(controller::Config::default().concurrency(8))
        .watches_stream(config_events.default_backoff().touched_objects(), move |config: NodeConfig| {
            if is_news(&told, &known_configs, &config) { all(&by_config) } else { vec![] }
        })
        .watches_stream(pool_events.default_backoff().touched_objects(), move |pool: MasterPool| {
            if selects_others(&told_pools, &known_pools, &pool) { all(&by_pool) } else { vec![] }
        })
        .reconcile_on(hosts.flat_map(move |change| {
            stream::iter(match change {
                // A Host has its Node's name, so one that is gone leads to its Node as well.
                Change::Of(host) => {
                    let node = fleet.hosts.get(&host).map_or(host, |host| host.spec.node_ref.name.clone());
                    vec![ObjectRef::new(&node)]
                }
                Change::Everything => all(&by_host),
            })
        }))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |node, shared| reconcile_named(node, shared).boxed(),
            |node, _, shared: Arc<Shared>| {
                Action::requeue(shared.context.backoff.failed(&format!("host/{}", node.name_any())))
            },
            Arc::new(Shared { context, configs, pools }),
        );
    objects::drain("host", stream).await;
}

/// Shared by the reconciliations.
struct Shared {
    context: Context,
    configs: Store<NodeConfig>,
    pools: Store<MasterPool>,
}

/// Which Node it is. What it is like is in the fleet, once for all controllers.
type Named = PartialObjectMeta<Node>;

fn named(node: &Node) -> Named {
    let metadata =
        ObjectMeta { name: node.metadata.name.clone(), uid: node.metadata.uid.clone(), ..ObjectMeta::default() };
    metadata.into_response_partial()
}

/// The Nodes that are known, then those that change, each in the store before it is told of.
fn node_events(
    fleet: Arc<Fleet>,
    mut store: Writer<Named>,
) -> impl Stream<Item = Result<Named, watcher::Error>> + Send {
    let changes = fleet.nodes.changes().into_stream();
    let known: Vec<Named> = fleet.nodes.all().iter().map(|node| named(node)).collect();
    store.apply_watcher_event(&Event::Init);
    for node in &known {
        store.apply_watcher_event(&Event::InitApply(node.clone()));
    }
    store.apply_watcher_event(&Event::InitDone);
    let changed = changes.flat_map(move |change| {
        let nodes: Vec<Named> = match change {
            Change::Of(name) => {
                if let Some(node) = fleet.nodes.get(&name) {
                    vec![named(&node)]
                } else {
                    let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
                    store.apply_watcher_event(&Event::Delete(metadata.into_response_partial()));
                    vec![]
                }
            }
            Change::Everything => fleet.nodes.all().iter().map(|node| named(node)).collect(),
        };
        for node in &nodes {
            store.apply_watcher_event(&Event::Apply(node.clone()));
        }
        stream::iter(nodes)
    });
    stream::iter(known).chain(changed).map(Ok)
}

fn all(nodes: &Store<Named>) -> Vec<ObjectRef<Named>> {
    nodes.state().iter().map(|node| ObjectRef::from_obj(&**node)).collect()
}

/// What a machine that no Rollout holds can be assigned depends on these of a NodeConfig, by its name.
type Told = Mutex<BTreeMap<String, (Option<LabelSelector>, Option<String>)>>;

/// Whether this NodeConfig is another one for machines that no Rollout holds than it was, or gone.
fn is_news(told: &Told, known: &Store<NodeConfig>, config: &NodeConfig) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if known.get(&ObjectRef::from_obj(config)).is_none() {
        told.remove(&config.name_any());
        return true;
    }
    let completed = config.status.as_ref().and_then(|status| status.completed_revision.clone());
    let now = (config.spec.host_selector.clone(), completed);
    told.insert(config.name_any(), now.clone()).as_ref() != Some(&now)
}

/// Which machines a pool selects, by its name.
type Selected = Mutex<BTreeMap<String, Option<LabelSelector>>>;

/// Whether this pool selects others than it did, or is new, or gone.
fn selects_others(told: &Selected, known: &Store<MasterPool>, pool: &MasterPool) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if known.get(&ObjectRef::from_obj(pool)).is_none() {
        told.remove(&pool.name_any());
        return true;
    }
    let now = &pool.spec.host_selector;
    told.insert(pool.name_any(), now.clone()).as_ref() != Some(now)
}

/// The pool that serves a machine. Until all pools are known it is the one that served it before.
fn master_pool(host: &Host, pools: &Store<MasterPool>) -> Option<String> {
    if pools.wait_until_ready().now_or_never().is_some() {
        pool_of(host.metadata.labels.as_ref(), &pools.state()).map(str::to_owned)
    } else {
        host.status.as_ref().and_then(|status| status.master_pool.clone())
    }
}

async fn reconcile_named(node: Arc<Named>, shared: Arc<Shared>) -> Result<Action, Error> {
    match shared.context.fleet.nodes.get(&node.name_any()) {
        Some(node) => reconcile(node, shared).await,
        None => Ok(Action::await_change()),
    }
}

async fn reconcile(node: Arc<Node>, shared: Arc<Shared>) -> Result<Action, Error> {
    let Shared { context, configs, pools } = &*shared;
    let name = node.name_any();
    if node.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        return Ok(Action::await_change());
    }
    let api: Api<Host> = Api::namespaced(context.client.clone(), &context.namespace);
    let found = context.fleet.hosts.get(&name);
    if let Some(stale) = found.as_ref().filter(|host| Some(&host.spec.node_ref.uid) != node.metadata.uid.as_ref()) {
        let preconditions = Preconditions { uid: stale.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Ok(_) => {}
            // It is gone already, or another one came.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(Error::Delete(name.clone(), error)),
        }
        return Ok(Action::requeue(std::time::Duration::from_secs(1)));
    }
    let host = match found {
        Some(host) if is_labelled(&host, &node) => host,
        _ => {
            let applied = objects::apply(&api, &name, MANAGER, &desired(&node, &context.namespace)).await;
            let host: Host = applied.map_err(|error| Error::Write(name.clone(), error))?;
            context.fleet.observe_host(host.clone());
            Arc::new(host)
        }
    };
    let host = assign(&api, host, context, configs).await?;
    let summary = summarise(&host, is_ready(&node), now());
    let master_pool = master_pool(&host, pools);
    let is_moved = host.status.as_ref().and_then(|status| status.master_pool.as_ref()) != master_pool.as_ref();
    let is_told = says(host.status.as_ref(), &summary) || is_said_with_the_next_step(&host, &summary);
    if is_moved || !is_told {
        let next = HostStatus { master_pool, ..with_summary(host.status.clone().unwrap_or_default(), summary) };
        // Not by server-side apply: Rollouts write these conditions as well, and of two who own parts of one condition, neither
        // could take it away.
        match objects::change_status(&api, &*host, &host.status, &Some(next), MANAGER).await {
            Ok(host) => context.fleet.observe_host(host),
            // Its event brings it back here.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            Err(error) => return Err(Error::WriteStatus(name, error)),
        }
    }
    context.backoff.reset(&format!("host/{name}"));
    Ok(Action::requeue(RESYNC))
}

/// A Host's status with what is said of it.
pub(crate) fn with_summary(status: HostStatus, summary: HostStatus) -> HostStatus {
    let HostStatus { observed_generation, phase, message, display, conditions, .. } = summary;
    // What is said no more goes as well: `Stalled` is there only while it is so.
    let ours = [condition::READY, condition::RECONCILING, condition::STALLED];
    let mut all = status.conditions;
    all.retain(|condition| !ours.contains(&condition.type_.as_str()));
    all.extend(conditions);
    all.sort_by(|a, b| a.type_.cmp(&b.type_));
    HostStatus { observed_generation, phase, message, display, conditions: all, ..status }
}

/// Gives a Host that no Rollout holds what it shall have. A conflict means that something else happened to it: its event
/// brings it back here.
async fn assign(
    api: &Api<Host>,
    host: Arc<Host>,
    context: &Context,
    configs: &Store<NodeConfig>,
) -> Result<Arc<Host>, Error> {
    if standing_assignment(&host, &configs.state()).is_none() {
        return Ok(host);
    }
    // What is known can be behind, or not all there yet: a NodeConfig that seems to be gone would be taken from all machines.
    let read: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
    let read = read.list(&ListParams::default()).await.map_err(Error::ListNodeConfigs)?;
    let Some(assigned) = standing_assignment(&host, &read.items) else {
        return Ok(host);
    };
    let mut status = host.status.clone().unwrap_or_default();
    status.assigned = assigned;
    status.assigned_generation += 1;
    match objects::change_status(api, &*host, &host.status, &Some(status), MANAGER).await {
        Ok(host) => {
            context.fleet.observe_host(host.clone());
            Ok(Arc::new(host))
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(host),
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

/// Whether nothing but the columns' strings of a machine under way is new: the Rollout's next write to it says that as well,
/// and another write before it would only get in its way.
fn is_said_with_the_next_step(host: &Host, summary: &HostStatus) -> bool {
    let is_held = host.status.as_ref().is_some_and(|status| status.claim.is_some());
    let display = host.status.as_ref().and_then(|status| status.display.clone());
    is_held && says(host.status.as_ref(), &HostStatus { display, ..summary.clone() })
}

/// Whether the status says already what the summary would.
fn says(status: Option<&HostStatus>, summary: &HostStatus) -> bool {
    status.is_some_and(|status| {
        status.phase == summary.phase
            && status.message == summary.message
            && status.display == summary.display
            && status.observed_generation == summary.observed_generation
            && summary.conditions.iter().all(|condition| status.conditions.contains(condition))
            && [condition::RECONCILING, condition::STALLED].iter().all(|type_| {
                condition::find(&status.conditions, type_).is_some()
                    == condition::find(&summary.conditions, type_).is_some()
            })
    })
}

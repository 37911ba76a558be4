//! Hosts and Nodes in memory, for all controllers: one watch of each, and what the operator's own writes were answered with.
//!
//! What is kept is what decisions look at: no facts, no managed fields, no images. A fleet of thousands fits into some tens of
//! megabytes. A view in memory can be behind. So each write that is decided on it names the version that it was decided on;
//! and what nothing but a view could refuse, such as one more machine out of service, is decided on what was read for it
//! from the API server ([`Fleet::read`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use drover_crds::Host;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

use crate::objects;

/// How many objects one answer of the API server holds at most.
const PAGE: u32 = 100;
/// How many versions it holds.
const VERSIONS: u32 = 500;
/// How many objects are read one by one rather than all of them, and how many of them at once.
const FEW: usize = 50;
const AT_ONCE: usize = 8;
/// What Drover's own annotations begin with.
const OWN_PREFIX: &str = "drover.dev/";
/// How many changes a listener may be behind before it is told to look at everything.
const BEHIND: usize = 16_384;

/// What is known of the machines.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) hosts: Cache<Host>,
    pub(crate) nodes: Cache<Node>,
    /// Of each Host, a hash of what catalogs are compiled from.
    inputs: Mutex<HashMap<String, u64>>,
    inputs_version: AtomicU64,
}

impl Fleet {
    /// Follows the API server, for ever.
    pub(crate) async fn follow(&self, client: Client, namespace: &str) {
        let hosts = follow(Api::<Host>::namespaced(client.clone(), namespace), |event| self.host_event(event));
        let nodes = follow(Api::<Node>::all(client.clone()), |event| self.nodes.take(mapped(event, light_node)));
        futures::join!(hosts, nodes, self.make_sure(&client, namespace));
    }

    /// Finds now and then what watches did not tell.
    async fn make_sure(&self, client: &Client, namespace: &str) {
        self.filled().await;
        loop {
            tokio::time::sleep(objects::RESYNC).await;
            if let Err(error) = self.read(client, namespace).await {
                tracing::warn!(error = %objects::chain(&error), "Cannot make sure of Hosts and Nodes");
            }
        }
    }

    /// Waits until everything was read once.
    pub(crate) async fn filled(&self) {
        self.hosts.filled().await;
        self.nodes.filled().await;
    }

    /// Makes sure that all Hosts and Nodes are known as the API server itself has them, by quorum.
    pub(crate) async fn read(&self, client: &Client, namespace: &str) -> kube::Result<()> {
        let hosts = self.hosts.read(Api::<Host>::namespaced(client.clone(), namespace), light_host);
        let nodes = self.nodes.read(Api::<Node>::all(client.clone()), light_node);
        futures::try_join!(hosts, nodes).map(drop)
    }

    /// Takes in a Host that the API server answered with.
    pub(crate) fn observe_host(&self, host: Host) {
        self.hosts.observe(light_host(host));
    }

    /// Takes in a Node that the API server answered with.
    pub(crate) fn observe_node(&self, node: Node) {
        self.nodes.observe(light_node(node));
    }

    /// Tells that something happened to machines, in steps that thousands of them share.
    pub(crate) fn changes_each(&self, together: Duration) -> impl Stream<Item = ()> + Send + 'static {
        let (hosts, nodes) = (self.hosts.changes().into_stream(), self.nodes.changes().into_stream());
        let changes = stream::select(Box::pin(hosts), Box::pin(nodes)).ready_chunks(BEHIND);
        stream::unfold(changes, move |mut changes| async move {
            changes.next().await?;
            tokio::time::sleep(together).await;
            Some(((), changes))
        })
    }

    /// Grows with each change of labels or facts, and when a Host comes or goes.
    pub(crate) fn inputs_version(&self) -> u64 {
        self.inputs_version.load(Ordering::Acquire)
    }

    fn host_event(&self, event: Event<Host>) {
        match &event {
            Event::Apply(host) | Event::InitApply(host) => {
                let hash = inputs_of(host);
                if lock(&self.inputs).insert(host.name_any(), hash) != Some(hash) {
                    self.inputs_version.fetch_add(1, Ordering::AcqRel);
                }
            }
            Event::Delete(host) => {
                lock(&self.inputs).remove(&host.name_any());
                self.inputs_version.fetch_add(1, Ordering::AcqRel);
            }
            Event::Init | Event::InitDone => {}
        }
        self.hosts.take(mapped(event, light_host));
    }
}

/// Objects of one kind, by name.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    state: Mutex<State<K>>,
    changes: broadcast::Sender<String>,
    filled: watch::Sender<bool>,
}

#[derive(Debug)]
struct State<K> {
    objects: BTreeMap<String, Arc<K>>,
    /// The list that the watch is at.
    listing: Listing,
}

/// A list under way. What was known when it began and is not in it is gone; what came meanwhile is not.
#[derive(Debug, Default)]
struct Listing {
    /// UIDs by name.
    before: BTreeMap<String, Option<String>>,
    listed: BTreeSet<String>,
}

/// What a listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The object of this name came, changed or went.
    Of(String),
    /// More changed than could be told.
    Everything,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State { objects: BTreeMap::new(), listing: Listing::default() }),
            changes: broadcast::Sender::new(BEHIND),
            filled: watch::Sender::new(false),
        }
    }
}

impl<K: Resource> Cache<K> {
    /// The object of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<K>> {
        lock(&self.state).objects.get(name).cloned()
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        lock(&self.state).objects.values().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state).objects.len()
    }

    /// Tells of changes from now on.
    pub(crate) fn changes(&self) -> Changes {
        Changes(self.changes.subscribe())
    }

    async fn filled(&self) {
        // The sender is ours, so it is there as long as this waits.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// Takes in an object, unless a newer one of the same name is known. Versions of one object can be compared since
    /// Kubernetes 1.35 (KEP-5504); before, they were etcd's revisions, which grow as well.
    pub(crate) fn observe(&self, object: K) {
        let name = object.name_any();
        {
            let mut state = lock(&self.state);
            let known = state.objects.get(&name).map(|known| known.meta());
            if known.is_some_and(|known| known.uid == object.meta().uid && !is_newer(object.meta(), known)) {
                return;
            }
            state.objects.insert(name.clone(), Arc::new(object));
        }
        let _ = self.changes.send(name);
    }

    /// The object of this name is gone.
    pub(crate) fn forget(&self, name: &str) {
        if lock(&self.state).objects.remove(name).is_some() {
            let _ = self.changes.send(name.to_owned());
        }
    }

    fn take(&self, event: Event<K>) {
        match event {
            Event::Apply(object) => self.observe(object),
            Event::Delete(object) => {
                let is_this = self.get(&object.name_any()).is_some_and(|known| known.meta().uid == object.meta().uid);
                if is_this {
                    self.forget(&object.name_any());
                }
            }
            Event::Init => {
                let listing = self.listing();
                lock(&self.state).listing = listing;
            }
            Event::InitApply(object) => {
                lock(&self.state).listing.listed.insert(object.name_any());
                self.observe(object);
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut lock(&self.state).listing);
                self.sweep(&listing);
                self.filled.send_replace(true);
            }
        }
    }

    /// A list begins.
    fn listing(&self) -> Listing {
        let state = lock(&self.state);
        let before = state.objects.iter().map(|(name, object)| (name.clone(), object.meta().uid.clone())).collect();
        Listing { before, listed: BTreeSet::new() }
    }

    /// Makes sure of what is known: asks the API server itself, by quorum, for the versions of all objects, and reads those
    /// again that are not known so. Most are, and a version is a fraction of its object.
    async fn read(&self, api: Api<K>, light: fn(K) -> K) -> kube::Result<()>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = ListParams::default().limit(VERSIONS);
        let mut listing = self.listing();
        let mut stale = vec![];
        loop {
            let page = api.list_metadata(&params).await?;
            for object in page.items {
                let name = object.name_any();
                if !self.knows(&object.metadata) {
                    stale.push(name.clone());
                }
                listing.listed.insert(name);
            }
            match objects::next_page(&params, &page.metadata) {
                Some(next) => params = next,
                None => break,
            }
        }
        if stale.len() > FEW {
            self.read_all(&api, light).await?;
        } else {
            let read = |name: String| {
                let api = api.clone();
                async move { api.get_opt(&name).await.map(|object| (name, object)) }
            };
            let mut read = stream::iter(stale).map(read).buffer_unordered(AT_ONCE);
            while let Some((name, object)) = read.try_next().await? {
                match object {
                    Some(object) => self.observe(light(object)),
                    None => self.forget(&name),
                }
            }
        }
        self.sweep(&listing);
        Ok(())
    }

    /// Whether this version of an object, or a newer one, is known.
    fn knows(&self, metadata: &ObjectMeta) -> bool {
        let known = self.get(metadata.name.as_deref().unwrap_or_default());
        known.is_some_and(|known| known.meta().uid == metadata.uid && !is_newer(metadata, known.meta()))
    }

    /// Reads all objects, page by page, so that no more than a page of them is in memory twice.
    async fn read_all(&self, api: &Api<K>, light: fn(K) -> K) -> kube::Result<()>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            page.items.into_iter().for_each(|object| self.observe(light(object)));
            match objects::next_page(&params, &page.metadata) {
                Some(next) => params = next,
                None => return Ok(()),
            }
        }
    }

    fn sweep(&self, listing: &Listing) {
        for (name, uid) in listing.before.iter().filter(|(name, _)| !listing.listed.contains(*name)) {
            if self.get(name).is_some_and(|known| known.meta().uid == *uid) {
                self.forget(name);
            }
        }
    }
}

/// Tells of changes.
#[derive(Debug)]
pub(crate) struct Changes(broadcast::Receiver<String>);

impl Changes {
    /// The next change, if there is one.
    pub(crate) fn next_now(&mut self) -> Option<Change> {
        match self.0.try_recv() {
            Ok(name) => Some(Change::Of(name)),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Change::Everything),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        }
    }

    /// All changes, one after the other.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Change> + Send {
        stream::unfold(self.0, |mut receiver| async move {
            match receiver.recv().await {
                Ok(name) => Some((Change::Of(name), receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Change::Everything, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is complete before anything that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it is a newer version of the same object; so is one that can not be compared.
fn is_newer(version: &ObjectMeta, known: &ObjectMeta) -> bool {
    let number = |metadata: &ObjectMeta| metadata.resource_version.as_ref()?.parse::<u64>().ok();
    number(version).zip(number(known)).is_none_or(|(version, known)| version > known)
}

async fn follow<K>(api: Api<K>, mut take: impl FnMut(Event<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, objects::watching().page_size(PAGE)).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => take(event),
            Err(error) => tracing::warn!(error = %objects::chain(&error), "A watch broke and starts again"),
        }
    }
}

fn mapped<K>(event: Event<K>, light: fn(K) -> K) -> Event<K> {
    match event {
        Event::Apply(object) => Event::Apply(light(object)),
        Event::Delete(object) => Event::Delete(light(object)),
        Event::InitApply(object) => Event::InitApply(light(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

/// Without what decisions do not look at: managed fields, owners, and the annotations of others.
fn lighten(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.owner_references = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| key.starts_with(OWN_PREFIX));
    }
    if metadata.annotations.as_ref().is_some_and(BTreeMap::is_empty) {
        metadata.annotations = None;
    }
}

/// A Host without its facts (that there are some is kept).
fn light_host(mut host: Host) -> Host {
    lighten(&mut host.metadata);
    if let Some(facts) = host.status.as_mut().and_then(|status| status.facts.as_mut()) {
        *facts = serde_json::Map::new();
    }
    host
}

/// What a Node is called and how it is: readiness, addresses, taints and whether it takes pods.
fn light_node(node: Node) -> Node {
    let mut metadata = node.metadata;
    lighten(&mut metadata);
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let spec = NodeSpec { unschedulable: spec.unschedulable, taints: spec.taints, ..NodeSpec::default() };
    let status = NodeStatus { conditions: status.conditions, addresses: status.addresses, ..NodeStatus::default() };
    Node { metadata, spec: Some(spec), status: Some(status) }
}

/// A hash of what a Host's catalog is compiled from, beside what is assigned to it.
fn inputs_of(host: &Host) -> u64 {
    let mut hasher = DefaultHasher::new();
    host.metadata.uid.hash(&mut hasher);
    host.metadata.labels.hash(&mut hasher);
    let facts = host.status.as_ref().and_then(|status| status.facts.as_ref());
    // Maps of JSON are in the order of their keys here.
    facts.map(|facts| serde_json::to_string(facts).unwrap_or_default()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use drover_crds::{HostSpec, HostStatus, NodeRef};

    use super::*;
    use crate::testing;

    fn host(uid: &str, version: &str) -> Host {
        let mut host = Host::new("node-1", HostSpec { node_ref: NodeRef::default() });
        host.metadata.uid = Some(uid.into());
        host.metadata.resource_version = Some(version.into());
        host
    }

    fn known(fleet: &Fleet) -> Option<String> {
        fleet.hosts.get("node-1").and_then(|host| host.resource_version())
    }

    #[test]
    fn an_older_version_replaces_no_newer_one_and_another_object_does() {
        let fleet = Fleet::default();
        for (uid, version, wanted) in [("a", "9", "9"), ("a", "10", "10"), ("a", "9", "10"), ("b", "3", "3")] {
            fleet.host_event(Event::Apply(host(uid, version)));
            assert_eq!(known(&fleet).as_deref(), Some(wanted), "{uid} {version}");
        }
        fleet.host_event(Event::Delete(host("a", "12")));
        assert!(known(&fleet).is_some(), "it was the earlier one that went");
        fleet.host_event(Event::Delete(host("b", "13")));
        assert_eq!(known(&fleet), None);
    }

    #[test]
    fn what_a_list_does_not_have_is_gone() {
        let fleet = Fleet::default();
        fleet.observe_host(host("a", "9"));
        let mut changes = fleet.hosts.changes();
        fleet.host_event(Event::Init);
        fleet.host_event(Event::InitDone);
        assert_eq!(known(&fleet), None);
        assert_eq!((changes.next_now(), changes.next_now()), (Some(Change::Of("node-1".into())), None));
    }

    #[test]
    fn what_comes_while_a_list_is_read_stays() {
        let fleet = Fleet::default();
        fleet.host_event(Event::Init);
        fleet.observe_host(host("a", "9"));
        fleet.host_event(Event::InitDone);
        assert_eq!(known(&fleet).as_deref(), Some("9"));
    }

    #[tokio::test]
    async fn what_is_known_is_made_sure_of_by_versions_and_what_is_not_is_read() {
        const HOSTS: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system/hosts";
        let (context, mut server) = testing::context(true);
        let named = |name: &str, version: &str| {
            let mut host = host(name, version);
            host.metadata.name = Some(name.into());
            host
        };
        for name in ["same", "newer", "gone"] {
            context.fleet.observe_host(named(name, "9"));
        }
        let there = [named("same", "9"), named("newer", "10"), named("came", "3")];
        let json = |host: &Host| serde_json::to_value(host).unwrap();
        let (newer, came) = (format!("{HOSTS}/newer"), format!("{HOSTS}/came"));
        // What is known is not read: there would be no answer, and it would be gone.
        let objects = [
            (HOSTS, testing::list(&there.each_ref().map(json))),
            (newer.as_str(), json(&there[1])),
            (came.as_str(), json(&there[2])),
            ("/api/v1/nodes", testing::list(&[])),
        ];
        server.serve(&objects, context.fleet.read(&context.client, "drover-system")).await.0.unwrap();
        let known = context.fleet.hosts.all();
        let known: Vec<_> = known.iter().map(|host| (host.name_any(), host.resource_version().unwrap())).collect();
        let wanted = [("came", "3"), ("newer", "10"), ("same", "9")];
        assert_eq!(known, wanted.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }

    #[test]
    fn facts_are_not_kept_and_their_changes_are_known() {
        let fleet = Fleet::default();
        let with = |version: &str, facts: serde_json::Value| {
            let mut host = host("a", version);
            host.metadata.managed_fields = Some(vec![]);
            let annotations = [("drover.dev/skip", ""), ("example.com/note", "long")];
            host.metadata.annotations = Some(annotations.map(|(key, value)| (key.into(), value.into())).into());
            host.status = Some(HostStatus { facts: facts.as_object().cloned(), ..HostStatus::default() });
            host
        };
        fleet.host_event(Event::Apply(with("1", serde_json::json!({"os": "x"}))));
        let before = fleet.inputs_version();
        let kept = fleet.hosts.get("node-1").unwrap();
        assert_eq!(kept.metadata.managed_fields, None);
        assert_eq!(kept.annotations().keys().collect::<Vec<_>>(), ["drover.dev/skip"]);
        assert_eq!(kept.status.as_ref().unwrap().facts, Some(serde_json::Map::new()));
        fleet.host_event(Event::Apply(with("2", serde_json::json!({"os": "x"}))));
        assert_eq!(fleet.inputs_version(), before);
        fleet.host_event(Event::Apply(with("3", serde_json::json!({"os": "y"}))));
        assert!(fleet.inputs_version() > before);
    }
}

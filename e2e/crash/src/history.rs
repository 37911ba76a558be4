//! Every version of every object of a world, as the API server's own watches tell them: read directly, not through the
//! proxy, from before a scenario begins until after it ended.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams},
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Host,
    Job,
    Node,
    NodeConfig,
    Pod,
    Rollout,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [Self::Host, Self::Job, Self::Node, Self::NodeConfig, Self::Pod, Self::Rollout];

    /// As it is written in paths.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Host => "hosts",
            Self::Job => "jobs",
            Self::Node => "nodes",
            Self::NodeConfig => "nodeconfigs",
            Self::Pod => "pods",
            Self::Rollout => "rollouts",
        }
    }

    fn resource(self) -> ApiResource {
        let (group, version, kind) = match self {
            Self::Host => ("drover.dev", "v1alpha1", "Host"),
            Self::Job => ("batch", "v1", "Job"),
            Self::Node => ("", "v1", "Node"),
            Self::NodeConfig => ("drover.dev", "v1alpha1", "NodeConfig"),
            Self::Pod => ("", "v1", "Pod"),
            Self::Rollout => ("drover.dev", "v1alpha1", "Rollout"),
        };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
            kind: kind.to_owned(),
            plural: self.plural().to_owned(),
        }
    }

    /// The objects of this kind in a namespace; Nodes have none.
    pub(crate) fn api(self, client: Client, namespace: &str) -> Api<DynamicObject> {
        match self {
            Self::Node => Api::all_with(client, &self.resource()),
            _ => Api::namespaced_with(client, namespace, &self.resource()),
        }
    }
}

/// An object after a write; or as it was last, where the write was its deletion.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// The API server's count of all writes: it orders the versions of all objects.
    pub(crate) revision: u64,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) deleted: bool,
    pub(crate) object: Value,
}

impl Version {
    pub(crate) fn new(kind: Kind, deleted: bool, object: Value) -> anyhow::Result<Self> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let revision = text("resourceVersion").parse().context("an object without a version")?;
        Ok(Self { revision, kind, name: text("name"), deleted, object })
    }
}

/// What was seen since the scenario began, and how everything is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The objects as they were when the scenario began.
    pub(crate) before: Vec<Arc<Version>>,
    /// What happened since, in the order in which it was heard.
    pub(crate) versions: Vec<Arc<Version>>,
    now: BTreeMap<(Kind, String), Arc<Version>>,
    /// Why nothing more is heard, if that is so.
    broken: Option<String>,
}

impl Log {
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.now.get(&(kind, name.to_owned())).map(|version| &version.object)
    }

    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &Value)> {
        let ours = self.now.iter().filter(move |((other, _), _)| *other == kind);
        ours.map(|((_, name), version)| (name.as_str(), &version.object))
    }

    fn add(&mut self, version: Version) {
        let version = Arc::new(version);
        let key = (version.kind, version.name.clone());
        if version.deleted {
            self.now.remove(&key);
        } else {
            self.now.insert(key, Arc::clone(&version));
        }
        self.versions.push(version);
    }
}

/// The watches of one world.
pub(crate) struct History {
    apis: Vec<(Kind, Api<DynamicObject>, String)>,
    log: watch::Sender<Log>,
    watching: Vec<JoinHandle<()>>,
}

impl History {
    /// Begins to watch; what is there now is known when this returns.
    pub(crate) async fn start(client: &Client, namespace: &str, node_label: &str) -> anyhow::Result<Self> {
        let log = watch::channel(Log::default()).0;
        let (mut apis, mut watching) = (vec![], vec![]);
        for kind in Kind::ALL {
            let api = kind.api(client.clone(), namespace);
            let label = if kind == Kind::Node { node_label } else { "" };
            let listed = api.list(&ListParams::default().labels(label)).await?;
            let from = listed.metadata.resource_version.unwrap_or_default();
            for object in listed.items {
                let version = Version::new(kind, false, serde_json::to_value(object)?)?;
                log.send_modify(|log| log.add(version));
            }
            let (told, heard) = (log.clone(), api.clone());
            let params = WatchParams::default().labels(label).timeout(290);
            watching.push(tokio::spawn(async move {
                if let Err(error) = follow(kind, &heard, params, from, &told).await {
                    told.send_modify(|log| log.broken = Some(format!("{kind:?}: {error:#}")));
                }
            }));
            apis.push((kind, api, label.to_owned()));
        }
        Ok(Self { apis, log, watching })
    }

    /// From now on it is another scenario.
    pub(crate) fn begin(&self) {
        self.log.send_modify(|log| {
            log.before = log.now.values().cloned().collect();
            log.versions.clear();
        });
    }

    /// What is known now.
    pub(crate) fn log(&self) -> Log {
        self.log.borrow().clone()
    }

    /// Tells of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<Log> {
        self.log.subscribe()
    }

    /// Waits until something is so.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut find: impl FnMut(&Log) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut log = self.log.subscribe();
        let mut found = None;
        let looked = log.wait_for(|log| {
            found = find(log);
            found.is_some() || log.broken.is_some()
        });
        let over = timeout(within, looked).await.map(|looked| looked.map(|log| log.broken.clone()));
        match (found, over) {
            (Some(found), _) => Ok(found),
            (None, Ok(Ok(Some(broken)))) => bail!("the history broke off: {broken}"),
            _ => bail!("not within {} s: {what}", within.as_secs()),
        }
    }

    /// Waits until everything that happened before this call is known.
    pub(crate) async fn catch_up(&self) -> anyhow::Result<()> {
        for (kind, api, label) in &self.apis {
            let listed = api.list(&ListParams::default().labels(label)).await?;
            let revision: u64 = listed.metadata.resource_version.unwrap_or_default().parse()?;
            let there: BTreeMap<String, u64> = listed
                .items
                .iter()
                .map(|object| {
                    let version = object.metadata.resource_version.as_deref().unwrap_or_default();
                    (object.metadata.name.clone().unwrap_or_default(), version.parse().unwrap_or(0))
                })
                .collect();
            let known = |log: &Log| {
                let now = |name: &String| log.now.get(&(*kind, name.clone())).map_or(0, |version| version.revision);
                let all = there.iter().all(|(name, version)| now(name) >= *version);
                let mut left = log.now.values().filter(|version| version.kind == *kind);
                (all && left.all(|version| there.contains_key(&version.name) || version.revision > revision))
                    .then_some(())
            };
            self.until("the history is complete", Duration::from_secs(20), known).await?;
        }
        Ok(())
    }
}

impl Drop for History {
    fn drop(&mut self) {
        for watching in &self.watching {
            watching.abort();
        }
    }
}

/// Follows one kind for ever; each watch goes on where the one before ended, so no version is missed.
async fn follow(
    kind: Kind,
    api: &Api<DynamicObject>,
    params: WatchParams,
    mut from: String,
    log: &watch::Sender<Log>,
) -> anyhow::Result<()> {
    loop {
        let mut events = pin!(api.watch(&params, &from).await?.boxed());
        while let Some(event) = events.try_next().await? {
            let (object, deleted) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    from = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => bail!("{status:?}"),
            };
            let version = Version::new(kind, deleted, serde_json::to_value(object)?)?;
            from = version.revision.to_string();
            log.send_modify(|log| log.add(version));
        }
    }
}

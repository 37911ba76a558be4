//! Everything that a watch told while a story went on, so that "at no moment" can be asserted.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// A watch that writes down a view of the objects whenever the view changes.
pub struct Record<T> {
    moments: watch::Receiver<Vec<T>>,
    watching: JoinHandle<()>,
}

impl<T: Clone + PartialEq + Debug + Send + Sync + 'static> Record<T> {
    /// Starts to watch; returns when the first moment is written down. `view` sees all the objects, by name.
    pub async fn start<K>(api: Api<K>, labels: &str, view: impl Fn(&BTreeMap<String, K>) -> T + Send + 'static) -> Self
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (write, mut moments) = watch::channel(Vec::new());
        let watching = tokio::spawn(follow(api, watcher::Config::default().labels(labels), view, write));
        let begun = timeout(Duration::from_secs(20), moments.wait_for(|moments| !moments.is_empty()));
        begun.await.expect("a watch begins within 20 s").expect("a watch goes on");
        Self { moments, watching }
    }

    /// The first moment.
    pub fn first(&self) -> T {
        self.moments.borrow().first().cloned().expect("a watch begins with a moment")
    }

    /// All moments until the first that is like this; then the watch ends.
    pub async fn until(mut self, what: &str, like: impl Fn(&T) -> bool) -> Vec<T> {
        let last = |moments: &Vec<T>| moments.last().is_some_and(&like);
        let over = timeout(Duration::from_secs(30), self.moments.wait_for(last)).await.is_ok();
        let moments = self.moments.borrow().clone();
        assert!(over, "{what}: not within 30 s; last seen: {:?}", moments.last());
        moments
    }
}

impl<T> Drop for Record<T> {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    view: impl Fn(&BTreeMap<String, K>) -> T,
    write: watch::Sender<Vec<T>>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: PartialEq,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut objects = BTreeMap::new();
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed = BTreeMap::new();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any(), object);
                continue;
            }
            Ok(Event::InitDone) => objects = std::mem::take(&mut listed),
            Ok(Event::Apply(object)) => drop(objects.insert(object.name_any(), object)),
            Ok(Event::Delete(object)) => drop(objects.remove(&object.name_any())),
            // It goes on after a pause.
            Err(_) => continue,
        }
        let moment = view(&objects);
        write.send_if_modified(|moments| {
            let news = moments.last() != Some(&moment);
            if news {
                moments.push(moment);
            }
            news
        });
    }
}

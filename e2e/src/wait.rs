//! Until something is so, or a deadline passes. What was seen last is part of the failure.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// For what takes a moment.
pub const SOON: Duration = Duration::from_secs(30);
/// For what takes a few steps on each machine. A busy machine with two processors must make it.
pub const LATER: Duration = Duration::from_secs(120);

/// How often something is asked that can not be watched.
const PERIOD: Duration = Duration::from_millis(150);

/// Asks until there is an answer, and returns it.
pub async fn eventually<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    let mut seen = "no answer".to_owned();
    loop {
        match timeout_at(deadline, ask()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(otherwise)) => seen = otherwise,
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s; last seen: {seen}", within.as_secs());
        sleep(PERIOD).await;
    }
}

/// Watches an object until `find` finds something in it, and returns that.
pub async fn until<K, T>(
    api: &Api<K>,
    name: &str,
    what: &str,
    within: Duration,
    mut find: impl FnMut(&K) -> Option<T>,
) -> T
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + 'static,
{
    let mut seen = "nothing of that name".to_owned();
    let found = timeout(within, async {
        let mut states = pin!(watch_object(api.clone(), name).default_backoff());
        loop {
            match states.next().await {
                Some(Ok(Some(object))) => match find(&object) {
                    Some(found) => return found,
                    None => seen = brief(&object),
                },
                Some(Ok(None)) => "nothing of that name".clone_into(&mut seen),
                Some(Err(error)) => seen = format!("{error:?}"),
                None => panic!("the watch of {name} ended"),
            }
        }
    });
    if let Ok(found) = found.await {
        return found;
    }
    panic!("{} {name}: not {what} within {} s; last seen:\n{seen}", K::kind(&()), within.as_secs())
}

/// Waits until an object is gone.
pub async fn until_gone<K>(api: &Api<K>, name: &str, within: Duration)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + 'static,
{
    eventually(&format!("{} {name} is gone", K::kind(&())), within, async || match api.get_opt(name).await {
        Ok(None) => Ok(()),
        Ok(Some(object)) => Err(brief(&object)),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

/// An object as YAML, without what only the API server cares about.
pub(crate) fn brief<K: Resource<DynamicType = ()> + Clone + Serialize>(object: &K) -> String {
    let mut object = object.clone();
    object.managed_fields_mut().clear();
    serde_saphyr::to_string(&object).unwrap_or_else(|error| error.to_string())
}

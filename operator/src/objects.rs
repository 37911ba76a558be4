//! What several controllers do with objects in the same way.

use std::{fmt::Debug, time::Duration};

use futures::{Future, StreamExt};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{controller::Error as ControllerError, watcher},
};
use serde::{Serialize, de::DeserializeOwned};

/// How watches behave: ended and begun again often enough that one that went silent is noticed within half a minute.
pub(crate) fn watching() -> watcher::Config {
    watcher::Config::default().timeout(25)
}

/// Applies an object under a field manager of ours, and takes over what others wrote to these fields.
pub(crate) async fn apply<K, P>(api: &Api<K>, name: &str, manager: &str, object: &P) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + Debug,
    P: Serialize + Debug,
{
    api.patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(object)).await
}

/// Applies an object's status under a field manager of ours.
pub(crate) async fn apply_status<K, P>(api: &Api<K>, name: &str, manager: &str, object: &P) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + Debug,
    P: Serialize + Debug,
{
    api.patch_status(name, &PatchParams::apply(manager).force(), &Patch::Apply(object)).await
}

/// Logs what a controller's stream says, until it ends.
pub(crate) fn drain<K, E, S>(controller: &'static str, stream: S) -> impl Future<Output = ()>
where
    S: futures::Stream<Item = Result<K, ControllerError<E, watcher::Error>>>,
    E: std::error::Error + Send + 'static,
{
    stream.for_each(move |result| async move {
        match result {
            // One that went away before its turn came leaves nothing to do.
            Ok(_) | Err(ControllerError::ObjectNotFound(_)) => {}
            Err(ControllerError::ReconcilerFailed(error, object)) => {
                tracing::warn!(controller, %object, error = %chain(&error), "Reconciliation failed");
            }
            Err(error) => tracing::warn!(controller, error = %chain(&error), "Watch failed"),
        }
    })
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

/// How often an object is looked at when nothing happens to it.
pub(crate) const RESYNC: Duration = Duration::from_secs(300);

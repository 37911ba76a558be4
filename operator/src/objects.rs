//! What several controllers do with objects in the same way.

use std::{fmt::Debug, time::Duration};

use futures::{Future, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{
    Api, Resource,
    api::{ListParams, Patch, PatchParams},
    core::Status,
    runtime::{controller::Error as ControllerError, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

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

/// Applies an object's status under a field manager of ours, if the object is still the version that was read: an operator
/// that lost its leadership must not put an older status back. False: it is another version by now, or gone; look again.
pub(crate) async fn apply_status<K, S>(api: &Api<K>, read: &K, manager: &str, status: &S) -> kube::Result<bool>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Serialize,
{
    let meta = read.meta();
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": to_value(status)?,
    });
    let params = PatchParams::apply(manager).force();
    match api.patch_status(meta.name.as_deref().unwrap_or_default(), &params, &Patch::Apply(&object)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is no such object, or no such kind: of a kind that is not installed the API server says so in plain text, which
/// kube's `is_not_found` does not take for it.
pub(crate) fn is_absent(status: &Status) -> bool {
    status.is_not_found() || status.code == 404
}

/// When a status is looked at again that was another version by the time it was written.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Changes an object's status, where it differs from what was read, if the object is still the version that was read. What was
/// left out of both stays as it is.
pub(crate) async fn change_status<K, S>(api: &Api<K>, read: &K, before: &S, after: &S, manager: &str) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    S: Serialize,
{
    let (before, after) = (to_value(before)?, to_value(after)?);
    let meta = read.meta();
    let metadata = json!({"resourceVersion": meta.resource_version, "uid": meta.uid});
    let patch = json!({"metadata": metadata, "status": merge_patch(&before, &after)});
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    api.patch_status(meta.name.as_deref().unwrap_or_default(), &params, &Patch::Merge(patch)).await
}

fn to_value(object: &impl Serialize) -> kube::Result<Value> {
    serde_json::to_value(object).map_err(kube::Error::SerdeError)
}

/// What makes the one of the other (RFC 7396).
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return after.clone();
    };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let changed =
        changed.map(|(key, value)| (key.clone(), merge_patch(before.get(key).unwrap_or(&Value::Null), value)));
    gone.chain(changed).collect()
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

/// Where a list that comes in pages goes on after this page; `None` at its end.
pub(crate) fn next_page(params: &ListParams, page: &ListMeta) -> Option<ListParams> {
    let token = page.continue_.as_deref().filter(|token| !token.is_empty())?;
    Some(params.clone().continue_token(token))
}

/// How often an object is looked at when nothing happens to it.
pub(crate) const RESYNC: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_is_not_installed_is_absent() {
        let plain = Status::failure("404 page not found", "Failed to parse error data").with_code(404);
        let object = Status::failure("no such object", "NotFound").with_code(404);
        let forbidden = Status::failure("no", "Forbidden").with_code(403);
        assert!(is_absent(&plain) && is_absent(&object) && !is_absent(&forbidden));
    }

    #[test]
    fn a_patch_says_what_differs_and_what_is_gone() {
        for (before, after, wanted) in [
            (json!({"a": 1, "b": {"c": 1, "d": 2}}), json!({"a": 1, "b": {"d": 3}}), json!({"b": {"c": null, "d": 3}})),
            (json!({"a": [1, 2]}), json!({"a": [2]}), json!({"a": [2]})),
            (json!({"a": {"b": 1}}), json!({}), json!({"a": null})),
            (json!(null), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), json!({})),
        ] {
            assert_eq!(merge_patch(&before, &after), wanted);
        }
    }
}

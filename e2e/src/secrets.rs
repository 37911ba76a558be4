//! Looks for a secret in everything that is written down where it must not be.

use std::fmt::Debug;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use drover_crds::{Host, MasterPool, NodeConfig, Rollout};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::ControllerRevision,
        core::v1::{ConfigMap, Pod},
        events::v1::Event,
    },
};
use kube::{Resource, ResourceExt as _};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Fleet, diagnose::logs, fleet::Part};

/// Where a secret was found, of all that [`written`] returns.
pub async fn leaks(fleet: &Fleet, secret: &str) -> Vec<String> {
    written(fleet).await.into_iter().filter(|(_, text)| text.contains(secret)).map(|(place, _)| place).collect()
}

/// A secret as the API has it in a Secret, without the end that says nothing of its own.
pub fn encoded(secret: &str) -> String {
    BASE64_STANDARD.encode(secret).trim_end_matches('=').to_owned()
}

/// What is written down where no secret must be, with its place: objects other than Secrets, events, and the logs of all of
/// Drover's pods.
pub async fn written(fleet: &Fleet) -> Vec<(String, String)> {
    let mut written = vec![];
    written.extend(objects::<ControllerRevision>(fleet).await);
    written.extend(objects::<NodeConfig>(fleet).await);
    written.extend(objects::<Rollout>(fleet).await);
    written.extend(objects::<Host>(fleet).await);
    written.extend(objects::<MasterPool>(fleet).await);
    written.extend(objects::<ConfigMap>(fleet).await);
    written.extend(objects::<Pod>(fleet).await);
    written.extend(objects::<Event>(fleet).await);
    for part in Part::ALL {
        let logs = logs(fleet, part, None).await;
        assert!(logs.iter().any(|(_, log)| !log.is_empty()), "there are logs of {part:?} to look into");
        written.extend(logs.into_iter().map(|(pod, log)| (format!("the log of {}", pod.name_any()), log)));
    }
    written
}

async fn objects<K>(fleet: &Fleet) -> Vec<(String, String)>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let text = |object: &K| serde_json::to_string(object).expect("it came as JSON");
    let place = |object: &K| format!("{} {}", K::kind(&()), object.name_any());
    fleet.all::<K>().await.iter().map(|object| (place(object), text(object))).collect()
}

//! NodeConfigs: their content becomes an immutable revision once it is known to compile for every machine that it is for.
//!
//! A revision is a `ControllerRevision`; what came from Secrets is kept in an immutable Secret of the same name beside it.

mod gather;
mod keep;
mod key;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use drover_core::{
    revision::Content,
    selector, sources,
    trial::{self, Refusal, Trial},
};
use drover_crds::{ClaimConflict, GROUP, Host, NodeConfig, Rollout, VERSION};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, ResourceExt as _,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::gather::{Gathered, Revisions};
use crate::{
    context::Context,
    objects::{self, RESYNC},
};

const MANAGER: &str = "drover-node-config";

/// Why a NodeConfig does not become a revision, other than by its own fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot gather what the NodeConfig depends on")]
    Gather(#[from] gather::Error),
    #[error("cannot keep the revision")]
    Keep(#[from] keep::Error),
    #[error("cannot name the revision")]
    Name(#[source] serde_json::Error),
    #[error("cannot name the revision, which holds secrets")]
    Key(#[from] key::Error),
    #[error("trying the content out ended early")]
    Try(#[source] tokio::task::JoinError),
    #[error("cannot write the status of NodeConfig {0}")]
    WriteStatus(String, #[source] kube::Error),
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    let controller = Controller::new(Api::<NodeConfig>::namespaced(client.clone(), &namespace), objects::watching())
        .with_config(controller::Config::default().debounce(std::time::Duration::from_millis(200)).concurrency(4));
    let store = controller.store();
    let (by_map, by_secret, by_host, by_rollout) = (store.clone(), store.clone(), store.clone(), store.clone());
    let stream = controller
        .watches(Api::<ConfigMap>::namespaced(client.clone(), &namespace), objects::watching(), move |map| {
            let name = map.name_any();
            those(&by_map, |config| sources::names(&config.spec).config_maps.contains(&name))
        })
        .watches(Api::<Secret>::namespaced(client.clone(), &namespace), objects::watching(), move |secret| {
            let name = secret.name_any();
            those(&by_secret, |config| sources::names(&config.spec).secrets.contains(&name))
        })
        .watches(Api::<Host>::namespaced(client.clone(), &namespace), objects::watching(), move |host| {
            those(&by_host, |config| is_for(config, &host))
        })
        // A conflict has two sides, and each says so.
        .watches(Api::<NodeConfig>::namespaced(client.clone(), &namespace), objects::watching(), move |changed| {
            those(&store, |config| trial::concerns(&changed, config))
        })
        .watches(Api::<Rollout>::namespaced(client, &namespace), objects::watching(), move |rollout: Rollout| {
            those(&by_rollout, |config| config.name_any() == rollout.spec.node_config_ref.name)
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |config, context| reconcile(config, context).boxed(),
            |config, _, context| Action::requeue(context.backoff.failed(&format!("node-config/{}", config.name_any()))),
            Arc::new(context),
        );
    objects::drain("node-config", stream).await;
}

/// References to the NodeConfigs that something is of interest to.
fn those(store: &Store<NodeConfig>, interested: impl Fn(&NodeConfig) -> bool) -> Vec<ObjectRef<NodeConfig>> {
    store.state().iter().filter(|config| interested(config)).map(|config| ObjectRef::from_obj(&**config)).collect()
}

/// Whether a Host has something of a NodeConfig, or shall have.
fn is_for(config: &NodeConfig, host: &Host) -> bool {
    let name = config.name_any();
    selector::matches(config.spec.host_selector.as_ref(), host.metadata.labels.as_ref())
        || host.status.iter().flat_map(|status| &status.assigned).any(|assigned| assigned.node_config == name)
}

/// What is to be said of the newest content.
enum Verdict {
    /// It is a revision that can be rolled out.
    Good(String, Trial),
    /// Something that it refers to is not there.
    Missing(String),
    /// It does not compile.
    Invalid(String),
    /// Other NodeConfigs have what it claims.
    Conflict(Vec<ClaimConflict>),
}

#[tracing::instrument(skip_all, fields(node_config = %config.name_any()))]
async fn reconcile(config: Arc<NodeConfig>, context: Arc<Context>) -> Result<Action, Error> {
    if config.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        return Ok(Action::await_change());
    }
    let gathered = gather::gather(&context, &config).await?;
    let (tried, gathered) = try_out(Arc::clone(&config), gathered).await?;
    let Gathered { input, hosts, configs, rollouts, revisions } = gathered;
    let verdict = match input {
        Err(missing) => Verdict::Missing(missing.to_string()),
        Ok(content) => match tried {
            Ok(trial) => {
                let name = name(&context, &config, &content, &revisions).await?;
                match keep::keep(&context, &config, &name, &content, &revisions).await {
                    Err(keep::Error::TooLarge(why)) => Verdict::Invalid(why),
                    kept => kept.map(|()| Verdict::Good(name, trial))?,
                }
            }
            Err(Refusal::Invalid(why)) => Verdict::Invalid(why),
            Err(Refusal::Conflict(conflicts)) => Verdict::Conflict(conflicts),
        },
    };
    let status = status::status(&config, &verdict, &hosts, &configs, &rollouts);
    if config.status.as_ref() != Some(&status) {
        let name = config.name_any();
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "NodeConfig", "metadata": {"name": name}, "status": status,
        });
        let api: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
        objects::apply_status(&api, &name, MANAGER, &body).await.map_err(|error| Error::WriteStatus(name, error))?;
    }
    if let Verdict::Good(newest, _) = &verdict {
        keep::prune(&context, &config, newest, &hosts, &revisions).await?;
    }
    context.backoff.reset(&format!("node-config/{}", config.name_any()));
    Ok(Action::requeue(RESYNC))
}

/// Tries the content out on all machines. That takes the processor for as long as there are machines, so it is done where
/// nobody waits: the Lease must be renewed meanwhile.
async fn try_out(config: Arc<NodeConfig>, gathered: Gathered) -> Result<(Result<Trial, Refusal>, Gathered), Error> {
    let trying = move || {
        let Gathered { input, hosts, configs, revisions, .. } = &gathered;
        let tried = match input {
            Ok(content) => trial::try_out(&config, content, hosts, configs, |revision| revisions.content(revision)),
            Err(_) => Ok(Trial::default()),
        };
        (tried, gathered)
    };
    tokio::task::spawn_blocking(trying).await.map_err(Error::Try)
}

/// The name of the revision with this content: the one that it has already, whatever the scheme of names is by now, else
/// its hash.
async fn name(
    context: &Context,
    config: &NodeConfig,
    content: &Content,
    revisions: &Revisions,
) -> Result<String, Error> {
    let node_config = config.name_any();
    let newest = config.status.as_ref().and_then(|status| status.revision.as_deref());
    if let Some(kept) = revisions.same_as(&node_config, content, newest) {
        return Ok(kept);
    }
    let key = if content.holds_secrets() { Some(key::name_key(context).await?) } else { None };
    content.name(&node_config, key.as_ref()).map_err(Error::Name)
}

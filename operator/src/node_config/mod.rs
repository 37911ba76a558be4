//! NodeConfigs: their content becomes an immutable revision once it is known to compile for every machine that it is for.
//!
//! A revision is a `ControllerRevision`; what came from Secrets is kept in an immutable Secret of the same name beside it.

mod gather;
mod keep;
mod key;
mod status;
#[cfg(test)]
mod tests;
mod tried;

use std::sync::Arc;

use drover_core::{
    revision::Content,
    sources,
    trial::{self, Refusal, Trial},
};
use drover_crds::{ClaimConflict, NodeConfig, Rollout};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, ResourceExt as _,
    runtime::{
        Controller, Predicate as _, PredicateConfig, WatchStreamExt as _,
        controller::{self, Action},
        predicates,
        reflector::{self, ObjectRef, Store, reflector},
        watcher,
    },
};
use tokio_util::sync::CancellationToken;

use self::{
    gather::{Gathered, Revisions},
    tried::Trials,
};
use crate::{
    context::Context,
    objects::{self, RESYNC},
};

const MANAGER: &str = "drover-node-config";

/// For how long changes of machines are gathered before they are looked at.
const TOGETHER: std::time::Duration = std::time::Duration::from_secs(2);

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
    let (store, writer) = reflector::store();
    let api = Api::<NodeConfig>::namespaced(client.clone(), &namespace);
    // What is said of it in its own status, while machines are under way all the time, is no reason to look at it again.
    let changed = reflector(writer, watcher(api, objects::watching()))
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::annotations), PredicateConfig::default());
    let controller = Controller::for_stream(changed, store.clone())
        .with_config(controller::Config::default().debounce(std::time::Duration::from_millis(200)).concurrency(4));
    let (by_map, by_secret, by_rollout) = (store.clone(), store.clone(), store.clone());
    let machines = context.fleet.changes_each(TOGETHER);
    let stream = controller
        .watches(Api::<ConfigMap>::namespaced(client.clone(), &namespace), objects::watching(), move |map| {
            let name = map.name_any();
            those(&by_map, |config| sources::names(&config.spec).config_maps.contains(&name))
        })
        .watches(Api::<Secret>::namespaced(client.clone(), &namespace), objects::watching(), move |secret| {
            let name = secret.name_any();
            those(&by_secret, |config| sources::names(&config.spec).secrets.contains(&name))
        })
        // A conflict has two sides, and each says so.
        .watches(Api::<NodeConfig>::namespaced(client.clone(), &namespace), objects::watching(), move |changed| {
            those(&store, |config| trial::concerns(&changed, config))
        })
        .watches(Api::<Rollout>::namespaced(client, &namespace), objects::watching(), move |rollout: Rollout| {
            those(&by_rollout, |config| config.name_any() == rollout.spec.node_config_ref.name)
        })
        .reconcile_all_on(machines)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |config, shared| reconcile(config, shared).boxed(),
            |config, _, shared: Arc<Shared>| {
                Action::requeue(shared.context.backoff.failed(&format!("node-config/{}", config.name_any())))
            },
            Arc::new(Shared { context, trials: Trials::default() }),
        );
    objects::drain("node-config", stream).await;
}

/// References to the NodeConfigs that something is of interest to.
fn those(store: &Store<NodeConfig>, interested: impl Fn(&NodeConfig) -> bool) -> Vec<ObjectRef<NodeConfig>> {
    store.state().iter().filter(|config| interested(config)).map(|config| ObjectRef::from_obj(&**config)).collect()
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

/// Shared by the reconciliations.
struct Shared {
    context: Context,
    trials: Trials,
}

#[tracing::instrument(skip_all, fields(node_config = %config.name_any()))]
async fn reconcile(config: Arc<NodeConfig>, shared: Arc<Shared>) -> Result<Action, Error> {
    let Shared { context, trials } = &*shared;
    if config.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        trials.forget(&config.name_any());
        return Ok(Action::await_change());
    }
    let Gathered { config, input, hosts, configs, rollouts, revisions } = gather::gather(context, &config).await?;
    let revisions = Arc::new(revisions);
    let mut look_again = None;
    let verdict = match input {
        Err(missing) => Verdict::Missing(missing.to_string()),
        Ok(content) => {
            let tried;
            (tried, look_again) = trials.of(context, &config, &content, (&hosts, &configs, &revisions)).await?;
            match tried {
                Ok(trial) => {
                    let name = name(context, &config, &content, &revisions).await?;
                    match keep::keep(context, &config, &name, &content, &revisions).await {
                        Err(keep::Error::TooLarge(why)) => Verdict::Invalid(why),
                        kept => kept.map(|()| Verdict::Good(name, trial))?,
                    }
                }
                Err(Refusal::Invalid(why)) => Verdict::Invalid(why),
                Err(Refusal::Conflict(conflicts)) => Verdict::Conflict(conflicts),
            }
        }
    };
    let status = status::status(&config, &verdict, &hosts, &configs, &rollouts);
    if config.status.as_ref() != Some(&status) {
        let name = config.name_any();
        let api: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
        let written = objects::apply_status(&api, &*config, MANAGER, &status).await;
        if !written.map_err(|error| Error::WriteStatus(name, error))? {
            return Ok(Action::requeue(objects::LOOK_AGAIN));
        }
    }
    if let Verdict::Good(newest, _) = &verdict {
        keep::prune(context, &config, newest, &hosts, &revisions).await?;
    }
    context.backoff.reset(&format!("node-config/{}", config.name_any()));
    Ok(Action::requeue(look_again.unwrap_or(RESYNC)))
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

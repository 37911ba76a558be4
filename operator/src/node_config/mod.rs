//! NodeConfigs: their content becomes an immutable revision once it is known to compile for every machine that it is for.
//!
//! A revision is a `ControllerRevision`; what came from Secrets is kept in an immutable Secret of the same name beside it.

mod gather;
mod keep;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use drover_core::{
    compile::{self, CompileError, Subject},
    metadata,
    revision::Content,
};
use drover_crds::{
    GROUP, Host, NodeConfig, NodeConfigStatus, Rollout, RolloutPhase, VERSION,
    condition::{self, Summary},
};
use futures::FutureExt as _;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
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

use self::gather::{Gathered, Input};
use crate::{
    context::{Context, now},
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
    #[error("cannot write the status of NodeConfig {0}")]
    WriteStatus(String, #[source] kube::Error),
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    let controller = Controller::new(Api::<NodeConfig>::namespaced(client.clone(), &namespace), objects::watching())
        .with_config(controller::Config::default().debounce(std::time::Duration::from_millis(200)).concurrency(4));
    let store = controller.store();
    let (by_map, by_secret, by_host, by_rollout) = (store.clone(), store.clone(), store.clone(), store);
    let stream = controller
        .watches(Api::<ConfigMap>::namespaced(client.clone(), &namespace), objects::watching(), move |map| {
            let name = map.name_any();
            those(&by_map, |config| gather::config_maps(&config.spec).any(|wanted| wanted == name))
        })
        .watches(Api::<Secret>::namespaced(client.clone(), &namespace), objects::watching(), move |secret| {
            let name = secret.name_any();
            those(&by_secret, |config| gather::secrets(&config.spec).any(|wanted| wanted == name))
        })
        .watches(Api::<Host>::namespaced(client.clone(), &namespace), objects::watching(), move |_| {
            those(&by_host, |_| true)
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

/// What is to be said of the newest content.
enum Verdict {
    /// It is a revision that can be rolled out.
    Good(String),
    /// Something that it refers to is not there.
    Missing(String),
    /// It does not compile.
    Invalid(String),
}

#[tracing::instrument(skip_all, fields(node_config = %config.name_any()))]
async fn reconcile(config: Arc<NodeConfig>, context: Arc<Context>) -> Result<Action, Error> {
    if config.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        return Ok(Action::await_change());
    }
    let Gathered { input, hosts, rollouts, revisions } = gather::gather(&context, &config).await?;
    let verdict = match input {
        Input::Missing(what) => Verdict::Missing(what),
        Input::Content(content) => match try_out(&config, &content, &hosts, &revisions) {
            Ok(()) => {
                let name = content.name(&config.name_any()).map_err(Error::Name)?;
                keep::keep(&context, &config, &name, &content, &revisions).await?;
                Verdict::Good(name)
            }
            Err(why) => Verdict::Invalid(why),
        },
    };
    let status = status(&config, &verdict, &hosts, &rollouts);
    if config.status.as_ref() != Some(&status) {
        let name = config.name_any();
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "NodeConfig", "metadata": {"name": name}, "status": status,
        });
        let api: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
        objects::apply_status(&api, &name, MANAGER, &body).await.map_err(|error| Error::WriteStatus(name, error))?;
    }
    if let Verdict::Good(newest) = &verdict {
        keep::prune(&context, &config, newest, &hosts, &revisions).await?;
    }
    context.backoff.reset(&format!("node-config/{}", config.name_any()));
    Ok(Action::requeue(RESYNC))
}

/// Compiles the content for each machine that it is for, together with what is assigned to that machine beside it. A
/// machine whose facts are not known yet can not be tried.
fn try_out(
    config: &NodeConfig,
    content: &Content,
    hosts: &[Host],
    revisions: &gather::Revisions,
) -> Result<(), String> {
    let name = config.name_any();
    compile::check(&content.resources).map_err(|error| error.to_string())?;
    for host in hosts {
        let Some(subject) = subject(host) else { continue };
        let reference = |node_config: &str, revision: &str| drover_catalog::RevisionRef {
            node_config: node_config.to_owned(),
            revision: revision.to_owned(),
        };
        let assigned = host.status.iter().flat_map(|status| &status.assigned);
        let others = assigned.filter(|assignment| assignment.node_config != name).filter_map(|assignment| {
            let content = revisions.content(&assignment.revision)?;
            Some((reference(&assignment.node_config, &assignment.revision), content))
        });
        let mut all: Vec<_> = others.collect();
        all.push((reference(&name, "newest"), content));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let describe = |error: CompileError| format!("Host {}: {error}", metadata::name(&host.metadata));
        compile::compile(&subject, &all).map_err(describe)?;
    }
    Ok(())
}

/// A machine as templates see it, once its facts are known.
fn subject(host: &Host) -> Option<Subject> {
    let status = host.status.as_ref()?;
    Some(Subject {
        host: drover_catalog::HostIdentity {
            name: metadata::name(&host.metadata).to_owned(),
            uid: metadata::uid(&host.metadata).to_owned(),
        },
        node_name: host.spec.node_ref.name.clone(),
        labels: host.labels().clone(),
        facts: compile::facts_from_status(status.facts.as_ref()?)?,
        generation: status.assigned_generation,
    })
}

/// The status, derived from the verdict and from what the machines say.
fn status(config: &NodeConfig, verdict: &Verdict, hosts: &[Host], rollouts: &[Rollout]) -> NodeConfigStatus {
    let mut status = config.status.clone().unwrap_or_default();
    let name = config.name_any();
    if let Verdict::Good(revision) = verdict {
        status.revision = Some(revision.clone());
    }
    let ours = |rollout: &&Rollout| rollout.spec.node_config_ref.name == name;
    // A Rollout for some of the hosts says nothing about the others: they keep what they have.
    let for_all =
        |rollout: &&Rollout| rollout.spec.host_selector.as_ref().is_none_or(|s| *s == LabelSelector::default());
    let completed = rollouts.iter().filter(ours).filter(for_all).filter_map(|rollout| {
        let status = rollout.status.as_ref()?;
        let run = status.run.as_ref().filter(|_| status.phase == Some(RolloutPhase::Complete))?;
        Some((run.finished_at.as_ref()?.0, run.revision.clone()))
    });
    if let Some((_, revision)) = completed.max() {
        status.completed_revision = Some(revision);
    }
    let count = |wanted: &dyn Fn(&Host) -> bool| i32::try_from(hosts.iter().filter(|host| wanted(host)).count()).ok();
    let newest = status.revision.clone();
    status.hosts = count(&|_| true);
    status.updated = count(&|host| {
        let active = host.status.as_ref().and_then(|status| status.active.as_ref());
        active.is_some_and(|active| {
            active.converged && active.revisions.iter().any(|r| Some(&r.revision) == newest.as_ref())
        })
    });
    status.failed = count(&|host| {
        let active = host.status.as_ref().and_then(|status| status.active.as_ref());
        active.is_some_and(|active| !active.converged && active.revisions.iter().any(|r| r.node_config == name))
    });

    let generation = config.metadata.generation;
    let (phase, summary, message) = match verdict {
        Verdict::Good(revision) if rollouts.iter().any(|rollout| ours(&rollout)) => {
            ("Ready", Summary::Ready, format!("revision {revision} compiles for each of its hosts"))
        }
        Verdict::Good(revision) => {
            let hint = "no Rollout refers to this NodeConfig, so it changes no machine";
            ("Ready", Summary::Ready, format!("revision {revision} compiles for each of its hosts; {hint}"))
        }
        Verdict::Missing(what) => ("MissingData", Summary::Stalled, format!("{what}; every host keeps what it has")),
        Verdict::Invalid(why) => ("Invalid", Summary::Stalled, format!("{why}; every host keeps what it has")),
    };
    condition::summarise(&mut status.conditions, summary, phase, &message, generation, now());
    status.phase = Some(phase.to_owned());
    status.message = Some(message);
    status.observed_generation = generation;
    status
}

//! Rollouts: gather a snapshot, ask the core what is next, carry it out, and ask again.

mod carry_out;
mod gates;
mod gather;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drover_core::rollout::decide;
use drover_crds::{Host, NodeConfig, Rollout, RolloutPhase, RolloutStatus};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::{
        Controller,
        controller::{self, Action},
        events::{Event, EventType},
        reflector::{ObjectRef, Store},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, now},
    objects,
};

/// Why a Rollout does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot gather what the Rollout depends on")]
    Gather(#[from] gather::Error),
    #[error("cannot carry out what is next")]
    CarryOut(#[from] carry_out::Error),
    #[error("it took more than {0} requests in a row without rest")]
    NoRest(usize),
}

/// The most requests in one go: a guard against a decision that never comes to rest.
const MOST_REQUESTS: usize = 10_000;

/// Shared by all Rollouts.
struct Shared {
    context: Context,
    gates: gates::Gates,
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    let gates = match gates::Gates::new() {
        Ok(gates) => gates,
        Err(error) => {
            tracing::error!(error = %objects::chain(&error), "Cannot make the client for gates");
            return;
        }
    };
    let controller = Controller::new(Api::<Rollout>::namespaced(client.clone(), &namespace), objects::watching())
        .with_config(controller::Config::default().debounce(Duration::from_millis(100)).concurrency(8));
    let (by_host, by_config, by_node) = (controller.store(), controller.store(), controller.store());
    let stream = controller
        .watches(Api::<Host>::namespaced(client.clone(), &namespace), objects::watching(), move |_| all(&by_host))
        .watches(Api::<NodeConfig>::namespaced(client.clone(), &namespace), objects::watching(), move |_| {
            all(&by_config)
        })
        .watches(Api::<Node>::all(client), objects::watching(), move |_| all(&by_node))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |rollout, shared| reconcile(rollout, shared).boxed(),
            |rollout, _, shared: Arc<Shared>| {
                Action::requeue(shared.context.backoff.failed(&format!("rollout/{}", rollout.name_any())))
            },
            Arc::new(Shared { context, gates }),
        );
    objects::drain("rollout", stream).await;
}

/// References to all Rollouts: there are few, and what happens to a machine can matter to each.
fn all(rollouts: &Store<Rollout>) -> Vec<ObjectRef<Rollout>> {
    rollouts.state().iter().map(|rollout| ObjectRef::from_obj(&**rollout)).collect()
}

#[tracing::instrument(skip_all, fields(rollout = %rollout.name_any()))]
async fn reconcile(rollout: Arc<Rollout>, shared: Arc<Shared>) -> Result<Action, Error> {
    let Shared { context, gates } = &*shared;
    let mut refused = BTreeMap::new();
    for _ in 0..MOST_REQUESTS {
        if !context.leadership.is_held() {
            return Ok(Action::await_change());
        }
        let Some(mut snapshot) = gather::snapshot(context, gates, &rollout.name_any()).await? else {
            return Ok(Action::await_change());
        };
        snapshot.refused_evictions.clone_from(&refused);
        let decision = decide(&snapshot, now());
        let Some(request) = decision.request else {
            context.backoff.reset(&format!("rollout/{}", rollout.name_any()));
            return Ok(Action::requeue(decision.look_again));
        };
        match carry_out::carry_out(context, &snapshot, request).await? {
            carry_out::Outcome::Done(written) => announce(context, &snapshot.rollout, written.as_deref()).await,
            carry_out::Outcome::Refused(pod, why) => {
                refused.insert(pod, why);
            }
            carry_out::Outcome::Conflict => tracing::debug!("The world changed meanwhile; deciding anew"),
        }
    }
    Err(Error::NoRest(MOST_REQUESTS))
}

/// Publishes an event when the phase changed or another machine failed. An event that can not be published is no reason
/// to stop.
async fn announce(context: &Context, before: &Rollout, written: Option<&Rollout>) {
    let Some(after) = written.and_then(|rollout| rollout.status.as_ref()) else {
        return;
    };
    let earlier = before.status.as_ref();
    let reference = before.object_ref(&());
    let mut events = vec![];
    let known = earlier.map_or(&[][..], |status| &status.failures);
    for failure in after.failures.iter().filter(|failure| !known.contains(failure)) {
        events.push((EventType::Warning, "HostFailed", format!("{}: {}", failure.host, failure.message)));
    }
    if earlier.and_then(|status| status.phase) != after.phase {
        let phase = after.phase.map_or("Unknown", RolloutPhase::as_str);
        let failed = matches!(
            after.phase,
            Some(RolloutPhase::Failed | RolloutPhase::Aborted | RolloutPhase::RollingBack | RolloutPhase::RolledBack)
        );
        let type_ = if failed { EventType::Warning } else { EventType::Normal };
        events.push((type_, phase, after.message.clone().unwrap_or_default()));
    }
    let seen = earlier.map_or(&[][..], |status| &status.last_handled);
    for handled in after.last_handled.iter().filter(|handled| !seen.contains(handled)) {
        events.push((EventType::Normal, "Asked", format!("{}={}: {}", handled.action, handled.value, handled.result)));
    }
    for ended in seen.iter().filter(|seen| after.last_handled.iter().all(|other| other.action != seen.action)) {
        events.push((EventType::Normal, "Asked", format!("{}: no longer asked for", ended.action)));
    }
    let stopped = |status: &RolloutStatus| status.run.as_ref().and_then(|run| run.stopped.clone());
    if let Some(stopped) = stopped(after).filter(|_| earlier.and_then(stopped).is_none()) {
        events.push((EventType::Warning, "Stopped", format!("{}; {:?}", stopped.reason, stopped.action)));
    }
    for (type_, reason, note) in events {
        tracing::info!(reason, note, "Rollout");
        let note = note.chars().take(1000).collect();
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Roll".to_owned(), secondary: None };
        if let Err(error) = context.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, "Event not published");
        }
    }
}

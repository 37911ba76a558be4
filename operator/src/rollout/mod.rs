//! Rollouts: gather a snapshot, ask the core what is next, carry it out, and ask again.

mod carry_out;
mod cost;
mod drain;
mod gates;
pub(crate) mod gather;
mod jobs;
mod load_balancer;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_core::rollout::{NodeChange, Request, decide};
use drover_crds::{DisruptionBudget, HostStatus, NodeConfig, Rollout, RolloutPhase, RolloutStatus};
use futures::FutureExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::{
        Controller,
        controller::{self, Action},
        events::{Event, EventType},
        reflector::{ObjectRef, Store},
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

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

/// The most requests in one go, and how many more for each machine: a guard against a decision that never comes to rest.
const MOST_REQUESTS: usize = 1_000;
const MOST_PER_HOST: usize = 30;

/// How many Hosts are written at once.
const AT_ONCE: usize = 4;

/// For how long changes of machines are gathered before they are looked at.
const TOGETHER: Duration = Duration::from_millis(100);

/// Shared by all Rollouts.
struct Shared {
    context: Context,
    stop: CancellationToken,
    gates: gates::Gates,
    costs: cost::Costs,
    load_balancers: load_balancer::LoadBalancers,
    memories: Mutex<HashMap<String, gather::Memory>>,
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    let gates = match gates::Gates::new(context.client.clone(), context.namespace.clone()) {
        Ok(gates) => gates,
        Err(error) => {
            tracing::error!(error = %objects::chain(&error), "Cannot make the client for gates");
            return;
        }
    };
    // Debouncing begins anew with each event, so it is shorter than the steps in which machines are told of.
    let controller = Controller::new(Api::<Rollout>::namespaced(client.clone(), &namespace), objects::watching())
        .with_config(controller::Config::default().debounce(TOGETHER / 4).concurrency(8));
    let (by_config, by_rollout, by_budget) = (controller.store(), controller.store(), controller.store());
    let stream = controller
        .watches(Api::<NodeConfig>::namespaced(client.clone(), &namespace), objects::watching(), move |_| {
            all(&by_config)
        })
        .watches(Api::<DisruptionBudget>::namespaced(client.clone(), &namespace), objects::watching(), move |_| {
            all(&by_budget)
        })
        .watches(Api::<Rollout>::namespaced(client.clone(), &namespace), objects::watching(), move |rollout| {
            waiting_for(&rollout.name_any(), &by_rollout)
        })
        .owns(Api::<Job>::namespaced(client, &namespace), objects::watching())
        .reconcile_all_on(context.fleet.changes_each(TOGETHER))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            |rollout, shared| reconcile(rollout, shared).boxed(),
            |rollout, _, shared: Arc<Shared>| {
                Action::requeue(shared.context.backoff.failed(&format!("rollout/{}", rollout.name_any())))
            },
            Arc::new(Shared {
                context,
                stop,
                gates,
                costs: cost::Costs::default(),
                load_balancers: load_balancer::LoadBalancers::default(),
                memories: Mutex::default(),
            }),
        );
    objects::drain("rollout", stream).await;
}

/// References to all Rollouts: there are few, and what happens to a machine can matter to each.
fn all(rollouts: &Store<Rollout>) -> Vec<ObjectRef<Rollout>> {
    rollouts.state().iter().map(|rollout| ObjectRef::from_obj(&**rollout)).collect()
}

/// References to the Rollouts that wait for this one.
fn waiting_for(name: &str, rollouts: &Store<Rollout>) -> Vec<ObjectRef<Rollout>> {
    let waits = |rollout: &Rollout| rollout.spec.depends_on.iter().any(|other| other.name == name);
    rollouts.state().iter().filter(|rollout| waits(rollout)).map(|rollout| ObjectRef::from_obj(&**rollout)).collect()
}

#[tracing::instrument(skip_all, fields(rollout = %rollout.name_any()))]
async fn reconcile(rollout: Arc<Rollout>, shared: Arc<Shared>) -> Result<Action, Error> {
    let uid = rollout.uid().unwrap_or_default();
    let memories = || shared.memories.lock().unwrap_or_else(PoisonError::into_inner);
    // One reconciliation of a Rollout at a time has its memory.
    let mut memory = memories().remove(&uid).unwrap_or_default();
    let next = go_on(&shared, &mut memory, &rollout).await;
    if matches!(next, Ok(None)) {
        shared.costs.forget(&uid);
    } else {
        memories().insert(uid, memory);
    }
    Ok(next?.unwrap_or_else(Action::await_change))
}

/// One request after the other, until there is nothing to do but wait; `None` when there is no Rollout to be waited for.
async fn go_on(shared: &Shared, memory: &mut gather::Memory, rollout: &Rollout) -> Result<Option<Action>, Error> {
    let Shared { context, gates, .. } = shared;
    if !context.leadership.is_held() {
        return Ok(None);
    }
    let began = Instant::now();
    let Some(mut view) = gather::View::of(context, gates, memory, rollout).await? else { return Ok(None) };
    let next = until_rest(shared, &mut view, began).await?;
    if next.is_some() {
        view.keep();
    }
    Ok(next)
}

/// The same with a view of the world, from `began` on. Whatever ends it, what was sent is answered.
async fn until_rest(shared: &Shared, view: &mut gather::View<'_>, began: Instant) -> Result<Option<Action>, Error> {
    let mut writes = HostWrites::default();
    let ended = requests(shared, view, &mut writes, began).await;
    let mut answered = Ok(());
    while !writes.is_empty() {
        answered = answered.and(writes.answer(&shared.context, view).await);
    }
    answered.and(ended)
}

/// One request after the other; while Hosts are written, what is next for other Hosts.
async fn requests(
    shared: &Shared,
    view: &mut gather::View<'_>,
    writes: &mut HostWrites,
    began: Instant,
) -> Result<Option<Action>, Error> {
    let Shared { context, costs, load_balancers, .. } = shared;
    let most = MOST_REQUESTS + MOST_PER_HOST * view.snapshot.hosts.count();
    for _ in 0..most {
        if shared.stop.is_cancelled() || !context.leadership.is_held() || !view.refresh().await? {
            return Ok(None);
        }
        costs.put_into(context, &mut view.snapshot, &mut view.memory.weighed).await?;
        view.snapshot.load_balancers = load_balancers.answers();
        let decision = decide(&view.snapshot, now());
        let request = match decision.request {
            Some(request) if view.must_hear_others(&request) => {
                if !view.listen().await? {
                    return Ok(None);
                }
                continue;
            }
            Some(Request::WriteHost { host, status })
                if writes.has_room() && !view.snapshot.unanswered.contains(&host) =>
            {
                writes.send(context, view, host, *status);
                continue;
            }
            _ if !writes.is_empty() => {
                writes.answer(&shared.context, view).await?;
                continue;
            }
            Some(request) => request,
            None => {
                context.backoff.reset(&format!("rollout/{}", view.snapshot.rollout.name_any()));
                let listens = view.listens_within(began).unwrap_or(Duration::MAX);
                return Ok(Some(Action::requeue(decision.look_again.min(listens))));
            }
        };
        if view.must_be_fresh(&request) {
            if let Some(left) = view.reads_after() {
                return Ok(Some(Action::requeue(left)));
            }
            if !view.read().await? {
                return Ok(None);
            }
            continue;
        }
        // The Node's version is from before this look at the Host, and giving a machine back writes its Node: so a cordon that
        // comes after that is refused.
        if let Request::PatchNode {
            change: NodeChange::Cordon(token) | NodeChange::ExcludeFromLoadBalancers(token),
            ..
        } = &request
            && !view.is_still_held(token).await?
        {
            continue;
        }
        if let Request::TellLoadBalancer { call, step } = request {
            if view.is_still_held(&call.token).await? {
                load_balancers.tell(context, call, &step).await;
            }
            continue;
        }
        if let Request::Evict(pod) | Request::DeletePod(pod) = &request
            && !view.is_still_drained(pod).await?
        {
            continue;
        }
        let about = gather::About::of(&request);
        let outcome = carry_out::carry_out(context, &view.snapshot, request).await?;
        if !take(context, view, &about, outcome).await? {
            return Ok(None);
        }
    }
    Err(Error::NoRest(most))
}

/// Takes in how a request ended; false when the Rollout is gone.
async fn take(
    context: &Context,
    view: &mut gather::View<'_>,
    about: &gather::About,
    outcome: carry_out::Outcome,
) -> Result<bool, Error> {
    match outcome {
        carry_out::Outcome::Done(written) => {
            if let Some(written) = &written {
                announce(context, &view.snapshot.rollout, Some(written)).await;
                view.memory.reported = Some(now());
            }
            view.wrote(about, written.map(|written| *written));
        }
        carry_out::Outcome::Refused(pod, why) => {
            view.snapshot.refused_evictions.insert(pod, why);
        }
        carry_out::Outcome::RefusedJob(job, why) => {
            view.snapshot.refused_jobs.insert(job, why);
            view.wrote(about, None);
        }
        carry_out::Outcome::Conflict => {
            tracing::debug!(?about, "The world changed meanwhile; deciding anew");
            return Ok(view.read_again(about).await?);
        }
    }
    Ok(true)
}

/// Writes of Hosts that are under way. Each names its own Host's version, so none depends on another's answer.
#[derive(Default)]
struct HostWrites(JoinSet<(String, Result<carry_out::Outcome, carry_out::Error>)>);

impl HostWrites {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one more may be sent.
    fn has_room(&self) -> bool {
        self.0.len() < AT_ONCE
    }

    fn send(&mut self, context: &Context, view: &mut gather::View<'_>, host: String, status: HostStatus) {
        let written = carry_out::write_host(context, &view.snapshot, host.clone(), status);
        view.snapshot.unanswered.insert(host.clone());
        self.0.spawn(async move { (host, written.await) }.in_current_span());
    }

    /// Waits for the next answer and takes it in.
    async fn answer(&mut self, context: &Context, view: &mut gather::View<'_>) -> Result<(), Error> {
        let Some(answered) = self.0.join_next().await else { return Ok(()) };
        let (host, outcome) = answered.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        view.snapshot.unanswered.remove(&host);
        take(context, view, &gather::About::Host(host), outcome?).await?;
        Ok(())
    }
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
    let warning = |status: &RolloutStatus| status.estimate.as_ref().and_then(|estimate| estimate.warning.clone());
    if let Some(warning) = warning(after).filter(|_| earlier.and_then(warning).is_none()) {
        events.push((EventType::Warning, "DoesNotFit", warning));
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

//! MasterPools: the masters' Deployment, their Service and budget, their certificates, and the ConfigMap that tells agents
//! where they are and whom to trust.

mod desired;
mod plan;
mod scale;
mod trust;

use std::{collections::BTreeSet, sync::Arc};

use drover_core::placement::by_zone;
use drover_crds::{
    Host, MasterPool, MasterPoolStatus, NodeConfig, PoolPlan, PoolScale, PoolZone, PoolZoneStatus,
    condition::{self, Status, Summary},
    keys,
};
use futures::FutureExt as _;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus},
        core::v1::{ConfigMap, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use tokio_util::sync::CancellationToken;

use self::{
    desired::{Pool, Tier},
    plan::Planning,
    scale::Scales,
    trust::Told,
};
use crate::{
    context::{Context, now},
    metrics::PoolMeasures,
    objects::{self, RESYNC},
};

const MANAGER: &str = "drover-master-pool";

/// Why a pool is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read Secret {0}")]
    ReadSecret(String, #[source] kube::Error),
    #[error("cannot list {0}")]
    List(&'static str, #[source] kube::Error),
    #[error("cannot remove {0} {1}")]
    Remove(&'static str, String, #[source] kube::Error),
    #[error("cannot write whom agents trust as JSON")]
    Authorities(#[source] serde_json::Error),
    #[error("cannot make a certificate for {0}")]
    Certificate(String, #[source] rcgen::Error),
    #[error("cannot apply {0} {1}")]
    Apply(&'static str, String, #[source] kube::Error),
    #[error("cannot list the masters of MasterPool {0}")]
    ListMasters(String, #[source] kube::Error),
    #[error("cannot list NodeConfigs")]
    ListNodeConfigs(#[source] kube::Error),
    #[error("cannot write the status of MasterPool {0}")]
    WriteStatus(String, #[source] kube::Error),
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let scales = match Scales::new() {
        Ok(scales) => scales,
        Err(error) => {
            tracing::error!(error = %objects::chain(&error), "Cannot make the client for masters");
            return;
        }
    };
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    let controller = Controller::new(Api::<MasterPool>::namespaced(client.clone(), &namespace), objects::watching());
    // Agents are told of all pools: where one pool's masters are is for all of them to know.
    let (by_service, by_map, by_secret) = (controller.store(), controller.store(), controller.store());
    let ours = objects::watching().labels(keys::MASTER_POOL_LABEL);
    let stream = controller
        .with_config(controller::Config::default().debounce(std::time::Duration::from_millis(200)).concurrency(2))
        .owns(Api::<Deployment>::namespaced(client.clone(), &namespace), objects::watching())
        .watches(Api::<Service>::namespaced(client.clone(), &namespace), ours.clone(), move |_| all(&by_service))
        .watches(Api::<ConfigMap>::namespaced(client.clone(), &namespace), ours.clone(), move |_| all(&by_map))
        .watches(Api::<Secret>::namespaced(client, &namespace), ours, move |_| all(&by_secret))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |pool, shared| reconcile(pool, shared).boxed(),
            |pool, _, shared: Arc<Shared>| {
                Action::requeue(shared.context.backoff.failed(&format!("master-pool/{}", pool.name_any())))
            },
            Arc::new(Shared { context, scales }),
        );
    objects::drain("master-pool", stream).await;
}

/// Shared by all pools.
struct Shared {
    context: Context,
    scales: Scales,
}

/// What was applied, for the status.
struct Applied {
    deployments: Vec<Deployment>,
    /// How many masters serve that are no longer wanted.
    before: i32,
    service: Service,
    /// How the certificates are.
    certificates: Told,
}

fn all(pools: &Store<MasterPool>) -> Vec<ObjectRef<MasterPool>> {
    pools.state().iter().map(|pool| ObjectRef::from_obj(&**pool)).collect()
}

/// How many masters there are to be, and what they have to do.
struct Wanted {
    replicas: i32,
    /// How many of them in each zone, and how many of the pool's machines are there.
    by_zone: Vec<i32>,
    hosts_by_zone: Vec<usize>,
    /// How many machines the pool serves.
    hosts: usize,
    scale: Option<PoolScale>,
    /// How many would be wanted if there were no `max`.
    unlimited: i32,
    plan: PoolPlan,
    measures: PoolMeasures,
}

#[tracing::instrument(skip_all, fields(master_pool = %pool.name_any()))]
async fn reconcile(pool: Arc<MasterPool>, shared: Arc<Shared>) -> Result<Action, Error> {
    let context = &shared.context;
    if pool.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        shared.scales.forget(&pool);
        context.metrics.forget(&pool.name_any());
        return Ok(Action::await_change());
    }
    let wanted = Pool::new(&pool, &context.namespace, &context.master);
    let trusted = trust::certificates(context, &wanted, now()).await?;
    let service = tell_agents(context, &wanted).await?;
    let (client, namespace) = (&context.client, context.namespace.as_str());
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let applied = objects::apply(&budgets, wanted.name(), MANAGER, &wanted.budget()).await;
    applied.map_err(|error| Error::Apply("PodDisruptionBudget", wanted.name().to_owned(), error))?;
    let many = how_many(&shared, &pool).await?;
    let (deployments, before) = deploy(context, &wanted, &many).await?;

    let measures = PoolMeasures { ready: ready(&deployments), ..many.measures.clone() };
    context.metrics.pool(&pool.name_any(), &measures);
    let status = status(&pool, &many, &Applied { deployments, before, service, certificates: trusted.told });
    if pool.status.as_ref() != Some(&status) {
        let name = pool.name_any();
        let api: Api<MasterPool> = Api::namespaced(client.clone(), namespace);
        let written = objects::apply_status(&api, &*pool, MANAGER, &status).await;
        if !written.map_err(|error| Error::WriteStatus(name, error))? {
            return Ok(Action::requeue(objects::LOOK_AGAIN));
        }
    }
    context.backoff.reset(&format!("master-pool/{}", pool.name_any()));
    let again = if pool.spec.autoscaling.is_some() { scale::EVERY } else { RESYNC };
    let due = trusted.next.map(|next| next.unsigned_abs().max(objects::LOOK_AGAIN));
    Ok(Action::requeue(due.map_or(again, |due| due.min(again))))
}

/// The Services of the pool and its zones, and the ConfigMap that tells agents of them and of those of all other pools.
async fn tell_agents(context: &Context, wanted: &Pool<'_>) -> Result<Service, Error> {
    let name = wanted.name();
    let services: Api<Service> = Api::namespaced(context.client.clone(), &context.namespace);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut names = Vec::new();
    let mut whole = Service::default();
    for tier in wanted.tiers() {
        for headless in [false, true] {
            let name = if headless { wanted.headless_name(tier) } else { wanted.tier_name(tier) };
            let applied = objects::apply(&services, &name, MANAGER, &wanted.service(tier, headless)).await;
            let applied: Service = applied.map_err(|error| Error::Apply("Service", name.clone(), error))?;
            if tier == Tier::All && !headless {
                whole = applied;
            }
            names.push(name);
        }
    }
    let all_pools = ListParams::default().labels(keys::MASTER_POOL_LABEL);
    let known = services.list(&all_pools).await.map_err(|error| Error::List("Services", error))?.items;
    let (known, stale) = known.into_iter().partition::<Vec<_>, _>(|service| {
        service.labels().get(keys::MASTER_POOL_LABEL) != Some(&wanted.object_name())
            || names.contains(&service.name_any())
    });
    for service in stale {
        remove(&services, "Service", &service.name_any()).await?;
    }
    if let Some(address) = desired::address(&whole) {
        let told = maps.list(&all_pools).await.map_err(|error| Error::List("ConfigMaps", error))?.items;
        let is_told = |map: &&ConfigMap| map.data.as_ref().is_some_and(|data| data.contains_key("authorities.json"));
        let bundle: BTreeSet<&str> = told
            .iter()
            .filter(is_told)
            .filter_map(|map| map.data.as_ref()?.get("ca.crt"))
            .map(String::as_str)
            .collect();
        let pools = desired::directions(&known, &context.namespace);
        let map = wanted.config_map(&bundle.into_iter().collect::<String>(), &address, &pools);
        let applied = objects::apply(&maps, name, MANAGER, &map).await;
        applied.map_err(|error| Error::Apply("ConfigMap", name.to_owned(), error))?;
    }
    Ok(whole)
}

/// The pool's Deployments, and how many masters serve that are no longer wanted: they go when those that are have all their masters.
async fn deploy(context: &Context, wanted: &Pool<'_>, many: &Wanted) -> Result<(Vec<Deployment>, i32), Error> {
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut deployments = Vec::new();
    for (name, object) in wanted.deployments(many.replicas, &many.by_zone) {
        let applied = objects::apply(&api, &name, MANAGER, &object).await;
        deployments.push(applied.map_err(|error| Error::Apply("Deployment", name, error))?);
    }
    let ours = ListParams::default().labels(&format!("{}={}", keys::MASTER_POOL_LABEL, wanted.object_name()));
    let known = api.list(&ours).await.map_err(|error| Error::List("Deployments", error))?.items;
    let is_wanted =
        |known: &Deployment| deployments.iter().any(|wanted: &Deployment| wanted.name_any() == known.name_any());
    let before: Vec<Deployment> = known.into_iter().filter(|known| !is_wanted(known)).collect();
    if !deployments.iter().all(is_available) {
        return Ok((deployments, number(&before, |status| status.ready_replicas)));
    }
    for name in before.iter().map(Deployment::name_any) {
        remove(&api, "Deployment", &name).await?;
        tracing::info!(deployment = name, "Masters that are no longer wanted go");
    }
    Ok((deployments, 0))
}

/// Whether all masters of a Deployment serve, as it is now.
fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation == deployment.metadata.generation
            && status.available_replicas.unwrap_or(0) >= wanted
            && status.updated_replicas.unwrap_or(0) >= wanted
    })
}

async fn remove<K>(api: &Api<K>, kind: &'static str, name: &str) -> Result<(), Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if objects::is_absent(&status) => Ok(()),
        Err(error) => Err(Error::Remove(kind, name.to_owned(), error)),
    }
}

/// How many masters there are to be, and why.
async fn how_many(shared: &Shared, pool: &MasterPool) -> Result<Wanted, Error> {
    let Shared { context, scales } = shared;
    let configs: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
    let configs = configs.list(&ListParams::default()).await.map_err(Error::ListNodeConfigs)?.items;
    let hosts = context.fleet.hosts.all();
    let name = pool.name_any();
    let of_pool = |host: &&Arc<Host>| {
        host.status.as_ref().and_then(|status| status.master_pool.as_ref()).is_some_and(|served_by| *served_by == name)
    };
    let hosts: Vec<&Host> = hosts.iter().filter(of_pool).map(Arc::as_ref).collect();
    let planning = Planning::of(hosts.iter().copied(), &configs);
    let in_zone =
        |zone: &PoolZone| hosts.iter().filter(|host| host.labels().get(keys::ZONE_LABEL) == Some(&zone.name)).count();
    let hosts_by_zone: Vec<usize> = pool.spec.zones.iter().map(in_zone).collect();
    let measured = scales.measure(context, pool).await?;
    let (total, unlimited, scale) = if let Some(autoscaling) = &pool.spec.autoscaling {
        let current = pool.status.as_ref().and_then(|status| status.scale.as_ref()).map_or(0, |scale| scale.replicas);
        let size = scales.size(pool, autoscaling, &measured, planning.peak(measured.seconds_per_run), current);
        if size.replicas != current {
            tracing::info!(replicas = size.replicas, why = size.why, "The pool is scaled");
        }
        (size.replicas, size.wanted, Some(scale::told(&size, measured.load.as_ref())))
    } else {
        let replicas = pool.spec.resolved_replicas();
        (replicas, replicas, None)
    };
    let by_zone = by_zone(total, &hosts_by_zone);
    let replicas = total.max(by_zone.iter().sum());
    let plan = planning.told(replicas, measured.slots, measured.seconds_per_run);
    let measures = PoolMeasures {
        wanted: replicas,
        hosts: hosts.len(),
        planned_peak: planning.peak(measured.seconds_per_run),
        planned: planning.average(measured.seconds_per_run),
        compile: measured.load.as_ref().map(|load| load.compile_seconds_per_second),
        requests: measured.load.as_ref().map(|load| load.requests_per_second),
        ready: 0,
    };
    Ok(Wanted { replicas, by_zone, hosts_by_zone, hosts: hosts.len(), scale, unlimited, plan, measures })
}

fn status(pool: &MasterPool, many: &Wanted, applied: &Applied) -> MasterPoolStatus {
    let Applied { deployments, before, service, certificates } = applied;
    let wanted = many.replicas;
    let ready = ready(deployments);
    let updated = number(deployments, |status| status.updated_replicas);
    let zones = zones(pool, many, deployments);
    let (phase, summary, message) = if ready >= wanted && updated >= wanted {
        ("Ready", Summary::Ready, format!("{ready} of {wanted} masters serve"))
    } else if ready > 0 || *before > 0 {
        ("Degraded", Summary::Working, format!("{ready} of {wanted} masters serve{}", rest(&zones, *before)))
    } else if let Some(waiting) = certificates.is_waiting() {
        ("Starting", Summary::Working, waiting.to_owned())
    } else {
        ("Starting", Summary::Working, "no master serves yet; agents keep their last good catalog meanwhile".to_owned())
    };
    let message = match certificates.is_waiting() {
        Some(waiting) if ready > 0 => format!("{message}, with the certificate of before: {waiting}"),
        _ => message,
    };
    let generation = pool.metadata.generation;
    let mut conditions = pool.status.clone().unwrap_or_default().conditions;
    condition::summarise(&mut conditions, summary, phase, &message, generation, now());
    certificates.set(&mut conditions, generation, now());
    overcommitted(&mut conditions, many, generation);
    limited(&mut conditions, pool, many);
    MasterPoolStatus {
        observed_generation: generation,
        phase: Some(phase.to_owned()),
        message: Some(message),
        masters: Some(format!("{ready}/{wanted}")),
        hosts: Some(i32::try_from(many.hosts).unwrap_or(i32::MAX)),
        zones,
        scale: many.scale.clone(),
        plan: Some(many.plan.clone()),
        address: desired::address(service),
        conditions,
    }
}

fn number(deployments: &[Deployment], of: impl Fn(&DeploymentStatus) -> Option<i32>) -> i32 {
    deployments.iter().filter_map(|deployment| deployment.status.as_ref().and_then(&of)).sum()
}

/// How many masters serve.
fn ready(deployments: &[Deployment]) -> i32 {
    number(deployments, |status| status.ready_replicas)
}

/// What else is to be known of a pool that has not all of its masters.
fn rest(zones: &[PoolZoneStatus], before: i32) -> String {
    let empty: Vec<&str> =
        zones.iter().filter(|zone| zone.masters.starts_with("0/")).map(|zone| zone.name.as_str()).collect();
    let empty = match empty.as_slice() {
        [] => String::new(),
        names => format!("; none in {}: is there a node of that zone?", names.join(", ")),
    };
    let before = if before > 0 { format!("; {before} from before serve until then") } else { String::new() };
    format!("{before}{empty}")
}

/// The masters of each zone.
fn zones(pool: &MasterPool, many: &Wanted, deployments: &[Deployment]) -> Vec<PoolZoneStatus> {
    let zones = pool.spec.zones.iter().zip(deployments).zip(many.by_zone.iter().zip(&many.hosts_by_zone));
    let zone = |((zone, deployment), (wanted, hosts)): ((&PoolZone, &Deployment), (&i32, &usize))| {
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let hosts = i32::try_from(*hosts).unwrap_or(i32::MAX);
        PoolZoneStatus { name: zone.name.clone(), masters: format!("{ready}/{wanted}"), hosts }
    };
    zones.map(zone).collect()
}

/// Says whether the plan of the machines' runs fits into the masters.
fn overcommitted(conditions: &mut Vec<Condition>, many: &Wanted, generation: Option<i64>) {
    let PoolPlan { hosts, slot_seconds, fullest_slot, peak_utilization_percent: peak, fits, .. } = &many.plan;
    let told = format!(
        "{fullest_slot} of {hosts} machines run in the fullest slot of {slot_seconds} s, which takes {peak} % of what {} masters compile in it",
        many.replicas
    );
    let (status, reason, message) = if *fits {
        (Status::False, "Fits", told)
    } else {
        let help =
            "give the pool more masters (replicas, or autoscaling.max), or NodeConfigs a longer drift.intervalSeconds";
        (Status::True, "TooManyRuns", format!("{told}; {help}"))
    };
    condition::set(conditions, "Overcommitted", status, reason, message, generation, now());
}

/// Says whether more masters are wanted than there may be.
fn limited(conditions: &mut Vec<Condition>, pool: &MasterPool, many: &Wanted) {
    const LIMITED: &str = "ScalingLimited";
    let Some(autoscaling) = &pool.spec.autoscaling else { return condition::remove(conditions, LIMITED) };
    let Wanted { unlimited, .. } = many;
    let (status, reason, message) = if *unlimited > autoscaling.max {
        let message = format!("{unlimited} masters are wanted and autoscaling.max is {}: raise it", autoscaling.max);
        (Status::True, "TooFewMasters", message)
    } else {
        (Status::False, "WithinLimits", format!("no more than {} masters are wanted", autoscaling.max))
    };
    condition::set(conditions, LIMITED, status, reason, message, pool.metadata.generation, now());
}

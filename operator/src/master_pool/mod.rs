//! MasterPools: the masters' Deployment, their Service and budget, their certificates, and the ConfigMap that tells agents
//! where they are and whom to trust.

mod desired;
mod plan;
mod scale;

use std::{collections::BTreeMap, sync::Arc};

use drover_crds::{
    MasterPool, MasterPoolStatus, NodeConfig, PoolPlan, PoolScale,
    condition::{self, Status, Summary},
};
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    runtime::{
        Controller,
        controller::{self, Action},
    },
};
use tokio_util::sync::CancellationToken;

use self::{desired::Pool, plan::Planning, scale::Scales};
use crate::{
    certificates::{self, Pair},
    context::{Context, now},
    objects::{self, RESYNC},
};

const MANAGER: &str = "drover-master-pool";

/// When a certificate ends, on the Secret that holds it.
const NOT_AFTER_ANNOTATION: &str = "drover.dev/not-after";

/// Why a pool is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read Secret {0}")]
    ReadSecret(String, #[source] kube::Error),
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
    let stream = Controller::new(Api::<MasterPool>::namespaced(client.clone(), &namespace), objects::watching())
        .with_config(controller::Config::default().debounce(std::time::Duration::from_millis(200)).concurrency(2))
        .owns(Api::<Deployment>::namespaced(client.clone(), &namespace), objects::watching())
        .owns(Api::<Service>::namespaced(client.clone(), &namespace), objects::watching())
        .owns(Api::<ConfigMap>::namespaced(client, &namespace), objects::watching())
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
    deployment: Deployment,
    service: Service,
}

/// How many masters there are to be, and what they have to do.
struct Wanted {
    replicas: i32,
    scale: Option<PoolScale>,
    /// How many would be wanted if there were no `max`.
    unlimited: i32,
    plan: PoolPlan,
}

#[tracing::instrument(skip_all, fields(master_pool = %pool.name_any()))]
async fn reconcile(pool: Arc<MasterPool>, shared: Arc<Shared>) -> Result<Action, Error> {
    let context = &shared.context;
    if pool.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        shared.scales.forget(&pool);
        return Ok(Action::await_change());
    }
    let wanted = Pool::new(&pool, &context.namespace, &context.master);
    let authority = certificates(context, &wanted, now()).await?;

    let (client, namespace) = (&context.client, context.namespace.as_str());
    let name = wanted.name();
    let failed = |kind| move |error| Error::Apply(kind, name.to_owned(), error);
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = objects::apply(&services, name, MANAGER, &wanted.service()).await.map_err(failed("Service"))?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    if let Some(address) = desired::address(&service) {
        let map = wanted.config_map(&authority, &address);
        objects::apply(&maps, name, MANAGER, &map).await.map_err(failed("ConfigMap"))?;
    }
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    objects::apply(&budgets, name, MANAGER, &wanted.budget()).await.map_err(failed("PodDisruptionBudget"))?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let many = how_many(&shared, &pool).await?;
    let object = wanted.deployment(many.replicas);
    let deployment = objects::apply(&deployments, name, MANAGER, &object).await.map_err(failed("Deployment"))?;

    let status = status(&pool, &many, &Applied { deployment, service });
    if pool.status.as_ref() != Some(&status) {
        let name = pool.name_any();
        let api: Api<MasterPool> = Api::namespaced(client.clone(), namespace);
        let written = objects::apply_status(&api, &*pool, MANAGER, &status).await;
        if !written.map_err(|error| Error::WriteStatus(name, error))? {
            return Ok(Action::requeue(objects::LOOK_AGAIN));
        }
    }
    context.backoff.reset(&format!("master-pool/{}", pool.name_any()));
    Ok(Action::requeue(if pool.spec.autoscaling.is_some() { scale::EVERY } else { RESYNC }))
}

/// How many masters there are to be, and why.
async fn how_many(shared: &Shared, pool: &MasterPool) -> Result<Wanted, Error> {
    let Shared { context, scales } = shared;
    let configs: Api<NodeConfig> = Api::namespaced(context.client.clone(), &context.namespace);
    let configs = configs.list(&ListParams::default()).await.map_err(Error::ListNodeConfigs)?.items;
    let hosts = context.fleet.hosts.all();
    let planning = Planning::of(hosts.iter().map(Arc::as_ref), &configs);
    let measured = scales.measure(context, pool).await?;
    let told = |replicas| planning.told(replicas, measured.slots, measured.seconds_per_run);
    let Some(autoscaling) = &pool.spec.autoscaling else {
        let replicas = pool.spec.resolved_replicas();
        return Ok(Wanted { replicas, scale: None, unlimited: replicas, plan: told(replicas) });
    };
    let current = pool.status.as_ref().and_then(|status| status.scale.as_ref()).map_or(0, |scale| scale.replicas);
    let size = scales.size(pool, autoscaling, &measured, planning.peak(measured.seconds_per_run), current);
    if size.replicas != current {
        tracing::info!(replicas = size.replicas, why = size.why, "The pool is scaled");
    }
    let scale = Some(scale::told(&size, measured.load.as_ref()));
    Ok(Wanted { replicas: size.replicas, scale, unlimited: size.wanted, plan: told(size.replicas) })
}

/// Makes the authority where there is none, and the server certificate where there is none or it ends soon. Returns the
/// authority's certificate.
async fn certificates(context: &Context, pool: &Pool<'_>, now: Timestamp) -> Result<String, Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let (authority_name, server_name) = (pool.authority_secret(), pool.server_secret());
    let apply = async |name: &str, secret: &Secret| {
        objects::apply(&secrets, name, MANAGER, secret)
            .await
            .map_err(|error| Error::Apply("Secret", name.to_owned(), error))
    };
    let made = |error| Error::Certificate(authority_name.clone(), error);

    let found =
        secrets.get_opt(&authority_name).await.map_err(|error| Error::ReadSecret(authority_name.clone(), error))?;
    let kept = found.as_ref().and_then(pair);
    let is_new = kept.is_none();
    let authority = match kept {
        Some(authority) => authority,
        None => certificates::authority(&authority_name, now).map_err(made)?,
    };
    if is_new {
        apply(&authority_name, &pool.secret(&authority_name, data(&authority), &authority.not_after)).await?;
        tracing::info!(secret = authority_name, "New certificate authority");
    }
    let found = secrets.get_opt(&server_name).await.map_err(|error| Error::ReadSecret(server_name.clone(), error))?;
    let current =
        found.as_ref().and_then(pair).filter(|server| !is_new && !certificates::is_due(server.not_after, now));
    if current.is_none() {
        let server = certificates::server(&authority_name, &authority.key, &pool.server_names(), now).map_err(made)?;
        apply(&server_name, &pool.secret(&server_name, data(&server), &server.not_after)).await?;
        tracing::info!(secret = server_name, not_after = %server.not_after, "New server certificate");
    }
    Ok(authority.certificate)
}

fn data(pair: &Pair) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    BTreeMap::from([("tls.crt".into(), bytes(&pair.certificate)), ("tls.key".into(), bytes(&pair.key))])
}

/// The certificate that a Secret holds, if it is one of ours.
fn pair(secret: &Secret) -> Option<Pair> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let not_after = secret.annotations().get(NOT_AFTER_ANNOTATION)?.parse().ok()?;
    Some(Pair { certificate: text("tls.crt")?, key: text("tls.key")?, not_after })
}

fn status(pool: &MasterPool, many: &Wanted, applied: &Applied) -> MasterPoolStatus {
    let Applied { deployment, service } = applied;
    let wanted = many.replicas;
    let deployed = deployment.status.as_ref();
    let ready = deployed.and_then(|status| status.ready_replicas).unwrap_or(0);
    let updated = deployed.and_then(|status| status.updated_replicas).unwrap_or(0);
    let (phase, summary, message) = if ready >= wanted && updated >= wanted {
        ("Ready", Summary::Ready, format!("{ready} of {wanted} masters serve"))
    } else if ready > 0 {
        ("Degraded", Summary::Working, format!("{ready} of {wanted} masters serve"))
    } else {
        ("Starting", Summary::Working, "no master serves yet; agents keep their last good catalog meanwhile".to_owned())
    };
    let generation = pool.metadata.generation;
    let mut conditions = pool.status.clone().unwrap_or_default().conditions;
    condition::summarise(&mut conditions, summary, phase, &message, generation, now());
    overcommitted(&mut conditions, many, generation);
    limited(&mut conditions, pool, many);
    MasterPoolStatus {
        observed_generation: generation,
        phase: Some(phase.to_owned()),
        message: Some(message),
        masters: Some(format!("{ready}/{wanted}")),
        scale: many.scale.clone(),
        plan: Some(many.plan.clone()),
        address: desired::address(service),
        conditions,
    }
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

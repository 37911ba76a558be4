//! How many masters a pool is to have: asks each master what it did, and remembers the last minutes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_core::pool::{self, Counters, Load, Size, Window};
use drover_crds::{Autoscaling, MasterPool, PoolScale, keys};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{Error, desired};
use crate::context::{Context, now};

/// How often masters are asked.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// How long a master has to answer, and how many are asked at once.
const PATIENCE: Duration = Duration::from_secs(3);
const AT_ONCE: usize = 16;
/// How many catalogs a master compiles at once, until one has told.
const SLOTS: u32 = 4;
/// How long a catalog takes to compile, until some were compiled; in seconds.
const SECONDS_PER_RUN: f64 = 0.005;

/// What is remembered of all pools. All of it can be lost: then no pool shrinks for a while.
pub(super) struct Scales {
    pools: Mutex<HashMap<String, Memory>>,
    http: reqwest::Client,
}

#[derive(Clone, Default)]
struct Memory {
    asked: Option<Instant>,
    window: Window,
    scale: pool::Memory,
    slots: Option<u32>,
    seconds_per_run: Option<f64>,
}

/// What is known of a pool's masters.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) load: Option<Load>,
    /// How many catalogs a master compiles at once.
    pub(super) slots: u32,
    /// How long a catalog takes to compile, in seconds.
    pub(super) seconds_per_run: f64,
}

impl Scales {
    pub(super) fn new() -> reqwest::Result<Self> {
        // Pods are asked without TLS: no certificates are looked for, which an image from scratch has none of.
        let builder = reqwest::Client::builder().tls_certs_only([]).no_proxy().timeout(PATIENCE);
        let http = builder.redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { pools: Mutex::default(), http })
    }

    /// Asks the masters of this pool, unless that was done a moment ago.
    pub(super) async fn measure(&self, context: &Context, pool: &MasterPool) -> Result<Measured, Error> {
        let uid = pool.uid().unwrap_or_default();
        let mut memory = self.lock().get(&uid).cloned().unwrap_or_default();
        if memory.asked.is_none_or(|asked| asked.elapsed() >= EVERY) {
            memory.asked = Some(Instant::now());
            let answers = self.ask(context, pool).await?;
            let (seconds, compiled) = answers
                .values()
                .fold((0.0, 0), |sum, master| (sum.0 + master.compile_seconds, sum.1 + master.compiled));
            memory.slots = answers.values().map(|master| master.slots).max().or(memory.slots);
            if let Ok(compiled @ 1..) = u32::try_from(compiled) {
                memory.seconds_per_run = Some(seconds / f64::from(compiled));
            }
            memory.window.observe(&answers, now());
            self.lock().insert(uid, memory.clone());
        }
        Ok(Measured {
            load: memory.window.load(),
            slots: memory.slots.unwrap_or(SLOTS),
            seconds_per_run: memory.seconds_per_run.unwrap_or(SECONDS_PER_RUN),
        })
    }

    /// How many masters there are to be.
    pub(super) fn size(
        &self,
        pool: &MasterPool,
        autoscaling: &Autoscaling,
        measured: &Measured,
        planned: f64,
        current: i32,
    ) -> Size {
        let mut pools = self.lock();
        let memory = pools.entry(pool.uid().unwrap_or_default()).or_default();
        let Measured { load, slots, .. } = measured;
        pool::size(autoscaling, load.as_ref(), planned, *slots, current, &mut memory.scale, now())
    }

    /// Forgets pools that are gone.
    pub(super) fn forget(&self, pool: &MasterPool) {
        self.lock().remove(&pool.uid().unwrap_or_default());
    }

    async fn ask(&self, context: &Context, pool: &MasterPool) -> Result<BTreeMap<String, Counters>, Error> {
        let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.namespace);
        let selector = format!("{}={}", keys::MASTER_POOL_LABEL, pool.name_any());
        let listed = pods.list(&ListParams::default().labels(&selector)).await;
        let pods = listed.map_err(|error| Error::ListMasters(pool.name_any(), error))?.items;
        let running = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(|pod| {
            let ip = pod.status.as_ref()?.pod_ip.clone()?;
            Some((pod.uid().unwrap_or_default(), pod.name_any(), desired::metrics_url(&ip)))
        });
        let one = |(uid, name, url): (String, String, String)| async move {
            let answer = self.http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
            let counters = match answer {
                Ok(answer) => answer.json::<Counters>().await,
                Err(error) => Err(error),
            };
            match counters {
                Ok(counters) => Some((uid, counters)),
                Err(error) => {
                    tracing::debug!(master = name, %error, "A master did not tell its load");
                    None
                }
            }
        };
        Ok(stream::iter(running).map(one).buffer_unordered(AT_ONCE).filter_map(futures::future::ready).collect().await)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Memory>> {
        // Each change is complete before anything that could panic.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the status says of it.
pub(super) fn told(size: &Size, load: Option<&Load>) -> PoolScale {
    PoolScale {
        replicas: size.replicas,
        needed: format!("{:.1}", size.needed),
        message: size.why.clone(),
        compile_seconds_per_second: load.map(|load| format!("{:.2}", load.compile_seconds_per_second)),
        requests_per_second: load.map(|load| format!("{:.0}", load.requests_per_second)),
        queue_wait_millis: load.and_then(|load| i64::try_from(load.queue_wait.as_millis()).ok()),
        refusals_per_second: load.map(|load| format!("{:.1}", load.refusals_per_second)),
    }
}

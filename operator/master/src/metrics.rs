//! What a master measures of itself: for Prometheus at `/metrics`, in the `OpenMetrics` text format, and the same for the operator
//! at `/load`, which scales the pool by it. Both are served without TLS on a port of their own, and name no machine.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use drover_core::pool::{Counters, WAIT_BUCKETS};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use crate::server::App;

/// Seconds of compiling, from a tenth of a millisecond on.
const COMPILE_BUCKETS: [f64; 11] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];
/// How long ago a machine called, at most, for each gauge of those that did, in seconds; and its label.
const HEARD: [(u64, &str); 5] = [(60, "1m"), (300, "5m"), (1800, "30m"), (7200, "2h"), (86_400, "1d")];

/// Measures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    refusals: Family<Refusal, Counter>,
    catalogs: Family<Catalog, Counter>,
    compile: Histogram,
    wait: Histogram,
    sign_ups: Counter,
    open: Gauge,
    heard: Family<Heard, Gauge>,
    /// When each machine last called, by its Node's UID.
    calls: Mutex<HashMap<String, Instant>>,
    counters: Mutex<Counters>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Catalog {
    source: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Heard {
    within: &'static str,
}

impl Metrics {
    /// Of a master that compiles so many catalogs at once.
    pub(crate) fn new(slots: usize) -> Self {
        let mut registry = Registry::with_prefix("drover_master");
        let (requests, refusals, catalogs, heard) =
            (Family::default(), Family::default(), Family::default(), Family::<Heard, Gauge>::default());
        let (compile, wait) = (Histogram::new(COMPILE_BUCKETS), Histogram::new(WAIT_BUCKETS));
        let (sign_ups, open) = (Counter::default(), Gauge::default());
        registry.register("requests", "Requests of agents, by route and status code", requests.clone());
        registry.register("refusals", "Requests that were sent away because the master was full", refusals.clone());
        registry.register("catalogs", "Catalogs, compiled or from memory", catalogs.clone());
        registry.register_with_unit("compile", "Time to compile a catalog", Unit::Seconds, compile.clone());
        registry.register_with_unit(
            "queue_wait",
            "Time that a catalog waited for its turn",
            Unit::Seconds,
            wait.clone(),
        );
        registry.register("sign_ups", "Machines that told their first facts", sign_ups.clone());
        registry.register("open_requests", "Requests that are open, long polls included", open.clone());
        registry.register("hosts_heard", "Machines that called this master within a time", heard.clone());
        let counters = Counters {
            waits: vec![0; WAIT_BUCKETS.len() + 1],
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            ..Counters::default()
        };
        Self {
            registry,
            requests,
            refusals,
            catalogs,
            compile,
            wait,
            sign_ups,
            open,
            heard,
            calls: Mutex::default(),
            counters: Mutex::new(counters),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, route: &'static str, code: StatusCode) {
        self.requests.get_or_create(&Request { route, code: code.as_u16() }).inc();
        lock(&self.counters).requests += 1;
    }

    /// A request was sent away.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Refusal { reason }).inc();
        lock(&self.counters).refused += 1;
    }

    /// A catalog waited so long for its turn.
    pub(crate) fn waited(&self, wait: Duration) {
        let seconds = wait.as_secs_f64();
        self.wait.observe(seconds);
        let bucket = WAIT_BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(WAIT_BUCKETS.len());
        if let Some(count) = lock(&self.counters).waits.get_mut(bucket) {
            *count += 1;
        }
    }

    /// A catalog was compiled, in this time.
    pub(crate) fn compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
        self.catalogs.get_or_create(&Catalog { source: "compiled" }).inc();
        let mut counters = lock(&self.counters);
        counters.compile_seconds += took.as_secs_f64();
        counters.compiled += 1;
    }

    /// A catalog was known.
    pub(crate) fn remembered(&self) {
        self.catalogs.get_or_create(&Catalog { source: "memory" }).inc();
    }

    /// A machine told its first facts.
    pub(crate) fn signed_up(&self) {
        self.sign_ups.inc();
    }

    /// The machine of this Node called.
    pub(crate) fn called(&self, node: &str) {
        let mut calls = lock(&self.calls);
        match calls.get_mut(node) {
            Some(at) => *at = Instant::now(),
            None => drop(calls.insert(node.to_owned(), Instant::now())),
        }
    }

    /// A request is open as long as what this returns.
    pub(crate) fn opened(&self) -> Open<'_> {
        self.open.inc();
        Open(&self.open)
    }

    /// What was counted.
    fn counters(&self) -> Counters {
        lock(&self.counters).clone()
    }

    /// All of it, as Prometheus reads it.
    fn text(&self) -> Result<String, std::fmt::Error> {
        {
            let mut calls = lock(&self.calls);
            let longest = HEARD.last().map_or(0, |(seconds, _)| *seconds);
            calls.retain(|_, at| at.elapsed().as_secs() < longest);
            for (seconds, within) in HEARD {
                let count = calls.values().filter(|at| at.elapsed().as_secs() < seconds).count();
                self.heard.get_or_create(&Heard { within }).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// An open request.
pub(crate) struct Open<'a>(&'a Gauge);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The routes of the port for metrics.
pub(crate) fn router(app: App) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/load", get(load)).with_state(app)
}

async fn metrics(State(app): State<App>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match app.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn load(State(app): State<App>) -> Json<Counters> {
    Json(app.metrics.counters())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is complete before anything that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_measured_is_told_to_prometheus_and_to_the_operator() {
        let metrics = Metrics::new(2);
        metrics.answered("/v1/catalog", StatusCode::OK);
        metrics.refused("full");
        metrics.waited(Duration::from_millis(3));
        metrics.waited(Duration::from_secs(60));
        metrics.compiled(Duration::from_millis(250));
        metrics.remembered();
        metrics.signed_up();
        metrics.called("a");
        advance(Duration::from_secs(400)).await;
        metrics.called("b");
        let open = metrics.opened();
        let text = metrics.text().unwrap();
        for line in [
            r#"drover_master_requests_total{route="/v1/catalog",code="200"} 1"#,
            r#"drover_master_refusals_total{reason="full"} 1"#,
            r#"drover_master_catalogs_total{source="compiled"} 1"#,
            r#"drover_master_catalogs_total{source="memory"} 1"#,
            "drover_master_compile_seconds_sum 0.25",
            r#"drover_master_queue_wait_seconds_bucket{le="0.005"} 1"#,
            "drover_master_sign_ups_total 1",
            "drover_master_open_requests 1",
            r#"drover_master_hosts_heard{within="5m"} 1"#,
            r#"drover_master_hosts_heard{within="30m"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(open);
        assert!(metrics.text().unwrap().contains("drover_master_open_requests 0"));
        let counters = metrics.counters();
        assert_eq!((counters.requests, counters.refused, counters.compiled, counters.slots), (1, 1, 1, 2));
        assert_eq!(counters.waits, [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}

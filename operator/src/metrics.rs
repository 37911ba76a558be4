//! What the operator measures of the pools, for Prometheus at `/metrics` of its health port: what was planned beside what was. Masters
//! measure themselves.

use std::sync::atomic::AtomicU64;

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// A gauge of each pool.
type OfPools<N, A> = Family<Pool, Gauge<N, A>>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pool {
    pool: String,
}

/// Measures.
pub(crate) struct Metrics {
    registry: Registry,
    counts: [OfPools<i64, std::sync::atomic::AtomicI64>; 3],
    loads: [OfPools<f64, AtomicU64>; 4],
}

/// What is known of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolMeasures {
    pub(crate) wanted: i32,
    pub(crate) ready: i32,
    pub(crate) hosts: usize,
    /// Seconds of compiling in a second: planned in the fullest slot, planned on average, and measured; and requests in a second.
    pub(crate) planned_peak: f64,
    pub(crate) planned: f64,
    pub(crate) compile: Option<f64>,
    pub(crate) requests: Option<f64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("drover_pool");
        let counts: [OfPools<i64, _>; 3] = Default::default();
        let loads: [OfPools<f64, _>; 4] = Default::default();
        let told = [
            ("masters_wanted", "Masters that there are to be"),
            ("masters_ready", "Masters that serve"),
            ("hosts", "Machines that the pool serves"),
        ];
        for ((name, help), family) in told.into_iter().zip(&counts) {
            registry.register(name, help, family.clone());
        }
        let told = [
            (
                "planned_peak_compile_seconds_per_second",
                "Seconds of compiling in a second of the fullest slot, as planned",
            ),
            ("planned_compile_seconds_per_second", "Seconds of compiling in a second on average, as planned"),
            ("compile_seconds_per_second", "Seconds of compiling in a second, the 95th percentile of five minutes"),
            ("requests_per_second", "Requests in a second, the 95th percentile of five minutes"),
        ];
        for ((name, help), family) in told.into_iter().zip(&loads) {
            registry.register(name, help, family.clone());
        }
        Self { registry, counts, loads }
    }
}

impl Metrics {
    /// A pool is so now.
    pub(crate) fn pool(&self, name: &str, now: &PoolMeasures) {
        let pool = Pool { pool: name.to_owned() };
        let PoolMeasures { wanted, ready, hosts, planned_peak, planned, compile, requests } = now;
        let counts = [i64::from(*wanted), i64::from(*ready), i64::try_from(*hosts).unwrap_or(i64::MAX)];
        for (family, value) in self.counts.iter().zip(counts) {
            family.get_or_create(&pool).set(value);
        }
        for (family, value) in self.loads.iter().zip([Some(*planned_peak), Some(*planned), *compile, *requests]) {
            match value {
                Some(value) => {
                    family.get_or_create(&pool).set(value);
                }
                // No measure is not a measure of nothing.
                None => {
                    family.remove(&pool);
                }
            }
        }
    }

    /// A pool is gone, or another operator's to measure.
    pub(crate) fn forget(&self, name: &str) {
        let pool = Pool { pool: name.to_owned() };
        for family in &self.counts {
            family.remove(&pool);
        }
        for family in &self.loads {
            family.remove(&pool);
        }
    }

    /// The answer to Prometheus.
    pub(crate) fn told(&self) -> Response {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => {
                ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_known_of_a_pool_is_told_until_it_is_gone() {
        let metrics = Metrics::default();
        let told = async || {
            let body = axum::body::to_bytes(metrics.told().into_body(), 1 << 16).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        let known = PoolMeasures {
            wanted: 3,
            ready: 2,
            hosts: 10,
            planned_peak: 0.5,
            requests: Some(7.0),
            ..PoolMeasures::default()
        };
        metrics.pool("eu", &known);
        let text = told().await;
        for line in [
            "drover_pool_masters_wanted{pool=\"eu\"} 3",
            "drover_pool_masters_ready{pool=\"eu\"} 2",
            "drover_pool_planned_peak_compile_seconds_per_second{pool=\"eu\"} 0.5",
            "drover_pool_requests_per_second{pool=\"eu\"} 7.0",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("drover_pool_compile_seconds_per_second{"), "{text}");
        metrics.forget("eu");
        assert!(!told().await.contains("pool=\"eu\""));
    }
}

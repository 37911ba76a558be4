//! Tells load balancers outside the cluster what was decided, and remembers for a while what they answered, so that one
//! that fails is told again at longer and longer intervals.

mod haproxy;
mod http;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drover_core::rollout::{LoadBalancerAnswer, LoadBalancerCall};
use drover_crds::LoadBalancerStep;

use crate::context::Context;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How soon one that is busy, or failed for the first time, is told again.
const SOON: Duration = Duration::from_secs(2);
/// The longest time between two calls of one that fails.
const SELDOM: Duration = Duration::from_secs(60);
/// How long it is remembered that something was done; by then it is recorded.
const DONE: Duration = Duration::from_secs(300);

/// What load balancers answered.
#[derive(Default)]
pub(super) struct LoadBalancers {
    told: Mutex<HashMap<LoadBalancerCall, Told>>,
}

struct Told {
    at: Instant,
    failures: u32,
    answer: LoadBalancerAnswer,
}

impl Told {
    /// For how long the answer holds.
    fn holds(&self) -> Duration {
        match self.answer {
            LoadBalancerAnswer::Done | LoadBalancerAnswer::Out => DONE,
            LoadBalancerAnswer::Busy(_) => SOON,
            LoadBalancerAnswer::Failed(_) => {
                SOON.saturating_mul(2_u32.saturating_pow(self.failures.saturating_sub(1))).min(SELDOM)
            }
        }
    }
}

impl LoadBalancers {
    /// The answers that hold still.
    pub(super) fn answers(&self) -> BTreeMap<LoadBalancerCall, LoadBalancerAnswer> {
        let mut told = self.lock();
        // Longer than any interval: how often it failed is remembered until it is told again.
        told.retain(|_, told| told.at.elapsed() < DONE.max(SELDOM) * 2);
        let held = told.iter().filter(|(_, told)| told.at.elapsed() < told.holds());
        held.map(|(call, told)| (call.clone(), told.answer.clone())).collect()
    }

    /// Asks, and remembers the answer.
    pub(super) async fn tell(&self, context: &Context, call: LoadBalancerCall, step: &LoadBalancerStep) {
        let asked = async {
            match (&step.haproxy, &step.http) {
                (Some(haproxy), _) => haproxy::tell(haproxy, call.action).await,
                (None, Some(http)) => http::tell(context, http, call.action).await,
                (None, None) => Err("it is of no kind that this release knows; see its step in the Rollout".to_owned()),
            }
        };
        let answer = match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => LoadBalancerAnswer::Failed(why),
            Err(_) => LoadBalancerAnswer::Failed(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        let LoadBalancerCall { token, step, action } = &call;
        tracing::info!(load_balancer = step, hold = token, ?action, ?answer, "Load balancer told");
        let mut told = self.lock();
        let before = told.get(&call).map_or(0, |told| told.failures);
        let failures = if matches!(answer, LoadBalancerAnswer::Failed(_)) { before.saturating_add(1) } else { 0 };
        told.insert(call, Told { at: Instant::now(), failures, answer });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LoadBalancerCall, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_is_told_again_at_longer_and_longer_intervals() {
        let told = |failures| Told { at: Instant::now(), failures, answer: LoadBalancerAnswer::Failed(String::new()) };
        let seconds = [1, 2, 3, 6, 7, 4_000_000_000].map(|failures| told(failures).holds().as_secs());
        assert_eq!(seconds, [2, 4, 8, 60, 60, 60]);
    }
}

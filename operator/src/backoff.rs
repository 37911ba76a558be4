//! How long to wait before a reconciliation that failed is tried again: longer each time, with jitter, per object.
//!
//! kube's controller neither counts attempts nor tells of successes, so both are noted here.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The attempts of each object that failed last time, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: Mutex<HashMap<String, u32>>,
}

/// The first wait, and the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

impl Backoff {
    /// Notes a success.
    pub(crate) fn reset(&self, key: &str) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Notes a failure; says how long to wait.
    pub(crate) fn failed(&self, key: &str) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(key.to_owned()).or_default();
        *count = count.saturating_add(1);
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(*count - 1)).min(LONGEST);
        // Between 3/4 and 5/4 of it.
        let share = RandomState::new().build_hasher().finish() % 512;
        wait * 3 / 4 + wait.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_a_bound_and_starts_anew_after_a_success() {
        let backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] < Duration::from_secs(1) && waits[3] > Duration::from_secs(2), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST * 5 / 4), "{waits:?}");
        assert!(backoff.failed("b") < Duration::from_secs(1));
        backoff.reset("a");
        assert!(backoff.failed("a") < Duration::from_secs(1));
    }
}

//! When those come back that a master sends away: one after the other, so many in a second.
//!
//! A random delay would do for a few. Of ten thousand that are refused at once, those who are told the same range come back as
//! a wave again; and a range that is wide enough for them keeps three waiting for minutes. So each is given a turn of its own.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many come back in a second.
const PER_SECOND: u32 = 200;
/// The latest turn: who is refused then is given a turn anew.
const LATEST: Duration = Duration::from_secs(300);

/// Gives turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// When the next free turn is.
    next: Mutex<Option<Instant>>,
}

impl Turns {
    /// How many seconds until the next free turn, which is taken: whole, as `Retry-After` has it, and `soonest` at least.
    pub(crate) fn take(&self, soonest: Duration) -> u64 {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = next.unwrap_or(now).max(now + soonest);
        if turn > now + LATEST {
            turn = now + soonest;
        }
        *next = Some(turn + Duration::from_secs(1) / PER_SECOND);
        let wait = turn - now;
        wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_that_are_refused_at_once_come_back_one_after_the_other() {
        let turns = Turns::default();
        let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
        for _ in 0..1_000 {
            *seconds.entry(turns.take(Duration::from_secs(2))).or_default() += 1;
        }
        assert!(seconds.values().all(|count| *count <= PER_SECOND), "{seconds:?}");
        assert_eq!((seconds.keys().min(), seconds.keys().max()), (Some(&2), Some(&7)));
        // Later nobody waits for those.
        advance(Duration::from_secs(60)).await;
        assert_eq!(turns.take(Duration::from_secs(1)), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_five_minutes() {
        let turns = Turns::default();
        assert!((0..200_000).all(|_| turns.take(Duration::from_secs(1)) <= LATEST.as_secs()));
    }
}

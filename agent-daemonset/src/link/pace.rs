//! How fast to ask: at once while all is well, ever slower while it is not, and never all machines at the same moment.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::sleep;

/// How long a master may wait for something new before it answers.
pub(super) const LONG_POLL: Duration = Duration::from_secs(55);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Its jitter may double it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// An answer that came sooner was not waited for: a master that does not know the wait must not be asked in a tight loop.
const HASTY: Duration = Duration::from_secs(1);

/// The pauses after failures.
pub(super) struct Pace {
    pauses: ExponentialBackoff,
    /// The catalog before came at once.
    came_at_once: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { pauses: pauses(), came_at_once: false }
    }

    /// After a success, the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.pauses = pauses();
    }

    /// Waits after a failure; longer with each in a row, and at least as long as the master asked for.
    pub(super) async fn wait(&mut self, retry_after: Option<Duration>) {
        sleep(self.pause(retry_after)).await;
    }

    /// Goes on after an answer that is no failure: at once if it was waited for.
    pub(super) async fn keep(&mut self, asked: Instant) {
        if asked.elapsed() < HASTY {
            self.wait(None).await;
        } else {
            self.reset();
        }
    }

    /// Goes on after another catalog came. That is good news however soon it comes: one after the other is what a machine gets
    /// that several Rollouts move. Only a master that never stops is slowed down.
    pub(super) async fn came(&mut self, asked: Instant) {
        sleep(self.pause_after_news(asked.elapsed() < HASTY)).await;
    }

    fn pause_after_news(&mut self, at_once: bool) -> Duration {
        let again = at_once && self.came_at_once;
        self.came_at_once = at_once;
        self.reset();
        if again { FIRST_PAUSE } else { Duration::ZERO }
    }

    fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        match retry_after {
            // The master spreads its callers; the first pause, which is random, parts those of the same second.
            Some(asked_for) => asked_for + pauses().next().unwrap_or(FIRST_PAUSE).saturating_sub(FIRST_PAUSE),
            None => self.pauses.next().unwrap_or(LONGEST_PAUSE),
        }
    }
}

/// From one second to thirty; jitter lengthens each by up to its own length.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogs_that_come_one_after_the_other_are_no_trouble() {
        let mut pace = Pace::new();
        let pauses: Vec<Duration> = (0..20).map(|_| pace.pause_after_news(true)).collect();
        assert!(pauses[0].is_zero() && pauses[1..].iter().all(|pause| *pause == FIRST_PAUSE), "{pauses:?}");
        assert!(pace.pause(None) <= 2 * FIRST_PAUSE, "and the next failure is the first");
        assert!(pace.pause_after_news(false).is_zero());
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_no_further() {
        let mut pace = Pace::new();
        let pauses: Vec<Duration> = (0..50).map(|_| pace.pause(None)).collect();
        assert!(pauses[0] <= 2 * FIRST_PAUSE, "{pauses:?}");
        assert!(pauses[5] > 10 * FIRST_PAUSE, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)), "{pauses:?}");
        assert!(pauses[49] >= LONGEST_PAUSE, "{pauses:?}");
        pace.reset();
        assert!(pace.pause(None) <= 2 * FIRST_PAUSE);
    }

    #[test]
    fn a_master_is_left_alone_for_as_long_as_it_asks_and_a_little_longer() {
        let asked_for = Duration::from_secs(120);
        let pauses: Vec<Duration> = (0..50).map(|_| Pace::new().pause(Some(asked_for))).collect();
        assert!(pauses.iter().all(|pause| (asked_for..=asked_for + FIRST_PAUSE).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "no jitter: {pauses:?}");
    }
}

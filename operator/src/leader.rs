//! One operator at a time acts: the holder of the Lease `drover-operator`.
//!
//! A holder that loses the Lease ends its process: it starts again as a follower, and has nothing in memory that could
//! be acted upon. A write that was on its way then is harmless, because every write of a decision names the version of the
//! object that it was decided on.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// The Lease's name.
const LEASE: &str = "drover-operator";
/// How long a lost holder keeps others waiting, in seconds.
const DURATION_SECONDS: u64 = 15;
/// How long before its end the holder renews it, in seconds.
const GRACE_SECONDS: u64 = 5;
/// How long an operator that ends waits for the Lease's release.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// Whether this process may write.
#[derive(Clone, Debug)]
pub(crate) struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Whether this process holds the Lease now.
    pub(crate) fn is_held(&self) -> bool {
        *self.0.borrow()
    }

    /// For tests: held or not, for ever.
    #[cfg(test)]
    pub(crate) fn fixed(held: bool) -> Self {
        Self(watch::channel(held).1)
    }

    /// Waits until this process holds the Lease; false when there will be none any more.
    pub(crate) async fn acquired(&mut self) -> bool {
        self.0.wait_for(|held| *held).await.is_ok()
    }

    /// Waits until this process has lost the Lease.
    pub(crate) async fn lost(&mut self) {
        let _ = self.0.wait_for(|held| !*held).await;
    }
}

/// Takes part in the election, until the token is cancelled; then the Lease is released for the next one.
pub(crate) async fn elect(
    client: Client,
    namespace: &str,
    identity: &str,
    shutdown: CancellationToken,
) -> Result<(Leadership, JoinHandle<()>), kube_lease_manager::LeaseManagerError> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(DURATION_SECONDS)
        .with_grace(GRACE_SECONDS)
        .build()
        .await?;
    let (mut states, election) = manager.watch().await;
    let (publish, leadership) = watch::channel(false);
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = states.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let held = *states.borrow_and_update();
                    tracing::info!(held, "Leadership changed");
                    publish.send_replace(held);
                }
            }
        }
        publish.send_replace(false);
        // The election releases the Lease when nobody listens any more.
        drop(states);
        let why = match timeout(RELEASE_WITHIN, election).await {
            Ok(Ok(Err(error))) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
            Ok(_) => return,
        };
        tracing::warn!(why, "The Lease was not released; the next operator waits until it expires");
    });
    Ok((Leadership(leadership), task))
}

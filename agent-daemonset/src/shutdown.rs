//! SIGTERM and SIGINT: the first asks for an orderly end, the second for an end at once.

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

/// The signals that end the agent.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over the signals.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Raises `stop` at the first signal, and ends at the second.
    pub(crate) async fn watch(mut self, stop: watch::Sender<bool>) {
        self.next().await;
        info!("asked to end: the resource at hand is finished first; ask again to end at once");
        stop.send_replace(true);
        self.next().await;
        warn!("ends at once; the next start goes on with the run");
    }

    async fn next(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

//! What every controller has at hand: clients, the namespace, the leadership, the clock.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

use crate::{backoff::Backoff, fleet::Fleet, leader::Leadership, metrics::Metrics};

/// Shared by all controllers.
#[derive(Clone)]
pub(crate) struct Context {
    /// For reads, and writes that may be repeated.
    pub(crate) client: Client,
    /// Repeats nothing by itself: an eviction that a budget refuses is an answer, and a conflict is decided anew.
    pub(crate) once: Client,
    /// The namespace whose objects are ours: one fleet.
    pub(crate) namespace: String,
    /// Whether this operator may write.
    pub(crate) leadership: Leadership,
    /// Publishes events.
    pub(crate) recorder: Recorder,
    /// Attempts of failed reconciliations.
    pub(crate) backoff: Arc<Backoff>,
    /// The Node that this operator runs on, if it is known.
    pub(crate) own_node: Option<String>,
    /// How masters run.
    pub(crate) master: MasterTemplate,
    /// Hosts and Nodes.
    pub(crate) fleet: Arc<Fleet>,
    /// What Prometheus is told.
    pub(crate) metrics: Arc<Metrics>,
}

/// What all masters have in common: their image, whether nodes pull it, and how they log, which is as the operator does.
#[derive(Clone, Debug)]
pub(crate) struct MasterTemplate {
    pub(crate) image: String,
    pub(crate) pull_policy: String,
    pub(crate) log: String,
    pub(crate) log_format: String,
}

impl Context {
    pub(crate) fn new(
        (client, once): (Client, Client),
        namespace: String,
        pod: String,
        leadership: Leadership,
        master: MasterTemplate,
    ) -> Self {
        let reporter = Reporter { controller: "drover-operator".into(), instance: Some(pod) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            once,
            namespace,
            leadership,
            recorder,
            backoff: Arc::default(),
            own_node: None,
            master,
            fleet: Arc::default(),
            metrics: Arc::default(),
        }
    }
}

/// The time. Decisions take it as an argument; controllers read it here.
#[allow(clippy::disallowed_methods, reason = "the one place where the operator reads the clock")]
pub(crate) fn now() -> Timestamp {
    // Whole seconds, as the API server keeps them: a time that is read back equals the one that was written.
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

//! Asks gates. What they answer is evidence for the decision; nothing is decided here.
//!
//! - `node`, `pods`, `tcp`: what a machine is like
//! - `http`: requests to a machine or anywhere
//! - `object`: an expression over an object of the cluster
//! - `prometheus`: the value of a query
//!
//! A gate that is a Job is answered by the Job, see `jobs`; one that is a command by the machine's agent, in its Host.

mod http;
mod node;
mod object;
mod pods;
mod prometheus;
mod tcp;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_core::rollout::{GateAnswer, GateEvidence};
use drover_crds::Gate;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::Client;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long evidence is kept of a place that nobody asks about: longer than any period.
const KEPT: Duration = Duration::from_secs(7200);

/// Where gates are asked.
pub(super) struct Target {
    /// Tells this place from every other, such as the token of a hold: evidence is never carried over from one to another.
    pub(super) place: String,
    /// The Host's name, if it is a machine.
    pub(super) host: Option<String>,
    /// Its Node, if there is one.
    pub(super) node: Option<Node>,
    /// Since when the gates are asked.
    pub(super) since: Timestamp,
}

/// An answer, and what was measured for it.
pub(super) struct Told {
    answer: GateAnswer,
    measured: Option<String>,
}

impl Told {
    fn passed() -> Self {
        Self { answer: GateAnswer::Passed, measured: None }
    }

    fn failed(why: impl Into<String>) -> Self {
        Self { answer: GateAnswer::Failed(why.into()), measured: None }
    }

    fn inconclusive(why: impl Into<String>) -> Self {
        Self { answer: GateAnswer::Inconclusive(why.into()), measured: None }
    }
}

/// Asks gates, each no more often than its period says, and counts what they answer.
pub(super) struct Gates {
    asker: Asker,
    shown: Mutex<HashMap<(String, String), (Instant, GateEvidence)>>,
}

/// What is needed to ask.
struct Asker {
    client: Client,
    namespace: String,
    /// For machines: a machine's own certificate is for its users; the gate asks whether it serves, as a kubelet's probe does.
    machines: reqwest::Client,
    /// For everything else. Not there where no certificate could be verified.
    verifying: Result<reqwest::Client, String>,
    kinds: object::Kinds,
}

impl Gates {
    pub(super) fn new(client: Client, namespace: String) -> reqwest::Result<Self> {
        let http = || {
            let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
            builder.pool_max_idle_per_host(0)
        };
        let machines = http().tls_danger_accept_invalid_certs(true).build()?;
        let verifying = http().build().map_err(|error| crate::objects::chain(&error));
        let asker = Asker { client, namespace, machines, verifying, kinds: object::Kinds::default() };
        Ok(Self { asker, shown: Mutex::default() })
    }

    /// What each gate answered so far at this place, in their order.
    pub(super) async fn ask(&self, gates: &[Gate], target: &Target, now: Timestamp) -> Vec<GateEvidence> {
        join_all(gates.iter().map(|gate| self.ask_one(gate, target, now))).await
    }

    /// Drops what is too old to matter.
    pub(super) fn forget(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|_, (asked, _)| asked.elapsed() < KEPT);
    }

    async fn ask_one(&self, gate: &Gate, target: &Target, now: Timestamp) -> GateEvidence {
        // A gate that was changed is another gate.
        let written = serde_json::to_string(gate).unwrap_or_default();
        let key = (target.place.clone(), written);
        let known = self.shown.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let delay = SignedDuration::from_secs(i64::from(gate.resolved_initial_delay_seconds()));
        if gate.job.is_some() || gate.command.is_some() || now.duration_since(target.since) < delay {
            return GateEvidence::default();
        }
        let period = Duration::from_secs(u64::try_from(gate.resolved_period_seconds()).unwrap_or(2));
        let mut evidence = match known {
            Some((asked, evidence)) if asked.elapsed() < period => return evidence,
            Some((_, evidence)) => evidence,
            None => GateEvidence::default(),
        };
        let asked = Instant::now();
        let Told { answer, measured } = self.asker.ask(gate, target).await;
        evidence.count(answer, measured);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(key, (asked, evidence.clone()));
        evidence
    }
}

impl Asker {
    async fn ask(&self, gate: &Gate, target: &Target) -> Told {
        let host = target.host.as_deref();
        if let Some(http) = &gate.http {
            return self.http(http, target).await;
        }
        if let Some(object) = &gate.object {
            return self.object(object, host).await;
        }
        if let Some(prometheus) = &gate.prometheus {
            return self.prometheus(prometheus, host).await;
        }
        let Some(node) = &target.node else {
            return Told::inconclusive("there is no Node to ask");
        };
        if gate.node_ready.is_some() {
            return node::ready(node);
        }
        if !gate.node_conditions.is_empty() {
            return node::conditions(node, &gate.node_conditions);
        }
        if let Some(pods) = &gate.pods_ready {
            return self.pods(pods, node).await;
        }
        match &gate.tcp {
            Some(tcp) => tcp::connect(node, tcp).await,
            None => Told::inconclusive("this release does not know gates of this kind"),
        }
    }

    /// The client that verifies certificates.
    fn verifying(&self) -> Result<&reqwest::Client, Told> {
        self.verifying.as_ref().map_err(|why| {
            Told::inconclusive(format!(
                "certificates can not be verified: {why}; give the operator CAs in SSL_CERT_FILE"
            ))
        })
    }
}

/// The machine's own address.
fn internal_address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP").map(|address| address.address.clone())
}

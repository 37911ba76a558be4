//! Asks gates. What they show is evidence for the decision; nothing is decided here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_core::rollout::GateEvidence;
use drover_crds::{Gate, HttpGate, HttpScheme};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use crate::{host::is_ready, objects};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A machine that is being verified.
pub(super) struct Target {
    /// The Host's name.
    pub(super) host: String,
    /// The token of the hold: evidence is never carried over from one hold to another.
    pub(super) token: String,
    /// Its Node, if there is one.
    pub(super) node: Option<Node>,
}

/// Asks gates, each no more often than its period says.
pub(super) struct Gates {
    client: reqwest::Client,
    shown: Mutex<HashMap<(String, usize), (Instant, GateEvidence)>>,
}

impl Gates {
    pub(super) fn new() -> reqwest::Result<Self> {
        // A machine's own certificate is for its users; the gate asks whether it serves, as a kubelet's probe does.
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .tls_danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, shown: Mutex::default() })
    }

    /// What each gate shows for each machine, by the Host's name.
    pub(super) async fn ask(&self, gates: &[Gate], targets: Vec<Target>) -> BTreeMap<String, Vec<GateEvidence>> {
        self.forget_others(&targets);
        let asked = targets.into_iter().map(|target| async move {
            let evidence = gates.iter().enumerate().map(|(index, gate)| self.ask_one(gate, index, &target));
            let evidence = join_all(evidence).await;
            (target.host, evidence)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn ask_one(&self, gate: &Gate, index: usize, target: &Target) -> GateEvidence {
        let key = (target.token.clone(), index);
        let period = Duration::from_secs(u64::try_from(gate.resolved_period_seconds()).unwrap_or(2));
        {
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, evidence)) = shown.get(&key).filter(|(asked, _)| asked.elapsed() < period) {
                return evidence.clone();
            }
        }
        let evidence = match (&target.node, &gate.http) {
            (Some(node), Some(http)) => self.request(node, http).await,
            (Some(node), None) if gate.node_ready.is_some() => {
                if is_ready(node) {
                    GateEvidence::Passed
                } else {
                    GateEvidence::Failed("the node is NotReady".to_owned())
                }
            }
            // No machine to ask, or a gate of a kind that this release does not know.
            (None, _) | (Some(_), None) => GateEvidence::Inconclusive,
        };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(key, (Instant::now(), evidence.clone()));
        evidence
    }

    async fn request(&self, node: &Node, http: &HttpGate) -> GateEvidence {
        let Some(address) = internal_address(node) else {
            return GateEvidence::Failed(format!("node {} has no InternalIP", node.name_any()));
        };
        let scheme = match http.resolved_scheme() {
            HttpScheme::Http => "http",
            HttpScheme::Https => "https",
        };
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let url = format!("{scheme}://{host}:{}{}", http.port, http.resolved_path());
        match self.client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => GateEvidence::Passed,
            Ok(answer) => GateEvidence::Failed(format!("{url} answered {}", answer.status())),
            Err(error) if error.is_timeout() => {
                GateEvidence::Failed(format!("{url} did not answer within {} s", TIMEOUT.as_secs()))
            }
            Err(error) => GateEvidence::Failed(objects::chain(&error.without_url())),
        }
    }

    /// Evidence about machines that are not being verified any more is not kept. Rollouts share this store, so only what
    /// is older than any period is dropped.
    fn forget_others(&self, targets: &[Target]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|(token, _), (asked, _)| {
            targets.iter().any(|target| target.token == *token) || asked.elapsed() < Duration::from_secs(3600)
        });
    }
}

pub(super) fn internal_address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP").map(|address| address.address.clone())
}

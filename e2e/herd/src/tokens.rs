//! The tokens that the kubelet would project into the agents' pods: bound to the pod, so that each names its node.

use anyhow::Context as _;
use drover_catalog::TOKEN_AUDIENCE;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use tokio::sync::Semaphore;

/// How long a token counts, in seconds; one that is refused is replaced before.
const SECONDS: i64 = 24 * 3600;
/// How many are asked for at once.
const AT_ONCE: usize = 16;

/// Asks for tokens.
pub(crate) struct Tokens {
    accounts: Api<ServiceAccount>,
    account: String,
    turns: Semaphore,
}

/// A pod of the agents' `DaemonSet`.
#[derive(Clone, Debug)]
pub(crate) struct AgentPod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
}

impl Tokens {
    pub(crate) fn new(client: Client, namespace: &str, account: &str) -> Self {
        let accounts = Api::namespaced(client, namespace);
        Self { accounts, account: account.to_owned(), turns: Semaphore::new(AT_ONCE) }
    }

    /// A fresh token for this pod.
    pub(crate) async fn token(&self, pod: &AgentPod) -> anyhow::Result<String> {
        let _turn = self.turns.acquire().await?;
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
        };
        let spec = TokenRequestSpec {
            audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(SECONDS),
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = self
            .accounts
            .create_token_request(&self.account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for pod {}", pod.name))?;
        answer.status.and_then(|status| status.token).with_context(|| format!("an empty answer for pod {}", pod.name))
    }
}

/// The agents' pods that are on a node.
pub(crate) async fn pods(client: Client, namespace: &str, selector: &str) -> kube::Result<Vec<AgentPod>> {
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let mut params = ListParams::default().labels(selector).limit(500);
    let mut pods = vec![];
    loop {
        let page = api.list(&params).await?;
        pods.extend(page.items.iter().filter_map(|pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            Some(AgentPod { name: pod.name_any(), uid: pod.uid()?, node })
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pods),
        }
    }
}

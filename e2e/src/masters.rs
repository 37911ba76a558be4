//! Calls a master as an agent does, or as somebody who should not.

use std::{collections::BTreeMap, net::SocketAddr};

use drover_catalog::routes;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{ResourceExt as _, api::PostParams};
use reqwest::{Certificate, Client, StatusCode};

use crate::{
    Fleet,
    fleet::{Part, is_serving},
};

/// The port of a master's pod.
const PORT: u16 = 8443;

/// One master, called at its pod's address.
pub struct Master {
    client: Client,
    origin: String,
}

impl Master {
    /// Any master that serves, trusted as agents trust it.
    pub async fn any(fleet: &Fleet) -> Self {
        let authorities = directory(fleet).await["ca.crt"].clone();
        Self::all(fleet, &authorities).await.into_iter().next().expect("a master serves")
    }

    /// All masters that serve, trusted if one of these authorities signed for them.
    pub async fn all(fleet: &Fleet, authorities: &str) -> Vec<Self> {
        let name = directory(fleet).await["server-name"].trim().to_owned();
        let pods = fleet.pods_of(Part::Master).await;
        let master = |pod: &Pod| {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).expect("it has an address");
            let client = Client::builder()
                .tls_certs_only(Certificate::from_pem_bundle(authorities.as_bytes()).unwrap())
                .resolve(&name, SocketAddr::new(ip.parse().unwrap(), PORT))
                .no_proxy()
                .build()
                .unwrap();
            Self { client, origin: format!("https://{name}:{PORT}") }
        };
        pods.iter().filter(|pod| is_serving(pod)).map(master).collect()
    }

    /// Whether its certificate is one that the caller trusts. Anything else that is wrong is a failure.
    pub async fn is_trusted(&self) -> bool {
        let answer = self.client.get(format!("{}{}", self.origin, routes::READY)).send().await;
        match answer {
            Ok(_) => true,
            Err(error) => {
                let said = format!("{error:?}");
                assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
                false
            }
        }
    }

    /// Asks for the caller's catalog: the status, and the body as text.
    pub async fn catalog(&self, token: Option<&str>) -> (StatusCode, String) {
        self.try_catalog(token).await.unwrap()
    }

    /// The same; or why there was no answer.
    pub async fn try_catalog(&self, token: Option<&str>) -> reqwest::Result<(StatusCode, String)> {
        let request = self.client.get(format!("{}{}", self.origin, routes::CATALOG));
        Self::send(request, token).await
    }

    /// Sends a report: the status, and the body as text.
    pub async fn report(&self, token: Option<&str>, report: &serde_json::Value) -> (StatusCode, String) {
        let request = self.client.post(format!("{}{}", self.origin, routes::REPORT));
        Self::send(request.header("content-type", "application/json").body(report.to_string()), token).await.unwrap()
    }

    async fn send(request: reqwest::RequestBuilder, token: Option<&str>) -> reqwest::Result<(StatusCode, String)> {
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await?;
        Ok((response.status(), response.text().await?))
    }
}

/// What agents are told of the masters.
async fn directory(fleet: &Fleet) -> BTreeMap<String, String> {
    fleet.api::<ConfigMap>().get("drover-masters").await.unwrap().data.unwrap()
}

/// A token of a service account for an audience, bound to a pod if there is one: then it names the pod's node.
pub async fn token(fleet: &Fleet, account: &str, audience: &str, pod: Option<&Pod>) -> String {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
    });
    let spec = TokenRequestSpec {
        audiences: Some(vec![audience.to_owned()]),
        bound_object_ref: bound,
        expiration_seconds: Some(600),
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts = fleet.api::<ServiceAccount>();
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    made.status.and_then(|status| status.token).expect("a token was made")
}

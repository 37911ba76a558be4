//! Calls a master as an agent does, or as somebody who should not.

use std::net::SocketAddr;

use drover_catalog::routes;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{ResourceExt as _, api::PostParams};
use reqwest::{Certificate, Client, ClientBuilder, StatusCode};

use crate::{
    Fleet,
    fleet::{Part, is_serving},
};

/// The port of a master's pod.
const PORT: u16 = 8443;

/// Where agents find the masters, and whom they trust.
pub(crate) struct Directory {
    /// The name in the masters' certificate.
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
    authorities: Vec<Certificate>,
}

impl Directory {
    /// The one that is mounted into the agents' pods.
    pub(crate) async fn of(fleet: &Fleet) -> Self {
        let data = fleet.api::<ConfigMap>().get("drover-masters").await.unwrap().data.unwrap();
        Self {
            name: data["server-name"].trim().to_owned(),
            addresses: data["addresses"].lines().map(|line| line.parse().unwrap()).collect(),
            authorities: certificates(&data["ca.crt"]),
        }
    }

    /// A client of whoever is at this address, trusted as agents trust a master.
    pub(crate) fn client(&self, address: SocketAddr) -> ClientBuilder {
        Client::builder().tls_certs_only(self.authorities.clone()).resolve(&self.name, address).no_proxy()
    }
}

fn certificates(bundle: &str) -> Vec<Certificate> {
    Certificate::from_pem_bundle(bundle.as_bytes()).unwrap()
}

/// One master, called at its pod's address.
pub struct Master {
    client: Client,
    origin: String,
}

impl Master {
    /// Any master that serves, trusted as agents trust it.
    pub async fn any(fleet: &Fleet) -> Self {
        let directory = Directory::of(fleet).await;
        Self::serving(fleet, &directory).await.into_iter().next().expect("a master serves")
    }

    /// All masters that serve, trusted if one of these authorities signed for them.
    pub async fn all(fleet: &Fleet, authorities: &str) -> Vec<Self> {
        let directory = Directory { authorities: certificates(authorities), ..Directory::of(fleet).await };
        Self::serving(fleet, &directory).await
    }

    async fn serving(fleet: &Fleet, directory: &Directory) -> Vec<Self> {
        let pods = fleet.pods_of(Part::Master).await;
        let master = |pod: &Pod| {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).expect("it has an address");
            let client = directory.client(SocketAddr::new(ip.parse().unwrap(), PORT)).build().unwrap();
            Self { client, origin: format!("https://{}:{PORT}", directory.name) }
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

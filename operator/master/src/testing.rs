//! What the tests share: objects, and an API server that answers what a test says.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use drover_catalog::{
    Catalog, CertificateChain, Sensitive, Signature, TOKEN_AUDIENCE,
    routes::{CERTIFICATES_HEADER, SIGNATURE_HEADER},
};
use drover_core::revision::{Content, Layer, Source};
use drover_crds::{Assignment, DataFormat, Host, HostSpec, HostStatus, NodeRef, keys::NODE_CONFIG_LABEL};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::ControllerRevision, core::v1::Secret},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{Client, client::Body};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::{
    RootCertStore, SignatureScheme,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, UnixTime},
};
use serde_json::{Value, json};
use tower_test::mock::Handle;

use crate::fleet::NodeIdentity;

/// The agents' account.
pub(crate) const AGENT: &str = "system:serviceaccount:drover-system:drover-agent";
/// The NodeConfig of all tests.
pub(crate) const NODE_CONFIG: &str = "base";
/// A value that comes from a Secret.
pub(crate) const SECRET: &str = "hunter2";

/// A node by a short name.
pub(crate) fn node(name: &str) -> NodeIdentity {
    NodeIdentity { name: name.into(), uid: format!("node-{name}") }
}

/// The Host of [`node`], without status.
pub(crate) fn host(name: &str) -> Host {
    Host {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("drover-system".into()),
            uid: Some(format!("host-{name}")),
            ..ObjectMeta::default()
        },
        spec: HostSpec { node_ref: NodeRef { name: name.into(), uid: format!("node-{name}") } },
        status: None,
    }
}

/// The Host with facts.
pub(crate) fn with_facts(mut host: Host) -> Host {
    host.status.get_or_insert_default().facts = json!({"os": {"id": "debian"}}).as_object().cloned();
    host
}

/// The Host with one revision assigned.
pub(crate) fn assigned(mut host: Host, content: &Content, generation: i64) -> Host {
    let revision = content.name(NODE_CONFIG, None).unwrap();
    *host.status.get_or_insert_with(HostStatus::default) = HostStatus {
        assigned: vec![Assignment { node_config: NODE_CONFIG.into(), revision }],
        assigned_generation: generation,
        ..host.status.clone().unwrap_or_default()
    };
    host
}

/// A revision whose one file holds this text, a fact and a secret.
pub(crate) fn content(text: &str) -> Content {
    from_template(&format!("{text} {{{{ facts.os.id }}}} {{{{ data.password }}}}"))
}

/// A revision with this template.
pub(crate) fn from_template(template: &str) -> Content {
    let resources = json!([{"name": "motd", "file": {"path": "/etc/motd", "template": template}}]);
    let values = BTreeMap::from([("password".to_owned(), Sensitive::new(SECRET))]);
    Content {
        resources: serde_json::from_value(resources).unwrap(),
        interval_seconds: 60,
        layers: vec![Layer::new(Source::secret("door"), None, DataFormat::Text, values)],
        ..Content::default()
    }
}

/// The objects that a revision is kept in.
pub(crate) fn stored(content: &Content) -> (ControllerRevision, Secret) {
    let metadata = ObjectMeta {
        name: Some(content.name(NODE_CONFIG, None).unwrap()),
        labels: Some(BTreeMap::from([(NODE_CONFIG_LABEL.to_owned(), NODE_CONFIG.to_owned())])),
        ..ObjectMeta::default()
    };
    let (kept, secrets) = content.store();
    let data = secrets.into_iter().map(|(key, value)| (key, ByteString(value.expose().to_vec()))).collect();
    (
        ControllerRevision {
            metadata: metadata.clone(),
            data: Some(RawExtension(serde_json::to_value(kept).unwrap())),
            revision: 1,
        },
        Secret { metadata, data: Some(data), ..Secret::default() },
    )
}

/// Headers with a token.
pub(crate) fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap())])
}

/// A TokenReview that accepts an agent on this node.
pub(crate) fn review(name: &str) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
        "status": {"authenticated": true, "audiences": [TOKEN_AUDIENCE], "user": {"username": AGENT, "extra": {
            "authentication.kubernetes.io/node-name": [name],
            "authentication.kubernetes.io/node-uid": [node(name).uid],
        }}},
    })
}

/// A certificate for localhost, with its key, as a mounted Secret has them.
pub(crate) fn write_certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
}

/// An authority, as the operator makes one for each pool.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate of this authority for localhost and a new key, as [`write_certificate`] has them.
    pub(crate) fn write_certificate(&self, folder: &Path, algorithm: &'static SignatureAlgorithm) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let made = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join("tls.crt"), made.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    }

    /// Whether these headers prove to who trusts this authority that the catalog is from a master called localhost.
    pub(crate) fn proves(&self, catalog: &Catalog, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
        let (Some(signature), Some(chain)) = (text(SIGNATURE_HEADER), text(CERTIFICATES_HEADER)) else { return false };
        let Signature { expires, scheme, bytes } = signature.parse().unwrap();
        let CertificateChain(chain) = chain.parse().unwrap();
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let now = UnixTime::now();
        assert!((now.as_secs()..=now.as_secs() + 24 * 60 * 60).contains(&expires), "{expires}");

        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = "localhost".try_into().unwrap();
        let is_known = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).is_ok();

        let scheme = SignatureScheme::from(scheme);
        let (_, algorithms) = algorithms.mapping.iter().find(|(known, _)| *known == scheme).unwrap();
        let text = Signature::text(&catalog.digest, &catalog.host.uid, catalog.generation, expires);
        let certificate = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
        is_known && certificate.verify_signature(algorithms[0], text.as_bytes(), &bytes).is_ok()
    }
}

/// A request that reached the API server.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// An API server that answers what a test says, request by request. A request that no test expects is not answered.
pub(crate) struct MockApi(Handle<Request<Body>, Response<Body>>);

impl MockApi {
    pub(crate) fn new() -> (Client, Self) {
        let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        (Client::new(service, "drover-system"), Self(handle))
    }

    /// Waits for a request and answers it.
    pub(crate) async fn answer(&mut self, status: u16, body: Value) -> Asked {
        let (request, responder) = self.0.next_request().await.unwrap();
        let (head, body_sent) = request.into_parts();
        let bytes = body_sent.collect_bytes().await.unwrap();
        responder.send_response(
            Response::builder().status(status).body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap(),
        );
        Asked {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }
}

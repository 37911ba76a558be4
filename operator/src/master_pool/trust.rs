//! The masters' certificates: of an authority of the operator's own, or of cert-manager; and whom agents are told to trust.

use std::collections::BTreeMap;

use drover_catalog::Digest;
use drover_core::trust::{self, Authority};
use drover_crds::{IssuerRef, PoolCertificates, condition, condition::Status, keys};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};

use super::{
    Error, MANAGER,
    desired::{Pool, authorities_name},
    remove,
};
use crate::{
    certificates::{self, Pair},
    context::Context,
    objects,
};

/// When a certificate ends, on the Secret that holds it.
pub(super) const NOT_AFTER_ANNOTATION: &str = "drover.dev/not-after";
/// Whose certificate the masters use, on the Secret that holds it.
pub(super) const AUTHORITY_ANNOTATION: &str = "drover.dev/authority";
/// For which `spec.certificates.authorityGeneration` an authority was made, on the Secret that holds it.
const GENERATION_ANNOTATION: &str = "drover.dev/authority-generation";

/// An authority that ends sooner is replaced.
const AUTHORITY_LEFT: SignedDuration = SignedDuration::from_hours(365 * 24);

/// How often an issuer is looked after that has not answered. What it issues is seen at once; that cert-manager is installed is not.
const LOOK_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// The condition that says how the certificates are.
const CERTIFICATE_READY: &str = "CertificateReady";

/// What is to be known of a pool's certificates.
pub(super) struct Trusted {
    /// How they are.
    pub(super) told: Told,
    /// How long until there is something to be done.
    pub(super) next: Option<SignedDuration>,
}

/// How the certificates are, for the condition of the pool.
pub(super) struct Told {
    status: Status,
    reason: &'static str,
    message: String,
}

impl Told {
    fn waiting(reason: &'static str, message: String) -> Self {
        Self { status: Status::False, reason, message }
    }

    /// What is waited for.
    pub(super) fn is_waiting(&self) -> Option<&str> {
        (self.status == Status::False).then_some(self.message.as_str())
    }

    /// Writes the condition.
    pub(super) fn set(&self, conditions: &mut Vec<Condition>, generation: Option<i64>, now: Timestamp) {
        condition::set(conditions, CERTIFICATE_READY, self.status, self.reason, self.message.as_str(), generation, now);
    }
}

/// Who is to sign the masters' certificate.
struct Candidate {
    id: String,
    /// Its certificate, as PEM.
    certificate: String,
    /// A certificate for the masters, where another one made it.
    issued: Option<BTreeMap<String, ByteString>>,
    /// The authority's key, where it is our own.
    key: Option<String>,
    /// Who it is, in words.
    who: String,
}

/// What cert-manager has done.
struct Issued {
    /// A certificate of the issuer that is asked for.
    candidate: Option<Candidate>,
    /// Why there is none, or none that is new enough.
    waiting: Option<Told>,
}

/// Makes what is missing or ends soon, tells whom to trust, and gives masters the newest certificate that agents can know.
pub(super) async fn certificates(context: &Context, pool: &Pool<'_>, now: Timestamp) -> Result<Trusted, Error> {
    let secrets = Secrets { api: Api::namespaced(context.client.clone(), &context.namespace), pool };
    let wanted = pool.certificates();
    let serving = secrets.read(&pool.server_secret()).await?;
    let (candidate, waiting) = match &wanted.issuer_ref {
        None => {
            withdraw(context, &secrets).await?;
            (Some(own(&secrets, &wanted, now).await?), None)
        }
        Some(issuer) => {
            let Issued { candidate, waiting } = issued(context, &secrets, issuer).await?;
            (candidate, waiting)
        }
    };
    // What is served goes on being served; its renewal is late.
    let Some(candidate) = candidate else {
        let told = waiting.unwrap_or_else(|| Told::waiting("NotIssued", "there is no certificate yet".to_owned()));
        return Ok(Trusted { told, next: Some(LOOK_AFTER) });
    };
    let serving_id = serving.as_ref().map(|secret| {
        // Before this annotation there was one authority: ours.
        secret.annotations().get(AUTHORITY_ANNOTATION).cloned().unwrap_or_else(|| candidate.id.clone())
    });

    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let map_name = authorities_name(&pool.object_name());
    let of_pools = ListParams::default().labels(keys::MASTER_POOL_LABEL);
    let found = maps.list(&of_pools).await.map_err(|error| Error::List("ConfigMaps", error))?.items;
    let own_map = found.iter().find(|map| map.name_any() == map_name);
    let known = own_map.map(authorities).unwrap_or_default();
    // Times are whole seconds: a second more, so that it is never less.
    let overlap = SignedDuration::from_secs(i64::from(wanted.resolved_overlap_seconds()) + 1);
    let is_told = is_told(&found, &candidate.certificate);
    let of_candidate = trust::Candidate { id: &candidate.id, certificate: &candidate.certificate, is_told };
    let decided = trust::trust(&known, serving_id.as_deref(), of_candidate, overlap, now);
    if own_map.is_none() || decided.bundle != known {
        let bundle: String = decided.bundle.iter().map(|authority| with_newline(&authority.certificate)).collect();
        let told = serde_json::to_string(&decided.bundle).map_err(Error::Authorities)?;
        let applied = objects::apply(&maps, &map_name, MANAGER, &pool.authorities(&bundle, &told)).await;
        applied.map_err(|error| Error::Apply("ConfigMap", map_name.clone(), error))?;
        let ids: Vec<&str> = decided.bundle.iter().map(|authority| authority.id.as_str()).collect();
        tracing::info!(authorities = ids.join(", "), "Agents are told whom to trust");
    }
    if decided.may_serve {
        serve(&secrets, &candidate, serving.as_ref(), now).await?;
    }
    let told = waiting.unwrap_or_else(|| handing_over(&candidate.who, &decided));
    let next = decided.next.map(|next| next.duration_since(now));
    let next =
        if told.is_waiting().is_some() { Some(next.map_or(LOOK_AFTER, |next| next.min(LOOK_AFTER))) } else { next };
    Ok(Trusted { told, next })
}

/// How far the hand-over to this authority is.
fn handing_over(who: &str, decided: &trust::Trust) -> Told {
    let (reason, message) = if !decided.may_serve {
        let message = format!(
            "agents are told of {who}; masters use its certificate when they have known it for spec.certificates.overlapSeconds"
        );
        ("Announced", message)
    } else if decided.bundle.len() > 1 {
        let message = format!(
            "masters use a certificate of {who}; agents know the authority before it for spec.certificates.overlapSeconds more"
        );
        ("Overlapping", message)
    } else {
        ("Current", format!("masters use a certificate of {who}"))
    };
    Told { status: Status::True, reason, message }
}

/// Whether all that agents read names an authority. A pool that is gone tells nobody anything.
fn is_told(maps: &[ConfigMap], certificate: &str) -> bool {
    let of_pool = |map: &&ConfigMap| map.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    let data = maps.iter().filter(of_pool).filter_map(|map| map.data.as_ref());
    let mut bundles = data.filter(|data| !data.contains_key("authorities.json")).filter_map(|data| data.get("ca.crt"));
    bundles.all(|bundle| bundle.contains(certificate.trim()))
}

/// The authorities that a ConfigMap tells of. One that was changed by hand is written anew.
fn authorities(map: &ConfigMap) -> Vec<Authority> {
    let text = map.data.as_ref().and_then(|data| data.get("authorities.json"));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Our own authority, made where there is none, where it ends within a year, or where another one is asked for.
async fn own(secrets: &Secrets<'_>, wanted: &PoolCertificates, now: Timestamp) -> Result<Candidate, Error> {
    let name = secrets.pool.authority_secret();
    let found = secrets.read(&name).await?;
    let generation = wanted.authority_generation.map(|generation| generation.to_string());
    let is_asked_for = |secret: &Secret| {
        generation.as_ref().is_none_or(|wanted| secret.annotations().get(GENERATION_ANNOTATION) == Some(wanted))
    };
    let kept = found.as_ref().filter(|secret| is_asked_for(secret)).and_then(pair);
    let lasts = |authority: &Pair| authority.not_after.duration_since(now) > AUTHORITY_LEFT;
    let authority = if let Some(authority) = kept.filter(lasts) {
        authority
    } else {
        let made = certificates::authority(&name, now).map_err(|error| Error::Certificate(name.clone(), error))?;
        let mut annotations = vec![(NOT_AFTER_ANNOTATION, made.not_after.to_string())];
        annotations.extend(generation.map(|generation| (GENERATION_ANNOTATION, generation)));
        secrets.write(&name, data(&made), annotations).await?;
        tracing::info!(secret = name, "New certificate authority");
        made
    };
    Ok(Candidate {
        id: id(&authority.certificate),
        certificate: authority.certificate,
        issued: None,
        key: Some(authority.key),
        who: "the operator's own authority".to_owned(),
    })
}

/// The Certificates of cert-manager.
fn certificate_requests(context: &Context) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
    Api::namespaced_with(context.client.clone(), &context.namespace, &kind)
}

/// Asks cert-manager, and takes what it has issued.
async fn issued(context: &Context, secrets: &Secrets<'_>, issuer: &IssuerRef) -> Result<Issued, Error> {
    let name = secrets.pool.issued_secret();
    let not_yet = |reason, message| Issued { candidate: None, waiting: Some(Told::waiting(reason, message)) };
    let asked = objects::apply(&certificate_requests(context), &name, MANAGER, &secrets.pool.certificate(issuer)).await;
    let asked = match asked {
        Ok(asked) => asked,
        Err(kube::Error::Api(status)) if objects::is_absent(&status) => {
            let text = "there is no cert-manager in this cluster, which spec.certificates.issuerRef asks for: install it, or leave issuerRef out";
            return Ok(not_yet("NoCertManager", text.to_owned()));
        }
        // The pool is more than its certificates: the rest of it goes on.
        Err(kube::Error::Api(status)) => {
            let text = format!("the Certificate {name} of cert-manager can not be written: {}", status.message);
            return Ok(not_yet("NotIssued", text));
        }
        Err(error) => return Err(Error::Apply("Certificate", name, error)),
    };
    let who = format!("{} {}", issuer.resolved_kind(), issuer.name);
    let late = || {
        let why = complaint(&asked).map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{who} has not issued the Certificate {name} yet{why}: see kubectl describe certificate {name}")
    };
    // Of another issuer is the certificate of before.
    let of_issuer = |secret: &Secret| {
        let is = |key: &str, wanted: &str| secret.annotations().get(key).is_none_or(|found| found == wanted);
        is("cert-manager.io/issuer-name", &issuer.name)
            && is("cert-manager.io/issuer-kind", issuer.resolved_kind())
            && is("cert-manager.io/issuer-group", issuer.resolved_group())
    };
    let Some(secret) = secrets.read(&name).await?.filter(of_issuer) else { return Ok(not_yet("NotIssued", late())) };
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let Some(certificate) = text("ca.crt").filter(|text| !text.trim().is_empty()) else {
        let text = format!(
            "{who} does not tell its own certificate (ca.crt of Secret {name}), which agents are to trust: take an issuer that does, such as one of kind CA"
        );
        return Ok(not_yet("NoAuthority", text));
    };
    let data = secret.data.clone().unwrap_or_default();
    let data = data.into_iter().filter(|(key, _)| key != "ca.crt").collect::<BTreeMap<_, _>>();
    let waiting = complaint(&asked).map(|_| Told::waiting("NotIssued", late()));
    let candidate = Candidate { id: id(&certificate), certificate, issued: Some(data), key: None, who };
    Ok(Issued { candidate: Some(candidate), waiting })
}

/// What cert-manager says is wrong with a Certificate: it is not there yet, ends, or could not be renewed.
fn complaint(certificate: &DynamicObject) -> Option<String> {
    let conditions = certificate.data["status"]["conditions"].as_array()?;
    let failed = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
        (condition["status"] == "False").then(|| condition["message"].as_str().unwrap_or_default().to_owned())
    };
    failed("Issuing").or_else(|| failed("Ready"))
}

/// Asks cert-manager for nothing any more: what it issued would be out of date when it is asked again.
async fn withdraw(context: &Context, secrets: &Secrets<'_>) -> Result<(), Error> {
    let name = secrets.pool.issued_secret();
    let is_there = secrets.read(&name).await?.is_some();
    if is_there || secrets.pool.was(CERTIFICATE_READY, Status::False) {
        remove(&certificate_requests(context), "Certificate", &name).await?;
        remove(&secrets.api, "Secret", &name).await?;
        tracing::info!(certificate = name, "cert-manager is not asked for a certificate any more");
    }
    Ok(())
}

/// Gives masters a certificate of the candidate, unless they have it and it lasts.
async fn serve(
    secrets: &Secrets<'_>,
    candidate: &Candidate,
    serving: Option<&Secret>,
    now: Timestamp,
) -> Result<(), Error> {
    let name = secrets.pool.server_secret();
    let is_theirs = |secret: &&Secret| {
        let authority = secret.annotations().get(AUTHORITY_ANNOTATION);
        authority.is_none_or(|authority| *authority == candidate.id)
    };
    let serving = serving.filter(is_theirs);
    let annotations = vec![(AUTHORITY_ANNOTATION, candidate.id.clone())];
    match (&candidate.issued, &candidate.key) {
        (Some(data), _) => {
            if serving.is_none_or(|secret| secret.data.as_ref() != Some(data)) {
                secrets.write(&name, data.clone(), annotations).await?;
                tracing::info!(secret = name, "New server certificate, from cert-manager");
            }
        }
        (None, Some(key)) => {
            let lasts = |pair: &Pair| !certificates::is_due(pair.not_after, now);
            if !serving.and_then(pair).as_ref().is_some_and(lasts) {
                let authority = secrets.pool.authority_secret();
                let made = certificates::server(&authority, key, &secrets.pool.server_names(), now);
                let made = made.map_err(|error| Error::Certificate(name.clone(), error))?;
                let ends = (NOT_AFTER_ANNOTATION, made.not_after.to_string());
                secrets.write(&name, data(&made), annotations.into_iter().chain([ends]).collect()).await?;
                tracing::info!(secret = name, not_after = %made.not_after, "New server certificate");
            }
        }
        (None, None) => {}
    }
    Ok(())
}

/// The pool's Secrets.
struct Secrets<'a> {
    api: Api<Secret>,
    pool: &'a Pool<'a>,
}

impl Secrets<'_> {
    async fn read(&self, name: &str) -> Result<Option<Secret>, Error> {
        self.api.get_opt(name).await.map_err(|error| Error::ReadSecret(name.to_owned(), error))
    }

    async fn write(
        &self,
        name: &str,
        data: BTreeMap<String, ByteString>,
        annotations: Vec<(&str, String)>,
    ) -> Result<(), Error> {
        let annotations = annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let secret = self.pool.secret(name, data, annotations);
        let applied = objects::apply(&self.api, name, MANAGER, &secret).await;
        applied.map(drop).map_err(|error| Error::Apply("Secret", name.to_owned(), error))
    }
}

/// What tells an authority from others.
fn id(certificate: &str) -> String {
    Digest::of(certificate.trim().as_bytes()).short(16).to_owned()
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

fn data(pair: &Pair) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    BTreeMap::from([("tls.crt".into(), bytes(&pair.certificate)), ("tls.key".into(), bytes(&pair.key))])
}

/// The certificate that a Secret holds, if it is one of ours.
fn pair(secret: &Secret) -> Option<Pair> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let not_after = secret.annotations().get(NOT_AFTER_ANNOTATION)?.parse().ok()?;
    Some(Pair { certificate: text("tls.crt")?, key: text("tls.key")?, not_after })
}

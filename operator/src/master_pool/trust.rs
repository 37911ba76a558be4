//! The masters' certificates: of an authority of the operator's own, or of cert-manager; and whom agents are told to trust.

use std::collections::BTreeMap;

use drover_catalog::Digest;
use drover_core::trust::{Authority, trust};
use drover_crds::PoolCertificates;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};

use super::{
    Error, MANAGER,
    desired::{Pool, authorities_name},
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

/// What is to be known of a pool's certificates.
pub(super) struct Trusted {
    /// What masters wait for, if they have no certificate yet.
    pub(super) waiting: Option<String>,
    /// How long until there is something to be done.
    pub(super) next: Option<SignedDuration>,
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
}

/// Makes what is missing or ends soon, tells whom to trust, and gives masters the newest certificate that agents can know.
pub(super) async fn certificates(context: &Context, pool: &Pool<'_>, now: Timestamp) -> Result<Trusted, Error> {
    let secrets = Secrets { api: Api::namespaced(context.client.clone(), &context.namespace), pool };
    let wanted = pool.certificates();
    let serving = secrets.read(&pool.server_secret()).await?;
    let candidate = match &wanted.issuer_ref {
        None => own(&secrets, &wanted, now).await?,
        Some(_) => match issued(context, &secrets, &wanted).await? {
            Ok(candidate) => candidate,
            // What is served goes on being served; its renewal is late.
            Err(waiting) => return Ok(Trusted { waiting: Some(waiting), next: None }),
        },
    };
    let serving_id = serving.as_ref().map(|secret| {
        // Before this annotation there was one authority: ours.
        secret.annotations().get(AUTHORITY_ANNOTATION).cloned().unwrap_or_else(|| candidate.id.clone())
    });

    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let map_name = authorities_name(&pool.object_name());
    let found = maps.get_opt(&map_name).await.map_err(|error| Error::ReadConfigMap(map_name.clone(), error))?;
    let known = found.as_ref().map(authorities).unwrap_or_default();
    let overlap = SignedDuration::from_secs(i64::from(wanted.resolved_overlap_seconds()));
    let decided = trust(&known, serving_id.as_deref(), (&candidate.id, &candidate.certificate), overlap, now);
    if found.is_none() || decided.bundle != known {
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
    let next = decided.next.map(|next| next.duration_since(now));
    Ok(Trusted { waiting: None, next })
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
    })
}

/// What cert-manager issued, or what it waits for.
async fn issued(
    context: &Context,
    secrets: &Secrets<'_>,
    wanted: &PoolCertificates,
) -> Result<Result<Candidate, String>, Error> {
    let Some(issuer) = &wanted.issuer_ref else { return Ok(Err(String::new())) };
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &context.namespace, &kind);
    let name = secrets.pool.issued_secret();
    match objects::apply(&api, &name, MANAGER, &secrets.pool.certificate(issuer)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let text = "there is no cert-manager in this cluster, which spec.certificates.issuerRef asks for: install it, or leave issuerRef out";
            return Ok(Err(text.to_owned()));
        }
        Err(error) => return Err(Error::Apply("Certificate", name, error)),
    }
    let Some(secret) = secrets.read(&name).await? else {
        let text = format!(
            "{} {} has not issued the Certificate {name} yet: see kubectl describe certificate {name}",
            issuer.resolved_kind(),
            issuer.name
        );
        return Ok(Err(text));
    };
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let Some(certificate) = text("ca.crt").filter(|text| !text.trim().is_empty()) else {
        let text = format!(
            "the issuer {} does not tell its own certificate (ca.crt of Secret {name}), which agents are to trust: take one that does, such as a CA issuer",
            issuer.name
        );
        return Ok(Err(text));
    };
    let data = secret.data.clone().unwrap_or_default();
    let data = data.into_iter().filter(|(key, _)| key != "ca.crt").collect::<BTreeMap<_, _>>();
    Ok(Ok(Candidate { id: id(&certificate), certificate, issued: Some(data), key: None }))
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

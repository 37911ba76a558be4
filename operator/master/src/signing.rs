//! Signs catalogs with the private key of the master's certificate.
//!
//! Agents know the authority of that certificate already, and the key changes with the certificate: there is nothing else to
//! hand out, to keep or to renew. What is signed, and how it looks on the wire, is [`Signature`]'s.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::{HeaderName, HeaderValue};
use drover_catalog::{
    CertificateChain, Digest, HostIdentity, Signature,
    routes::{CERTIFICATES_HEADER, SIGNATURE_HEADER},
};
use jiff::Timestamp;
use rustls::{
    SignatureScheme,
    sign::{self, CertifiedKey},
};

/// How long a signature holds, in seconds. A catalog reaches its machine within seconds; a day is for clocks that are hours
/// apart, and for catalogs that are carried there by other means. A recorded one is worth nothing the day after, also on a
/// machine that has lost its memory and knows no generation to refuse it by.
///
/// It holds no longer than the certificate either: agents ask for one that is valid when they look at it.
const LIFE: u64 = 24 * 60 * 60;

/// Those of TLS 1.3 (RFC 8446, section 4.2.3) for all keys that a certificate may have.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// A key that signs, and the chain of its certificate as a header.
#[derive(Debug)]
pub(crate) struct Signatory {
    key: Box<dyn sign::Signer>,
    chain: HeaderValue,
}

impl Signatory {
    pub(crate) fn new(certified: &CertifiedKey) -> Result<Self, rustls::Error> {
        let key = certified.key.choose_scheme(&SCHEMES);
        let key =
            key.ok_or_else(|| rustls::Error::General("no signature scheme of TLS 1.3 fits the key".to_owned()))?;
        let chain = CertificateChain(certified.cert.iter().map(|certificate| certificate.to_vec()).collect());
        let chain = HeaderValue::try_from(chain.to_string());
        Ok(Self { key, chain: chain.map_err(|error| rustls::Error::General(error.to_string()))? })
    }

    fn sign(
        &self,
        digest: &Digest,
        host: &HostIdentity,
        generation: i64,
        now: Timestamp,
    ) -> Result<Headers, rustls::Error> {
        let expires = u64::try_from(now.as_second()).unwrap_or_default() + LIFE;
        let bytes = self.key.sign(Signature::text(digest, &host.uid, generation, expires).as_bytes())?;
        let signature = Signature { expires, scheme: self.key.scheme().into(), bytes };
        let signature = HeaderValue::try_from(signature.to_string());
        let signature = signature.map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok([
            (HeaderName::from_static(SIGNATURE_HEADER), signature),
            (HeaderName::from_static(CERTIFICATES_HEADER), self.chain.clone()),
        ])
    }
}

/// Signs with the certificate that is served at the moment.
#[derive(Debug)]
pub(crate) struct Signer(RwLock<Arc<Signatory>>);

impl Signer {
    pub(crate) fn new(signatory: Signatory) -> Self {
        Self(RwLock::new(Arc::new(signatory)))
    }

    /// Signs with another certificate from now on.
    pub(crate) fn replace(&self, signatory: Signatory) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signatory);
    }

    /// The headers that prove a catalog of this digest, host and generation, from now on for half of [`LIFE`] at least. Those
    /// of `proof` are used again as long as they do: a signature costs as much as all the rest of an answer from memory.
    pub(crate) fn prove(
        &self,
        proof: &Proof,
        digest: &Digest,
        host: &HostIdentity,
        generation: i64,
        now: Timestamp,
    ) -> Result<Headers, rustls::Error> {
        let signatory = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let mut last = proof.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = last.as_ref().filter(|signed| signed.serves(&signatory, now)) {
            return Ok(signed.headers.clone());
        }
        let headers = signatory.sign(digest, host, generation, now)?;
        *last = Some(Signed { by: signatory, at: now, headers: headers.clone() });
        Ok(headers)
    }
}

/// The signature, and the certificates of the key that made it.
pub(crate) type Headers = [(HeaderName, HeaderValue); 2];

/// The last proof of one catalog, once there is one. It is no part of what a catalog is.
#[derive(Debug, Default)]
pub(crate) struct Proof(Mutex<Option<Signed>>);

impl PartialEq for Proof {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Signed {
    by: Arc<Signatory>,
    at: Timestamp,
    headers: Headers,
}

impl Signed {
    /// Whether it goes on for half of its life, and whoever trusts the certificate of the moment trusts it.
    fn serves(&self, signatory: &Arc<Signatory>, now: Timestamp) -> bool {
        // Times that a clock went back over are not waited for again.
        let age = u64::try_from(now.duration_since(self.at).as_secs());
        Arc::ptr_eq(&self.by, signatory) && age.is_ok_and(|age| age < LIFE / 2)
    }
}

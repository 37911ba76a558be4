//! Whether a catalog that came over the network is a master's, and of today.
//!
//! TLS proves who answers; the signature that comes with a catalog proves the catalog itself, also when something on the way
//! ends TLS or plays back an old answer. It is judged by what the machine knows its masters by anyway. Whether a master's catalog
//! may be applied to this machine is [`admission`](crate::admission)'s. A catalog on the machine's own disk has been judged
//! when it came, and needs no signature that still holds: it is enforced for as long as no master is there.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use drover_catalog::{
    Catalog, CertificateChain, Signature,
    routes::{CERTIFICATES_HEADER, SIGNATURE_HEADER},
};
use rustls::{
    RootCertStore, SignatureScheme,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;

/// How far this machine's clock may be ahead of the master's, in seconds.
const CLOCK_SKEW: u64 = 300;

/// What came with a catalog, as text.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// A [`Signature`].
    pub(crate) signature: Option<String>,
    /// A [`CertificateChain`].
    pub(crate) certificates: Option<String>,
}

/// Whom this machine believes.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Who may have signed a master's certificate.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// The name that it must have.
    pub(crate) server_name: String,
}

/// Why a catalog is not taken for a master's.
#[derive(Debug, PartialEq, Error)]
pub(crate) enum Distrust {
    /// A header is not there.
    #[error(
        "it is not signed: there is no header {header}; is the master of an older release, or does something between here and \
         the master drop headers?"
    )]
    Unsigned {
        /// Which one.
        header: &'static str,
    },
    /// A header is there and makes no sense.
    #[error("its header {header} can not be read; does something between here and the master change headers?")]
    Unreadable {
        /// Which one.
        header: &'static str,
    },
    /// The digest, which is what is signed, does not fit the rest.
    #[error("its digest does not fit its content: it was changed on the way")]
    Altered,
    /// The certificate is not one of a master.
    #[error(
        "who signed it is no master that this machine knows: {0}; compare ca.crt with the authority of the masters' certificate, \
         and the clock of this machine with the time"
    )]
    Stranger(rustls::Error),
    /// The certificate is one of a master, and its key did not sign this.
    #[error("its signature is not one of this content, host and generation: it was changed on the way")]
    Forged,
    /// The signature does not hold any more.
    #[error(
        "its signature expired {} minutes ago; compare the clocks of this machine and of the master: if both are right, \
         something between them plays back an old catalog",
        .ago.as_secs() / 60
    )]
    Expired {
        /// Since when.
        ago: Duration,
    },
}

/// Judges a catalog by what came with it.
pub(crate) fn verify(catalog: &Catalog, proof: &Proof, trust: &Trust, now: SystemTime) -> Result<(), Distrust> {
    let Signature { expires, scheme, bytes } = header(proof.signature.as_deref(), SIGNATURE_HEADER)?;
    let CertificateChain(chain) = header(proof.certificates.as_deref(), CERTIFICATES_HEADER)?;
    if !catalog.is_intact() {
        return Err(Distrust::Altered);
    }
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let chain: Vec<CertificateDer<'_>> = chain.into_iter().map(CertificateDer::from).collect();
    let (own, others) = chain.split_first().ok_or(Distrust::Unreadable { header: CERTIFICATES_HEADER })?;
    trust.know(own, others, now).map_err(Distrust::Stranger)?;

    let text = Signature::text(&catalog.digest, &catalog.host.uid, catalog.generation, expires);
    if !is_signed(text.as_bytes(), own, scheme.into(), &bytes) {
        return Err(Distrust::Forged);
    }
    match now.as_secs().saturating_sub(expires) {
        0..=CLOCK_SKEW => Ok(()),
        ago => Err(Distrust::Expired { ago: Duration::from_secs(ago) }),
    }
}

fn header<T: std::str::FromStr>(text: Option<&str>, header: &'static str) -> Result<T, Distrust> {
    text.ok_or(Distrust::Unsigned { header })?.parse().map_err(|_| Distrust::Unreadable { header })
}

impl Trust {
    /// Whether a certificate is one of a master, as TLS would ask.
    fn know(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone())?;
        }
        let name = ServerName::try_from(self.server_name.as_str())
            .map_err(|_| rustls::Error::General("server-name holds no name".to_owned()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(own, others, &name, &[], now).map(|_| ())
    }
}

/// Whether the key of this certificate signed the text. rustls does this for its own handshakes alone.
fn is_signed(text: &[u8], certificate: &CertificateDer<'_>, scheme: SignatureScheme, signature: &[u8]) -> bool {
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    // The first of each scheme is the one that TLS 1.3 means by it.
    let algorithm = algorithms.mapping.iter().find(|(known, _)| *known == scheme).and_then(|(_, meant)| meant.first());
    let certificate = webpki::EndEntityCert::try_from(certificate);
    matches!((algorithm, certificate), (Some(algorithm), Ok(certificate))
        if certificate.verify_signature(*algorithm, text, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Digest, HostIdentity};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::{pki_types::PrivateKeyDer, sign::CertifiedKey};

    use super::*;

    const NAME: &str = "masters.test";
    const HOUR: u64 = 3600;

    struct Authority {
        certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let params = Self::params(name);
            let key = KeyPair::generate().unwrap();
            Self { certificate: params.self_signed(&key).unwrap().der().clone(), issuer: Issuer::new(params, key) }
        }

        fn params(name: &str) -> CertificateParams {
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params
        }

        /// An authority that this one vouches for.
        fn intermediate(&self, name: &str) -> Self {
            let params = Self::params(name);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
            Self { certificate, issuer: Issuer::new(params, key) }
        }

        /// A certificate with a key of its own.
        fn certify(&self, change: impl FnOnce(&mut CertificateParams)) -> CertifiedKey {
            let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            CertifiedKey::from_der(vec![certificate], key, &rustls::crypto::ring::default_provider()).unwrap()
        }

        fn trust(&self) -> Trust {
            Trust { authorities: vec![self.certificate.clone()], server_name: NAME.to_owned() }
        }
    }

    fn now() -> u64 {
        UnixTime::now().as_secs()
    }

    /// As a master does it.
    fn sign(certified: &CertifiedKey, catalog: &Catalog, expires: u64) -> Proof {
        let signer = certified.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let text = Signature::text(&catalog.digest, &catalog.host.uid, catalog.generation, expires);
        let bytes = signer.sign(text.as_bytes()).unwrap();
        let chain = certified.cert.iter().map(|certificate| certificate.to_vec()).collect();
        Proof {
            signature: Some(Signature { expires, scheme: signer.scheme().into(), bytes }.to_string()),
            certificates: Some(CertificateChain(chain).to_string()),
        }
    }

    fn catalog(uid: &str, generation: i64, interval_seconds: u32) -> Catalog {
        Catalog {
            host: HostIdentity { name: "node-1".into(), uid: uid.into() },
            generation,
            revisions: vec![],
            interval_seconds,
            resources: vec![],
            reboot: None,
            commands: vec![],
            digest: Digest::of(b""),
        }
        .seal()
        .unwrap()
    }

    fn judge(catalog: &Catalog, proof: &Proof, trust: &Trust) -> Result<(), Distrust> {
        verify(catalog, proof, trust, SystemTime::now())
    }

    #[test]
    fn a_masters_catalog_is_taken() {
        let authority = Authority::new("ours");
        let expires = now() + 24 * HOUR;
        let first = authority.certify(|_| {});
        for catalog in [catalog("u1", 7, 60), catalog("u2", 7, 60), catalog("u1", 8, 60)] {
            assert_eq!(judge(&catalog, &sign(&first, &catalog, expires), &authority.trust()), Ok(()), "{catalog:?}");
        }
        let catalog = catalog("u1", 7, 60);
        // Its certificate is renewed, and so is its key.
        let renewed = authority.certify(|_| {});
        assert_ne!(first.cert, renewed.cert);
        assert_eq!(judge(&catalog, &sign(&renewed, &catalog, expires), &authority.trust()), Ok(()));

        let between = authority.intermediate("between");
        let mut third = between.certify(|_| {});
        let alone = sign(&third, &catalog, expires);
        assert!(matches!(judge(&catalog, &alone, &authority.trust()), Err(Distrust::Stranger(_))));
        third.cert.push(between.certificate);
        assert_eq!(judge(&catalog, &sign(&third, &catalog, expires), &authority.trust()), Ok(()));
    }

    #[test]
    fn what_was_changed_on_the_way_is_refused() {
        let authority = Authority::new("ours");
        let master = authority.certify(|_| {});
        let (signed, expires) = (catalog("u1", 7, 60), now() + 24 * HOUR);
        let proof = sign(&master, &signed, expires);
        let altered = Catalog { interval_seconds: 90, ..signed.clone() };
        assert_eq!(judge(&altered, &proof, &authority.trust()), Err(Distrust::Altered));
        for other in [catalog("u1", 7, 90), catalog("u1", 8, 60), catalog("u2", 7, 60)] {
            assert_eq!(judge(&other, &proof, &authority.trust()), Err(Distrust::Forged), "{other:?}");
        }
        // The digest covers host and generation as well; each is signed for itself all the same.
        for (uid, generation) in [("u1", 8), ("u2", 7)] {
            let host = HostIdentity { uid: uid.into(), ..signed.host.clone() };
            let unlike = Catalog { host, generation, ..signed.clone() };
            let unlike = sign(&master, &unlike, expires);
            assert_eq!(judge(&signed, &unlike, &authority.trust()), Err(Distrust::Forged), "{uid} {generation}");
        }
        let later = proof.signature.unwrap().replace(&expires.to_string(), &(expires + HOUR).to_string());
        let later = Proof { signature: Some(later), ..proof };
        assert_eq!(judge(&signed, &later, &authority.trust()), Err(Distrust::Forged));
    }

    #[test]
    fn who_is_no_master_signs_nothing() {
        let authority = Authority::new("ours");
        let (catalog, expires) = (catalog("u1", 7, 60), now() + 24 * HOUR);
        let client_alone = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        };
        let ended = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let elsewhere = |params: &mut CertificateParams| {
            params.subject_alt_names = vec![rcgen::SanType::DnsName("elsewhere.test".try_into().unwrap())];
        };
        for (who, certified) in [
            ("UnknownIssuer", Authority::new("another").certify(|_| {})),
            ("BadSignature", Authority::new("ours").certify(|_| {})),
            ("not valid for name", authority.certify(elsewhere)),
            ("expired", authority.certify(ended)),
            ("does not allow extended key usage", authority.certify(client_alone)),
        ] {
            let told = judge(&catalog, &sign(&certified, &catalog, expires), &authority.trust()).unwrap_err();
            assert!(matches!(&told, Distrust::Stranger(_)) && told.to_string().contains(who), "{who}: {told}");
        }
        // A stranger's signature beside a master's certificate.
        let mut proof = sign(&Authority::new("ours").certify(|_| {}), &catalog, expires);
        proof.certificates = sign(&authority.certify(|_| {}), &catalog, expires).certificates;
        assert_eq!(judge(&catalog, &proof, &authority.trust()), Err(Distrust::Forged));
    }

    #[test]
    fn a_signature_holds_until_it_expires_and_clocks_may_differ_a_little() {
        let authority = Authority::new("ours");
        let master = authority.certify(|_| {});
        let (catalog, now) = (catalog("u1", 7, 60), now());
        let at = |expires: u64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            verify(&catalog, &sign(&master, &catalog, expires), &authority.trust(), time)
        };
        assert_eq!(at(now - CLOCK_SKEW), Ok(()));
        let told = at(now - CLOCK_SKEW - 1).unwrap_err();
        assert_eq!(told, Distrust::Expired { ago: Duration::from_secs(CLOCK_SKEW + 1) });
        assert!(told.to_string().contains("5 minutes ago"), "{told}");
        assert!(matches!(at(0), Err(Distrust::Expired { .. })));
    }

    #[test]
    fn no_signature_and_headers_without_sense_are_refused() {
        let authority = Authority::new("ours");
        let catalog = catalog("u1", 7, 60);
        let proof = || sign(&authority.certify(|_| {}), &catalog, now() + HOUR);
        let unsigned = |header| Err(Distrust::Unsigned { header });
        let unreadable = |header| Err(Distrust::Unreadable { header });
        let text = |text: &str| Some(text.to_owned());
        for (proof, expected) in [
            (Proof::default(), unsigned(SIGNATURE_HEADER)),
            (Proof { signature: None, ..proof() }, unsigned(SIGNATURE_HEADER)),
            (Proof { certificates: None, ..proof() }, unsigned(CERTIFICATES_HEADER)),
            (Proof { signature: text(""), ..proof() }, unreadable(SIGNATURE_HEADER)),
            (Proof { signature: text("moo"), ..proof() }, unreadable(SIGNATURE_HEADER)),
            (Proof { certificates: text(""), ..proof() }, unreadable(CERTIFICATES_HEADER)),
            (Proof { certificates: text("moo?"), ..proof() }, unreadable(CERTIFICATES_HEADER)),
            (Proof { signature: text("expires=1, scheme=0x0403, signature="), ..proof() }, Err(Distrust::Forged)),
            // The scheme is of another kind of key, or of none.
            (
                Proof { signature: proof().signature.map(|text| text.replace("0x0403", "0x0804")), ..proof() },
                Err(Distrust::Forged),
            ),
            (
                Proof { signature: proof().signature.map(|text| text.replace("0x0403", "0xffff")), ..proof() },
                Err(Distrust::Forged),
            ),
        ] {
            assert_eq!(judge(&catalog, &proof, &authority.trust()), expected, "{proof:?}");
        }
        let no_certificate = Proof { certificates: text("AQID"), ..proof() };
        assert!(matches!(judge(&catalog, &no_certificate, &authority.trust()), Err(Distrust::Stranger(_))));
    }
}

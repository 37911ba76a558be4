//! The master's certificate, from a mounted Secret, read again when it changes.
//!
//! The kubelet replaces the files of a mounted Secret by one rename of a link, so both are of one time; a pair that does
//! not fit together is not taken, and the old one goes on serving. The same key signs catalogs, see [`signing`](crate::signing).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum_server::tls_rustls::RustlsConfig;
use drover_catalog::Digest;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::signing::{Signatory, Signer};

/// How often the files are looked at. The kubelet brings a changed Secret within about a minute.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can not be read.
    #[error("{path} can not be read; mount a Secret of type kubernetes.io/tls there")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no {what} in PEM form")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not go together, or the algorithm is not known.
    #[error("tls.crt and tls.key in {folder} can not be used together")]
    Pair {
        /// Their folder.
        folder: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate and its key, as they were read.
struct Pair {
    config: Arc<ServerConfig>,
    signatory: Signatory,
    /// Of both files, to see a change.
    digest: Digest,
}

fn read(folder: &Path) -> Result<Pair, TlsError> {
    let bytes = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|source| TlsError::Read { path, source })
    };
    let (certificate, key) = (bytes("tls.crt")?, bytes("tls.key")?);
    let digest = Digest::of(&[certificate.as_slice(), b"\0", key.as_slice()].concat());
    let no_certificate = || TlsError::Parse { path: folder.join("tls.crt"), what: "certificate" };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>().map_err(|_| no_certificate())?;
    if chain.is_empty() {
        return Err(no_certificate());
    }
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| TlsError::Parse { path: folder.join("tls.key"), what: "private key" })?;
    let pair = |source| TlsError::Pair { folder: folder.to_owned(), source };
    // The provider is named, so that nothing depends on which one the process installed.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(pair)?;
    let signatory = Signatory::new(&certified).map_err(pair)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Pair { config: Arc::new(config), signatory, digest })
}

/// A certificate that follows its files.
pub(crate) struct Certificate {
    folder: PathBuf,
    served: RustlsConfig,
    signer: Arc<Signer>,
    digest: Digest,
}

impl Certificate {
    /// Reads the files for the first time.
    pub(crate) fn load(folder: &Path) -> Result<Self, TlsError> {
        let Pair { config, signatory, digest } = read(folder)?;
        let signer = Arc::new(Signer::new(signatory));
        Ok(Self { folder: folder.to_owned(), served: RustlsConfig::from_config(config), signer, digest })
    }

    /// What the server serves with: it changes with each reload.
    pub(crate) fn served(&self) -> RustlsConfig {
        self.served.clone()
    }

    /// What signs catalogs with the key: it changes with each reload.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    /// Reads the files again, and serves with them when they changed.
    fn reload(&mut self) -> Result<bool, TlsError> {
        let Pair { config, signatory, digest } = read(&self.folder)?;
        let changed = digest != self.digest;
        if changed {
            self.served.reload_from_config(config);
            self.signer.replace(signatory);
            self.digest = digest;
        }
        Ok(changed)
    }

    /// Follows the files for ever.
    pub(crate) async fn follow(mut self) {
        let mut look = tokio::time::interval(LOOK);
        let mut failing = false;
        loop {
            look.tick().await;
            // Two small files of a memory file system: not worth a thread.
            match self.reload() {
                Ok(changed) => {
                    if changed {
                        tracing::info!("serving with the new certificate");
                    }
                    failing = false;
                }
                Err(error) if !failing => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, source, "the new certificate can not be used; serving with the old one");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use drover_catalog::{Catalog, HostIdentity};
    use jiff::{SignedDuration, Timestamp};
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::{
        signing::Proof,
        testing::{Authority, write_certificate},
    };

    #[test]
    fn a_changed_pair_is_served_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write_certificate(folder.path());
        let mut certificate = Certificate::load(folder.path()).unwrap();
        let first = certificate.served().get_inner();
        assert!(!certificate.reload().unwrap());

        write_certificate(folder.path());
        assert!(certificate.reload().unwrap());
        let second = certificate.served().get_inner();
        assert!(!Arc::ptr_eq(&first, &second));

        let key = std::fs::read(folder.path().join("tls.key")).unwrap();
        write_certificate(folder.path());
        std::fs::write(folder.path().join("tls.key"), key).unwrap();
        assert!(matches!(certificate.reload(), Err(TlsError::Pair { .. })));
        assert!(Arc::ptr_eq(&second, &certificate.served().get_inner()), "the old pair goes on serving");
    }

    #[test]
    fn whatever_kind_of_key_comes_signs_catalogs_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog {
            host: HostIdentity { name: "a".into(), uid: "u1".into() },
            generation: 7,
            revisions: vec![],
            interval_seconds: 60,
            resources: vec![],
            reboot: None,
            commands: vec![],
            digest: Digest::of(b"abc"),
        };
        let authority = Authority::new();
        authority.write_certificate(folder.path(), &PKCS_ECDSA_P256_SHA256);
        let mut certificate = Certificate::load(folder.path()).unwrap();
        let signer = certificate.signer();
        #[allow(clippy::disallowed_methods, reason = "certificates are valid by the clock of the machine")]
        let prove = |proof: &Proof, after: SignedDuration| {
            let now = Timestamp::now() + after;
            let proven = signer.prove(proof, &catalog.digest, &catalog.host, catalog.generation, now).unwrap();
            HeaderMap::from_iter(proven)
        };
        let proof = Proof::default();
        let sign = || prove(&proof, SignedDuration::ZERO);
        let first = sign();
        assert!(authority.proves(&catalog, &first));
        assert!(!Authority::new().proves(&catalog, &first));
        // ECDSA signs by chance: equal headers were made once.
        assert_eq!(first, sign());
        assert_ne!(first, prove(&Proof::default(), SignedDuration::ZERO), "another catalog");
        assert_eq!(first, prove(&proof, SignedDuration::from_hours(11)), "more than half of its life is left");
        let second = prove(&proof, SignedDuration::from_hours(13));
        assert_ne!(first, second);
        assert_eq!(second, prove(&proof, SignedDuration::from_hours(24)));
        let third = sign();
        assert!(third != second && authority.proves(&catalog, &third), "the clock went back");

        let renewed = Authority::new();
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            renewed.write_certificate(folder.path(), algorithm);
            assert!(certificate.reload().unwrap());
            assert!(renewed.proves(&catalog, &sign()), "{algorithm:?}");
            assert!(!authority.proves(&catalog, &sign()), "{algorithm:?}");
        }
    }

    #[test]
    fn says_which_file_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let told = || Certificate::load(folder.path()).err().unwrap().to_string();
        assert!(told().contains("tls.crt can not be read"), "{}", told());
        write_certificate(folder.path());
        std::fs::write(folder.path().join("tls.crt"), "").unwrap();
        assert!(told().contains("tls.crt holds no certificate"), "{}", told());
        write_certificate(folder.path());
        std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
        assert!(told().contains("tls.key holds no private key"), "{}", told());
    }
}

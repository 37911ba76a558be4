//! The certificates that agents know masters by: an authority for each pool, and a server certificate that it signs.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// How long an authority is valid, in days.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a server certificate is valid, in days; it is renewed when a third of that is left.
const SERVER_DAYS: i64 = 90;

/// A certificate and its key, as PEM, and when it ends.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) not_after: Timestamp,
}

/// Whether a server certificate that ends then should be renewed now.
pub(crate) fn is_due(not_after: Timestamp, now: Timestamp) -> bool {
    not_after.duration_since(now) < SignedDuration::from_hours(SERVER_DAYS * 24 / 3)
}

/// A new authority.
pub(crate) fn authority(name: &str, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let (mut params, not_after) = valid(CertificateParams::new(vec![])?, now, AUTHORITY_DAYS);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem(), not_after })
}

/// A server certificate for these names, signed by the authority of this name and key.
pub(crate) fn server(
    authority_name: &str,
    authority_key: &str,
    names: &[String],
    now: Timestamp,
) -> Result<Pair, rcgen::Error> {
    let mut authority = CertificateParams::new(vec![])?;
    authority.distinguished_name.push(DnType::CommonName, authority_name);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(authority, KeyPair::from_pem(authority_key)?);
    let (mut params, not_after) = valid(CertificateParams::new(names)?, now, SERVER_DAYS);
    if let Some(name) = names.first() {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem(), not_after })
}

/// From yesterday, because clocks differ, for so many days: whole days, in UTC.
fn valid(mut params: CertificateParams, now: Timestamp, days: i64) -> (CertificateParams, Timestamp) {
    let day = |offset: i64| {
        let time = now.checked_add(SignedDuration::from_hours(offset * 24)).unwrap_or(now);
        let date = time.to_zoned(TimeZone::UTC).date();
        let (year, month, day) = (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs());
        (date_time_ymd(year, month, day), time)
    };
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = day(-1).0;
    let (not_after, time) = day(days);
    params.not_after = not_after;
    (params, time)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    };

    use super::*;

    fn verify(authority: &Pair, server: &Pair, name: &str, at: Timestamp) -> bool {
        let der = |pair: &Pair| CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(authority)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.as_second().unsigned_abs()));
        verifier.verify_server_cert(&der(server), &[], &ServerName::try_from(name).unwrap(), &[], at).is_ok()
    }

    #[test]
    fn a_server_certificate_is_known_by_its_authority_its_name_and_its_time() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let days = |days: i64| now + SignedDuration::from_hours(24 * days);
        let authority_pair = authority("drover masters", now).unwrap();
        let names = ["drover-masters.drover-system.svc".to_owned()];
        let server_pair = server("drover masters", &authority_pair.key, &names, now).unwrap();
        assert!(verify(&authority_pair, &server_pair, &names[0], now));
        assert!(!verify(&authority_pair, &server_pair, "elsewhere.svc", now));
        assert!(!verify(&authority_pair, &server_pair, &names[0], days(91)));
        let other = authority("drover masters", now).unwrap();
        assert!(!verify(&other, &server_pair, &names[0], now));
    }

    #[test]
    fn it_is_renewed_when_a_third_of_its_time_is_left() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let hours = |hours: i64| now + SignedDuration::from_hours(hours);
        assert!(!is_due(hours(31 * 24), now));
        assert!(is_due(hours(29 * 24), now));
    }
}

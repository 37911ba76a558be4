use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::Digest;

/// How a master vouches for a catalog: it signs the catalog's digest, host and generation with the private key of its TLS
/// certificate. So a catalog is proven by the authorities that agents know masters by, whatever carried it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Until when it holds, in seconds since 1970.
    pub expires: u64,
    /// How it was made, by the number that TLS has for it (IANA's registry of signature schemes): 0x0403 is ECDSA on P-256
    /// with SHA-256.
    pub scheme: u16,
    /// The signature of [`Signature::text`], in the form that TLS gives it in this scheme.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// What is signed of a catalog; its digest stands for all the rest of it.
    ///
    /// It begins as what TLS 1.3 signs (RFC 8446, section 4.4.3), with 64 spaces and a line of its own, because the key serves
    /// TLS as well: no signature that a handshake asks for is one of a catalog, also where the caller chooses how the signed
    /// text of TLS 1.2 begins, and the other way round.
    pub fn text(digest: &Digest, host_uid: &str, generation: i64, expires: u64) -> String {
        format!("{:64}drover catalog v1\n{digest}\n{host_uid}\n{generation}\n{expires}\n", "")
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expires, scheme, bytes } = self;
        write!(f, "expires={expires}, scheme={scheme:#06x}, signature={}", STANDARD.encode(bytes))
    }
}

/// The text is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSignature;

impl FromStr for Signature {
    type Err = NoSignature;

    fn from_str(text: &str) -> Result<Self, NoSignature> {
        let value = |name: &str| {
            let mut parts = text.split(',').filter_map(|part| part.trim().split_once('='));
            parts.find(|(key, _)| *key == name).map(|(_, value)| value).ok_or(NoSignature)
        };
        let scheme = value("scheme")?.strip_prefix("0x").ok_or(NoSignature)?;
        Ok(Self {
            expires: value("expires")?.parse().map_err(|_| NoSignature)?,
            scheme: u16::from_str_radix(scheme, 16).map_err(|_| NoSignature)?,
            bytes: STANDARD.decode(value("signature")?).map_err(|_| NoSignature)?,
        })
    }
}

/// Whose signature it is: the master's certificate, then those that lead from it to an authority; at least one, each in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChain(pub Vec<Vec<u8>>);

impl fmt::Display for CertificateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, certificate) in self.0.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "," })?;
            f.write_str(&STANDARD.encode(certificate))?;
        }
        Ok(())
    }
}

/// The text is no chain of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCertificateChain;

impl FromStr for CertificateChain {
    type Err = NoCertificateChain;

    /// What a certificate says is not looked at.
    fn from_str(text: &str) -> Result<Self, NoCertificateChain> {
        let decode = |part: &str| STANDARD.decode(part.trim()).ok().filter(|der| !der.is_empty());
        text.split(',').map(decode).collect::<Option<_>>().map(Self).ok_or(NoCertificateChain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_stays_as_it_is() {
        // Masters and agents of different releases must make the same text.
        let text = Signature::text(&Digest::of(b"abc"), "u1", 7, 1_767_225_600);
        assert_eq!(
            text.trim_start_matches(' '),
            "drover catalog v1\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\nu1\n7\n1767225600\n"
        );
        assert_eq!(text.len() - text.trim_start_matches(' ').len(), 64);
    }

    #[test]
    fn a_signature_that_is_written_is_read() {
        let signature = Signature { expires: 1_767_225_600, scheme: 0x0403, bytes: vec![0, 1, 255, 254] };
        assert_eq!(signature.to_string(), "expires=1767225600, scheme=0x0403, signature=AAH//g==");
        assert_eq!(signature.to_string().parse(), Ok(signature.clone()));
        assert_eq!("signature=AAH//g==,more=3,scheme=0x403,expires=1767225600".parse(), Ok(signature));
        for text in [
            "",
            "expires=1, scheme=0x0403",
            "expires=1, signature=AAA=",
            "scheme=0x0403, signature=AAA=",
            "expires=-1, scheme=0x0403, signature=AAA=",
            "expires=18446744073709551616, scheme=0x0403, signature=AAA=",
            "expires=1, scheme=0x10000, signature=AAA=",
            "expires=1, scheme=1027, signature=AAA=",
            "expires=1, scheme=0x0403, signature=AAA",
            "expires=1, scheme=0x0403, signature=\u{e9}",
        ] {
            assert_eq!(text.parse::<Signature>(), Err(NoSignature), "{text}");
        }
    }

    #[test]
    fn a_chain_that_is_written_is_read() {
        for (chain, text) in [(vec![vec![1, 2, 3]], "AQID"), (vec![vec![1, 2, 3], vec![4]], "AQID,BA==")] {
            let chain = CertificateChain(chain);
            assert_eq!(chain.to_string(), text);
            assert_eq!(text.parse(), Ok(chain));
        }
        assert_eq!("AQID, BA==".parse::<CertificateChain>().map(|chain| chain.0.len()), Ok(2));
        for text in ["", ",", "AQID,", "AQID,,BA==", "AQI", "-----BEGIN CERTIFICATE-----"] {
            assert_eq!(text.parse::<CertificateChain>(), Err(NoCertificateChain), "{text}");
        }
    }
}

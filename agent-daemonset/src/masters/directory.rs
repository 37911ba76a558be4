//! The mounted folder that says where the masters are, whom to trust, and what name their certificate has.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use drover_catalog::Digest;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::MastersError;

/// What the folder says.
#[derive(Debug)]
pub(super) struct Directory {
    /// The name that a master's certificate must have.
    pub(super) server_name: String,
    /// Who may have signed it.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// Where to find masters; at least one.
    pub(super) addresses: Vec<Address>,
    /// Changes with whom to trust and with the name.
    pub(super) digest: Digest,
}

impl Directory {
    pub(super) fn read(folder: &Path) -> Result<Self, MastersError> {
        let (ca_file, name_file, addresses_file) =
            (folder.join("ca.crt"), folder.join("server-name"), folder.join("addresses"));
        let wrong = |path: &PathBuf, problem: String| MastersError::Content { path: path.clone(), problem };

        let ca = read_text(&ca_file)?;
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(ca.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&ca_file, format!("is no PEM bundle: {error}")))?;
        if authorities.is_empty() {
            return Err(wrong(&ca_file, "holds no certificate".to_owned()));
        }
        let server_name = read_text(&name_file)?.trim().to_owned();
        // It becomes the host of a URL, and an address there would be used instead of those below.
        let is_dns_name = server_name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_of_label));
        if !is_dns_name || server_name.parse::<std::net::IpAddr>().is_ok() {
            return Err(wrong(&name_file, "must hold a DNS name, such as drover-masters.drover-system.svc".to_owned()));
        }
        let addresses = read_text(&addresses_file)?
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                Address::parse(line)
                    .ok_or_else(|| wrong(&addresses_file, format!("has {line:?}, which is no HOST:PORT")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(wrong(&addresses_file, "names no master: does the pool have ready replicas?".to_owned()));
        }
        let digest = Digest::of(format!("{server_name}\n{ca}").as_bytes());
        Ok(Self { server_name, authorities, addresses, digest })
    }

    /// The address whose turn it is. Turns go round for ever.
    pub(super) fn address(&self, turn: usize) -> &Address {
        // There is at least one.
        &self.addresses[turn % self.addresses.len()]
    }
}

fn is_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Where a master is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// By number.
    Socket(SocketAddr),
    /// By a name that is looked up, and a port.
    Name(String, u16),
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Socket(address));
        }
        let (name, port) = text.rsplit_once(':')?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| is_of_label(byte) || byte == b'.');
        Some(Self::Name(is_name.then(|| name.to_owned())?, port.parse().ok()?))
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// The addresses to connect to.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Socket(address) => Ok(vec![*address]),
            Self::Name(name, port) => Ok(tokio::net::lookup_host((name.as_str(), *port)).await?.collect()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// A small text file.
pub(super) fn read_text(path: &Path) -> Result<String, MastersError> {
    fs::read_to_string(path).map_err(|source| MastersError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_or_a_name_with_a_port() {
        for (text, shown) in [
            ("192.0.2.1:8443", Some("192.0.2.1:8443")),
            ("[2001:db8::1]:8443", Some("[2001:db8::1]:8443")),
            ("masters.example.org:8443", Some("masters.example.org:8443")),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            ("masters:http", None),
            (":8443", None),
            ("user@masters:8443", None),
        ] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).as_deref(), shown, "{text}");
        }
    }

    /// The folder with these files, and what reading it says.
    #[track_caller]
    fn check(server_name: &str, addresses: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
        for (name, text) in [("ca.crt", ca.as_str()), ("server-name", server_name), ("addresses", addresses)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let said = match Directory::read(folder.path()) {
            Ok(directory) => format!("{} at {}", directory.server_name, directory.address(4)),
            Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn the_folder_is_checked_before_it_is_trusted() {
        check("masters.svc\n", "192.0.2.1:1\n\n192.0.2.2:2\n", "masters.svc at 192.0.2.1:1");
        check("masters.svc", "192.0.2.1:1\n192.0.2.2:2\n192.0.2.3:3", "masters.svc at 192.0.2.2:2");
        check("masters.svc", "\n", "addresses names no master: does the pool have ready replicas?");
        check("masters.svc", "moo", "addresses has \"moo\", which is no HOST:PORT");
        let name = "server-name must hold a DNS name, such as drover-masters.drover-system.svc";
        for wrong in ["192.0.2.1", "", "evil/x", "a..b", "user@masters"] {
            check(wrong, "192.0.2.1:1", name);
        }
    }
}

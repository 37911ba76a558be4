//! The mounted folder that says where the masters are, whom to trust, and what name their certificate has.

use std::{collections::BTreeMap, fmt, fs, io, net::SocketAddr, path::Path};

use drover_catalog::{Digest, Locality};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;

use super::MastersError;

/// What the folder says.
#[derive(Debug)]
pub(super) struct Directory {
    /// The name that a master's certificate must have, of those at `addresses`.
    server_name: String,
    /// Who may have signed it.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// Where to find masters; at least one.
    addresses: Vec<Address>,
    /// The pools by name, where the folder knows of several or of zones.
    pools: BTreeMap<String, Pool>,
    /// Changes with whom to trust.
    pub(super) digest: Digest,
}

/// A pool of masters.
#[derive(Debug)]
struct Pool {
    server_name: String,
    addresses: Vec<Address>,
    zones: BTreeMap<String, Vec<Address>>,
    regions: BTreeMap<String, Vec<Address>>,
}

/// The file `pools.json`: a pool by its name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    server_name: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    zones: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    regions: BTreeMap<String, Vec<String>>,
}

/// A master that can be asked, or a Service of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// How far away it is: 0 are the nearest that there are for this machine.
    pub(super) tier: usize,
    /// The name that its certificate must have.
    pub(super) server_name: String,
    /// Where it is.
    pub(super) address: Address,
}

impl Directory {
    pub(super) fn read(folder: &Path) -> Result<Self, MastersError> {
        let file = |name: &str| folder.join(name);
        let (ca_file, name_file, addresses_file, pools_file) =
            (file("ca.crt"), file("server-name"), file("addresses"), file("pools.json"));

        let ca = read_text(&ca_file)?;
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(ca.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&ca_file, format!("is no PEM bundle: {error}")))?;
        if authorities.is_empty() {
            return Err(wrong(&ca_file, "holds no certificate".to_owned()));
        }
        let server_name = server_name(&name_file, &read_text(&name_file)?)?;
        let addresses = addresses(&addresses_file, read_text(&addresses_file)?.lines())?;
        if addresses.is_empty() {
            return Err(wrong(&addresses_file, "names no master: does the pool have ready replicas?".to_owned()));
        }
        // A folder that somebody made by hand has none.
        let pools = if pools_file.exists() { pools(&pools_file)? } else { BTreeMap::new() };
        Ok(Self { server_name, authorities, addresses, pools, digest: Digest::of(ca.as_bytes()) })
    }

    /// Whom a machine asks at this locality, the nearest first: its pool's masters in its zone, those in its region, all of its pool,
    /// and at last the others. In each tier it begins at a place of its own, so that machines spread.
    pub(super) fn candidates(&self, locality: &Locality, own: usize) -> Vec<Candidate> {
        let pool = locality.pool.as_ref().and_then(|name| self.pools.get(name));
        let near = pool.map(|pool| {
            let zone = locality.zone.as_ref().and_then(|zone| pool.zones.get(zone));
            let region = locality.region.as_ref().and_then(|region| pool.regions.get(region));
            [zone, region, Some(&pool.addresses)].map(|addresses| (pool.server_name.as_str(), addresses))
        });
        let tiers = near.into_iter().flatten().chain([(self.server_name.as_str(), Some(&self.addresses))]);
        let tiers = tiers.filter_map(|(name, addresses)| Some((name, addresses.filter(|list| !list.is_empty())?)));
        let mut candidates: Vec<Candidate> = Vec::new();
        for (tier, (server_name, addresses)) in tiers.enumerate() {
            let start = own % addresses.len();
            for address in addresses[start..].iter().chain(&addresses[..start]) {
                let known = |known: &Candidate| known.server_name == server_name && known.address == *address;
                if !candidates.iter().any(known) {
                    candidates.push(Candidate { tier, server_name: server_name.to_owned(), address: address.clone() });
                }
            }
        }
        candidates
    }
}

fn wrong(path: &Path, problem: String) -> MastersError {
    MastersError::Content { path: path.to_owned(), problem }
}

/// A name that becomes the host of a URL: an address there would be used instead of those of the masters.
fn server_name(path: &Path, text: &str) -> Result<String, MastersError> {
    let name = text.trim();
    let is_dns_name = name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_of_label));
    if !is_dns_name || name.parse::<std::net::IpAddr>().is_ok() {
        return Err(wrong(path, "must hold a DNS name, such as drover-masters.drover-system.svc".to_owned()));
    }
    Ok(name.to_owned())
}

fn addresses<'a>(path: &Path, lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<Address>, MastersError> {
    let lines = lines.into_iter().map(str::trim).filter(|line| !line.is_empty());
    let parse = |line| Address::parse(line).ok_or_else(|| wrong(path, format!("has {line:?}, which is no HOST:PORT")));
    lines.map(parse).collect()
}

fn pools(path: &Path) -> Result<BTreeMap<String, Pool>, MastersError> {
    let written: BTreeMap<String, Written> =
        serde_json::from_str(&read_text(path)?).map_err(|error| wrong(path, format!("can not be read: {error}")))?;
    let list = |list: Vec<String>| addresses(path, list.iter().map(String::as_str));
    let tiers = |tiers: BTreeMap<String, Vec<String>>| {
        tiers.into_iter().map(|(name, addresses)| Ok((name, list(addresses)?))).collect::<Result<_, MastersError>>()
    };
    let pool = |(name, pool): (String, Written)| {
        let Written { server_name: host, addresses, zones, regions } = pool;
        let server_name = server_name(path, &host)?;
        Ok((name, Pool { server_name, addresses: list(addresses)?, zones: tiers(zones)?, regions: tiers(regions)? }))
    };
    written.into_iter().map(pool).collect()
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
            Ok(directory) => {
                let first = &directory.candidates(&Locality::default(), 4)[0];
                format!("{} at {}", first.server_name, first.address)
            }
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

    #[test]
    fn a_machine_asks_the_nearest_masters_of_its_pool_first() {
        let folder = tempfile::tempdir().unwrap();
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
        let pools = r#"{
            "eu": {"serverName": "eu.svc", "addresses": ["192.0.2.1:1"],
                   "zones": {"eu-1a": ["192.0.2.2:1"], "eu-1b": ["192.0.2.3:1"]}, "regions": {"eu-1": ["192.0.2.4:1"]}},
            "masters": {"serverName": "masters.svc", "addresses": ["192.0.2.9:1"]},
            "starting": {"serverName": "starting.svc"}
        }"#;
        for (name, text) in [
            ("ca.crt", ca.as_str()),
            ("server-name", "masters.svc"),
            ("addresses", "192.0.2.9:1"),
            ("pools.json", pools),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let directory = Directory::read(folder.path()).unwrap();
        let at = |locality: &str| {
            let candidates = directory.candidates(&locality.parse().unwrap(), 0);
            let shown = candidates.iter().map(|one| format!("{} {}", one.tier, one.address));
            shown.collect::<Vec<_>>().join(", ").replace("192.0.2.", "").replace(":1", "")
        };
        assert_eq!(at(""), "0 9");
        assert_eq!(at("pool=eu, zone=eu-1a, region=eu-1"), "0 2, 1 4, 2 1, 3 9");
        assert_eq!(at("pool=eu, zone=eu-2a, region=eu-1"), "0 4, 1 1, 2 9");
        assert_eq!(at("pool=eu"), "0 1, 1 9");
        assert_eq!(at("pool=masters, zone=eu-1a"), "0 9", "the same masters twice are one");
        assert_eq!(at("pool=gone, zone=eu-1a"), "0 9");
        assert_eq!(at("pool=starting"), "0 9", "nobody is there yet");
        let names = directory.candidates(&"pool=eu".parse().unwrap(), 0).into_iter().map(|one| one.server_name);
        assert_eq!(names.collect::<Vec<_>>(), ["eu.svc", "masters.svc"]);

        fs::write(folder.path().join("pools.json"), r#"{"eu": {"serverName": "evil/x"}}"#).unwrap();
        assert!(Directory::read(folder.path()).unwrap_err().to_string().contains("must hold a DNS name"));
    }
}

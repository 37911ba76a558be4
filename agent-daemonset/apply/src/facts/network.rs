//! Names and addresses. Interfaces that containers come and go with are left out.

use std::{collections::BTreeMap, net::IpAddr};

use drover_catalog::Networking;

/// Beginnings of the names of interfaces that belong to containers.
const OF_CONTAINERS: &[&str] = &["veth", "cni", "docker", "br-", "cali", "flannel", "lxc"];

/// `booted`: whether the interfaces of this kernel are the machine's.
pub(super) fn gather(fqdn: String, booted: bool) -> Networking {
    let found = if booted { if_addrs::get_if_addrs().unwrap_or_default() } else { Vec::new() };
    let interfaces = by_interface(found.into_iter().map(|interface| (interface.ip(), interface.name)));
    Networking {
        hostname: fqdn.split('.').next().unwrap_or_default().to_owned(),
        fqdn,
        ip: primary(&interfaces),
        interfaces: interfaces
            .into_iter()
            .map(|(name, addresses)| (name, addresses.iter().map(ToString::to_string).collect()))
            .collect(),
    }
}

fn by_interface(found: impl Iterator<Item = (IpAddr, String)>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut interfaces: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (address, name) in found {
        if is_routable(address) && !OF_CONTAINERS.iter().any(|prefix| name.starts_with(prefix)) {
            interfaces.entry(name).or_default().push(address);
        }
    }
    for addresses in interfaces.values_mut() {
        addresses.sort_unstable();
    }
    interfaces
}

/// IPv4 before IPv6, which is also their order.
fn primary(interfaces: &BTreeMap<String, Vec<IpAddr>>) -> String {
    let mut addresses = interfaces.values().flatten();
    let first = addresses.clone().find(|address| address.is_ipv4()).or_else(|| addresses.next());
    first.map(ToString::to_string).unwrap_or_default()
}

fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(rows: &[(&str, &str)]) -> BTreeMap<String, Vec<IpAddr>> {
        by_interface(rows.iter().map(|(name, address)| (address.parse().unwrap(), (*name).to_owned())))
    }

    #[test]
    fn keeps_what_stays_and_leads_somewhere() {
        let kept = interfaces(&[
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "fe80::1"),
            ("eth0", "192.0.2.9"),
            ("eth0", "192.0.2.10"),
            ("eth1", "169.254.1.1"),
            ("veth1a2b", "10.0.0.1"),
            ("cni0", "10.0.0.2"),
            ("docker0", "172.17.0.1"),
            ("br-12ab", "172.18.0.1"),
            ("cali12", "10.0.0.3"),
            ("flannel.1", "10.0.0.4"),
            ("lxc1", "10.0.0.5"),
            ("wg0", "2001:db8::1"),
        ]);
        let shown: Vec<String> = kept.iter().map(|(name, addresses)| format!("{name} {addresses:?}")).collect();
        assert_eq!(shown, ["eth0 [192.0.2.9, 192.0.2.10]", "wg0 [2001:db8::1]"]);
    }

    #[test]
    fn the_first_address_is_of_ipv4_if_there_is_one() {
        assert_eq!(primary(&interfaces(&[("a", "2001:db8::1"), ("b", "192.0.2.1")])), "192.0.2.1");
        assert_eq!(primary(&interfaces(&[("a", "2001:db8::1")])), "2001:db8::1");
        assert_eq!(primary(&interfaces(&[])), "");
    }
}

//! Names and addresses. Interfaces that containers come and go with are left out, and so are addresses that change by
//! themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use drover_catalog::{
    Networking,
    facts::{Binding, Interface},
};
use if_addrs::IfAddr;

use super::Files;

/// Beginnings of the names of interfaces that belong to containers, virtual machines and Services.
const OF_GUESTS: &[&str] = &[
    "veth",
    "cni",
    "cbr",
    "docker",
    "podman",
    "br-",
    "cali",
    "vxlan.calico",
    "tunl",
    "flannel",
    "lxc",
    "cilium",
    "weave",
    "antrea",
    "ovn",
    "genev",
    "kube-",
    "nodelocaldns",
    "virbr",
    "vnet",
    "tap",
];

/// An address that some interface has.
struct Found {
    interface: String,
    address: IpAddr,
    netmask: IpAddr,
}

/// `booted`: whether the interfaces of this kernel are the machine's. They are those of this process's network
/// namespace, so `/proc/net` is this process's too.
pub(super) fn gather(files: &Files, fqdn: String, booted: bool) -> Networking {
    let own = |path: &str| if booted { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let temporary = temporary(&own("/proc/net/if_inet6"));
    let found = if booted { if_addrs::get_if_addrs().unwrap_or_default() } else { Vec::new() };
    let mut interfaces = by_interface(found.into_iter().map(found_of), &temporary);
    for (name, interface) in &mut interfaces {
        interface.mac = files.line(&format!("/sys/class/net/{name}/address"));
        interface.mtu = files.line(&format!("/sys/class/net/{name}/mtu")).parse().unwrap_or(0);
    }
    let primary = default_route(&own("/proc/net/route"))
        .or_else(|| default_route6(&own("/proc/net/ipv6_route")))
        .filter(|name| interfaces.contains_key(name))
        .or_else(|| first(&interfaces))
        .unwrap_or_default();
    let Interface { ip, ip6, mac, .. } = interfaces.get(&primary).cloned().unwrap_or_default();
    let (hostname, domain) = fqdn.split_once('.').unwrap_or((&fqdn, ""));
    Networking { hostname: hostname.to_owned(), domain: domain.to_owned(), fqdn, primary, ip, ip6, mac, interfaces }
}

fn found_of(interface: if_addrs::Interface) -> Found {
    let (address, netmask) = match interface.addr {
        IfAddr::V4(v4) => (v4.ip.into(), v4.netmask.into()),
        IfAddr::V6(v6) => (v6.ip.into(), v6.netmask.into()),
    };
    Found { interface: interface.name, address, netmask }
}

fn by_interface(found: impl Iterator<Item = Found>, temporary: &BTreeSet<Ipv6Addr>) -> BTreeMap<String, Interface> {
    let stays = |found: &Found| match found.address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !temporary.contains(&v6),
    };
    let mut found: Vec<Found> = found
        .filter(|found| !OF_GUESTS.iter().any(|prefix| found.interface.starts_with(prefix)))
        .filter(stays)
        .collect();
    // By number, not by text: 192.0.2.9 comes before 192.0.2.10.
    found.sort_unstable_by_key(|found| found.address);
    let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
    for Found { interface, address, netmask } in found {
        let interface = interfaces.entry(interface).or_default();
        let (first, bindings) = match address {
            IpAddr::V4(_) => (&mut interface.ip, &mut interface.bindings),
            IpAddr::V6(_) => (&mut interface.ip6, &mut interface.bindings6),
        };
        let binding = Binding {
            address: address.to_string(),
            netmask: netmask.to_string(),
            network: network(address, netmask).to_string(),
        };
        if first.is_empty() {
            first.clone_from(&binding.address);
        }
        if !bindings.contains(&binding) {
            bindings.push(binding);
        }
    }
    interfaces
}

fn network(address: IpAddr, netmask: IpAddr) -> IpAddr {
    match (address, netmask) {
        (IpAddr::V4(address), IpAddr::V4(netmask)) => (address & netmask).into(),
        (IpAddr::V6(address), IpAddr::V6(netmask)) => (address & netmask).into(),
        _ => address,
    }
}

/// The first interface by name that has an IPv4 address; else the first.
fn first(interfaces: &BTreeMap<String, Interface>) -> Option<String> {
    let with_ipv4 = interfaces.iter().find(|(_, interface)| !interface.ip.is_empty());
    with_ipv4.or_else(|| interfaces.iter().next()).map(|(name, _)| name.clone())
}

/// The interface of the IPv4 default route with the lowest metric, from `/proc/net/route`: destination, mask and metric
/// are its columns 2, 8 and 7.
fn default_route(table: &str) -> Option<String> {
    let metric = |line: &str| {
        let mut columns = line.split_whitespace();
        let (name, destination) = (columns.next()?, columns.next()?);
        let (metric, mask) = (columns.nth(4)?, columns.next()?);
        let is_default = destination == "00000000" && mask == "00000000";
        is_default.then_some((metric.parse::<u32>().ok()?, name.to_owned()))
    };
    table.lines().filter_map(metric).min().map(|(_, name)| name)
}

/// The same for IPv6, from `/proc/net/ipv6_route`: destination, its prefix and the interface are columns 1, 2 and 10. The
/// loopback interface has an entry that refuses what has no route.
fn default_route6(table: &str) -> Option<String> {
    let name = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (destination, prefix, metric, name) = (columns.first()?, columns.get(1)?, columns.get(5)?, columns.get(9)?);
        let is_default = destination.chars().all(|c| c == '0') && *prefix == "00" && *name != "lo";
        is_default.then_some((u32::from_str_radix(metric, 16).ok()?, (*name).to_owned()))
    };
    table.lines().filter_map(name).min().map(|(_, name)| name)
}

/// Addresses with `IFA_F_TEMPORARY`, from `/proc/net/if_inet6`: address and flags are columns 1 and 5.
fn temporary(table: &str) -> BTreeSet<Ipv6Addr> {
    const IFA_F_TEMPORARY: u32 = 0x01;
    let address = |line: &str| {
        let mut columns = line.split_whitespace();
        let address = u128::from_str_radix(columns.next()?, 16).ok()?;
        let flags = u32::from_str_radix(columns.nth(3)?, 16).ok()?;
        (flags & IFA_F_TEMPORARY != 0).then(|| Ipv6Addr::from(address))
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(rows: &[(&str, &str)], temporary: &[&str]) -> BTreeMap<String, Interface> {
        let found = |(name, address): &(&str, &str)| {
            let address: IpAddr = address.parse().unwrap();
            let netmask = if address.is_ipv4() { "255.255.255.0" } else { "ffff:ffff:ffff:ffff::" };
            Found { interface: (*name).to_owned(), address, netmask: netmask.parse().unwrap() }
        };
        by_interface(rows.iter().map(found), &temporary.iter().map(|address| address.parse().unwrap()).collect())
    }

    #[test]
    fn keeps_what_stays_and_leads_somewhere() {
        let rows = [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "fe80::1"),
            ("eth0", "192.0.2.10"),
            ("eth0", "192.0.2.9"),
            ("eth0", "2001:db8::7"),
            ("eth0", "2001:db8::8"),
            ("eth1", "169.254.1.1"),
            ("veth1a2b", "10.0.0.1"),
            ("cni0", "10.0.0.2"),
            ("docker0", "172.17.0.1"),
            ("br-12ab", "172.18.0.1"),
            ("cali12", "10.0.0.3"),
            ("flannel.1", "10.0.0.4"),
            ("lxc1", "10.0.0.5"),
            ("kube-ipvs0", "10.96.0.1"),
            ("wg0", "2001:db8::1"),
        ];
        let kept = interfaces(&rows, &["2001:db8::7"]);
        let addresses = |bindings: &[Binding]| bindings.iter().map(|b| b.address.clone()).collect::<Vec<_>>().join(" ");
        let shown: Vec<String> = kept
            .iter()
            .map(|(name, i)| format!("{name}: {} [{}] [{}]", i.ip, addresses(&i.bindings), addresses(&i.bindings6)))
            .collect();
        assert_eq!(shown, ["eth0: 192.0.2.9 [192.0.2.9 192.0.2.10] [2001:db8::8]", "wg0:  [] [2001:db8::1]"]);
        assert_eq!(kept["eth0"].bindings[0].network, "192.0.2.0");
        assert_eq!(kept["wg0"].bindings6[0].network, "2001:db8::");
    }

    #[test]
    fn without_a_default_route_the_first_with_ipv4_is_primary() {
        for (rows, expected) in [
            (&[("a", "2001:db8::1"), ("b", "192.0.2.1")][..], Some("b")),
            (&[("a", "2001:db8::1")], Some("a")),
            (&[], None),
        ] {
            assert_eq!(first(&interfaces(rows, &[])).as_deref(), expected);
        }
    }

    #[test]
    fn reads_the_kernels_tables() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        for (rows, expected) in [
            (
                "wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\neth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n",
                Some("eth0"),
            ),
            ("vpn0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n", None),
            ("eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", None),
            ("", None),
        ] {
            assert_eq!(default_route(&format!("{head}{rows}")).as_deref(), expected, "{rows}");
        }
        let none = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        let route = |name: &str| format!("{none} 00 {none} 00 {gateway} 00000400 00000001 00000000 00450003 {name}\n");
        assert_eq!(default_route6(&(route("lo") + &route("eth0"))).as_deref(), Some("eth0"));
        assert_eq!(default_route6(&route("lo")), None);

        let table = "20010db8000000000000000000000007 02 40 00 01     eth0\n20010db8000000000000000000000008 02 40 00 80     eth0\n";
        assert_eq!(temporary(table), BTreeSet::from(["2001:db8::7".parse().unwrap()]));
    }
}

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What templates may know of a machine: facts that stay the same while it runs, in facter's familiar names.
///
/// They are part of a catalog's key, so nothing that changes by itself (load, free memory, time) belongs here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The operating system.
    pub os: Os,
    /// The kernel's name, `Linux`.
    pub kernel: String,
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub kernelrelease: String,
    /// The processor architecture as the kernel names it, such as `x86_64`.
    pub architecture: String,
    /// The names and addresses of the machine.
    pub networking: Networking,
    /// The processors.
    pub processors: Processors,
    /// The memory.
    pub memory: Memory,
    /// Who runs services: `systemd`, or `none` (a folder that stands for a machine, an image build).
    pub init: String,
    /// The machine's id from `/etc/machine-id`; empty where there is none.
    pub machine_id: String,
}

/// The operating system, from `os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `NAME`, such as `Debian GNU/Linux`.
    pub name: String,
    /// The family by `ID` and `ID_LIKE`: `debian`, `redhat`, `suse`, `arch`, or the `ID` itself.
    pub family: String,
    /// `VERSION_ID`, such as `12`.
    pub release: String,
    /// `VERSION_CODENAME`, such as `bookworm`.
    pub codename: String,
}

/// The names and addresses of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Networking {
    /// The host name up to its first dot.
    pub hostname: String,
    /// The host name as the kernel has it.
    pub fqdn: String,
    /// The first address that is neither loopback nor link-local, IPv4 before IPv6; empty where there is none.
    pub ip: String,
    /// Addresses that are neither loopback nor link-local, by interface, sorted. Interfaces that containers come and
    /// go with (`veth*`, `cni*`, `docker*`, `br-*`, `cali*`, `flannel*`, `lxc*`) are left out: they would change the
    /// catalog's key with each pod.
    pub interfaces: BTreeMap<String, Vec<String>>,
}

/// The processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processors {
    /// How many logical processors are online.
    pub count: u32,
}

/// The memory of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// All of it, in MiB.
    pub total_mib: u64,
}

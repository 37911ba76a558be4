//! What is known of a machine. Names, shapes and units are those of facter's core facts; where a value differs on
//! purpose, its comment says so. `docs/facts.md` is the user's list, with examples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What templates may know of a machine: facts that stay the same while it runs.
///
/// They are part of a catalog's key, so nothing that changes by itself (load, free memory, time) belongs here; see
/// [`VolatileFacts`]. What a machine does not have is an empty string, `0`, `false` or an empty map, so that a strict
/// template can ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The operating system.
    pub os: Os,
    /// The kernel's name, `Linux`.
    pub kernel: String,
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub kernelrelease: String,
    /// The numbers at the beginning of the release, such as `6.1.0`.
    pub kernelversion: String,
    /// The first two of these numbers, such as `6.1`.
    pub kernelmajversion: String,
    /// The names and addresses of the machine.
    pub networking: Networking,
    /// The processors.
    pub processors: Processors,
    /// The memory.
    pub memory: Memory,
    /// The disks, by the kernel's name, such as `sda`. Only what has hardware behind it.
    pub disks: BTreeMap<String, Disk>,
    /// The mounted file systems, by path. Those that containers come and go with, and those of the kernel, are left out.
    pub mountpoints: BTreeMap<String, Mountpoint>,
    /// What the firmware says of the hardware.
    pub dmi: Dmi,
    /// Whether the machine is a virtual one.
    pub is_virtual: bool,
    /// The hypervisor: `kvm`, `vmware`, `virtualbox`, `hyperv`, `xen`, `gce`, `parallels`, or `hypervisor` for another one;
    /// `physical` where there is none.
    pub r#virtual: String,
    /// The time zone by its name in the tz database, such as `Europe/Berlin`; `UTC` where none is set. Facter has an
    /// abbreviation here, which changes twice a year.
    pub timezone: String,
    /// The public host keys of sshd, by algorithm: `rsa`, `ecdsa`, `ed25519`.
    pub ssh: BTreeMap<String, SshKey>,
    /// Whether the kernel is in FIPS mode.
    pub fips_enabled: bool,
    /// Who runs services: `systemd`, or `none` (a folder that stands for a machine, an image build).
    pub service_provider: String,
    /// Who installs packages: `apt`, `dnf`, `yum`, `zypper`, `apk`, `pacman`; empty where none of them is there.
    pub package_provider: String,
    /// The machine's id from `/etc/machine-id`; empty where there is none.
    pub machine_id: String,
    /// What the machine says of itself through `/etc/drover/facts.d`, by name.
    pub custom: BTreeMap<String, Value>,
}

impl Facts {
    /// How many bytes of JSON the facts of one machine may have: they are kept in its Host.
    pub const MAX_BYTES: usize = 64 << 10;
}

/// The operating system, from os-release(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `ID`, such as `debian`. Not one of facter's.
    pub id: String,
    /// The distribution, such as `Debian`, `Ubuntu`, `RedHat`, `Rocky`.
    pub name: String,
    /// The family: `Debian`, `RedHat`, `Suse`, `Archlinux`, or the name itself.
    pub family: String,
    /// The release.
    pub release: Release,
    /// The distribution, in its own words.
    pub distro: Distro,
    /// The processor architecture as packages name it: `amd64` and `arm64` in Debian's family, else as
    /// [`hardware`](Self::hardware).
    pub architecture: String,
    /// The processor architecture as the kernel names it, such as `x86_64`.
    pub hardware: String,
    /// Security-Enhanced Linux.
    pub selinux: Selinux,
}

/// A release of an operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    /// All of it, such as `12.5`.
    pub full: String,
    /// Its first part, such as `12`; `22.04` for Ubuntu, whose releases have two.
    pub major: String,
    /// Its second part, such as `5`; empty for Ubuntu.
    pub minor: String,
}

/// A distribution, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Distro {
    /// `VERSION_CODENAME`, such as `bookworm`.
    pub codename: String,
    /// `PRETTY_NAME`, such as `Debian GNU/Linux 12 (bookworm)`.
    pub description: String,
}

/// Security-Enhanced Linux; see selinux(8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selinux {
    /// Whether the kernel has a policy.
    pub enabled: bool,
    /// Whether the kernel acts by it.
    pub enforced: bool,
    /// `SELINUX` of `/etc/selinux/config`: `enforcing`, `permissive`, `disabled`.
    pub config_mode: String,
    /// `SELINUXTYPE` of `/etc/selinux/config`, such as `targeted`.
    pub config_policy: String,
}

/// The names and addresses of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Networking {
    /// The host name up to its first dot.
    pub hostname: String,
    /// The host name as the kernel has it.
    pub fqdn: String,
    /// The host name after its first dot.
    pub domain: String,
    /// The interface of the default route; else the first that has an address.
    pub primary: String,
    /// The primary interface's first IPv4 address.
    pub ip: String,
    /// The primary interface's first IPv6 address.
    pub ip6: String,
    /// The primary interface's hardware address.
    pub mac: String,
    /// Interfaces with an address that is neither loopback nor link-local, by name. Interfaces that containers come and
    /// go with are left out: they would change the catalog's key with each pod.
    pub interfaces: BTreeMap<String, Interface>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its first IPv4 address.
    pub ip: String,
    /// Its first IPv6 address.
    pub ip6: String,
    /// Its hardware address.
    pub mac: String,
    /// The greatest packet it takes, in bytes.
    pub mtu: u32,
    /// Its IPv4 addresses, sorted.
    pub bindings: Vec<Binding>,
    /// Its IPv6 addresses, sorted. Temporary ones (RFC 8981) are left out.
    pub bindings6: Vec<Binding>,
}

/// An address of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Binding {
    /// The address.
    pub address: String,
    /// The mask of its network.
    pub netmask: String,
    /// Its network.
    pub network: String,
}

/// The processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processors {
    /// How many logical processors are online.
    pub count: u32,
    /// How many processors are in sockets.
    pub physicalcount: u32,
    /// Their models, each once. Facter repeats it for each logical processor.
    pub models: Vec<String>,
    /// The instruction set, such as `x86_64`.
    pub isa: String,
}

/// The memory of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What the kernel has of main memory.
    pub system: Size,
    /// The swap space in use by the kernel.
    pub swap: Size,
}

/// A size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Size {
    /// All of it, in bytes.
    pub total_bytes: u64,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its model, as it says itself.
    pub model: String,
    /// `ssd`, or `hdd` for what rotates.
    pub r#type: String,
}

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mountpoint {
    /// What is mounted, such as `/dev/sda1`.
    pub device: String,
    /// The type of file system, such as `ext4`.
    pub filesystem: String,
    /// Its size in bytes; 0 for one that is not on a disk of this machine, which is not asked.
    pub size_bytes: u64,
}

/// What the firmware says of the hardware; see SMBIOS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dmi {
    /// Who made the machine.
    pub manufacturer: String,
    /// The machine.
    pub product: DmiProduct,
    /// Its firmware.
    pub bios: DmiBios,
    /// Its main board.
    pub board: DmiBoard,
    /// Its case.
    pub chassis: DmiChassis,
}

/// A product, as its firmware names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmiProduct {
    /// Its name.
    pub name: String,
    /// Its serial number.
    pub serial_number: String,
    /// Its UUID.
    pub uuid: String,
}

/// A firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmiBios {
    /// Who made it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// When it was released, as `MM/DD/YYYY`.
    pub release_date: String,
}

/// A main board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmiBoard {
    /// Who made it.
    pub manufacturer: String,
    /// Its name.
    pub product: String,
    /// Its serial number.
    pub serial_number: String,
}

/// A case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmiChassis {
    /// Its form, such as `Rack Mount Chassis`.
    pub r#type: String,
    /// The number that its owner gave it.
    pub asset_tag: String,
}

/// A public host key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SshKey {
    /// Its type, such as `ssh-ed25519`.
    pub r#type: String,
    /// The key in base64, as in `known_hosts`.
    pub key: String,
    /// Its fingerprints.
    pub fingerprints: SshFingerprints,
}

/// Fingerprints of a public host key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SshFingerprints {
    /// As `ssh-keygen -l` writes it: `SHA256:` and base64. Facter has an SSHFP record here.
    pub sha256: String,
}

/// What changes by itself. It is for people and monitoring on the machine: it is never sent, and no template reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolatileFacts {
    /// The memory that is free for programs.
    pub memory: AvailableMemory,
    /// How many processes ran or waited on average.
    pub load_averages: LoadAverages,
    /// How long the kernel has been running.
    pub system_uptime: Uptime,
    /// The time in seconds since 1970-01-01 00:00 UTC.
    pub time: u64,
}

/// The memory that is free for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AvailableMemory {
    /// Of main memory.
    pub system: Available,
    /// Of swap space.
    pub swap: Available,
}

/// What is left of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Available {
    /// In bytes.
    pub available_bytes: u64,
}

/// How many processes ran or waited on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadAverages {
    /// In the last minute.
    #[serde(rename = "1m")]
    pub one_minute: f64,
    /// In the last 5 minutes.
    #[serde(rename = "5m")]
    pub five_minutes: f64,
    /// In the last 15 minutes.
    #[serde(rename = "15m")]
    pub fifteen_minutes: f64,
}

/// How long the kernel has been running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uptime {
    /// In seconds.
    pub seconds: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_empty_and_what_is_not_known_is_ignored() {
        let said = json!({"os": {"family": "Debian", "mood": "good"}, "virtual": "kvm", "custom": {"rack": {"row": 3}}, "moo": 1});
        let facts: Facts = serde_json::from_value(said).unwrap();
        assert_eq!((facts.os.family.as_str(), facts.r#virtual.as_str()), ("Debian", "kvm"));
        assert_eq!((facts.os.release.minor.as_str(), &facts.custom["rack"]["row"]), ("", &json!(3)));
        assert_eq!(serde_json::from_value::<Facts>(serde_json::to_value(&facts).unwrap()).unwrap(), facts);
    }
}

//! What the kernel does: parameters, modules, mounts, swap.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ensure, formats};

/// A kernel parameter, live and, through a file in `/etc/sysctl.d`, after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sysctl {
    /// The parameter, such as `net.ipv4.ip_forward`.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = ("self.contains('{{') || self.matches('^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$')", "write the parameter as sysctl prints it, such as net.ipv4.ip_forward"))]
    pub key: String,
    /// The value as the kernel takes it, as a string: `"1"`, `"4096 87380 6291456"`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = (r"self.contains('{{') || self.matches(r'^[^\n\x00]+$')", "write the value on one line"))]
    pub value: String,
    /// Also after a reboot. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at_boot: Option<bool>,
}

/// A kernel module: loaded now, loaded at boot (`/etc/modules-load.d/drover-NAME.conf`), with options or blacklisted
/// (`/etc/modprobe.d/drover-NAME.conf`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelModule {
    /// Its name. Left out: the name of the resource.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Loaded now, or not. Left out: true, or false when it is blacklisted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loaded: Option<bool>,
    /// Loaded at boot. Left out: as `loaded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at_boot: Option<bool>,
    /// Its options, such as `max_loop=64`. They take effect when the module is loaded the next time.
    #[schemars(schema_with = "formats::line")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub options: Option<String>,
    /// Nothing loads it by itself; an explicit load still does. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blacklisted: Option<bool>,
}

/// A file system: mounted now, and by a line of `/etc/fstab` at boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' || has(self.device) && has(self.fstype)",
    "a mount has device and fstype; to remove one write ensure: Absent"
))]
pub struct Mount {
    /// Where: absolute. The directory must be there; require a `directory` resource that makes it.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// What: a device, `LABEL=…`, `UUID=…`, `server:/path`, or a name such as `tmpfs`.
    #[schemars(schema_with = "formats::line")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// The type of file system, such as `ext4`.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9_.,-]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fstype: Option<String>,
    /// Options, such as `noatime`. Left out: `defaults`.
    #[schemars(length(max = 64), inner(length(max = 255), regex(pattern = r"^[^\s,]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub options: Vec<String>,
    /// When `fsck` checks it at boot: 1 first, 2 later, 0 never. Left out: 0.
    #[schemars(range(min = 0, max = 2))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pass: Option<i32>,
    /// Left out: `Mounted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<MountEnsure>,
}

/// Whether a file system is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MountEnsure {
    /// In `/etc/fstab`, and mounted.
    #[default]
    Mounted,
    /// In `/etc/fstab`; mounted or not.
    Present,
    /// Unmounted, and then taken out of `/etc/fstab`.
    Absent,
}

/// A swap file, or a block device with swap on it: active now, and by a line of `/etc/fstab` at boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Swap {
    /// The file, or the device.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// The size of the file in MiB. Left out: it is a block device, which is never made or resized.
    #[schemars(range(min = 1, max = 16_777_216))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_mib: Option<i64>,
    /// Which swap is used first: the highest. Left out: the kernel's choice.
    #[schemars(range(min = 0, max = 32767))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<i32>,
    /// A swap file that is Absent is removed. Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

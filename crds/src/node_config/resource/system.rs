//! What a machine is called, where it is, whom it trusts, and how much its users may have.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContentSource, Ensure, formats};

/// Limits of users' processes, by `pam_limits`: `/etc/security/limits.d/NAME.conf`. They hold from the next login.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.entries) != (has(self.ensure) && self.ensure == 'Absent')",
    "limits have entries; to remove them write ensure: Absent and no entries"
))]
pub struct Limits {
    /// Names the file, without `.conf`. Left out: the name of the resource.
    #[schemars(schema_with = "formats::file_name")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The limits.
    #[schemars(length(max = 100))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub entries: Vec<Limit>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

/// One limit; see limits.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Whose: a user, `@group`, `*` for all.
    #[schemars(length(max = 64), regex(pattern = r"^[^\s#]+$|\{\{"))]
    pub domain: String,
    /// Which.
    #[serde(rename = "type")]
    pub kind: LimitType,
    /// Of what, such as `nofile` or `memlock`.
    #[schemars(length(max = 32), regex(pattern = r"^[a-z]+$|\{\{"))]
    pub item: String,
    /// How much, as a string: a number, `unlimited` or `infinity`.
    #[schemars(length(max = 32), regex(pattern = r"^(-?[0-9]+|unlimited|infinity)$|\{\{"))]
    pub value: String,
}

/// Which limit of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LimitType {
    /// What a process begins with.
    Soft,
    /// As far as a process may raise its own.
    Hard,
    /// Both.
    #[default]
    Both,
}

/// The machine's name: in the kernel and in `/etc/hostname`. A cluster node registers under its name, so leave that alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hostname {
    /// The name, such as `web-1` or `web-1.example.com`.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$|\{\{"))]
    pub name: String,
}

/// The machine's time zone: `/etc/localtime`, and `/etc/timezone` on Debian and its relatives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timezone {
    /// The zone, such as `Europe/Berlin` or `Etc/UTC`; it must be in the machine's `/usr/share/zoneinfo`.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$|\{\{"))]
    pub zone: String,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ip) != (has(self.ensure) && self.ensure == 'Absent')",
    "an entry has an ip; to remove one write ensure: Absent and no ip"
))]
pub struct HostsEntry {
    /// The address, IPv4 or IPv6.
    #[schemars(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ip: Option<String>,
    /// The names. The first one finds the line, whatever its address is.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(max = 253), regex(pattern = r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$|\{\{"))
    )]
    pub names: Vec<String>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

/// A certificate authority that the whole machine trusts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.content) && !has(self.contentFrom) : has(self.content) != has(self.contentFrom)",
    "a certificate has either content or contentFrom; to remove one write ensure: Absent and neither of them"
))]
pub struct CaCertificate {
    /// Names the file, without a suffix. Left out: the name of the resource.
    #[schemars(schema_with = "formats::file_name")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The one certificate, as PEM: `-----BEGIN CERTIFICATE-----` and what follows.
    #[schemars(length(min = 1, max = 65536))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The one certificate, as PEM, from a ConfigMap or Secret of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_from: Option<ContentSource>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

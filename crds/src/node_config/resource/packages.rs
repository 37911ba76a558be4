//! Packages and where they come from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContentSource, Ensure, formats};

/// A package of the system's package manager (apt or dnf). Packages that follow each other are one transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.version) || !has(self.ensure) || self.ensure == 'Present'",
    "only a package that is Present has a version; leave version out"
))]
pub struct Package {
    /// The package's name. Left out: the name of the resource.
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9+._-]*$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub package: Option<String>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<PackageEnsure>,
    /// Exactly this version. Left out: any that is installed, else the newest that the machine's repositories offer.
    #[schemars(length(max = 128))]
    #[x_kube(validation = ("self.contains('{{') || self.matches('^[A-Za-z0-9.+:~^_-]+$')", "write a whole version as the package manager prints it, such as \"1:2.4.57-2\"; there are no wildcards"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// Held back from upgrades by others (`apt-mark hold`, `dnf versionlock`), or not. Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<bool>,
    /// Whether a newer version that is installed is replaced by `version`; else that is an error. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allow_downgrade: Option<bool>,
}

/// Whether a package is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PackageEnsure {
    /// Installed.
    #[default]
    Present,
    /// Not installed.
    Absent,
    /// Installed, and the newest that the repositories offer at each run: machines may differ by when they looked.
    Latest,
}

/// A repository of apt: `/etc/apt/sources.list.d/NAME.sources`, its key, and a refresh of its lists when that changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' || has(self.uris) && has(self.suites)",
    "a repository has uris and suites; to remove one write ensure: Absent"
))]
pub struct AptRepository {
    /// Names the files. Left out: the name of the resource.
    #[schemars(schema_with = "formats::file_name")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Where it is, such as `https://deb.debian.org/debian`.
    #[schemars(length(max = 16), inner(length(max = 1024), regex(pattern = r"^[a-z][a-z0-9+]*:[^\s]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub uris: Vec<String>,
    /// Its suites, such as `bookworm`; one that ends with a slash is a path and has no components.
    #[schemars(length(max = 16), inner(length(max = 255), regex(pattern = r"^[^\s]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub suites: Vec<String>,
    /// Its components, such as `main`.
    #[schemars(length(max = 16), inner(length(max = 255), regex(pattern = r"^[^\s]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub components: Vec<String>,
    /// Binary packages, source packages, or both. Left out: `Deb`.
    #[schemars(length(max = 2))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub types: Vec<AptType>,
    /// Only these architectures, such as `amd64`. Left out: the machine's.
    #[schemars(length(max = 16), inner(length(max = 32), regex(pattern = r"^[a-z0-9-]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub architectures: Vec<String>,
    /// The key that its lists are signed with. Left out: any key that apt trusts for all repositories.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed_by: Option<SignedBy>,
    /// Whether apt uses it. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enabled: Option<bool>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

/// A key that signs a repository. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.key), has(self.keyFrom), has(self.path)].filter(x, x).size() == 1",
    "signedBy has exactly one of key, keyFrom and path"
))]
pub struct SignedBy {
    /// The armored public key: `-----BEGIN PGP PUBLIC KEY BLOCK-----` and what follows. It goes to `/etc/apt/keyrings`.
    #[schemars(length(min = 1, max = 65536))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The armored public key from a ConfigMap or Secret of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_from: Option<ContentSource>,
    /// A keyring that is on the machine already, such as `/usr/share/keyrings/debian-archive-keyring.gpg`.
    #[schemars(schema_with = "formats::path")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// What a repository of apt offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AptType {
    /// Binary packages.
    Deb,
    /// Source packages.
    DebSrc,
}

/// A repository of dnf or yum: `/etc/yum.repos.d/NAME.repo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.baseurl), has(self.mirrorlist), has(self.metalink), has(self.ensure) && self.ensure == 'Absent'].filter(x, x).size() == 1",
    "a repository has exactly one of baseurl, mirrorlist and metalink; to remove one write ensure: Absent and none of them"
))]
pub struct YumRepository {
    /// Its id, which also names the file. Left out: the name of the resource.
    #[schemars(schema_with = "formats::file_name")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// What it is, for people. Left out: its id.
    #[schemars(schema_with = "formats::line")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Where it is; `$releasever` and `$basearch` are filled in by dnf.
    #[schemars(length(max = 16), inner(length(max = 1024), regex(pattern = r"^[a-z]+://[^\s]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub baseurl: Vec<String>,
    /// A URL that lists where it is.
    #[schemars(length(max = 1024), regex(pattern = r"^[a-z]+://[^\s]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mirrorlist: Option<String>,
    /// A URL of a metalink file.
    #[schemars(length(max = 1024), regex(pattern = r"^[a-z]+://[^\s]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metalink: Option<String>,
    /// URLs of the keys that its packages are signed with; `file://` for keys on the machine.
    #[schemars(length(max = 16), inner(length(max = 1024), regex(pattern = r"^[a-z]+://[^\s]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gpgkey: Vec<String>,
    /// Whether signatures of packages are checked. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gpgcheck: Option<bool>,
    /// Whether dnf uses it. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enabled: Option<bool>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

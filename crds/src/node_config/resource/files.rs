//! Files, directories and links as wholes, and what is fetched by its digest.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{ContentSource, Ensure, formats};

/// A file: old or new, never half written; owner and mode are right before it appears.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.content) && !has(self.template) && !has(self.contentFrom) : [has(self.content), has(self.template), has(self.contentFrom)].filter(x, x).size() == 1",
    "a file has exactly one of content, template and contentFrom; to remove a file write ensure: Absent and none of them"
))]
pub struct File {
    /// Where it is: absolute. Its directory must be there; require a `directory` resource that makes it.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// The whole content, as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The whole content as a Jinja template. It reads `facts` (such as `facts.networking.hostname`), `data` (from
    /// `dataFrom`) and `node.name`, `node.labels`. A name that is not known is an error, not an empty string.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// The whole content from a ConfigMap or Secret of this namespace; bytes stay as they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_from: Option<ContentSource>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Permission bits in octal, as a string: `"0644"`, which is also the default.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// The owner's name or number on the machine. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group's name or number on the machine. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// A command that must succeed before a new content takes the file's place, such as `["nginx", "-t", "-c", "%"]`. `%`
    /// stands for the path of the new content, which lies beside the file.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validate: Option<Vec<String>>,
}

/// A directory. Its own directory must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.ensure) || self.ensure == 'Present' || !has(self.keep)",
    "a directory that is Absent keeps nothing; leave keep out"
))]
pub struct Directory {
    /// Where it is: absolute.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// A directory that must go and is not empty is an error, unless `purge` is set. Left out:
    /// `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Permission bits in octal, as a string: `"0755"`, which is also the default.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// The owner's name or number on the machine. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group's name or number on the machine. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// Remove what is in it, except what resources of any NodeConfig of this machine put there, and `keep`. With `ensure:
    /// Absent`, remove it with all that is in it. Refused for directories of the system, such as `/etc`, for more than 10,000
    /// entries, and where an archive is unpacked. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub purge: Option<bool>,
    /// Names in the directory that `purge` leaves alone, with everything below them. `*` stands for any characters.
    #[schemars(length(max = 100), inner(length(max = 255), regex(pattern = r"^[^/\x00]+$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub keep: Vec<String>,
}

/// A symbolic link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.target) != (has(self.ensure) && self.ensure == 'Absent')",
    "a symlink has a target; to remove one write ensure: Absent and no target"
))]
pub struct Symlink {
    /// Where the link is: absolute. Its directory must be there.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// What the link says: absolute, or relative to the link's directory. It need not exist.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Only a link is removed, never a file. Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Replace a regular file or an empty directory that is in its place; else that is an error. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub force: Option<bool>,
}

/// A file from a URL. It is fetched when the file's digest is another one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Download {
    /// `https://`, `http://` or `file://`. With the digest, the way there need not be trusted.
    #[schemars(schema_with = "formats::url")]
    pub url: String,
    /// The SHA-256 of what must arrive, as `sha256sum` prints it.
    #[schemars(schema_with = "formats::sha256")]
    pub sha256: String,
    /// Where it goes: absolute. Its directory must be there.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// Permission bits in octal, as a string. Left out: `"0644"`.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// The owner's name or number on the machine. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group's name or number on the machine. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// The fetch is given up after so many seconds. Left out: 300.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<i32>,
}

/// An unpacked archive from a URL: tar, plain or compressed by gzip, xz or zstd, or zip. Another digest unpacks anew.
///
/// What the older archive has put there and the new one has not is removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// `https://`, `http://` or `file://`. With the digest, the way there need not be trusted.
    #[schemars(schema_with = "formats::url")]
    pub url: String,
    /// The SHA-256 of the archive, as `sha256sum` prints it.
    #[schemars(schema_with = "formats::sha256")]
    pub sha256: String,
    /// The directory that it is unpacked into: absolute, and there; require a `directory` resource that makes it.
    #[schemars(schema_with = "formats::path")]
    pub into: String,
    /// So many leading parts of each path in the archive are left out. Left out: 0.
    #[schemars(range(min = 0, max = 64))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strip_components: Option<i32>,
    /// The owner of all that is unpacked; owners in the archive are ignored. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group of all that is unpacked. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// The fetch is given up after so many seconds. Left out: 300.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<i32>,
}

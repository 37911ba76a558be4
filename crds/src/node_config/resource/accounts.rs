//! Who is on a machine, how they get in, and what they may do.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{Ensure, KeyRef, formats};

/// A user account. What is left out stays as it is, or for a new account is as `useradd` makes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.groupsExclusive) || !self.groupsExclusive || has(self.groups)",
    "groupsExclusive needs groups: it takes the user out of all groups that are not named there"
))]
pub struct User {
    /// Its name. Left out: the name of the resource.
    #[schemars(length(max = 32), regex(pattern = r"^[a-z_][a-z0-9_.-]*\$?$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Its number.
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<i64>,
    /// Its primary group, by name or number; it must be there.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// Further groups, which must be there.
    #[schemars(length(max = 64), inner(length(max = 64), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$|\{\{")))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub groups: Option<Vec<String>>,
    /// Take it out of all further groups that `groups` does not name. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub groups_exclusive: Option<bool>,
    /// Its home directory.
    #[schemars(schema_with = "formats::path")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub home: Option<String>,
    /// Make the home directory where it is missing, move it when `home` changes, and remove it with an account that goes.
    /// Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manage_home: Option<bool>,
    /// Its login shell, such as `/bin/bash`.
    #[schemars(schema_with = "formats::path")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shell: Option<String>,
    /// Its full name.
    #[schemars(length(max = 255), regex(pattern = r"^[^:\r\n]*$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
    /// Make a new account as a system account. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub system: Option<bool>,
    /// The hash of its password, as crypt(5) writes it (`mkpasswd`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub password_hash: Option<PasswordHash>,
    /// Whether its password is locked; keys still let it in. Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locked: Option<bool>,
}

/// Where the hash of a password comes from: a Secret, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordHash {
    /// A key of a Secret of this namespace.
    pub secret_key_ref: KeyRef,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its name. Left out: the name of the resource.
    #[schemars(length(max = 32), regex(pattern = r"^[a-z_][a-z0-9_.-]*\$?$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Its number. Left out: as it is.
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid: Option<i64>,
    /// Make a new group as a system group. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub system: Option<bool>,
}

/// Keys that may log in as a user by SSH.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!(has(self.exclusive) && self.exclusive && has(self.ensure) && self.ensure == 'Absent')",
    "exclusive removes all other keys, so these can not be Absent; leave one of the two out"
))]
pub struct AuthorizedKey {
    /// The user, who must be there; require a `user` resource that makes it.
    #[schemars(schema_with = "formats::account")]
    pub user: String,
    /// Lines of `authorized_keys`, such as `ssh-ed25519 AAAA… ann@laptop`; options may come first. Two keys are the same
    /// when their types and their base64 are.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 16384)))]
    pub keys: Vec<String>,
    /// Remove all other keys of the user. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exclusive: Option<bool>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// The file. Left out: `.ssh/authorized_keys` in the user's home directory.
    #[schemars(schema_with = "formats::path")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// What users may do by sudo: `/etc/sudoers.d/NAME`, mode 0440. `visudo` checks it before it takes its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.lines) && !has(self.content) && !has(self.template) : [has(self.lines), has(self.content), has(self.template)].filter(x, x).size() == 1",
    "a sudoers file has exactly one of lines, content and template; to remove it write ensure: Absent and none of them"
))]
pub struct Sudoers {
    /// Names the file; sudo ignores names with `.` and `~`. Left out: the name of the resource.
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The rules, one a line, such as `%admin ALL=(ALL:ALL) NOPASSWD: ALL`.
    #[schemars(length(max = 200), inner(length(max = 1024), regex(pattern = r"^[^\r\n\x00]*$|\{\{")))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lines: Vec<String>,
    /// The whole file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The whole file as a Jinja template; see `file.template`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

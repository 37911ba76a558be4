//! Commands and reboots.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{KeyRef, formats};

/// A command. It runs at each run of the agent unless a guard says that its work is done, so give it one: `creates`,
/// `unless`, `onlyIf` or `refreshOnly`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.creates) || has(self.unless) || has(self.onlyIf) || (has(self.refreshOnly) && self.refreshOnly)",
    "an exec without a guard would run at every check of the machine; add creates, unless, onlyIf or refreshOnly: true"
))]
pub struct Exec {
    /// The program and its arguments, without a shell; for a shell write `["sh", "-c", "…"]`.
    #[schemars(length(min = 1, max = 128))]
    pub command: Vec<String>,
    /// The work is done when this path exists.
    #[schemars(schema_with = "formats::path")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creates: Option<String>,
    /// The work is done when this command exits with 0.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unless: Option<Vec<String>>,
    /// The work is needed only when this command exits with 0.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub only_if: Option<Vec<String>>,
    /// Run only when a resource that notifies this one changed. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refresh_only: Option<bool>,
    /// The working directory. Left out: `/`.
    #[schemars(length(max = 1024), regex(pattern = r"^/[^\x00]*$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cwd: Option<String>,
    /// The user that it and its guards run as, by name or number. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// Its umask in octal, as a string. Left out: `"0022"`.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub umask: Option<String>,
    /// Environment variables beside `PATH`. They are readable by all who may read the NodeConfig: no place for secrets.
    #[schemars(extend("maxProperties" = 64))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub environment: Option<BTreeMap<String, String>>,
    /// Environment variables from ConfigMaps and Secrets of this namespace; they win over `environment`.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub environment_from: Vec<EnvironmentSource>,
    /// The command and its children are ended after so many seconds, and so is each guard. Left out: 300.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<i32>,
    /// So often it is tried in all, when it fails. Left out: 1.
    #[schemars(range(min = 1, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tries: Option<i32>,
    /// So many seconds pass between two tries. Left out: 0.
    #[schemars(range(min = 0, max = 3600))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub try_sleep_seconds: Option<i32>,
    /// The exit codes that are success. Left out: 0.
    #[schemars(length(max = 64), inner(range(min = 0, max = 255)))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exit_codes: Vec<i32>,
}

/// One environment variable from a ConfigMap or Secret. Exactly one of the two references is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.configMapKeyRef) != has(self.secretKeyRef)",
    "a reference has exactly one of configMapKeyRef and secretKeyRef"
))]
pub struct EnvironmentSource {
    /// The variable.
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$|\{\{"))]
    pub name: String,
    /// A key of a ConfigMap of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret of this namespace. The value reaches the command alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret_key_ref: Option<KeyRef>,
}

/// A reboot, when a resource that notifies this one changed. The machine reboots when its Rollout brings that about under
/// its disruption rules, never by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reboot {
    /// Why, for people.
    #[schemars(schema_with = "formats::line")]
    pub reason: String,
    /// Also when the system itself asks for one, as Debian and its relatives do by `/run/reboot-required`. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub when_system_asks: Option<bool>,
}

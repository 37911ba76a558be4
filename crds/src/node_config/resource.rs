//! The types of things that a NodeConfig can say of a machine, by family.
//!
//! Formats of single fields are `pattern`, `enum` and bounds, which cost the API server nothing worth counting; CEL is for
//! rules between fields, and for the few formats whose advice is worth it. Whatever is not refused here is refused when the
//! NodeConfig is compiled.

mod accounts;
mod commands;
mod edits;
mod files;
mod formats;
mod kernel;
mod packages;
mod services;
mod system;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    accounts::{AuthorizedKey, Group, PasswordHash, Sudoers, User},
    commands::{EnvironmentSource, Exec, Reboot},
    edits::{Block, Ini, Line},
    files::{Archive, Directory, Download, File, Symlink},
    kernel::{KernelModule, Mount, MountEnsure, Swap, Sysctl},
    packages::{AptRepository, AptType, Package, PackageEnsure, SignedBy, YumRepository},
    services::{Cron, NotifyAction, Service, ServiceStateWanted, SystemdDropIn, SystemdUnit, Timer},
    system::{CaCertificate, Hostname, HostsEntry, Limit as ProcessLimit, LimitType, Limits, Timezone},
};

/// Whether a thing is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ensure {
    /// It is there.
    #[default]
    Present,
    /// It is not there.
    Absent,
}

/// Content from a key of a ConfigMap or Secret. Exactly one of `configMapKeyRef` and `secretKeyRef` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.configMapKeyRef) != has(self.secretKeyRef)",
    "content comes from exactly one of configMapKeyRef and secretKeyRef"
))]
pub struct ContentSource {
    /// A key of a ConfigMap of this namespace, of its `data` or its `binaryData`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret_key_ref: Option<KeyRef>,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

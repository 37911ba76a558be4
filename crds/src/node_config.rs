mod resource;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::resource::{
    AptRepository, AptType, Archive, AuthorizedKey, Block, CaCertificate, ContentSource, Cron, Directory, Download,
    Ensure, EnvironmentSource, Exec, File, Group, Hostname, HostsEntry, Ini, KernelModule, KeyRef, LimitType, Limits,
    Line, Mount, MountEnsure, NotifyAction, Package, PackageEnsure, PasswordHash, ProcessLimit, Reboot, Service,
    ServiceStateWanted, SignedBy, Sudoers, Swap, Symlink, Sysctl, SystemdDropIn, SystemdUnit, Timer, Timezone, User,
    YumRepository,
};

/// The desired state of the machines that it selects.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "NodeConfig",
    namespaced,
    status = "NodeConfigStatus",
    derive = "PartialEq",
    category = "drover",
    shortname = "nconf",
    doc = "What machines must look like. Each change of a NodeConfig, or of a ConfigMap or Secret that it reads, makes a \
           new revision. No machine changes by that alone: a Rollout moves the revision over them.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Hosts", type_ = "integer", json_path = ".status.hosts"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updated"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfigSpec {
    /// Which Hosts it is for, by their labels; a cluster node's Host has the labels of its Node. Left out or empty: all
    /// Hosts of the namespace. Example: `{matchLabels: {node-role.kubernetes.io/worker: ""}}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_selector: Option<LabelSelector>,
    /// What must be so on each machine. Resources are applied in their order here, after those that they require,
    /// those that say they come before them, and those that notify them. Packages come after the repositories of the
    /// same NodeConfig, and together where nothing between them can matter to the package manager.
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub resources: Vec<NodeConfigResource>,
    /// Data for templates, which read it as `data.KEY`. Later entries win over earlier ones. A change of this data is a
    /// new revision.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 32))]
    pub data_from: Vec<DataSource>,
    /// What happens between Rollouts, when a machine no longer is as its revision says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drift: Option<Drift>,
    /// How many revisions that no machine has are kept. Left out: 10.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: Option<i32>,
}

/// One thing that must be so. It has a name and exactly one type, such as `file`, `package` or `service`.
// Each type is boxed: a resource has one of them, and room for all would be kilobytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.file), has(self.directory), has(self.symlink), has(self.line), has(self.block), has(self.ini), has(self.download), has(self.archive), has(self.package), has(self.aptRepository), has(self.yumRepository), has(self.service), has(self.systemdUnit), has(self.systemdDropIn), has(self.timer), has(self.cron), has(self.user), has(self.group), has(self.authorizedKey), has(self.sudoers), has(self.sysctl), has(self.kernelModule), has(self.mount), has(self.swap), has(self.limits), has(self.hostname), has(self.timezone), has(self.hostsEntry), has(self.caCertificate), has(self.exec), has(self.reboot)].filter(x, x).size() == 1",
    "a resource has exactly one type, such as file, package or service; write each thing as a resource of its own"
))]
pub struct NodeConfigResource {
    /// Names the resource within the NodeConfig, for `require`, `notify`, reports and messages.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')", "write a name of lower case letters, digits, - and ., with a letter or digit at both ends"))]
    pub name: String,
    /// A file: old or new, never half written; owner and mode are right before it appears.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<Box<File>>,
    /// A directory. Its own directory must be there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directory: Option<Box<Directory>>,
    /// A symbolic link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub symlink: Option<Box<Symlink>>,
    /// One line of a file. The rest of the file, its owner and its mode stay as they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<Box<Line>>,
    /// Lines of a file between two marker lines. The rest of the file, its owner and its mode stay as they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub block: Option<Box<Block>>,
    /// One setting of an INI file. The rest of the file, its owner and its mode stay as they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ini: Option<Box<Ini>>,
    /// A file from a URL. It is fetched when the file's digest is another one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub download: Option<Box<Download>>,
    /// An unpacked archive from a URL: tar, plain or compressed by gzip, xz, zstd or bzip2, or zip. Another digest unpacks
    /// anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub archive: Option<Box<Archive>>,
    /// A package of the system's package manager (apt or dnf). Packages that follow each other are one transaction.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub package: Option<Box<Package>>,
    /// A repository of apt: `/etc/apt/sources.list.d/NAME.sources`, its key, and a refresh of its lists when that changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub apt_repository: Option<Box<AptRepository>>,
    /// A repository of dnf or yum: `/etc/yum.repos.d/NAME.repo`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub yum_repository: Option<Box<YumRepository>>,
    /// The state of a systemd unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<Box<Service>>,
    /// A unit file in `/etc/systemd/system`. systemd reads it when it changed; notify a `service` to restart its unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub systemd_unit: Option<Box<SystemdUnit>>,
    /// Settings that are laid over a unit: `/etc/systemd/system/UNIT.d/NAME.conf`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub systemd_drop_in: Option<Box<SystemdDropIn>>,
    /// A command that systemd runs by the clock: a `.service` and a `.timer` in `/etc/systemd/system`; the timer runs and
    /// starts at boot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timer: Option<Box<Timer>>,
    /// A command that cron runs: `/etc/cron.d/NAME`. A `timer` can do the same and says when it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cron: Option<Box<Cron>>,
    /// A user account. What is left out stays as it is, or for a new account is as `useradd` makes it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<Box<User>>,
    /// A group.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<Box<Group>>,
    /// Keys that may log in as a user by SSH.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub authorized_key: Option<Box<AuthorizedKey>>,
    /// What users may do by sudo: `/etc/sudoers.d/NAME`, mode 0440. `visudo` checks it before it takes its place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sudoers: Option<Box<Sudoers>>,
    /// A kernel parameter, live and, through a file in `/etc/sysctl.d`, after a reboot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sysctl: Option<Box<Sysctl>>,
    /// A kernel module: loaded now, loaded at boot (`/etc/modules-load.d/drover-NAME.conf`), with options or blacklisted
    /// (`/etc/modprobe.d/drover-NAME.conf`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kernel_module: Option<Box<KernelModule>>,
    /// A file system: mounted now, and by a line of `/etc/fstab` at boot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mount: Option<Box<Mount>>,
    /// A swap file, or a block device with swap on it: active now, and by a line of `/etc/fstab` at boot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub swap: Option<Box<Swap>>,
    /// Limits of users' processes, by `pam_limits`: `/etc/security/limits.d/NAME.conf`. They hold from the next login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limits: Option<Box<Limits>>,
    /// The machine's name: in the kernel and in `/etc/hostname`. A cluster node registers under its name, so leave that
    /// alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hostname: Option<Box<Hostname>>,
    /// The machine's time zone: `/etc/localtime`, and `/etc/timezone` on Debian and its relatives.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timezone: Option<Box<Timezone>>,
    /// A line of `/etc/hosts`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts_entry: Option<Box<HostsEntry>>,
    /// A certificate authority that the whole machine trusts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ca_certificate: Option<Box<CaCertificate>>,
    /// A command. It runs at each run of the agent unless a guard says that its work is done, so give it one: `creates`,
    /// `unless`, `onlyIf` or `refreshOnly`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exec: Option<Box<Exec>>,
    /// A reboot, when a resource that notifies this one changed. The machine reboots when its Rollout brings that about
    /// under its disruption rules, never by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reboot: Option<Box<Reboot>>,
    /// Names of resources of this NodeConfig that come first. When one of them fails, this one is skipped.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 64))]
    pub require: Vec<String>,
    /// Names of resources of this NodeConfig that come later. When this one fails, they are skipped.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 64))]
    pub before: Vec<String>,
    /// Names of resources of this NodeConfig that are told at the end of the run when this one changed: once, whatever else
    /// told them, and wherever they are written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 64))]
    pub notify_at_end: Vec<String>,
    /// Names of resources of this NodeConfig that come later and are told when this one changed: a service restarts, an
    /// exec with `refreshOnly` runs. A notification survives a crash between the change and the restart.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 64))]
    pub notify: Vec<String>,
}

/// Where data for templates comes from. Exactly one of `configMapRef` and `secretRef` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.configMapRef) != has(self.secretRef)", "an entry of dataFrom has exactly one of configMapRef and secretRef"))]
pub struct DataSource {
    /// All keys of a ConfigMap of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config_map_ref: Option<ConfigMapSource>,
    /// All keys of a Secret of this namespace. The values go to the machines whose templates read them, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret_ref: Option<SecretSource>,
}

/// A ConfigMap of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Secret of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What happens between Rollouts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// How often an agent compares its machine with the active revision and corrects what differs, in seconds. Left out:
    /// 1800.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 10, max = 86400))]
    pub interval_seconds: Option<i32>,
}

/// How the NodeConfig is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfigStatus {
    /// The generation of the NodeConfig that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Ready` (its newest revision can be rolled out), `Invalid`, `MissingData`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<String>,
    /// One line about the phase.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The newest revision: the one that Rollouts move. It compiles for each selected Host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// The newest revision that a Rollout completed. A new machine starts with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completed_revision: Option<String>,
    /// How many Hosts it selects.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts: Option<i32>,
    /// How many of them have the newest revision active and converged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub updated: Option<i32>,
    /// On how many of them the last run of the agent failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failed: Option<i32>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl NodeConfigSpec {
    /// How often agents look at their machine again, in seconds.
    pub fn resolved_interval_seconds(&self) -> u32 {
        let seconds = self.drift.as_ref().and_then(|drift| drift.interval_seconds).unwrap_or(1800);
        u32::try_from(seconds).unwrap_or(1800)
    }

    /// How many unused revisions are kept.
    pub fn resolved_history_limit(&self) -> usize {
        self.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10)
    }
}

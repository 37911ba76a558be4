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
    printcolumn(name = "Drifted", type_ = "integer", json_path = ".status.drifted"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.cost", priority = 1),
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
    /// Where it stands among the NodeConfigs of a machine: those of a higher priority are applied first, equal ones by
    /// name. When two claim one thing of a machine, the one that is not assigned to it yet gives way, else the one of the
    /// lower priority, else the newer one. Left out: 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: Option<i32>,
    /// Data for templates, which read it as `data.KEY`. Each entry is a layer. Of the layers that are for a machine the
    /// most specific wins: the one whose `hostSelector` has the most requirements (entries of `matchLabels` and of
    /// `matchExpressions`); among equals, the one that is written later. With `format: Yaml` maps are merged key by key,
    /// at any depth; lists and single values are replaced as a whole. A change of this data is a new revision.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 32))]
    pub data_from: Vec<DataSource>,
    /// What happens between Rollouts, when a machine no longer is as its revision says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drift: Option<Drift>,
    /// What changes cost those who use a machine, where the nature of a resource does not say it right.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disruption: Option<DisruptionPolicy>,
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
    /// An unpacked archive from a URL: tar, plain or compressed by gzip, xz or zstd, or zip. Another digest unpacks anew.
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
    /// A condition, as a Jinja expression over `facts`, `data` and `node`: `facts.os.family == 'Debian'`. It gives true or
    /// false. Where it is false, the machine's catalog is without this resource, and others that require or notify it do
    /// without. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// Each string of the resource's type (a path, a content, a value) is a Jinja template, which reads the same as
    /// `template`. What comes out must be as the field wants it. Names of ConfigMaps and Secrets, and `template`, which is
    /// one anyway, are left as they are. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub render: Option<bool>,
    /// What happens when a machine differs although this resource did not change. Left out: `spec.drift.mode`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drift: Option<DriftMode>,
    /// What a change of this resource costs those who use the machine. Left out: as `spec.disruption` says, else by nature.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disruption: Option<DisruptionLevel>,
    /// No diff of it is shown, no backup is kept, and its report is without the values before and after and without what a
    /// program of it printed. A resource that reads a Secret is so by itself. With `render: true` over a Secret not even its
    /// path is shown. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sensitive: Option<bool>,
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
    /// Which Hosts this layer is for, by their labels. Left out or empty: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_selector: Option<LabelSelector>,
    /// How the values are read. Left out: `Text`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub format: Option<DataFormat>,
}

/// How the values of a ConfigMap or Secret are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataFormat {
    /// Each value is a string.
    #[default]
    Text,
    /// Each value is YAML, or JSON, which is YAML: a template can loop over its lists and read its maps.
    Yaml,
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
    /// How often an agent compares its machine with the active revision, in seconds. Left out: 1800.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 10, max = 86400))]
    pub interval_seconds: Option<i32>,
    /// What it does about a difference. A resource may have another mode. Left out: `Correct`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<DriftMode>,
}

/// What happens when a machine differs although its revision did not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftMode {
    /// It is corrected.
    #[default]
    Correct,
    /// It is reported, and left so.
    Report,
    /// Nobody looks.
    Ignore,
}

/// What changes cost. The first that says something counts: the resource's own `disruption`, the first rule that fits it,
/// `default`, the nature of the resource (what its change, and what it notifies, does to a service or the machine).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionPolicy {
    /// For all resources without a `disruption` of their own that no rule fits. Left out: by nature.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<DisruptionLevel>,
    /// The first rule that fits a resource counts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 100))]
    pub rules: Vec<DisruptionRule>,
}

/// What changes of some resources cost. A resource fits when it fits both `resources` and `types`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionRule {
    /// Names of resources; `*` stands for any characters. Left out: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 100))]
    pub resources: Vec<String>,
    /// Types as they are written in a resource: `file`, `service`. Left out: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 100))]
    pub types: Vec<String>,
    /// What a change costs.
    pub disruption: DisruptionLevel,
}

/// What a change costs those who use a machine, from nothing to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum DisruptionLevel {
    /// Nobody notices.
    None,
    /// A service reads its configuration again.
    Reload,
    /// A service restarts.
    Restart,
    /// The machine's work must go elsewhere first.
    Drain,
    /// The machine reboots.
    Reboot,
}

/// How the NodeConfig is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfigStatus {
    /// The generation of the NodeConfig that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Ready` (its newest revision can be rolled out), `Invalid`, `MissingData`, `Conflict` (another
    /// NodeConfig has what it claims; nothing of its newest content is applied).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<String>,
    /// One line about the phase.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The newest revision: the one that Rollouts move. It compiles for each selected Host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// The newest revision that a Rollout completed. A new machine starts with it. When that run is undone, what all machines
    /// have again; nothing while they do not all have the same.
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
    /// How many of them differ from it by themselves: the last run of the agent corrected something, left it (drift mode
    /// `Report`), or saw it change at each run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drifted: Option<i32>,
    /// What a change of each resource costs; from most to nothing.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub disruption: Vec<EffectiveDisruption>,
    /// How many Hosts the newest revision would cost what, once it is rolled out to all of them. Absent when each has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pending: Option<PendingCost>,
    /// The same in words, such as `2 Reboot, 1 Restart, 40 None, 957 no-op`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<String>,
    /// What it claims and another NodeConfig has; at most 20. The other one has the condition `Conflict` as well.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub conflicts: Vec<ClaimConflict>,
    /// `Ready`, `Reconciling`, `Stalled`; and `Conflict` while it and another NodeConfig claim one thing of a Host.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What a change of some resources costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveDisruption {
    /// What a change costs; on the Host where it costs most.
    pub disruption: DisruptionLevel,
    /// How many resources there are.
    pub count: i32,
    /// The names of the first 50.
    pub resources: Vec<String>,
}

/// How many Hosts a revision would cost what. Each counts once, for the most that it would cost it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingCost {
    /// They would reboot.
    pub reboot: i32,
    /// Their work would have to go elsewhere first.
    pub drain: i32,
    /// A service would restart.
    pub restart: i32,
    /// A service would reload.
    pub reload: i32,
    /// Something changes, and nobody notices.
    pub none: i32,
    /// Nothing changes.
    pub noop: i32,
}

/// A thing that two NodeConfigs claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimConflict {
    /// The NodeConfig that has it.
    pub node_config: String,
    /// The thing, such as `path:/etc/motd`.
    pub claim: String,
    /// A Host on which they meet.
    pub host: String,
    /// On how many Hosts they do.
    pub hosts: i32,
}

impl NodeConfigSpec {
    /// How often agents look at their machine again, in seconds.
    pub fn resolved_interval_seconds(&self) -> u32 {
        let seconds = self.drift.as_ref().and_then(|drift| drift.interval_seconds).unwrap_or(1800);
        u32::try_from(seconds).unwrap_or(1800)
    }

    /// What happens when a machine differs, unless a resource says otherwise.
    pub fn resolved_drift_mode(&self) -> DriftMode {
        self.drift.as_ref().and_then(|drift| drift.mode).unwrap_or_default()
    }

    /// Where it stands among the NodeConfigs of a machine.
    pub fn resolved_priority(&self) -> i32 {
        self.priority.unwrap_or(0)
    }

    /// How many unused revisions are kept.
    pub fn resolved_history_limit(&self) -> usize {
        self.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10)
    }
}

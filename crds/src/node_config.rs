use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What must be so on each machine. Resources are applied in their order here, after those that they require and
    /// those that notify them.
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

/// One thing that must be so. Exactly one of `file`, `directory`, `exec`, `service`, `package`, `sysctl` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.file), has(self.directory), has(self.exec), has(self.service), has(self.package), has(self.sysctl)].filter(x, x).size() == 1",
    "a resource has exactly one of file, directory, exec, service, package or sysctl; write each thing as a resource of its own"
))]
pub struct NodeConfigResource {
    /// Names the resource within the NodeConfig, for `require`, `notify`, reports and messages.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')", "write a name of lower case letters, digits, - and ., with a letter or digit at both ends"))]
    pub name: String,
    /// A file: old or new, never half written; owner and mode are right before it appears.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<File>,
    /// A directory. Its own directory must be there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directory: Option<Directory>,
    /// A command. It runs at each run of the agent unless a guard says that its work is done, so give it one: `creates`,
    /// `unless`, `onlyIf` or `refreshOnly`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exec: Option<Exec>,
    /// The state of a systemd unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<Service>,
    /// A package of the system's package manager (apt).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub package: Option<Package>,
    /// A kernel parameter, live and, through a file in `/etc/sysctl.d`, after a reboot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sysctl: Option<Sysctl>,
    /// Names of resources of this NodeConfig that come first. When one of them fails, this one is skipped.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 64))]
    pub require: Vec<String>,
    /// Names of resources of this NodeConfig that come later and are told when this one changed: a service restarts, an
    /// exec with `refreshOnly` runs. A notification survives a crash between the change and the restart.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 64))]
    pub notify: Vec<String>,
    /// A condition, as a Jinja expression over `facts`, `data` and `node`: `facts.os.family == 'debian'`. It gives true or
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
    /// No value of it is shown in a diff, a report or a backup. A resource that reads a Secret is so by itself. Left out:
    /// false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sensitive: Option<bool>,
}

/// Whether a thing is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ensure {
    /// It is there.
    #[default]
    Present,
    /// It is not there.
    Absent,
}

/// A file: old or new, never half written; owner and mode are right before it appears.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.content) && !has(self.template) : has(self.content) != has(self.template)",
    "a file has either content or template; to remove a file write ensure: Absent and neither of them"
))]
pub struct File {
    /// Where it is: absolute. Its directory must be there; require a `directory` resource that makes it.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = (
        r"self.matches(r'^(/[^/\x00]+)+$') && !self.matches(r'/\.\.?(/|$)')",
        "write an absolute path, without . and .. parts and without a slash at its end"
    ))]
    pub path: String,
    /// The whole content, as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The whole content as a Jinja template. It reads `facts` (such as `facts.networking.hostname`), `data` (from
    /// `dataFrom`) and `node.name`, `node.labels`. A name that is not known is an error, not an empty string.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// `Present` or `Absent`. Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Permission bits in octal, as a string: `"0644"`, which is also the default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 8))]
    #[x_kube(validation = ("self.matches('^[0-7]{3,4}$')", "write the permission bits as a string of three or four octal digits, such as \"0644\""))]
    pub mode: Option<String>,
    /// The owner's name or number on the machine. Left out: `root`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 64))]
    pub owner: Option<String>,
    /// The group's name or number on the machine. Left out: `root`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
}

/// A directory. Its own directory must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    /// Where it is: absolute.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = (
        r"self.matches(r'^(/[^/\x00]+)+$') && !self.matches(r'/\.\.?(/|$)')",
        "write an absolute path, without . and .. parts and without a slash at its end"
    ))]
    pub path: String,
    /// Permission bits in octal, as a string: `"0755"`, which is also the default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 8))]
    #[x_kube(validation = ("self.matches('^[0-7]{3,4}$')", "write the permission bits as a string of three or four octal digits, such as \"0644\""))]
    pub mode: Option<String>,
    /// The owner's name or number on the machine. Left out: `root`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 64))]
    pub owner: Option<String>,
    /// The group's name or number on the machine. Left out: `root`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
}

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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = ("self.startsWith('/')", "write an absolute path"))]
    pub creates: Option<String>,
    /// The work is done when this command exits with 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 128))]
    pub unless: Option<Vec<String>>,
    /// The work is needed only when this command exits with 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 128))]
    pub only_if: Option<Vec<String>>,
    /// Run only when a resource that notifies this one changed. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refresh_only: Option<bool>,
    /// The working directory. Left out: `/`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = ("self.startsWith('/')", "write an absolute path"))]
    pub cwd: Option<String>,
    /// Environment variables beside `PATH`. They are readable by all who may read the NodeConfig: no place for secrets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub environment: Option<BTreeMap<String, String>>,
    /// The command and its children are ended after so many seconds, and so is each guard. Left out: 300.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
}

/// The state of a systemd unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.state) || has(self.enabled)", "a service says something of its unit: add state: Running or Stopped, or enabled: true or false"))]
pub struct Service {
    /// The unit. Without a suffix it is a `.service`: `nginx`, `backup.timer`.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (r"self.matches(r'^[A-Za-z0-9:_.\\@-]+$')", "write the name of a unit, such as nginx or backup.timer: letters, digits and : _ . \\ @ -"))]
    pub unit: String,
    /// `Running` or `Stopped`. Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<ServiceStateWanted>,
    /// Whether it starts at boot. Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enabled: Option<bool>,
    /// What a notification does. Left out: `Restart`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_notify: Option<NotifyAction>,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceStateWanted {
    /// It runs.
    Running,
    /// It does not run.
    Stopped,
}

/// What a notification does to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NotifyAction {
    /// Restart it.
    Restart,
    /// Reload it where the unit can, else restart it.
    Reload,
}

/// A package of the system's package manager (apt).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.version) || !has(self.ensure) || self.ensure == 'Present'", "a package that is Absent has no version; leave version out"))]
pub struct Package {
    /// The package's name. Left out: the name of the resource.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 128))]
    #[x_kube(validation = ("self.matches('^[a-z0-9][a-z0-9+.-]+$')", "write a package's name: lower case letters, digits and + . -, at least two of them"))]
    pub package: Option<String>,
    /// `Present` or `Absent`. Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Exactly this version. Left out: any that is installed, else the newest that the machine's repositories offer. A
    /// newer one that is installed is not downgraded; the resource fails and says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 128))]
    #[x_kube(validation = ("self.matches('^[A-Za-z0-9.+:~-]+$')", "write a whole version as the package manager prints it, such as \"1:2.4.57-2\"; there are no wildcards"))]
    pub version: Option<String>,
}

/// A kernel parameter, live and, through a file in `/etc/sysctl.d`, after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sysctl {
    /// The parameter, such as `net.ipv4.ip_forward`.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = ("self.matches('^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$')", "write the parameter as sysctl prints it, such as net.ipv4.ip_forward"))]
    pub key: String,
    /// The value as the kernel takes it, as a string: `"1"`, `"4096 87380 6291456"`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = (r"self.matches(r'^[^\n\x00]+$')", "write the value on one line"))]
    pub value: String,
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

/// Content from a key of a ConfigMap or Secret. Exactly one of `configMapKeyRef` and `secretKeyRef` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.configMapKeyRef) != has(self.secretKeyRef)", "content comes from exactly one of configMapKeyRef and secretKeyRef"))]
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

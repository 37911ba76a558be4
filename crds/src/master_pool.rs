use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rollout::{Window, WindowKind};

/// A pool of masters.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "MasterPool",
    namespaced,
    status = "MasterPoolStatus",
    derive = "PartialEq",
    category = "drover",
    shortname = "mpool",
    doc = "A pool of masters: they compile the catalogs of the machines and serve them to the agents. They are equal and \
           keep nothing: any of them may die at any time.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Masters", type_ = "string", json_path = ".status.masters"),
    printcolumn(name = "Hosts", type_ = "integer", json_path = ".status.hosts"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.replicas) || !has(self.autoscaling)", "write either replicas or autoscaling: with both, each would undo the other"))]
pub struct MasterPoolSpec {
    /// How many masters run, always. Two survive the loss of one. Left out: 2, where there is no `autoscaling` either.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[x_kube(validation = ("self >= 1 && self <= 100", "write how many masters run, from 1 to 100; agents keep enforcing their last good catalog only while they have one, so a pool is never empty"))]
    pub replicas: Option<i32>,
    /// How many masters run, by what they have to do. Each may be lost at any time: the spare ones are part of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub autoscaling: Option<Autoscaling>,
    /// Which machines the pool serves, by the labels of their Hosts, such as those of an organisation, a subnet or a zone. Of
    /// several pools that select a machine, the one with the most requirements serves it, and of those the first by name. Left
    /// out: all machines that no other pool selects. `status.masterPool` of a Host says which pool it is.
    ///
    /// All masters know all machines: while none of a machine's own pool answers, the others serve it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_selector: Option<LabelSelector>,
    /// The zones that masters run in, as the label `topology.kubernetes.io/zone` of the nodes names them: a Deployment and a
    /// Service for each, with as many masters as its part of the machines needs, and one at least. A machine goes to the masters
    /// of its own zone, then to those of its region, then to all. Left out: one Deployment, whose masters are spread over what
    /// zones there are.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub zones: Vec<PoolZone>,
    /// The certificates of the masters. Left out: the operator makes them, and an authority that signs them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificates: Option<PoolCertificates>,
}

/// A zone that masters run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolZone {
    /// Its name, as the label `topology.kubernetes.io/zone` has it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = (r"self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$')", "write the zone as the label topology.kubernetes.io/zone of its nodes has it, such as eu-central-1a"))]
    pub name: String,
    /// Its region, as the label `topology.kubernetes.io/region` has it: its machines go to masters of other zones in it before they
    /// go further. Left out: none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = (r"self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$')", "write the region as the label topology.kubernetes.io/region of its nodes has it, such as eu-central-1"))]
    pub region: Option<String>,
}

/// Where the masters' certificates come from, and how a new authority takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCertificates {
    /// An issuer of cert-manager, which signs the masters' certificate instead of an authority of the operator's. It must tell its
    /// own certificate (`ca.crt` of the Secret that it makes), because agents trust that alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer_ref: Option<IssuerRef>,
    /// How long agents know a new authority before masters use it, and an old one after, in seconds. A ConfigMap takes a minute or
    /// two to reach all nodes. Left out: 3600.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 10, max = 604_800))]
    pub overlap_seconds: Option<i32>,
    /// Another number than before: the operator makes a new authority, as it does by itself in the last year of the old one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub authority_generation: Option<i32>,
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer`, of this namespace, or `ClusterIssuer`; or the kind of an external issuer. Left out: `Issuer`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// The API group of its kind. Left out: `cert-manager.io`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 253))]
    pub group: Option<String>,
}

/// How many masters run, by what they have to do: the time that they compile, the requests that they answer, what waits,
/// and what the plan of the machines' runs says. `status.scale` tells why there are as many as there are.
///
/// For example `{min: 2, max: 8, redundancy: N+1, schedule: [{schedule: "0 7 * * MON-FRI", durationSeconds: 43200,
/// timeZone: Europe/Berlin, min: 4}]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.min) || self.min <= self.max", "min is greater than max: write a smaller min or a larger max"))]
#[x_kube(validation = ("!has(self.schedule) || self.schedule.all(s, s.min <= self.max)", "an entry of schedule has a min that is greater than max: write a smaller min or a larger max"))]
pub struct Autoscaling {
    /// The fewest masters, spare ones included. Left out: 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 100))]
    pub min: Option<i32>,
    /// The most masters. More are never started; `status.scale` and the condition `ScalingLimited` tell when more were wanted.
    #[schemars(range(min = 1, max = 100))]
    pub max: i32,
    /// How many masters there are beside those that the load needs: `N+1` one, `N+2` two, `2N` as many again. Left out: `N+1`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redundancy: Option<Redundancy>,
    /// How much of a master's time may be used, in percent, before another one is needed. Left out: 60.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 10, max = 90))]
    pub target_utilization: Option<i32>,
    /// Times at which there are more masters at least, such as the hours in which revisions are rolled out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    pub schedule: Vec<MinimumWindow>,
}

/// How many masters there are beside those that the load needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Redundancy {
    /// One: any one may be lost.
    #[serde(rename = "N+1")]
    One,
    /// Two: one may be lost while another is replaced.
    #[serde(rename = "N+2")]
    Two,
    /// As many again: a whole zone may be lost.
    #[serde(rename = "2N")]
    Double,
}

/// A time that comes again and again, in which there are so many masters at least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MinimumWindow {
    /// When it begins, as a cron expression of five fields: minute, hour, day of month, month, day of week, such as
    /// `0 7 * * MON-FRI`.
    #[schemars(length(min = 9, max = 128))]
    #[x_kube(validation = (r"self.matches('^[^ ]+( +[^ ]+){4}$')", "write five fields with spaces between them: minute, hour, day of month, month, day of week; such as 0 7 * * MON-FRI"))]
    pub schedule: String,
    /// How long it lasts from each start, in seconds.
    #[schemars(range(min = 60, max = 2_678_400))]
    pub duration_seconds: i32,
    /// The time zone of `schedule`, by its IANA name, such as `Europe/Berlin`. Left out: `UTC`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = (r"self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')", "write the IANA name of a time zone, such as Europe/Berlin or UTC"))]
    pub time_zone: Option<String>,
    /// How many masters there are at least.
    #[schemars(range(min = 1, max = 100))]
    pub min: i32,
}

/// How the pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MasterPoolStatus {
    /// The generation of the MasterPool that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Starting`, `Ready`, `Degraded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<String>,
    /// One line about the phase.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Masters that serve, of those wanted: `2/2`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub masters: Option<String>,
    /// How many machines the pool serves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts: Option<i32>,
    /// The masters of each zone.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub zones: Vec<PoolZoneStatus>,
    /// How many masters there are to be, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scale: Option<PoolScale>,
    /// When the machines run that the pool serves, and what that asks of the masters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<PoolPlan>,
    /// Where agents reach the pool: the address and port of its Service.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`; `Overcommitted` and `ScalingLimited`; and `CertificateReady`, which is `False` while there
    /// is no certificate of the issuer that is asked for: masters go on with the one that they have. Its reason is then
    /// `NoCertManager`, `NotIssued` or `NoAuthority`; else how far the hand-over to a new authority is: `Announced` to agents,
    /// `Overlapping` when masters use it and agents still know the one before, `Current` when that is over.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The masters of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolZoneStatus {
    /// The zone.
    pub name: String,
    /// Masters that serve, of those wanted: `1/1`.
    pub masters: String,
    /// How many machines of the pool are in the zone.
    pub hosts: i32,
}

/// How many masters there are to be, and why. Numbers that are not whole are written as text, such as `2.6`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolScale {
    /// How many.
    pub replicas: i32,
    /// How many the load needs, without spare ones.
    pub needed: String,
    /// Why, in one line: `4 masters: 2.6 needed at p95 (compile time), +1 for N+1`.
    pub message: String,
    /// Seconds of compiling in a second, by all masters: the 95th percentile of the last minutes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compile_seconds_per_second: Option<String>,
    /// Requests in a second, to all masters: the 95th percentile of the last minutes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests_per_second: Option<String>,
    /// How long a catalog waited for its turn, in milliseconds: the 95th percentile of the last minutes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue_wait_millis: Option<i64>,
    /// Requests in a second that were sent away because a master was full.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusals_per_second: Option<String>,
}

/// When the machines run that the pool serves, and what that asks of the masters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolPlan {
    /// How many machines have a slot.
    pub hosts: i32,
    /// The intervals that NodeConfigs ask for, and the periods that they are rounded down to.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub periods: Vec<PlannedPeriod>,
    /// The width of a slot, in seconds.
    pub slot_seconds: i32,
    /// How many machines run in the fullest slot.
    pub fullest_slot: i32,
    /// How much of the masters' time that takes on average, in percent.
    pub utilization_percent: i32,
    /// How much of it in the fullest slot, in percent.
    pub peak_utilization_percent: i32,
    /// How many catalogs are compiled at once at most.
    pub peak_concurrency: i32,
    /// Whether the work of each slot ends within it. If not, the condition `Overcommitted` says by how much.
    pub fits: bool,
}

/// An interval, and what becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedPeriod {
    /// What NodeConfigs ask for, in seconds.
    pub interval_seconds: i32,
    /// How often the machines run, in seconds: no longer than that, and twice, four times … the shortest period.
    pub period_seconds: i32,
    /// How many machines.
    pub hosts: i32,
}

impl MasterPoolSpec {
    /// How many masters run where nothing scales them.
    pub fn resolved_replicas(&self) -> i32 {
        self.replicas.unwrap_or(2)
    }
}

impl PoolCertificates {
    /// How long agents know a new authority before masters use it, and an old one after, in seconds.
    pub fn resolved_overlap_seconds(&self) -> i32 {
        self.overlap_seconds.unwrap_or(3600)
    }
}

impl IssuerRef {
    /// What kind of issuer it is.
    pub fn resolved_kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Issuer")
    }

    /// The API group of its kind.
    pub fn resolved_group(&self) -> &str {
        self.group.as_deref().unwrap_or("cert-manager.io")
    }
}

impl Autoscaling {
    /// The fewest masters.
    pub fn resolved_min(&self) -> i32 {
        self.min.unwrap_or(2)
    }

    /// How many there are beside those that the load needs.
    pub fn resolved_redundancy(&self) -> Redundancy {
        self.redundancy.unwrap_or(Redundancy::One)
    }

    /// How much of a master's time may be used, in percent.
    pub fn resolved_target_utilization(&self) -> i32 {
        self.target_utilization.unwrap_or(60)
    }
}

impl MinimumWindow {
    /// When it is open.
    pub fn window(&self) -> Window {
        Window {
            kind: WindowKind::Allow,
            schedule: Some(self.schedule.clone()),
            duration_seconds: Some(self.duration_seconds),
            time_zone: self.time_zone.clone(),
            from: None,
            to: None,
            reason: None,
        }
    }
}
